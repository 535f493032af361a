"""Where a network adds: its residual sums, found without knowledge of its classes.

One forward pass is written down operation by operation (``_tape``), at two and at three inputs, which makes a list of
operations for any number of them (``_program``). In its graph the residual sums are told from other additions
(``_sums``), each with what its block does to the sum (``_outer``). A sum becomes a block that is replayed and measured
as a registered one is (``_blocks``).
"""

from ._blocks import FoundBlock
from ._find import Finder
from ._table import Block, BlockTable, NotABlock

__all__ = ["Block", "BlockTable", "Finder", "FoundBlock", "NotABlock"]
