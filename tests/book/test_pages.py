"""Every page of the built book, opened in headless Chromium with no network (first `make html` or `make book`)."""

import functools
import http.server
import itertools
import os
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from resalign_utils.plotting import MapCell, alignment_map
from tools.notebook_rules import ROOT, toc_files

HTML = Path(os.environ.get("BOOK_HTML", ROOT / "_build" / "html"))
PAGES = [f"{name}.html" for name in toc_files()]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",  # CI runs as root in a container
    "--no-proxy-server",
    "--disable-background-networking",
    "--enable-unsafe-swiftshader",  # WebGL figures on machines without a graphics card
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
# What the theme and Sphinx themselves get wrong, not the book's own content.
AXE_KNOWN = {"aria-required-children", "aria-deprecated-role", "aria-allowed-role"}
# What a reader sees of a figure's state: its title and all traces, whichever way the data is stored.
STATE = """gd => JSON.stringify([gd._fullLayout.title?.text, gd._fullData.map(t => [t.visible, t.name,
    ...[t.x, t.y, t.z, t.marker?.color, t.marker?.opacity].map(v => v?.length ? Array.from(v) : v)])])"""
# Where a mouse finds data: the middle point of each trace, then a grid over the figure.
TARGETS = """gd => {
    const box = gd.getBoundingClientRect(), at = [], layout = gd._fullLayout;
    const times = (m, v) => [0, 1, 2, 3].map(i => v.reduce((sum, x, j) => sum + m[4 * j + i] * x, 0));
    const inScene = (t, n) => {  // through the camera, as plotly.js does it
        const scene = layout[t.scene]._scene, s = scene.dataScale;
        const {model, view, projection} = scene.glplot.cameraParams;
        const [x, y, , w] = [model, view, projection].reduce((v, m) => times(m, v),
            [t.x[n] * s[0], t.y[n] * s[1], t.z[n] * s[2], 1]), c = scene.container.getBoundingClientRect();
        return [c.x + c.width * (0.5 + 0.5 * x / w), c.y + c.height * (0.5 - 0.5 * y / w)];
    };
    for (const [{trace: t}, points] of gd.calcdata.map(cd => [cd[0], cd])) {
        const p = points[points.length >> 1], n = (t.x?.length || 0) >> 1;
        const x = layout[(t.xaxis || '').replace('x', 'xaxis')], y = layout[(t.yaxis || '').replace('y', 'yaxis')];
        if (t.visible !== true) continue;
        if (t.type === 'scatter3d') at.push(inScene(t, n), inScene(t, 0));
        else if (x && y && p.x !== undefined && p.y !== undefined)
            at.push([box.x + x._offset + x.c2p(p.x), box.y + y._offset + y.c2p(p.y)]);
    }
    for (let k = 0; k < 400; k++)
        at.push([box.x + box.width * ((k * 0.618) % 1), box.y + box.height * (k + 0.5) / 400]);
    return at.filter(point => point.every(Number.isFinite));  // a trace may have gaps
}"""

# Where the points stand that name a frame in their customdata, and in what order the slider has them.
CHOICES = """gd => {
    const box = gd.getBoundingClientRect(), layout = gd._fullLayout, found = [];
    const steps = layout.sliders[0].steps.map(step => step.args[0][0]);
    for (const t of gd._fullData.filter(t => t.type === 'heatmap' && t.customdata)) {
        const x = layout[t.xaxis.replace('x', 'xaxis')], y = layout[t.yaxis.replace('y', 'yaxis')];
        t.customdata.forEach((row, i) => row.forEach((name, j) => { if (steps.includes(name)) found.push({
            name, step: steps.indexOf(name), at: [box.x + x._offset + x.c2p(j), box.y + y._offset + y.c2p(i)]}); }));
    }
    return found;
}"""


