"""What a user waits for, each row in a process of its own: first calls, whole networks, and another commit's."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .plan import Plan
from .recording import Row, Table, integer, key, megabytes, number, seconds

ROOT = Path(__file__).resolve().parents[1]
WORKER = Path(__file__).with_name("worker.py")
FIRST = ("measure_alignment", "jacobian_svd", "truncated_svd, Krylov", "truncated_svd, dense")
NETWORKS = {
    "measure_alignment": "8 blocks of 16 channels, 8 × 8",
    "resnet18": "resnet18, 3 × 64 × 64, tol 1e-2",
    "resnet50": "resnet50, 3 × 224 × 224, tol 1e-2",
}


def run_worker(task: str, plan: Plan, calls: int, *, account: bool = False, root: Path = ROOT) -> Row:
    """One task of ``worker.py`` in a new process, with the package that lies in ``root``.

    Raises:
        RuntimeError: it failed, or took another package; the text has the end of what it said.
    """
    command = [sys.executable, "-P", str(WORKER), task, f"--device={plan.device.type}", f"--threads={plan.threads}"]
    command += [f"--calls={calls}", *(["--quick"] if plan.quick else []), *(["--account"] if account else [])]
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "OMP_NUM_THREADS": str(plan.threads)}
    done = subprocess.run(command, env=os.environ | environment, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The task {task!r} failed with the package in {root}:\n{done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(row["package"]).is_relative_to(root):
        raise RuntimeError(f"The task {task!r} was to take the package in {root}; it took {row['package']}.")
    del row["package"]
    return {"task": task, **row}


def first_calls(plan: Plan) -> list[Table]:
    """The first call in a fresh process beside the second."""
    rows = []
    for task in FIRST:
        if plan.goes_on(task):
            row = run_worker(task, plan, 3)
            first, *later = row["seconds"]
            rows.append(row | {"first": first, "second": later[0], "more": first - later[0]})
    columns = {
        "call": key("task"),
        "import, seconds": number("import", ".2f"),
        "first call": seconds("first"),
        "second call": seconds("second"),
        "first − second": number("more", ".3f"),
        "modules imported by the first": integer("modules"),
    }
    note = (
        "A new Python process for each row. 8 post-activation convolutional blocks of 16 channels, 8 × 8 (N = 1,024), "
        "one input, k = 10; `truncated_svd` of the last block, from branch and point on. Batch norm's statistics were "
        "set before by forward passes."
    )
    return [Table("A first call in a fresh process", columns, rows, note)]


def networks(plan: Plan) -> list[Table]:
    """``ra.measure_alignment`` of whole networks."""
    rows: list[Row] = []
    blocks: list[Row] = []
    for task, name in NETWORKS.items():
        if not plan.goes_on(name):
            continue
        # the dear one is called once on a CPU
        calls = 0 if task == "resnet50" and plan.device.type == "cpu" else 3
        row: Row = {"network": name, **run_worker(task, plan, calls, account=True)}
        account = row.pop("account")
        rows.append(row | _shares(account) | {"first": row["seconds"][0], "best": min(row["seconds"])})
        rows[-1]["cpu"] = min(row["cpu_seconds"])
        blocks += [{"network": name, "block": block, "products": most} for block, most in account["blocks"].items()]
    return [_networks_table(rows), _blocks_table(blocks)]


def _shares(account: dict[str, Any]) -> Row:
    parts = ("opening", "products", "couplings")
    shares = {name: account[name] / account["whole"] for name in parts}
    return shares | {"rest": 1 - sum(shares.values()), "number": sum(account["blocks"].values())}


def _networks_table(rows: list[Row]) -> Table:
    columns = {
        "network": key("network"),
        "seconds": seconds("best"),
        "first call": seconds("first"),
        "CPU seconds": number("cpu", ".2f"),
        "peak memory, MB": megabytes("peak_bytes"),
        "before the call, MB": megabytes("start_bytes"),
        "products": integer("number"),
        "opening": number("opening", ".0%"),
        "products, share": number("products", ".0%"),
        "couplings": number("couplings", ".0%"),
        "the rest": number("rest", ".0%"),
    }
    note = (
        "`ra.measure_alignment` at one input, k = 10, with all couplings, untrained; the networks of torchvision have "
        "10 classes, so that 15 triplets a block are computed. Each row in a process that does nothing else; memory "
        "is the most that it ever held (on CUDA, the allocator). Seconds: the best of the calls, of one call where it "
        "is that dear. Shares of the time of one call: opening, which proves the products; products of the "
        "decompositions; couplings with theirs; the rest is the small work between products."
    )
    return Table("Whole networks", columns, rows, note)


def _blocks_table(rows: list[Row]) -> Table:
    columns = {"network": key("network"), "block": key("block"), "products": integer("products")}
    note = "Single products, forward and transposed, of each block, those for the couplings included."
    return Table("Products of each block", columns, rows, note)


def against(plan: Plan, revision: str) -> list[Table]:
    """The same whole networks with the package of another commit, in turn with ours."""
    rows = []
    with worktree(revision) as before:
        for task, name in NETWORKS.items():
            if plan.goes_on(f"{name}, against {revision}"):
                rows.append({"network": name} | _both(task, plan, before))
    columns = {
        "network": key("network"),
        "seconds then": seconds("then"),
        "seconds now": seconds("now"),
        "ratio": number("ratio", ".1f"),
        "CPU seconds then": number("cpu_then", ".2f"),
        "CPU seconds now": number("cpu_now", ".2f"),
        "first call then": seconds("first_then"),
        "first call now": seconds("first_now"),
        "MB then": megabytes("bytes_then"),
        "MB now": megabytes("bytes_now"),
        "alignment then": number("alignment_then", ".4f"),
        "alignment now": number("alignment_now", ".4f"),
    }
    note = (
        f"Then: commit {revision}. Each in processes of its own, in turn, as many for either; seconds are the medians "
        "over processes of the best call of each, and of resnet50 those of a first and only call. Networks as above."
    )
    return [Table("Against an earlier commit", columns, rows, note)]


def _both(task: str, plan: Plan, before: Path) -> Row:
    calls, rounds = (1, 1) if task == "resnet50" else (2, 2) if task == "resnet18" else (5, 3)
    found: dict[str, list[Row]] = {"then": [], "now": []}
    for _ in range(rounds):
        for name, root in (("then", before), ("now", ROOT)):
            found[name].append(run_worker(task, plan, calls, root=root))
    row: Row = {"task": task}
    for name, several in found.items():
        row[name] = statistics.median(min(each["seconds"]) for each in several)
        row[f"cpu_{name}"] = statistics.median(min(each["cpu_seconds"]) for each in several)
        row[f"first_{name}"] = statistics.median(each["seconds"][0] for each in several)
        row[f"bytes_{name}"] = max(each["peak_bytes"] for each in several)
        row[f"alignment_{name}"] = several[0]["alignment"]
    return row | {"ratio": row["then"] / row["now"]}


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of another commit in a folder that is gone afterwards.

    Raises:
        RuntimeError: git knows no such commit here.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve() / "then"
        git = ["git", "-C", str(ROOT), "worktree"]
        made = subprocess.run([*git, "add", "--detach", str(place), revision], capture_output=True, text=True)
        if made.returncode:
            raise RuntimeError(f"Cannot take out commit {revision!r}: {made.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True, capture_output=True)
