"""A diagnosis end to end: what it holds, what it says, and what it leaves as it was."""

import itertools
import json
import math
import time

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18

import resalign_utils as ra
from resalign_utils.diagnosis import RULES, _measuring
from resalign_utils.diagnosis._null import untrained_twin
from resalign_utils.residuals import inputs_of, outputs_with_scaled_block


class Foreign(nn.Module):
    """Six sums around a state of ten entries; the fourth branch is almost nothing, the last is a tenth of the first."""

    def __init__(self, classes=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(10, 10) for _ in range(6))
        self.sizes = (1.0, 1.0, 1.0, 1e-5, 1.0, 0.1)
        self.head = nn.Linear(10, classes)

    def forward(self, x):
        for layer, size in zip(self.layers, self.sizes, strict=True):
            x = x + size * torch.tanh(layer(x))
        return self.head(x)


@pytest.fixture(scope="module")
def foreign():
    torch.manual_seed(0)
    model, x = Foreign().double().eval(), torch.randn(12, 10, dtype=torch.float64)
    labels = torch.arange(12) % 3
    found = ra.diagnose(model, x, labels=labels, budget="30s", progress=False)
    return model, x, labels, found


def test_scores_are_those_of_the_measurement(foreign):
    model, x, _, found = foreign
    report = ra.measure_alignment(model, x, tol=1e-2)
    assert found.measured.alignment.coupling.shape == report.coupling.shape
    # measured in another order
    mine = found.measured.alignment.alignment.sort().values
    assert_close(mine, report.alignment.sort().values, rtol=1e-6, atol=1e-8)
    assert_close(found.measured.screen.line_shape_score, report.line_shape_score)


def test_worth_is_the_output_without_the_branch(foreign):
    model, x, labels, found = foreign
    logits = model(x).detach()
    for i in range(6):
        sizes = list(model.sizes)
        sizes[i] = 0.0
        h = x
        for layer, size in zip(model.layers, sizes, strict=True):
            h = h + size * torch.tanh(layer(h))
        other = model.head(h).detach()
        p, q = logits.log_softmax(1), other.log_softmax(1)
        assert_close(found.worth.divergence[i], (p.exp() * (p - q)).sum(1).mean(), rtol=1e-9, atol=1e-14)
        assert_close(found.worth.changed[i], (other.argmax(1) != logits.argmax(1)).double().mean())
        right = [(out.argmax(1) == labels).double().mean() for out in (other, logits)]
        assert_close(found.worth.accuracy[i], right[0] - right[1])


