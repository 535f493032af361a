"""A sweep gives what its runs give one by one, in order, whether here or in other processes."""

from functools import partial

import pytest
import torch
from processes import final_accuracy, labelled, refuse_depth_three, weights_of

from resalign_utils import ResNetConfig, RunConfig, TrainConfig, load_or_train, sweep

CONFIGS = [RunConfig("digits", ResNetConfig(depth, 8), TrainConfig(epochs=2)) for depth in (3, 1, 2)]


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_configurations_and_equal_single_runs(tmp_path, processes):
    results = list(sweep(CONFIGS, weights_of, processes=processes, root=tmp_path / "a"))
    for config, result in zip(CONFIGS, results, strict=True):
        run = load_or_train(config, root=tmp_path / "b")
        assert result["depth"] == config.model.depth
        assert torch.allclose(torch.tensor(result["weight"]), run.model.head[-1].weight[0, 0].detach(), atol=1e-5)


def test_a_second_sweep_trains_nothing(tmp_path):
    list(sweep(CONFIGS, final_accuracy, root=tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("provenance.json")}
    list(sweep(CONFIGS, final_accuracy, root=tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("provenance.json")} == before
    assert len(before) == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_failure_names_the_configuration_and_keeps_what_is_done(tmp_path, processes):
    results = sweep(CONFIGS[::-1], refuse_depth_three, processes=processes, root=tmp_path)
    assert [next(results), next(results)] == [2, 1]
    with pytest.raises(RuntimeError, match=r"This run of the sweep failed: .*depth=3.*ValueError: three") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(list(tmp_path.rglob("provenance.json"))) == 3  # the third was trained before its measurement failed


def test_fewer_than_one_process_is_refused():
    with pytest.raises(ValueError, match="processes must be at least 1; got 0"):
        next(sweep(CONFIGS, final_accuracy, processes=0))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_measurement_for_each_configuration(tmp_path, processes):
    measures = [partial(labelled, letter) for letter in "abc"]
    assert list(sweep(CONFIGS, measures, processes=processes, root=tmp_path)) == [("a", 3), ("b", 1), ("c", 2)]


def test_another_number_of_measurements_is_refused():
    with pytest.raises(ValueError, match="one measurement for each of 3 configurations; got 2"):
        next(sweep(CONFIGS, [final_accuracy] * 2))
