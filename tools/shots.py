"""Screenshots of every built page: 1280 pixels in the light and in the dark, and a phone's 390; and what each costs.

python -m tools.shots            # all pages, into _build/shots, with a sheet of them: _build/shots/index.html
python -m tools.shots 05 intro   # only pages whose names contain one of these words

The table of times, bytes and accessibility (tools/pages.py) is printed, and written to _build/shots/pages.json.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from tools import pages
from tools.notebook_rules import ROOT, toc_files

HTML = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html"))
SHOTS = ROOT / "_build" / "shots"
WAYS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",  # CI runs as root in a container
    "--no-proxy-server",
    "--disable-background-networking",
    "--enable-unsafe-swiftshader",  # WebGL figures on machines without a graphics card
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
TALLEST = 16_000  # pixels: Chromium's pictures repeat themselves beyond


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the built book without a line a request."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def browser_program(playwright: Any) -> str | None:
    """$CHROMIUM, one on PATH, or Playwright's own; None if there is none."""
    found = [shutil.which(name) for name in (os.environ.get("CHROMIUM", ""), *BROWSERS) if name]
    own = playwright.chromium.executable_path
    return next((path for path in (*found, own) if path and Path(path).exists()), None)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a browser on this machine finds the files of a folder."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Any, str]]:
    """A browser that reaches no other host, and the address at which it finds the files of a folder.

    Raises:
        RuntimeError: there is no browser.
    """
    from playwright.sync_api import sync_playwright

    with served(folder) as base, sync_playwright() as playwright:
        if (program := browser_program(playwright)) is None:
            raise RuntimeError(f"No browser was found: set CHROMIUM, or install one of {', '.join(BROWSERS)}.")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser, base
        finally:
            browser.close()


def draw_all(page: Any) -> None:
    """Scroll past every figure, for they are drawn when they come near, and wait for the formulas; then to the top."""
    for target in page.locator(".book-plotly-target").all():
        target.scroll_into_view_if_needed()
        target.locator("xpath=self::*[@data-ready]").wait_for(timeout=30_000)
    if page.locator(".math").count():
        page.wait_for_function("() => document.querySelector('mjx-container')", timeout=30_000)
        page.evaluate("() => window.MathJax.startup.promise.then(() => null)")
    page.evaluate("scrollTo(0, 0)")


def shoot(browser: Any, base: str, name: str, way: str) -> list[Path]:
    """The pictures of one page in one way, from its top to its end."""
    width, scheme = WAYS[way]
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    page.goto(f"{base}{name}.html", wait_until="load")
    draw_all(page)
    page.add_style_tag(content=".book-controls {position: static !important}")  # else they follow the window's end
    height = page.evaluate("document.documentElement.scrollHeight")
    paths = []
    for number, top in enumerate(range(0, height, TALLEST)):
        path = SHOTS / f"{name.replace('/', '_')}-{way}-{number}.png"
        clip = {"x": 0, "y": top, "width": width, "height": min(TALLEST, height - top)}
        page.screenshot(path=path, full_page=True, clip=clip)
        paths.append(path)
    page.close()
    return paths


def sheet(shots: dict[str, dict[str, list[Path]]]) -> str:
    """One HTML page of all pictures, the three ways of each page side by side."""
    rows = []
    for name, ways in shots.items():
        cells = "".join(
            "<td>" + "".join(f'<a href="{p.name}"><img loading="lazy" src="{p.name}" alt="{way}"></a>' for p in paths)
            for way, paths in ways.items()
        )
        rows.append(f"<tr><th colspan={len(ways)}>{escape(name)}<tr>{cells}")
    style = "img{width:100%;border:1px solid #888} td{vertical-align:top;width:33%} th{text-align:left;padding-top:2em}"
    return f"<!doctype html><meta charset=utf-8><title>All pages</title><style>{style}</style><table>{''.join(rows)}"


def main(words: list[str]) -> int:
    """Take the pictures; 1 if there is no built book or no such page."""
    names = [name for name in toc_files() if not words or any(word in name for word in words)]
    if missing := [name for name in names if not (HTML / f"{name}.html").is_file()] or not names:
        print(f"Not built: {missing if names else words}. Run `make html` first.", file=sys.stderr)
        return 1
    shutil.rmtree(SHOTS, ignore_errors=True)
    SHOTS.mkdir(parents=True)
    with opened(HTML) as (browser, base):
        rows = [pages.measured(browser, base, name, HTML) for name in names]
        shots = {name: {way: shoot(browser, base, name, way) for way in WAYS} for name in names}
    pages.write(rows, SHOTS / "pages.json")
    print(pages.table(rows))
    (SHOTS / "index.html").write_text(sheet(shots), encoding="utf-8")
    print(f"{sum(len(paths) for ways in shots.values() for paths in ways.values())} pictures: {SHOTS / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
