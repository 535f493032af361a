"""The cells of a map: a kind of network each, its numbers over seeds, and what is shown of one of its networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ._inputs import as_array, as_panels
from ._palette import INK
from ._spectra import FLOOR

Place = tuple[str, Any, Any]  # switch, row, column
FAILED = "#e3e3e3"  # the ground of a cell whose networks did not train


@dataclass(frozen=True)
class MapCell:
    """One cell of :func:`alignment_map`: a kind of network. A JSON record becomes one by ``MapCell(**record)``.

    Lists, arrays and tensors will do; ``None`` in a list is NaN. The first three numbers are over seeds, the last
    three are of one network, or of a mean.

    Args:
        row: its place among the rows, a number or a text; for instance the number of blocks.
        column: its place among the columns, for instance the weight decay.
        switch: on which map it stands, ``"with skips"`` or ``"without skips"``.
        scores: (seeds,), what the colour shows.
        train_accuracy: (seeds,), from 0 to 1; tells whether the networks trained at all.
        test_accuracy: (seeds,), from 0 to 1.
        trajectories: (n, L+1, 2), projected states; the same inputs in every cell.
        singular_values: (L, r), of each block, descending; for instance ``report.singular_values.mean(0)``.
        coupling: (L, L), for instance ``report.coupling.mean(0)``.
    """

    row: Any
    column: Any
    switch: str
    scores: Any
    train_accuracy: Any
    test_accuracy: Any
    trajectories: Any = field(repr=False)
    singular_values: Any = field(repr=False)
    coupling: Any = field(repr=False)

    @property
    def place(self) -> Place:
        return self.switch, self.row, self.column


class Cell(NamedTuple):
    """A checked cell: where it stands (map, row, column, from 0), its numbers and its pictures."""

    at: tuple[int, int, int]
    name: str
    passed: np.ndarray  # (seeds,) bool, whether it trained
    scores: np.ndarray  # (seeds,)
    train: np.ndarray  # (seeds,)
    test: np.ndarray  # (seeds,)
    trajectories: np.ndarray  # (n, L+1, 2)
    sigmas: np.ndarray  # (L, r)
    coupling: np.ndarray  # (L, L)

    @property
    def trained(self) -> bool:
        return bool(self.passed.all())

    @property
    def score(self) -> float:
        return float(self.scores.mean())

    @property
    def ink(self) -> str:
        """The colour of the text, by the contrast to the cell's own."""
        return "#ffffff" if self.trained and abs(self.score) > 0.67 else INK

    @property
    def text(self) -> str:
        """What is written into the cell: the score; of a network that did not train, a cross and its accuracy."""
        if self.trained:
            return _signed(self.score) if math.isfinite(self.score) else "–"
        lowest = float(self.train.min())
        return f"✗ {math.floor(100 * lowest) / 100:.2f}" if math.isfinite(lowest) else "✗"

    def facts(self, label: str) -> list[str]:
        """Two lines of numbers; the deviation (ddof = 0) is over seeds."""
        seeds = f"mean ± 1 sd over {len(self.scores)} seeds" if len(self.scores) > 1 else "1 seed"
        spread = f" ± {self.scores.std():.2f}" if len(self.scores) > 1 else ""
        accuracy = f"accuracy: train {self.train.mean():.3f}, test {self.test.mean():.3f}"
        if not self.trained:
            accuracy += f"; ✗ {int((~self.passed).sum())} of {len(self.scores)} seeds"
        return [f"{label} {_signed(self.score)}{spread} ({seeds})", accuracy]


class Words(NamedTuple):
    """Names of rows, columns and score, and of the classes."""

    row: str
    column: str
    score: str
    classes: Sequence[str] | None


