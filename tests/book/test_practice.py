"""The pages for practice: numbers from the records, the same in both languages; the calculator; one sheet of paper."""

import re
import sys
import unicodedata
from io import BytesIO
from itertools import pairwise

import pytest
from pypdf import PdfReader

import resalign_utils as ra
from tools.notebook_rules import ROOT
from tools.pdf import CLIPPED

sys.path.append(str(ROOT / "book" / "_ext"))
import book_practice
import practice_numbers
from practice_words import WORDS

RECORDED = re.compile(r"\{recorded\}`([^`]+)`")
BOTH = [(english, japanese) for english, japanese in book_practice.PAIRS.items() if english in book_practice.SHEETS]
COUNTED = {"0": "zero", "2": "two", "3": "three", "5": "five", "80": "eighty"}
RECIPES = [
    ("sgd", ra.TrainingRecipe(0.4, 0.01, 2400, "cosine"), 4.8),
    ("sgd", ra.TrainingRecipe(0.05, 5e-4, 1000, "constant", momentum=0.9), 0.25),
    ("sgd", ra.TrainingRecipe(0.1, 1e-2, 3000, "linear", momentum=0.5), 3.0),
    ("adamw", ra.TrainingRecipe(1e-3, 0.01, 100_000, "cosine"), 0.5),
    ("adamw", ra.TrainingRecipe(3e-4, 0.0, 10, "constant"), 0.0),
]


def page(name):
    return (ROOT / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def values():
    return practice_numbers.numbers(ROOT)


@pytest.mark.parametrize(("english", "japanese"), BOTH)
def test_both_languages_show_the_same_recorded_numbers_as_often(english, japanese, values):
    shown = [sorted(RECORDED.findall(page(name))) for name in (english, japanese)]
    assert shown[0] == shown[1]
    assert set(shown[0]) <= values.keys()
    assert len(shown[0]) >= 3


@pytest.mark.parametrize(("english", "japanese"), BOTH)
def test_a_number_that_is_typed_in_japanese_stands_in_english_too(english, japanese):
    texts = [re.sub(r"\{[^}]*\}`[^`]*`|`[^`]*`|<[^>]*>|\$[^$]*\$", " ", page(name)) for name in (english, japanese)]
    typed = [set(re.findall(r"\d+(?:\.\d+)?", text)) for text in texts]
    missing = {number for number in typed[1] - typed[0] if COUNTED.get(number, number) not in texts[0].lower()}
    assert not missing - {"1"}, "1 stands for words in a sentence to be spoken"


@pytest.mark.parametrize("name", [name for pair in BOTH for name in pair])
def test_no_result_is_typed(name):
    text = re.sub(r"\{[^}]*\}`[^`]*`|`[^`]*`|\$[^$]*\$", " ", page(name))
    assert not re.findall(r"±\s*\d|\d\s*±", text)
    assert {found for found in re.findall(r"\d+\.\d+", text)} <= {"0.01"}, "of AdamW's usual decay"


@pytest.mark.parametrize("name", sorted(book_practice.PAIRS.values()))
def test_japanese_links_name_the_chapter_to_which_they_lead(name):
    for said, number in re.findall(r"\{doc\}`第\s*(\d+)\s*章 <[./]*notebooks/(\d+)_", page(name)):
        assert int(said) == int(number)


def test_the_words_of_both_languages_are_for_the_same_places():
    assert WORDS["en"].keys() == WORDS["ja"].keys()
    for key in WORDS["en"]:
        assert sorted(re.findall(r"\{.*?\}", WORDS["en"][key])) == sorted(re.findall(r"\{.*?\}", WORDS["ja"][key]))


def test_recall_of_rare_classes_is_what_the_rows_say(values):
    rows = ra.recorded("small_and_unbalanced")
    rows = rows[(rows.study == "unbalanced") & (rows.ratio == 50)].sort_values("seed")
    rare = [sum(r.recall[c] for c in r.minority) / len(r.minority) for r in rows.itertuples()]
    with_skips, without = (
        [v for v, s in zip(rare, rows["skip"], strict=True) if bool(s) == on] for on in (True, False)
    )
    assert values["recall-strong-skips"].startswith(f"{sum(with_skips) / 5:.2f} ±")
    gain = [a - b for a, b in zip(with_skips, without, strict=True)]
    assert values["gain-strong"].startswith(f"{100 * sum(gain) / 5:+.0f} ±")


def test_intervals_are_students():
    mean, half = practice_numbers.interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.302653 / 3**0.5, rel=1e-5))
    assert practice_numbers.points([-0.01, -0.03], 1) == "−2.0 ± 12.7"


