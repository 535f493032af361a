"""The figures of a report, each with its caption and what it says to whoever does not see it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import plotting
from ..alignment import AlignmentReport
from ..formatting import format_number
from ._diagnosis import Diagnosis, Measured
from ._rules import RULES
from ._verdicts import interval_of, per_input

MINE, TWIN = "this network", "untrained twin"
MOST_BLOCKS = 200  # of figures that draw every pair of blocks, or every singular value
NO_TRIPLETS = "No singular triplets were measured: the budget allowed no input."
FLOOR = 1e-6  # what cutting a block changes is drawn from here


@dataclass(frozen=True)
class Drawing:
    """One figure, or the sentence that says why there is none.

    Attributes:
        title: its heading.
        caption: what is drawn; without a figure, why there is none.
        alt: what it shows, for whoever does not see it; "" without a figure.
        json: the Plotly figure; "" without a figure.
    """

    title: str
    caption: str
    alt: str = ""
    json: str = ""


def drawings(found: Diagnosis) -> list[Drawing]:
    """All figures of a diagnosis, in the order in which they are shown."""
    return [
        _line_shape(found),
        _steps(found),
        _top(found),
        _worth(found),
        *_coupling(found),
        *_spectra(found),
        _path_lengths(found),
    ]


def _networks(found: Diagnosis) -> Iterator[tuple[str, Measured]]:
    yield MINE, found.measured
    if found.null is not None:
        yield TWIN, found.null


def _reports(found: Diagnosis) -> dict[str, AlignmentReport]:
    return {name: one.alignment for name, one in _networks(found) if one.alignment is not None}


def _told(values: dict[str, Tensor], digits: int = 3) -> str:
    """Means in words: "this network 1.2, untrained twin 1.5"."""
    means = {name: interval_of(value[value.isfinite()].flatten())[0] for name, value in values.items()}
    return ", ".join(f"{name} {format_number(mean, digits)}" for name, mean in means.items())


def _ends(values: dict[str, Tensor]) -> str:
    """The means at the first and the last block that have one, in words."""
    said = []
    for name, value in values.items():
        mean = torch.where(value.isfinite(), value.double(), torch.nan).nanmean(0)
        known = mean.isfinite().nonzero().flatten().tolist()
        if known:
            first, last = (f"{format_number(float(mean[at]))} at block {at + 1}" for at in (known[0], known[-1]))
            said.append(f"{name} {first}" + (f", {last}" if len(known) > 1 else ""))
    return "; ".join(said)


def _line_shape(found: Diagnosis) -> Drawing:
    title = "How straight the states march"
    values = {name: per_input(one.screen.line_shape_score, found) for name, one in _networks(found)}
    values = {name: value[value.isfinite()] for name, value in values.items()}
    values = {name: value for name, value in values.items() if len(value)}
    if not values:
        return Drawing(title, "No line-shape score is known: no two blocks that follow each other keep the shape.")
    rows = {"": {name: {name: value} for name, value in values.items()}}
    figure = plotting.condition_dots(rows, x_label="line-shape score", repeat="input")
    caption = "Line-shape score of each input: 1 is a straight line of states, larger is more crooked."
    return Drawing(title, caption, f"Dots: mean line-shape score, {_told(values)}.", plotting.figure_json(figure))


def _steps(found: Diagnosis) -> Drawing:
    title = "How far each block moves the state"
    shares = {name: _finite(one.screen.step_share) for name, one in _networks(found)}
    shares = {name: share for name, share in shares.items() if share.isfinite().any()}
    if not shares:
        return Drawing(title, "No block has a step: each changes the shape of the state.")
    figure = _over_depth(shares, "step length / length of the state")
    caption = "Length of a block's step relative to its state's. A gap: the block changes the shape."
    return Drawing(title, caption, f"Line over depth of the relative step: {_ends(shares)}.", figure)


def _top(found: Diagnosis) -> Drawing:
    title = "Top singular values over depth"
    tops = {name: report.singular_values[..., 0] for name, report in _reports(found).items()}
    known = {name: torch.where(top > 0, _finite(top), torch.nan) for name, top in tops.items()}
    known = {name: top for name, top in known.items() if top.isfinite().any()}
    if not known:
        return Drawing(title, NO_TRIPLETS)
    means = torch.cat([top.nanmean(0) for top in known.values()])
    means = means[means.isfinite()]
    figure = _over_depth(known, "σ₁", log_y=bool(means.max() > 10 * means.min()))
    caption = "Largest singular value σ₁ of each Residual Jacobian: how strongly a block can respond to its input."
    zeros = sum(int((top == 0).sum()) for top in tops.values())
    if zeros:
        caption += f" {zeros} that are exactly zero are left out."
    return Drawing(title, caption, f"Line over depth of the top singular value: {_ends(known)}.", figure)


def _coupling(found: Diagnosis) -> Iterator[Drawing]:
    reports = _reports(found)
    if not reports:
        yield Drawing("Alignment of blocks", NO_TRIPLETS)
    for name, report in reports.items():
        title = f"Alignment of blocks, {name}"
        mean = _finite(report.coupling).nanmean(0)
        off = mean[~torch.eye(len(mean), dtype=torch.bool, device=mean.device)]
        if not off.isfinite().any():
            yield Drawing(title, "No two blocks map between the same shapes: there is no pair to compare.")
        elif len(mean) > MOST_BLOCKS:
            yield Drawing(title, _too_many(len(mean)))
        else:
            figure = plotting.figure_json(plotting.score_matrix({"": mean}))
            caption = (
                f"Coupling of the {report.k} top singular vectors of every two blocks: the Jacobian of block i in the "
                "frames of block j. 1: they agree; 0: they share nothing."
            )
            alt = f"Heat map of {len(mean)} × {len(mean)} blocks, mean off the diagonal {_told({name: off})}."
            yield Drawing(title, caption, alt, figure)


def _spectra(found: Diagnosis) -> Iterator[Drawing]:
    for name, report in _reports(found).items():
        values, classes = _finite(report.singular_values), report.num_classes
        if classes is None or values.shape[2] < 2 or not (values[..., 0] > 0).any():
            continue
        title = f"Singular values of each block, {name}"
        if values.shape[1] > MOST_BLOCKS:
            yield Drawing(title, _too_many(values.shape[1]))
            continue
        figure = plotting.figure_json(plotting.spectra({"": values}, classes))
        caption = f"The {values.shape[2]} largest, relative to the first; the dashed line stands after C = {classes}."
        alt = f"Lines, one a block: energy in the C largest singular values, {_told({name: report.rank_energy})}."
        yield Drawing(title, caption, alt, figure)


def _worth(found: Diagnosis) -> Drawing:
    title, worth = "What each block is worth", found.worth
    pairs = {"without branch": worth.divergence, "without skip": worth.without_skip}
    known = {name: _finite(value) for name, value in pairs.items() if value.isfinite().any()}
    if not known:
        return Drawing(title, "What blocks are worth was not measured; the notes say why.")
    unit, marks = ("divergence / nats", {"rule": RULES["removable"].thresholds[0]})
    if worth.kind == "distance":
        unit, marks = ("relative change of the output", {})
    shown = {name: value.clamp(min=FLOOR)[None] for name, value in known.items()}
    figure = _over_depth(shown, unit, log_y=True, reference=marks)
    caption = "Change of the output when a block's branch, or its skip, is cut; mean over inputs."
    if any(bool((value < FLOOR).any()) for value in known.values()):
        caption += " Changes below 10⁻⁶ are drawn at 10⁻⁶."
    most = {name: int(value.nan_to_num(-1).argmax()) for name, value in known.items()}
    tops = "; ".join(
        f"{name} most at block {i + 1}, {format_number(float(known[name][i]))}" for name, i in most.items()
    )
    return Drawing(title, caption, f"Line over depth of the change of the output: {tops}.", figure)


def _path_lengths(found: Diagnosis) -> Drawing:
    title, law = "Nonlinear units on a random path", found.path_lengths
    if law is None:
        return Drawing(title, "The law of path lengths is not known; the notes say why.")
    mean = float(law.double() @ torch.arange(len(law), dtype=torch.float64, device=law.device))
    figure = plotting.figure_json(plotting.path_lengths({MINE: law}))
    caption = "Law of the number of nonlinear units that a random path from input to output passes."
    return Drawing(title, caption, f"Bars: the law of path lengths, mean {format_number(mean)}.", figure)


def _over_depth(
    values: dict[str, Tensor], label: str, *, log_y: bool = False, reference: dict[str, float] | None = None
) -> str:
    series = {name: (range(1, value.shape[1] + 1), value) for name, value in values.items()}
    figure = plotting.curves(
        series, x_label="block ℓ", y_label=label, log_y=log_y, band="inputs", reference=reference, height=380
    )
    return plotting.figure_json(figure)


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, torch.nan)


def _too_many(blocks: int) -> str:
    return f"{blocks} blocks are more than the {MOST_BLOCKS} that a figure shows: Diagnosis.save writes the numbers."
