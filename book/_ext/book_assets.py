"""Local Sphinx extension: the book carries its own plotly.js and MathJax, and its launch links.

* `application/vnd.plotly.v1+json` outputs are drawn by one copy of plotly.js, taken at build time from the
  installed plotly package, and loaded only by pages that have a figure.
* MathJax comes from the sphinx-mathjax-offline wheel, only the files that are needed.
* With BOOK_REPOSITORY_URL set, notebooks get Colab and Binder links; without it, none that lead nowhere.
  `tools/build_book.py` sets it from `[project.urls]` in pyproject.toml, the one place of the address.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import myst_nb.core.render as mystnb_render
from docutils import nodes

HERE = Path(__file__).resolve().parent
MIME = "application/vnd.plotly.v1+json"
MARK = "book-plotly"
# In this order: the last one uses the others.
SCRIPTS = (
    "plotly.min.js",
    "figure-theme.js",
    "figure-panels.js",
    "figure-stacking.js",
    "figure-controls.js",
    "book-plotly.js",
)
HINT = "scroll-hint.js"  # on every page
BADGES = re.compile(r"<!-- badges(?:: ([\w/]+))? -->")  # of the page itself, or of the notebook that is named


def figure_html(figure: dict[str, Any], alt: str | None) -> str:
    """A stored figure as a box that book-plotly.js fills, with words for those who do not see it."""
    layout = figure.get("layout", {})
    height = int(layout.get("height") or 450)
    label = escape(str(alt or (layout.get("title") or {}).get("text") or "Interactive figure"))
    # "<" must not end the script element early, whatever a label contains
    payload = json.dumps(figure, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="output {MARK}"><div class="{MARK}-target" role="group" '
        f'aria-label="{label}" style="min-height:{height}px"></div>'
        f"<noscript><p>This figure is drawn in your browser and needs JavaScript. It shows: {label}</p></noscript>"
        f'<script type="application/json" class="{MARK}-data">{payload}</script></div>'
    )


class PlotlyMimeRenderer:
    """A stored Plotly figure as a box that book-plotly.js fills (MyST-NB's plugin protocol)."""

    mime_priority_overrides: ClassVar = [(name, MIME, 5) for name in ("html", "dirhtml", "singlehtml")]

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[nodes.Node] | None:
        """Nodes for one output, or None if it is not a Plotly figure."""
        if data.mime_type != MIME:
            return None
        alt = data.cell_metadata.get("mystnb", {}).get("image", {}).get("alt")
        html = figure_html(data.content, alt)
        return [nodes.raw(text=html, format="html", classes=["output", "plotly"])]


def _register_renderer() -> None:
    """Same effect as the entry point `myst_nb.mime_renderers`, with no package to install."""
    original = mystnb_render.load_mime_renders
    if getattr(original, "with_plotly", False):
        return

    def load() -> list[Any]:
        return [*original(), PlotlyMimeRenderer]

    load.with_plotly = True  # type: ignore[attr-defined]
    mystnb_render.load_mime_renders = load


def _config_inited(app: Any, config: Any) -> None:
    static = Path(app.outdir).parent / "vendor_static"
    shutil.rmtree(static, ignore_errors=True)
    vendor = static / "vendor"
    vendor.mkdir(parents=True)
    _copy_plotly(vendor)
    _copy_mathjax(vendor / "mathjax")
    config.mathjax_path = "vendor/mathjax/tex-svg.js"
    config.html_static_path.append(str(static))
    _launch_buttons(config)


def _copy_plotly(vendor: Path) -> None:
    import plotly

    shutil.copy2(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", vendor)
    for name in (*SCRIPTS[1:], HINT):
        shutil.copy2(HERE / "assets" / name, vendor)


def _copy_mathjax(target: Path) -> None:
    """tex-svg, not Sphinx's chtml: plotly.js needs SVG for formulas in figures, and it needs no web fonts."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("Formulas need the package sphinx-mathjax-offline: run `make html` or `uv sync`.")
    source = Path(spec.origin).parent / "static" / "mathjax"
    target.mkdir()
    shutil.copy2(source / "tex-svg.js", target)
    shutil.copytree(source / "input" / "tex" / "extensions", target / "input" / "tex" / "extensions")


def _repository() -> tuple[str, str]:
    url = os.environ.get("BOOK_REPOSITORY_URL", "").rstrip("/")
    return url, os.environ.get("BOOK_REPOSITORY_BRANCH", "main")


def _launch_buttons(config: Any) -> None:
    """Buttons only when the repository is known: without an address Jupyter Book would offer its own."""
    url, branch = _repository()
    options = config.html_theme_options
    if not url:
        options["launch_buttons"] = {}
        options.update({f"use_{name}_button": False for name in ("repository", "issues", "edit_page")})
        return
    options.update(
        repository_url=url,
        repository_branch=branch,
        path_to_docs="",
        use_repository_button=True,
        use_issues_button=True,
        launch_buttons={
            "notebook_interface": "jupyterlab",
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
        },
    )


def badges(docname: str, url: str, branch: str) -> str:
    """The launch links of one notebook as Markdown; none unless it is on GitHub, where both services look."""
    if not url.startswith("https://github.com/"):
        return ""
    where, path = url.removeprefix("https://github.com/"), f"{docname}.ipynb"
    colab = f"https://colab.research.google.com/github/{where}/blob/{branch}/{path}"
    binder = f"https://mybinder.org/v2/gh/{where}/{branch}?urlpath=lab/tree/{path}"
    return f"[Open in Colab]({colab}) · [Open in Binder]({binder}) · [Source]({url}/blob/{branch}/{path})"


def _source_read(app: Any, docname: str, source: list[str]) -> None:
    """Links in place of the mark; the text may be a notebook's JSON, in which the mark stands as it is."""
    source[0] = BADGES.sub(lambda found: badges(found[1] or docname, *_repository()), source[0])


def _page_context(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    app.add_js_file(f"vendor/{HINT}", loading_method="defer", priority=720)
    if f"{MARK}-data" in context.get("body", ""):
        for place, name in enumerate(SCRIPTS):
            app.add_js_file(f"vendor/{name}", loading_method="defer", priority=700 + place)
    # sphinx-thebe adds its constants twice, and the page would log "already been declared": keep the first.
    seen: set[str] = set()
    kept = []
    for script in context.get("script_files", []):
        body = getattr(script, "attributes", {}).get("body")
        if body not in seen:
            kept.append(script)
        if body:
            seen.add(body)
    context["script_files"][:] = kept


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    _register_renderer()
    app.connect("config-inited", _config_inited)
    app.connect("source-read", _source_read)
    app.connect("html-page-context", _page_context, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
