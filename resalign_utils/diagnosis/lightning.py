"""An :class:`AlignmentMonitor` for PyTorch Lightning: ``pip install lightning``."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback as LightningCallback
from lightning.pytorch import LightningModule, Trainer

from ._callback import Callback


class AlignmentCallback(Callback, LightningCallback):
    """Follow Residual Alignment while a Lightning ``Trainer`` fits, and send its numbers to the trainer's loggers.

    Args:
        x: probe inputs (n, ...), as of :class:`AlignmentMonitor`; they are moved to the model.
        network: from the model that is trained to the network to measure; left out, it is the model, which must map x
            to logits then.
        every, rank, refresh: as of :class:`AlignmentMonitor`.

    Attributes:
        monitor: the :class:`AlignmentMonitor`, made when the training begins; its ``history`` holds all measurements.

    Example::

        callback = AlignmentCallback(x, network=lambda module: module.net)
        Trainer(callbacks=[callback]).fit(module, loader)
        callback.monitor.to_frame()
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the monitor where the model now is, and measure once before the first step."""
        self._log(trainer, self.begin(pl_module, trainer.global_step))

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
