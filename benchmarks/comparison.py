"""Our truncated SVD against other ways, on the same operators to the same accuracy."""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .operators import Case, case
from .peers import TOLERANCE, Triplets, Way, replay, ways
from .plan import Plan
from .recording import Row, Table, add_ratios, integer, key, median_of, number, spread_of
from .timing import LONG, seconds_of, side_by_side

PATIENCE = 15.0  # seconds after which no dearer setting of a way is tried
SHORT, FEW = 5, 3  # runs of a way, and of one that takes LONG


@dataclass
class Run:
    """One run of a way: seconds of the set-up and with it, products, triplets."""

    set_up: float
    seconds: float
    calls: list[tuple[str, int]]
    triplets: Triplets


@dataclass
class Found:
    """What one setting of a way gave."""

    setting: dict[str, Any]
    run: Run
    error: float
    residual: float


class Judge:
    """A case with its exact Jacobian in float64, and what that says of triplets."""

    def __init__(self, case: Case) -> None:
        self.case, self.matrix = case, case.exact()

    @cached_property
    def sigma(self) -> Tensor:
        """All singular values, float64."""
        sigma: Tensor = torch.linalg.svdvals(self.matrix)
        return sigma

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


def comparison(plan: Plan) -> list[Table]:
    """Every way on an untrained and on a trained block, from branch and point on, and where our own time goes."""
    size, k = (256, 6) if plan.quick else (3136, 30)
    rows: list[Row] = []
    bare: list[Row] = []
    shares = []
    for trained in (False, True):
        state = "trained" if trained else "untrained"
        if not plan.goes_on(f"N = {size:,}, {state}: exact, and our products"):
            break
        judge = Judge(case(size, trained=trained, device=plan.device))
        shares.append(f"{judge.energy(k):.0%} ({state})")
        bare.append(_products(judge.case, k))
        for way in ways(k, judge.case.side):
            if plan.goes_on(f"{judge.case.label}, k = {k}: {way.name}"):
                rows.append(_row(judge, way, k))
    add_ratios(rows, lambda row: row["operator"])
    share = f"The {k} largest triplets hold {' and '.join(shares)} of the Jacobian's energy."
    return [_peers_table(rows, share), _products_table(bare)]


def _row(judge: Judge, way: Way, k: int) -> Row:
    """Time the cheapest setting that is accurate enough; a way without settings is timed as it is."""
    row: Row = {"operator": judge.case.label, "k": k, "way": way.name, "reached": False, "remark": ""}
    if not way.installed:
        return row | {"remark": "not installed"}
    best, problem = search(judge, way, k)
    if best is None:
        return row | {"remark": f"failed: {problem}"}
    runs = [best.run]
    if best.residual <= TOLERANCE or len(way.settings) == 1:
        repeats = SHORT if best.run.seconds <= LONG else FEW
        runs += [run_once(judge.case, way, k, best.setting) for _ in range(repeats - 1)]
    reached = best.residual <= TOLERANCE
    return row | {
        "setting": ", ".join(f"{name} {value}" for name, value in best.setting.items() if name != "solver"),
        "seconds": [round(run.seconds, 5) for run in runs],
        "set_up": [round(run.set_up, 5) for run in runs],
        "products": sum(count for _, count in best.run.calls),
        "error": best.error,
        "residual": best.residual,
        "reached": reached,
        "remark": "" if reached else f"did not reach {TOLERANCE:.0e}",
    }


def search(judge: Judge, way: Way, k: int) -> tuple[Found | None, str]:
    """The first setting whose true residual is within TOLERANCE, else the most accurate one that was tried."""
    best, problem, begin = None, "", time.perf_counter()
    for setting in way.settings:
        try:
            run = run_once(judge.case, way, k, setting)
        except Exception as error:  # each library fails in its own way, and the table says how
            problem = f"{type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
            continue
        found = Found(setting, run, *judge.evidence(run.triplets))
        if best is None or found.residual < best.residual:
            best = found
        if found.residual <= TOLERANCE or time.perf_counter() - begin > PATIENCE:
            break
    return best, problem


def run_once(case: Case, way: Way, k: int, setting: dict[str, Any]) -> Run:
    """From branch and point to triplets, by the clock."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # solvers that do not converge warn; the table shows it
        set_up, operator = seconds_of(lambda: way.set_up(case), case.point.device)
        solving, triplets = seconds_of(lambda: way.solve(operator, k, **setting), case.point.device)
    return Run(set_up, set_up + solving, operator.calls, triplets)


def _products(case: Case, k: int) -> Row:
    """Our whole time beside that of the same products alone, opening included in both."""
    way = ways(k, case.side)[0]
    calls = run_once(case, way, k, {}).calls
    taken = side_by_side(
        {"whole": lambda: run_once(case, way, k, {}), "bare": replay(case.open, calls), "opening": case.open},
        case.point.device,
    )
    after = {name: taken[name] - taken["opening"] for name in ("whole", "bare")}
    return {
        "operator": case.label,
        "k": k,
        **taken,
        "products": sum(count for _, count in calls),
        "block": statistics.mode([count for _, count in calls]),
        "multiple": taken["whole"] / taken["bare"],
        "multiple_after": after["whole"] / after["bare"],
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
        "of the set-up": median_of("set_up"),
        "ratio": number("ratio", ".1f"),
        "products": integer("products"),
        "error of σ / σ₁": number("error", ".0e"),
        "residual / σ₁": number("residual", ".0e"),
        "remark": key("remark"),
    }
    note = (
        "Seconds: from a branch and a point to triplets, the set-up included: the operator opened and proved, or the "
        "matrix formed. Iterative ways get the same operator, ours, opened anew for each run, but for the row on "
        "torch.func, which has no set-up and no proof. Ratio: seconds over those of the first way. Setting: the "
        f"cheapest of those tried that reached a true residual of {TOLERANCE:.0e}; empty for defaults. Products: "
        "single ones, forward and transposed, without those of the proof; a matrix that is formed counts as its side. "
        f"Errors and residuals are against the Jacobian in float64. {share}"
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
        "of the set-up in both": number("opening", ".4f"),
        "multiple": number("multiple", ".2f"),
        "multiple without set-up": number("multiple_after", ".2f"),
        "share outside the products": number("outside", ".0%"),
    }
    note = (
        "Medians, in turn. Bare products: the operator opened and proved, and the same calls, of the same block sizes, "
        "replayed with nothing between them."
    )
    return Table("Where our time goes", columns, rows, note)
