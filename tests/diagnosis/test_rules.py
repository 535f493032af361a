"""The book's table of rules is the code's, and the recorded networks are what a rule says of them."""

import pandas as pd
import pytest

import resalign_utils as ra
from experiments import screening
from resalign_utils.diagnosis import RULES
from resalign_utils.diagnosis._verdicts import _band
from tools.rules_table import PAGE, table

FITTED = 0.99  # of the training images


def test_page_holds_the_rules_of_the_code():
    assert PAGE.read_text(encoding="utf-8") == table(), "run python -m tools.rules_table"


def once(*names):
    """The recorded networks at the end of their training, each once, that fit their training images."""
    networks = ra.recorded_networks(*names)
    networks = networks[networks["last"]].drop_duplicates(["setting", "seed"])
    return networks[networks["train_accuracy"] >= FITTED]


def test_recorded_networks_are_as_the_rule_of_straightness_says():
    fitted, tested = once(*screening.FIT), once(*(name for names in screening.TEST.values() for name in names))
    tested = tested[~tested["setting"].isin(fitted["setting"])]
    (straight, bent), says = RULES["straightness"].thresholds, RULES["straightness"].says
    aligned, within = tested["alignment"] >= 0.5, tested["line_shape_score"] <= straight
    assert f"Fitted on {len(fitted)} recorded networks" in says
    assert f"tested on {len(tested)} others: of the {aligned.sum()} with" in says
    assert f"{(aligned & within).sum()} have a line-shape score of at most {straight}" in says
    assert not (within & ~aligned).any()
    assert f"of the {(~aligned).sum()} others all have a higher one" in says
    every = pd.concat([fitted, tested])
    assert f"none of the {len(every)} had an alignment above 0.19" in says
    assert 0.185 < every[every["line_shape_score"] > bent]["alignment"].max() < 0.195


def test_the_lower_threshold_is_the_one_that_youden_would_choose_on_the_fit():
    fitted = once(*screening.FIT)
    score, aligned = fitted["line_shape_score"], fitted["alignment"] >= 0.5
    places = {at: (score[aligned] <= at).mean() + (score[~aligned] > at).mean() for at in score.unique()}
    last = max(places, key=places.__getitem__)
    assert f"{(last + score[score > last].min()) / 2:.2f}" == f"{RULES['straightness'].thresholds[0]}"


def test_the_published_network_that_the_rule_names_is_as_it_says():
    published = ra.recorded_networks("wild")[ra.recorded("wild")["weights"] == "published"]
    (bent,) = published[(published["line_shape_score"] > 2) & (published["alignment"] > 0.19)].to_dict("records")
    said = f"{bent['alignment']:.2f} at {bent['line_shape_score']:.1f}"
    assert said in RULES["straightness"].says
    assert "reactions" in bent["setting"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (2.1, 3.0, "Above 2 no alignment worth the name"),
        (1.1, 2.1, "Above 1.09 an alignment of 0.5 or more is rare"),
        (1.0, 1.05, "Up to 1.09 most networks"),
        (1.0, 1.5, ""),
    ],
)
def test_what_is_said_of_a_line_shape_depends_on_where_its_interval_lies(low, high, said):
    assert _band(low, high).strip().startswith(said)
    assert bool(_band(low, high)) == bool(said)
