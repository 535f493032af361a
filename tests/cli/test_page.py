"""The commands that the README, the page and the help show are run, or at least read, as they stand there."""

import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from resalign_utils.cli import _parser
from resalign_utils.cli._networks import function_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "command_line.md"


def commands(path):
    blocks = re.findall(r"^```bash\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("resalign ")]


@pytest.fixture
def desk(net, photos, tmp_path, monkeypatch):
    """A folder that holds what the commands name."""
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(# net\.py\n.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    net.write_text(code)
    torch.save(function_of("net.py:make")().state_dict(), "net.pt")
    save_file(resnet18(num_classes=3).state_dict(), "w.safetensors")
    generator = np.random.default_rng(0)
    np.save("x.npy", generator.normal(size=(12, 20)).astype(np.float32))
    np.save("y.npy", np.arange(12) % 3)
    x = generator.normal(size=(60, 2))
    table = pd.DataFrame(x, columns=["a", "b"]).assign(sold=np.where(x[:, 0] > 0, "yes", "no"))
    table.to_csv("table.csv", index=False)


@pytest.mark.parametrize("page", ["README.md", "book/command_line.md"])
def test_commands_on_pages_run(resalign, desk, page):
    found = commands(ROOT / page)
    assert {command.split()[1] for command in found} == {"blocks", "diagnose", "poc"}
    for command in found:
        argv = shlex.split(command, comments=True)[1:]
        answer = resalign(*argv, *(["--budget", "1s"] if argv[0] == "diagnose" else []))
        assert answer.code == 0, (command, answer.err)
        for name in (argv[i + 1] for i, part in enumerate(argv) if part == "--out"):
            assert Path(name).exists(), command


def test_examples_of_the_help_can_be_read():
    texts = (_parser.TOP, _parser.DIAGNOSE, _parser.BLOCKS, _parser.POC)
    lines = [line.strip() for text in texts for line in text.splitlines() if line.startswith("  resalign ")]
    assert len(lines) == 12
    for line in lines:
        assert _parser.parser().parse_args(shlex.split(line)[1:]).verb == line.split()[1]


def test_every_option_is_explained():
    verbs = _parser.parser()._subparsers._group_actions[0].choices
    assert {*verbs} == {"diagnose", "blocks", "poc"}
    assert all(action.help for verb in verbs.values() for action in verb._actions)


def test_the_command_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["resalign"].partition(":")
    assert callable(getattr(import_module(module), function))
