"""A proof of concept: what may be compared, paired seeds, untouched test examples, and what follows from the scores."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

import resalign_utils as ra
from resalign_utils.diagnosis import Difference, ProofRun
from resalign_utils.diagnosis import _proof_of_concept as module
from resalign_utils.diagnosis._candidates import Predicted, candidates, recalls
from resalign_utils.diagnosis._difference import paired
from resalign_utils.diagnosis._examples import Examples, stratified
from resalign_utils.diagnosis._tables import read_table

NAMES = (
    "most frequent class",
    "logistic regression",
    "gradient boosting",
    "without skips",
    "half of the skips",
    "with skips",
)
QUICK = {"seeds": 3, "depth": 2, "width": 8, "epochs": 2}


def table(rows=120, seed=0):
    """Two numbers, one of which tells the class, and a category that does not."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(generator.normal(size=(rows, 2)), columns=["a", "b"])
    frame["city"] = np.array(["Bonn", "Köln", "Ulm"])[np.arange(rows) % 3]
    frame["sold"] = np.where(frame.a > 0, "yes", "no")
    return frame


@pytest.fixture(scope="module")
def proof():
    return ra.proof_of_concept(table(), target="sold", **QUICK)


def refused(text, call, kind=ValueError):
    with pytest.raises(kind, match=re.escape(text)):
        call()


# ---- the whole of it


def test_every_candidate_has_a_run_under_every_seed(proof):
    frame = proof.to_frame()
    assert proof.candidates == NAMES
    assert [*zip(frame.seed, frame.candidate, strict=True)] == [(s, name) for s in range(3) for name in NAMES]
    assert frame[["accuracy", "balanced_accuracy", "train_accuracy"]].apply(lambda c: c.between(0, 1)).all(axis=None)
    sizes = frame.groupby("candidate").parameters.first()
    assert sizes["with skips"] == sizes["half of the skips"] == sizes["without skips"] > sizes["logistic regression"]
    assert math.isnan(sizes["gradient boosting"])
    assert (frame.seconds > 0).all()


def test_the_same_call_gives_the_same_scores_and_moves_no_generator(proof, random_state_untouched):
    again = ra.proof_of_concept(table(), target="sold", **QUICK)
    columns = ["candidate", "seed", "accuracy", "balanced_accuracy", "train_accuracy", "parameters", "setting"]
    pd.testing.assert_frame_equal(again.to_frame()[columns], proof.to_frame()[columns])


def test_a_linear_rule_is_left_to_logistic_regression(proof):
    assert proof.choice == "logistic regression"
    assert proof.recommendation.startswith("Take logistic regression (accuracy 0.9")
    assert "It beats always saying 'no' by +" in proof.recommendation or "saying 'yes'" in proof.recommendation


def test_the_most_frequent_class_has_its_share():
    frame = table()
    frame["sold"] = np.where(np.arange(120) % 4 == 0, "yes", "no")  # 30 of 120; nothing tells
    found = ra.proof_of_concept(frame, target="sold", **QUICK)
    assert found.decided_by == "balanced_accuracy"
    runs = found.to_frame().set_index("candidate").loc["most frequent class"]
    assert runs.accuracy.tolist() == pytest.approx([22 / 30] * 3)  # a quarter of 90, rounded to even, and of 30
    assert runs.balanced_accuracy.tolist() == [0.5] * 3


def test_the_summary_says_what_was_done(proof):
    text = proof.summary()
    assert text.startswith("table: 120 rows of 3 columns in 2 classes (no: ")
    assert "drawn anew for each seed, stratified; 3 seeds." in text
    assert "Differences of accuracy over 3 paired seeds (initialisation, order and split):" in text
    assert f"with skips − without skips: {proof.difference('with skips', 'without skips')}" in text
    assert f"Recommendation. {proof.recommendation}\nRule: of all that beat always saying" in text
    for name in NAMES:
        assert re.search(rf"^ *{name} ", text, re.M)


