"""The command as a whole: exit codes, streams, help, and each verb end to end."""

import html
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import resalign_utils as ra
from resalign_utils.cli import _diagnose

FAST = ("--budget", "1s")


@pytest.mark.parametrize("argv", [["--help"], ["diagnose", "--help"], ["blocks", "--help"], ["poc", "--help"], []])
def test_help_and_mistakes_are_answered_without_torch(argv):
    code = f"import sys; sys.argv = ['resalign', *{argv}]\nfrom resalign_utils.cli import main\ntry: main()\nexcept"
    code += (
        " SystemExit as end: print('ended', end.code, [m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"ended {0 if argv else 2} []" in done.stdout
    assert not argv or "examples:\n  resalign " in done.stdout


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "resalign_utils", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"resalign {ra.__version__}\n")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["diagnose", "resnet18", "--random", "2"], "expected torchvision:NAME, timm:NAME, hf:FOLDER or FILE.py:FUNC"),
        (["diagnose", "net.py:make()", "--random", "2"], "expected torchvision:NAME"),
        (["diagnose", "timm:x"], "one of the arguments --images --array --text --random is required"),
        (["diagnose", "timm:x", "--random", "2", "--array", "x.npy"], "not allowed with argument"),
        (["diagnose", "timm:x", "--random", "0"], "expected a whole number from 1 on; got '0'"),
        (
            ["diagnose", "timm:x", "--random", "2", "--out", "report.pdf"],
            "a name that ends in .html, in .json, or in no",
        ),
        (["diagnose", "timm:x", "--random", "2", "--budget", "soon"], "expected a time as 90s, 5min or 1h; got 'soon'"),
        (["diagnose", "timm:x", "--random", "2", "--null", "zero"], "expected reinitialised, none or FILE.py:FUNCTION"),
        (["diagnose", "timm:x", "--random", "2", "--tokens", "first"], "expected auto, last, all, none, or positions"),
        (["diagnose", "timm:x", "--random", "2", "--mean", "0.5,,0.5"], "expected numbers with commas between them"),
        (["blocks", "timm:x", "--shape", "3,0,8"], "expected sides with commas between them"),
        (["poc", "table.csv", "--seeds", "2"], "expected a whole number from 3 on; got '2'"),
        (["poc", "table.csv", "--out", "folder"], "expected a name that ends in .csv, .html or .json"),
        (["weigh"], "invalid choice: 'weigh'"),
    ],
)
def test_a_call_that_cannot_be_read_ends_with_two(resalign, argv, text):
    answer = resalign(*argv)
    assert (answer.code, answer.out) == (2, "")
    assert text in answer.err.replace("\n", " ")


def test_diagnose_is_that_of_the_package(resalign, net, model, weights, array, tmp_path):
    x, y = array
    argv = ("diagnose", f"{net}:Net", "--weights", weights, "--array", x, "--labels", y, "--inputs", "24")
    answer = resalign(*argv, "--json", "--out", tmp_path / "kept", "--out", tmp_path / "all.json")
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    assert content == json.loads((tmp_path / "all.json").read_text())
    model.eval()
    inputs, labels = torch.from_numpy(np.load(x)).float(), torch.from_numpy(np.load(y))
    expected = ra.diagnose(model, inputs, labels=labels, budget="30s", progress=False)
    assert content["diagnosis"]["accuracy"] == pytest.approx(expected.accuracy)
    shown = [block["divergence_without_branch"] for block in content["diagnosis"]["blocks"]]
    assert shown == pytest.approx(expected.worth.divergence.tolist(), rel=1e-5)
    assert content["command"]["untrained"] is False
    assert content["command"]["inputs"] == f"24 of 24 inputs of {x}, each 6."
    assert "float64 was converted to the network's float32" in answer.err
    assert load_file(tmp_path / "kept" / "tensors.safetensors")["worth.divergence"].shape == (3,)


def test_diagnose_says_what_was_opened_before_what_was_found(resalign, net, weights, array):
    x, _ = array
    answer = resalign("diagnose", f"{net}:Net", "--weights", weights, "--array", x, "--null", "none", *FAST)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0] == f"Network: {net}:Net"
    assert lines[1] == "Weights: 8 tensors of net.safetensors."
    assert lines[2].startswith("Inputs: 20 of 24 inputs of ")
    assert "Net: 3 residual blocks, 20 inputs." in lines
    assert "(No untrained twin was asked for.)" in lines


def test_null_can_be_a_function(resalign, net, weights, array):
    x, _ = array
    argv = ("diagnose", f"{net}:Net", "--weights", weights, "--array", x, *FAST)
    answer = resalign(*argv, "--null", f"{net}:Net")
    assert "The null is a network that the given function made." in answer.out
    answer = resalign(*argv, "--null", f"{net}:a_list")
    assert answer.code == 1
    assert "an nn.Module from" in answer.err


