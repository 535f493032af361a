"""Every page of the built book, opened in headless Chromium with no network (first `make html` or `make book`)."""

import gzip
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browsing import COLLISIONS, PALE, SIDE_BY_SIDE, arrows_and_clicks_choose, fits, range_moves, wait_until

from tools import pages, pdf
from tools.notebook_rules import ROOT, toc_files
from tools.shots import HTML

PAGES = [f"{name}.html" for name in toc_files()]
# Where a mouse finds data: points, bars and cells of each trace, from its middle outwards, then a grid over the figure.
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
    const real = v => v !== null && v !== undefined && Number.isFinite(+v);  // there may be gaps
    const some = list => [0.5, 0.25, 0.75, 0].map(share => list[Math.floor(share * list.length)]).filter(Boolean);
    const found = gd.calcdata.map(points => {
        const [{trace: t}] = points;
        if (t.visible !== true || t.hoverinfo === 'skip') return [];
        if (t.type === 'scatter3d')
            return some([...t.x.keys()].filter(n => real(t.x[n])).map(n => [n])).map(([n]) => inScene(t, n));
        const x = layout[(t.xaxis || '').replace('x', 'xaxis')], y = layout[(t.yaxis || '').replace('y', 'yaxis')];
        if (!x || !y) return [];
        let places = points.map(p => [p.x, p.y]);
        if (t.type === 'bar') places = points.filter(p => p.s).sort((p, q) => q.s - p.s).map(p => [p.p, p.b + p.s / 2]);
        if (t.type === 'heatmap') places = t.z.flatMap((row, i) => [...row].map((z, j) =>
            real(z) ? [x.d2c(t.x?.[j] ?? j), y.d2c(t.y?.[i] ?? i)] : [null, null]));
        return some(places.filter(place => place.every(real)))
            .map(([a, b]) => [box.x + x._offset + x.c2p(a), box.y + y._offset + y.c2p(b)]);
    });
    for (let n = 0; n < 4; n++) at.push(...found.flatMap(places => places.slice(n, n + 1)));
    for (let k = 0; k < 400; k++)
        at.push([box.x + box.width * ((k * 0.618) % 1), box.y + box.height * (k + 0.5) / 400]);
    return at.filter(point => point.every(Number.isFinite));
}"""


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("name", PAGES)
def test_page_is_small_and_has_no_raw_table(name):
    """A page beside the plotly.js that all pages share."""
    html = (HTML / name).read_bytes()
    assert len(gzip.compress(html)) < pages.LIMITS["own_bytes"]
    assert html.count(b"book-plotly-data") == html.count(b"<noscript><p>This figure"), "a figure silent without scripts"
    prose = re.sub(r"<(pre|script)\b.*?</\1>", "", html.decode(), flags=re.S)
    assert not re.search(r"\|\s*:?(-{3,}|—+):?\s*\|", prose)  # Sphinx makes a long dash of three short ones


@pytest.mark.parametrize("name", PAGES)
def test_page_is_sound(visit, name):
    page = visit(name)
    drawn = page.evaluate("""() => [...document.querySelectorAll('.book-plotly-target')]
        .map(g => [g._fullData?.length || 0, g.clientWidth, g.clientHeight])""")
    assert all(traces and width > 100 and height > 100 for traces, width, height in drawn), drawn
    assert_formulas_are_set(page)
    assert fits(page), "the page scrolls sideways"
    assert not page.evaluate(COLLISIONS), "words of a figure on other words, or outside of it"
    assert_accessible(page)
    assert_hints(page)
    assert_figures_react(page)
    assert_figures_keep_their_height(page)
    assert_dark(page)


def assert_formulas_are_set(page):
    unset = page.evaluate("""() => [...document.querySelectorAll('.bd-article .math')]
        .filter(m => !m.querySelector('mjx-container')).map(m => m.textContent)""")
    assert not unset, "formulas that were not set"
    assert not page.locator('[data-mjx-error], mjx-container [fill="red"]').count(), "a formula with an error"


def assert_accessible(page, rules=None):
    # An output image without an alt text of its own gets its file name, which axe takes for one.
    unsaid = page.evaluate("""() => [...document.querySelectorAll('.bd-article img')]
        .filter(i => !i.alt || /\\.(png|svg|jpe?g)$/.test(i.alt)).map(i => i.src)""")
    assert not unsaid, "pictures without an alt text"
    assert not pages.violations(page, rules)


def assert_hints(page):
    """Words above whatever scrolls in itself, and above nothing else."""
    wrong = page.evaluate("""() => {
        const scrolls = e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible';
        const inside = e => [e, ...(e.matches('.math') ? e.querySelectorAll('mjx-container') : [])];
        const boxes = '.bd-article :is(.pst-scrollable-table-container, .output.text_html, div.math)';
        return [...document.querySelectorAll(boxes)]
            .filter(e => inside(e).some(scrolls) !== Boolean(e.previousElementSibling?.matches('.book-more')))
            .map(e => e.outerHTML.slice(0, 100));
    }""")
    hidden = page.evaluate("""() => [...document.querySelectorAll('.bd-article div.math svg')].filter(e =>
        e.getBoundingClientRect().left < e.closest('.math').getBoundingClientRect().left - 1).length""")
    cut = page.evaluate("""() => [...document.querySelectorAll('.bd-article span.math svg')].filter(e =>
        e.getBoundingClientRect().width > (e.closest('p, li, dd, td, th')?.clientWidth ?? Infinity) + 1).length""")
    assert not cut, f"{cut} formulas are wider than their lines"
    assert not hidden, f"the beginning of {hidden} formulas is out of sight"
    assert not wrong, "these scroll, and nothing says so, or the other way round"


def assert_controls_stay_in_sight(page):
    """Wherever a reader looks at a figure that is higher than a phone; and a short value stands beside the range."""
    for number, figure in enumerate(page.locator(".book-plotly-target").all(), 1):
        bar = figure.locator("xpath=..").locator(".book-controls:has(input)")
        if not bar.count():
            continue
        figure.evaluate("e => scrollTo(0, e.getBoundingClientRect().top + scrollY - 700)")  # its first lines
        box = bar.bounding_box()
        assert box["y"] + box["height"] <= page.viewport_size["height"] + 1, f"figure {number}: controls out of sight"
        places = bar.evaluate("e => [...e.children].map(c => [c.textContent.length, c.getBoundingClientRect().top])")
        tops = [top for _, top in places]
        assert places[-1][0] > 5 or max(tops) - min(tops) < 10, f"figure {number}: the value stands alone on a line"


def assert_figures_react(page):
    for number, figure in enumerate(page.locator(".book-plotly-target").all(), 1):
        figure.scroll_into_view_if_needed()
        assert not figure.evaluate("gd => gd._fullLayout.sliders?.some(s => s.visible)"), "a slider without keys"
        if figure.locator("xpath=..").locator("input[type=range]").count():
            assert range_moves(page, figure), f"figure {number}: its range changes nothing"
        if figure.evaluate("gd => gd._fullLayout.meta?.click_to_frame"):
            assert arrows_and_clicks_choose(page, figure), f"figure {number}: its cells cannot be chosen"
        if figure.evaluate("gd => gd._fullLayout.hovermode && gd._fullData.some(t => t.hoverinfo !== 'skip')"):
            assert hover_label(page, figure), f"figure {number}: no label under the mouse"


def assert_figures_keep_their_height(page):
    """When the window changes, which on a phone its address bar does: Plotly let some of them collapse."""
    heights = "() => [...document.querySelectorAll('.book-plotly-target')].map(e => e.getBoundingClientRect().height)"
    before = page.evaluate(heights)
    page.set_viewport_size({"width": 1200, "height": 900})
    narrower = "e => e._fullLayout.width === e.clientWidth"
    page.wait_for_function(f"() => [...document.querySelectorAll('.book-plotly-target')].every({narrower})")
    assert page.evaluate(heights) == before, "figures that change their height with the window"


def hover_label(page, figure):
    """Move the mouse over the figure until a label shows; whether one did."""
    figure.scroll_into_view_if_needed()
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # of a scene
    for x, y in figure.evaluate(TARGETS):
        page.mouse.move(x, y)
        if wait_until(page, lambda: figure.locator(".hovertext").count() > 0, 150):
            return True
    return False


def assert_dark(page):
    """Figures on the page's own ground with words that can be read; pictures stay light cards."""
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(
        """() => [...document.querySelectorAll('.book-plotly-target')].every(g => g.dataset.ready)"""
    )
    pictures = page.evaluate("""() => [...document.querySelectorAll('.cell_output img')]
        .map(e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).filter])""")
    assert all(ground == ["rgb(255, 255, 255)", "none"] for ground in pictures), pictures
    assert_accessible(page, ["color-contrast"])
    assert not page.evaluate(PALE), "words of a figure that cannot be read in the dark"