def lacking(what):
    """What is needed is not here: in CI a failure, elsewhere a skip that says so."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must test the pages, but {what}")
    pytest.skip(what)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def end_headers(self):
        self.send_header("LinkChecker", "allowed")  # without it linkchecker asks for ten files a second at most
        super().end_headers()


@pytest.fixture(scope="module")
def base():
    """The address under which the built book is served on this machine."""
    if not HTML.is_dir():
        lacking(f"there is no built book in {HTML}: run `make html`")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def browser_program(playwright):
    """$CHROMIUM, one on PATH, or Playwright's own; None if there is none."""
    found = [shutil.which(name) for name in (os.environ.get("CHROMIUM", ""), *BROWSERS) if name]
    own = playwright.chromium.executable_path
    return next((path for path in (*found, own) if path and Path(path).exists()), None)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = browser_program(playwright)
        if program is None:
            lacking(f"no browser was found ($CHROMIUM, {', '.join(BROWSERS)}, or Playwright's): pages not opened")
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def visit(browser, base):
    """`visit(name, width)` opens a page; at the end of the test nothing may have gone wrong in it."""
    pages, wrong = [], []

    def look(request):
        if request.url.startswith(("http", "ws")) and not request.url.startswith(base):
            wrong.append(f"asked another host: {request.url}")

    def visit(name, width=1280, body=None):
        """With a `body`, a page of its own instead of a file of the book."""
        page = browser.new_page(viewport={"width": width, "height": 1000})
        if body is not None:
            page.route(base + name, lambda route: route.fulfill(body=body, content_type="text/html; charset=utf-8"))
        pages.append(page)
        page.on("request", look)
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.goto(base + name, wait_until="load")
        draw_all(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not wrong, wrong


def draw_all(page):
    """Scroll past every figure, for they are drawn when they come near, and wait for the formulas."""
    for box in page.locator(".book-plotly").all():
        box.scroll_into_view_if_needed()
        box.locator(".main-svg").first.wait_for(state="attached", timeout=30_000)
    if page.locator(".math").count():
        page.wait_for_function("() => document.querySelector('mjx-container')", timeout=30_000)
        page.evaluate("() => window.MathJax.startup.promise.then(() => null)")


def fits(page):
    return page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("name", PAGES)
def test_page_is_sound(visit, name):
    page = visit(name)
    drawn = page.evaluate("""() => [...document.querySelectorAll('.book-plotly-target')]
        .map(g => [g._fullData?.length || 0, g.clientWidth, g.clientHeight])""")
    assert all(traces and width > 100 and height > 100 for traces, width, height in drawn), drawn
    assert_formulas_are_set(page)
    assert fits(page), "the page scrolls sideways"
    assert_accessible(page)
    assert_light_cards_in_the_dark(page)


def assert_formulas_are_set(page):
    unset = page.evaluate("""() => [...document.querySelectorAll('.bd-article .math')]
        .filter(m => !m.querySelector('mjx-container')).map(m => m.textContent)""")
    assert not unset, "formulas that were not set"
    assert not page.locator('[data-mjx-error], mjx-container [fill="red"]').count(), "a formula with an error"


def assert_accessible(page):
    from axe_playwright_python.sync_playwright import Axe

    # An output image without an alt text of its own gets its file name, which axe takes for one.
    unsaid = page.evaluate("""() => [...document.querySelectorAll('.bd-article img')]
        .filter(i => !i.alt || /\\.(png|svg|jpe?g)$/.test(i.alt)).map(i => i.src)""")
    assert not unsaid, "pictures without an alt text"
    options = {"runOnly": ["wcag2a", "wcag2aa"], "preload": False}  # its preload asks for style sheets itself
    found = Axe().run(page, context=".bd-article", options=options).response["violations"]
    serious = [v for v in found if v["impact"] in ("critical", "serious") and v["id"] not in AXE_KNOWN]
    assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]


