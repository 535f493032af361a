"""Our truncated SVD against other ways, on the same operators to the same accuracy."""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from .operators import Case, case
from .peers import TOLERANCE, Counted, Triplets, Way, replay, ways
from .recording import Row, Table, add_ratios, integer, key, median_of, number, spread_of
from .timing import repeated, seconds_of, side_by_side

PATIENCE = 30.0  # seconds after which no dearer setting of a way is tried


@dataclass
class Found:
    """What one setting of a way gave."""

    setting: dict[str, Any]
    seconds: float
    calls: list[tuple[str, int]]
    error: float
    residual: float
    triplets: Triplets


class Judge:
    """A case with its exact Jacobian in float64, and what that says of triplets."""

    def __init__(self, case: Case) -> None:
        self.case, self.matrix = case, case.exact()

    @cached_property
    def sigma(self) -> Tensor:
        """All singular values, float64."""
        return torch.linalg.svdvals(self.matrix)

    def energy(self, k: int) -> float:
        """Share of ‖J‖_F² in the k largest."""
        return float(self.sigma[:k].square().sum() / self.sigma.square().sum())

    def evidence(self, triplets: Triplets) -> tuple[float, float]:
        """Largest error of a singular value and largest residual, relative to σ_1."""
        u, s, v = (part.double() for part in triplets)
        error = (s - self.sigma[: len(s)]).abs().max()
        right, left = v @ self.matrix.T - s[:, None] * u, u @ self.matrix - s[:, None] * v
        residual = torch.maximum(right.norm(dim=1), left.norm(dim=1)).max()
        return float(error / self.sigma[0]), float(residual / self.sigma[0])


def comparison(device: torch.device, quick: bool) -> list[Table]:
    """Every way at every k on an untrained and on a trained block, and where our own time goes."""
    size, ranks = (256, (6,)) if quick else (3136, (30,))
    rows: list[Row] = []
    products: list[Row] = []
    energies = []
    for trained in (False, True):
        judge = Judge(case(size, trained=trained, device=device))
        energies.append(f"{judge.energy(ranks[0]):.0%} ({'trained' if trained else 'untrained'})")
        whole: dict[str, Row] = {}
        for k in ranks:
            for way in ways(k, min(judge.case.operator.shape)):
                print(f"  {judge.case.label}, k = {k}: {way.name} …", flush=True)
                rows.append(_row(judge, way, k, whole))
            products.append(_products(judge.case, k))
    add_ratios(rows, lambda row: (row["operator"], row["k"]))
    share = f"The {ranks[0]} largest triplets hold {' and '.join(energies)} of the Jacobian's energy."
    return [_peers_table(rows, share), _products_table(products)]


def _row(judge: Judge, way: Way, k: int, whole: dict[str, Row]) -> Row:
    """Time a way; what does not depend on k is timed once, at the largest."""
    row: Row = {"operator": judge.case.label, "k": k, "way": way.name, "reached": False, "remark": ""}
    if not way.installed:
        return row | {"remark": "not installed"}
    if way.name in whole:
        earlier = whole[way.name]
        found: Found = earlier["found"]
        error, residual = judge.evidence((found.triplets[0][:k], found.triplets[1][:k], found.triplets[2][:k]))
        return row | earlier["row"] | _evidence(error, residual) | {"k": k}
    best, problem = search(judge, way, k)
    if best is None:
        return row | {"remark": f"failed: {problem}"}
    times = [best.seconds]
    if best.residual <= TOLERANCE or way.whole:
        times = repeated(lambda: _run(judge.case, way, k, best.setting), judge.case.operator.device)
    row |= {
        "setting": ", ".join(f"{name} {value}" for name, value in best.setting.items() if name != "solver"),
        "seconds": [round(value, 5) for value in times],
        "products": sum(count for _, count in best.calls),
    }
    row |= _evidence(best.error, best.residual)
    if way.whole:
        whole[way.name] = {"found": best, "row": row}
    return row


def _evidence(error: float, residual: float) -> Row:
    reached = residual <= TOLERANCE
    remark = "" if reached else f"did not reach {TOLERANCE:.0e}"
    return {"error": error, "residual": residual, "reached": reached, "remark": remark}


def search(judge: Judge, way: Way, k: int) -> tuple[Found | None, str]:
    """The first setting whose true residual is within TOLERANCE, else the most accurate one that was tried."""
    best, problem, begin = None, "", time.perf_counter()
    for setting in way.settings:
        try:
            work = partial(_run, judge.case, way, k, setting)
            seconds, (triplets, calls) = seconds_of(work, judge.case.operator.device)
        except Exception as error:  # each library fails in its own way, and the table says how
            problem = f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
            continue
        found = Found(setting, seconds, calls, *judge.evidence(triplets), triplets)
        if best is None or found.residual < best.residual:
            best = found
        if found.residual <= TOLERANCE or time.perf_counter() - begin > PATIENCE:
            break
    return best, problem


def _run(case: Case, way: Way, k: int, setting: dict[str, Any]) -> tuple[Triplets, list[tuple[str, int]]]:
    operator = Counted(case.operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they have not converged: it is measured
        triplets = way.solve(case, operator, k, **setting)
    return triplets, operator.calls


def _products(case: Case, k: int) -> Row:
    """Our whole time beside the time of the same products with nothing between."""
    way = ways(k, min(case.operator.shape))[0]
    _, calls = _run(case, way, k, {})
    taken = side_by_side(
        {"whole": lambda: _run(case, way, k, {}), "bare": replay(case.operator, calls)}, case.operator.device
    )
    return {
        "operator": case.label,
        "k": k,
        "whole": taken["whole"],
        "bare": taken["bare"],
        "products": sum(count for _, count in calls),
        "block": statistics.mode([count for _, count in calls]),
        "multiple": taken["whole"] / taken["bare"],
        "outside": max(0.0, 1 - taken["bare"] / taken["whole"]),
    }


def _peers_table(rows: list[Row], share: str) -> Table:
    columns = {
        "operator": key("operator"),
        "k": key("k"),
        "way": key("way"),
        "setting": lambda row: row.get("setting", ""),
        "seconds (median)": median_of(),
        "spread": spread_of(),
        "ratio": number("ratio", ".1f"),
        "products": integer("products"),
        "error of σ / σ₁": number("error", ".0e"),
        "residual / σ₁": number("residual", ".0e"),
        "remark": key("remark"),
    }
    note = (
        "Ratio: seconds over those of the first way. Setting: the cheapest of those tried that reached a true residual "
        f"of {TOLERANCE:.0e}; empty for defaults. Products: single ones, forward and transposed; a matrix that is "
        "formed counts as its side. Errors and residuals are against the Jacobian in float64. What does not "
        f"depend on k was timed once. {share}"
    )
    return Table("Truncated SVD of a Residual Jacobian, against other ways", columns, rows, note)


def _products_table(rows: list[Row]) -> Table:
    columns = {
        "operator": key("operator"),
        "k": key("k"),
        "products": integer("products"),
        "block": key("block"),
        "seconds": number("whole", ".4f"),
        "of the bare products": number("bare", ".4f"),
        "multiple": number("multiple", ".2f"),
        "share outside the products": number("outside", ".0%"),
    }
    note = "Bare products: the same calls, of the same block sizes, replayed with nothing between them."
    return Table("Where our time goes", columns, rows, note)
