"""What all figures share: the look, panels side by side, logarithmic axes, notes below."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formatting import format_number, power_of_ten
from ._colours import GRID, INK
from ._inputs import Array, Line

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SUBSCRIPT = re.compile(r"_([^\W_])(?![a-z0-9])")  # of one character; train_accuracy stays as it is
_BUTTONS = ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "hoverClosest3d", "resetCameraLastSave3d"]


def as_html(text: str) -> str:
    """``J_i`` → ``J<sub>i</sub>``."""
    return _SUBSCRIPT.sub(r"<sub>\1</sub>", text)


def wrapped(text: str, letters: int) -> str:
    """Break a text into lines, by ``<br>``, so that none is cut."""
    lines = []
    for line in text.split("<br>"):
        fits = len(re.sub("<.*?>", "", line)) <= letters  # tags take no room
        lines += [line] if fits else textwrap.wrap(line, letters, break_long_words=False)
    return "<br>".join(lines)


def theme() -> go.layout.Template:
    """The look of the book's figures as a Plotly template; sets nothing globally."""
    import plotly.graph_objects as go

    axis = {"showline": True, "linecolor": INK, "gridcolor": GRID, "zeroline": False, "automargin": True}
    axis |= {"ticks": "outside", "ticklen": 4, "tickcolor": INK, "tickangle": 0, "exponentformat": "power"}
    axis |= {"title": {"standoff": 8, "font": {"size": 14}}}
    wall = {"showbackground": False, "gridcolor": GRID, "linecolor": INK, "zeroline": False, "showspikes": False}
    legend = {
        "orientation": "h",
        "x": 0.5,
        "xref": "container",
        "xanchor": "center",
        "y": 0,
        "yanchor": "bottom",
        "yref": "container",
    }
    legend |= {"tracegroupgap": 0, "title": {"side": "top", "font": {"size": 12}}}
    return go.layout.Template(
        layout={
            "font": {"family": "Arial, Liberation Sans, DejaVu Sans, sans-serif", "size": 13, "color": INK},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "xaxis": axis,
            "yaxis": axis,
            "scene": {"xaxis": wall, "yaxis": wall, "zaxis": wall},
            "legend": legend,
            "title": {"x": 0.5, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 28}, "font": {"size": 14}},
            "hoverlabel": {"bgcolor": "#ffffff", "font": {"color": INK}, "align": "left"},
            "hovermode": "closest",
            "margin": {"l": 55, "r": 15, "t": 40, "b": 60},  # the panels' titles stay clear of the modebar
            "modebar": {"bgcolor": "rgba(255,255,255,0.7)", "color": "#8a8a8a", "remove": _BUTTONS},
            "annotationdefaults": {"showarrow": False},
        }
    )


def side_by_side(titles: Sequence[str], *, height: int, scenes: bool = False, gap: float | None = None) -> go.Figure:
    """An empty figure with one panel a title, ``gap`` apart (a share of the width); a phone's page stacks them."""
    from plotly.subplots import make_subplots

    count, several = len(titles), len(titles) > 1
    shown = [as_html(wrapped(title, max(16, 92 // count))) or " " for title in titles]
    specs = [[{"type": "scene"} if scenes else {} for _ in titles]]
    usual = 0.02 if scenes else 0.26 / count
    apart = (usual if gap is None else gap) if several else 0
    figure = make_subplots(1, count, subplot_titles=shown, specs=specs, horizontal_spacing=apart)
    lines = max(title.count("<br>") for title in shown) + any(titles)
    figure.update_layout(template=theme(), height=height, margin={"t": 24 + 18 * lines})
    figure.update_annotations(font={"size": 14}, yshift=4)
    return figure


def add_note(figure: go.Figure, *notes: str) -> None:
    """A small line a note above the legend, which is below the panels; a narrow page breaks it where it has to."""
    figure.update_layout(showlegend=True, legend_title_text="<br>".join(wrapped(note, 84) for note in notes if note))


def add_line(
    figure: go.Figure, name: str, *, row: int = 1, column: int = 1, legend: bool = True, dash: str = "dash", **at: float
) -> None:
    """A reference line at ``x=`` or ``y=``, named in the legend, where its text lies on no curve."""
    add = figure.add_vline if "x" in at else figure.add_hline
    look = {"line": {"color": INK, "dash": dash, "width": 1.2}, "showlegend": legend, "legendgroup": name}
    add(**at, **look, name=as_html(name), row=row, col=column, exclude_empty_subplots=False)


def log_axis(values: Iterable[Array]) -> dict[str, Any]:
    """A logarithmic axis: powers of ten, or 1, 2 and 5 times those on less than two decades."""
    known = np.concatenate([np.ravel(part) for part in values])
    known = known[np.isfinite(known) & (known > 0)]
    known = known if len(known) else np.ones(1)
    low, high = math.floor(math.log10(known.min())), math.ceil(math.log10(known.max()))
    if known.max() >= 100 * known.min():
        powers = range(low, high + 1, math.ceil((high - low) / 9))
        texts = [format_number(10.0**power) if -1 <= power <= 2 else power_of_ten(power) for power in powers]
        return {"type": "log", "tickvals": [10.0**power for power in powers], "ticktext": texts}
    places = [factor * 10.0**power for power in range(low, high + 1) for factor in (1, 2, 5)]
    return {"type": "log", "tickvals": places, "ticktext": [format_number(place) for place in places]}


def share_axis(lines: Sequence[Line], marks: Sequence[float]) -> dict[str, Any]:
    """Where all values lie in [0, 1] and come near 1, as accuracies do, the axis ends at 1; else nothing special."""
    means = np.concatenate([*(line.mean for line in lines), marks])
    if np.nanmin(means) < 0 or not 0.9 < np.nanmax(means) <= 1:
        return {}
    low = max(0.0, min([0.9, *(float(np.nanmin(line.low)) for line in lines), *marks]))  # 0.9: no magnified 1.000
    margin = 0.03 * (1 - low)
    return {"range": [low - margin, 1 + margin]}
