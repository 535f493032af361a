"""Local Sphinx extension: the package's docstrings are written for `help()`; this makes them safe for the pages."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
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


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon
    app.connect("missing-reference", _short_reference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