class Grid(NamedTuple):
    """All cells, and the names of the maps, rows and columns in their order."""

    switches: list[str]
    rows: list[str]
    columns: list[str]
    cells: dict[Place, Cell]
    labels: np.ndarray  # (n,)
    trained_at: float

    @property
    def classes(self) -> int:
        """C, the number of classes that there are."""
        return len(np.unique(self.labels))

    @property
    def all_trained(self) -> bool:
        return all(cell.trained for cell in self.cells.values())

    @property
    def key(self) -> list[str]:
        """What the marks in the panels mean, line by line."""
        lines = ["trajectories: from h₀ (small, dark) to the end (bright)"]
        lines += ["singular values: first block dark, last block light"]
        clipped = any((cell.sigmas < FLOOR).any() for cell in self.cells.values())
        return [*lines, "values below 10⁻⁶ are drawn at 10⁻⁶"] if clipped else lines

    @property
    def failed_note(self) -> str:
        return f"✗ did not train: its lowest train accuracy, below {self.trained_at:g}"

    def best(self) -> Place:
        """The place of the highest score among the networks that trained, or among all if none did."""
        return max(self.cells, key=lambda place: (self.cells[place].trained, np.nan_to_num(self.cells[place].score)))

    def table(self, switch: int) -> list[list[Cell | None]]:
        """The cells of one map, row by row; None where there is none."""
        found: list[list[Cell | None]] = [[None] * len(self.columns) for _ in self.rows]
        for cell in self.cells.values():
            if cell.at[0] == switch:
                found[cell.at[1]][cell.at[2]] = cell
        return found


def check_cells(cells: Sequence[MapCell], labels: Any, words: tuple[str, str], trained_at: float) -> Grid:
    """Check all cells and put them in order: numbers ascending, texts as they come.

    Raises:
        ValueError: no cell, two at one place, or a part whose shape does not fit.
    """
    if not isinstance(cells, Sequence) or not cells or not all(isinstance(cell, MapCell) for cell in cells):
        raise ValueError("alignment_map: expected a sequence of at least one MapCell; MapCell(**record) makes one.")
    classes = as_array(labels).astype(int)
    switches, rows, columns = (_order([cell.place[axis] for cell in cells]) for axis in range(3))
    found: dict[Place, Cell] = {}
    for cell in cells:
        if cell.place in found:
            raise ValueError(f"alignment_map: two cells stand at {cell.place}. Put all seeds into one cell.")
        at = (switches.index(cell.switch), rows.index(cell.row), columns.index(cell.column))
        name = f"{cell.switch}, {words[0]} = {_text(cell.row)}, {words[1]} = {_text(cell.column)}"
        found[cell.place] = _checked(cell, at, name, len(classes), trained_at)
    in_order = {place: found[place] for place in sorted(found, key=lambda place: found[place].at)}
    return Grid(switches, [*map(_text, rows)], [*map(_text, columns)], in_order, classes, trained_at)


def _checked(cell: MapCell, at: tuple[int, int, int], name: str, inputs: int, trained_at: float) -> Cell:
    seeds, blocks = np.size(as_array(cell.scores)), len(np.atleast_1d(as_array(cell.coupling)))
    wanted = {
        "scores": ("(seeds,)", (seeds,)),
        "train_accuracy": ("(seeds,)", (seeds,)),
        "test_accuracy": ("(seeds,)", (seeds,)),
        "trajectories": ("(n, L+1, 2)", (inputs, blocks + 1, 2)),
        "singular_values": ("(L, r)", (blocks, None)),
        "coupling": ("(L, L)", (blocks, blocks)),
    }
    parts = []
    for part, (expected, shape) in wanted.items():
        fix = f"Here seeds = {seeds}, L = {blocks} (from coupling) and n = {inputs} (from labels)."
        panel = {f"{name}: {part}": getattr(cell, part)}
        found = as_panels(panel, lambda s, w=shape: _fits(s, w), what="alignment_map", expected=expected, fix=fix)  # type: ignore[misc]
        parts.append(next(iter(found.values())))
    return Cell(at, name, parts[1] >= trained_at, *parts)  # a NaN did not train


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def deep_ticks(blocks: int) -> list[int]:
    """The first block, one in the middle, and the last."""
    return sorted({1, (1 + blocks) // 2, blocks})


def _order(values: list[Any]) -> list[Any]:
    different = list(dict.fromkeys(values))
    return sorted(different) if all(isinstance(value, int | float) for value in different) else different


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")  # + 0.0: never "−0.00"
