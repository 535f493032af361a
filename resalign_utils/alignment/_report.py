"""The result of a measurement: every score with its definition, bounds and null value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from ._scores import fit_line, mean_over


class DepthFit(NamedTuple):
    """Least-squares line ``1/σ₁ = intercept + slope · ℓ``, and the share r2 of the variance that it explains."""

    slope: float
    intercept: float
    r2: float


@dataclass(frozen=True)
class AlignmentReport:
    """RA1–RA4 of a network with L residual blocks at n inputs, and everything they are computed from.

    J_i is the Residual Jacobian of block i (m, d), U_i (m, k), σ, V_i (d, k) its k largest singular triplets, S_i =
    diag σ(J_i). "Null" is what an untrained network gives.

    Attributes:
        line_shape_score: (n,) RA1, number of steps / ‖sum of the unit steps‖; in [1, ∞], 1 iff the states lie on a
            line in one direction, √L for orthogonal steps (null). Over runs of blocks of equal shape, weighted by
            length (Gai & Zhang 2021). 0 if no step has a length; NaN where no two blocks of one shape follow each
            other.
        step_cv: (n,) RA1, standard deviation / mean of the step lengths (ddof = 0, weighted alike); 0 iff equispaced.
        singular_values: (n, L, r), the r largest, r ≥ k; r = min(m, d, max(k, C+5)) for up to 20 classes, else k, or
            what was asked for.
        rank: (n, L) numerical rank among them: how many exceed ``max(max(m, d) · ε, tol) · σ_1``. In couplings, vectors
            behind it are zero, while the denominators keep all k.
        coupling: (n, L, L) RA2, ``[:, i, j] = tr(U_jᵀ J_i V_j) / Σ_{κ≤k} σ_κ(J_i)``: matrix i in the frames of j; in
            [−1, 1] (von Neumann 1937), 1 iff the paired top subspaces agree; null 0.
        coupling_ordered: (n, L, L) RA2, ``1 − ‖U_jᵀ J_i V_j − S_i‖_F / ‖S_i‖_F``; 1 iff the frames agree vector by
            vector, never below −1; null 0.
        coupling_mixed: (n, L, L) ``tr(V_jᵀ J_i U_j) / Σ_{κ≤k} σ_κ(J_i)``, in [−1, 1]: are left and right the same?
        left_right: (n, L, k) u_κ · v_κ, in [−1, 1]; NaN behind the numerical rank.
        rank_energy: (n, L) RA3, ``Σ_{κ≤C} σ_κ² / ‖J‖_F²``, in [0, 1]; NaN where fewer were computed, see ``missing``.
        rank_energy_error: (n, L) its standard error; 0 where the Jacobian was formed, and ‖J‖_F² is exact.
        rank_drop: (n, L) RA3, ``σ_{C+1} / σ_1``, in [0, 1]; NaN where J has fewer than C+1 singular values, or fewer
            were computed, see ``missing``.
        affine_share: (n, L) β = 1 − u₁ᵀJh / (u₁ᵀF(h)): share of the branch's motion along u₁ that is not linear in its
            input h; 0 for a linear branch.
        alignment: (n,) mean of ``coupling`` over comparable pairs i ≠ j; NaN with fewer than two comparable blocks.
        dead: (n, L) σ_1 is at most 1e-3 of its median over the blocks at that input: left out of the depth fit.
            Couplings are 0 only where J is exactly zero.
        still: (n, L) the block's step has length zero; it has no direction and is left out of line_shape_score.
        residuals: (n, L, r) of the singular triplets, relative to σ_1, see ``TruncatedSVD``.
        comparable: (L, L) the two blocks map between the same shapes. A score of an incomparable pair is NaN.
        misalignment: (n, L, L) Aubry et al.'s m_K (2025), ``‖ |U_jᵀ J_i V_j| − S_i ‖_F / ‖S_i‖_F``, |·| entry by entry;
            0 iff the frames agree vector by vector up to signs.
        num_classes: C, None if the output is no logits.
        k: number of singular vectors in the couplings.
        block_names: names of the L blocks.
        missing: for a score that is NaN everywhere, why, and how to get it.
        tokens: the position (n,) of each row where tokens were measured: row i·p + j is the j-th token of input i;
            empty where states were taken whole.
        tokens_per_input: p.
    """

    line_shape_score: Tensor
    step_cv: Tensor
    singular_values: Tensor
    rank: Tensor
    coupling: Tensor
    coupling_ordered: Tensor
    coupling_mixed: Tensor
    misalignment: Tensor
    left_right: Tensor
    rank_energy: Tensor
    rank_energy_error: Tensor
    rank_drop: Tensor
    affine_share: Tensor
    alignment: Tensor
    dead: Tensor
    still: Tensor
    residuals: Tensor
    comparable: Tensor
    num_classes: int | None
    k: int
    block_names: tuple[str, ...]
    missing: Mapping[str, str]
    tokens: tuple[int, ...] = ()
    tokens_per_input: int = 1

    @property
    def depth_fit(self) -> DepthFit:
        """RA4 over all blocks, see :meth:`fit_depth`."""
        return self.fit_depth()

    def fit_depth(self, start: int = 1) -> DepthFit:
        """Fit 1/σ₁ on the block index ℓ ≥ start, one line an input, then averaged; dead blocks are left out.

        Li & Papyan fit ℓ ≥ 10. An input with fewer than three live blocks is left out; NaN if none remains.
        """
        fits = self.depth_fits(start)
        return DepthFit(*(float(column.nanmean()) for column in fits.T))

    def depth_fits(self, start: int = 1) -> Tensor:
        """The lines of :meth:`fit_depth` one by one: (n, 3) slope, intercept, r2."""
        blocks = self.singular_values.shape[1]
        if not 1 <= start <= max(1, blocks - 2):
            raise ValueError(
                f"start must lie in 1..{max(1, blocks - 2)}, to leave three of {blocks} blocks; got {start}."
            )
        index = torch.arange(1, blocks + 1, dtype=torch.float64)
        top, live = self.singular_values[..., 0].double().cpu(), ~self.dead.cpu()
        live = live & (index >= start)
        return torch.stack([fit_line(index[on], 1 / s[on]) for s, on in zip(top, live, strict=True)])

    def summary(self) -> dict[str, float]:
        """Mean over inputs of every score, and its standard deviation over inputs under the name with ``_sd``.

        A score of single blocks is first averaged over blocks; of ``affine_share``, a ratio, the median is taken.
        """
        diagonal = torch.eye(len(self.comparable), dtype=torch.bool, device=self.comparable.device)
        pairs = self.comparable & ~diagonal
        fits = self.depth_fits()
        columns = {
            "alignment": self.alignment,
            "alignment_ordered": mean_over(self.coupling_ordered, pairs),
            "alignment_mixed": mean_over(self.coupling_mixed, pairs),
            "line_shape_score": self.line_shape_score,
            "step_cv": self.step_cv,
            "rank_drop": self.rank_drop.nanmean(1),
            "rank_energy": self.rank_energy.nanmean(1),
            "top_singular_value": self.singular_values[..., 0].mean(1),
            "left_right": self.left_right[..., 0].nanmean(1),
            "affine_share": self.affine_share.median(1).values,  # a ratio: its mean follows its outliers
            "depth_slope": fits[:, 0],
            "depth_intercept": fits[:, 1],
            "depth_r2": fits[:, 2],
            "dead_share": self.dead.float().mean(1),
        }
        result = {}
        for name, values in columns.items():
            known = values[~values.isnan()].double()
            result[name] = float(known.mean()) if len(known) else math.nan
            result[f"{name}_sd"] = float(known.std(correction=0)) if len(known) else math.nan
        return result

    def to_frame(self) -> pd.DataFrame:
        """One row per input and block: the scores of single blocks, and the input's own scores repeated."""
        n, blocks = self.dead.shape
        frame = pd.DataFrame(
            {
                "input": torch.arange(n).repeat_interleave(blocks).numpy(),
                "block": torch.arange(1, blocks + 1).repeat(n).numpy(),
                "name": list(self.block_names) * n,
                "top_singular_value": self.singular_values[..., 0].flatten().cpu().numpy(),
            }
        )
        if self.tokens:
            frame["input"] //= self.tokens_per_input
            frame.insert(1, "token", [token for token in self.tokens for _ in range(blocks)])
        for name in ("rank_energy", "rank_drop", "affine_share", "dead", "still"):
            frame[name] = getattr(self, name).flatten().cpu().numpy()
        frame["left_right"] = self.left_right[..., 0].flatten().cpu().numpy()
        for name in ("alignment", "line_shape_score", "step_cv"):
            frame[name] = getattr(self, name).repeat_interleave(blocks).cpu().numpy()
        return frame


