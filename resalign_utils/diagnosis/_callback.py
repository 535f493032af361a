"""What the callbacks of training libraries have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ._monitor import AlignmentMonitor


class Callback:
    """Makes an :class:`AlignmentMonitor` when a training begins."""

    def __init__(
        self,
        x: Tensor,
        *,
        network: Callable[[Any], nn.Module] | None = None,
        every: int | None = None,
        rank: int = 4,
        refresh: int = 20,
    ) -> None:
        self._x, self._network = x, network
        self._every, self._rank, self._refresh = every, rank, refresh
        self.monitor: AlignmentMonitor | None = None

    def begin(self, model: nn.Module, step: int) -> dict[str, float]:
        """Make the monitor where the model now is, and measure once before the first step."""
        model = model if self._network is None else self._network(model)
        self.monitor = AlignmentMonitor(
            model, self._x, every=self._every, rank=self._rank, refresh=self._refresh, first_step=step
        )
        return self.monitor.measure()
