"""The map: a score over two factors and a switch, and the inside of a chosen cell (chapter 9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...formatting import format_mean, format_number
from .._colours import INK, UNKNOWN, depth_colours
from .._frames import add_frames
from .._heatmaps import scores_trace, square_axes
from .._inputs import Array, Numbers, as_array, as_panels, small
from .._spectra import CLIPPED, FLOOR
from .._theme import add_line, add_note, as_html, log_axis, theme
from .._trajectories import KEY, class_traces, limits

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TRAINED = 0.99  # train accuracy from which a network counts as trained
_FAILED = "#e3e3e3"  # the ground of a cell whose networks did not train
_ROW, _PANEL, _BETWEEN, _TOP, _BELOW = 32, 210, 96, 175, 190  # pixels


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


_Placed = tuple[tuple[int, int, int], MapCell]  # its map, row and column, from 0


def alignment_map(
    cells: Sequence[MapCell],
    labels: Numbers,
    *,
    row_label: str,
    column_label: str,
    class_names: Sequence[str] | None = None,
    height: int | None = None,
) -> go.Figure:
    """Draw a score over two factors as one heat map per switch, and the inside of the chosen cell below.

    A cell is coloured by its mean score from −1 to 1, pale at 0, which is written in it. Where a network did not
    train, its lowest train accuracy stands on grey with a cross instead: it proves nothing. The chosen cell, at first
    the best one, has a frame; the panels show its trajectories, the singular values of its blocks, and its score
    matrix. The slider chooses another cell, map by map and row by row; in the book's pages, a click on it does too.

    Args:
        cells: the kinds of networks; places without a cell stay empty. A factor's numbers are put in order, texts
            stand as they come.
        labels: classes (n,) of the inputs of all ``trajectories``; C is the number of different ones.
        row_label: what the rows are, such as ``"blocks L"``.
        column_label: what the columns are, such as ``"weight decay"``.
        class_names: a name per class; their numbers if not given.
        height: of the figure in pixels.

    Raises:
        ValueError: no cell, two cells at one place, or shapes that do not fit.
    """
    if not isinstance(cells, Sequence) or not cells or not all(isinstance(cell, MapCell) for cell in cells):
        raise ValueError("alignment_map: expected a sequence of at least one MapCell; MapCell(**record) makes one.")
    switches, rows, columns = (_order([getattr(c, name) for c in cells]) for name in ("switch", "row", "column"))
    classes = as_array(labels)
    placed: dict[str, _Placed] = {}
    for cell in cells:
        at = (switches.index(cell.switch), rows.index(cell.row), columns.index(cell.column))
        name = f"{cell.switch}, {row_label} = {_text(cell.row)}, {column_label} = {_text(cell.column)}"
        if at in (known for known, _ in placed.values()):
            raise ValueError(f"alignment_map: two cells stand at {name}. Put all seeds into one cell.")
        placed[name] = at, _checked(cell, name, len(classes))
    placed = dict(sorted(placed.items(), key=lambda item: item[1][0]))  # map by map and row by row
    everywhere, maps = [cell for _, cell in placed.values()], len(switches)
    figure = _panels(switches, len(rows), height)
    for number in range(maps):
        on = {"row": 1, "col": 1 + 3 * number}
        on_map = {name: (at, cell) for name, (at, cell) in placed.items() if at[0] == number}
        for trained in (True, False):
            figure.add_trace(_map(on_map, (len(rows), len(columns)), trained), **on)
        look = {"fixedrange": True, "showgrid": False, "ticks": "", "showline": False}  # a tap is a choice, no zoom
        for axes, texts, title in (("x", columns, column_label), ("y", rows, "" if number else row_label)):
            ticks = {"tickvals": [*range(len(texts))], "ticktext": [*map(_text, texts)], "title_text": as_html(title)}
            ends = [-0.5, len(texts) - 0.5]
            update = figure.update_xaxes if axes == "x" else figure.update_yaxes
            update(range=ends if axes == "x" else ends[::-1], **ticks, **look, **on)
    blocks = max(len(cell.coupling) for cell in everywhere)
    moving = {name: _inside(cell, at, maps, blocks, classes, class_names) for name, (at, cell) in placed.items()}
    layouts = {name: _layout(name, cell, maps) for name, (_, cell) in placed.items()}
    scores = {name: (_trained(cell), np.nan_to_num(cell.scores.mean())) for name, (_, cell) in placed.items()}
    best = max(scores, key=scores.__getitem__)
    add_frames(figure, moving, layouts, first=best, step="cell", labels=[""] * len(placed))
    _panel_axes(figure, everywhere, maps, len(np.unique(classes)))
    bar = {
        "title": {"text": "alignment", "side": "right"},
        "thickness": 10,
        "outlinewidth": 0.5,
        "len": 0.5,
        "y": 1,
        "yanchor": "top",
    }
    figure.update_layout(coloraxis={"colorscale": "RdBu", "cmin": -1, "cmax": 1, "colorbar": bar})
    clipped = CLIPPED if any((cell.singular_values < FLOOR).any() for cell in everywhere) else ""
    notes = [f"✗ not trained, with its lowest train accuracy: below {_TRAINED}"] * (not all(map(_trained, everywhere)))
    notes += [f"trajectories: {KEY}; colour: class"]
    notes += [f"singular values: first block dark, last light; dashed: C = {len(np.unique(classes))}", clipped]
    add_note(figure, *notes)
    figure.update_layout(legend_itemsizing="constant", meta={"click_to_frame": True})  # read by the book's pages
    return figure


def _order(values: list[Any]) -> list[Any]:
    different = list(dict.fromkeys(values))
    return sorted(different) if all(isinstance(value, int | float) for value in different) else different


def _text(value: Any) -> str:
    return format_number(value) if isinstance(value, float) else str(value)


def _checked(cell: MapCell, name: str, inputs: int) -> MapCell:
    """The cell with arrays of fitting shapes."""
    seeds, blocks = np.size(as_array(cell.scores)), len(np.atleast_1d(as_array(cell.coupling)))
    rank = np.shape(as_array(cell.singular_values))[-1:]
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        **dict.fromkeys(("scores", "train_accuracy", "test_accuracy"), ("(seeds,)", (seeds,))),
        "trajectories": ("(n, L+1, 2)", (inputs, blocks + 1, 2)),
        "singular_values": ("(L, r)", (blocks, *rank)),
        "coupling": ("(L, L)", (blocks, blocks)),
    }
    fix = f"Here seeds = {seeds}, L = {blocks} (from coupling) and n = {inputs} (from labels)."
    parts: dict[str, Any] = {}
    for part, (expected, shape) in wanted.items():
        panel = {f"{name}: {part}": getattr(cell, part)}
        (parts[part],) = as_panels(panel, shape.__eq__, what="alignment_map", expected=expected, fix=fix).values()
    return replace(cell, **parts)


def _trained(cell: MapCell) -> bool:
    return bool((cell.train_accuracy >= _TRAINED).all())  # a NaN did not train


def _said(name: str, cell: MapCell) -> list[str]:
    """Its name and two lines of numbers; the deviation (ddof = 0) is over seeds."""
    seeds = len(cell.scores)
    score = format_mean(cell.scores) + (f" (±1 sd, {seeds} seeds)" if seeds > 1 else "")
    train, test = (format_number(part.mean()) for part in (cell.train_accuracy, cell.test_accuracy))
    failed = int((~(cell.train_accuracy >= _TRAINED)).sum())
    cross = f"; ✗ {failed} of {seeds} seeds" if failed else ""
    return [as_html(name), f"alignment {score}", f"accuracy: train {train}, test {test}{cross}"]


def _written(cell: MapCell) -> str:
    """The score; of a network that did not train, a cross and its lowest accuracy, rounded down."""
    mean, lowest = float(cell.scores.mean()), float(cell.train_accuracy.min())
    if _trained(cell):
        return f"{round(mean, 2) + 0.0:.2f}".replace("-", "−") if math.isfinite(mean) else "–"
    return f"✗ {math.floor(100 * lowest) / 100:.2f}" if math.isfinite(lowest) else "✗"


def _panels(switches: list[str], rows: int, height: int | None) -> go.Figure:
    """The maps side by side, three columns each, and below them the three panels of the chosen cell."""
    from plotly.subplots import make_subplots

    maps, top = len(switches), _ROW * rows
    total = top + _BETWEEN + _PANEL
    titles = [*map(as_html, switches), "trajectories", "singular values", "coupling"]
    specs: list[list[Any]] = [[{"colspan": 3}, None, None] * maps, [{"colspan": maps}, *[None] * (maps - 1)] * 3]
    room = {"vertical_spacing": _BETWEEN / total, "horizontal_spacing": 0.57 / (3 * maps), "row_heights": [top, _PANEL]}
    figure = make_subplots(2, 3 * maps, specs=specs, subplot_titles=titles, **room)
    figure.update_layout(template=theme(), height=height or total + _TOP + _BELOW, margin={"t": _TOP})
    return figure.update_annotations(font={"size": 14})


def _map(cells: dict[str, _Placed], shape: tuple[int, int], trained: bool) -> Any:
    """The cells of one map that trained, coloured by score, or those that did not, grey; others are holes.

    A point's customdata names its cell's frame. Plotly chooses the colour of the text by the cell's own.
    """
    import plotly.graph_objects as go

    heights, (texts, names, tips) = np.full(shape, np.nan), (np.full(shape, "", dtype=object) for _ in range(3))
    for name, (at, cell) in cells.items():
        if _trained(cell) == trained:
            heights[at[1:]] = np.nan_to_num(cell.scores.mean()) if trained else 0
            texts[at[1:]], names[at[1:]], tips[at[1:]] = _written(cell), name, "<br>".join(_said(name, cell))
    shown = {"text": texts.tolist(), "customdata": names.tolist(), "hovertext": tips.tolist()}
    look = {"texttemplate": "%{text}", "hovertemplate": "%{hovertext}<extra></extra>", "hoverongaps": False}
    grey = {"colorscale": [[0, _FAILED], [1, _FAILED]], "showscale": False}
    colour = {"coloraxis": "coloraxis"} if trained else grey
    return go.Heatmap(z=small(heights), xgap=1, ygap=1, **shown, **look, **colour)


def _inside(
    cell: MapCell, at: tuple[int, int, int], maps: int, blocks: int, classes: Array, names: Sequence[str] | None
) -> list[Any]:
    """The traces that differ from cell to cell: always as many, in the same order."""
    import plotly.graph_objects as go

    (switch, row, column), (have, rank) = at, cell.singular_values.shape
    across, down = np.array([[-0.5, 0.5, 0.5, -0.5, -0.5], [-0.5, -0.5, 0.5, 0.5, -0.5]])
    box = {"x": (column + across).tolist(), "y": (row + down).tolist()}
    look: dict[str, Any] = {"mode": "lines", "cliponaxis": False, "showlegend": False, "hoverinfo": "skip"}
    traces = [
        go.Scatter(box if number == switch else {"x": [], "y": []}, **look, **_on(number + 1), name="chosen", line=line)
        for number in range(maps)
        for line in ({"color": "#ffffff", "width": 7}, {"color": INK, "width": 3})  # seen on dark and pale cells
    ]
    traces += [trace.update(_on(maps + 1)) for trace in class_traces(cell.trajectories, classes, names, 4.5)]
    tip = "κ = %{x}<br>σ<sub>κ</sub> = %{y:.3~r}<extra></extra>"
    for block, colour in enumerate([*depth_colours(have), *[UNKNOWN] * (blocks - have)]):
        name, shown = f"block {block + 1}", rank if block < have else 0  # this network may have fewer blocks
        x, y = np.arange(1, shown + 1, dtype=np.uint8), small(np.maximum(cell.singular_values[block % have], FLOOR))
        line = go.Scatter(x=x, y=y[:shown], name=name, mode="lines+markers", line={"color": colour, "width": 1.2})
        look = {"marker": {"size": 3, "color": colour}, "hovertemplate": f"{name}<br>{tip}", "showlegend": False}
        traces.append(line.update(**look, **_on(maps + 2)))
    return [*traces, scores_trace(cell.coupling, "coupling").update(_on(maps + 3))]


def _on(number: int) -> dict[str, str]:
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def _layout(name: str, cell: MapCell, maps: int) -> dict[str, Any]:
    """What a cell changes of the layout: what is said about it, the limits of its panels."""
    (x, y), blocks = limits(cell.trajectories), len(cell.coupling)
    ticks = sorted({1, (1 + blocks) // 2, blocks})
    first, *others = _said(name, cell)
    return {
        "title": {"text": "<br>".join([f"<b>{first}</b>", *others])},
        f"xaxis{maps + 1}": {"range": x},
        f"yaxis{maps + 1}": {"range": y},
        f"xaxis{maps + 3}": {"range": [0.5, blocks + 0.5], "tickvals": ticks},
        f"yaxis{maps + 3}": {"range": [blocks + 0.5, 0.5], "tickvals": ticks},
    }


def _panel_axes(figure: go.Figure, cells: list[MapCell], maps: int, classes: int) -> None:
    paths, spectrum, matrix = (1 + maps * place for place in range(3))
    sigmas = np.concatenate([cell.singular_values.ravel() for cell in cells])
    sigmas = np.maximum(sigmas[np.isfinite(sigmas)], FLOOR)
    ends = [math.log10(sigmas.min() / 1.5), math.log10(sigmas.max() * 1.5)] if len(sigmas) else [-1, 1]
    rank = max(cell.singular_values.shape[1] for cell in cells)
    figure.update_xaxes(title_text="projection 1", nticks=4, row=2, col=paths)
    figure.update_yaxes(title_text="projection 2", nticks=4, row=2, col=paths)
    figure.update_xaxes(title_text="index κ", range=[0.5, rank + 0.5], row=2, col=spectrum)
    figure.update_yaxes(title_text="σ<sub>κ</sub>", range=ends, row=2, col=spectrum, **log_axis([sigmas]))
    add_line(figure, f"C = {classes}", row=2, column=spectrum, legend=False, x=classes + 0.5)
    square_axes(figure, matrix, {}, row=2)
    figure.update_yaxes(autorange=False, title_text="block i", row=2, col=matrix)  # frames set the range
    ground = {"xref": f"x{maps + 3} domain", "yref": f"y{maps + 3} domain", "layer": "below", "line": {"width": 0}}
    figure.add_shape(type="rect", x0=0, x1=1, y0=0, y1=1, fillcolor=UNKNOWN, **ground)  # seen where there is no value
