"""What tests need to open pages in a browser, or to say that they cannot."""

import os

import pytest

from tools.shots import BROWSERS, FLAGS, browser_program


def lacking(what):
    """What is needed is not here: in CI a failure, elsewhere a skip that says so."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must test the pages, but {what}")
    pytest.skip(what)


def launch(playwright):
    """A running Chromium that reaches no other host."""
    program = browser_program(playwright)
    if program is None:
        lacking(f"no browser was found ($CHROMIUM, {', '.join(BROWSERS)}, or Playwright's): pages not opened")
    return playwright.chromium.launch(executable_path=program, args=FLAGS)
