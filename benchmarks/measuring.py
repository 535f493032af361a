"""A whole alignment report, and its Jacobians alone against simpler ways to form them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

import resalign_utils as ra


def measuring() -> dict[str, dict[str, Callable[[], object]]]:
    """Tasks and ways; one warm-up call each, since torch loads its differentiation rules at first use."""
    data = ra.load_data("digits")
    x, _ = data.sample(per_class=10)
    model = ra.build_model(ra.ResNetConfig(8, 64), data, seed=0)
    ra.train(model, data, ra.TrainConfig(epochs=0))
    residuals = ra.trace(model, x).residuals
    ra.measure_alignment(model, x)

    def ours() -> list[torch.Tensor]:
        return [ra.dense_jacobians(r.branch, r.input) for r in residuals]

    def one_by_one() -> list[list[torch.Tensor]]:
        jacobian: Callable[..., torch.Tensor] = torch.autograd.functional.jacobian
        alone = [[r.rows(torch.tensor([i])) for i in range(len(r.input))] for r in residuals]
        return [[jacobian(one.branch, one.input).reshape(64, 64) for one in several] for several in alone]

    def row_by_row() -> list[torch.Tensor]:
        return [rows(r.branch, r.input) for r in residuals]

    others: list[Callable[[], Iterable[Iterable[torch.Tensor]]]] = [one_by_one, row_by_row]
    for way in others:
        for exact, other in zip(ours(), way(), strict=True):
            torch.testing.assert_close(torch.stack(list(other)), exact, atol=1e-4, rtol=1e-3)
    return {
        "full report, 100 inputs × 8 blocks of width 64": {
            "ra.measure_alignment": lambda: ra.measure_alignment(model, x)
        },
        "exact Jacobians, 100 inputs × 8 blocks of width 64": {
            "ra.dense_jacobians (all inputs at once, proved)": ours,
            "torch.autograd.grad, row by row for all inputs": row_by_row,
            "torch.autograd.functional.jacobian, input by input": one_by_one,
        },
    }


def rows(branch: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Jacobians (n, m, d) by one backward pass per output unit."""
    x = x.clone().requires_grad_()
    out = branch(x)
    return torch.stack([torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0] for i in range(out.shape[1])], 1)
