"""From ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER`` or ``FILE.py:FUNCTION`` to a network in eval mode."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ._pictures import Preparation
from ._refused import Refused, refused
from ._weights import load_weights

UNTRAINED = "THE NETWORK IS UNTRAINED: no --weights were given, so it has the random ones of its initialisation."


@dataclass(frozen=True)
class Network:
    """A network that was opened.

    Attributes:
        model: in eval mode, on its device.
        spec: as it was asked for.
        weights: a sentence on where its weights came from.
        untrained: whether they are known to be those of its initialisation.
        pictures: how its own images are prepared, None where that is not known.
        folder: of an ``hf:`` network, which may hold a tokenizer and an image processor.
    """

    model: nn.Module
    spec: str
    weights: str
    untrained: bool
    pictures: Preparation | None = None
    folder: Path | None = None


def open_network(args: Namespace) -> Network:
    """Build a network, load its weights, put it on a device; the global random generator is left as it was.

    Args:
        args: ``model``, the network as the command line takes it; ``weights``, a file or None; ``download``, whether
            torchvision or timm may fetch what they offer; ``classes`` of its head, None for its own; ``seed`` of an
            untrained network's weights; ``device``, a name of torch's.

    Raises:
        Refused: there is no such model, file, function or device; options that do not go together; the weights do not
            fit.
    """
    spec, weights, classes, download = args.model, args.weights, args.classes, args.download
    place = device_of(args.device)
    if download and weights is not None:
        raise refused("--weights or --download", "both", "Leave one out.")
    kind, _, name = spec.partition(":")
    build = {"torchvision": _torchvision, "timm": _timm, "hf": _hf}.get(kind)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)  # torch.manual_seed would reseed GPUs too
        network = _file(spec, classes, download) if build is None else build(name, classes, download, weights)
    said, untrained = network.weights, network.untrained
    if weights is not None:
        said, untrained = load_weights(network.model, weights), False
    model = network.model.eval().to(place)
    return Network(model, spec, said, untrained, network.pictures, network.folder)


def device_of(name: str) -> torch.device:
    """The device of this name, if this machine has it.

    Raises:
        Refused: it has not, or there is no such name.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says so in either way
        why = str(error).splitlines()[0].rstrip(".")
        raise refused("a device of this machine", f"{name!r} ({why})", "Use --device cpu.") from error
    return device


