"""``python -m resalign_utils``, the same as ``resalign``."""

from .cli import main

raise SystemExit(main())
