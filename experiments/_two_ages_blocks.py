"""What is measured of the blocks of one network in :mod:`experiments.two_ages`: profiles, premises, and pruning."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import resalign_utils as ra
from resalign_utils.arithmetic import ratio
from resalign_utils.models import ResidualBlock, ResNet

from ._record import Row, rounded

FRAME_IMAGES = 200  # training images whose mean Jacobian turns the moving frame, as in chapter 6
DRAWS = 20  # random orders of which the accuracies are averaged


def symmetric(coupling: Tensor) -> Tensor:
    """Mean of both ways (L, L)."""
    return (coupling + coupling.T) / 2


def with_others(coupling: Tensor) -> Tensor:
    """Mean coupling (L,) of each block with all others, both ways' mean."""
    both = symmetric(coupling)
    return (both.sum(1) - both.diagonal()) / (len(both) - 1)


def taking_part(coupling: Tensor) -> tuple[float, float]:
    """How many blocks take part: participation ratio of the leading eigenvector, and its eigenvalue.

    Of the symmetric part of ``coupling`` (L, L), with the unit eigenvector w and the eigenvalue λ: 1/Σ w⁴, in [1, L],
    and λ. If n blocks agree fully with each other and no other block with any, both are n. If all pairs have one
    coupling c > 0, the first is L and the second 1 + (L − 1) c: the first says how evenly blocks take part, the second
    how much.
    """
    values, vectors = torch.linalg.eigh(symmetric(coupling.double()))
    return float(1 / vectors[:, -1].pow(4).sum()), float(values[-1])


def first_of_each_class(x: Tensor, y: Tensor, count: int) -> Tensor:
    """The first ``count`` images of each class, class by class."""
    return torch.cat([x[y == label][:count] for label in y.unique()])


@torch.no_grad()
def jacobians(model: nn.Module, x: Tensor) -> Tensor:
    """Residual Jacobians of all blocks, flattened (n, L, D, D)."""
    return torch.stack([ra.residual_jacobians(part) for part in ra.trace(model, x).residuals], 1)


def coupling_of(matrices: Tensor, k: int = 10) -> Tensor:
    """Coupling (L, L), mean over inputs, of formed Jacobians (n, L, d, d), as in an ``AlignmentReport``."""
    u, s, vh = torch.linalg.svd(matrices)
    u, v = u[..., :k], vh.mT[..., :k]
    traces = torch.einsum("njdk,nide,njek->nij", u, matrices, v)
    return ratio(traces, s[..., :k].sum(-1)[..., None]).mean(0)


@torch.no_grad()
def moving_frames(model: nn.Module, x: Tensor) -> Tensor:
    """O_0 = I and O_ℓ = Q_ℓ O_{ℓ−1} (L+1, d, d): Q_ℓ is the rotation nearest to the mean Jacobian of the whole block.

    That is the Residual Jacobian and what the skip carries, at the inputs ``x`` (chapter 6).
    """
    masks = torch.stack([(part.output > 0).float().mean(0) for part in ra.trace(model, x).residuals])  # (L, d)
    whole = jacobians(model, x).mean(0) + torch.diag_embed(masks)
    frames = [torch.eye(whole.shape[-1], device=whole.device)]
    for matrix in whole:
        u, _, vh = torch.linalg.svd(matrix)
        frames.append(u @ vh @ frames[-1])
    return torch.stack(frames)


@torch.no_grad()
def logits_without(model: ResNet, states: Tensor, removed: Collection[int]) -> Tensor:
    """Logits from the stem's output (n, d), the branches of blocks ``removed`` (from 0) cut: σ(h) is left."""
    h = states
    for index, block in enumerate(blocks_of(model)):
        h = block.outer(h) if index in removed else block(h)
    logits: Tensor = model.head(h)
    return logits


