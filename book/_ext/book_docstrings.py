"""Local Sphinx extension: the package's docstrings, which are written for `help()`, on the pages of the reference.

It makes them safe as markup, finds a name that is written without its module, and lists under `{api-list}` all
functions and classes of the pages that are named there, each with the first sentence of its docstring.
"""

from __future__ import annotations

import inspect
import re
from operator import attrgetter
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

LITERAL = re.compile(r"(``.*?``)")
# (n, *in) is a shape and |x| a modulus, not the beginning of emphasis or of a substitution.
NOT_MARKUP = re.compile(r"(?<![*\\\w])(\*)(?=[A-Za-z),])|(?<!\\)(\|)")


def escape(line: str) -> str:
    """Shapes and bars as they stand. Single-starred emphasis is not used in the package; `**strong**` is kept."""
    parts = LITERAL.split(line)
    return "".join(part if LITERAL.fullmatch(part) else NOT_MARKUP.sub(r"\\\g<0>", part) for part in parts)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [escape(line) for line in lines]
    if what in ("attribute", "data", "property") and lines:
        lines.insert(0, "")  # else napoleon takes what stands before a colon in the first line for a type


def _short_reference(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """A name without its module, where just one thing on the pages is called so; else the warning stays."""
    if node.get("refdomain") != "py":
        return None
    place = (node.get("py:module"), node.get("py:class"), node["reftarget"], node["reftype"])
    found = env.get_domain("py").find_obj(env, *place, 1)
    if len(found) != 1:
        return None
    (name, entry) = found[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, name)


class api_list(nodes.General, nodes.Element):
    """Stands where the list will be: what is on the other pages is known when all are read."""


class ApiList(SphinxDirective):
    """Pages of the reference, one a line."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Leave the place, with the full names of the pages."""
        return [api_list(pages=[self.env.relfn2path(line)[0] for line in self.content if line.strip()])]


def first_sentence(name: str) -> str:
    """What an object says of itself first, without its markup."""
    import resalign_utils

    shown = attrgetter(name.removeprefix("resalign_utils."))(resalign_utils)
    text = " ".join((inspect.getdoc(shown) or "").split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<!et al\.)(?<=[.:]) ", text, maxsplit=1)[0].rstrip(":").replace("``", "").replace("**", "")


def _fill_lists(app: Any, doctree: nodes.document, docname: str) -> None:
    domain = app.env.get_domain("py")
    for place in list(doctree.findall(api_list)):
        filled: list[nodes.Node] = []
        for page in place["pages"]:
            found = [
                (name, entry)
                for name, entry in domain.objects.items()
                if entry.docname == page and entry.objtype in ("function", "class") and not entry.aliased
            ]
            if not found:
                raise ValueError(f"api-list names {page}, on which no function or class is described.")
            title = nodes.strong("", "", nodes.Text(app.env.titles[page].astext()))
            link = make_refnode(app.builder, docname, page, None, title)
            entries = nodes.bullet_list()
            for name, entry in found:
                label = nodes.literal("", name.removeprefix("resalign_utils."))
                line = nodes.paragraph("", "", make_refnode(app.builder, docname, page, entry.node_id, label))
                line += nodes.Text(" — " + first_sentence(name))
                entries += nodes.list_item("", line)
            filled += [nodes.paragraph("", "", link), entries]
        place.replace_self(filled)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon
    app.connect("missing-reference", _short_reference)
    app.add_node(api_list)
    app.add_directive("api-list", ApiList)
    app.connect("doctree-resolved", _fill_lists)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
