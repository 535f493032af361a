"""Local Sphinx extension: numbers in the outputs of cells as they are printed in a book.

Python writes ``4e-07`` and ``-0.3``; a page reads 4×10⁻⁷ and −0.3. Only tables and texts that a cell displays are
changed, and only on their way into HTML: what a notebook stores stays what Python wrote. Printed blocks stay as well.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

SCIENTIFIC = re.compile(r"(?<![\w.])(\d(?:\.\d+)?)e([+-]\d+)\b")
MINUS = re.compile(r"(?<![\w.,/)\]–-])-(?=\d)")  # not a range, a date or a name
CELL = re.compile(r"(<t[dh][^>]*>)([^<]*)(?=</t[dh]>)")
PLAIN = range(-3, 4)  # powers of ten that are read faster as plain numbers
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CODE = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw)


def typeset(text: str) -> str:
    """The text with its numbers as in print."""
    return MINUS.sub("−", SCIENTIFIC.sub(_written_out, text)).replace(" ± ", "\u00a0±\u00a0")


def _written_out(found: re.Match[str]) -> str:
    mantissa, power = found[1], int(found[2])
    if power in PLAIN:
        return f"{Decimal(mantissa).scaleb(power):f}"
    return ("" if mantissa == "1" else f"{mantissa}×") + f"10{str(power).translate(RAISED)}"


class TypesetNumbers(SphinxPostTransform):
    """Runs after MyST-NB has chosen what to show of each output."""

    default_priority = 20
    formats = ("html",)

    def run(self, **_: Any) -> None:
        for output in self.document.findall(
            lambda node: "cell_output" in getattr(node, "attributes", {}).get("classes", ())
        ):
            for text in list(output.findall(nodes.Text)):
                if not any(isinstance(parent, CODE) for parent in _parents(text)):
                    text.parent.replace(text, nodes.Text(typeset(text.astext())))
            for raw in list(output.findall(nodes.raw)):
                if "<table" in raw.astext():
                    html = CELL.sub(lambda cell: cell[1] + typeset(cell[2]), raw.astext())
                    raw.children[:] = [nodes.Text(html)]
                    raw.rawsource = html


def _parents(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_post_transform(TypesetNumbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