def accuracy_without(model: ResNet, states: Tensor, y: Tensor, removed: Collection[int]) -> float:
    """Accuracy where these branches are cut."""
    return float((logits_without(model, states, removed).argmax(1) == y).double().mean())


@torch.no_grad()
def profile(model: ResNet, data: ra.ImageData, x: Tensor) -> Row:
    """Block by block, at the test images ``x``: its Jacobian, with whom it agrees, and what it is needed for."""
    report, J = ra.measure_alignment(model, x), jacobians(model, x)
    frames = moving_frames(model, data.train_x[:FRAME_IMAGES])
    moved = coupling_of(frames[1:].mT @ J @ frames[:-1])
    test, train = model.stem(data.test_x), model.stem(data.train_x)
    alone = [{index} for index in range(len(model.blocks))]
    mean = J.mean(0).square().sum((1, 2)) / J.square().sum((2, 3)).mean(0)
    skew = (J - J.mT).square().sum((2, 3)) / (4 * J.square().sum((2, 3)))
    arrays = {
        "coupling": report.coupling.mean(0),
        "moving_coupling": moved,
        "singular_values": report.singular_values[..., :10].mean(0),
        "dead": report.dead.double().mean(0),
        "affine_share": report.affine_share.median(0).values,
        "left_right": report.left_right[..., 0].nanmean(0),
        "input_dependence": 1 - mean,  # 0 where all inputs have one Jacobian
        "asymmetry": skew.nanmean(0),  # 0: symmetric, 1: antisymmetric
        "test_accuracy_without": torch.tensor([accuracy_without(model, test, data.test_y, each) for each in alone]),
        "train_accuracy_without": torch.tensor([accuracy_without(model, train, data.train_y, each) for each in alone]),
    }
    return {name: rounded(value, 4) for name, value in arrays.items()} | steps_of(model, x)


@torch.no_grad()
def steps_of(model: ResNet, x: Tensor) -> Row:
    """Of each block, mean over ``x``: cosine of input and output, ‖F(h)‖/‖h‖, share of the path; and of its weights.

    These are their norm and the hold of its batch norms, see :func:`hold_of_norm`.
    """
    states = torch.stack(ra.trace(model, x).states)  # (L+1, n, *)
    branches = torch.stack([block.branch(h) for block, h in zip(blocks_of(model), states[:-1], strict=True)]).flatten(2)
    inputs, outputs = states[:-1].flatten(2), states[1:].flatten(2)  # (L, n, D)
    lengths = (outputs - inputs).norm(dim=2)
    weights = [torch.cat([p.flatten() for p in matrices(block)]).norm() for block in model.blocks]
    return {
        "cosine": rounded(F.cosine_similarity(inputs, outputs, dim=2).mean(1), 4),
        "magnitude": rounded((branches.norm(dim=2) / inputs.norm(dim=2)).mean(1), 4),
        "step_share": rounded((lengths / lengths.sum(0)).mean(1), 4),
        "weight_norm": rounded(torch.stack(weights), 4),
        "norm_hold": [hold_of_norm(block) for block in model.blocks],
    }


def hold_of_norm(block: nn.Module) -> float | None:
    """Mean over the channels of a block's batch norms of v/(v + ε), v the running variance; None without norm.

    At 1 the outputs do not depend on the size of the weights before them; near 0 the norm is a fixed factor γ/√ε.
    """
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    shares = [v / (v + norm.eps) for norm in norms if (v := norm.running_var) is not None]
    return round(float(torch.cat(shares).mean()), 4) if shares else None


def blocks_of(model: ResNet) -> list[ResidualBlock]:
    """The blocks, which must be of the kind that has a branch to cut."""
    blocks = [block for block in model.blocks if isinstance(block, ResidualBlock)]
    if len(blocks) < len(model.blocks):
        kinds = ", ".join(sorted({type(block).__name__ for block in model.blocks}))
        raise TypeError(f"Expected blocks that are ResidualBlocks; got {kinds}. Their branches cannot be cut here.")
    return blocks


