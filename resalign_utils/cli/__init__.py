"""The package for a terminal or a cluster job: ``resalign diagnose``, ``resalign blocks``, ``resalign poc``.

Nothing here imports torch before a verb needs it, so that ``--help`` and a mistake in an option are answered at once.
"""

from ._main import main

__all__ = ["main"]
