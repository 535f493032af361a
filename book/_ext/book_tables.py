"""Local Sphinx extension: numbers align right, ± keeps its line, and search looks at prose, not at code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

NUMBER = re.compile(r"[\d\s.,+−\-–—～±%×·→/()\[\]⁻⁰¹²³⁴⁵⁶⁷⁸⁹<>≤≥≈~e^]*(ms|s|GB|MB|kB|min|h)?")
MANY = 5  # columns; more are set in smaller type
KEEP_TOGETHER = re.compile(r" (?=±)|(?<=±) ")


def is_number(text: str) -> bool:
    """Whether a cell holds nothing but numbers, their signs and a unit; an empty cell or a dash is no obstacle."""
    return NUMBER.fullmatch(text.strip()) is not None


def columns(group: nodes.Element) -> Iterator[list[nodes.entry]]:
    """The cells of each column; none for a table with cells that span several."""
    rows = [[cell for cell in row if isinstance(cell, nodes.entry)] for row in group.findall(nodes.row)]
    if all("morecols" not in cell and "morerows" not in cell for row in rows for cell in row):
        yield from (list(column) for column in zip(*rows, strict=False))


class Tables(SphinxPostTransform):
    """After references and glued numbers are in their places."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        """Mark the cells of numeric columns with the class `number`, and join what belongs together at ±."""
        for group in self.document.findall(nodes.tgroup):
            if group["cols"] > MANY and group.parent is not None:
                group.parent["classes"].append("book-many")
            body = next(iter(group.findall(nodes.tbody)), None)
            if body is None:
                continue
            for index, cells in enumerate(columns(body)):
                texts = [cell.astext() for cell in cells]
                if all(map(is_number, texts)) and any(character.isdigit() for character in "".join(texts)):
                    for column in (list(columns(part)) for part in group.children if isinstance(part, nodes.Element)):
                        for cell in column[index] if index < len(column) else []:
                            cell["classes"].append("number")
        for element in list(self.document.findall(nodes.Element)):
            if isinstance(element, nodes.FixedTextElement | nodes.literal | nodes.raw):
                continue
            for index, text in enumerate(element.children):  # not by text.parent: a text that was glued in has none
                if isinstance(text, nodes.Text) and "±" in text:
                    element[index] = nodes.Text(KEEP_TOGETHER.sub("\N{NO-BREAK SPACE}", text))


class WithoutCode:
    """Stands in for a builder's `index_page`: the words of code cells are no words of the page."""

    dropped: ClassVar = ("cell_input",)

    def __init__(self, index_page: Any) -> None:
        self.index_page = index_page

    def __call__(self, pagename: str, doctree: nodes.document, title: str) -> None:
        """Index a copy of the page without its code."""
        copy = doctree.deepcopy()
        for node in list(copy.findall(nodes.container)):
            if set(self.dropped) & set(node["classes"]):
                node.parent.remove(node)
        self.index_page(pagename, copy, title)


def _builder_inited(app: Any) -> None:
    if hasattr(app.builder, "index_page"):
        app.builder.index_page = WithoutCode(app.builder.index_page)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_post_transform(Tables)
    app.connect("builder-inited", _builder_inited)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
