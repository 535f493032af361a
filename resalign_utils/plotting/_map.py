"""The map: a score over two factors and a switch, and for a chosen cell its trajectories, spectrum and score matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ._cells import FAILED, Cell, Grid, MapCell, Place, Words, check_cells, deep_ticks
from ._inputs import small
from ._map_furniture import furnish
from ._map_places import as_layout, for_phone, on_page
from ._map_static import map_matplotlib
from ._palette import INK, depth_colours
from ._paths import boxes_around, by_class
from ._spectra import FLOOR
from ._theme import Backend, as_html, draw, theme
from ._trajectories import limits_of, path_trace

if TYPE_CHECKING:
    import plotly.graph_objects as go


def alignment_map(
    cells: Sequence[MapCell],
    labels: Tensor | Sequence[int],
    *,
    row_label: str,
    column_label: str,
    score_label: str = "alignment",
    class_names: Sequence[str] | None = None,
    trained_at: float = 0.99,
    chosen: Place | None = None,
    height: int | None = None,
    backend: Backend = "plotly",
) -> Any:
    """Draw a score over two factors as one heat map per switch, and the inside of the chosen cell below.

    A cell is coloured by its mean score from −1 to 1, white at 0, which is written in it. Where a network did not
    train, its lowest train accuracy stands on grey with a cross instead: it proves nothing. The chosen cell has a
    frame; the panels show its trajectories, the singular values of its blocks, and its score matrix. In Plotly the
    slider chooses another cell, map by map and row by row; in the book's pages, a click on the cell does too.

    Args:
        cells: the kinds of networks; places without a cell stay empty. A factor's numbers are put in order, texts
            stand as they come.
        labels: classes (n,) of the inputs of all ``trajectories``; C is the number of different ones.
        row_label: what the rows are, such as ``"blocks L"``.
        column_label: what the columns are, such as ``"weight decay"``.
        score_label: what the scores are.
        class_names: a name per class; their numbers if not given.
        trained_at: a network trained if its train accuracy is at least this, a cell if all its seeds did.
        chosen: (switch, row, column) of the cell that is shown first; the best one that trained if not given.
        height: of the figure in pixels.
        backend: ``"plotly"`` or ``"matplotlib"``; the latter shows the chosen cell only.

    Raises:
        ValueError: no cell, two cells at one place, shapes that do not fit, a choice that there is not, or an unknown
            backend.
    """
    grid = check_cells(cells, labels, (row_label, column_label), trained_at)
    if chosen is not None and tuple(chosen) not in grid.cells:
        raise ValueError(f"alignment_map: chosen must be (switch, row, column) of a cell; got {chosen!r}.")
    first = grid.cells[tuple(chosen) if chosen is not None else grid.best()]
    words = Words(row_label, column_label, score_label, class_names)
    return draw(
        backend,
        lambda: _plotly(grid, first, words, height),
        lambda: map_matplotlib(grid, first, words, height),
    )


def _plotly(grid: Grid, first: Cell, words: Words, height: int | None) -> go.Figure:
    import plotly.graph_objects as go

    maps, blocks = len(grid.switches), max(len(cell.coupling) for cell in grid.cells.values())
    fixed = [trace for number in range(maps) for trace in _map_traces(grid, number, words)]
    moving = {cell.name: _moving(cell, grid, words, blocks) for cell in grid.cells.values()}
    figure = go.Figure(fixed + moving[first.name], layout={"template": theme()})
    changed = list(range(len(fixed), len(figure.data)))
    figure.frames = [
        go.Frame(
            name=cell.name,
            data=[_changes(trace) for trace in moving[cell.name]],
            traces=changed,
            layout=_scene(cell, maps, words),
        )
        for cell in grid.cells.values()
    ]
    furnish(figure, grid, first, words)
    scene = _scene(first, maps, words)
    figure.layout.annotations[0].update(scene.pop("annotations")[0])  # update_layout would change them all
    figure.update_layout(scene)
    for path, value in as_layout(on_page(maps, len(grid.rows)), height, grid.classes).items():
        figure.layout[path] = value
    narrow = for_phone(maps, len(grid.rows), grid.classes, (as_html(words.row), as_html(words.column)))
    figure.layout.meta = {"click_to_frame": True, "narrow": narrow}  # for book-plotly.js; Plotly itself ignores it
    return figure


def _map_traces(grid: Grid, number: int, words: Words) -> list[Any]:
    """One map, in up to three traces: dark and light text on colour, and grey. Each has one colour of text."""
    table = grid.table(number)
    traces = []
    for trained, ink in ((True, INK), (True, "#ffffff"), (False, INK)):
        shown = [
            [cell if cell and (cell.trained, cell.ink) == (trained, ink) else None for cell in row] for row in table
        ]
        if any(cell for row in shown for cell in row):
            traces.append(_map_trace(shown, trained, ink, number, words))
    return traces


def _map_trace(shown: list[list[Cell | None]], trained: bool, ink: str, number: int, words: Words) -> Any:
    """A point's customdata names its cell's frame."""
    import plotly.graph_objects as go

    grey = {"colorscale": [[0, FAILED], [1, FAILED]], "showscale": False}
    return go.Heatmap(
        z=small(np.array([[_height(cell) for cell in row] for row in shown])),
        text=[[cell.text if cell else "" for cell in row] for row in shown],
        customdata=[[cell.name if cell else "" for cell in row] for row in shown],
        hovertext=[[_tip(cell, words) for cell in row] for row in shown],
        texttemplate="%{text}",
        textfont={"color": ink},
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        xaxis=f"x{number + 1}",
        yaxis=f"y{number + 1}",
        **({"coloraxis": "coloraxis"} if trained else grey),
    )


def _height(cell: Cell | None) -> float:
    """NaN leaves a hole; a cell that trained and yet has no score is white."""
    return np.nan if cell is None else float(np.nan_to_num(cell.score)) if cell.trained else 0.0


def _tip(cell: Cell | None, words: Words) -> str:
    return "<br>".join([as_html(cell.name), *map(as_html, cell.facts(words.score))]) if cell else ""


def _moving(cell: Cell, grid: Grid, words: Words, blocks: int) -> list[Any]:
    """The traces that differ from cell to cell: always as many, in the same order."""
    maps = len(grid.switches)
    return [
        *_frames_around(cell, maps),
        *_paths(cell, grid, words, maps + 1),
        *_lines(cell, blocks, maps + 2),
        _matrix(cell, words, maps + 3),
    ]


def _frames_around(cell: Cell, maps: int) -> list[Any]:
    """A dark frame on a white one, on the cell's own map."""
    import plotly.graph_objects as go

    _, row, column = cell.at
    x = [column + side for side in (-0.5, 0.5, 0.5, -0.5, -0.5)]
    y = [row + side for side in (-0.5, -0.5, 0.5, 0.5, -0.5)]
    return [
        go.Scatter(
            x=x if number == cell.at[0] else [],
            y=y if number == cell.at[0] else [],
            xaxis=f"x{number + 1}",
            yaxis=f"y{number + 1}",
            mode="lines",
            line={"color": colour, "width": width},
            cliponaxis=False,
            showlegend=False,
            hoverinfo="skip",
            name="chosen",
        )
        for number in range(maps)
        for colour, width in (("#ffffff", 6), (INK, 3))
    ]


