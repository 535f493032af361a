"""What a monitor finds at one step of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Drift:
    """How far warm-started numbers had drifted from the full measure, at the same weights: warm minus full.

    Attributes:
        alignment: of the alignment.
        coupling: (L, L) of the couplings, mean over inputs; NaN where not comparable.
        singular_values: (L, r) of the singular values, mean over inputs, relative to the full measure's σ_1.
    """

    alignment: float
    coupling: Tensor
    singular_values: Tensor


@dataclass(frozen=True)
class Measurement:
    """A network with L residual blocks at one step of its training; all means are over the n probe inputs, on the CPU.

    Definitions, bounds and null values are those of :class:`AlignmentReport` with k = r.

    Attributes:
        step: of the training, as :class:`AlignmentMonitor` counts.
        fresh: whether it is the full measure, by a fresh start, its branches and derivatives proved.
        seconds: that it took.
        alignment: RA2, mean of the couplings of comparable pairs i ≠ j.
        line_shape_score: RA1.
        step_cv: RA1, spread of the step lengths.
        step_lengths: (L,) ‖h_ℓ − h_{ℓ−1}‖, NaN where a block changes the shape.
        step_angles: (L−1,) degrees between a step and the next; NaN where one of them has no length, or the second
            block does not begin where the first ends.
        singular_values: (L, r) σ_1..σ_r of each block's Residual Jacobian.
        coupling: (L, L), matrix i in the frames of j; NaN where not comparable.
        residuals: (L, r) ``‖J v − σ u‖ / σ_1`` of the triplets: how converged they are.
        block_names: names of the L blocks.
        drift: of the warm-started numbers from these, in a full measure that followed a warm one; else None.
    """

    step: int
    fresh: bool
    seconds: float
    alignment: float
    line_shape_score: float
    step_cv: float
    step_lengths: Tensor
    step_angles: Tensor
    singular_values: Tensor
    coupling: Tensor
    residuals: Tensor
    block_names: tuple[str, ...]
    drift: Drift | None

    def row(self) -> dict[str, float]:
        """Everything as one number each: means over blocks, drifts by their largest."""
        row = {
            "alignment": self.alignment,
            "line_shape_score": self.line_shape_score,
            "step_cv": self.step_cv,
            "step_angle": float(self.step_angles.nanmean()) if len(self.step_angles) else math.nan,
        }
        for number, sigma in enumerate(self.singular_values.mean(0).tolist(), start=1):
            row[f"sigma_{number}"] = sigma
        drift = self.drift
        row["drift_alignment"] = math.nan if drift is None else drift.alignment
        row["drift_sigma"] = math.nan if drift is None else float(drift.singular_values.abs().max())
        return row

    def scalars(self, prefix: str = "alignment/") -> dict[str, float]:
        """The numbers of :meth:`row` that are known, and σ_1 of each block, under names for a logger."""
        named = {f"{prefix}{name}": value for name, value in self.row().items() if not math.isnan(value)}
        tops = self.singular_values[:, 0].tolist()
        return named | {f"{prefix}sigma_1/{name}": top for name, top in zip(self.block_names, tops, strict=True)}
