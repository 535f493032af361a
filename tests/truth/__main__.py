"""``python -m tests.truth``: what comes of each branch of the table, in Markdown."""

import torch

from .branches import ROWS, Row
from .oracle import PRODUCTS, Outcome, faults, measure

SHORT = 160
Found = dict[tuple[str, int], Outcome]  # by product and number of rows


def places(found: Found, kind: str, sizes: tuple[int, ...]) -> str:
    """Which products ended so, and at which number of rows if not at each."""
    at = {name: [n for n in sizes if found[name, n].kind == kind] for name in PRODUCTS}
    if all(tuple(ns) == sizes for ns in at.values()):
        return ""
    named = [name if tuple(ns) == sizes else f"{name} at n = {ns[0]}" for name, ns in at.items() if ns]
    return f" ({', '.join(named)})"


def summary(row: Row) -> list[str]:
    """The cells of a row: its name, what it must be, whether it is, and each kind of outcome with where and why."""
    by_size = {n: measure(row, n) for n in row.sizes}
    found = {(name, n): outcome for n, outcomes in by_size.items() for name, outcome in outcomes.items()}
    failed = any(faults(row, n, outcomes) for n, outcomes in by_size.items())
    cells = []
    for kind in dict.fromkeys(outcome.kind for outcome in found.values()):
        worst = max((o for o in found.values() if o.kind == kind), key=lambda outcome: outcome.size)
        text = "" if kind == "right" else f": {worst.text.splitlines()[0][:SHORT]}"
        cells.append(f"{kind}{places(found, kind, row.sizes)}{text}")
    return [row.name, row.must, "no" if failed else "yes", "; ".join(cells).replace("|", "/")]


def main() -> None:
    torch.set_num_threads(1)
    print("| branch | must be | is so | what comes |\n|---|---|---|---|")
    for row in ROWS:
        print(f"| {' | '.join(summary(row))} |", flush=True)


if __name__ == "__main__":
    main()
