"""Local Sphinx extension: how strong a finding is, as a small mark that looks the same everywhere.

    {strength}`live, 3 seeds`   {strength}`recorded, 1 to 5 seeds, digits`   {strength}`proved`

The page that holds `{strength-legend}` explains the words.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective, SphinxRole

# The words that a mark may hold, in this order, and what each says.
KINDS = {
    "live": "trained and measured when this book was built",
    "recorded": "trained and measured beforehand by a program of the repository, and stored with its date and versions",
    "proved": "a proof stands in the book, and a test checks it numerically",
    "computed": "follows from a calculation that the page carries out; nothing is trained",
}
SEEDS = re.compile(r"(\d+ to )?\d+ seeds?")
SCALES = {
    "digits": "8 × 8 images, small networks",
    "Fashion-MNIST": "28 × 28 images, small networks",
    "published": "networks that others trained and published",
}
SIGNS = {"live": "●", "recorded": "○", "proved": "∎", "computed": "="}


def parts_of(text: str) -> list[str]:
    """The words of a mark, checked.

    Raises:
        ValueError: a word that the legend does not explain, or no kind in the first place.
    """
    parts = [part.strip() for part in text.split(",")]
    if parts[0] not in KINDS:
        raise ValueError(f"A strength begins with one of {', '.join(KINDS)}; got {text!r}.")
    for part in parts[1:]:
        if part not in SCALES and not SEEDS.fullmatch(part):
            raise ValueError(f"A strength holds a number of seeds and scales ({', '.join(SCALES)}); got {part!r}.")
    counted = any(SEEDS.fullmatch(part) for part in parts) or "published" in parts
    if parts[0] in ("live", "recorded") and not counted:
        raise ValueError(f"A strength that rests on training says how many seeds; got {text!r}.")
    return parts


class Strength(SphinxRole):
    """The mark."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """A small box with the sign of its kind and its words."""
        try:
            parts = parts_of(self.text)
        except ValueError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        words = nodes.inline("", f"{SIGNS[parts[0]]}\N{NO-BREAK SPACE}" + " · ".join(parts), classes=["strength"])
        return [words], []


class StrengthLegend(SphinxDirective):
    """What the words of the marks mean, once."""

    has_content = False
    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        """A definition list of the kinds and scales."""
        found = nodes.bullet_list(classes=["strength-legend"])
        seeds = {"3 seeds": "so many networks that differ in their random start; an interval is over these"}
        for name, text in (KINDS | seeds | SCALES).items():
            sign = f"{SIGNS[name]}\N{NO-BREAK SPACE}" if name in SIGNS else ""
            line = nodes.paragraph("", "", nodes.inline("", sign + name, classes=["strength"]), nodes.Text(f" {text}."))
            found += nodes.list_item("", line)
        return [found]


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_role("strength", Strength())
    app.add_directive("strength-legend", StrengthLegend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
