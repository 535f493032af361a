"""Run all benchmarks, print the tables, and record them in ``results/benchmarks*.json`` and ``.md``.

Every row compares alternatives in one run on one machine: read the ratios, not the seconds. The most telling groups
come first, and each is written as soon as it is there.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from . import comparison, diagnosis, door, growth, monitoring, network, processes, rates
from .measuring import measuring
from .operators import warm_up
from .plan import Plan
from .recording import (
    RESULTS,
    Table,
    add_ratios,
    environment,
    file_stem,
    key,
    median_of,
    note_of,
    number,
    record,
    spread_of,
)
from .timing import repeated, threads
from .training import training

CPU_THREADS = 2


def forming(plan: Plan) -> list[Table]:
    """The book's training run and its reports on small blocks, on the CPU with the threads of the environment."""
    rows = []
    for task, ways in {**training(), **measuring()}.items():
        for way, work in ways.items():
            if plan.goes_on(f"{task}: {way}"):
                times = repeated(work, short=1 if plan.quick else 3, long=1 if plan.quick else 3)
                rows.append({"task": task, "way": way, "seconds": [round(value, 4) for value in times]})
    add_ratios(rows, lambda row: row["task"])
    columns = {
        "task": key("task"),
        "way": key("way"),
        "seconds (median)": median_of(),
        "spread": spread_of(),
        "ratio": number("ratio", ".1f"),
    }
    return [Table("Training and small blocks", columns, rows)]


GROUPS: dict[str, Callable[[Plan], list[Table]]] = {
    "peers": comparison.comparison,
    "first": processes.first_calls,
    "networks": processes.networks,
    "diagnosis": diagnosis.diagnosis,
    "door": door.door,
    "crossover": growth.crossover,
    "large": growth.large,
    "network": network.whole,
    "rates": rates.rates,
    "growth": growth.growth,
    "training": forming,
    "monitor": monitoring.monitoring,
}


def groups(revision: str | None) -> dict[str, Callable[[Plan], list[Table]]]:
    """What can be asked for by name, in the order in which it is measured."""
    if revision is None:
        return GROUPS
    early = ("peers", "first")
    then = {"against": partial(processes.against, revision=revision)}
    return {name: GROUPS[name] for name in early} | then | {n: g for n, g in GROUPS.items() if n not in early}


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--threads", type=int, default=CPU_THREADS, help="of the decompositions")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; records nothing")
    parser.add_argument("--only", choices=(*GROUPS, "against"), help="one group of tables; records nothing")
    parser.add_argument("--against", metavar="REV", help="also time whole networks with the package of this commit")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds after which no row is begun")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the tables are written")
    asked = parser.parse_args(arguments)
    if asked.only == "against" and asked.against is None:
        parser.error("--only against needs --against REV, the commit to compare with")
    return asked


def main() -> None:
    """Run the groups in turn."""
    asked = options()
    plan = Plan(torch.device(asked.device), asked.threads, asked.quick, time.monotonic() + asked.budget)
    about = environment(plan.device, asked.threads)
    if asked.budget < math.inf:
        about["seconds after which no row was begun"] = asked.budget
    tables: dict[str, list[Table]] = {}
    for name in groups(asked.against):
        if asked.only not in (None, name) or time.monotonic() > plan.until:
            continue
        print(f"{name}:", flush=True)
        tables[name] = measured(name, plan, asked.against)
        print("\n\n".join(["", *(table.markdown() for table in tables[name]), ""]), flush=True)
        if not asked.quick and not asked.only:  # after every group, so that nothing measured is lost
            record(tables, about, file_stem(plan.device), asked.folder)
    print(note_of(about))


def measured(name: str, plan: Plan, revision: str | None = None) -> list[Table]:
    """A group's tables that have rows; all but trainings use the threads of the decompositions."""
    work = groups(revision)[name]
    if name in ("training", "monitor"):
        found = work(plan)
    else:
        with threads(plan.threads):
            warm_up(plan.device)
            found = work(plan)
    return [table for table in found if table.rows]


if __name__ == "__main__":
    main()