def assert_light_cards_in_the_dark(page):
    grounds = page.evaluate("""() => {
        document.documentElement.dataset.theme = 'dark';
        return [...document.querySelectorAll('.book-plotly-target, .cell_output img')]
            .map(e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).filter]);
    }""")
    assert all(ground == ["rgb(255, 255, 255)", "none"] for ground in grounds), grounds


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(visit, name):
    page = visit(name, width=390)
    wide = page.evaluate("""() => [...document.querySelectorAll('.bd-article *')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .filter(e => !e.closest('.highlight pre, .output, .math, .book-plotly'))  // these scroll in themselves
        .slice(0, 5).map(e => e.outerHTML.slice(0, 100))""")
    assert fits(page), f"the page scrolls sideways; too wide may be {wide}"


@pytest.mark.parametrize("name", [page for page in PAGES if page.startswith("notebooks/")])
def test_figures_react(visit, name):
    page = visit(name)
    for number, figure in enumerate(page.locator(".book-plotly-target").all(), 1):
        figure.scroll_into_view_if_needed()
        if figure.evaluate("gd => gd._fullLayout.sliders?.some(s => s.visible)"):
            assert slider_moves(page, figure), f"figure {number}: the slider changes nothing"
        if figure.evaluate("gd => gd._fullLayout.meta?.click_to_frame"):
            assert click_chooses(page, figure), f"figure {number}: a click changes nothing"
        if figure.evaluate("gd => gd._fullLayout.hovermode && gd._fullData.some(t => t.hoverinfo !== 'skip')"):
            assert hover_label(page, figure), f"figure {number}: no label under the mouse"


def slider_moves(page, figure):
    """Click on the far end of the figure's slider; whether the data or the title is another afterwards."""
    before = figure.evaluate(STATE)
    at_end = figure.evaluate("gd => 2 * gd._fullLayout.sliders[0].active > gd._fullLayout.sliders[0].steps.length")
    rail = figure.locator(".slider-rail-touch-rect").first
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    page.mouse.click(box["x"] + box["width"] * (0.02 if at_end else 0.98), box["y"] + box["height"] / 2)
    return wait_until(page, lambda: figure.evaluate(STATE) != before, 5000)


def click_chooses(page, figure):
    """Click on the first and the last point that name a frame; whether each changed the data and moved the slider."""
    choices = figure.evaluate(CHOICES)
    return all(choose(page, figure, choice["name"]) for choice in (choices[0], choices[-1]))


def choose(page, figure, name):
    """Click on the point that names this frame; whether the data changed and the slider followed."""
    before = figure.evaluate(STATE)
    figure.scroll_into_view_if_needed()
    (choice,) = [choice for choice in figure.evaluate(CHOICES) if choice["name"] == name]
    page.mouse.click(*choice["at"])
    active = "gd => gd._fullLayout.sliders[0].active"
    return wait_until(
        page, lambda: figure.evaluate(STATE) != before and figure.evaluate(active) == choice["step"], 5000
    )


def hover_label(page, figure):
    """Move the mouse over the figure until a label shows; whether one did."""
    figure.scroll_into_view_if_needed()
    page.wait_for_timeout(100)  # a scene's camera is known after its first frame
    for x, y in figure.evaluate(TARGETS):
        page.mouse.move(x, y)
        if wait_until(page, lambda: figure.locator(".hovertext").count() > 0, 150):
            return True
    return False