def compare(
    reports: Mapping[str, Sequence[AlignmentReport]],
    scores: Sequence[str] = ("alignment", "line_shape_score", "step_cv", "rank_drop"),
) -> pd.DataFrame:
    """Put several kinds of networks side by side: a row a kind, a column a score of :meth:`AlignmentReport.summary`.

    Args:
        reports: for each kind, the reports of its networks, one a seed.
        scores: names of scores.

    Returns:
        Texts "mean ± standard deviation" over the seeds of the mean over inputs; without ± for a single seed.
    """
    rows = {kind: pd.DataFrame([report.summary() for report in several]) for kind, several in reports.items()}
    return pd.DataFrame(
        {score: {kind: plus_minus(frame[score]) for kind, frame in rows.items()} for score in scores},
        index=list(rows),
    )


def plus_minus(values: Sequence[float] | pd.Series, digits: int = 3) -> str:
    """Write "mean ± standard deviation" (ddof = 0) with so many digits after the point; one value is written alone.

    Digits that the deviation drowns are left out: behind its third, "14,938 ± 1,010".
    """
    series = pd.Series(list(values), dtype=float)
    # Not in torch, as `summary`: sums and ties would round otherwise, and the book prints these digits.
    sd = float(series.std(ddof=0))
    if len(series) > 1 and sd > 0:
        digits = max(0, min(digits, 2 - math.floor(math.log10(sd))))
    mean = f"{round(series.mean(), digits) + 0.0:,.{digits}f}"  # + 0.0: no "-0.000"
    return mean if len(series) == 1 else f"{mean} ± {sd:,.{digits}f}"
