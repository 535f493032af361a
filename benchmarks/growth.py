"""How time, products and memory grow, and from which size on Krylov is cheaper than forming the matrix."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

import resalign_utils as ra

from .fits import exponent
from .memory import in_child, measured
from .operators import case, network, warm_up
from .plan import Plan
from .recording import Row, Table, integer, key, median_of, megabytes, number, spread_of
from .timing import LONG, side_by_side

RANK = 10
PRODUCTS = 10  # vectors of the product that is compared with a forward pass


def growth(plan: Plan) -> list[Table]:
    """One process for each point, so that peak memory is its own."""
    known: dict[tuple[int, ...], Row] = {}
    rows = []
    for point in points(plan.device, plan.quick):
        where = tuple(point[name] for name in "NknL")
        if where not in known and plan.goes_on(f"{point['along']} = {point['value']}"):
            known[where] = _measured_point(point, plan)
        if where in known:
            rows.append(known[where] | point)
    return [_growth_table(rows), _fits_table(fits(rows))]


def points(device: torch.device, quick: bool) -> list[Row]:
    """What is varied, alone: N, k, n or L."""
    sizes = [64, 256, 1024] if quick else [64, 256, 1024, 3136, 16384, 65536]
    if device.type == "cuda" and not quick:
        sizes.append(262144)
    middle, small = (256, 64) if quick else (3136, 1024)
    ranks = (5, 10) if quick else (5, 10, 20, 80)
    inputs, depths = ((1, 4), (4, 8)) if quick else ((1, 8, 64), (4, 8, 16))
    return [
        *({"along": "N", "value": size, "N": size, "k": RANK, "n": 1, "L": 1} for size in sizes),
        *({"along": "k", "value": k, "N": middle, "k": k, "n": 1, "L": 1} for k in ranks),
        *({"along": "n", "value": n, "N": small, "k": RANK, "n": n, "L": 4} for n in inputs),
        *({"along": "L", "value": depth, "N": small, "k": RANK, "n": 1, "L": depth} for depth in depths),
    ]


def _measured_point(point: Row, plan: Plan) -> Row:
    function = one_block if point["along"] in "Nk" else whole_network
    arguments = [point[name] for name in "Nk"] if function is one_block else [point[name] for name in "NknL"]
    return in_child(function, *arguments, str(plan.device), number=plan.threads)


def one_block(size: int, k: int, device: str) -> Row:
    """Krylov on one untrained block."""
    warm_up(device)
    one = case(size, device=device)
    found = measured(lambda: ra.truncated_svd(one.open(), k, method="krylov"), device, _repeats)
    svd = found.pop("result")
    return found | {"products": svd.matvecs, "residual": float(svd.residuals.max())}


def whole_network(size: int, k: int, n: int, depth: int, device: str) -> Row:
    """Krylov on all blocks of an untrained network at n inputs."""
    warm_up(device)
    model, data = network(size, depth, device=device)
    path = ra.trace(model, data.test_x[:n])
    found = measured(lambda: ra.jacobian_svd(path, k, method="krylov"), device, _repeats)
    svds = found.pop("result")
    worst = max(float(svd.residuals.max()) for svd in svds)
    return found | {"products": sum(svd.matvecs for svd in svds), "residual": worst}


def _repeats(first: float) -> int:
    return 5 if first < LONG else 3 if first < 10 * LONG else 1


def fits(rows: list[Row]) -> list[Row]:
    """Exponents of seconds, products and memory; along N also of the larger half, where fixed costs are small."""
    found = []
    for along in dict.fromkeys(row["along"] for row in rows):
        chosen = [row for row in rows if row["along"] == along]
        if len(chosen) > 1:
            found.append(_fit(along, chosen))
        large = [row for row in chosen if row["value"] >= 1024]
        if along == "N" and 2 <= len(large) < len(chosen):
            found.append(_fit(along, large))
    return found


def _fit(along: str, rows: list[Row]) -> Row:
    costs: dict[str, Callable[[Row], float]] = {
        "seconds": lambda row: statistics.median(row["seconds"]),
        "products": lambda row: row["products"],
        "peak_bytes": lambda row: row["peak_bytes"],
    }
    row: Row = {"along": along, "first": rows[0]["value"], "last": rows[-1]["value"]}
    for name, cost in costs.items():
        pairs = [(each["value"], cost(each)) for each in rows if cost(each) > 0]
        row[name] = exponent(*zip(*pairs, strict=True)) if len(pairs) == len(rows) else None
    return row


def _growth_table(rows: list[Row]) -> Table:
    columns = {name: integer(name) for name in ("N", "k", "n", "L")} | {
        "seconds (median)": median_of(),
        "spread": spread_of(),
        "products": integer("products"),
        "peak memory, MB": megabytes("peak_bytes"),
        "residual / σ₁": number("residual", ".0e"),
    }
    note = (
        "Krylov on untrained blocks, opening included: one block where n and L are 1, `ra.jacobian_svd` of a whole "
        "network elsewhere. "
        "Products: for one input, of all blocks. Memory: the highest level of a process of its own above the level "
        "before the work (on CUDA, of the allocator)."
    )
    return Table("How the cost grows", columns, rows, note)


def _fits_table(rows: list[Row]) -> Table:
    columns = {
        "grows with": key("along"),
        "range": lambda row: f"{row['first']:,} … {row['last']:,}",
        "seconds": number("seconds", ".2f"),
        "products": number("products", ".2f"),
        "peak memory": number("peak_bytes", ".2f"),
    }
    return Table("Exponents of the growth", columns, rows, "Least squares on logarithms over the range.")


def crossover(plan: Plan) -> list[Table]:
    """Both methods, side by side, on small blocks."""
    sizes = (64, 128) if plan.quick else (64, 128, 256, 512, 1024)
    rows = [
        _both(size, trained, k, plan.device)
        for size, trained in [*((size, False) for size in sizes), *([] if plan.quick else [(1024, True)])]
        for k in (10, 30)
        if plan.goes_on(f"N = {size}, k = {k}")
    ]
    columns = {
        "operator": key("operator"),
        "k": key("k"),
        "dense, seconds": number("dense", ".4f"),
        "Krylov, seconds": number("krylov", ".4f"),
        "dense / Krylov": number("ratio", ".2f"),
        "taken by `auto`": key("auto"),
    }
    return [
        Table("Dense or Krylov", columns, rows, "Medians, both ways in turn, opening included; one block at one input.")
    ]


def _both(size: int, trained: bool, k: int, device: torch.device) -> Row:
    one = case(size, trained=trained, device=device)
    ways: dict[str, Callable[[], Any]] = {
        method: lambda method=method: ra.truncated_svd(one.open(), k, method=method)  # type: ignore[misc]
        for method in ("dense", "krylov")
    }
    for work in ways.values():
        work()
    taken = side_by_side(ways, device)
    auto = ra.truncated_svd(one.open(), k).method
    return {"operator": one.label, "k": k, **taken, "ratio": taken["dense"] / taken["krylov"], "auto": auto}


def large(plan: Plan) -> list[Table]:
    """Memory of an SVD, and the cost of a product beside a forward pass of the same batch."""
    sizes = (64, 256) if plan.quick else (4096, 16384, 65536)
    rows = [
        {"N": size, "k": RANK} | in_child(large_block, size, str(plan.device), number=plan.threads)
        for size in sizes
        if plan.goes_on(f"N = {size}")
    ]
    columns = {
        "N": integer("N"),
        "k": key("k"),
        "SVD, seconds (median)": median_of(),
        "SVD, peak memory, MB": megabytes("peak_bytes"),
        "forward pass, ms": number("forward_ms", ".2f"),
        "J v, multiple": number("matmat", ".2f"),
        "Jᵀ u, multiple": number("rmatmat", ".2f"),
    }
    note = (
        f"A forward pass of the residual block for a batch of {PRODUCTS}, without gradients, beside one product with "
        f"{PRODUCTS} vectors. The Jacobian would take "
        f"{sizes[-1] ** 2 * 4 / 1e9:,.1f} GB at the largest N."
    )
    return [Table("A large block", columns, rows, note)]


def large_block(size: int, device: str) -> Row:
    """One SVD's memory, then products and forward passes in turn."""
    row = one_block(size, RANK, device)
    one = case(size, device=device)
    operator = one.open()
    v = torch.randn(PRODUCTS, *operator.in_shape, device=device)
    u = torch.randn(PRODUCTS, *operator.out_shape, device=device)
    batch = one.point.expand(PRODUCTS, *operator.in_shape).contiguous()

    def forward() -> None:
        with torch.no_grad():
            one.block(batch)

    ways: dict[str, Callable[[], Any]] = {
        "forward": forward,
        "matmat": lambda: operator.matmat(v),
        "rmatmat": lambda: operator.rmatmat(u),
    }
    for work in ways.values():
        work()
    taken = side_by_side(ways, device, rounds=9)
    multiples = {name: taken[name] / taken["forward"] for name in ("matmat", "rmatmat")}
    return row | multiples | {"forward_ms": 1e3 * taken["forward"]}
