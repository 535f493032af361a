"""Frames that a slider chooses between, and a film's play button: ordinary Plotly, named by texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ._colours import GRID

if TYPE_CHECKING:
    import plotly.graph_objects as go

_DATA = ("type", "x", "y", "z", "text", "customdata")
_MARKS = ("size", "color", "cmax", "opacity")


def add_frames(
    figure: go.Figure,
    moving: Mapping[str, Sequence[Any]],
    layouts: Mapping[str, dict[str, Any]],
    *,
    first: str,
    step: str,
    labels: Sequence[str] = (),
    play: bool = False,
) -> None:
    """Add to the traces that stay those that move, as they stand in frame ``first``, and a slider over all frames.

    Each frame has as many moving traces in the same order, and its own title, because a slider may stand still while a
    film plays. The steps have the frames' names or ``labels``; by ``step`` the book's pages name their own slider.
    """
    import plotly.graph_objects as go

    start = len(figure.data)
    figure.add_traces(list(moving[first]))
    numbers = list(range(start, len(figure.data)))
    figure.frames = [
        go.Frame(name=name, data=[_changes(trace) for trace in traces], traces=numbers, layout=layouts[name])
        for name, traces in moving.items()
    ]
    figure.update_layout(layouts[first])
    figure.update_layout(sliders=[_slider(list(moving), labels or list(moving), first, step, play)])
    if play:
        figure.update_layout(updatemenus=[_buttons()])


def _changes(trace: Any) -> dict[str, Any]:
    """Of a trace, what a frame changes: its data, and colours and sizes that depend on them."""
    full = trace.to_plotly_json()
    kept = {key: full[key] for key in (*_DATA, *(("hovertemplate",) if full["type"] == "bar" else ())) if key in full}
    kept["marker"] = {key: full["marker"][key] for key in _MARKS if key in full.get("marker", {})}
    kept["line"] = {"color": full["line"]["color"]} if "color" in full.get("line", {}) else {}
    return {key: value for key, value in kept.items() if value is not None and (key not in ("marker", "line") or value)}


def _slider(names: list[str], labels: Sequence[str], first: str, step: str, play: bool) -> dict[str, Any]:
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    pairs = zip(names, labels, strict=True)
    steps = [{"label": label, "method": "animate", "args": [[name], jump]} for name, label in pairs]
    left = 0.3 if play else 0
    place = {"x": left, "len": 1 - left, "y": 1, "yanchor": "bottom", "pad": {"t": 0, "b": 28}, "bgcolor": GRID}
    shown = {"active": names.index(first), "currentvalue": {"visible": False, "prefix": f"{step} "}}
    return {"steps": steps, **shown, **place}


def _buttons() -> dict[str, Any]:
    move = {"frame": {"duration": 900, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
    stop = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    buttons: list[dict[str, Any]] = [{"label": "▶ play", "args": [None, move]}, {"label": "❚❚", "args": [[None], stop]}]
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 34, "r": 10}}
    look = {"type": "buttons", "direction": "left", "showactive": False}
    return {**look, **place, "buttons": [{"method": "animate", **button} for button in buttons]}