def test_untrained_and_random_are_said_loudly_and_kept(resalign, tmp_path):
    argv = ("diagnose", "torchvision:resnet18", "--classes", "3", "--random", "2", "--size", "32", *FAST)
    answer = resalign(*argv, "--null", "none", "--out", tmp_path / "kept")
    assert answer.code == 0, answer.err
    assert "Weights: THE NETWORK IS UNTRAINED" in answer.out
    assert "Note: THE INPUTS ARE RANDOM" in answer.out
    notes = json.loads((tmp_path / "kept" / "diagnosis.json").read_text())["notes"]
    assert [note[:25] for note in notes[:2]] == ["THE NETWORK IS UNTRAINED:", "THE INPUTS ARE RANDOM: no"]


def test_blocks_are_those_of_the_finder(resalign, net):
    answer = resalign("blocks", f"{net}:Pictures", "--shape", "3,8,8", "--json")
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    assert [block["name"] for block in content["blocks"]] == ["(model)#1", "(model)#2"]
    assert content["blocks"][0]["in_shape"] == [3, 8, 8]
    text = resalign("blocks", f"{net}:Pictures", "--shape", "3,8,8", "--exclude", "(model)#1").out
    assert "1 residual blocks at 2 inputs of standard normal noise, each 3×8×8." in text


def test_a_network_that_adds_nothing_has_no_blocks_and_no_diagnosis(resalign, net, array):
    net.write_text("from torch import nn\n\ndef plain():\n    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))\n")
    answer = resalign("blocks", f"{net}:plain", "--array", array[0], "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["blocks"] == []
    note = json.loads(answer.out)["note"]
    assert note
    answer = resalign("diagnose", f"{net}:plain", "--array", array[0])
    assert answer.code == 1
    assert note in answer.err


def test_poc_is_that_of_the_package(resalign, tmp_path):
    table = tmp_path / "table.csv"
    x = np.random.default_rng(0).normal(size=(60, 3))
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(sold=np.where(x[:, 0] > 0, "yes", "no"))
    frame.to_csv(table, index=False)
    quick = ("--seeds", "3", "--depth", "2", "--width", "8", "--epochs", "1")
    outs = [tmp_path / name for name in ("runs.csv", "figure.html", "all.json")]
    wanted = [part for out in outs for part in ("--out", out)]
    answer = resalign("poc", table, "--target", "sold", *quick, "--json", *wanted)
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    expected = ra.proof_of_concept(table, target="sold", seeds=3, depth=2, width=8, epochs=1)
    assert content["recommendation"] == expected.recommendation
    assert [run["accuracy"] for run in content["runs"]] == [run.accuracy for run in expected.runs]
    assert content == json.loads(outs[2].read_text())
    assert len(pd.read_csv(outs[0])) == len(expected.runs)
    assert "plotly" in outs[1].read_text()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["poc", "{tmp}/none.csv", "--target", "sold"], "there is no {tmp}/none.csv"),
        (["poc", "{tmp}", "--target", "sold"], "Expected target= with a table only"),
        (["poc", "{tmp}", "--out", "{tmp}/nowhere/runs.csv"], "Expected a folder for runs.csv; there is no folder"),
        (["diagnose", "timm:x", "--random", "2", "--out", "{tmp}/file"], "got a file of that name"),
        (["diagnose", "timm:x", "--random", "2", "--out", "{tmp}/sub.json"], "got a folder of that name"),
        (
            ["diagnose", "timm:x", "--random", "2", "--device", "cuda:77"],
            "Expected a device of this machine; got 'cuda:",
        ),
        (["diagnose", "timm:x", "--random", "2", "--device", "abacus"], "Expected a device of this machine; got 'aba"),
    ],
)
def test_what_is_refused_ends_with_one_and_a_sentence(resalign, tmp_path, argv, text):
    (tmp_path / "file").write_text("x")
    (tmp_path / "sub.json").mkdir()
    answer = resalign(*[arg.format(tmp=tmp_path) for arg in argv])
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("resalign: ")
    assert text.format(tmp=tmp_path) in answer.err


def test_a_traceback_can_be_asked_for(tmp_path):
    argv = [
        sys.executable,
        "-m",
        "resalign_utils",
        "poc",
        str(tmp_path / "none.csv"),
        "--target",
        "sold",
        "--traceback",
    ]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr


def test_an_interrupted_command_says_so(resalign, monkeypatch, net, array):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(_diagnose, "diagnose", interrupted)
    answer = resalign("diagnose", f"{net}:Net", "--array", array[0])
    assert answer.code == 130
    assert answer.err == "resalign: interrupted, nothing was written.\n"


def test_the_report_holds_the_notes_of_the_command(resalign, net, array, tmp_path):
    argv = ("diagnose", f"{net}:Net", "--array", array[0], "--null", "none", *FAST, "--out", tmp_path / "report.html")
    assert resalign(*argv).code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The array's float64 was converted to the network's float32." in html.unescape(page)  # a note of the command


def test_what_reads_the_output_may_stop(net):
    command = f"{sys.executable} -m resalign_utils blocks {net}:Pictures --shape 3,8,8 | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stderr == ""
