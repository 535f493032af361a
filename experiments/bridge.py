"""Alignment of networks that were made partly linear, in the given and in a moving frame: the end of chapter 16.

python -m experiments.bridge

Fully-connected networks of 64 units on the digits, trained with the recipe with which those with skips align. Three
families are post-trained, each steered to its NAPLs: *plain, channels* and *plain, layers* from eight blocks without
skips, *residual, channels* from their twins with skips; with target None nothing is made linear, the rest is the same.
*plain, depth* has two or eight blocks without skips, and no post-training. Three seeds. Writes
``results/bridge.json``. RESALIGN_PROCESSES (2) networks are trained at a time; trained and post-trained networks are
kept in the store of all runs, so that an interrupted command goes on where it was.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

import resalign_utils as ra
from resalign_utils.linearization import Granularity

from ._record import PROCESSES, Row, made_with, record, rounded
from .linearization import Setting, linearized

EPOCHS = 40
SEEDS = (0, 1, 2)
TARGETS = {
    "plain, channels": (None, 8.0, 2.0, 0.0),
    "plain, layers": (2.0,),
    "residual, channels": (None, 1.0, 0.0),
}
DEPTHS = {"plain, depth": (2, 8)}
K = 10  # singular vectors that are compared, as many as classes
TRAINING_IMAGES = 100  # that the moving frame is computed from


@dataclass(frozen=True)
class Bridge(Setting):
    """One network: of a family, and steered to a NAPL unless the family is one of depths."""

    @property
    def labels(self) -> Row:
        """What tells it from the others."""
        return {
            "family": self.part,
            "depth": self.base.model.depth,
            "target": self.target,
            "seed": self.base.train.seed,
        }

    @property
    def config(self) -> ra.LinearizationConfig:
        """Penalty and recipe of the post-training; learning rate × weight decay is that of the training before."""
        recipe = ra.TrainConfig(epochs=self.epochs, lr=0.2, weight_decay=2e-2, seed=self.base.train.seed)
        if self.target is None:
            return ra.LinearizationConfig(omega=0.0, train=recipe)
        omega = 30.0 if self.granularity == "channel" else 1.0
        return ra.LinearizationConfig(omega=omega, ramp="steered", target=self.target, train=recipe)


def base(family: str, depth: int, seed: int) -> ra.RunConfig:
    """The network that is trained first; chapter 9's base, with skips or without."""
    model = ra.ResNetConfig(depth, 64, skip=family.startswith("residual"))
    return ra.RunConfig("digits", model, ra.TrainConfig(lr=0.4, seed=seed))


def settings() -> list[Bridge]:
    """All networks; the seeds outermost, so that one of each is there early."""
    listed: list[Bridge] = []
    for seed in SEEDS:
        for family, targets in TARGETS.items():
            granularity: Granularity = "layer" if family.endswith("layers") else "channel"
            listed += [Bridge(family, base(family, 8, seed), granularity, target, EPOCHS) for target in targets]
        for family, depths in DEPTHS.items():
            listed += [Bridge(family, base(family, depth, seed), "channel", None) for depth in depths]
    return listed


def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """Residual Jacobians of all blocks (n, L, d, d); without a skip, of the whole block."""
    return torch.stack([ra.residual_jacobians(residual) for residual in ra.trace(model, x).residuals], 1).double()


