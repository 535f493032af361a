"""Residual Alignment while a network trains."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..alignment import trajectory_scores
from ..arithmetic import exact_arithmetic
from ..residuals import ModelInputs, Residual, Trace, inputs_of, trace
from ..svd import whole_number
from ._following import Following, Triplets
from ._measurement import Drift, Measurement
from ._untouched import untouched

if TYPE_CHECKING:
    from ..data import ImageData

SHARE = 0.025  # of the training time, that measurements may take if no `every` is given


class AlignmentMonitor:
    """Follow Residual Alignment in any training loop, at a few per cent of its time and without a trace in it.

    The same probe inputs are measured again and again: the steps of the states and their angles; σ_1..σ_r of every
    block's Residual Jacobian and the couplings, by one product pair a block that starts from the singular vectors of
    the time before, or a few where these have turned. Every ``refresh`` times the vectors are found anew from random
    ones, the derivatives are proved again, and the measurement says how far the numbers had drifted; between, the
    products that were proved are used.

    Weights, gradients, buffers, modes and random generators are as before after each measurement: a training with the
    monitor ends bit for bit as one without. It may be called inside of autocast; compiled models are run uncompiled,
    what DDP wraps is unwrapped, and processes of other ranks than 0 measure nothing.

    Args:
        model: the network that trains, as :func:`trace` takes it, in any mode.
        x: probe inputs, as in :func:`trace`; a handful: costs grow with n · L · r.
        every: number of steps from one measurement to the next. If not given, a measurement is taken when the training
            has gone on for 40 times as long as the last one took: they take 2.5 % of the time. The first, a
            full measure, comes on top: ``history[0].seconds``.
        rank: r, the number of singular values and vectors.
        refresh: number of measurements from one fresh start to the next.
        first_step: steps that were done before, in a training that is taken up again.

    Attributes:
        history: the :class:`Measurement` of each time.
        steps: number of steps so far.

    Raises:
        ValueError: what :func:`trace` refuses, every or refresh below 1, a rank that a block does not have. Each later
            measurement raises it for weights that have become NaN.

    Example:
        >>> import torch, resalign_utils as ra
        >>> data = ra.load_data("digits")
        >>> model = ra.build_model(ra.ResNetConfig(depth=4, width=32), data)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> monitor = ra.AlignmentMonitor(model, data.test_x[:4], every=10)
        >>> for x, y in zip(data.train_x.split(50), data.train_y.split(50)):
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(model(x), y).backward()
        ...     optimizer.step()
        ...     scalars = monitor.step()  # None, or numbers for a logger
        >>> [measurement.step for measurement in monitor.history]
        [10, 20]
    """

    name = "alignment"

    def __init__(
        self,
        model: nn.Module,
        x: ModelInputs,
        *,
        every: int | None = None,
        rank: int = 4,
        refresh: int = 20,
        first_step: int = 0,
    ) -> None:
        self._model, self._x = model, tree_map_only(Tensor, lambda t: t.detach().clone(), x)
        self._every = None if every is None else _positive("every", every)
        self._refresh, self._rank = _positive("refresh", refresh), _positive("rank", rank)
        self.history: list[Measurement] = []
        self.steps, self._next = first_step, -math.inf
        self._following = Following(self._rank)
        if _leads():  # refuse now what cannot be measured later
            with untouched(model), exact_arithmetic(_device(model, self._x)):
                self._check_rank(self._trace())

    def step(self) -> dict[str, float] | None:
        """Count a step of the training, and measure if it is time: once after each step of the optimiser.

        Returns:
            :meth:`Measurement.scalars` of the new measurement, None if there is none.
        """
        self.steps += 1
        return (self.measure() or None) if self._due(self.steps) else None

    def measure(self, model: nn.Module | None = None, data: ImageData | None = None) -> dict[str, float]:
        """Measure now, whether or not it is time: before the first step, say.

        Args:
            model: given by :func:`train`, of whose ``monitors`` this may be one; it must be the monitor's own.
            data: given by :func:`train`; not used.

        Returns:
            :meth:`Measurement.scalars`; nothing in a process of another rank than 0.

        Raises:
            ValueError: another model than the monitor's; weights that cannot be measured.
        """
        if model is not None and model is not self._model:
            raise ValueError(
                "Expected the model that this monitor was made for; got another one. Make one for it: "
                "AlignmentMonitor(model, x)."
            )
        if not _leads():
            return {}
        device = _device(self._model, self._x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # what the training has asked for is not the monitor's time
        begin = time.perf_counter()
        fresh = len(self.history) % self._refresh == 0
        with untouched(self._model), exact_arithmetic(device):
            measurement = self._measured(self._trace(), fresh, begin)
        opening = not self.history
        self.history.append(measurement)
        self._next = time.perf_counter() + (0.0 if opening else measurement.seconds / SHARE)
        return measurement.scalars()

    def due(self, epoch: int, last: int) -> bool:
        """Whether :func:`train` is to measure after this epoch: as steps, it counts epochs; also after the last."""
        self.steps = epoch
        return epoch == last or self._due(epoch)

    def scalars(self, prefix: str = "alignment/") -> dict[str, float]:
        """:meth:`Measurement.scalars` of the last measurement, empty if there is none."""
        return self.history[-1].scalars(prefix) if self.history else {}

    def to_frame(self) -> pd.DataFrame:
        """One row a measurement: step, whether fresh, seconds, and the numbers of :meth:`Measurement.row`."""
        return pd.DataFrame([{"step": m.step, "fresh": m.fresh, "seconds": m.seconds} | m.row() for m in self.history])

    def _due(self, step: int) -> bool:
        return time.perf_counter() >= self._next if self._every is None else step % self._every == 0

    def _trace(self) -> Trace:
        device = _device(self._model, self._x)
        self._x = tree_map_only(Tensor, lambda t: t.to(device), self._x)
        return trace(self._model, self._x)

    def _check_rank(self, path: Trace) -> None:
        sides = [min(r.input[0].numel(), r.output[0].numel()) for r in path.residuals]
        if self._rank > min(sides):
            raise ValueError(f"rank must lie in 1..{min(sides)}, what the smallest block has; got {self._rank}.")

    def _measured(self, path: Trace, fresh: bool, begin: float) -> Measurement:
        residuals, drift = path.residuals, None
        if fresh:
            before = self._following.follow(residuals) if self._following.started else None
            self._following.prove(residuals)
            found = self._following.full(residuals)
            drift = None if before is None else _drift(before, found)
        else:
            found = self._following.follow(residuals)
        line_shape, cv, _ = trajectory_scores(residuals)
        lengths, angles = _steps(residuals)
        return Measurement(
            step=self.steps,
            fresh=fresh,
            alignment=float(found.alignment.mean()),
            line_shape_score=float(line_shape.mean()),
            step_cv=float(cv.mean()),
            step_lengths=lengths.cpu(),
            step_angles=angles.cpu(),
            singular_values=found.singular_values.mean(0).cpu(),
            coupling=found.coupling.mean(0).cpu(),
            residuals=found.residuals.mean(0).cpu(),
            block_names=tuple(r.name for r in residuals),
            drift=drift,
            seconds=time.perf_counter() - begin,  # last: reading the numbers waits for the device
        )


def _drift(warm: Triplets, full: Triplets) -> Drift:
    sigma, top = full.singular_values.mean(0), full.singular_values[..., :1].mean(0)
    return Drift(
        alignment=float((warm.alignment - full.alignment).mean()),
        coupling=(warm.coupling - full.coupling).mean(0).cpu(),
        singular_values=((warm.singular_values.mean(0) - sigma) / torch.where(top > 0, top, 1.0)).cpu(),
    )


def _steps(residuals: list[Residual]) -> tuple[Tensor, Tensor]:
    """Mean lengths (L,) of the steps, and mean angles (L−1,) in degrees between a step and the next."""
    lengths = [_nan(r) if r.step is None else r.step.flatten(1).norm(dim=1).mean() for r in residuals]
    angles = [_angle(a, b) for a, b in pairwise(residuals)]
    return torch.stack(lengths), torch.stack(angles) if angles else lengths[0].new_empty(0)


def _angle(before: Residual, after: Residual) -> Tensor:
    if before.step is None or after.step is None or not after.follows:
        return _nan(after)
    a, b = (step.flatten(1).double() for step in (before.step, after.step))
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)  # NaN for a step of no length
    # not by the arc cosine, which loses half of the digits where steps are nearly parallel
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))).nanmean().to(after.output.dtype)


def _nan(residual: Residual) -> Tensor:
    return residual.output.new_tensor(math.nan)


def _leads() -> bool:
    """Whether this process is the one of several that measures."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _device(model: nn.Module, x: ModelInputs) -> torch.device:
    parameter = next(model.parameters(), None)
    return inputs_of(x).data.device if parameter is None else parameter.device


def _positive(name: str, value: int) -> int:
    number = whole_number(value)
    if number is None or number < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}.")
    return number
