"""Local Sphinx extension: a figure of a notebook on another page, drawn from the notebook's stored output.

```{chapter-figure} ../notebooks/03_trajectories.ipynb
:name: fig-trajectories

The words below it.
```
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from book_assets import MIME, figure_html
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective


def stored_figure(notebook: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The Plotly JSON and the alternative text of the cell whose `mystnb.figure.name` this is.

    Raises:
        ValueError: no cell has that name, or it holds no Plotly figure.
    """
    known = []
    for cell in notebook["cells"]:
        mystnb = cell["metadata"].get("mystnb", {})
        known.append(mystnb.get("figure", {}).get("name"))
        if known[-1] == name:
            for output in cell["outputs"]:
                if MIME in output.get("data", {}):
                    return output["data"][MIME], str(mystnb.get("image", {}).get("alt", "Interactive figure"))
            raise ValueError(f"The cell of {name} holds no Plotly figure: run the notebook.")
    raise ValueError(f"No cell has the figure name {name}; there are {', '.join(filter(None, known)) or 'none'}.")


class ChapterFigure(SphinxDirective):
    """The figure, and below it the directive's own words as its caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"name": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Read the notebook that is there, and draw what it stores."""
        _, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(path)
        figure, alt = stored_figure(json.loads(Path(path).read_text(encoding="utf-8")), self.options["name"])
        box = nodes.container(classes=["chapter-figure"])
        box += nodes.raw(text=figure_html(figure, alt), format="html", classes=["output", "plotly"])
        words = nodes.container(classes=["chapter-figure-words"])
        self.state.nested_parse(self.content, self.content_offset, words)
        box += words
        return [box]


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_directive("chapter-figure", ChapterFigure)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
