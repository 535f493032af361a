"""Networks by their four kinds of names, and their weights: each loaded whole, or refused."""

import importlib
import pickle
import re
from argparse import Namespace

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file

from resalign_utils.cli._networks import function_of, open_network
from resalign_utils.cli._refused import Refused
from resalign_utils.cli._weights import load_weights


def opened(spec, **given):
    options = {"weights": None, "download": False, "classes": None, "seed": 0, "device": "cpu"}
    return open_network(Namespace(model=spec, **{**options, **given}))


def same(model, state):
    mine = model.state_dict()
    return mine.keys() == state.keys() and all(torch.equal(mine[key], state[key]) for key in mine)


# ---- weights


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_state_of_torch_save_is_loaded(net, model, tmp_path, suffix):
    torch.save(model.state_dict(), tmp_path / f"net{suffix}")
    network = opened(f"{net}:Net", weights=tmp_path / f"net{suffix}")
    assert same(network.model, model.state_dict())
    assert not network.model.training
    assert network.weights == f"8 tensors of net{suffix}."


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: {"epoch": 3, "state_dict": state}, "found under 'state_dict'"),
        (lambda state: {"epoch": 3, "model": state}, "found under 'model'"),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, "the prefix 'module.' was taken off"),
        (lambda state: {f"_orig_mod.{key}": value for key, value in state.items()}, "the prefix '_orig_mod.' was"),
        (lambda state: {"model": {f"module._orig_mod.{key}": value for key, value in state.items()}}, "'_orig_mod.'"),
    ],
)
def test_what_training_scripts_put_around_a_state_is_understood(net, model, tmp_path, wrap, said):
    file = tmp_path / "net.pt"
    torch.save(wrap(model.state_dict()), file)
    fresh = function_of(f"{net}:Net")()
    assert said in load_weights(fresh, file)
    assert same(fresh, model.state_dict())


def change(state, **changes):
    return {key: value for key, value in {**state, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"head.bias": None}, "got 7: 1 missing: head.bias; 0 unexpected. Give the model"),
        ({"tail": torch.ones(1)}, "got 9: 0 missing; 1 unexpected: tail"),
        ({f"x{i}": torch.ones(1) for i in range(7)}, "7 unexpected: x0, x1, x2, x3, x4 and 2 more"),
        ({"head.bias": torch.ones(5)}, "got head.bias (5,) for (3,). Give the model that these weights are of; --cl"),
        ({"head.bias": torch.full((3,), torch.nan)}, "Expected finite weights in net.safetensors; got NaN or infinite"),
    ],
)
def test_a_state_of_another_network_is_refused(net, model, weights, changes, text):
    save_file(change(load_file(weights), **changes), weights)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(Refused, match=re.escape(text)):
        load_weights(model, weights)
    assert same(model, before)


class Evil:
    def __reduce__(self):
        return (print, ("this code ran",))


def test_a_pickle_that_holds_code_is_refused_and_not_run(model, tmp_path, capsys):
    file = tmp_path / "net.pt"
    file.write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(Refused, match=r"net\.pt, which torch reads only by running code that is in it"):
        load_weights(model, file)
    torch.save({"state_dict": model.state_dict(), "more": Evil()}, file)
    with pytest.raises(Refused, match="Where you trust it, load it yourself and save"):
        load_weights(model, file)
    assert "this code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("net.h5", b"x", "Expected weights in .safetensors, .pt, .pth, .bin, .ckpt; got net.h5. Save model.state_dict"),
        ("net.safetensors", b"x", "Expected a whole .safetensors file; got net.safetensors ("),
        ("net.pt", b"", "Expected a whole file of torch.save; got net.pt ("),
        ("none.pt", None, "Expected a file with weights; there is no file"),
    ],
)
def test_another_file_is_refused(model, tmp_path, name, content, text):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=re.escape(text)):
        load_weights(model, tmp_path / name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2], "Expected names and tensors; got list in net.pt"),
        ({}, "Expected names and tensors; got dict in net.pt"),
        ({"head.bias": 3}, "Expected tensors alone; got head.bias in net.pt. Save model.state_dict()"),
    ],
)
def test_a_file_without_a_state_is_refused(model, tmp_path, value, text):
    torch.save(value, tmp_path / "net.pt")
    with pytest.raises(Refused, match=re.escape(text)):
        load_weights(model, tmp_path / "net.pt")


def test_a_tied_weight_need_not_be_written_twice(tmp_path):
    def tied():
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    first, second = tied(), tied()
    save_file(
        {key: value for key, value in first.state_dict().items() if key != "1.weight"}, tmp_path / "a.safetensors"
    )
    load_weights(second, tmp_path / "a.safetensors")
    assert same(second, first.state_dict())


# ---- torchvision and timm


def test_torchvision_is_built_without_weights_and_says_so():
    network = opened("torchvision:resnet18", classes=3)
    assert network.untrained
    assert network.weights.startswith("THE NETWORK IS UNTRAINED")
    assert network.model.fc.out_features == 3
    assert same(opened("torchvision:resnet18", classes=3).model, network.model.state_dict())
    assert not same(opened("torchvision:resnet18", classes=3, seed=1).model, network.model.state_dict())


def test_opening_leaves_the_global_generator(random_state_untouched):
    opened("torchvision:resnet18", classes=3)