def test_the_advice_holds_as_long_as_its_numbers_do():
    """What the guide says in words; if a record changes this, the words must change."""
    rows = practice_numbers.results(ROOT, "small_and_unbalanced")
    kinds = [("unbalanced", True), ("unbalanced", False), ("weaker decay", True), ("weaker decay", False)]
    recall = [
        practice_numbers._recall(practice_numbers.where(rows, study=study, ratio=50, skip=skip))
        for study, skip in kinds
    ]
    strong, weak = (practice_numbers.interval(recall[a] - recall[a + 1]) for a in (0, 2))
    both = practice_numbers.interval(recall[0] - recall[3])
    assert strong[0] > strong[1]
    assert abs(weak[0]) < weak[1]
    assert both[0] > both[1]
    assert recall[3].mean() > recall[1].mean(), "the better plain network is the one at weak decay"
    rows = practice_numbers.results(ROOT, "running_cost")
    way = {w: practice_numbers.where(rows, family="digits", way=w, target=2.0) for w in ("layer", "channel", "direct")}
    assert max(r["folded_flops"] for r in way["layer"]) < min(r["folded_flops"] for r in way["channel"]) / 3
    assert {r["folded_flops"] for r in way["layer"]} == {r["folded_flops"] for r in way["direct"]}
    accuracy = {w: [r["accuracy"] for r in several] for w, several in way.items()}
    mean, half = practice_numbers.interval([d - f for d, f in zip(accuracy["direct"], accuracy["layer"], strict=True)])
    assert mean > -half, "the folded network is not shown to be better than a small one that was trained directly"
    images = [r for r in rows if r["family"] == "convolutional"]
    assert {r["flops"] for r in images} == {r["folded_flops"] for r in images}
    assert len(images) > 10


def test_ranges_of_the_decay_time_hold_all_networks_and_end_where_none_is():
    networks = practice_numbers.fitted_networks(ROOT)
    table = practice_numbers.decay_table(networks)
    assert sum(row[key][2] for row in table for key in ("norm", "plain") if row[key]) == len(networks) > 100
    assert not [n for n in networks for edge in practice_numbers.EDGES[1:-1] if abs(n["S"] / edge - 1) < 0.05]
    assert [row["low"] for row in table[1:]] == [row["high"] for row in table[:-1]]
    assert all(a < b for a, b in pairwise(practice_numbers.EDGES))


def test_two_parts_must_not_give_one_name(monkeypatch):
    monkeypatch.setattr(practice_numbers, "PARTS", (lambda root: {"a": "1"}, lambda root: {"a": "2", "b": "3"}))
    with pytest.raises(ValueError, match="Two parts give a"):
        practice_numbers.numbers(ROOT)


@pytest.mark.parametrize("name", ["book/guide", "book/ja/guide"])
def test_the_calculator_says_what_python_says(visit, name):
    seen = visit(f"{name}.html")
    form = seen.locator("form.book-decay-time")
    for optimiser, recipe, expected in RECIPES:
        form.locator("[name=optimiser]").select_option(optimiser)
        form.locator("[name=schedule]").select_option(recipe.schedule)
        for field in ("learning_rate", "weight_decay", "steps"):
            form.locator(f"[name={field}]").fill(repr(getattr(recipe, field)))
        momentum = form.locator("[name=momentum]")
        assert momentum.is_disabled() == (optimiser == "adamw")
        if optimiser == "sgd":
            momentum.fill(repr(recipe.momentum))
        assert float(form.locator("output").get_attribute("data-value")) == pytest.approx(recipe.decay_time, rel=1e-12)
        assert recipe.decay_time == pytest.approx(expected)
        here = seen.locator(".book-decay-table tr[aria-current=true]")
        assert here.count() == 1
        low, high = (float(here.get_attribute(key) or "inf") for key in ("data-low", "data-high"))
        assert low <= expected < high
    assert "S = 0.00" in form.locator("output").text_content()


@pytest.mark.parametrize("value", ["", "-1", "1"])
def test_the_calculator_refuses_what_makes_no_sense(visit, value):
    seen = visit("book/guide.html")
    seen.locator("form.book-decay-time [name=momentum]").fill(value)
    output = seen.locator("form.book-decay-time output")
    assert output.text_content() == WORDS["en"]["wrong"]
    assert output.get_attribute("data-value") == "NaN"
    assert not seen.locator(".book-decay-table tr.book-here").count()


