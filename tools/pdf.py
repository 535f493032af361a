"""The whole book as one PDF: the built pages, printed by Chromium and put together in the order of the contents.

python -m tools.pdf            # _build/inside-residual-networks.pdf (first `make html` or `make book`)
python -m tools.pdf 03 intro   # only pages whose names contain one of these words

Folded code and solutions are open in print. A figure is drawn by the page itself, for a light ground; scenes, which a
printer cannot turn, become pictures, and films stand at their beginning. Links between pages lead to pages of the PDF.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject

from tools.notebook_rules import ROOT, files_in, toc_files
from tools.shots import HTML, draw_all, opened

TARGET = ROOT / "_build" / "inside-residual-networks.pdf"
SCALE = 0.8  # text of 16 pixels becomes 9.6 points
MARGIN_MM, PAPER_MM = 14, (210, 297)
WIDTH = round((PAPER_MM[0] - 2 * MARGIN_MM) / 25.4 * 96 / SCALE)  # pixels of a line of the page
# What folds is opened; what is drawn by WebGL, of which printing shows nothing, becomes a picture.
PREPARE = """async () => {
    document.querySelectorAll('.bd-article details').forEach(details => { details.open = true; });
    for (const gd of document.querySelectorAll('.book-plotly-target')) {
        if (!gd.querySelector('canvas')) continue;
        const size = {width: gd.clientWidth, height: gd.clientHeight};
        const image = new Image();
        image.src = await Plotly.toImage(gd, {format: 'png', scale: 2, ...size});
        image.alt = gd.getAttribute('aria-label');
        image.className = 'book-printed';
        image.style.width = '100%';
        await image.decode();
        gd.replaceWith(image);
    }
}"""
# What is wider than its box in print and would be cut.
CLIPPED = """() => [...document.querySelectorAll('.bd-article :is(pre, .output, div.math, div:has(> table))')]
    .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
    .map(e => `${e.className || e.tagName} ${e.scrollWidth} > ${e.clientWidth}: ${e.textContent.trim().slice(0, 60)}`)
"""


def contents(root: Path = ROOT) -> list[tuple[str, list[str]]]:
    """The parts of the book with their pages in reading order; the first part, without a title, is the first page."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    parts: list[tuple[str, list[str]]] = [("", [str(toc["root"])])]
    for part in toc.get("parts", [{"chapters": toc.get("chapters", [])}]):
        parts.append((str(part.get("caption", "")), list(files_in(part))))
    return parts


