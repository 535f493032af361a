"""A small network in a file, its weights, images, and a call of the command that keeps what it says."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from resalign_utils.cli import main
from resalign_utils.cli._networks import function_of

NET = '''\
import torch
from torch import nn


class Net(nn.Module):
    """Three blocks h + tanh(W h) on six numbers, three classes."""

    def __init__(self, width=6):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.head(x)


class Pictures(nn.Module):
    """Two convolutional blocks on coloured images, three classes."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.head(x.mean((2, 3)))


def needs(width):
    return Net(width)


def fails():
    raise KeyError("width")


def a_list():
    return [Net()]


number = 3
'''


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def resalign(capsys):
    def call(*argv):
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def net(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # a model's folder is put there
    file = tmp_path / "net.py"
    file.write_text(NET)
    return file


@pytest.fixture
def model(net):
    torch.manual_seed(3)
    return function_of(f"{net}:Net")()


@pytest.fixture
def weights(model, tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(model.state_dict(), file)
    return file


@pytest.fixture
def array(tmp_path):
    """24 inputs and their labels in three classes, as two files."""
    generator = np.random.default_rng(0)
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, generator.normal(size=(24, 6)))
    np.save(y, np.arange(24) % 3)
    return x, y


@pytest.fixture
def photos(tmp_path):
    """Twelve images of 10×8 in three sub-folders, and a file that is none."""
    generator, folder = np.random.default_rng(0), tmp_path / "photos"
    for i in range(12):
        place = folder / ("cat", "dog", "owl")[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 10, 3), dtype=np.uint8)).save(place / f"{i}.png")
    (folder / "cat" / "notes.txt").write_text("no image")
    return folder
