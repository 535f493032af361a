"""The book's table of rules is the code's, and the recorded networks are what a rule says of them."""

import numpy as np
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
    assert f"Tested on {len(tested)} others" in says
    assert f"of the {aligned.sum()} with an alignment of 0.5 or more, {(aligned & within).sum()} have" in says
    assert f"a line-shape score of at most {straight}" in says
    passing = (fitted["line_shape_score"] <= straight) & (fitted["alignment"] < 0.5)
    assert f"({passing.sum()} pass with" in says
    assert not (within & ~aligned).any()
    assert f"of the {(~aligned).sum()} others all have a higher one" in says
    every = pd.concat([fitted, tested])
    assert f"none of the {len(every)} had an alignment above 0.19" in says
    assert 0.185 < every[every["line_shape_score"] > bent]["alignment"].max() < 0.195


def chosen_on(networks):
    """The threshold that maximises Youden's J, half way to the next score."""
    score, aligned = networks["line_shape_score"].to_numpy(), networks["alignment"].to_numpy() >= 0.5
    places = np.unique(score)
    found, passing = (np.searchsorted(np.sort(score[part]), places, side="right") for part in (aligned, ~aligned))
    last = places[np.argmax(found / aligned.sum() - passing / (~aligned).sum())]
    return (last + places[places > last].min()) / 2


def test_the_lower_threshold_is_the_one_that_youden_would_choose_on_the_fit():
    assert f"{chosen_on(once(*screening.FIT)):.2f}" == f"{RULES['straightness'].thresholds[0]}"


def test_the_threshold_varies_with_the_settings_drawn_as_the_rule_says():
    fitted, rng = once(*screening.FIT), np.random.default_rng(0)
    parts = [rows for _, rows in fitted.groupby("setting")]
    drawn = [chosen_on(pd.concat([parts[i] for i in rng.integers(len(parts), size=len(parts))])) for _ in range(100)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert low == pytest.approx(1.05, abs=0.01)
    assert high == pytest.approx(1.1, abs=0.015)
    assert "at about 1.05 to 1.1" in RULES["straightness"].says


def test_layer_and_group_norm_pass_without_strong_alignment_as_the_rule_says():
    networks = once("regularizers")
    weak = networks[networks["alignment"] < 0.5]
    normed = networks["setting"].str.contains('"layer norm"|"group norm"')
    assert len(weak) >= 10
    assert normed[weak.index].all()
    assert (networks[normed]["alignment"] < 0.5).all()
    assert (networks[normed]["line_shape_score"] <= RULES["straightness"].thresholds[0]).all()
    assert "layer norm or group norm, recorded later, all pass" in RULES["straightness"].says


def test_the_published_network_that_the_rule_names_is_as_it_says():
    published = ra.recorded_networks("wild")[ra.recorded("wild")["weights"] == "published"]
    (bent,) = published[(published["line_shape_score"] > 2) & (published["alignment"] > 0.19)].to_dict("records")
    said = f"{bent['alignment']:.2f} at {bent['line_shape_score']:.1f}"
    assert said in RULES["straightness"].says
    assert "reactions" in bent["setting"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (2.1, 3.0, "Above 2 no alignment above 0.19 was seen"),
        (1.1, 2.1, "Above 1.09 an alignment of 0.5 or more is rare"),
        (1.0, 1.05, "Up to 1.09 most networks"),
        (1.0, 1.5, ""),
    ],
)
def test_what_is_said_of_a_line_shape_depends_on_where_its_interval_lies(low, high, said):
    assert _band(low, high).strip().startswith(said)
    assert bool(_band(low, high)) == bool(said)
