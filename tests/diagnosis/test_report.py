"""The report of a diagnosis: opened in a browser without a network, wide, narrow, in the dark, on paper."""

import base64
import gzip
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from torch import nn

import resalign_utils as ra
from resalign_utils.diagnosis import RULES, _report, _report_figures
from resalign_utils.plotting import packed_plotly

EVIL = '<script>document.title="taken"</script><img src=x onerror="document.title=1"></script>&amp;%{x}'
LARGEST = 3_000_000
WIDER = """() => [...document.querySelectorAll('body *')].filter(e => !e.closest('.table, svg'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))"""
INKS = "() => [...document.querySelectorAll('.plot .xtick text')].map(e => getComputedStyle(e).fill)"


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return x + torch.tanh(self.layer(x))


class Foreign(nn.Module):
    """Blocks in modules of an odd name, a concatenation, and a head."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleDict({f"{EVIL.replace('.', '·')}{place}": Inner() for place in range(3)})
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        y = x
        for block in self.blocks.values():
            y = block(y)
        return self.head(torch.cat([x, y], 1))


class Widening(nn.Module):
    """Blocks that map between different shapes, and an output that is no logits."""

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(nn.Linear(4 + i, 5 + i) for i in range(3))
        self.shortcuts = nn.ModuleList(nn.Linear(4 + i, 5 + i, bias=False) for i in range(3))

    def forward(self, x):
        for step, shortcut in zip(self.steps, self.shortcuts, strict=True):
            x = shortcut(x) + torch.tanh(step(x))
        return x.reshape(-1, 1, 7, 1)


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    model = Foreign().eval()
    kind = type(f"Foreign{EVIL}", (Foreign,), {})
    model.__class__ = kind
    recipe = ra.TrainingRecipe(0.1, 1e-3, 1000)
    labels = torch.arange(12) % 3
    return ra.diagnose(model, torch.randn(12, 8), labels=labels, budget="30s", recipe=recipe, progress=False)


@pytest.fixture(scope="module")
def unknown():
    """One input, no labels, no twin, no logits, no pair of blocks, no law of paths: nearly every number is NaN."""
    torch.manual_seed(0)
    return ra.diagnose(Widening().eval(), {"x": torch.randn(1, 4)}, null=None, budget="20s", progress=False)


@pytest.fixture(scope="module")
def report(found, tmp_path_factory):
    return found.to_html(tmp_path_factory.mktemp("report") / "inner" / "report.html")


@pytest.fixture
def opened(browser):
    """`opened(file, width, scheme)` opens a report; at the end it has asked for nothing and raised nothing."""
    pages, wrong = [], []

    def opened(file, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        pages.append(page)
        address = file.as_uri()
        page.on("request", lambda request: wrong.append(request.url[:200]) if request.url != address else None)
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.goto(address, wait_until="load")
        page.wait_for_function("() => document.documentElement.dataset.drawn", timeout=60_000)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not wrong, wrong


def drawn(page):
    """Of each figure, how many marks it has."""
    return page.evaluate("""() => [...document.querySelectorAll('.plot')].map(
        plot => plot.querySelectorAll('.point path, .points path, .heatmaplayer image, .js-line').length)""")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_report_opens_without_a_network(found, report, opened, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = opened(report, width, scheme)
    marks = drawn(page)
    assert len(marks) == sum(bool(one.json) for one in _report_figures.drawings(found)) == 8
    assert all(marks), marks
    assert not page.evaluate(WIDER)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    violations = Axe().run(page, options={"preload": False}).response["violations"]
    assert not violations, [(one["id"], one["nodes"][0]["html"][:200]) for one in violations]
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert {min(map(int, ink[4:-1].split(","))) > 128 for ink in page.evaluate(INKS)} == {dark}


def test_it_is_small_and_holds_its_own_plotly(report):
    assert report.stat().st_size < LARGEST
    assert gzip.decompress(base64.b64decode(packed_plotly()))[:300].count(b"plotly.js v") == 1
    assert packed_plotly() in report.read_text(encoding="utf-8")


def test_foreign_words_are_words(found, report, opened):
    page = opened(report)
    assert page.title() == f"Diagnosis of {found.model}"
    assert EVIL in page.title()
    assert page.locator("img").count() == 0
    scripts = page.evaluate("() => [...document.scripts].map(s => s.textContent)")
    assert not any(text.startswith("document.title") for text in scripts)
    assert page.locator("#blocks td", has_text=found.blocks.names[0]).count() == 1
    assert "<script" not in found._repr_html_()


def test_verdicts_come_first_with_their_numbers_and_rules(found, report, opened):
    page = opened(report)
    assert page.locator("section h2").first.text_content() == "Verdicts"
    cards = page.locator("article")
    assert cards.count() == len(found.verdicts) > 4
    for place, verdict in enumerate(found.verdicts):
        text = cards.nth(place).text_content()
        assert verdict.text in text
        assert verdict.rule in text
        assert verdict.chapter in text
        assert ("95 % interval" in text) == (not math.isnan(verdict.low))
        assert ("Untrained twin" in text) == (not math.isnan(verdict.null))
    rules = page.locator("#rules tbody tr")
    assert rules.count() == len(RULES)
    assert page.locator("#what-is-no-block tbody tr").count() == len(found.blocks.others) > 0
    for note in found.notes:
        assert page.locator("#notes li", has_text=note).count() == 1
    said = page.locator("#settings").text_content()
    assert all(word in said for word in ("seconds: triplets", torch.__version__, "resalign utils"))


def test_data_that_is_saved_from_the_page_is_the_diagnosis(found, report, opened, tmp_path):
    page = opened(report)
    read = {}
    for name in ("diagnosis.json", "blocks.csv"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        assert download.value.suggested_filename == name
        download.value.save_as(tmp_path / name)
        read[name] = (tmp_path / name).read_text(encoding="utf-8")
    assert json.loads(read["diagnosis.json"]) == found.to_dict()
    table = pd.read_csv(
        io.StringIO(read["blocks.csv"]),
        index_col=0,
        dtype={"outer": str},
        keep_default_na=False,
        na_values={name: [""] for name in found.to_frame().columns if name != "outer"},
    )
    pd.testing.assert_frame_equal(table, found.to_frame(), check_dtype=False, check_index_type=False)


def test_paper_is_light_and_has_all_figures(found, report, opened):
    page = opened(report, scheme="dark")
    assert len(page.pdf()) > 50_000
    page.emulate_media(media="print")
    light = f"() => ({INKS})().every(ink => ink === 'rgb(34, 34, 34)')"
    page.wait_for_function(light, timeout=30_000)
    assert all(drawn(page))
    assert page.evaluate("() => [...document.querySelectorAll('.plot svg')].every(s => s.clientWidth <= 640)")
    page.emulate_media(media="screen", color_scheme="dark")
    page.wait_for_function(f"() => !({light})()", timeout=30_000)


def test_all_can_be_reached_by_keys(report, opened):
    page = opened(report, 390)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("() => document.activeElement.textContent"))
    links = page.locator("a").all_text_contents() + page.locator(".table").all_text_contents()
    assert set(links) <= set(reached)


def test_almost_nothing_known_is_a_report_too(unknown, opened, tmp_path):
    drawings = _report_figures.drawings(unknown)
    assert any(not one.json for one in drawings)
    page = opened(unknown.to_html(tmp_path / "unknown.html"), 390)
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert len(drawn(page)) == sum(bool(one.json) for one in drawings)
    assert all(drawn(page))
    for one in drawings:
        assert page.locator("#figures", has_text=one.caption).count() == 1
    text = page.locator("body").text_content()
    assert "nan" not in text.lower().split()
    assert "1 input is too few to judge" in text


def test_without_a_measured_input_figures_give_way_to_sentences(found):
    bare = replace(found, measured=replace(found.measured, alignment=None), null=None, path_lengths=None)
    said = {one.title: one for one in _report_figures.drawings(bare)}
    assert said["Alignment of blocks"].caption == "No singular triplets were measured: the budget allowed no input."
    assert not said["Top singular values over depth"].json
    assert said["How far each block moves the state"].json


def test_more_blocks_than_a_figure_shows_are_said(found, monkeypatch):
    monkeypatch.setattr(_report_figures, "MOST_BLOCKS", 2)
    captions = [one.caption for one in _report_figures.drawings(found) if not one.json]
    assert "3 blocks are more than the 2 that a figure shows: Diagnosis.save writes the numbers." in captions


def test_unknown_numbers_are_dashes(unknown):
    worth = replace(unknown.worth, divergence=torch.tensor([0.5, math.nan, math.nan]))
    page = replace(unknown, worth=worth)._repr_html_()
    assert page.count('<td class="number">–</td>') == 2
    assert "nan" not in page


def test_every_number_has_a_name(found):
    assert set(_report.VALUES) == set(RULES)
    assert set(_report.COLUMNS) == set(found.to_frame().reset_index().columns)


def test_a_folder_is_no_file(found, tmp_path):
    with pytest.raises(
        IsADirectoryError, match=r"Expected the path of a file; got the folder .*Add a name: report.html"
    ):
        found.to_html(tmp_path)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_notebook_shows_verdicts_and_blocks(found, unknown):
    for one in (found, unknown):
        tags = _Tags()
        tags.feed(one._repr_html_())
        assert not tags.open
        assert tags.seen.count("li") == len(one.verdicts)
        assert tags.seen.count("tr") == len(one.blocks) + 1
        assert not {"script", "style", "img"} & set(tags.seen)
