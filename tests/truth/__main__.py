"""``python -m tests.truth``: what comes of each branch of the table, in Markdown."""

import torch

from .branches import ROWS, Row
from .oracle import PRODUCTS, faults, measure

SHORT = 160


def summary(row: Row) -> list[str]:
    """The cells of a row: its name, what it must be, whether it is, and each kind of outcome with where and why."""
    where: dict[str, list[str]] = {}
    texts: dict[str, set[str]] = {}
    failed = False
    for n in (1, 3):
        outcomes = measure(row, n)
        failed |= bool(faults(row, n, outcomes))
        for product, outcome in outcomes.items():
            where.setdefault(outcome.kind, []).append(f"{product.replace(' ', '×')} at {n}")
            texts.setdefault(outcome.kind, set()).add(outcome.text.splitlines()[0][:SHORT] if outcome.text else "")
    cells = []
    for kind, places in where.items():
        place = "" if len(places) == 2 * len(PRODUCTS) else f" ({', '.join(places)})"
        cells.append(kind + place + ("" if kind == "right" else f": {' / '.join(sorted(texts[kind]))}"))
    return [row.name, row.must, "no" if failed else "yes", "; ".join(cells).replace("|", "/")]


def main() -> None:
    torch.set_num_threads(1)
    print("| branch | must be | is so | what comes |\n|---|---|---|---|")
    for row in ROWS:
        print(f"| {' | '.join(summary(row))} |", flush=True)


if __name__ == "__main__":
    main()
