"""An :class:`AlignmentMonitor` for the Trainer of Hugging Face: ``pip install transformers accelerate``."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ._callback import Callback


class AlignmentCallback(Callback, TrainerCallback):
    """Follow Residual Alignment while a ``transformers.Trainer`` trains; its numbers join ``state.log_history``.

    Args:
        x: probe inputs (n, ...), as of :class:`AlignmentMonitor`; they are moved to the model.
        network: from the model that is trained to the network to measure; left out, it is the model, which must map x
            to logits then.
        every, rank, refresh: as of :class:`AlignmentMonitor`.

    Attributes:
        monitor: the :class:`AlignmentMonitor`, made when the training begins; its ``history`` holds all measurements.

    Example::

        callback = AlignmentCallback(x, network=lambda model: model.net)
        Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
        callback.monitor.to_frame()
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the monitor where the model now is, and measure once before the first step."""
        self._log(state, self.begin(kwargs["model"], state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step of the optimiser."""
        assert self.monitor is not None  # the training has begun
        self._log(state, self.monitor.step())

    def _log(self, state: TrainerState, scalars: dict[str, float] | None) -> None:
        if scalars:
            state.log_history.append({"step": state.global_step, "epoch": state.epoch or 0.0, **scalars})
