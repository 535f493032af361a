"""Where the parts of a map stand: side by side on a page, one below the other on a phone. All sizes are pixels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Box = tuple[float, float, float, float]  # left, right, top, bottom, inside the margins
LEFT, RIGHT, TOP, TITLE, TICKS = 58, 14, 46, 26, 20


class Places(NamedTuple):
    """Boxes of the maps and of the three panels, and the tops of what stands between and below them."""

    width: float
    bottom: float
    maps: list[Box]
    panels: list[Box]  # trajectories, singular values, coupling
    note: float
    slider: float
    words: float


def on_page(maps: int, rows: int) -> Places:
    """For 720 pixels: the maps in one row, the panels in the next."""
    width, gap = 648.0, 26.0
    across, end = (width - gap * (maps - 1)) / maps, 30.0 * rows
    boxes = [(place * (across + gap), place * (across + gap) + across, 0.0, end) for place in range(maps)]
    note, top = end + TICKS + TITLE, end + 196.0
    side = (width - 2 * 62) / 3
    panels = [(place * (side + 62), place * (side + 62) + side, top, top + side) for place in range(3)]
    return Places(width, top + side, boxes, panels, note, note + 24, note + 60)


def on_phone(maps: int, rows: int) -> Places:
    """For 350 pixels: a map below the other, two panels below them, and the spectrum at the end."""
    width, tall = 278.0, 26.0 * rows
    step = tall + TICKS + TITLE
    boxes = [(0.0, width, place * step, place * step + tall) for place in range(maps)]
    note = maps * step
    top, side = note + 150, (width - 52) / 2
    second = top + side + TICKS + 2 * TITLE
    panels = [(0.0, side, top, top + side), (0.0, width, second, second + 150)]
    return Places(
        width, second + 150, boxes, [*panels, (width - side, width, top, top + side)], note, note + 24, note + 60
    )


def as_layout(places: Places, height: int | None, classes: int) -> dict[str, Any]:
    """As changes of a Plotly layout; annotations are the words, the maps' titles, the panels', and two notes.

    With a ``height`` all is stretched to it.
    """
    per_line = max(1, int((places.width - 45) // 56))
    below = TICKS + TITLE + 52 + 62 + 20 * math.ceil(classes / per_line)
    total = height or round(TOP + places.bottom + below)
    patch: dict[str, Any] = {"height": total, "margin.b": below, "legend.y": round(58 / total, 4)}

    def y(pixel: float) -> float:
        return round(1 - pixel / places.bottom, 4)

    for number, (left, right, top, bottom) in enumerate([*places.maps, *places.panels], start=1):
        patch[f"xaxis{suffix(number)}.domain"] = [round(left / places.width, 4), round(right / places.width, 4)]
        patch[f"yaxis{suffix(number)}.domain"] = [y(bottom), y(top)]
        middle = {"x": round((left + right) / 2 / places.width, 4), "y": y(top)}
        patch |= {f"annotations[{number}].{key}": value for key, value in middle.items()}
    last = len(places.maps) + 4
    patch |= {"annotations[0].y": y(places.words), "sliders[0].y": y(places.slider)}
    return patch | {f"annotations[{last}].y": 0, f"annotations[{last + 1}].y": y(places.note)}


def for_phone(maps: int, rows: int, classes: int, titles: tuple[str, str]) -> dict[str, Any]:
    """All that a phone changes: places, smaller words; each map has its own rows, only the last its columns' title."""
    patch = as_layout(on_phone(maps, rows), None, classes)
    patch |= {"annotations[0].xshift": 8 - LEFT, "annotations[0].font.size": 12}
    for number in range(1, maps + 1):
        y, x = f"yaxis{suffix(number)}", f"xaxis{suffix(number)}"
        patch |= {f"{y}.showticklabels": True, f"{y}.title.text": titles[0]}
        patch[f"{x}.title.text"] = titles[1] if number == maps else ""
    return patch


def suffix(number: int) -> str:
    """Plotly calls its axes xaxis, xaxis2, xaxis3."""
    return "" if number == 1 else str(number)
