"""The notes of a release are its section of the changelog, or the release stops."""

import re

import pytest

import resalign_utils as ra
from tools import release_notes
from tools.release_notes import CHANGELOG, HEADING, notes

TEXT = """# Changelog

## 0.2.0 (2026-12-24)

Second.

### Package
- new

## 0.1.0 (2026-11-30)

First.
"""


def test_a_section_is_cut_out_whole():
    assert notes(TEXT, "0.2.0") == "Second.\n\n### Package\n- new\n"
    assert notes(TEXT, "0.1.0") == "First.\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT.replace("0.2.0", "0.3.0"), r"Expected one section '## 0.2.0 \(DATE\)'.*; it has 0.3.0, 0.1.0"),
        (TEXT + "\n## 0.2.0 (2026-12-25)\n\nAgain.\n", "Expected one section"),
        (TEXT.replace("2026-12-24", "unreleased"), r"is dated 'unreleased'.*as in '## 0.2.0 \(2026-01-31\)'"),
        (TEXT.replace("Second.\n\n### Package\n- new\n", ""), "says nothing of version 0.2.0"),
    ],
)
def test_what_cannot_be_published_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        notes(text, "0.2.0")


def test_a_tag_is_understood_and_errors_end_with_1(monkeypatch, tmp_path, capsys):
    path = tmp_path / "CHANGELOG.md"
    path.write_text(TEXT)
    monkeypatch.setattr(release_notes, "CHANGELOG", path)
    assert release_notes.main(["v0.1.0"]) == 0
    assert capsys.readouterr().out == "First.\n"
    assert release_notes.main(["v9.9.9"]) == 1
    assert "9.9.9" in capsys.readouterr().err
    assert release_notes.main([]) == 2


def test_the_changelog_can_be_cut_once_it_has_a_date():
    text = re.sub(r"\(unreleased\)", "(2026-01-31)", CHANGELOG.read_text(encoding="utf-8"))
    assert HEADING.search(text)["version"] == ra.__version__
    assert len(notes(text, ra.__version__)) > 500
