"""Whoever changes what a configuration gives must raise its stage's recipe version, or old runs would pass for new.

Each stage works on a tiny input written down by formula, so that another stage's change does not move its numbers. They
are compared with those stored in ``recipe_versions.json`` under the stage's present version, to within what another CPU
or another torch may round.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from torch import nn

from resalign_utils import (
    ImageData,
    LinearizationConfig,
    ResNetConfig,
    TrainConfig,
    TransformerConfig,
    build_model,
    linearize,
    load_data,
    post_train,
    train,
)
from resalign_utils.runs import RECIPE_VERSIONS

FILE = Path(__file__).with_name("recipe_versions.json")
MODELS = {
    "fc": ResNetConfig(3, 6, stochastic_depth=0.5),
    "fc, pre, no norm, half a skip": ResNetConfig(2, 6, activation="pre", norm=False, skip=0.5),
    "conv, looks-linear": ResNetConfig(2, 4, "conv", norm=False, init="looks_linear", skip=(1.0, 0.0)),
    "conv_down": ResNetConfig(2, 4, "conv_down"),
    "conv_down, pre": ResNetConfig(2, 4, "conv_down", activation="pre"),
    "repvgg": ResNetConfig(2, 4, "repvgg"),
    "transformer": TransformerConfig(2, 4, 1, heads=2, skip=(1.0, 0.5)),
    "transformer, post": TransformerConfig(1, 4, 1, heads=1, norm="post"),
}
RECIPES = {
    "sgd": TrainConfig(epochs=3, lr=0.2, momentum=0.9, batch_size=16, seed=2),
    "sgd, steps": TrainConfig(epochs=3, lr=0.1, batch_size=16, schedule="step", clip=None),
    "adam, cosine": TrainConfig(epochs=3, lr=0.01, batch_size=32, schedule="cosine", optimizer="adam"),
    "adamw, constant": TrainConfig(epochs=3, lr=0.01, batch_size=32, schedule="constant", optimizer="adamw"),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def waves(*shape, start=0):
    """Numbers in [−1, 1] that repeat nowhere."""
    count = math.prod(shape)
    return torch.arange(start, start + count, dtype=torch.float64).square().mul(0.37).sin().float().reshape(shape)


def fingerprint(*tensors):
    """A number that moves with every entry, by about as much."""
    flat = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    return float(flat @ torch.arange(1, len(flat) + 1, dtype=torch.float64).sqrt().cos())


def images():
    """48 images (1, 3, 4) of three classes, each brighter at its place."""
    x, y = waves(60, 1, 3, 4), torch.arange(60) % 3
    x[torch.arange(60), 0, y] += 1
    return ImageData.from_tensors(x[:48], y[:48], x[48:], y[48:], name="waves", normalize=False)


def network():
    """Two hidden layers, with what draws at random and what keeps statistics."""
    # No bias before the norm: its gradient is rounding alone, which Adam would scale up.
    first = nn.Linear(12, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1)
    model = nn.Sequential(nn.Flatten(), *first, nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(0.5 * waves(*parameter.shape, start=1000 * number))
    return model


def of_data():
    whole = load_data("digits")
    drawn = load_data("digits", classes=(3, 1, 8), per_class=(9, 5, 7), label_noise=0.3, seed=1, normalize=False)
    return {
        "whole": [len(whole.train_y), whole.mean, whole.std, fingerprint(whole.train_x, whole.train_y)],
        "test": [fingerprint(whole.test_x), fingerprint(whole.test_y)],
        "drawn": [*drawn.train_y.tolist(), fingerprint(drawn.train_x), fingerprint(drawn.test_x)],
    }


def of_models():
    found = {}
    for name, config in MODELS.items():
        model = build_model(config, images(), seed=3)
        weights, x = fingerprint(*model.state_dict().values()), images().test_x[:3]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            in_training = model.train()(x)  # stochastic depth draws, and batch norm keeps its statistics
        found[name] = [weights, *torch.cat([in_training, model.eval()(x)]).flatten().tolist()]
    return found


def of_training():
    found = {}
    for name, recipe in RECIPES.items():
        model = network()
        history = train(model, images(), recipe)
        found[name] = [*history.loss, *history.lr, fingerprint(*model.state_dict().values())]
    return found


def of_linearization():
    found = {}
    for granularity in ("channel", "layer"):
        for ramp in ("linear", "steered"):
            model = linearize(network(), granularity)
            recipe = TrainConfig(epochs=8, lr=0.05, momentum=0.9, batch_size=4)
            history = post_train(model, images(), LinearizationConfig(omega=10.0, ramp=ramp, target=0.5, train=recipe))
            values = [*history.napl, *history.omega, *history.history.loss, fingerprint(*model.state_dict().values())]
            found[f"{granularity}, {ramp}"] = values
    return found


DRAWING = ("models", "training", "linearization")
STAGES = {"data": of_data, "models": of_models, "training": of_training, "linearization": of_linearization}


def test_every_stage_has_its_numbers():
    assert STAGES.keys() == RECIPE_VERSIONS.keys() == json.loads(FILE.read_text()).keys()


@pytest.mark.parametrize("stage", STAGES)
def test_stage_gives_what_its_recipe_version_gave(stage):
    if stage in DRAWING and Version(torch.__version__).release < (2, 9):
        pytest.skip("torch before 2.9 draws other numbers for dropout and stochastic depth")
    found, version = STAGES[stage](), str(RECIPE_VERSIONS[stage])
    known = json.loads(FILE.read_text())[stage].get(version)
    assert found == {name: pytest.approx(values, rel=1e-4, abs=1e-4) for name, values in (known or {}).items()}, (
        f"The stage '{stage}' gives other numbers than its recipe version {version} did. If that is meant, raise "
        f"RECIPE_VERSIONS['{stage}'] in resalign_utils/runs/_store.py, so that every kept run is made anew, and add "
        f"these numbers to tests/runs/{FILE.name} under the new version: {json.dumps(found)}"
    )