def coupling(u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """``tr(U_jᵀ J_i V_j) / Σ σ_κ(J_i)`` (L, L) from singular triplets (n, L, d, ·), mean over inputs."""
    left, right = (torch.einsum("niar,njak->nijrk", frame, frame[..., :K]) for frame in (u, v))
    traces = torch.einsum("nir,nijrk,nijrk->nij", s, left, right)
    return (traces / s[..., :K].sum(-1)[..., None]).nan_to_num(0).mean(0)


def moving_frames(average: Tensor) -> Tensor:
    """Orthogonal O_0..O_L (L+1, d, d) from average Jacobians (L, d, d): O_0 = I, O_ℓ = polar(J̄_ℓ) O_{ℓ−1}."""
    frames = [torch.eye(average.shape[-1], dtype=average.dtype)]
    for jacobian in average:
        u, _, vh = torch.linalg.svd(jacobian)
        frames.append(u @ vh @ frames[-1])
    return torch.stack(frames)


def triplets(jacobians: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All singular triplets: U (n, L, d, d), σ (n, L, d), V (n, L, d, d), vectors in columns."""
    u, s, vh = torch.linalg.svd(jacobians)
    return u, s, vh.mT


def alignment(svd: tuple[Tensor, Tensor, Tensor], frames: Tensor | None = None) -> Tensor:
    """Coupling (L, L), in the moving frame if there is one: of ``O_ℓᵀ J_ℓ O_{ℓ−1}``."""
    u, s, v = svd
    return coupling(u, s, v) if frames is None else coupling(frames[1:].mT @ u, s, frames[:-1].mT @ v)


def off_diagonal(matrix: Tensor) -> float:
    """Mean over i ≠ j of (L, L)."""
    return float(matrix[~torch.eye(len(matrix), dtype=torch.bool)].mean())


def relay(jacobians: Tensor) -> list[float]:
    """Mean over inputs of ``Σ σ_κ(J_j ⋯ J_i) / Σ Π_ℓ σ_κ(J_ℓ)`` by distance j − i = 1..L−1; at most 1 (Horn 1950)."""
    sigma, blocks = torch.linalg.svdvals(jacobians)[..., :K], jacobians.shape[1]
    by_distance: list[list[Tensor]] = [[] for _ in range(blocks)]
    for i in range(blocks):
        product, bound = jacobians[:, i], sigma[:, i]
        for j in range(i + 1, blocks):
            product, bound = jacobians[:, j] @ product, sigma[:, j] * bound
            share = torch.linalg.svdvals(product)[:, :K].sum(1) / bound.sum(1)
            by_distance[j - i].append(share.nan_to_num(0).mean())
    return [float(torch.stack(values).mean()) for values in by_distance[1:]]


@torch.no_grad()
def linear_parts(model: nn.Module, generator: torch.Generator | None = None) -> Tensor:
    """A_ℓ (L, d, d): what passes through linear channels only; with a generator, through as many channels at random."""
    parts = []
    for block in model.get_submodule("blocks").children():
        layers = [*block.get_submodule("branch").children()]
        first, second = nn.Sequential(*layers[:2]), nn.Sequential(*layers[3:])
        inner, outer = ((block.get_parameter(name) == 1).double() for name in ("branch.2.weight", "outer.weight"))
        if generator is not None:
            inner, outer = (mask[torch.randperm(len(mask), generator=generator)] for mask in (inner, outer))
        eye = torch.eye(len(inner), dtype=torch.float64)
        maps = [outer * second(inner * first(inputs)) for inputs in (eye, 0 * eye)]
        parts.append((maps[0] - maps[1]).T)
    return torch.stack(parts)


def scores(model: nn.Module, data: ra.ImageData, *, split: bool) -> Row:
    """Everything that is recorded of a network, at two test images of each class."""
    model, x = model.double(), data.sample(per_class=2)[0].double()
    at, report = jacobians(model, x), ra.measure_alignment(model, x)
    average = jacobians(model, data.train_x[:TRAINING_IMAGES].double()).mean(0)
    svd, frames = triplets(at), moving_frames(average)
    backwards, reversed_svd = moving_frames(average.flip(0)), (svd[0].flip(1), svd[1].flip(1), svd[2].flip(1))
    row: Row = {
        "alignment": report.alignment.mean(),
        "line_shape_score": report.line_shape_score.mean(),
        "rank_drop": report.rank_drop.mean(),
        "coupling": report.coupling.mean(0),
        "moving": off_diagonal(alignment(svd, frames)),
        "moving_coupling": alignment(svd, frames),
        "moving_reversed": off_diagonal(alignment(reversed_svd, backwards)),
        "relay": relay(at),
    }
    if split:
        generator = torch.Generator().manual_seed(0)
        for name, chosen in (("around", None), ("around_permuted", generator)):
            rest = at - linear_parts(model, chosen)
            svd = triplets(rest)
            row[name] = [off_diagonal(alignment(svd)), off_diagonal(alignment(svd, frames))]
            row[f"{name}_share"] = (rest.square().sum((2, 3)) / at.square().sum((2, 3))).mean()
    return {name: rounded(torch.as_tensor(value), 4) for name, value in row.items()}


def row_of(setting: Bridge, run: ra.Run) -> Row:
    """Labels, what made the network, and its scores."""
    common: Row = {}
    model: nn.Module
    if setting.part in DEPTHS:
        common["untrained"] = scores(run.untrained, run.data, split=False)
        provenance = made_with(run.provenance)
        model, made = run.model, {"config": asdict(run.config), "napl": ra.average_path_length(run.model)}
        made |= {"train_accuracy": run.history.train_accuracy[-1], "accuracy": run.history.test_accuracy[-1]}
    else:
        model, row = linearized(setting, run)
        provenance = row["provenance"]
        made = {key: row[key] for key in ("config", "linearization", "napl", "train_accuracy", "accuracy", "seconds")}
    split = setting.part == "plain, channels" and made["napl"] not in (0.0, 17.0)
    return setting.labels | made | scores(model, run.data, split=split) | common | {"provenance": provenance}


if __name__ == "__main__":
    listed, start, rows = settings(), time.perf_counter(), []
    results = ra.sweep([s.base for s in listed], [partial(row_of, s) for s in listed], processes=PROCESSES)
    for number, (setting, row) in enumerate(zip(listed, results, strict=True), start=1):
        rows.append(row)
        told = f"NAPL {row['napl']:.2f}, accuracy {row['train_accuracy']:.3f} {row['accuracy']:.3f}"
        found = f"alignment {row['alignment']:.3f}, moving {row['moving']:.3f} ({row['moving_reversed']:.3f})"
        print(
            f"{number}/{len(listed)} {time.perf_counter() - start:.0f} s | {setting.labels} | {told} | {found}",
            flush=True,
        )
    record("bridge", "python -m experiments.bridge", rows)