def test_the_figure_shows_the_differences_in_points(proof):
    figure = proof.figure()
    rows = [text.replace("<br>", " ") for text in figure.layout.yaxis.ticktext]
    assert rows == [f"{each.better} − {each.other}" for each in proof.differences]
    means = next(trace for trace in figure.data if trace.name == "mean, 95 % interval")
    np.testing.assert_allclose(means.x, [100 * each.mean for each in proof.differences], atol=1e-4)
    wanted = [100 * (each.high - each.mean) for each in proof.differences]
    np.testing.assert_allclose(means.error_x.array, wanted, atol=1e-4)


# ---- pairs, splits, choices


def test_a_split_is_stratified_whole_and_of_its_seed():
    y = np.repeat([0, 1, 2], [40, 20, 5])
    first, second = stratified(y, np.arange(65), 0.25, (3, 0))
    assert sorted([*first, *second]) == [*range(65)]
    assert np.bincount(y[second]).tolist() == [10, 5, 1]
    assert np.array_equal(second, stratified(y, np.arange(65), 0.25, (3, 0))[1])
    assert not np.array_equal(second, stratified(y, np.arange(65), 0.25, (4, 0))[1])
    for share in (0.01, 0.99):  # always something to learn from, and something to test
        parts = stratified(y, np.arange(65), share, (0, 0))
        assert all(np.bincount(y[part], minlength=3).min() >= 1 for part in parts)


def test_networks_of_one_seed_begin_with_the_same_weights(digits):
    recipe = ra.TrainConfig(epochs=0)
    networks = [each for each in candidates("fc", 4, 8, recipe, (0.1,)) if "skips" in each.name]
    states = [ra.build_model(each.model, digits, seed=5).state_dict() for each in networks]
    assert [each.model.skip_factors for each in networks] == [(0, 0, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1)]
    for other in states[1:]:
        assert all(torch.equal(value, other[name]) for name, value in states[0].items())


class Spy:
    """Notes what it is given; its first setting is always wrong, its second always right."""

    settings = (1.0, 2.0)

    def __init__(self, name):
        self.name, self.seen = name, []

    def fit(self, setting, data, seed):
        self.seen.append((setting, data))
        right = setting == 2.0
        train, test = (y.numpy() if right else 1 - y.numpy() for y in (data.train_y, data.test_y))
        return Predicted(train, test, 0, 0.0)


def test_settings_are_chosen_inside_of_the_training_examples(monkeypatch):
    y = np.arange(80) % 2

    def prepare(train, test):
        """Each example shows its own number."""
        parts = [torch.from_numpy(part) for part in (train, y[train], test, y[test])]
        x, test_x = (part.float().reshape(-1, 1, 1, 1) for part in parts[::2])
        return ra.ImageData.from_tensors(x, parts[1], test_x, parts[3], name="numbers", normalize=False)

    examples = Examples("numbers", "rows", "1 column", "fc", y, ("a", "b"), prepare)
    spies = Spy("one"), Spy("other")
    monkeypatch.setattr(module, "candidates", lambda *_: spies)
    monkeypatch.setattr(module, "_read", lambda *_: examples)
    monkeypatch.setattr(module, "_notes", lambda *_: [])
    found = ra.proof_of_concept(([], []), seeds=3)
    assert {run.setting for run in found.runs} == {2.0}
    tested = set()
    for seed in range(3):
        (_, inner), (_, same), (setting, outer) = spies[0].seen[3 * seed : 3 * seed + 3]
        assert (inner is same, setting) == (True, 2.0)
        learn, choose, train, test = (
            {*x.flatten().int().tolist()} for x in (inner.train_x, inner.test_x, outer.train_x, outer.test_x)
        )
        assert train | test == {*range(80)}
        assert (len(test), len(choose)) == (20, 16)  # of each class 10 of 40, and 8 of 30
        assert learn | choose == train
        assert not learn & choose
        assert not train & test
        tested |= {frozenset(test)}
    assert len(tested) == 3
    for (_, one), (_, other) in zip(spies[0].seen, spies[1].seen, strict=True):  # paired
        assert torch.equal(one.train_x, other.train_x)


