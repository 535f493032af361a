"""The book's table of rules is the code's, and the recorded networks are what a rule says of them."""

import pandas as pd

import resalign_utils as ra
from resalign_utils.diagnosis import RULES
from tools.rules_table import PAGE, table

FITTED = 0.99  # of the training images


def test_page_holds_the_rules_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == table(), "run python -m tools.rules_table"


def test_recorded_networks_are_as_the_rule_of_straightness_says():
    names = ("map", "digits", "fashion_mnist", "rank")
    rows = pd.concat([ra.recorded(f"counterfactuals_{name}") for name in names], ignore_index=True)
    connected = rows["config"].map(lambda config: config["model"]["kind"] == "fc")
    fitted = rows[connected & (rows["train_accuracy"] >= FITTED)]
    (limit,) = RULES["straightness"].thresholds
    above = fitted[fitted["line_shape_score"] > limit]["alignment"]
    assert f"Of the {len(fitted)} recorded fully-connected networks" in RULES["straightness"].says
    assert 0.185 < above.max() < 0.195
    assert "had an alignment above 0.19" in RULES["straightness"].says
