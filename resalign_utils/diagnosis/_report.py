"""A diagnosis as one HTML file that asks for nothing outside of it.

The page is built as a tree, whose writer escapes every text and attribute: names of models and modules are foreign.
Figures are drawn by the installed Plotly's own plotly.js, which the page carries compressed and unpacks when it opens.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ..formatting import format_number
from ..plotting import packed_plotly
from ._report_figures import Drawing, drawings
from ._rules import RULES

if TYPE_CHECKING:
    from ._diagnosis import Diagnosis, Verdict

Element = ElementTree.Element

COLUMNS = {
    "block": "ℓ",
    "name": "Name",
    "shortcut": "Shortcut",
    "outer": "After the sum",
    "step_share": "Step ÷ state",
    "top_singular_value": "σ₁",
    "top_singular_value_untrained": "σ₁ of the twin",
    "dead": "Dead (share of inputs)",
    "divergence_without_branch": "Change without branch",
    "changed_without_branch": "Decisions changed",
    "accuracy_change_without_branch": "Change of accuracy",
    "divergence_without_skip": "Change without skip",
}
TEXTS = {"name", "shortcut", "outer"}
VALUES = {
    "inputs": "Inputs",
    "straightness": "Line-shape score",
    "alignment": "Alignment",
    "rank": "Share of energy",
    "depth": "R²",
    "dead": "Dead blocks",
    "removable": "Blocks that may be removable",
    "collapse": "NC1",
    "decay time": "S",
}
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def page(found: Diagnosis) -> str:
    """The whole page."""
    title = f"Diagnosis of {found.model}"
    head = _e(
        "head",
        _e("meta", charset="utf-8"),
        _e("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _e("meta", http_equiv="Content-Security-Policy", content=POLICY),
        _e("meta", name="color-scheme", content="light dark"),
        _e("title", title),
        _e("style", _asset("_report.css")),
    )
    sections = {
        "Verdicts": _verdicts(found),
        "Figures": _figures(drawings(found)),
        "Blocks": _blocks(found),
        "What is no block": _others(found),
        "Notes": _notes(found),
        "Settings": _settings(found.settings),
        "Rules": _rules(),
        "Data": _data(found),
    }
    links = [_e("li", _e("a", name, href=f"#{_id(name)}")) for name in sections]
    header = _e("header", _e("h1", title), _facts(found), _e("nav", _e("ul", *links), aria_label="Sections"))
    parts = [_e("section", _e("h2", n), *s, id=_id(n), aria_label=n) for n, s in sections.items()]
    made = f"Made by resalign_utils {found.settings.get('resalign_utils', '')}. Figures: plotly.js (MIT licence)."
    body = _e(
        "body",
        header,
        _e("main", *parts),
        _e("footer", _e("p", made)),
        _e("script", packed_plotly(), type="text/plain", id="plotly"),
        _e("script", _asset("_report.js")),
    )
    return f"<!DOCTYPE html>\n{_written(_e('html', head, body, lang='en'))}\n"


def brief(found: Diagnosis) -> str:
    """Verdicts and the table of blocks, for the output of a notebook's cell."""
    said = _e("ul", *[_e("li", verdict.text) for verdict in found.verdicts])
    table = _e("details", _e("summary", "Table of blocks"), _block_table(found))
    return _written(_e("div", _e("p", _e("strong", _headline(found))), said, table))


def _facts(found: Diagnosis) -> Element:
    facts = [_headline(found)]
    if not math.isnan(found.accuracy):
        facts.append(f"Accuracy at these inputs: {format_number(found.accuracy)}.")
    if not math.isnan(found.decay_time):
        facts.append(f"Decay time of the training: S = {format_number(found.decay_time)}.")
    if found.blocks.note:
        facts.append(found.blocks.note)
    return _e("p", " ".join(facts))


def _headline(found: Diagnosis) -> str:
    inputs = f"{found.inputs} input{'s' * (found.inputs != 1)}"
    return f"{found.model}: {len(found.blocks)} residual block{'s' * (len(found.blocks) != 1)}, {inputs}."


def _verdicts(found: Diagnosis) -> list[Element]:
    null = [_e("p", found.null_note, class_="quiet")] if found.null_note else []
    return [_e("div", *[_verdict(verdict) for verdict in found.verdicts], class_="verdicts"), *null]


def _verdict(verdict: Verdict) -> Element:
    numbers = [(VALUES[verdict.subject], format_number(verdict.value))] * (not math.isnan(verdict.value))
    if not math.isnan(verdict.low):
        numbers.append(("95 % interval over inputs", f"{format_number(verdict.low)} to {format_number(verdict.high)}"))
    if not math.isnan(verdict.null):
        numbers.append(("Untrained twin", format_number(verdict.null)))
    pairs = [_e("div", _e("dt", name), _e("dd", value)) for name, value in numbers]
    rule = _e("p", f"Rule: {verdict.rule} Chapter of the book: {verdict.chapter}.", class_="quiet")
    heading = _e("h3", verdict.subject.capitalize())
    return _e("article", heading, _e("p", verdict.text), *([_e("dl", *pairs)] if pairs else []), rule)