def test_nothing_is_downloaded_unless_asked(monkeypatch):
    asked, build = [], torchvision.models.get_model

    def get_model(name, weights, **more):
        asked.append(weights)
        return build(name, weights=None, **more)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    opened("torchvision:resnet18")
    network = opened("torchvision:resnet18", download=True)
    assert asked == [None, torchvision.models.ResNet18_Weights.DEFAULT]
    assert not network.untrained
    assert network.weights == "ResNet18_Weights.IMAGENET1K_V1, downloaded."


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "googlenet"])
def test_a_backbone_is_not_downloaded_either(monkeypatch, name):
    def fetched(url, *args, **more):
        raise AssertionError(f"{url} was fetched")

    for module in ("torch.hub", "torchvision.models._api"):
        monkeypatch.setattr(importlib.import_module(module), "load_state_dict_from_url", fetched)
    assert opened(f"torchvision:{name}").untrained


def test_timm_is_built_with_its_settings_and_weights_asked_for(monkeypatch):
    asked, build = [], timm.create_model

    def create_model(name, pretrained, **more):
        asked.append(pretrained)
        return build(name, pretrained=False, **more)

    monkeypatch.setattr(timm, "create_model", create_model)
    network = opened("timm:vit_tiny_patch16_224", classes=5)
    assert network.untrained
    assert network.model.head.out_features == 5
    assert network.pictures.crop == 224
    assert not opened("timm:vit_tiny_patch16_224", download=True).untrained
    assert asked == [False, True]


@pytest.mark.parametrize(
    ("spec", "given", "text"),
    [
        ("torchvision:resnet19", {}, "Expected a model of torchvision; got 'resnet19'. Did you mean resnet18, "),
        ("torchvision:zzzzzz", {}, "Expected a model of torchvision; got 'zzzzzz'. It lists "),
        ("timm:resnet19x", {}, "Expected a model of timm; got 'resnet19x'. Did you mean resnet"),
        ("torchvision:resnet18", {"download": True, "classes": 3}, "Expected --classes or --download; got both."),
        ("torchvision:resnet18", {"download": True, "weights": "w.pt"}, "Expected --weights or --download; got both."),
        ("hf:gpt2", {"download": True}, "Fetch the folder with `hf download gpt2 --local-dir FOLDER`"),
        ("hf:gpt2", {}, "Expected a folder with a config.json, or that file; got gpt2. If it is a name on the hub, "),
        ("nowhere.py:make", {}, "Expected FILE.py:FUNCTION; there is no file nowhere.py."),
    ],
)
def test_a_network_that_there_is_not_is_refused(spec, given, text):
    with pytest.raises(Refused, match=re.escape(text)):
        opened(spec, **given)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(Refused, match=r"timm: needs the package timm, which is not installed: pip install timm\."):
        opened("timm:resnet18")


# ---- a file


def test_a_function_gives_its_own_weights(net):
    network = opened(f"{net}:Net")
    assert not network.untrained
    assert network.weights == f"as {net}:Net gave them."


def test_a_file_may_import_its_neighbour(net):
    (net.parent / "neighbour_of_net.py").write_text("WIDTH = 5\n")
    net.write_text(net.read_text() + "\n\ndef wide():\n    from neighbour_of_net import WIDTH\n    return Net(WIDTH)\n")
    assert opened(f"{net}:wide").model.head.in_features == 5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothing", "Expected a function nothing in {net}; got nothing of that name. Add it."),
        ("number", "Expected a function number in {net}; got 3. Add it."),
        ("needs", "Expected a function needs without arguments; got one that needs width."),
        ("fails", "{net}:fails failed with KeyError: 'width'"),
        ("a_list", "Expected an nn.Module from {net}:a_list; got list. Return the network."),
    ],
)
def test_a_function_that_gives_no_network_is_refused(net, name, text):
    with pytest.raises(Refused, match=re.escape(text.format(net=net))):
        opened(f"{net}:{name}")


def test_a_file_that_fails_is_refused(net):
    net.write_text("1 / 0\n")
    with pytest.raises(Refused, match=r"net\.py failed with ZeroDivisionError: division by zero"):
        opened(f"{net}:Net")


@pytest.mark.parametrize(("given", "option"), [({"classes": 3}, "--classes"), ({"download": True}, "--download")])
def test_options_of_libraries_are_refused_for_a_file(net, given, option):
    with pytest.raises(Refused, match=f"Expected {option} with torchvision: or timm:"):
        opened(f"{net}:Net", **given)


# ---- Hugging Face


@pytest.fixture
def gpt2(tmp_path):
    torch.manual_seed(7)
    config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=11, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2", model


def test_a_folder_gives_model_and_weights(gpt2):
    folder, model = gpt2
    network = opened(f"hf:{folder}")
    assert not network.untrained
    assert type(network.model) is type(model)
    assert same(network.model, model.state_dict())
    assert network.weights == f"of {folder / 'model.safetensors'}."


def test_a_configuration_alone_gives_an_untrained_model(gpt2):
    folder, model = gpt2
    network = opened(f"hf:{folder / 'config.json'}")
    assert network.untrained
    assert not same(network.model, model.state_dict())
    network = opened(f"hf:{folder / 'config.json'}", weights=folder / "model.safetensors")
    assert same(network.model, model.state_dict())  # its head is tied to the embedding and not in the file
    assert not network.untrained


def test_a_folder_with_other_weights_is_refused(gpt2):
    folder, _ = gpt2
    state = load_file(folder / "model.safetensors")
    name = next(key for key in state if key.endswith("ln_f.weight"))
    save_file(
        {key: value for key, value in state.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(Refused, match=r"got 1 missing: transformer\.ln_f\.weight"):
        opened(f"hf:{folder}")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"Expected weights as \.safetensors in .*; got pytorch_model\.bin"):
        opened(f"hf:{folder}")