def test_worth_of_registered_blocks_is_that_of_their_modules():
    torch.manual_seed(0)
    model, x = resnet18(num_classes=3).double().eval(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    outputs = dict(outputs_with_scaled_block(model, x))
    handle = model.layer2[1].register_forward_hook(lambda module, args, output: torch.relu(args[0]))
    expected = model(x).detach()
    handle.remove()
    assert_close(outputs["layer2.1"], expected)


def test_verdicts_name_what_is_dead_and_what_may_go(foreign):
    *_, found = foreign
    said = {verdict.subject: verdict for verdict in found.verdicts}
    assert "(model)#4 hardly responds" in said["dead"].text
    assert "Blocks (model)#4, (model)#6 may be removable" in said["removable"].text
    assert said["alignment"].low < said["alignment"].value < said["alignment"].high
    for verdict in found.verdicts:
        assert verdict.rule == RULES[verdict.subject].says
        assert not any(word in verdict.text.lower() for word in ("good", "healthy", "better"))


def test_few_inputs_give_one_sentence_that_says_what_is_missing(foreign):
    model, x, *_ = foreign
    found = ra.diagnose(model, x[:4], budget="20s", progress=False)
    assert len(found.verdicts) == 1
    assert found.verdicts[0].text.startswith("4 inputs are too few to judge: give at least 10")


def test_a_small_budget_gives_partial_results_that_say_so(foreign):
    model, x, *_ = foreign
    found = ra.diagnose(model, x, budget=1e-6, progress=False)
    assert len(found.measured.alignment.alignment) == 1
    assert any("measured at 1 of 12 inputs" in note for note in found.notes)
    assert any("rest on 1 input," in verdict.text for verdict in found.verdicts)


def test_a_first_input_that_would_take_far_too_long_is_given_up(foreign, monkeypatch):
    model, x, *_ = foreign
    monkeypatch.setattr(_measuring, "GRACE", 0.0)
    found = ra.diagnose(model, x, budget=1e-6, progress=False)
    assert found.measured.alignment is None
    assert any("those of one input would take about" in note and "Give more (budget=)" in note for note in found.notes)
    assert {verdict.subject for verdict in found.verdicts} >= {"straightness"}
    assert "alignment" not in {verdict.subject for verdict in found.verdicts}


def test_interrupted_it_reports_what_it_has(foreign, monkeypatch):
    model, x, *_ = foreign
    measure, calls = _measuring.Measuring.measure, []

    def interrupted(self, *args):
        calls.append(self)
        if len(calls) == 4:  # of the model and its twins in turn: the second inputs of the model
            raise KeyboardInterrupt
        return measure(self, *args)

    monkeypatch.setattr(_measuring.Measuring, "measure", interrupted)
    found = ra.diagnose(model, x, budget="30s", progress=False)
    assert len(found.measured.alignment.alignment) == 1
    assert any(note.startswith("Interrupted") for note in found.notes)


def test_twins_are_drawn_several_times_and_share_the_inputs(foreign):
    *_, found = foreign
    assert found.null.draws.unique().tolist() == [0, 1, 2, 3, 4]
    assert len(found.null.draws) == 12
    assert len(found.null.screen.line_shape_score) == 12
    assert found.null_note.endswith("It is drawn 5 times.")


@pytest.mark.parametrize("seed", range(6))
def test_an_untrained_network_is_not_told_from_its_twins(seed):
    torch.manual_seed(seed)
    found = ra.diagnose(Foreign().eval(), torch.randn(12, 10), budget="30s", progress=False)
    said = {verdict.subject: verdict.text for verdict in found.verdicts}
    assert "no straighter than" in said["straightness"] or "Above 2" in said["straightness"]
    assert "does not differ" in said["alignment"]


def test_signals_with_channels_first_are_no_tokens():
    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv1d(4, 4, 3, padding=1) for _ in range(2))

        def forward(self, x):
            for layer in self.layers:
                x = (x + torch.tanh(layer(x))) * 0.5**0.5
            return x.mean(2)

    torch.manual_seed(0)
    found = ra.diagnose(Waves().double().eval(), torch.randn(10, 4, 9, dtype=torch.float64), budget=5, progress=False)
    assert found.settings["tokens"] is None
    assert found.measured.alignment.tokens == ()
    assert [block.outer for block in found.blocks] == ["mul"] * 2


def test_weights_under_a_norm_are_drawn_anew():
    norm = nn.utils.parametrizations
    torch.manual_seed(0)
    model = nn.Sequential(norm.spectral_norm(nn.Linear(20, 20)), norm.weight_norm(nn.Linear(20, 20))).eval()
    twin, how = untrained_twin(model, inputs_of(torch.randn(4, 20)))
    assert "all weights drawn anew" in how
    for layer, fresh in zip(twin, model, strict=True):
        assert not torch.allclose(layer.weight, fresh.weight)
    assert_close(torch.linalg.svdvals(twin[0].weight)[0], torch.tensor(1.0), rtol=0.05, atol=0)
    plain = torch.linalg.svdvals(nn.Linear(20, 20).weight)[0]
    assert 0.5 < torch.linalg.svdvals(twin[1].weight)[0] / plain < 2


def test_several_outputs_and_shared_weights_are_said():
    class Twice(Foreign):
        def forward(self, x):
            for layer in [*self.layers[:2], *self.layers[:2]]:
                x = x + torch.tanh(layer(x))
            return [self.head(x), x]

    found = ra.diagnose(Twice().eval(), torch.randn(10, 10), budget=5, progress=False)
    assert any("returns 2 tensors" in note for note in found.notes)
    assert any("Blocks share weights ((model)#1 and (model)#3" in note for note in found.notes)


