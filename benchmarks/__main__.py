"""Run all benchmarks, print the tables, and record them in ``results/benchmarks*.json`` and ``.md``.

Every row compares alternatives in one run on one machine: read the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch

from . import comparison, growth, network, rates
from .measuring import measuring
from .operators import warm_up
from .recording import Table, add_ratios, environment, file_stem, key, median_of, note_of, number, record, spread_of
from .timing import repeated, threads
from .training import training

CPU_THREADS = 2


def forming(quick: bool) -> list[Table]:
    """The book's training run and its reports on small blocks, on the CPU with the threads of the environment."""
    rows = []
    for task, ways in {**training(), **measuring()}.items():
        for way, work in ways.items():
            print(f"  {task}: {way} …", flush=True)
            times = repeated(work, short=1 if quick else 3, long=1 if quick else 3)
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


def groups(device: torch.device, number: int, quick: bool) -> dict[str, Callable[[], list[Table]]]:
    """What can be asked for by name; the first runs on the CPU whatever the device is."""
    return {
        "training": lambda: forming(quick),
        "peers": lambda: comparison.comparison(device, quick),
        "crossover": lambda: growth.crossover(device, quick),
        "large": lambda: growth.large(device, quick, number),
        "network": lambda: network.whole(device, quick, number),
        "growth": lambda: growth.growth(device, quick, number),
        "rates": lambda: rates.rates(device, quick),
    }


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cpu", "cuda"), default=default)
    parser.add_argument("--threads", type=int, default=CPU_THREADS, help="of the decompositions")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; records nothing")
    names = tuple(groups(torch.device("cpu"), 1, True))
    parser.add_argument("--only", choices=names, help="one group of tables; records nothing")
    return parser.parse_args()


def main() -> None:
    """Run the groups in turn."""
    asked = options()
    device = torch.device(asked.device)
    about = environment(device, asked.threads)
    tables: dict[str, list[Table]] = {}
    for name, work in groups(device, asked.threads, asked.quick).items():
        if asked.only not in (None, name):
            continue
        print(f"{name}:", flush=True)
        if name == "training":
            tables[name] = work()
        else:
            with threads(asked.threads):
                warm_up(device)
                tables[name] = work()
        print("\n\n".join(["", *(table.markdown() for table in tables[name]), ""]), flush=True)
        if not asked.quick and not asked.only:  # after every group, so that nothing measured is lost
            record(tables, about, file_stem(device))
    print(note_of(about))


if __name__ == "__main__":
    main()