def function_of(spec: str) -> Callable[[], nn.Module]:
    """The function of ``FILE.py:FUNCTION``, checked to return a module. The file's code is run.

    Raises:
        Refused: there is no such file or function; the file fails.
    """
    path, _, name = spec.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise Refused(f"Expected FILE.py:FUNCTION; there is no file {file}.")
    made = getattr(_run(file), name, None)
    if not callable(made):
        raise refused(f"a function {name} in {file}", "nothing of that name" if made is None else repr(made), "Add it.")
    try:
        needed = [p.name for p in inspect.signature(made).parameters.values() if _must_be_given(p)]
    except ValueError:  # a builtin says nothing of its arguments
        needed = []
    if needed:
        fix = "Give them values in a function of their own."
        raise refused(f"a function {name} without arguments", f"one that needs {', '.join(needed)}", fix)

    def make() -> nn.Module:
        try:
            model = made()
        except Exception as error:  # whatever a stranger's code does
            raise Refused(f"{spec} failed with {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise refused(f"an nn.Module from {spec}", type(model).__name__, "Return the network.")
        return model

    return make


def _must_be_given(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _run(file: Path) -> ModuleType:
    folder = str(file.resolve().parent)
    if folder not in sys.path:  # it may import its neighbours, as `python FILE.py` may, also when it is called later
        sys.path.insert(0, folder)
    name = f"_resalign_model_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise refused("a file of Python", str(file), "Give its name the end .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's code does
        raise Refused(f"{file} failed with {type(error).__name__}: {error}") from error
    return module


def _file(spec: str, classes: int | None, download: bool) -> Network:
    if classes is not None or download:
        option = "--download" if download else "--classes"
        raise refused(
            f"{option} with torchvision: or timm:", spec, "Let the function build the network as it is to be."
        )
    return Network(function_of(spec)(), spec, f"as {spec} gave them.", untrained=False)


def _torchvision(name: str, classes: int | None, download: bool, weights: Path | None) -> Network:
    from torchvision import models

    known = models.list_models()
    if name.lower() not in known:
        raise refused("a model of torchvision", repr(name), _nearest(name, known))
    offered = models.get_model_weights(name).DEFAULT
    takes = inspect.signature(models.get_model_builder(name)).parameters
    more: dict[str, Any] = {}
    if not download and "weights_backbone" in takes:  # by itself it is fetched, also where weights=None
        more["weights_backbone"] = None
    if not download and name.lower() in ("googlenet", "inception_v3"):  # these warn unless they are told how to begin
        more["init_weights"] = True
    if classes is not None:
        if download:
            raise refused("--classes or --download", "both", "The weights that are offered have a head of their own.")
        more["num_classes"] = classes
    model: nn.Module = models.get_model(name, weights=offered if download else None, **more)
    said = f"{offered}, downloaded." if download else UNTRAINED
    return Network(model, name, said, not download, Preparation.of_torchvision(offered.transforms(), name))


def _timm(name: str, classes: int | None, download: bool, weights: Path | None) -> Network:
    timm = optional("timm", "timm:")
    if not timm.is_model(name):
        raise refused("a model of timm", repr(name), _nearest(name, timm.list_models()))
    if classes is not None and download:
        raise refused("--classes or --download", "both", "The weights that are offered have a head of their own.")
    more = {} if classes is None else {"num_classes": classes}
    model = timm.create_model(name, pretrained=download, **more)
    said = (
        f"those that timm offers as {model.pretrained_cfg.get('tag') or name}, downloaded." if download else UNTRAINED
    )
    config = import_module("timm.data").resolve_model_data_config(model)
    return Network(model, name, said, not download, Preparation.of_timm(config, name))


def _hf(name: str, classes: int | None, download: bool, weights: Path | None) -> Network:
    if download:
        fix = f"Fetch the folder with `hf download {name} --local-dir FOLDER`, then give hf:FOLDER."
        raise refused("--download with torchvision: or timm:", f"hf:{name}", fix)
    path = Path(name)
    folder, alone = (path.parent, True) if path.is_file() else (path, False)
    if not (folder / "config.json").is_file() or (alone and path.name != "config.json"):
        fix = f"If it is a name on the hub, fetch it with `hf download {name} --local-dir FOLDER`, then give hf:FOLDER."
        raise refused("a folder with a config.json, or that file", name, fix)
    library = optional("transformers", "hf:")
    more = {} if classes is None else {"num_labels": classes}
    config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **more)
    if getattr(config, "use_pretrained_backbone", False):  # it would be fetched
        config.use_pretrained_backbone = False
    kind = _class_of(library, config, path)
    stored = sorted(file.name for file in folder.glob("*.safetensors"))
    if alone or weights is not None or not stored:
        others = [] if alone else [f.name for f in sorted(folder.iterdir()) if f.suffix in (".bin", ".h5", ".msgpack")]
        if others and weights is None:
            fix = "Convert it to safetensors, or name the file with --weights."
            raise refused(f"weights as .safetensors in {folder}", others[0], fix)
        return Network(kind(config), name, UNTRAINED, True, _of_config(config, name), None if alone else folder)
    model, info = kind.from_pretrained(
        folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    wrong = {key: sorted(map(str, info[f"{key}_keys"])) for key in ("missing", "unexpected", "mismatched")}
    if any(wrong.values()):
        got = "; ".join(f"{len(keys)} {key}: {', '.join(keys[:5])}" for key, keys in wrong.items() if keys)
        raise refused(f"the weights of {kind.__name__} in {folder}", got, "Give the folder of one whole model.")
    return Network(model, name, f"of {folder / stored[0]}.", False, _of_config(config, name), folder)


def _class_of(library: Any, config: Any, path: Path) -> Any:
    """The class that the configuration names; its library's plain model if it names none."""
    named = config.architectures or []
    if not named:
        return library.models.auto.modeling_auto.MODEL_MAPPING[type(config)]
    kind = getattr(library, named[0], None)
    if kind is None:
        raise refused(f"a class of transformers in {path}", named[0], "Build it in a FILE.py:FUNCTION.")
    return kind


def _of_config(config: Any, name: str) -> Preparation | None:
    size, channels = getattr(config, "image_size", None), getattr(config, "num_channels", None)
    if not isinstance(size, int) or not isinstance(channels, int):
        return None
    return Preparation(size, size, (0.0,) * channels, (1.0,) * channels, "bilinear", f"the size of {name}", known=False)


def optional(module: str, kind: str) -> ModuleType:
    """A library that only some networks need.

    Raises:
        Refused: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise Refused(f"{kind} needs the package {module}, which is not installed: pip install {module}.") from error


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    return f"Did you mean {', '.join(near)}?" if near else f"It lists {len(known)}, as {known[0]} and {known[-1]}."
