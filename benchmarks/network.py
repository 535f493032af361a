"""A whole network of the depth of a ResNet34, with couplings: ours, and the authors' way."""

from __future__ import annotations

import torch
from torch import Tensor

import resalign_utils as ra

from .memory import in_child, measured
from .operators import network, warm_up
from .peers import row_by_row, subspace_iteration
from .plan import Plan
from .recording import Row, Table, add_ratios, key, median_of, megabytes, number, spread_of

RANK = 10


def whole(plan: Plan) -> list[Table]:
    """Both ways, each in a process of its own."""
    size, depth = (256, 4) if plan.quick else (4096, 16)
    task = f"{depth} blocks, N = {size:,}, k = {RANK}, one input"
    rows: list[Row] = []
    for function, way in ((ours, "ra.measure_alignment"), (authors, "the authors': row by row, subspace iteration")):
        if plan.goes_on(f"{task}: {way}"):
            found = in_child(function, size, depth, str(plan.device), number=plan.threads)
            rows.append({"task": task, "way": way} | found)
    add_ratios(rows, lambda row: row["task"])
    columns = {
        "task": key("task"),
        "way": key("way"),
        "seconds (median)": median_of(),
        "spread": spread_of(),
        "ratio": number("ratio", ".1f"),
        "peak memory, MB": megabytes("peak_bytes"),
        "alignment": number("alignment", ".4f"),
        "difference of σ / σ₁": number("difference", ".0e"),
    }
    add_differences(rows)
    note = (
        "Untrained network. The authors' way forms all Jacobians by one backward pass a row, decomposes them by "
        "randomised subspace iteration and multiplies the matrices of every pair of blocks; it was run once. The last "
        "column is the largest difference between the two ways' singular values, relative to the block's largest."
    )
    return [Table("A whole network with couplings", columns, rows, note)]


def add_differences(rows: list[Row]) -> None:
    """Difference of the singular values from those of the first row; they are not kept."""
    sigma = [torch.tensor(row.pop("sigma")) for row in rows]  # (L, k) each
    for row, other in zip(rows[1:], sigma[1:], strict=True):
        row["difference"] = float(((other - sigma[0]).abs() / sigma[0][:, :1]).max())


def ours(size: int, depth: int, device: str) -> Row:
    """``ra.measure_alignment``, twice after a first call that also measures memory."""
    warm_up(device)
    model, data = network(size, depth, device=device)
    x = data.test_x[:1]
    small, small_data = network(64, 2, device=device)
    ra.measure_alignment(small, small_data.test_x[:1], k=2)
    found = measured(lambda: ra.measure_alignment(model, x, k=RANK), device, lambda first: 2)
    report = found.pop("result")
    alignment, sigma = float(report.alignment.mean()), report.singular_values[0, :, :RANK].tolist()
    return found | {"alignment": alignment, "sigma": sigma}


def authors(size: int, depth: int, device: str) -> Row:
    """Form, decompose, multiply; once."""
    warm_up(device)
    model, data = network(size, depth, device=device)
    small, small_data = network(64, 2, device=device)
    form_and_couple(small, small_data.test_x[:1])
    found = measured(lambda: form_and_couple(model, data.test_x[:1]), device)
    alignment, sigma = found.pop("result")
    return found | {"alignment": alignment, "sigma": sigma.tolist()}


def form_and_couple(model: ra.ResNet, x: Tensor) -> tuple[float, Tensor]:
    """Mean of ``tr(U_jᵀ J_i V_j) / Σ σ_i`` over pairs i ≠ j, and the singular values (L, k)."""
    jacobians = [row_by_row(residual.branch, residual.input) for residual in ra.trace(model, x).residuals]
    triplets = [subspace_iteration(jacobian, RANK) for jacobian in jacobians]
    scores = [
        torch.trace(u @ jacobian @ v.T) / sigma.sum()
        for i, (jacobian, (_, sigma, _)) in enumerate(zip(jacobians, triplets, strict=True))
        for j, (u, _, v) in enumerate(triplets)
        if i != j
    ]
    return float(torch.stack(scores).mean()), torch.stack([sigma for _, sigma, _ in triplets])
