"""Where and how long is measured."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plan:
    """What every group of tables is told.

    Attributes:
        device: where it is measured.
        threads: of the CPU.
        quick: small sizes, to see that it runs.
        until: time, as of ``time.monotonic``, after which no further row is begun.
    """

    device: torch.device
    threads: int = 1
    quick: bool = False
    until: float = math.inf

    def goes_on(self, row: str) -> bool:
        """Whether there is time for another row, which is named on the screen."""
        there_is = time.monotonic() < self.until
        print(f"  {row} …" if there_is else f"  {row}: left out, the time is up", flush=True)
        return there_is
