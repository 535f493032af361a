"""Architectures in which residual sums are looked for, each with the number that its source has.

Sizes are small and weights random. ``python tests/residuals/finder/zoo.py`` tries all of them and writes the book's
table; the tests try those that take less than a second.
"""

import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from zoo_language import LANGUAGE
from zoo_models import IMAGES, TIMM

import resalign_utils as ra

PAGE = Path(__file__).parents[3] / "book" / "limits_zoo.md"


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: for a reader.
        library: where it comes from.
        make: the model.
        inputs: two inputs.
        sums: how many residual blocks it has.
        quick: whether the tests try it.
    """

    name: str
    library: str
    make: Callable[[], torch.nn.Module]
    inputs: Callable[[], Any]
    sums: int
    quick: bool = True


def _timm(name: str, size: int) -> Callable[[], torch.nn.Module]:
    def make() -> torch.nn.Module:
        import timm

        try:
            return timm.create_model(name, img_size=size)
        except TypeError:  # it takes images of any size
            return timm.create_model(name)

    return make


def _images(size: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.randn(2, 3, size, size)


ZOO = [
    *(Architecture(name, "torchvision", make, inputs, sums) for name, (make, inputs, sums) in IMAGES.items()),
    *(
        Architecture(name, "timm", _timm(name, size), _images(size), sums, quick)
        for name, (size, sums, quick) in TIMM.items()
    ),
    *(Architecture(name, "transformers", make, inputs, sums) for name, (make, inputs, sums) in LANGUAGE.items()),
]


def looked_at(architecture: Architecture) -> tuple[ra.BlockTable, torch.nn.Module, Any]:
    """The table of an architecture's blocks, with the model and its inputs."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, on their own models
        torch.manual_seed(0)
        model, x = architecture.make().eval(), architecture.inputs()
        return ra.find_blocks(model, x), model, x


def row(architecture: Architecture, table: ra.BlockTable) -> str:
    """The table's row without the time."""
    outer = ", ".join(sorted({block.outer.lower() or "none" for block in table})) or "–"
    others = Counter(other.kind for other in table.others)
    listed = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(others.items())) or "–"
    return f"| {architecture.name} | {architecture.library} | {architecture.sums} | {len(table)} | {outer} | {listed} |"


def main() -> int:
    torch.set_num_threads(1)
    lines, wrong = [], 0
    for architecture in ZOO:
        start = time.process_time()
        table, model, x = looked_at(architecture)
        seconds = time.process_time() - start
        if len(table):
            ra.trace(model, x)
        wrong += len(table) != architecture.sums
        lines.append(f"{row(architecture, table)} {seconds:.1f} |")
        print(lines[-1], flush=True)
    if not wrong:
        head = "| architecture | library | blocks | found | outer | listed beside | seconds |"
        rule = "|---" * 7 + "|"
        PAGE.write_text("\n".join([head, rule, *lines]) + "\n", encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())
