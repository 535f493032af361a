"""The sweep over NAPL in Matplotlib: the curves, and the panels of one NAPL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._linearization_points import LINEAR, PALE, Sweep, mark_height, whole_ticks
from ._palette import INK, condition_styles
from ._theme import WIDTH, as_unicode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def sweep_matplotlib(sweep: Sweep, target: float, height: int | None) -> Figure:
    """Accuracy above, the two panels of the chosen NAPL below; made through pyplot and closed, as all figures are."""
    import matplotlib.pyplot as plt

    figure: Any = plt.figure(figsize=(WIDTH, height / 100 if height else 6.4), layout="constrained")
    plt.close(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=[3, 3.4])
    _accuracies(upper.subplots(), sweep, target)
    napl, what, *lines = map(as_unicode, sweep.words(target))
    lower.suptitle("\n".join([napl + what, *lines]), fontsize=9.5)
    _insides(lower.subplots(1, 2), sweep, target)
    handles, names = upper.axes[0].get_legend_handles_labels()
    lower.legend(handles, names, loc="outside lower center", ncols=min(2, len(names)))
    return figure


def _accuracies(axis: Axes, sweep: Sweep, target: float) -> None:
    for (method, points), name in zip(sweep.methods.items(), sweep.named(), strict=True):
        style = condition_styles(sweep.methods)[method]
        look: dict[str, Any] = {"color": style["colour"], "linestyle": style["dash"][1], "marker": style["marker"][1]}
        means, spread = np.array([point.accuracy[:2] for point in points]).T
        axis.errorbar([point.napl for point in points], means, yerr=spread, label=as_unicode(name), **look)
    for point, own in sweep.shown(target).values():
        at, alpha = ([point.napl], [point.accuracy.mean]), 1.0 if own else PALE
        axis.plot(*at, "o", markersize=12, markerfacecolor="none", color=INK, alpha=alpha, clip_on=False)
    axis.axvline(target, color=INK, linestyle=":", linewidth=1)
    if sweep.start:
        napl, accuracy = sweep.start
        axis.axhline(accuracy.mean, color=INK, linestyle="--", linewidth=0.9)
        name = f"before linearisation: {accuracy.text}"
        axis.errorbar([napl], [accuracy.mean], yerr=[accuracy.sd], fmt="*", color=INK, markersize=8, label=name)
    axis.set_xscale("asinh", linear_width=LINEAR)
    axis.set_xticks(*sweep.ticks())
    axis.minorticks_off()
    axis.set_xlim(*(LINEAR * np.sinh(sweep.limits())))
    axis.set(ylim=sweep.accuracy_limits(), xlabel=as_unicode(sweep.labels[0]), ylabel=as_unicode(sweep.labels[1]))


def _insides(axes: Any, sweep: Sweep, target: float) -> None:
    layers, law = axes
    styles, limit, width = condition_styles(sweep.methods), sweep.law_limit(target), 0.85 / len(sweep.methods)
    for number, (method, (point, own)) in enumerate(sweep.shown(target).items()):
        shift = (number - (len(sweep.methods) - 1) / 2) * width
        look: dict[str, Any] = {"color": styles[method]["colour"], "alpha": 1.0 if own else PALE}
        layers.bar(np.arange(1, sweep.layers + 1) + shift, 100 * point.surviving, width, label=method, **look)
        law.bar(np.arange(sweep.longest + 1) + shift, 100 * point.law, width, label=method, **look)
        law.plot([point.mean_length], [limit * mark_height(number)], "v", markersize=6, **look)
    layers.set(ylim=(0, 105), yticks=range(0, 101, 25), xticks=whole_ticks(1, sweep.layers))
    layers.set(xlabel="layer, from input to output", ylabel="units, %")
    law.set(xlabel="path length (nonlinear units)", ylabel="paths, %", xticks=whole_ticks(0, sweep.longest))
    law.set(ylim=(0, limit * mark_height(len(sweep.methods))), yticks=[limit * part // 4 for part in range(5)])
    for axis, title in zip(axes, sweep.titles(), strict=True):
        axis.set_title(title)
        axis.grid(visible=False, axis="x")