@pytest.mark.parametrize("name", toc_files())
def test_page_keeps_its_budget(browser, base, name):
    """As `make shots` measures it; axe has looked at the page already."""
    row = pages.measured(browser, base, name, HTML, axe=False)
    assert not pages.over(row), pages.table([row])


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(visit, name):
    page = visit(name, width=390)
    wide = page.evaluate("""() => [...document.querySelectorAll('.bd-article *')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .filter(e => !e.closest('.highlight pre, .output, .math, .book-plotly'))  // these scroll in themselves
        .slice(0, 5).map(e => e.outerHTML.slice(0, 100))""")
    assert fits(page), f"the page scrolls sideways; too wide may be {wide}"
    assert_hints(page)
    assert_controls_stay_in_sight(page)
    beside, collisions = page.evaluate(SIDE_BY_SIDE), page.evaluate(COLLISIONS)
    assert not beside, "panels beside each other on a phone"
    assert not collisions, "words of a figure on other words, or outside of it"
    assert_prints_whole(page)


def assert_prints_whole(page):
    """In the width of the paper nothing is wider than it: no code, table or formula would be cut (`make pdf`)."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": pdf.WIDTH, "height": 1200})
    page.evaluate("document.querySelectorAll('.bd-article details').forEach(details => { details.open = true; })")
    assert not page.evaluate(pdf.CLIPPED), "on paper this would be cut"
    kinds = page.evaluate("[...document.querySelectorAll('span.math')].map(e => getComputedStyle(e).display)")
    assert "block" not in kinds, "on paper a formula would leave its line"


def test_the_first_page_shows_its_results_on_a_phone(visit):
    page = visit(PAGES[0], width=390)
    heading = page.locator("th", has_text="this book")
    assert 0 < heading.bounding_box()["x"] + heading.bounding_box()["width"] <= 390


def test_the_first_page_begins_with_its_film_and_has_four_doors(visit):
    page = visit(PAGES[0])
    after_title = "() => document.querySelector('.bd-article h1').nextElementSibling.className"
    assert "chapter-figure" in page.evaluate(after_title), "something stands before the figure"
    film = page.locator(".chapter-figure")
    assert film.locator("input[type=range]").count() == film.locator("button", has_text="Play").count() == 1
    doors = page.evaluate("() => [...document.querySelectorAll('.doors .sd-card a')].map(a => a.getAttribute('href'))")
    assert [door.rsplit("/", 1)[-1] for door in doors] == [
        "#ten-minutes",
        "01_residual_networks.html",
        "install.html",
        "guide.html",
    ]


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("notebooks/")])
def test_a_chapter_has_its_card_and_its_citation(name):
    html = (HTML / name).read_text(encoding="utf-8")
    opening = html[html.rindex("<h1>") :]  # an earlier one is printed only
    assert html.count("chapter-card") == 1
    assert opening.index("chapter-card") < opening.index("<h2>")
    assert "Cite this chapter" in html


@pytest.mark.parametrize(
    ("words", "name"),
    [("pip", "book/install"), ("install", "book/install"), ("dead block", "book/glossary"), ("mutants", "book/status")],
)
def test_search_finds(visit, words, name):
    page = visit(f"search.html?q={words}")
    page.locator("#search-results .search-summary", has_text="finished").wait_for()
    found = page.evaluate("() => [...document.querySelectorAll('#search-results li > a')].map(a => a.pathname)")
    assert f"/{name}.html" in found, found


@pytest.mark.usefixtures("base")
def test_terms_lead_to_the_glossary():
    """Wherever a page of text names one; the build refuses a term that there is not."""
    for source in sorted((ROOT / "book").glob("*.md")):
        said = re.findall(r"\{term\}`", source.read_text(encoding="utf-8"))
        html = (HTML / "book" / f"{source.stem}.html") if said else None
        assert html is None or len(re.findall(r'href="[^"]*#term-', html.read_text(encoding="utf-8"))) >= len(said)


def test_numbers_in_tables_stand_to_the_right(visit):
    page = visit("notebooks/16_linearization.html")
    cells = page.evaluate("""() => [...document.querySelectorAll('.cell_output table.table td')].map(e =>
        [e.textContent, getComputedStyle(e).textAlign, getComputedStyle(e).whiteSpace, e.getAttribute('class')])""")
    numbers = [cell for cell in cells if re.fullmatch(r"[\d.]+( ± [\d.]+)?", cell[0].replace("\u00a0", " "))]
    assert len(numbers) > 20
    assert all(cell[1:3] == ["right", "nowrap"] for cell in numbers), numbers
    assert any(cell[1] in ("start", "left") for cell in cells), "words stay left"


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
