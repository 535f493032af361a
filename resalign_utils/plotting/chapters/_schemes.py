"""Drawn, not measured: a block and what its Residual Jacobian covers (chapter 1), two ways to align (chapter 5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .._colours import CONDITION_COLOURS, GRID, INK, depth_colours, faded
from .._heatmaps import colour_bar, scores_trace, square_axes
from .._inputs import as_panels
from .._theme import add_note, as_html, side_by_side, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

SKIP, COVERED = CONDITION_COLOURS["skip"], "#E69F00"
_HIDDEN = {"visible": False, "fixedrange": True}
_DIRECTIONS = (80, 40, 0, -40, -80)  # degrees, of a relay of four blocks; a shared frame has the first two


def block_diagram(*, height: int = 560) -> go.Figure:
    """Draw one post-activation residual block: state, branch, sum, outer activation, and what is linearised.

    The broad band lies under what the Residual Jacobian is the derivative of: the way through the branch and the outer
    activation, whose slope is held at the point. The skip path is not under it.

    Args:
        height: of the figure in pixels.

    Returns:
        A figure of one panel without data; nothing in it is measured.
    """
    figure = side_by_side([""], height=height)
    left, right, split, total = 0.24, 0.72, 8.9, 4.0
    covered = [(left, split), (right, split), (right, total), (left, total), (left, 0.75)]
    figure.add_trace(_way("J: derivative of branch and outer activation", covered, COVERED, 16, 0.45))
    figure.add_trace(_way("branch F", [(left, split), (right, split), (right, total), (left + 0.04, total)], INK, 2))
    figure.add_trace(_way("skip path: λ times the state", [(left, split), (left, total + 0.33)], SKIP, 3))
    ends = [(left, 9.6), (left, split)], [(left, total - 0.33), (left, 2.75)], [(left, 2.05), (left, 0.95)]
    for start, end in ends:
        figure.add_trace(_way("state", [start, end], INK, 2).update(showlegend=False))
    for (x, y), turn, colour in (
        ((left + 0.045, total), "left", INK),
        ((left, total + 0.3), "down", SKIP),
        ((left, 2.75), "down", INK),
        ((left, 0.95), "down", INK),
    ):
        figure.add_annotation(_arrow_head(x, y, turn, colour))
    for y, text in ((7.9, "linear W_1, norm"), (6.6, "ReLU"), (5.3, "linear W_2, norm")):
        _box(figure, (right, y), (0.21, 0.36), text)
    _box(figure, (left, 2.4), (0.19, 0.36), "outer activation σ")
    _box(figure, (left, 9.95), (0.16, 0.36), "state h_ℓ₋₁")
    _box(figure, (left, 0.5), (0.16, 0.36), "state h_ℓ")
    _box(figure, (left, total), (0.04, 0.3), "+")
    for x, y, text in (
        (0.5, 9.4, "branch F_ℓ"),
        (left + 0.07, 3.35, "z_ℓ = λ h_ℓ₋₁ + F_ℓ(h_ℓ₋₁)"),
        (left + 0.23, 2.4, "ReLU, or none<br>(pre-activation)"),
        (left + 0.2, 0.5, "h_ℓ = σ(z_ℓ)"),
    ):
        figure.add_annotation({"x": x, "y": y, "text": _subscripts(text), "xanchor": "left", "align": "left"})
    skip = {"x": left - 0.03, "y": 6.6, "text": "skip", "xanchor": "right", "font": {"color": SKIP, "size": 14}}
    figure.add_annotation(skip)
    figure.update_xaxes(range=[0, 1], **_HIDDEN)
    figure.update_yaxes(range=[0, 10.4], **_HIDDEN)
    add_note(figure, "drawn, not measured")
    return figure.update_layout(margin={"l": 8, "r": 8, "t": 28}, legend={"traceorder": "reversed"})


def frame_schemes(couplings: dict[str, Tensor], *, blocks: int = 4, height: int = 760) -> go.Figure:
    """Draw a shared frame and a relay as arrows, and beside each the coupling of every pair of blocks as measured.

    Each block of a drawing holds two arrows: its leading input direction v and its leading output direction u. Arrows
    of one angle and colour are one direction. In the first row all blocks have one pair; in the second the output
    direction of each block is the input direction of the next.

    Args:
        couplings: two entries, name → scores (L, L): first of a network whose blocks share a frame, then of a relay.
        blocks: how many blocks are drawn.
        height: of the figure in pixels.

    Raises:
        ValueError: not two matrices, or shapes that do not fit.
    """
    said = {"expected": "(L, L)", "fix": "Average over inputs first: report.coupling.mean(0)."}
    arrays = as_panels(couplings, lambda s: len(s) == 2 and s[0] == s[1], what="frame_schemes", **said)
    if len(arrays) != 2:
        raise ValueError(f"frame_schemes: expected two matrices, of a shared frame and of a relay; got {len(arrays)}.")
    if not 2 <= blocks < len(_DIRECTIONS):
        raise ValueError(f"frame_schemes: blocks must be 2 to {len(_DIRECTIONS) - 1}; got {blocks}.")
    figure = _grid([title for name in arrays for title in (_scheme_title(name), f"{name}<br>measured")], height)
    for row, (scores, relay) in enumerate(zip(arrays.values(), (False, True), strict=True), start=1):
        _scheme(figure, row, blocks, relay=relay)
        figure.add_trace(scores_trace(scores, "coupling"), row=row, col=2)
        square_axes(figure, 2, {"tick0": 4, "dtick": 4}, row)
        figure.update_yaxes(title_text="block i (matrix)", row=row, col=2)
    colour_bar(figure, "RdBu", -1, "coupling c<sub>ij</sub>")
    return figure


def _grid(titles: list[str], height: int) -> go.Figure:
    from plotly.subplots import make_subplots

    gaps = {"horizontal_spacing": 0.14, "vertical_spacing": 0.2}
    figure = make_subplots(2, 2, subplot_titles=titles, column_widths=[0.5, 0.5], **gaps)
    figure.update_layout(template=theme(), height=height, margin={"t": 66, "l": 15})
    return figure.update_annotations(font={"size": 14}, yshift=4)


def _scheme_title(name: str) -> str:
    return f"{name}<br>drawn"


def _scheme(figure: go.Figure, row: int, blocks: int, *, relay: bool) -> None:
    """Boxes of blocks in a row; in each the input direction v and the output direction u as arrows."""
    at: dict[str, Any] = {"row": row, "col": 1}
    colours = depth_colours(blocks + 1)
    for block in range(blocks):
        box = {"x0": block + 0.06, "x1": block + 0.94, "y0": 0.3, "y1": 1.2, "line": {"color": INK, "width": 1}}
        figure.add_shape({"type": "rect", "fillcolor": faded(GRID, 0.4), "layer": "below", **box}, **at)
        for side, (x, name) in enumerate(((block + 0.29, "v"), (block + 0.71, "u"))):
            place = block + side if relay else side
            figure.add_annotation(_direction(x, 0.85, _DIRECTIONS[place], colours[place]), **at)
            figure.add_annotation({"x": x, "y": 0.42, "text": f"{name}<sub>1</sub>", "font": {"size": 12}}, **at)
        figure.add_annotation({"x": block + 0.5, "y": 0.14, "text": f"block {block + 1}", "font": {"size": 12}}, **at)
    figure.update_xaxes(range=[0, blocks], **_HIDDEN, **at)
    figure.update_yaxes(range=[-0.55, 1.75], **_HIDDEN, **at)


def _direction(x: float, y: float, degrees: float, colour: str, length: float = 28) -> dict[str, Any]:
    """An arrow of fixed length in pixels, its middle at (x, y)."""
    dx, dy = length * math.cos(math.radians(degrees)), length * math.sin(math.radians(degrees))
    look = {"showarrow": True, "arrowhead": 2, "arrowsize": 1, "arrowwidth": 2.5, "arrowcolor": colour, "text": ""}
    return {"x": x, "y": y, "xshift": dx / 2, "yshift": dy / 2, "ax": -dx, "ay": dy, **look}


def _arrow_head(x: float, y: float, turn: str, colour: str) -> dict[str, Any]:
    tail = {"down": {"ax": 0, "ay": -12}, "left": {"ax": 12, "ay": 0}}[turn]
    return {
        "x": x,
        "y": y,
        **tail,
        "showarrow": True,
        "arrowhead": 2,
        "arrowwidth": 2,
        "arrowcolor": colour,
        "text": "",
    }


def _way(name: str, points: list[tuple[float, float]], colour: str, width: float, opacity: float = 1.0) -> Any:
    import plotly.graph_objects as go

    x, y = zip(*points, strict=True)
    look = {"mode": "lines", "line": {"color": colour, "width": width}, "opacity": opacity, "hoverinfo": "skip"}
    return go.Scatter(x=x, y=y, name=name, **look)


def _box(figure: go.Figure, middle: tuple[float, float], half: tuple[float, float], text: str) -> None:
    (x, y), (wide, high) = middle, half
    corners = {"x0": x - wide, "x1": x + wide, "y0": y - high, "y1": y + high}
    figure.add_shape({"type": "rect", **corners, "fillcolor": "#ffffff", "line": {"color": INK, "width": 1.2}})
    figure.add_annotation({"x": x, "y": y, "text": _subscripts(text), "font": {"size": 13}})


def _subscripts(text: str) -> str:
    """``h_ℓ₋₁`` → ``h<sub>ℓ−1</sub>``."""
    return as_html(text.replace("_ℓ₋₁", "<sub>ℓ−1</sub>"))