def _paths(cell: Cell, grid: Grid, words: Words, axis: int) -> list[Any]:
    traces = [path_trace(path, True, 4.5) for path in by_class(cell.trajectories, grid.labels, words.classes)]
    for trace in traces:
        trace.update(xaxis=f"x{axis}", yaxis=f"y{axis}", marker={"cmin": 0, "cmax": len(cell.coupling)})
    return traces


def _lines(cell: Cell, blocks: int, axis: int) -> list[Any]:
    """A line per block; those that this network does not have are empty."""
    import plotly.graph_objects as go

    have, rank = cell.sigmas.shape
    colours = [*depth_colours(have), *["#000000"] * (blocks - have)]
    return [
        go.Scatter(
            x=np.arange(1, rank + 1, dtype=np.uint8) if block < have else [],
            y=small(np.maximum(cell.sigmas[block], FLOOR)) if block < have else [],
            xaxis=f"x{axis}",
            yaxis=f"y{axis}",
            mode="lines+markers",
            line={"color": colour, "width": 1.2},
            marker={"size": 3},
            showlegend=False,
            name=f"block {block + 1}",
            hovertemplate=f"block {block + 1}<br>κ = %{{x}}<br>σ<sub>κ</sub> = %{{y:.3g}}<extra></extra>",
        )
        for block, colour in enumerate(colours)
    ]


def _matrix(cell: Cell, words: Words, axis: int) -> Any:
    import plotly.graph_objects as go

    index = np.arange(1, len(cell.coupling) + 1, dtype=np.uint8)
    tip = "matrix of block i = %{y}<br>frames of block j = %{x}<br>coupling %{z:.3f}<extra></extra>"
    z = small(np.round(cell.coupling, 3))
    axes = {"xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    return go.Heatmap(x=index, y=index, z=z, coloraxis="coloraxis", hoverongaps=False, hovertemplate=tip, **axes)


def _changes(trace: Any) -> dict[str, Any]:
    """Of a trace, what a frame changes: the data, and the colours that depend on depth."""
    full = trace.to_plotly_json()
    kept = {key: full[key] for key in ("type", "x", "y", "z", "customdata") if key in full}
    marker = full.get("marker", {})
    if "color" in marker:
        kept["marker"] = {key: marker[key] for key in ("size", "color", "cmax")}
    elif marker:
        kept["line"] = {"color": full["line"]["color"]}
    return kept


def _scene(cell: Cell, maps: int, words: Words) -> dict[str, Any]:
    """What a cell changes of the layout: what is said about it, the limits of its panels."""
    box, blocks = boxes_around([cell.trajectories], False)[0], len(cell.coupling)
    text = "<br>".join([f"<b>{as_html(cell.name)}</b>", *map(as_html, cell.facts(words.score))])
    ticks = deep_ticks(blocks)
    return {
        "annotations": [{"text": text}],
        f"xaxis{maps + 1}": {"range": limits_of(box[0])},
        f"yaxis{maps + 1}": {"range": limits_of(box[1])},
        f"xaxis{maps + 3}": {"range": [0.5, blocks + 0.5], "tickvals": ticks},
        f"yaxis{maps + 3}": {"range": [blocks + 0.5, 0.5], "tickvals": ticks},
    }
