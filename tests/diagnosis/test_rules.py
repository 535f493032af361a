"""The book's table of rules is the code's."""

from tools.rules_table import PAGE, table


def test_page_holds_the_rules_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == table(), "run python -m tools.rules_table"