def test_nothing_is_estimated_from_test_rows():
    frame = table(40)
    frame.loc[3, "a"] = math.nan
    train, test = np.arange(30), np.arange(30, 40)
    before = read_table(frame, "sold").prepare(train, test)
    wild = frame.copy()
    wild.loc[30:, "a"], wild.loc[30:, "city"] = 1e6, "Rom"
    after = read_table(wild, "sold").prepare(train, test)
    assert torch.equal(before.train_x, after.train_x)
    assert (after.test_x.flatten(1)[:, -3:] == 0).all()  # a city that training never saw


def test_the_split_and_the_scale_of_image_data_are_kept(blobs):
    found = ra.proof_of_concept(blobs, **QUICK, weight_decays=[0.01])
    assert found.overlap == 0
    assert found.candidates == (NAMES[0], *NAMES[3:])
    assert "47 to learn from and 20 to test, as they came" in found.described
    assert "(initialisation and order, on the one split given)" in found.summary()
    assert any("do not say what other test examples would give" in note for note in found.notes)


# ---- the interval


def test_with_one_split_the_interval_is_students():
    first, second = [0.9, 0.8, 0.95, 0.7], [0.85, 0.8, 0.9, 0.72]
    found = paired("a", "b", first, second, 0.0, 0.0)
    wanted = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert found.mean == pytest.approx(0.02)
    assert found.covers_zero


def test_splits_that_overlap_widen_the_interval():
    first, second = [0.9, 0.8, 0.95], [0.8, 0.78, 0.9]
    plain, wide = (paired("a", "b", first, second, overlap, 0.0) for overlap in (0.0, 1 / 3))
    assert (wide.high - wide.mean) / (plain.high - plain.mean) == pytest.approx(math.sqrt((1 / 3 + 1 / 3) * 3))


def test_seeds_that_agree_by_chance_prove_nothing():
    same = paired("a", "b", [0.51] * 3, [0.5] * 3, 0.0, 0.01)
    assert (same.high - same.mean) == pytest.approx(stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3))
    assert same.covers_zero
    scores = [LOW, MID, MID, MID, MID, [x + 0.02 for x in MID]]
    assert decided(scores).choice == "with skips"
    assert decided(scores, step=0.02).choice == "logistic regression"


def test_a_step_is_one_test_example_of_the_smallest_class(proof, blobs):
    assert proof.step == 1 / 30
    examples = module.from_image_data(blobs)
    assert module._step(examples, examples.split[1], "balanced_accuracy") == pytest.approx(1 / (3 * 6))


def test_the_overlap_is_that_of_the_splits(proof):
    assert proof.overlap == pytest.approx(30 / 90, abs=0.02)


def test_a_difference_is_written_in_points():
    shown = str(Difference("a", "b", (0.0,), 0.0123, -0.0004, 0.025))
    assert shown == "+1.2 points (95 % interval 0.0 to +2.5, covers zero)"


# ---- the rule


def decided(scores, margin=0.01, decided_by="accuracy", step=0.0):
    """A result with these scores of the candidates, three seeds each."""
    runs = [
        ProofRun(name, seed, value, value, 1.0, 0.1, 1, 0.0)
        for name, values in zip(NAMES, scores, strict=True)
        for seed, value in enumerate(values)
    ]
    return ra.ProofOfConcept("t", "t", NAMES, (0, 1, 2), tuple(runs), decided_by, margin, 0.0, step, "no", ())


LOW, MID, NOISY, HIGH = (0.5, 0.5, 0.5), (0.80, 0.81, 0.80), (0.6, 0.99, 0.9), (0.90, 0.90, 0.91)
NEAR, WORSE = (0.84, 0.92, 0.88), (0.80, 0.80, 0.81)  # not told from HIGH; told from HIGH, and not from NEAR
WILD = (0.3, 0.9, 0.5)  # told from nothing


