"""Figures to predict from and then to move: how far states have come (chapter 3), scores over a choice (chapter 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...formatting import format_mean, format_number
from .._colours import condition_styles
from .._frames import add_frames
from .._heatmaps import colour_bar, scores_trace, square_axes
from .._inputs import Array, as_panels, small
from .._theme import add_note, as_html, side_by_side, wrapped

if TYPE_CHECKING:
    import plotly.graph_objects as go


def way_covered(shares: Mapping[str, Tensor], *, start: int | None = None, height: int = 380) -> go.Figure:
    """Draw which share of the way from the first to the last state is covered, with a slider over the blocks.

    One row a network: the marks up to the chosen block, the last one large and named with its share.

    Args:
        shares: name → share of the way after 0, 1, ..., L blocks (seeds, L+1); all of one L.
        start: the block at which the slider stands first; a quarter of the blocks if not given.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, different L, or a start that is no block.
    """
    what, fix = "way_covered", "Pass one row a seed, from block 0 to the last."
    arrays = as_panels(shares, lambda s: len(s) == 2 and s[1] > 1, what=what, expected="(seeds, L+1)", fix=fix)
    lengths = {array.shape[1] for array in arrays.values()}
    if len(lengths) > 1:
        raise ValueError(f"way_covered: all networks must have as many blocks; got {sorted(n - 1 for n in lengths)}.")
    last = lengths.pop() - 1
    first = last // 4 if start is None else start
    if not 0 <= first <= last:
        raise ValueError(f"way_covered: start must be a block from 0 to {last}; got {start}.")
    figure = side_by_side([""], height=height)
    moving = {str(block): _marks(arrays, block) for block in range(last + 1)}
    layouts = {str(block): {"title": {"text": f"after block {block} of {last}"}} for block in range(last + 1)}
    add_frames(figure, moving, layouts, first=str(first), step="block")
    names = [as_html(wrapped(name, 16)) for name in arrays]
    every = np.concatenate([array.mean(0) for array in arrays.values()])
    ends = [min(0.0, float(every.min())) - 0.32, max(1.0, float(every.max())) + 0.32]  # room for the numbers
    ticks = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", "¼", "½", "¾", "1"]}
    figure.update_xaxes(title_text="share of the way from the first to the last state", range=ends, **ticks)
    figure.update_yaxes(tickvals=[*range(len(names))], ticktext=names, range=[len(names) - 0.4, -0.7], showgrid=False)
    counts = sorted({len(array) for array in arrays.values()} - {1})
    add_note(figure, f"mean over inputs and {' or '.join(map(str, counts))} seeds" if counts else "mean over inputs")
    return figure.update_layout(showlegend=False, margin={"t": 110})


def _marks(arrays: Mapping[str, Array], block: int) -> list[Any]:
    """Of each network the marks of blocks 0 to ``block``, always as many points: the rest are left out as NaN."""
    import plotly.graph_objects as go

    traces = []
    for row, (name, style) in enumerate(condition_styles(arrays).items()):
        array = arrays[name]
        passed = np.arange(array.shape[1]) <= block
        sizes = np.where(np.arange(array.shape[1]) == block, 15, 7)
        said = [format_mean(list(values)) for values in array.T]
        here = [text if place == block else "" for place, text in enumerate(said)]
        traces.append(
            go.Scatter(
                x=small(np.where(passed, array.mean(0), np.nan)),
                y=[row] * array.shape[1],
                name=as_html(name),
                mode="markers+text",
                text=here,
                textposition="top center",
                marker={"size": small(sizes), "color": style.colour, "symbol": style.marker, "opacity": 0.85},
                customdata=said,
                hovertemplate=f"{as_html(name)}<br>after block %{{pointNumber}}: %{{customdata}}<extra></extra>",
            )
        )
    return traces


def score_matrices(
    frames: Mapping[int, Mapping[str, Tensor]], *, step: str = "k", start: int | None = None, height: int = 480
) -> go.Figure:
    """Draw scores of every pair of blocks as heat maps, with a slider over the choice that they depend on.

    The mean over i ≠ j of each panel stands above, for the chosen step.

    Args:
        frames: choice → name → scores (L, L), for instance k → ``report.coupling.mean(0)``; the same names throughout.
        step: what is chosen, for the slider and the title.
        start: the choice that is shown first; the first one if not given.
        height: of the figure in pixels.

    Raises:
        ValueError: shapes that do not fit, other names in another frame, no frame, or a start that is none.
    """
    if not isinstance(frames, Mapping) or not frames:
        raise ValueError("score_matrices: expected a mapping choice → panels with at least one entry.")
    arrays = {str(choice): _checked_scores(panels) for choice, panels in frames.items()}
    first = next(iter(arrays)) if start is None else str(start)
    if first not in arrays:
        raise ValueError(f"score_matrices: start must be one of {list(arrays)}; got {start!r}.")
    names = list(arrays[first])
    for choice, panels in arrays.items():
        if list(panels) != names:
            raise ValueError(f"score_matrices: each frame must have the panels {names}; {choice} has {list(panels)}.")
    figure = side_by_side(names, height=height)
    moving = {
        choice: [_placed(scores, column) for column, scores in enumerate(panels.values(), start=1)]
        for choice, panels in arrays.items()
    }
    layouts = {choice: {"title": {"text": _means(f"{step} = {choice}", panels)}} for choice, panels in arrays.items()}
    add_frames(figure, moving, layouts, first=first, step=step)
    for column, scores in enumerate(arrays[first].values(), start=1):
        every = -(-len(scores) // 10)
        square_axes(figure, column, {"tick0": every, "dtick": every})
    colour_bar(figure, "RdBu", -1, "coupling c<sub>ij</sub>")
    return figure.update_layout(margin={"t": 150})


def _checked_scores(panels: object) -> dict[str, Array]:
    fix = "Average over inputs first: report.coupling.mean(0)."
    what, expected = "score_matrices", "(L, L)"
    return as_panels(panels, lambda s: len(s) == 2 and s[0] == s[1], what=what, expected=expected, fix=fix)


def _placed(scores: Array, column: int) -> Any:
    axis = "" if column == 1 else str(column)
    return scores_trace(scores, "coupling").update(xaxis=f"x{axis}", yaxis=f"y{axis}")


def _means(chosen: str, panels: Mapping[str, Array]) -> str:
    lines = [f"<b>{chosen}</b>; mean over i ≠ j:"]
    for name, scores in panels.items():
        off = scores[~np.eye(len(scores), dtype=bool)]
        lines.append(as_html(f"{name}: {format_number(round(float(off.mean()), 2))}"))
    return "<br>".join(lines)