def test_the_calculator_is_worked_by_keys(visit):
    seen = visit("book/guide.html", width=390)
    seen.locator("form.book-decay-time select").first.focus()
    reached = []
    for _ in range(6):
        reached.append(seen.evaluate("document.activeElement.name"))
        seen.keyboard.press("Tab")
    assert reached == ["optimiser", "schedule", "learning_rate", "weight_decay", "momentum", "steps"]
    seen.locator("form.book-decay-time [name=steps]").focus()
    seen.keyboard.press("Control+A")
    seen.keyboard.type("1200")
    assert "S = 2.40" in seen.locator("form.book-decay-time output").text_content()


def plain(text):
    """Without spaces, and with the usual sign where a font's table gives the radical of the same look."""
    return "".join(unicodedata.normalize("NFKC", text).split())


@pytest.mark.parametrize(("name", "most"), [("checklist", 1), ("ja/checklist", 1), ("guide", 2), ("ja/guide", 2)])
def test_pages_to_be_printed_keep_to_their_sheets_and_are_whole(visit, name, most):
    seen = visit(f"book/{name}.html", width=687)  # of the sheet between its margins
    seen.emulate_media(media="print")
    assert seen.locator(".bd-article h1").is_visible()
    assert not seen.locator(".bd-sidebar-primary, .book-language, .prev-next-footer").filter(visible=True).count()
    assert seen.evaluate(CLIPPED) == []
    assert seen.evaluate("document.documentElement.scrollWidth") <= 687
    here = seen.locator(".book-decay-table tr.book-here td")  # the answer to a form that is not printed
    assert {*here.evaluate_all("cells => cells.map((cell) => getComputedStyle(cell).boxShadow)")} <= {"none"}
    last = plain(seen.locator(".bd-article :is(p, li)").all_text_contents()[-1])
    sheets = PdfReader(BytesIO(seen.pdf(prefer_css_page_size=True))).pages
    assert len(sheets) <= most
    assert {tuple(map(round, sheet.mediabox[2:])) for sheet in sheets} <= {(595, 842), (594, 841)}, "A4"
    assert last[-20:] in plain(sheets[-1].extract_text()), "the end is cut"


@pytest.mark.parametrize(("english", "japanese"), book_practice.PAIRS.items())
def test_each_page_leads_to_the_other_language(visit, english, japanese):
    seen = visit(f"{english}.html")
    assert seen.locator("html").get_attribute("lang") == "en"
    link = seen.locator(".book-language a")
    assert link.get_attribute("lang") == "ja"
    link.click()
    assert seen.url.endswith(f"{japanese}.html")
    assert seen.locator("html").get_attribute("lang") == "ja"
    assert "Noto Sans CJK JP" in seen.locator(".bd-article").evaluate("e => getComputedStyle(e).fontFamily")
    seen.locator(".book-language a").click()
    assert seen.url.endswith(f"{english}.html")


@pytest.mark.parametrize("name", sorted(book_practice.PAIRS.values()))
def test_the_theme_speaks_the_language_of_its_page(visit, name):
    seen = visit(f"{name}.html")
    around = seen.locator("#pst-skip-link, #pst-back-to-top, .page-toc, .prev-next-subtitle, #jb-print-toc h2")
    said = " ".join(around.all_text_contents())
    assert "次へ" in said
    assert "前へ" in said
    assert not re.search(r"[A-Za-z]", re.sub(r"RA\d|[(（].*?[)）]", "", said)), said
    titles = seen.locator(".bd-article .headerlink").evaluate_all("links => links.map((link) => link.title)")
    assert set(titles) == {"この見出しへのリンク"}


def test_japanese_words_of_a_wide_table_and_its_links_do_not_break(visit):
    seen = visit("book/ja/guide.html", width=390)
    assert set(seen.locator(".book-more").all_text_contents()) == {"スクロール →"}
    assert set(visit("book/guide.html", width=390).locator(".book-more").all_text_contents()) == {"scroll →"}
    links = visit("book/ja/guide.html", width=390).locator(".bd-article a.book-short")
    assert links.count() > 10
    assert set(links.evaluate_all("all => all.map((link) => link.getClientRects().length)")) == {1}


def test_a_range_has_the_dash_of_its_language():
    assert book_practice.in_words_of("en", "60–68") == "60–68"
    assert book_practice.in_words_of("ja", "60–68") == "60～68"
    assert book_practice.in_words_of("ja", "–") == "–"


def test_each_box_of_the_checklist_is_one_of_both_languages(visit):
    counts = [
        visit(f"book/{name}.html").locator("ul.book-checklist > li").count() for name in ("checklist", "ja/checklist")
    ]
    assert counts[0] == counts[1] >= 15
