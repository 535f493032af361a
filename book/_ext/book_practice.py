"""Local Sphinx extension: the pages for practice, in two languages.

* ``{recorded}`name` `` is a number of practice_numbers.py, so that no page types one.
* ``{opinion}`word` `` marks an advice that no number of the book supports.
* ``{decay-time}`` is the calculator of the decay time, a form that needs no server; ``{decay-table}`` what was seen.
* Pages that exist in both languages link to each other, and those in Japanese say so to browsers and screen readers.
* On pages in Japanese the theme's own words are Japanese too, and short links such as 第13章 do not break.
"""

from __future__ import annotations

import json
import math
import re
from html import escape
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from practice_numbers import decay_table, fitted_networks, numbers
from practice_words import PERMALINK, THEME, WORDS
from sphinx.util.docutils import SphinxDirective, SphinxRole

HERE = Path(__file__).resolve().parent
JAPANESE = "book/ja/"
PAIRS = {  # English page: Japanese page
    "book/intro": f"{JAPANESE}index",
    "book/guide": f"{JAPANESE}guide",
    "book/checklist": f"{JAPANESE}checklist",
    "book/glossary": f"{JAPANESE}glossary",
}
MARK = "book-decay-time"
SHORT_LINK = 8  # characters: no line breaks within
SHEETS = ("book/guide", "book/checklist", f"{JAPANESE}guide", f"{JAPANESE}checklist")  # made to be printed


def language(docname: str) -> str:
    """In which language a page is written."""
    return "ja" if docname.startswith(JAPANESE) else "en"


def in_words_of(code: str, value: str) -> str:
    """A number as a language writes it: in Japanese a range has the dash of that language."""
    return re.sub(r"(?<=\d)–(?=\d)", "～", value) if code == "ja" else value


def theme_word(text: str, **values: Any) -> str:
    """What the theme says, in Japanese; as it is where practice_words.py has no word for it."""
    word = THEME.get(text, text)
    return word % values if values else word


class Kept:
    """Numbers and table of a source folder, read once."""

    values: ClassVar[dict[str, dict[str, str]]] = {}
    tables: ClassVar[dict[str, list[dict[str, Any]]]] = {}

    @classmethod
    def numbers(cls, root: str) -> dict[str, str]:
        """By name."""
        if root not in cls.values:
            cls.values[root] = numbers(Path(root))
        return cls.values[root]

    @classmethod
    def table(cls, root: str) -> list[dict[str, Any]]:
        """Of alignment by decay time."""
        if root not in cls.tables:
            cls.tables[root] = decay_table(fitted_networks(Path(root)))
        return cls.tables[root]


class Recorded(SphinxRole):
    """A number of the recorded results."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Its text, or an error that names the ones there are."""
        values = Kept.numbers(str(self.env.srcdir))
        if self.text not in values:
            message = f"No recorded number is called {self.text!r}; expected one of {', '.join(sorted(values))}."
            return [], [self.inliner.reporter.error(message, line=self.lineno)]
        text = in_words_of(language(self.env.docname), values[self.text])
        return [nodes.inline("", text, classes=["book-recorded"])], []


