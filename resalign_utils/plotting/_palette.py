"""Colours, dashes and markers: what they mean is the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

# Petroff 2021, "Accessible color sequences for data visualization", arXiv:2107.02270, ten colours.
CLASS_COLOURS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)

# Okabe & Ito 2008, "Color Universal Design", jfly.uni-koeln.de/color.
CONDITION_COLOURS = {"trained": "#0072B2", "untrained": "#D55E00", "no skip": "#009E73"}
_OTHER_COLOURS = ("#56B4E9", "#E69F00", "#CC79A7", "#000000")
_DASHES = (("solid", "-"), ("dash", "--"), ("dashdot", "-."), ("dot", ":"))  # Plotly's and Matplotlib's names
_MARKERS = (("circle", "o"), ("square", "s"), ("diamond", "D"), ("triangle-up", "^"), ("x", "x"), ("cross", "P"))

# Viridis (van der Walt & Smith 2015) at 0, 0.1, …, 0.9: its last tenth is too pale for lines on white.
DEPTH_SCALE = (
    "#440154",
    "#482475",
    "#414487",
    "#355f8d",
    "#2a788e",
    "#21918c",
    "#22a884",
    "#44bf70",
    "#7ad151",
    "#bddf26",
)

# ColorBrewer's RdBu (Harrower & Brewer 2003) from −1 to 1, with white at 0; its upper half is for magnitudes.
SIGNED_SCALE = (
    "#67001f",
    "#b2182b",
    "#d6604d",
    "#f4a582",
    "#fddbc7",
    "#ffffff",
    "#d1e5f0",
    "#92c5de",
    "#4393c3",
    "#2166ac",
    "#053061",
)
MAGNITUDE_SCALE = SIGNED_SCALE[5:]

INK, GRID, UNKNOWN = "#222222", "#e4e4e4", "#bdbdbd"


def class_colour(label: int) -> str:
    """Colour of a class, by its label; after ten classes the colours start again."""
    return CLASS_COLOURS[int(label) % len(CLASS_COLOURS)]


def condition_colours(names: Iterable[str]) -> dict[str, str]:
    """Colour of each condition: those of ``CONDITION_COLOURS`` are fixed, others follow in their order."""
    return {name: style["colour"] for name, style in condition_styles(names).items()}


def condition_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of each condition, the latter two under Plotly's and Matplotlib's names."""
    styles: dict[str, dict[str, Any]] = {}
    others = 0
    for name in names:
        key = name.strip().lower().replace("-", " ")
        if key in CONDITION_COLOURS:
            mark = place = list(CONDITION_COLOURS).index(key)
            colour = CONDITION_COLOURS[key]
        else:
            mark, place = len(CONDITION_COLOURS) + others, others
            colour = _OTHER_COLOURS[others % len(_OTHER_COLOURS)]
            others += 1
        dash, marker = _DASHES[place % len(_DASHES)], _MARKERS[mark % len(_MARKERS)]
        styles[name] = {"colour": colour, "dash": dash, "marker": marker}
    return styles


def depth_colours(count: int) -> list[str]:
    """Colours of depths 1..count, dark for the first, light for the last."""
    if count == 1:
        return [DEPTH_SCALE[0]]
    last = len(DEPTH_SCALE) - 1
    places = [index * last / (count - 1) for index in range(count)]
    return [
        mix(DEPTH_SCALE[min(int(p), last - 1)], DEPTH_SCALE[min(int(p), last - 1) + 1], p - min(int(p), last - 1))
        for p in places
    ]


def mix(first: str, second: str, share: float) -> str:
    """The colour ``share`` of the way from the first to the second, in sRGB."""
    pairs = [(int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in pairs)


def faded(colour: str, opacity: float) -> str:
    """A colour with an opacity, as Plotly writes it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def colour_scale(colours: Sequence[str]) -> list[list[Any]]:
    """Evenly spaced colours as Plotly's colour scale."""
    return [[index / (len(colours) - 1), colour] for index, colour in enumerate(colours)]