def _figures(all_of_them: Sequence[Drawing]) -> list[Element]:
    boxes, absent = list[Element](), list[Element]()
    for drawing in all_of_them:
        if not drawing.json:
            absent.append(_e("p", f"{drawing.title}: {drawing.caption}", class_="quiet"))
            continue
        target = _e("div", class_="plot", role="img", aria_label=drawing.alt)
        data = _e("script", drawing.json, type="application/json")
        caption = _e("figcaption", _e("strong", f"{drawing.title}. "), drawing.caption)
        boxes.append(_e("figure", target, data, caption))
    script = _e("noscript", _e("p", "The figures are drawn by a script; their numbers are in the data below."))
    return [script, _e("div", *boxes, class_="figures"), *absent]


def _blocks(found: Diagnosis) -> list[Element]:
    unit = "Kullback–Leibler divergence in nats"
    if found.worth.kind == "distance":
        unit = "distance relative to the output's length"
    text = (
        f"Means over inputs. Change: of the output when the block's branch, or its skip, is cut, as {unit}. "
        "Columns without any value are left out here; the CSV file has them."
    )
    return [_e("p", text), _block_table(found)]


def _block_table(found: Diagnosis) -> Element:
    frame = found.to_frame().reset_index()
    shown = [name for name in COLUMNS if frame[name].notna().any() and (frame[name] != "").any()]
    rows = [[_cell(value) for value in row] for row in frame[shown].itertuples(index=False)]
    texts = [name in TEXTS for name in shown]
    return _table("Residual blocks", [COLUMNS[name] for name in shown], rows, texts)


def _others(found: Diagnosis) -> list[Element]:
    others = found.blocks.others
    if not others:
        return [_e("p", "Nothing else adds or joins in this network.")]
    rows = [[other.name, other.kind, other.reason] for other in others]
    text = "What adds or joins, and why it does not count as a residual block."
    return [_e("p", text), _table("What is no block", ["Name", "Kind", "Why"], rows)]


def _notes(found: Diagnosis) -> list[Element]:
    if not found.notes:
        return [_e("p", "Everything that was asked for was measured.")]
    return [_e("ul", *[_e("li", note) for note in found.notes])]


def _settings(settings: Mapping[str, Any]) -> list[Element]:
    rows = list[list[str]]()
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += [[f"{name}: {part}", _cell(number)] for part, number in value.items()]
        else:
            rows.append([name.replace("_", " "), _cell(value)])
    return [_table("Settings and versions", ["Setting", "Value"], rows)]


def _rules() -> list[Element]:
    rows = [[r.name, ", ".join(map(format_number, r.thresholds)), r.says, r.chapter] for r in RULES.values()]
    text = "By these rules numbers become sentences. A chapter is named by its page in the book."
    return [_e("p", text), _table("Rules", ["Rule", "Thresholds", "What it says", "Chapter"], rows)]


def _data(found: Diagnosis) -> list[Element]:
    whole = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
    links = [
        _file("diagnosis.json", "application/json", whole, "everything but the tensors"),
        _file("blocks.csv", "text/csv", found.to_frame().to_csv(), "the table of blocks"),
    ]
    return [_e("ul", *links), _e("p", "The tensors are written by Diagnosis.save.")]


def _file(name: str, kind: str, text: str, what: str) -> Element:
    packed = base64.b64encode(text.encode()).decode()
    link = _e("a", name, href=f"data:{kind};charset=utf-8;base64,{packed}", download=name)
    return _e("li", link, f": {what}")


def _table(
    name: str, headings: Sequence[str], rows: Iterable[Sequence[str]], texts: Sequence[bool] | None = None
) -> Element:
    """A table that scrolls sideways in its own box, also by the keyboard; columns that are no texts align right."""
    looks = ["text" if text else "number" for text in (texts or [True] * len(headings))]
    first = [_e("th", heading, scope="col", class_=look) for heading, look in zip(headings, looks, strict=True)]
    body = []
    for row in rows:
        cells = [
            _e("td", cell, class_="long" if len(cell) > 60 else look) for cell, look in zip(row, looks, strict=True)
        ]
        body.append(_e("tr", *cells))
    table = _e("table", _e("thead", _e("tr", *first)), _e("tbody", *body))
    return _e("div", table, class_="table", role="region", tabindex="0", aria_label=f"Table: {name}")


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, int) and value >= 10**5:
        return f"{value:,}"
    return format_number(value) if isinstance(value, int | float) else str(value)


def _e(tag: str, *children: Element | str, **attributes: str) -> Element:
    """An element of children and texts; ``class_`` and ``aria_label`` are attributes of HTML's own names."""
    element = Element(tag, {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif last is None:
            element.text = (element.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return element


def _written(element: Element) -> str:
    return ElementTree.tostring(element, encoding="unicode", method="html")


def _id(name: str) -> str:
    return name.lower().replace(" ", "-")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