@pytest.mark.parametrize(
    ("scores", "choice", "said"),
    [
        ([LOW] * 6, "most frequent class", "nothing is shown to beat always saying 'no' (accuracy 0.500)"),
        ([LOW, MID, MID, MID, MID, MID], "logistic regression", "no difference is shown"),
        (
            [LOW, MID, MID, MID, MID, HIGH],
            "with skips",
            "The simpler half of the skips is beaten by the network with s",
        ),
        ([LOW, MID, MID, LOW, MID, HIGH], "with skips", "they help here"),
        ([LOW, WORSE, NEAR, HIGH, HIGH, HIGH], "gradient boosting", "The simpler logistic regression is beaten by the"),
        ([LOW, WILD, MID, MID, MID, MID], "gradient boosting", "Take gradient boosting (accuracy 0.803). It beats"),
        ([LOW, MID, HIGH, HIGH, MID, MID], "gradient boosting", "they harm"),
        ([LOW, MID, NOISY, MID, MID, MID], "logistic regression", "The highest mean has gradient boosting, which"),
        ([LOW, MID, MID, MID, MID, [x + 0.005 for x in MID]], "logistic regression", ", less than the margin."),
    ],
)
def test_a_less_simple_candidate_needs_a_gain_that_is_shown(scores, choice, said):
    found = decided(scores)
    assert found.choice == choice
    assert said in found.recommendation
    assert len({frozenset((d.better, d.other)) for d in found.differences}) == len(found.differences)


def test_several_comparisons_ask_for_more_than_one():
    found = decided([LOW, (0.80, 0.81, 0.82), (0.83, 0.86, 0.85), LOW, LOW, LOW])
    gain = found.difference("gradient boosting", "logistic regression")
    wanted = stats.ttest_1samp(gain.per_seed, 0).confidence_interval(0.98)
    assert gain.low > 0.007
    assert wanted.low < -0.009
    assert found.choice == "logistic regression"
    assert found.recommendation.count("but not shown when all are compared") == 1
    assert "also at 98 %" in found.rule


def test_the_margin_and_the_score_decide():
    scores = [LOW, MID, MID, MID, MID, HIGH]
    assert decided(scores, margin=0.2).choice == "logistic regression"
    assert "at least 20 points of balanced accuracy" in decided(scores, 0.2, "balanced_accuracy").rule
    assert "at least 1 point of accuracy" in decided(scores).rule
    refused("Expected one of most frequent class", lambda: decided(scores).scores("forest"))


def test_balanced_accuracy_is_the_mean_recall():
    assert recalls(np.array([0, 0, 0, 1, 0]), np.array([0, 0, 0, 1, 1]), 2).tolist() == [1.0, 0.5]


# ---- tables


def test_missing_values_and_constant_columns_are_handled_and_said():
    frame = table(60)
    frame.loc[:9, "b"] = math.nan
    frame.loc[:4, "city"] = None
    frame["country"] = "DE"
    examples = read_table(frame, "sold")
    data = examples.prepare(np.arange(40), np.arange(40, 60))
    x = data.train_x.flatten(1)
    assert x.shape == (40, 1 + 2 + 4)  # a; b and where it was missing; three cities and none
    known = frame.b[10:40]
    filled = torch.tensor(known.median()).repeat(10)
    raw = torch.cat([filled, torch.tensor(known.to_numpy())])
    torch.testing.assert_close(x[:, 1].double(), (raw - raw.mean()) / raw.std(correction=0), atol=1e-6, rtol=1e-5)
    assert x[:, 2].tolist() == [1.0] * 10 + [0.0] * 30
    assert (x[:, 3:].sum(1) == 1).all()
    assert examples.notes[0] == "Left out, for they have one value only: country."
    assert examples.notes[1].startswith("Missing values in b, city: numbers are filled with the training rows' median")


