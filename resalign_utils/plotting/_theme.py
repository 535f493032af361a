"""What all figures share: the look of both libraries, and the frame that panels are drawn into."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ._palette import GRID, INK

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Backend = Literal["plotly", "matplotlib"]
WIDTH = 7.2  # inches, a page of the book
_SUBSCRIPT = re.compile(r"_([^\W_])(?![a-z0-9])")  # of one character; train_accuracy stays as it is


def as_html(text: str) -> str:
    """``J_i`` → ``J<sub>i</sub>``, for Plotly."""
    return _SUBSCRIPT.sub(r"<sub>\1</sub>", text)


def as_unicode(text: str) -> str:
    """``J_i`` → ``Jᵢ``, for Matplotlib; where Unicode has no subscript, by Matplotlib's own mathtext."""
    known = {"i": "ᵢ", "j": "ⱼ", "k": "ₖ"}
    return _SUBSCRIPT.sub(lambda found: known.get(found[1], f"$_{{{found[1]}}}$"), text)


def log_ticks(*values: Any) -> tuple[list[float], list[str]]:
    """Places and texts of a logarithmic axis: powers of ten, or 1, 2 and 5 times those on less than two decades."""
    known = np.concatenate([np.ravel(part) for part in values])
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return [1.0], ["1"]
    low, high = math.floor(math.log10(known.min())), math.ceil(math.log10(known.max()))
    if known.max() >= 100 * known.min():
        step = math.ceil((high - low) / 9)
        powers = range(low, high + 1, step)
        return [10.0**power for power in powers], [_power(power) for power in powers]
    places = [factor * 10.0**power for power in range(low, high + 1) for factor in (1, 2, 5)]
    return places, [f"{place:g}" for place in places]


def _power(exponent: int) -> str:
    """10⁻³, and plain 0.1, 1, 10, 100 around one."""
    if -1 <= exponent <= 2:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def draw(backend: Backend, interactive: Callable[[], go.Figure], static: Callable[[], Figure]) -> Any:
    """Call the drawer of the backend, with the theme in force for the figure and nowhere else.

    Raises:
        ValueError: an unknown backend.
    """
    if backend == "plotly":
        return interactive()
    if backend != "matplotlib":
        raise ValueError(f"backend must be one of {', '.join(map(repr, get_args(Backend)))}; got {backend!r}.")
    import matplotlib.style

    with matplotlib.style.context(["default", theme("matplotlib")]):
        return static()


def theme(backend: Backend = "plotly") -> Any:
    """The look of the book's figures: a Plotly template, or Matplotlib's settings; sets nothing globally."""
    if backend == "matplotlib":
        return dict(_MATPLOTLIB)
    import plotly.graph_objects as go

    axis = {
        "showline": True,
        "linecolor": INK,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": INK,
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        "tickangle": 0,
        "title": {"standoff": 8, "font": {"size": 14}},
    }
    wall = {
        "backgroundcolor": "#f6f6f6",
        "gridcolor": "#dddddd",
        "zeroline": False,
        "showspikes": False,
        "showbackground": True,
    }
    wall |= {"showline": True, "linecolor": "#bbbbbb", "mirror": True}
    return go.layout.Template(
        layout={
            "font": {"family": "Arial, Liberation Sans, DejaVu Sans, sans-serif", "size": 13, "color": INK},
            "paper_bgcolor": "#ffffff",
            "plot_bgcolor": "#ffffff",
            "xaxis": axis,
            "yaxis": axis,
            "scene": {"xaxis": wall, "yaxis": wall, "zaxis": wall},
            "legend": {
                "orientation": "h",
                "x": 0.5,
                "xanchor": "center",
                "y": 0,
                "yanchor": "bottom",
                "yref": "container",
                "title": {"font": {"size": 13}},
            },
            "coloraxis": {"colorbar": {"title": {"font": {"size": 14}}}},
            "hoverlabel": {"bgcolor": "#ffffff", "font": {"color": INK}, "align": "left"},
            "hovermode": "closest",
            "margin": {"l": 55, "r": 15, "t": 48, "b": 85},  # the panels' titles stay clear of the modebar
            "modebar": {"bgcolor": "rgba(255,255,255,0.7)", "color": "#8a8a8a", "remove": _BUTTONS},
            "annotationdefaults": {"showarrow": False},
        }
    )


_BUTTONS = ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "hoverClosest3d", "resetCameraLastSave3d"]
_MATPLOTLIB = {
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.6,
    "errorbar.capsize": 2.5,
    "image.interpolation": "nearest",
}


def plotly_panels(titles: Sequence[str], *, height: int, scenes: bool = False, **subplots: Any) -> go.Figure:
    """An empty Plotly figure with one titled panel a name, side by side."""
    from plotly.subplots import make_subplots

    specs = [[{"type": "scene"} if scenes else {} for _ in titles]]
    spacing = subplots.pop("horizontal_spacing", 0.02 if scenes else 0.16 / len(titles))
    figure = make_subplots(
        1, len(titles), subplot_titles=[t or " " for t in titles], specs=specs, horizontal_spacing=spacing, **subplots
    )
    figure.update_layout(template=theme(), height=height)
    figure.update_annotations(font={"size": 14, "color": INK}, yshift=4)
    return figure


def matplotlib_panels(
    titles: Sequence[str], *, height: float, rows: int = 1, **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """A Matplotlib figure with one titled panel a name, in rows.

    It is made through pyplot, because only then Jupyter shows it as a picture, and closed at once, so that Jupyter
    shows it once, where a cell returns it.
    """
    import matplotlib.pyplot as plt

    columns = math.ceil(len(titles) / rows)
    size = (WIDTH, height)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **subplots)
    plt.close(figure)
    for axis in axes.flat[len(titles) :]:
        axis.remove()
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(title)
    return figure, list(axes.flat[: len(titles)])


def matplotlib_legend(figure: Figure, axis: Axes, **options: Any) -> None:
    """One legend for the whole figure, below its panels."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        columns = options.pop("columns", min(len(handles), 10))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, **options)
