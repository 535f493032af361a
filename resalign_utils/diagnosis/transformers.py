"""An :class:`AlignmentMonitor` for the Trainer of Hugging Face: ``pip install transformers accelerate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ._monitor import AlignmentMonitor


class AlignmentCallback(TrainerCallback):
    """Follow Residual Alignment while a ``transformers.Trainer`` trains; its numbers join ``state.log_history``.

    Args:
        x: probe inputs (n, ...), as of :class:`AlignmentMonitor`; they are moved to the model.
        network: the network to measure in the Trainer's model, which itself must map x to logits if it is left out.
        every: steps between measurements; 2.5 % of the time if not given.
        rank: number of singular values and vectors.
        refresh: measurements between fresh starts.

    Attributes:
        monitor: the :class:`AlignmentMonitor`, made when the training begins; its ``history`` holds all measurements.
            None before.

    Example::

        callback = AlignmentCallback(x, network=lambda model: model.net)
        Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
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

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the monitor where the model now is, and measure once before the first step."""
        model = kwargs["model"] if self._network is None else self._network(kwargs["model"])
        self.monitor = AlignmentMonitor(
            model, self._x, every=self._every, rank=self._rank, refresh=self._refresh, first_step=state.global_step
        )
        self._log(state, self.monitor.measure())

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step of the optimiser."""
        assert self.monitor is not None  # the training has begun
        self._log(state, self.monitor.step())

    def _log(self, state: TrainerState, scalars: dict[str, float] | None) -> None:
        if scalars:
            state.log_history.append({"step": state.global_step, "epoch": state.epoch or 0.0, **scalars})
