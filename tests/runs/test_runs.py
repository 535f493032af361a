"""A run is trained once, found again, and never loaded when anything about it is not as it was written."""

import ast
import builtins
import dataclasses
import errno
import getpass
import io
import json
import os
import re
import shutil
import socket
import subprocess
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from processes import ask_for_a_run
from safetensors.torch import load_file

import resalign_utils
import resalign_utils.training as training
from resalign_utils import DataConfig, ResNetConfig, RunConfig, TrainConfig, build_model, load_data, load_or_train
from resalign_utils.runs import RECIPE_VERSIONS, Recipe, _provenance, _run, get_or_make, runs_root, snapshot_epochs

CONFIG = RunConfig(DataConfig("digits", per_class=20), ResNetConfig(2, 8), TrainConfig(epochs=12, batch_size=64))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run, trained once; tests that damage it take a copy."""
    return load_or_train(CONFIG, root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run's folder, below ``tmp_path``, the root to load it from."""
    return Path(shutil.copytree(trained.folder, tmp_path / trained.folder.name))


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(_run, "train", lambda *_, **__: pytest.fail("it trained"))


def equal(one, other):
    """Whether two networks agree bit for bit, batch-norm statistics included."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Once


@pytest.mark.usefixtures("no_training")
def test_second_call_loads_what_the_first_trained(trained):
    again = load_or_train(CONFIG, root=trained.folder.parent)
    assert equal(again.model, trained.model)
    assert again.history == trained.history
    assert again.provenance == trained.provenance
    assert again.folder == trained.folder
    assert not again.model.training
    x = again.data.test_x
    assert torch.equal(again.model(x), trained.model(x))
    assert again.history.test_accuracy[-1] == resalign_utils.accuracy(again.model, x, again.data.test_y)


def test_two_processes_asking_at_once_train_once(tmp_path, spawn):
    log, start = tmp_path / "log", time.time() + 1
    children = [spawn(ask_for_a_run, CONFIG, tmp_path, log, start) for _ in range(2)]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    first, *weights = log.read_text().split()
    assert first == "train"
    assert len(weights) == 2
    assert len(set(weights)) == 1


def test_interrupted_run_is_continued_to_the_same_weights(trained, tmp_path, monkeypatch):
    epochs, train_epoch = [], training._loop._train_epoch

    def interrupted(model, data, optimizer, config, epoch, history, *rest):
        epochs.append(epoch)
        if epochs.count(7) == 1 and epoch == 7:
            raise KeyboardInterrupt
        train_epoch(model, data, optimizer, config, epoch, history, *rest)

    monkeypatch.setattr(training._loop, "_train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_or_train(CONFIG, root=tmp_path)
    run = load_or_train(CONFIG, root=tmp_path)
    assert epochs == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12]
    assert equal(run.model, trained.model)
    assert run.history == trained.history
    assert not (run.folder / "checkpoint.safetensors").exists()


def test_data_set_may_be_given_by_its_name():
    assert RunConfig("digits", CONFIG.model, CONFIG.train).data == DataConfig("digits")


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_numbers_of_other_libraries_name_the_same_run(kind):
    plain = DataConfig("digits", (3, 1), (5, 7), seed=1, label_noise=0.5)
    data = DataConfig("digits", kind([3, 1]), kind([5, 7]), seed=np.int64(1), label_noise=np.float32(0.5))
    assert data == plain
    assert changed(data=data) == changed(data=plain)
    assert DataConfig("digits", range(3)) == DataConfig("digits", (0, 1, 2))


@pytest.mark.parametrize("classes", ["01", (1.5, 0)])
def test_classes_that_make_no_sense_are_not_rounded(classes, tmp_path):
    with pytest.raises(ValueError, match="classes= with at least one label"):
        load_or_train(dataclasses.replace(CONFIG, data=DataConfig("digits", classes)), root=tmp_path)


def test_settings_go_to_the_part_that_has_them():
    config = RunConfig.of("digits", per_class=20, depth=3, width=8, kind="conv", epochs=5, lr=0.2, seed=4)
    assert config == RunConfig(
        DataConfig("digits", per_class=20), ResNetConfig(3, 8, kind="conv"), TrainConfig(epochs=5, lr=0.2, seed=4)
    )
    images = DataConfig("digits", seed=7)
    drawn = RunConfig.of(images, depth=2, width=8, label_noise=0.1)
    assert drawn.data == dataclasses.replace(images, label_noise=0.1)
    assert drawn.train == TrainConfig()


def test_unknown_setting_is_refused_with_those_there_are():
    fields = [f.name for kind in (DataConfig, ResNetConfig, TrainConfig) for f in dataclasses.fields(kind)]
    with pytest.raises(TypeError, match="No setting is called 'learning_rate'; expected some of ") as error:
        RunConfig.of("digits", depth=2, width=8, learning_rate=0.1)
    listed = re.findall(r"\w+", str(error.value).split("some of ")[1])
    assert listed == sorted(set(fields) - {"name"})
    with pytest.raises(TypeError, match="'name'"):
        RunConfig.of("digits", depth=2, width=8, name="mnist")
    with pytest.raises(TypeError, match="'width'"):
        RunConfig.of("digits", depth=2)


@pytest.mark.parametrize("download", [True, False])
def test_data_are_fetched_only_if_that_is_asked_for(download, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(_run, "load_data", lambda download, **how: asked.append(download) or load_data(**how))
    load_or_train(dataclasses.replace(CONFIG, train=TrainConfig(epochs=0)), root=tmp_path, download=download)
    assert asked == [download]


# Anything can be kept


def made(folder):
    (folder / "answer").write_text("42")


def test_anything_is_made_once_and_then_found(digits, tmp_path):
    recipe = Recipe("some.thing", {"a": 1, "b": (2, 3)}, ("data",), ("answer",))
    kept = get_or_make(recipe, made, data=digits, root=tmp_path)
    assert kept.file("answer").read_text() == "42"
    assert kept.folder == tmp_path / f"some.thing-{recipe.key}"
    again = get_or_make(recipe, lambda _: pytest.fail("it was made again"), data=digits, root=tmp_path)
    assert again == kept
    assert {path.name for path in tmp_path.iterdir()} == {kept.folder.name, f"{kept.folder.name}.lock"}


def test_other_settings_and_stages_are_other_things():
    recipe = Recipe("thing", {"a": 1}, ("data",), ("answer",))
    others = [dataclasses.replace(recipe, config={"a": 2}), dataclasses.replace(recipe, stages=("models",))]
    assert len({recipe.key, *(other.key for other in others)}) == 3


def test_what_was_not_made_whole_is_made_again(digits, tmp_path):
    recipe = Recipe("thing", {}, (), ("answer", "proof"))
    with pytest.raises(FileNotFoundError, match="proof"):
        get_or_make(recipe, made, data=digits, root=tmp_path)
    found = []

    def rest(folder):
        found.extend(path.name for path in folder.glob("answer"))
        (folder / "proof").write_text("")

    assert get_or_make(recipe, rest, data=digits, root=tmp_path).file("proof").exists()
    assert found == ["answer"]


# The key


def changed(**parts):
    return dataclasses.replace(CONFIG, **parts).key


def test_key_follows_every_part_of_the_configuration():
    others = [changed(data=DataConfig("digits")), changed(data=DataConfig("digits", per_class=20, seed=1))]
    others += [changed(model=ResNetConfig(2, 8, skip=False)), changed(model=ResNetConfig(3, 8))]
    others += [changed(train=dataclasses.replace(CONFIG.train, lr=0.2)), CONFIG.with_seed(1).key]
    assert len({CONFIG.key, *others}) == 7
    assert changed() == CONFIG.key
    assert re.fullmatch("[0-9a-f]{16}", CONFIG.key)
    assert changed(data=DataConfig("digits", per_class=[20] * 10)) == changed(
        data=DataConfig("digits", None, (20,) * 10)
    )


@pytest.mark.parametrize("stage", ["data", "models", "training"])
def test_key_follows_the_recipe_version_of_its_stages(stage, monkeypatch):
    before = CONFIG.key
    monkeypatch.setitem(RECIPE_VERSIONS, stage, RECIPE_VERSIONS[stage] + 1)
    assert CONFIG.key != before


def test_key_does_not_follow_other_stages(monkeypatch):
    before = CONFIG.key
    monkeypatch.setitem(RECIPE_VERSIONS, "linearization", 99)
    assert CONFIG.key == before


def test_key_follows_the_minor_version_of_torch_alone(monkeypatch):
    keys = {}
    for number in ("2.15.0", "2.15.0+cu128", "2.15.1", "2.16.0", "3.15.0"):
        monkeypatch.setattr(torch, "__version__", number)
        keys[number] = CONFIG.key
    assert keys["2.15.0"] == keys["2.15.0+cu128"] == keys["2.15.1"]
    assert len(set(keys.values())) == 3


def test_key_does_not_follow_root_or_device(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("RESALIGN_CACHE", str(tmp_path))
    assert trained.folder.name == f"digits-fc2-{CONFIG.key}"
    shutil.copytree(trained.folder, tmp_path / trained.folder.name)
    monkeypatch.setattr(_run, "train", lambda *_, **__: pytest.fail("it trained"))
    run = load_or_train(CONFIG, device=torch.device("cpu", 0))
    assert run.folder.name == trained.folder.name
    assert equal(run.model, trained.model)


# Where


def test_root_is_the_argument_or_the_variable_or_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESALIGN_CACHE", str(tmp_path / "variable"))
    assert runs_root(tmp_path / "argument") == tmp_path / "argument"
    assert runs_root() == tmp_path / "variable"
    monkeypatch.delenv("RESALIGN_CACHE")
    assert runs_root() == platformdirs.user_cache_path("resalign") / "runs"
    assert runs_root("~/runs") == Path.home() / "runs"


def test_unwritable_root_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot make .*give root= or RESALIGN_CACHE a writable folder") as error:
        load_or_train(CONFIG, root=tmp_path / "file" / "runs")
    assert str(tmp_path / "file" / "runs") in str(error.value)


# Read-only


@pytest.fixture
def read_only(tmp_path, monkeypatch):
    """Below ``tmp_path`` nothing can be made, written or removed, for root neither."""

    def guard(module, name, writes):
        original = getattr(module, name)

        def guarded(path, *arguments, **options):
            inside = isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(tmp_path)
            if inside and writes(*arguments, **options):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, *arguments, **options)

        monkeypatch.setattr(module, name, guarded)

    for name in ("mkdir", "replace", "rename", "unlink", "remove", "rmdir", "chmod", "utime"):
        guard(os, name, lambda *_, **__: True)
    guard(os, "open", lambda flags=0, *_, **__: flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    for module in (io, builtins):
        guard(module, "open", lambda mode="r", *_, **__: set(mode) & set("wax+"))


def listing(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.mark.usefixtures("no_training")
def test_whole_run_in_a_read_only_folder_is_loaded_and_nothing_beside_it_is_made(copy, trained, request):
    before = listing(copy.parent)
    request.getfixturevalue("read_only")
    with pytest.raises(OSError, match="Read-only"):
        (copy / "new").write_text("")
    run = load_or_train(CONFIG, root=copy.parent)
    assert equal(run.model, trained.model)
    assert equal(run.snapshot(5), trained.snapshot(5))
    assert equal(run.untrained, trained.untrained)
    [result] = resalign_utils.sweep([CONFIG], lambda run: run.history, root=copy.parent)
    assert result == trained.history
    assert listing(copy.parent) == before


@pytest.mark.usefixtures("no_training")
def test_whole_run_is_loaded_where_no_lock_can_be_had(copy, trained):
    copy.with_suffix(".lock").mkdir()
    assert equal(load_or_train(CONFIG, root=copy.parent).model, trained.model)


@pytest.mark.parametrize("there", ["nothing", "an unfinished run"])
@pytest.mark.usefixtures("no_training")
def test_run_that_is_not_whole_in_a_read_only_folder_is_refused_with_its_name(copy, there, request):
    (copy / "provenance.json").unlink()
    if there == "nothing":
        shutil.rmtree(copy)
    request.getfixturevalue("read_only")
    with pytest.raises(
        OSError, match=r"Cannot make .*: Read-only .*No finished run is there to be loaded; give root="
    ) as e:
        load_or_train(CONFIG, root=copy.parent)
    assert str(copy) in str(e.value)


# Damage


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


FILES = ("weights.safetensors", "snapshots/epoch-000005.safetensors", "history.json", "config.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.usefixtures("no_training")
def test_damaged_file_is_refused_with_its_name(copy, file, damage):
    damage(copy / file)
    with pytest.raises(OSError, match=r"is damaged: expected SHA-256 [0-9a-f]{64}, found .*to make it again") as error:
        load_or_train(CONFIG, root=copy.parent)
    assert str(copy / file) in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "{}", '{"files": {}}', '{"data": "", "files": {}}', "\xff"])
@pytest.mark.usefixtures("no_training")
def test_damaged_provenance_is_refused_with_its_name(copy, content):
    (copy / "provenance.json").write_text(content, encoding="latin-1")
    with pytest.raises(OSError, match=r"is damaged.*to make it again") as error:
        load_or_train(CONFIG, root=copy.parent)
    assert str(copy / "provenance.json") in str(error.value)


def test_snapshot_damaged_after_loading_is_refused_with_its_name(copy):
    run = load_or_train(CONFIG, root=copy.parent)
    flip(copy / "snapshots" / "epoch-000005.safetensors")
    with pytest.raises(OSError, match=r"epoch-000005.safetensors is damaged"):
        run.snapshot(5)


def test_damaged_checkpoint_of_an_unfinished_run_is_refused_with_its_name(tmp_path, trained):
    folder = tmp_path / trained.folder.name
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(OSError, match=r"checkpoint.safetensors is damaged"):
        load_or_train(CONFIG, root=tmp_path)


@pytest.mark.usefixtures("no_training")
def test_folder_of_another_run_is_refused_with_the_name_of_its_configuration(copy):
    other = CONFIG.with_seed(1)
    foreign = copy.rename(copy.with_name(f"digits-fc2-{other.key}"))
    with pytest.raises(OSError, match=r"config.json belongs to another run. Delete") as error:
        load_or_train(other, root=copy.parent)
    assert str(foreign) in str(error.value)


@pytest.mark.usefixtures("no_training")
def test_run_of_another_data_set_of_this_name_is_refused(copy, trained, monkeypatch):
    data = dataclasses.replace(trained.data, test_x=-trained.data.test_x)
    monkeypatch.setattr(_run, "load_data", lambda **_: data)
    text = f"'digits' here has checksum {data.checksum()}, the run in .* was made from {trained.data.checksum()}"
    with pytest.raises(ValueError, match=text):
        load_or_train(CONFIG, root=copy.parent)


# What is kept


def test_snapshots_lie_on_a_logarithmic_clock():
    assert snapshot_epochs(0) == [0]
    assert snapshot_epochs(1) == [0, 1]
    assert snapshot_epochs(12) == [0, 1, 2, 5, 10, 12]
    assert snapshot_epochs(200) == [0, 1, 2, 5, 10, 20, 50, 100, 200]


def test_untrained_twin_is_the_network_as_it_was_built(trained):
    assert trained.snapshot_epochs == [0, 1, 2, 5, 10, 12]
    built = build_model(CONFIG.model, trained.data, seed=CONFIG.train.seed)
    for one, other in zip(trained.untrained.parameters(), built.parameters(), strict=True):
        assert torch.equal(one, other)
    assert equal(trained.snapshot(12), trained.model)
    assert not trained.untrained.training
    states = [trained.snapshot(epoch).head[-1].weight for epoch in trained.snapshot_epochs]
    assert not any(torch.equal(one, two) for one, two in pairwise(states))


def test_snapshot_that_is_not_kept_is_refused_with_those_that_are(trained):
    text = r"No snapshot of epoch 7 is kept; choose one of \[0, 1, 2, 5, 10, 12\]"
    with pytest.raises(ValueError, match=text):
        trained.snapshot(7)


def test_untrained_run_of_zero_epochs_can_be_kept_too(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, train=TrainConfig(epochs=0))
    run = load_or_train(config, root=tmp_path)
    assert equal(run.model, run.untrained)
    assert run.history.epochs == 0
    monkeypatch.setattr(_run, "train", lambda *_, **__: pytest.fail("it trained"))
    load_or_train(config, root=tmp_path)


def strings(content):
    """All keys and values of a JSON document that are text."""
    match content:
        case dict():
            return [text for pair in content.items() for part in pair for text in strings(part)]
        case list():
            return [text for part in content for text in strings(part)]
        case str():
            return [content]
    return []


def test_provenance_says_where_from_and_nothing_about_the_machines_owner(trained):
    provenance = trained.provenance
    assert set(provenance) == {"date", "versions", "device", "threads", "git", "data", "seconds", "files"}
    assert set(provenance["versions"]) == {"python", "torch", "numpy", "scikit-learn", "resalign-utils"}
    assert provenance["versions"]["torch"] == version("torch")
    assert provenance["data"] == trained.data.checksum()
    assert provenance["seconds"] >= 0
    assert set(provenance["files"]) == {*FILES, *(f"snapshots/epoch-{n:06d}.safetensors" for n in (0, 1, 2, 10, 12))}
    for file in trained.folder.rglob("*.json"):
        texts = strings(json.loads(file.read_text()))
        assert not [text for text in texts if Path(text).is_absolute() or str(Path.home()) in text]
        words = {word for text in texts for word in re.split(r"[/\s@:]", text)}
        assert not words & {socket.gethostname(), getpass.getuser()}


def git(folder, *arguments):
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_git_state_is_that_of_the_packages_own_repository(tmp_path, monkeypatch):
    package = tmp_path / "site-packages"
    source = package / "runs" / "_run.py"
    source.parent.mkdir(parents=True)
    source.write_text("")
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(_provenance, "PACKAGE", package)
    assert _provenance._git_state() is None  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("site-packages\n")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-qm", "someone's project around an installed copy")
    assert _provenance._git_state() is None
    git(tmp_path, "add", "-f", "site-packages")
    git(tmp_path, "commit", "-qm", "the package itself")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert _provenance._git_state() == commit
    source.write_text("changed")
    assert _provenance._git_state() == commit + "+changes"


def test_git_state_is_asked_of_the_package():
    assert Path(resalign_utils.__file__).parent == _provenance.PACKAGE


SAFE = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}


def unsafe(source):
    """What in a file would run the code of a file that it reads, or write such a file."""
    found, safe = [], set()
    for node in ast.walk(ast.parse(source)):
        names = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
        found += names & {"joblib", "dill", "shelve"}
        if isinstance(node, ast.Call) and isinstance(called := node.func, ast.Attribute):
            key = (getattr(called.value, "id", ""), called.attr)
            given = {(word.arg, getattr(word.value, "value", None)) for word in node.keywords}
            safe |= {id(called)} if SAFE.get(key) in given else set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            wrong = pair in {*SAFE, ("torch", "save")} or (pair[0] == "pickle" and pair[1] != "UnpicklingError")
            found += [pair] if wrong else []
    return found, len(safe)


def test_nothing_is_pickled():
    """Loading a foreign file must not run its code."""
    for file in Path(resalign_utils.__file__).parent.rglob("*.py"):
        found, safe = unsafe(file.read_text())
        loads = [pair for pair in found if pair in SAFE]
        assert len(loads) == safe, file
        assert len(found) == len(loads), file


@pytest.mark.parametrize(
    "line", ["torch.load(f)", "np.load(f, allow_pickle=True)", "pickle.load(f)", "torch.save(a, f)", "import joblib"]
)
def test_what_would_pickle_is_seen(line):
    found, safe = unsafe(line)
    assert (len(found), safe) == (1, 0)


def test_files_are_read_by_anyone_with_safetensors_and_json(trained):
    weights = load_file(trained.folder / "weights.safetensors")
    assert torch.equal(weights["head.0.weight"], trained.model.head[0].weight)
    assert json.loads((trained.folder / "config.json").read_text())["model"]["depth"] == 2
