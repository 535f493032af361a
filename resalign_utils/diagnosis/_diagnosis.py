"""The result of a diagnosis: blocks, scores beside their null, what each block is worth, and sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..alignment import AlignmentReport
from ..collapse import NeuralCollapse
from ..residuals import BlockTable
from ._screen import Screen


@dataclass(frozen=True)
class Verdict:
    """One sentence about a network, with what it rests on.

    Attributes:
        subject: what it is about: "inputs", "straightness", "alignment", "rank", "depth", "dead", "removable",
            "collapse", "decay time".
        text: the sentence.
        value: the number that it speaks of, NaN for none.
        low: lower end of its 95 % interval over inputs, NaN where there is none.
        high: its upper end.
        null: the same number of the untrained twin, NaN where there is none.
        rule: the rule that produced it, a sentence.
        chapter: page of the book that supports the rule.
    """

    subject: str
    text: str
    value: float
    low: float
    high: float
    null: float
    rule: str
    chapter: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Measured:
    """What was measured of one network, the model or its untrained twin.

    Attributes:
        screen: of its forward pass, at all inputs.
        alignment: RA1–RA4, at as many inputs as the budget allowed; None if it allowed none.
        draws: (n,) which of several networks each row of the screen is of: the twin is drawn a few times. 0 for the
            model itself.
        alignment_draws: (m,) likewise of each row of ``alignment``.
    """

    screen: Screen
    alignment: AlignmentReport | None
    draws: Tensor
    alignment_draws: Tensor


@dataclass(frozen=True)
class Worth:
    """What each block is worth to the output, at all inputs.

    Attributes:
        divergence: (L,) mean Kullback–Leibler divergence, in nats, of the output without the block's branch from the
            output; of outputs that are no logits, the mean relative distance. NaN where nothing would be left.
        changed: (L,) share of inputs whose decision changes without the branch.
        accuracy: (L,) accuracy without the branch less the model's; NaN without labels.
        without_skip: (L,) as ``divergence``, without the skip.
        kind: "divergence" or "distance".
    """

    divergence: Tensor
    changed: Tensor
    accuracy: Tensor
    without_skip: Tensor
    kind: str


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a network; see :func:`diagnose`.

    Attributes:
        model: its type's name.
        blocks: its residual blocks, and what else adds or joins.
        inputs: how many inputs were given.
        measured: the network's scores.
        null: its untrained twin's, None if there is none.
        null_note: what the twin is, or why there is none.
        worth: what each block is worth.
        collapse: Neural Collapse of the last features, None without labels or where it cannot be measured.
        accuracy: share of inputs that are decided as labelled, NaN without labels.
        path_lengths: law of the number of nonlinear units on a random path, None where the network cannot be followed.
        decay_time: S of the training, NaN if its settings were not given.
        verdicts: sentences, each with its number, interval, null, and rule.
        notes: what could not be measured, and why.
        settings: arguments, seconds of each stage, and versions.
    """

    model: str
    blocks: BlockTable
    inputs: int
    measured: Measured
    null: Measured | None
    null_note: str
    worth: Worth
    collapse: NeuralCollapse | None
    accuracy: float
    path_lengths: Tensor | None
    decay_time: float
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, Any]

    def summary(self) -> str:
        """The verdicts and notes as text."""
        parts = [f"{self.model}: {len(self.blocks)} residual blocks, {self.inputs} inputs."]
        parts += [f"- {verdict.text}" for verdict in self.verdicts]
        parts += [f"({note})" for note in (self.null_note, *self.notes) if note]
        return "\n".join(parts)

    __str__ = summary

    def to_frame(self) -> pd.DataFrame:
        """One row a block: its name, steps, σ₁ beside the twin's, and what it is worth; means over inputs."""
        rows = {
            "name": self.blocks.names,
            "shortcut": [block.shortcut for block in self.blocks],
            "outer": [block.outer for block in self.blocks],
            "step_share": _mean(self.measured.screen.step_share),
            "top_singular_value": self._top(self.measured),
            "top_singular_value_untrained": self._top(self.null),
            "dead": self._dead(),
            "divergence_without_branch": self.worth.divergence.tolist(),
            "changed_without_branch": self.worth.changed.tolist(),
            "accuracy_change_without_branch": self.worth.accuracy.tolist(),
            "divergence_without_skip": self.worth.without_skip.tolist(),
        }
        index = pd.RangeIndex(1, len(self.blocks) + 1, name="block")
        return pd.DataFrame(rows, index=index)

    def save(self, folder: str | Path) -> Path:
        """Write ``diagnosis.json`` (sentences, scores, settings) and ``tensors.safetensors`` into a folder.

        Returns:
            The folder.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "diagnosis.json").write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")
        tensors = {name: value.contiguous().cpu() for name, value in self.tensors().items()}
        save_file(tensors, folder / "tensors.safetensors")
        return folder

    def to_html(self, path: str | Path) -> Path:
        """Write a report as one HTML file of about 2 MB, which opens anywhere and asks for nothing else.

        Verdicts with their numbers, intervals, nulls and rules; figures; the table of blocks; what is no block; notes;
        settings; and the data of :meth:`to_dict` and :meth:`to_frame`, to save from the page.

        Args:
            path: of the file; folders that lack are made, and a file of that name is replaced.

        Returns:
            The path.

        Raises:
            IsADirectoryError: the path is a folder.
        """
        from ._report import page

        path = Path(path)
        if path.is_dir():
            raise IsADirectoryError(f"Expected the path of a file; got the folder {path}. Add a name: report.html.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(self), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        """Verdicts and the table of blocks, in a notebook."""
        from ._report import brief

        return brief(self)

    def to_dict(self) -> dict[str, Any]:
        """All but the tensors, as JSON has it: NaN as None."""
        reports = {"measured": self.measured.alignment, "null": None if self.null is None else self.null.alignment}
        plain: dict[str, Any] = _plain(
            {
                "model": self.model,
                "inputs": self.inputs,
                "summary": {name: None if r is None else r.summary() for name, r in reports.items()},
                "verdicts": [asdict(verdict) for verdict in self.verdicts],
                "notes": [*self.notes],
                "null_note": self.null_note,
                "blocks": self.to_frame().reset_index().to_dict("records"),
                "others": [asdict(other) for other in self.blocks.others],
                "collapse": None if self.collapse is None else _scalars(self.collapse),
                "accuracy": self.accuracy,
                "decay_time": self.decay_time,
                "path_lengths": None if self.path_lengths is None else self.path_lengths.tolist(),
                "settings": dict(self.settings),
            }
        )
        return plain

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by names such as ``measured.coupling``."""
        found = dict[str, Tensor]()
        for name, measured in (("measured", self.measured), ("null", self.null)):
            if measured is not None:
                found |= {f"{name}.draws": measured.draws, f"{name}.alignment_draws": measured.alignment_draws}
            for part in (None,) if measured is None else (measured.screen, measured.alignment):
                for field in fields(part) if part is not None else ():
                    value = getattr(part, field.name)
                    if isinstance(value, Tensor):
                        prefix = f"{name}.screen" if isinstance(part, Screen) else name
                        found[f"{prefix}.{field.name}"] = value
        for field in fields(self.worth):
            if isinstance(value := getattr(self.worth, field.name), Tensor):
                found[f"worth.{field.name}"] = value
        return found

    def _top(self, measured: Measured | None) -> list[float]:
        if measured is None or measured.alignment is None:
            return [math.nan] * len(self.blocks)
        return _mean(measured.alignment.singular_values[..., 0])

    def _dead(self) -> list[float]:
        report = self.measured.alignment
        return [math.nan] * len(self.blocks) if report is None else _mean(report.dead.double())


def _mean(values: Tensor) -> list[float]:
    return [float(column) for column in values.double().nanmean(0)]


def _scalars(collapse: NeuralCollapse) -> dict[str, float]:
    values = {field.name: getattr(collapse, field.name) for field in fields(collapse)}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "item"):
        return _plain(value.item())
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)


def join(reports: list[AlignmentReport]) -> AlignmentReport:
    """The reports of one network at several inputs, put together."""
    first = reports[0]
    joined = {}
    for field in fields(first):
        value = getattr(first, field.name)
        if isinstance(value, Tensor) and field.name != "comparable":
            value = torch.cat([getattr(report, field.name) for report in reports])
        elif field.name == "tokens":
            value = tuple(token for report in reports for token in report.tokens)
        joined[field.name] = value
    return AlignmentReport(**joined)
