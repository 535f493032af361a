"""The method in one file agrees with the package, which it does not import, and runs as a script."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import resalign_utils as ra

FILE = Path(__file__).resolve().parents[1] / "examples" / "alignment_from_scratch.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("alignment_from_scratch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    @ra.residual_branch.register
    def _(block: module.Block):
        return block.branch, nn.Identity(), nn.ReLU()

    return module


@pytest.fixture(scope="module")
def images(example):
    return example.digits()


def with_low_rank(model):
    """Every second branch writes to six directions, fewer than are compared; its other vectors must not count."""
    for block in model.blocks[::2]:
        block.branch[2][0].weight.data = torch.randn(64, 6) @ torch.randn(6, 64) / 64
    return model


@pytest.mark.parametrize("change", [nn.Identity(), with_low_rank], ids=["untrained", "low rank"])
def test_its_scores_are_those_of_the_package(example, images, change):
    torch.manual_seed(0)
    model = change(example.Network())
    update_bn([images[0]], model)
    model, x = model.eval().double(), images[1][:8].double()

    found, report = example.measure(model, x), ra.measure_alignment(model, x)
    wanted = report.summary()
    assert found == pytest.approx({name: wanted[name] for name in example.SCORES}, rel=1e-6, abs=1e-6)
    assert (report.rank.min() < example.CLASSES) == (change is with_low_rank)


def test_its_jacobians_are_those_of_the_package(example, images):
    torch.manual_seed(1)
    model, x = example.Network().eval().double(), images[1][:3].double()
    found = example.residual_jacobians(model, example.trace(model, x))
    wanted = torch.stack([ra.residual_jacobians(residual) for residual in ra.trace(model, x).residuals], 1)
    torch.testing.assert_close(found, wanted)


def test_its_images_are_those_of_the_package(images, digits):
    train_x, test_x, train_y, test_y = images
    torch.testing.assert_close(train_x, digits.train_x.flatten(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(test_x, digits.test_x.flatten(1), atol=1e-5, rtol=1e-5)
    assert torch.equal(train_y, digits.train_y)
    assert torch.equal(test_y, digits.test_y)


def test_it_runs_as_a_script(example, tmp_path):
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, FILE, "2"], cwd=tmp_path, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trained for 2 epochs" in done.stdout
    for name in example.SCORES:
        assert re.search(rf"^{name} +-?\d+\.\d{{4}} +-?\d+\.\d{{4}}  RA\d: ", done.stdout, re.M), name


def test_it_is_one_short_file_of_its_own():
    text = FILE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    nodes = [*ast.walk(ast.parse(text))]
    names = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"torch", "sklearn"}
