"""What a built page costs whoever opens it: time to the first text and the first figure, bytes, and what axe finds.

`make shots` measures every page and writes the table to ``_build/shots/pages.json``; tests/book/test_pages.py holds
every page to ``LIMITS``. Times are of this machine with the files beside it, so their limits are wide: they catch what
hangs or is done twice. Bytes are the same everywhere, and their limits are close.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

Row = dict[str, Any]
LIMITS = {
    "first_text_ms": 10_000,  # first contentful paint
    "first_figure_ms": 30_000,  # until the first figure stands there, scrolled to at once
    "own_bytes": 600_000,  # the page itself, its data and its pictures
    "bytes": 3_800_000,  # with what all pages share, which a browser fetches once
    "violations": 0,
}
SHARED = "_static/"  # what the pages of the book have in common
COMPRESSED = {".html", ".js", ".css", ".svg", ".json", ".txt"}  # servers send these compressed
# What the theme and Sphinx themselves get wrong, not the book's own content.
AXE_KNOWN = {"aria-required-children", "aria-deprecated-role", "aria-allowed-role"}
WATCH = """() => {
    const look = new MutationObserver(() => {
        if (!document.querySelector('.book-plotly-target[data-ready]')) return;
        window.bookFirstFigure = performance.now();
        look.disconnect();
    });
    look.observe(document, {subtree: true, childList: true, attributeFilter: ['data-ready']});
}"""


def violations(page: Any, rules: list[str] | None = None) -> list[tuple[str, str]]:
    """What axe finds in the text of a page that is serious: the rule and the place; by default by WCAG's A and AA."""
    from axe_playwright_python.sync_playwright import Axe

    options = {"runOnly": rules or ["wcag2a", "wcag2aa"], "preload": False}  # its preload asks for style sheets itself
    found = Axe().run(page, context=".bd-article", options=options).response["violations"]
    serious = [one for one in found if one["impact"] in ("critical", "serious") and one["id"] not in AXE_KNOWN]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in serious]


@functools.cache
def sent(path: Path) -> int:
    """The bytes of a file as a server sends it, which compresses text."""
    content = path.read_bytes()
    return len(gzip.compress(content)) if path.suffix in COMPRESSED else len(content)


def weight(addresses: Iterable[str], base: str, html: Path) -> tuple[int, int]:
    """The bytes of the page's own files, and of all files that it asked for, each counted once."""
    names = {unquote(urlsplit(one).path).lstrip("/") for one in addresses if one.startswith(base)}
    sizes = {name: sent(html / name) for name in names if (html / name).is_file()}
    return sum(size for name, size in sizes.items() if not name.startswith(SHARED)), sum(sizes.values())


def measured(browser: Any, base: str, name: str, html: Path, *, axe: bool = True) -> Row:
    """One row of the table: a page opened for the first time, at 1280 pixels and in light colours."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="light")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(f"({WATCH})()")
    page.goto(f"{base}{name}.html", wait_until="load")
    figures = page.locator(".book-plotly-target")
    if figures.count():
        figures.first.scroll_into_view_if_needed()
        page.wait_for_function("() => window.bookFirstFigure", timeout=60_000)
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length", timeout=60_000)
    text = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime")
    figure = page.evaluate("() => window.bookFirstFigure ?? null")
    page.wait_for_load_state("networkidle")
    own, total = weight(asked, base, html)
    found = [rule for rule, _ in violations(page)] if axe else []
    page.close()
    times = {"first_text_ms": round(text), "first_figure_ms": None if figure is None else round(figure)}
    return {"page": name, **times, "own_bytes": own, "bytes": total, "violations": len(found), "rules": found}


def over(row: Row) -> list[str]:
    """What of a row is above its limit, in words."""
    return [f"{key} {row[key]:,} > {limit:,}" for key, limit in LIMITS.items() if (row[key] or 0) > limit]


def table(rows: Iterable[Row]) -> str:
    """The rows as text, widest pages first."""
    lines = [f"{'page':36} {'text, ms':>9} {'figure, ms':>11} {'own kB':>8} {'all kB':>8} {'axe':>4}"]
    for row in sorted(rows, key=lambda row: -row["own_bytes"]):
        figure = "–" if row["first_figure_ms"] is None else f"{row['first_figure_ms']:,}"
        sizes = f"{row['own_bytes'] / 1e3:8,.0f} {row['bytes'] / 1e3:8,.0f}"
        said = "; ".join(over(row))
        lines.append(
            f"{row['page']:36} {row['first_text_ms']:9,} {figure:>11} {sizes} {row['violations']:4}  {said}".rstrip()
        )
    return "\n".join(lines)


def write(rows: list[Row], path: Path) -> None:
    """The table and its limits as JSON."""
    path.write_text(json.dumps({"limits": LIMITS, "rows": rows}, indent=1) + "\n", encoding="utf-8")
