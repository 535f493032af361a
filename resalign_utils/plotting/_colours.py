"""Colours, dashes and markers: what they mean is the same in every figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# The book's pages replace exactly these two, and white paper, in the dark theme.
INK, GRID = "#222222", "#e4e4e4"
UNKNOWN = "#bdbdbd"  # where a matrix has no value

# Petroff 2021, "Accessible color sequences for data visualization", arXiv:2107.02270, ten colours.
CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip

# Okabe & Ito 2008, "Color Universal Design", jfly.uni-koeln.de/color; violet from IBM's colour-blind safe palette.
CONDITION_COLOURS = {"trained": "#0072B2", "untrained": "#D55E00", "no skip": "#009E73", "skip": "#785EF0"}
_OTHER_COLOURS = ("#56B4E9", "#E69F00", "#CC79A7", "#8C6D46")
_DASHES = ("solid", "dash", "dashdot", "dot", "longdash", "longdashdot")
_MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")

# The first that fits says what condition a name speaks of.
_CONDITIONS = {
    "untrained": re.compile(r"\buntrained\b"),
    "no skip": re.compile(r"\b(no|without) skips?\b|\bwithout$|^plain\b"),
    "skip": re.compile(r"\bwith skips?\b|^(\d+ blocks, )?skips?\b|^residual\b"),
    "trained": re.compile(r"\btrained\b|^this network$"),
}
_NUMBERED = re.compile(r"(.*?)([−-]?\d+(?:\.\d+)?(?:e-?\d+)?)")


class Style(NamedTuple):
    """How one series is drawn, under Plotly's names."""

    colour: str
    dash: str
    marker: str


def class_colour(label: int) -> str:
    """Colour of a class, by its label; after ten classes the colours start again, with another dash and marker."""
    return CLASS_COLOURS[int(label) % len(CLASS_COLOURS)]


def class_style(label: int) -> Style:
    """Colour, dash and marker of a class: no two of the first sixty have the same colour and dash."""
    turn = int(label) // len(CLASS_COLOURS)
    return _style(class_colour(label), turn, turn)


def condition_colours(names: Iterable[str]) -> dict[str, str]:
    """Colour of each series in a figure: fixed for the four conditions, in order of the number if names count."""
    return {name: style.colour for name, style in condition_styles(names).items()}


def condition_styles(names: Iterable[str]) -> dict[str, Style]:
    """Colour, dash and marker of each series of one figure, by its name.

    A name that speaks of a condition ("no skips, L = 8") has the condition's colour; a second such name has the same
    colour and another dash and marker. Three or more names that differ in their last number ("C = 2", "C = 4", …)
    have colours from dark to light in the order of the numbers. All others take further colours in their order. Up to
    24 series beside the conditions, no two share colour and dash, nor colour and marker.
    """
    names = list(dict.fromkeys(names))
    styles = _numbered_styles(names)
    counts: dict[str, int] = {}
    for name in names:
        if name in styles:
            continue
        condition = _condition(name)
        if counts.get(condition, 0) >= len(_DASHES):
            condition = ""  # all dashes of this colour are taken
        place = counts.get(condition, 0)
        counts[condition] = place + 1
        if condition:
            first = list(CONDITION_COLOURS).index(condition)  # solid where there is training, or skips
            styles[name] = _style(CONDITION_COLOURS[condition], place + first % 3, place + first)
        else:  # each turn through the colours moves the dashes on by one
            turned = place + place // len(_OTHER_COLOURS)
            styles[name] = _style(_OTHER_COLOURS[place % len(_OTHER_COLOURS)], turned, turned)
    return {name: styles[name] for name in names}


def _style(colour: str, dash: int, marker: int) -> Style:
    return Style(colour, _DASHES[dash % len(_DASHES)], _MARKERS[marker % len(_MARKERS)])


def _condition(name: str) -> str:
    """The condition that a name speaks of, or ""."""
    plain = name.strip().lower().replace("-", " ")
    return next((condition for condition, pattern in _CONDITIONS.items() if pattern.search(plain)), "")


def _numbered_styles(names: Sequence[str]) -> dict[str, Style]:
    """Styles of the names that differ in their last number only, if they are at least three."""
    families: dict[str, dict[str, float]] = {}
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found and not _condition(name):
            families.setdefault(found[1], {})[name] = float(found[2].replace("−", "-"))
    styles: dict[str, Style] = {}
    for dash, family in enumerate(family for family in families.values() if len(family) >= 3):
        by_number = sorted(family, key=lambda name: family[name])
        for place, (name, colour) in enumerate(zip(by_number, depth_colours(len(by_number)), strict=True)):
            styles[name] = _style(colour, dash, place + dash)
    return styles


def depth_colours(count: int) -> list[str]:
    """Colours of depths 1..count, dark for the first: Viridis without its last tenth, too pale for lines on white."""
    return sample("Viridis", [0.9 * index / max(1, count - 1) for index in range(count)])


def sample(scale: str | Sequence[str], places: Sequence[float]) -> list[str]:
    """Colours of a scale at places from 0 to 1, as #rrggbb."""
    from plotly.colors import sample_colorscale

    found = sample_colorscale(scale, list(places), colortype="tuple")
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour) for colour in found]


def faded(colour: str, opacity: float) -> str:
    """A colour with an opacity, as Plotly writes it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