def ready(browser: Any, address: str) -> Any:
    """A page as it will be printed: laid out in the width of the paper, drawn, unfolded."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 1200}, color_scheme="light")
    page.emulate_media(media="print", color_scheme="light", reduced_motion="reduce")
    page.goto(address, wait_until="load")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    draw_all(page)
    page.evaluate(PREPARE)
    return page


def printed(page: Any) -> bytes:
    """One page of the book as a PDF of its own, with its headings as outline."""
    margins = {side: f"{MARGIN_MM}mm" for side in ("top", "bottom", "left", "right")}
    pdf: bytes = page.pdf(
        format="A4", scale=SCALE, margin=margins, print_background=True, outline=True, tagged=True
    )  # fmt: skip
    return pdf


def joined(parts: Sequence[tuple[str, Sequence[tuple[str, str, bytes]]]], base: str) -> PdfWriter:
    """One PDF of all: parts of (name, title, PDF), with bookmarks, and links between pages made inner ones."""
    writer, places = PdfWriter(), dict[str, int]()
    for caption, pages in parts:
        above = None
        for name, title, content in pages:
            places[f"{base}{name}.html"] = len(writer.pages)
            first, reader = len(writer.pages), PdfReader(io.BytesIO(content))
            writer.append(reader, import_outline=False)
            if caption and above is None:
                above = writer.add_outline_item(title=caption, page_number=first)
            own = writer.add_outline_item(title=title, page_number=first, parent=above)
            for heading, place in _headings(reader):
                writer.add_outline_item(title=heading, page_number=first + place, parent=own)
    _link(writer, places, base)
    return writer


def _headings(reader: PdfReader) -> list[tuple[str, int]]:
    """The headings of the second level and the pages of one file on which they stand."""
    found: list[tuple[str, int]] = []
    top = [item for entry in reader.outline if isinstance(entry, list) for item in entry]
    for item in top:
        if not isinstance(item, list):
            number = reader.get_destination_page_number(item)
            found += [(str(item.title), number)] if number is not None else []
    return found


def _link(writer: PdfWriter, places: dict[str, int], base: str) -> None:
    """Links to another page of the book lead to it in the PDF; those to what is not in the PDF are left out."""
    for page in writer.pages:
        kept = ArrayObject()
        for reference in page.get("/Annots", ArrayObject()):
            note: Any = reference.get_object()
            address = str(note.get("/A", {}).get("/URI", ""))
            if address.startswith(base):
                target = places.get(address.partition("#")[0])
                if target is None:
                    continue
                there = ArrayObject([writer.pages[target].indirect_reference, NameObject("/Fit")])
                note[NameObject("/A")] = DictionaryObject(
                    {NameObject("/S"): NameObject("/GoTo"), NameObject("/D"): there}
                )
            kept.append(reference)
        if kept:
            page[NameObject("/Annots")] = kept
        elif "/Annots" in page:
            del page["/Annots"]


def number(writer: PdfWriter, browser: Any) -> None:
    """Put the number of each page at its foot: Chromium counts within one file only."""
    style = "@page{margin:0} body{margin:0;font:9pt sans-serif;color:#444}"
    box = f"height:{PAPER_MM[1] - 0.5}mm;position:relative;break-after:page"
    foot = "position:absolute;bottom:6mm;width:100%;text-align:center"
    sheets = "".join(f'<div style="{box}"><div style="{foot}">{n}</div></div>' for n in range(1, len(writer.pages) + 1))
    page = browser.new_page()
    page.set_content(f"<style>{style}</style>{sheets}")
    numbers = PdfReader(io.BytesIO(page.pdf(format="A4", prefer_css_page_size=True)))
    page.close()
    for sheet, figure in zip(writer.pages, numbers.pages, strict=False):
        sheet.merge_page(figure)


def make(names: Sequence[str], html: Path, target: Path, root: Path = ROOT) -> tuple[int, list[str]]:
    """Print and join; the number of pages, and what would be cut, in words."""
    clipped: list[str] = []
    with opened(html) as (browser, base):
        parts = []
        for caption, pages in contents(root):
            printouts = []
            for name in (name for name in pages if name in names):
                page = ready(browser, f"{base}{name}.html")
                clipped += [f"{name}: {text}" for text in page.evaluate(CLIPPED)]
                title = page.locator(".bd-article h1").first.inner_text().strip("# \n")
                printouts.append((name, title, printed(page)))
                page.close()
                print(f"  {name}", flush=True)
            parts.append((caption, printouts))
        writer = joined(parts, base)
        number(writer, browser)
    writer.add_metadata({"/Title": "Inside Residual Networks"})
    writer.compress_identical_objects()
    writer.write(target)
    return len(writer.pages), clipped


def main(words: list[str]) -> int:
    """Make it; 1 if there is no built book or something would be cut."""
    names = [name for name in toc_files() if not words or any(word in name for word in words)]
    if missing := [name for name in names if not (HTML / f"{name}.html").is_file()] or not names:
        print(f"Not built: {missing if names else words}. Run `make html` first.", file=sys.stderr)
        return 1
    pages, clipped = make(names, HTML, TARGET)
    print("\n".join(["Wider than the paper:", *clipped]) if clipped else "Nothing is wider than the paper.")
    print(f"{pages} pages, {TARGET.stat().st_size / 1e6:.1f} MB: {TARGET}")
    return 1 if clipped else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
