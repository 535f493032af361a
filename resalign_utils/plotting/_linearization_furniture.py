"""What of a sweep over NAPL in Plotly is no trace: axes, words, slider, and where all stands, on a page or a phone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ._linearization_points import Sweep, mark_height, place, whole_ticks
from ._palette import GRID
from ._theme import as_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

_JUMP = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
_LEFT, _RIGHT, _TOP = 62, 14, 34  # margins in pixels


def words(sweep: Sweep, target: float) -> str:
    """What is shown, with the NAPL in bold."""
    napl, what, *lines = map(as_html, sweep.words(target))
    return "<br>".join([f"<b>{napl}</b>{what}", *lines])


def law_axis(sweep: Sweep, target: float) -> dict[str, Any]:
    """Ends and ticks; the marks of the means stand above the last one."""
    limit = sweep.law_limit(target)
    return {"range": [0, limit * mark_height(len(sweep.methods))], "tickvals": [limit * part // 4 for part in range(5)]}


def furnish(figure: go.Figure, sweep: Sweep, first: float) -> None:
    """Axes, words, slider: all but where they stand."""
    ticks, texts = sweep.ticks()
    above = {"range": sweep.limits(), "tickvals": place(ticks).tolist(), "ticktext": texts}
    figure.update_layout(
        xaxis={"anchor": "y", "title_text": as_html(sweep.labels[0]), **above},
        yaxis={"anchor": "x", "range": sweep.accuracy_limits(), "title_text": as_html(sweep.labels[1])},
        xaxis2=_counts(1, sweep.layers, "layer, from input to output", "y2"),
        yaxis2={"anchor": "x2", "range": [0, 105], "tickvals": [0, 25, 50, 75, 100], "title_text": "units, %"},
        xaxis3=_counts(0, sweep.longest, "path length (nonlinear units)", "y3"),
        yaxis3={"anchor": "x3", "title_text": "paths, %", **law_axis(sweep, first)},
        barmode="group",
        bargap=0.15,
        showlegend=True,
        legend={"tracegroupgap": 0},
        margin={"l": _LEFT, "r": _RIGHT, "t": _TOP},
        sliders=[_slider(sweep.targets, first)],
    )
    paper = {"xref": "paper", "yref": "paper"}
    left = {"x": 0, "xanchor": "left", "yanchor": "top", "align": "left", "font": {"size": 13}}
    figure.add_annotation(text=words(sweep, first), **left, **paper)
    for title in sweep.titles():
        figure.add_annotation(text=title, yanchor="bottom", xanchor="center", font={"size": 14}, **paper)


def _counts(low: int, high: int, title: str, anchor: str) -> dict[str, Any]:
    """An axis of whole numbers."""
    axis = {"range": [low - 0.6, high + 0.6], "tickvals": whole_ticks(low, high), "showgrid": False}
    return {"anchor": anchor, "title_text": title, **axis}


def _slider(targets: list[float], first: float) -> dict[str, Any]:
    return {
        "active": targets.index(first),
        "steps": [{"label": f"{t:.3g}", "method": "animate", "args": [[str(t)], _JUMP]} for t in targets],
        "currentvalue": {"visible": False},
        "x": 0,
        "len": 1,
        "yanchor": "top",
        "pad": {"t": 0, "b": 0},
        "bgcolor": GRID,
    }


def page(sweep: Sweep, height: int | None) -> dict[str, Any]:
    """For 720 pixels: the panels of the chosen NAPL side by side."""
    return _layout(sweep, height, upper=220, lower=190, sides=[(0, 0.44), (0.56, 1)], legend=2)


def phone(sweep: Sweep) -> dict[str, Any]:
    """For 350 pixels: one below the other, smaller words."""
    entries = len(sweep.methods) + (sweep.start is not None)
    patch = _layout(sweep, None, upper=200, lower=160, sides=[(0, 1), (0, 1)], legend=entries)
    return patch | {"annotations[0].xshift": 8 - _LEFT, "annotations[0].font.size": 12}


def _layout(sweep: Sweep, height: int | None, **size: Any) -> dict[str, Any]:
    """Changes of the layout, from sizes in pixels: what stands where, counted from the top of the upper panel."""
    slider = size["upper"] + 58  # below ticks and title
    text = slider + 64
    tops = [text + 18 * (1 + len(sweep.methods)) + 40] * 2
    if size["sides"][0] == size["sides"][1]:
        tops[1] += size["lower"] + 80  # below ticks, title, and the next one's own
    bottom, below = tops[1] + size["lower"], 66 + 20 * size["legend"]
    patch = {"height": height or _TOP + bottom + below, "margin.b": below}
    patch |= {"yaxis.domain": [_up(size["upper"], bottom), 1], "xaxis.domain": [0, 1]}
    for number, (top, side) in enumerate(zip(tops, size["sides"], strict=True), start=1):
        ends = [_up(top + size["lower"], bottom), _up(top, bottom)]
        patch |= {f"xaxis{number + 1}.domain": list(side), f"yaxis{number + 1}.domain": ends}
        patch |= {f"annotations[{number}].x": math.fsum(side) / 2, f"annotations[{number}].y": ends[1]}
    return patch | {"sliders[0].y": _up(slider, bottom), "annotations[0].y": _up(text, bottom)}


def _up(pixel: float, bottom: float) -> float:
    return round(1 - pixel / bottom, 4)
