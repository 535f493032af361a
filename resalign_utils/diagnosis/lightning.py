"""An :class:`AlignmentMonitor` for PyTorch Lightning: ``pip install lightning``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from ._monitor import AlignmentMonitor


class AlignmentCallback(Callback):
    """Follow Residual Alignment while a Lightning ``Trainer`` fits, and send its numbers to the trainer's loggers.

    Args:
        x: probe inputs (n, ...), as of :class:`AlignmentMonitor`; they are moved to the model.
        network: the network to measure in the LightningModule, which itself must map x to logits if it is left out.
        every: steps between measurements; 2.5 % of the time if not given.
        rank: number of singular values and vectors.
        refresh: measurements between fresh starts.

    Attributes:
        monitor: the :class:`AlignmentMonitor`, made when the fit begins; its ``history`` holds all measurements. None
            before.

    Example::

        callback = AlignmentCallback(x, network=lambda module: module.net)
        Trainer(callbacks=[callback]).fit(module, loader)
        callback.monitor.to_frame()
    """

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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the monitor where the model now is, and measure once before the first step."""
        model = pl_module if self._network is None else self._network(pl_module)
        self.monitor = AlignmentMonitor(
            model, self._x, every=self._every, rank=self._rank, refresh=self._refresh, first_step=trainer.global_step
        )
        self._log(trainer, self.monitor.measure())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the optimiser's steps: several batches may make one."""
        assert self.monitor is not None  # the fit has begun
        if trainer.global_step > self.monitor.steps:
            self._log(trainer, self.monitor.step())

    def _log(self, trainer: Trainer, scalars: dict[str, float] | None) -> None:
        for logger in trainer.loggers if scalars else ():
            logger.log_metrics(scalars or {}, step=trainer.global_step)