def matrices(block: nn.Module) -> list[nn.Parameter]:
    """The weights of a block's linear layers or convolutions."""
    return [parameter for parameter in block.parameters() if parameter.dim() > 1]


def imbalance(model: ResNet, data: ra.ImageData, decay: float) -> Row:
    """How far the gradient is from zero, and the head's singular values.

    Of θ, the matrices of one block, with the loss of all training images in one batch and in training mode:
    ``imbalance``, ‖∇loss + decay·θ‖ / ‖decay·θ‖, is 0 at a critical point of loss + decay/2·‖θ‖². ``balance``,
    −θ·∇loss / (decay·‖θ‖²), is 1 there. Where the loss does not depend on the size of θ, as behind a batch norm with
    ε = 0, ∇loss is orthogonal to θ: the second is 0, and the first at least 1, wherever θ ≠ 0.
    """
    twin = copy.deepcopy(model).train()
    F.cross_entropy(twin(data.train_x), data.train_y).backward()
    rest, along = [], []
    for block in twin.blocks:
        theta = torch.cat([p.detach().flatten() for p in matrices(block)])
        slope = torch.cat([p.grad.flatten() for p in matrices(block) if p.grad is not None])
        rest.append(ratio((slope + decay * theta).norm(), (decay * theta).norm()))
        along.append(ratio(-(theta @ slope), decay * theta @ theta))
    head = torch.linalg.svdvals(matrices(twin.head)[0].detach())
    arrays = {"imbalance": torch.stack(rest), "balance": torch.stack(along), "head_singular_values": head}
    return {name: rounded(values, 4) for name, values in arrays.items()}


def pruned(model: ResNet, data: ra.ImageData, seed: int) -> Row:
    """Accuracies with 0..L−1 branches cut in the order of each criterion, all of which see training images alone."""
    x = first_of_each_class(data.train_x, data.train_y, 3)
    with torch.no_grad():
        train, test = model.stem(data.train_x), model.stem(data.test_x)
    own = with_others(ra.measure_alignment(model, x).coupling.mean(0))
    rest, most = steps_of(model, data.train_x), len(model.blocks) - 1
    orders = {
        "least coupling": ranked(own.tolist()),
        "most coupling": ranked((-own).tolist()),
        "least magnitude": ranked(rest["magnitude"]),
        "highest cosine": ranked([-value for value in rest["cosine"]]),
        "measured": greedy(model, train, data.train_y, most),
    }
    found: Row = {name: _curve(model, test, data.test_y, order[:most]) for name, order in orders.items()}
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(len(model.blocks), generator=generator).tolist()[:most] for _ in range(DRAWS)]
    chance = torch.tensor([_curve(model, test, data.test_y, order) for order in draws]).mean(0)
    return {
        "orders": {name: order[:most] for name, order in orders.items()},
        "test": found | {"chance": rounded(chance)},
    }


def ranked(values: Sequence[float]) -> list[int]:
    """Indices, least value first; of equal ones the earlier block first."""
    return sorted(range(len(values)), key=lambda index: values[index])


def greedy(model: ResNet, states: Tensor, y: Tensor, count: int) -> list[int]:
    """Blocks in the order in which each cut leaves the highest accuracy; of equal ones, the least loss."""

    def cost(removed: list[int]) -> tuple[float, float]:
        logits = logits_without(model, states, removed)
        return -float((logits.argmax(1) == y).double().mean()), float(F.cross_entropy(logits, y))

    order: list[int] = []
    for _ in range(count):
        left = [index for index in range(len(model.blocks)) if index not in order]
        order.append(min(left, key=lambda index: cost([*order, index])))
    return order


def _curve(model: ResNet, states: Tensor, y: Tensor, order: Sequence[int]) -> list[float]:
    return [round(accuracy_without(model, states, y, order[:count]), 5) for count in range(len(order) + 1)]