def test_copies_and_columns_that_give_the_class_away_are_said():
    frame = table(60)
    frame["code"] = frame.sold.map({"yes": "Y", "no": "N"})
    notes = read_table(pd.concat([frame, frame[:7]]), "sold").notes
    assert notes[0].startswith("7 rows repeat another one")
    assert notes[1] == "The class follows from code alone: is that known before the class is?"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.drop(columns="sold"), "'sold'; the columns are a, b, city"),
        (lambda f: f[["sold"]], "Expected a column that varies beside the target; got none"),
        (lambda f: f.assign(sold=f.a), "Expected classes in column 'sold'; got 120 different numbers"),
        (lambda f: f.assign(sold=[*range(24)] * 5), "got 24 different numbers. A measured quantity is not predicted"),
        (lambda f: f.assign(sold="yes"), "Expected at least two classes in column 'sold'; got 1"),
        (lambda f: f.assign(sold=f.sold.where(f.index > 2)), "Expected a class in every row of column 'sold'; got 3"),
        (lambda f: f.assign(sold=f.sold.where(f.index > 2, "Yes")), "names that differ in case or blanks only"),
        (
            lambda f: f.assign(sold=f.sold.where(f.index > 2, "maybe")),
            "at least 5 rows of each class; got 3 of 'maybe'",
        ),
        (lambda f: f.assign(sold=["x", 1] * 60), "got values of type int, str"),
        (lambda f: f.assign(a=f.a.where(f.index > 1, math.inf)), "finite numbers in column 'a'; got 2 infinite"),
        (lambda f: f.assign(id=range(7, 127)), "column 'id'; got whole numbers without a gap or a repeat"),
        (lambda f: f.assign(id=[f"k{i}" for i in range(120)]), "at most 60 categories in column 'id'; got 120"),
        (lambda f: f.assign(b=f.b.astype(str).where(f.index > 3, "?")), "116 numbers written as text beside '?'"),
        (lambda f: f.assign(day=pd.Timestamp("2026-01-01") + pd.to_timedelta(f.index, "D")), "column 'day'; got dat"),
        (lambda f: f.assign(b=["x", 1.0] * 60), "values of one kind in column 'b'; got number, str"),
        (lambda f: f.set_axis(["a", "a", "city", "sold"], axis=1), "different names; got a more than once"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(change, text):
    refused(text, lambda: ra.proof_of_concept(change(table()), target="sold", **QUICK))


def test_a_csv_file_is_a_table(tmp_path):
    table().to_csv(tmp_path / "sales.csv", index=False)
    examples = read_table(tmp_path / "sales.csv", "sold")
    assert (examples.name, examples.counts) == ("sales.csv", table().sold.value_counts()[["no", "yes"]].to_dict())
    (tmp_path / "odd.csv").write_text('a,b\n1,2\n3,4,5\n"')
    refused("Expected a CSV file in odd.csv", lambda: read_table(tmp_path / "odd.csv", "a"))
    refused("there is no", lambda: ra.proof_of_concept("nowhere.csv", target="a"), FileNotFoundError)


# ---- images


def save(folder, *, sizes=(6,), mode="L", count=6, classes=("cat", "dog")):
    generator = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for index in range(count):
            side = sizes[index % len(sizes)]
            channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
            pixels = generator.integers(0, 255, (side, side + 1, *channels), dtype=np.uint8)
            Image.fromarray(pixels, mode=None).save(folder / label / f"{index}.png")


def test_a_folder_of_images_is_read_and_compared(tmp_path):
    save(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "readme.txt").write_text("no image")
    (tmp_path / "pets" / "cat" / ".hidden.png").write_text("no image")
    found = ra.proof_of_concept(tmp_path / "pets", **QUICK, weight_decays=[0.1])
    assert found.described.startswith("pets: 12 images of 1×6×7 in 2 classes (cat: 6, dog: 6).")
    assert "1 files that are no images were left out." in found.notes
    assert found.candidates == (NAMES[0], *NAMES[3:])


def test_images_of_several_sizes_are_refused_or_resized(tmp_path):
    save(tmp_path / "pets", sizes=(6, 9), mode="RGB")
    refused("got 2 sizes, from 7×6 to 10×9 pixels. Give image_size=", lambda: ra.proof_of_concept(tmp_path / "pets"))
    found = ra.proof_of_concept(tmp_path / "pets", image_size=5, **QUICK, weight_decays=[0.1])
    assert "12 images of 3×5×5" in found.described


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    save(tmp_path / "split", classes=("train", "test"))
    save(tmp_path / "clear", mode="RGBA")
    save(tmp_path / "broken")
    (tmp_path / "broken" / "cat" / "0.png").write_bytes(b"nothing")
    save(tmp_path / "lacking")
    (tmp_path / "lacking" / "bird").mkdir()
    (tmp_path / "bare").mkdir()
    for name, text in {
        "split": "sub-folders named for classes in split; got folders of a split",
        "clear": "got transparency in cat/0.png",
        "broken": "got the damaged cat/0.png",
        "lacking": "got none in bird",
        "bare": "got no sub-folder",
    }.items():
        refused(text, lambda name=name: ra.proof_of_concept(tmp_path / name))
    refused("there is no folder", lambda: ra.proof_of_concept(tmp_path / "none"), NotADirectoryError)


def test_bytes_and_numbers_of_one_image_come_to_the_same_scale():
    generator = np.random.default_rng(0)
    pixels, labels = generator.integers(0, 255, (20, 4, 4), dtype=np.uint8), ["a", "b"] * 10
    index = np.arange(15), np.arange(15, 20)
    both = [module.read_arrays(x, labels).prepare(*index) for x in (pixels, pixels / 255.0)]
    torch.testing.assert_close(both[0].train_x, both[1].train_x)
    assert both[0].train_x.mean().abs() < 1e-5
    assert both[0].train_x.std(correction=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (np.zeros((12, 5)), [0, 1] * 6, "images (n, h, w) or (n, channels, h, w); got (12, 5)"),
        (np.zeros((12, 5, 5, 3)), [0, 1] * 6, "got (12, 5, 5, 3). Move the channels before the rows"),
        (np.zeros((12, 5, 5)), [0, 1] * 5, "as many labels as images; got 12 images, 10 labels"),
        (np.full((12, 5, 5), math.nan), [0, 1] * 6, "finite numbers in the images; got 300 NaN or infinite"),
        (np.zeros((12, 5, 5), dtype=bool), [0, 1] * 6, "images of bytes or real numbers; got torch.bool"),
        (np.zeros((12, 5, 5)), [0.5, 1] * 6, "Expected classes in the labels; got 2 different numbers"),
        (np.zeros((12, 5, 5)), [0] * 9 + [1] * 3, "at least 5 images of each class; got 3 of '1'"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(x, y, text):
    refused(text, lambda: ra.proof_of_concept((x, y)))


def test_image_data_without_a_class_in_its_test_set_is_refused(blobs):
    keep = blobs.test_y != 2
    lacking = ra.ImageData.from_tensors(
        blobs.train_x, blobs.train_y, blobs.test_x[keep], blobs.test_y[keep], name="lacking"
    )
    refused("at least 1 test images of each class; got 0 of '2'", lambda: ra.proof_of_concept(lacking))


# ---- arguments


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (table(), {}, "target= as the name of a table's column; got none"),
        (table(), {"target": "sold", "image_size": 5}, "image_size=None with a table"),
        ((np.zeros((9, 5, 5)), [0] * 9), {"target": "sold"}, "target= with a table only"),
        ((np.zeros((9, 5, 5)), [0] * 9), {"image_size": 5}, "image_size= with a folder only"),
        ([1, 2], {}, "a DataFrame, a path, an ImageData or a pair (x, y); got list"),
        (table(), {"target": "sold", "seeds": 2}, "seeds as a number of at least 3; got 2"),
        (table(), {"target": "sold", "depth": 1}, "depth as a number of at least 2; got 1"),
        (table(), {"target": "sold", "test_share": 1.0}, "test_share between 0 and 1; got 1.0"),
        (table(), {"target": "sold", "margin": -0.1}, "margin in [0, 1); got -0.1"),
        (table(), {"target": "sold", "weight_decays": []}, "weight_decays as at least one number; got []"),
    ],
)
def test_arguments_outside_their_range_are_refused(data, options, text):
    refused(text, lambda: ra.proof_of_concept(data, **options))


def test_a_network_that_does_not_fit_its_training_examples_is_said(blobs):
    runs = [ProofRun(name, 0, 1.0, 1.0, fit, 0.1, 1, 0.0) for name, fit in zip(NAMES[3:], (0.6, 0.9, 1), strict=True)]
    note = module._notes(module.from_image_data(blobs), np.arange(47, 67), runs)[-1]
    assert note.startswith("The network without skips fits only 0.600 of its training examples, another 1.000")