def wait_until(page, true, milliseconds):
    for _ in range(max(1, milliseconds // 50)):
        if true():
            return True
        page.wait_for_timeout(50)
    return true()


SHOWN = """gd => {
    const list = v => Array.from(v ?? []), named = name => gd._fullData.filter(t => t.name === name);
    return {words: gd._fullLayout.annotations[0].text, stacked: gd._fullLayout.xaxis2.domain[0] === 0,
        frames: named('chosen').map(t => [t.xaxis, list(t.x), list(t.y)]), path: list(named('1')[0].x),
        sigmas: list(named('block 2')[0].y), coupling: gd._fullData.at(-1).z.map(list)};
}"""


def small_map():
    """Two maps of two by two cells, and by name what each cell should show."""
    draw, cells = np.random.default_rng(0), {}
    for switch, blocks, decay in itertools.product(("with skips", "without skips"), (2, 3), (0.0, 0.01)):
        cells[f"{switch}, L = {blocks}, weight decay = {decay:g}"] = MapCell(
            row=blocks,
            column=decay,
            switch=switch,
            scores=[draw.uniform(0, 0.5)],
            train_accuracy=[1.0],
            test_accuracy=[0.9],
            trajectories=draw.standard_normal((2, blocks + 1, 2)),
            singular_values=draw.uniform(0.1, 1, (blocks, 4)),
            coupling=draw.uniform(-1, 1, (blocks, blocks)),
        )
    return cells


def page_of(figure):
    """A page with this figure alone, as the book writes it, with the book's own scripts."""
    payload = figure.to_json().replace("<", "\\u003c")
    return f"""<!doctype html><title>A map</title><meta name="viewport" content="width=device-width">
        <div class="output book-plotly"><div class="book-plotly-target"></div>
        <script type="application/json" class="book-plotly-data">{payload}</script></div>
        <script src="_static/vendor/plotly.min.js"></script><script src="_static/vendor/book-plotly.js"></script>"""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_click_on_a_cell_of_a_map_shows_that_cell(visit, width):
    """On a page of its own, so that it holds whichever chapters are built."""
    cells = small_map()
    body = page_of(alignment_map(list(cells.values()), [0, 1], row_label="L", column_label="weight decay"))
    page = visit("map-of-the-test.html", width, body)
    figure = page.locator(".book-plotly-target")
    for name in (list(cells)[place] for place in (3, 4, 0)):
        assert choose(page, figure, name), f"{name} was not chosen"
        shown, cell = figure.evaluate(SHOWN), cells[name]
        assert shown["words"].startswith(f"<b>{name}</b>")
        assert shown["path"][1:] == pytest.approx(cell.trajectories[1, :, 0].tolist(), rel=1e-5)
        assert shown["sigmas"] == pytest.approx(cell.singular_values[1].tolist(), rel=1e-5)
        assert np.allclose(shown["coupling"], cell.coupling, atol=1e-3)
        outlined = {axis: (min(x), max(y)) for axis, x, y in shown["frames"] if x}
        place = ((0.0, 0.01).index(cell.column) - 0.5, (2, 3).index(cell.row) + 0.5)
        assert outlined == {"x" if cell.switch == "with skips" else "x2": place}
        assert shown["stacked"] == (width == 390)
    assert slider_moves(page, figure)
    assert fits(page), "the map scrolls sideways"


class Links(HTMLParser):
    """A page's anchors, and the addresses to which it points."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = {"", "top"}, set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        self.links |= {attrs[key] for key in ("href", "src") if attrs.get(key)}


def broken_links(folder):
    """Links inside the book that lead to no file, or to no anchor of a page."""
    found = (path for path in folder.rglob("*.html") if "_static" not in path.parts)  # the theme's templates
    pages = {path: Links(path) for path in found}
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {"", parts.fragment}
            if not target.exists() or unquote(parts.fragment) not in anchors:
                yield f"{path.relative_to(folder)} -> {link}"


@pytest.mark.usefixtures("base")
def test_links_and_anchors_lead_somewhere():
    """linkchecker forgets the anchors of pages that it has already seen."""
    assert list(broken_links(HTML.resolve())) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#c"></a><a href="https://x.org"></a><img src="d.png">')
    (tmp_path / "b.html").write_text('<h1 id="C">no small c</h1>')
    assert list(broken_links(tmp_path)) == ["a.html -> b.html#c", "a.html -> d.png"]


def test_linkchecker(base):
    """Over HTTP: as root it gives up its rights, and then could not read the files of a private folder."""
    program = Path(sys.executable).with_name("linkchecker")
    command = [program, "--config", ROOT / "linkchecker.ini", "--no-status", base + PAGES[0]]
    environment = {**os.environ, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