class Opinion(SphinxRole):
    """The mark of an advice that no number supports."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """A word in a small frame."""
        return [nodes.inline("", self.text, classes=["book-opinion"])], []


class DecayTable(SphinxDirective):
    """Alignment of the recorded networks by decay time; the calculator marks the row of its result."""

    def run(self) -> list[nodes.Node]:
        """A table in HTML, whose rows carry their limits."""
        words = WORDS[language(self.env.docname)]
        head = "".join(f'<th class="head">{words[key]}</th>' for key in ("S", "with norm", "without norm"))
        rows = "".join(_row(row, words) for row in Kept.table(str(self.env.srcdir)))
        html = (
            f'<div class="pst-scrollable-table-container"><table class="table book-decay-table">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
        return [nodes.raw(text=html, format="html")]


def _row(row: dict[str, Any], words: dict[str, str]) -> str:
    low, high = row["low"], row["high"]
    name = words["from"].format(low) if math.isinf(high) else words["range"].format(low, high)
    cells = "".join(f"<td>{_seen(row[key], words)}</td>" for key in ("norm", "plain"))
    limit = "" if math.isinf(high) else f"{high:g}"
    return f'<tr data-low="{low:g}" data-high="{limit}"><td>{name}</td>{cells}</tr>'


def _seen(found: tuple[float, float, int] | None, words: dict[str, str]) -> str:
    if found is None:
        return words["none"]
    low, high = (f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−") for value in found[:2])
    return words["seen"].format(low=low, high=high, count=found[2])


class DecayTime(SphinxDirective):
    """The form; decay-time.js fills its result in."""

    option_spec: ClassVar = {"name": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """The form in the language of its page."""
        words = WORDS[language(self.env.docname)]
        choices = {
            name: "".join(f'<option value="{value}">{escape(words[value])}</option>' for value in values)
            for name, values in (("optimiser", ("sgd", "adamw")), ("schedule", ("cosine", "linear", "constant")))
        }
        fields = [_select(name, words[name], options) for name, options in choices.items()]
        fields += [_number(name, words[name], value) for name, value in NUMBERS.items()]
        said = escape(json.dumps({key: words[key] for key in ("result", "wrong")}, ensure_ascii=False))
        html = (
            f'<form class="{MARK}" data-words="{said}" aria-label="{escape(words["title"])}">'
            f"<fieldset><legend>{words['title']}</legend>{''.join(fields)}</fieldset>"
            f'<output aria-live="polite">{words["script"]}</output></form>'
        )
        return [nodes.raw(text=html, format="html")]


NUMBERS = {"learning_rate": "0.4", "weight_decay": "0.01", "momentum": "0", "steps": "2400"}


def _select(name: str, label: str, options: str) -> str:
    return f'<label><span>{escape(label)}</span><select name="{name}">{options}</select></label>'


def _number(name: str, label: str, value: str) -> str:
    kind = 'type="number" step="any" min="0" required inputmode="decimal" autocomplete="off"'
    return f'<label><span>{escape(label)}</span><input name="{name}" value="{value}" {kind}></label>'


def _config_inited(app: Any, config: Any) -> None:
    config.html_static_path.append(str(HERE / "practice"))


def _doctree_read(app: Any, doctree: nodes.document) -> None:
    """Boxes before what is to be ticked; tables whose words do not break within."""
    if language(app.env.docname) == "ja" or app.env.docname in SHEETS:
        for table in doctree.findall(nodes.table):
            table["classes"].append("book-words")
    if app.env.docname.endswith("/checklist"):
        for items in doctree.findall(nodes.bullet_list):
            items["classes"].append("book-checklist")


def _doctree_resolved(app: Any, doctree: nodes.document, docname: str) -> None:
    """Short links that do not break; only now, as a resolved link has new words within."""
    if language(docname) == "ja":
        for link in doctree.findall(nodes.reference):
            if len(link.astext()) <= SHORT_LINK:
                link["classes"].append("book-short")


def _page_context(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    both = PAIRS | {japanese: english for english, japanese in PAIRS.items()}
    here = language(pagename)
    if here != "en":
        context["language"] = here
    if other := both.get(pagename):
        there = language(other)
        link = f'<a href="{context["pathto"](other)}" lang="{there}" hreflang="{there}">{WORDS[there]["name"]}</a>'
        context["body"] = f'<p class="book-language">{link}</p>{context["body"]}'
    body = context.get("body", "")
    if f'class="{MARK}"' in body:
        app.add_js_file("decay-time.js", loading_method="defer")
    if pagename in SHEETS:
        app.add_css_file("sheet.css")


def _japanese_theme(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Templates take their words from these two functions; the theme sets its own before."""
    if language(pagename) == "ja":
        context["translate"] = context["_"] = theme_word
        context["body"] = context.get("body", "").replace(*PERMALINK)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx calls this."""
    app.add_role("recorded", Recorded())
    app.add_role("opinion", Opinion())
    app.add_directive("decay-time", DecayTime)
    app.add_directive("decay-table", DecayTable)
    app.connect("config-inited", _config_inited)
    app.connect("doctree-read", _doctree_read)
    app.connect("doctree-resolved", _doctree_resolved)
    app.connect("html-page-context", _page_context)
    app.connect("html-page-context", _japanese_theme, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