def test_model_and_random_state_are_left_as_they_were():
    torch.manual_seed(0)
    model, x = resnet18(num_classes=3).eval(), torch.randn(2, 3, 32, 32)
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    ra.diagnose(model, x, budget="1s", progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(module.training for module in model.modules())


def test_twin_is_the_architecture_with_other_weights(foreign):
    model, x, *_ = foreign
    twin, how = untrained_twin(model, inputs_of(x))
    assert how.startswith("The null is the same network with all weights drawn anew")
    for (name, mine), (_, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert mine.shape == other.shape, name
        assert not torch.equal(mine, other), name
    assert ra.diagnose(model, x, null=None, budget=1, progress=False).null is None


def test_parameters_without_initialiser_are_shuffled_and_named():
    class Scaled(Foreign):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.arange(10.0))

        def forward(self, x):
            return super().forward(x * self.scale)

    found = ra.diagnose(Scaled().eval(), torch.randn(10, 10), budget=1, progress=False)
    assert "1 parameter that no module can reset (scale) has its entries shuffled" in found.null_note


def test_a_factory_of_another_network_is_refused(foreign):
    with pytest.raises(
        ValueError, match=r"The network that null makes has other parameters than the model \(14 and 14"
    ):
        ra.diagnose(*foreign[:2], null=lambda: Foreign(classes=4), progress=False)


@pytest.mark.parametrize(("budget", "text"), [("soon", "got 'soon'"), (0, "got 0"), ("-5s", "got '-5s'")])
def test_budgets_that_are_no_time_are_refused(foreign, budget, text):
    with pytest.raises(ValueError, match=f"budget must be a positive time, .*{text}"):
        ra.diagnose(*foreign[:2], budget=budget)


def test_labels_that_do_not_fit_are_refused(foreign):
    with pytest.raises(ValueError, match="Expected one whole-number label for each of 12 inputs; got"):
        ra.diagnose(*foreign[:2], labels=[1, 2])


def test_network_without_sums_is_refused():
    with pytest.raises(ValueError, match="No residual block found in Sequential: it has no additive stream"):
        ra.diagnose(nn.Sequential(nn.Linear(3, 3), nn.ReLU()).eval(), torch.randn(2, 3))


def test_saved_files_hold_what_the_diagnosis_holds(foreign, tmp_path):
    *_, found = foreign
    folder = found.save(tmp_path / "out")
    written = json.loads((folder / "diagnosis.json").read_text())
    assert [v["text"] for v in written["verdicts"]] == [v.text for v in found.verdicts]
    assert len(written["blocks"]) == 6
    assert written["decay_time"] is None
    tensors = load_file(folder / "tensors.safetensors")
    assert_close(tensors["measured.coupling"], found.measured.alignment.coupling)
    assert_close(tensors["worth.divergence"], found.worth.divergence)


def test_decay_time_is_that_of_the_recipe(foreign):
    recipe = ra.TrainingRecipe(0.1, 5e-4, 1000, "cosine", momentum=0.9)
    assert math.isclose(recipe.decay_time, 0.1 * 5e-4 * 1000 / 2 / 0.1)
    found = ra.diagnose(*foreign[:2], recipe=recipe, budget=1, progress=False)
    assert found.verdicts[-1].text.startswith("The training's decay time is S = 0.25. Below S = 1")


def test_where_the_budget_is_short_the_twin_is_measured_at_fewer_inputs(foreign, monkeypatch):
    ticks = itertools.count(time.monotonic())  # every look at the clock is a second
    monkeypatch.setattr(_measuring.time, "monotonic", lambda: next(ticks))
    found = ra.diagnose(*foreign[:2], budget=41, progress=False)
    mine, twin = len(found.measured.alignment.alignment), len(found.null.alignment.alignment)
    assert 1 <= twin < mine < 12
    assert any(f"at {mine} of 12 inputs (of the untrained twin at {twin})" in note for note in found.notes)


def test_where_jacobians_are_formed_the_scores_are_those_of_measure_alignment(foreign):
    model, x, *_ = foreign
    found, report = (
        ra.diagnose(model, x[:3], null=None, budget="30s", progress=False),
        ra.measure_alignment(model, x[:3]),
    )
    assert found.settings["tol"] == 1e-4
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.measured.alignment.alignment, report.alignment[order], rtol=1e-5, atol=1e-6)
    rough = ra.diagnose(model, x[:3], null=None, tol=0.9, budget="30s", progress=False)
    assert float((rough.measured.alignment.alignment - report.alignment[order]).abs().max()) > 0.01
