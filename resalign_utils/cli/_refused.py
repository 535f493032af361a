"""What the command line refuses, as a sentence."""

from __future__ import annotations


class Refused(Exception):
    """The command cannot be done; the text says what was expected, what came, and what to do."""


def refused(expected: str, got: str, fix: str) -> Refused:
    """The sentence that all refusals of the command line are."""
    return Refused(f"Expected {expected}; got {got}. {fix}")
