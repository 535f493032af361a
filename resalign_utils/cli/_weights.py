"""Trained weights from a file into a network: read without running code, and every key accounted for."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ._refused import Refused, refused

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
NESTED = (
    "state_dict",
    "model_state_dict",
    "model",
)  # under which a training script puts the state, beside other things
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
SHOWN = 5


def load_weights(model: nn.Module, file: Path) -> str:
    """Load a file's weights into a network, all of them.

    Args:
        model: the network; it is changed in place.
        file: .safetensors, or what ``torch.load(weights_only=True)`` reads.

    Returns:
        A sentence on what was loaded.

    Raises:
        Refused: no such file, another format, code in the pickle, keys that are missing, too many, or of other shapes.
    """
    state, how = _state(file)
    names = model.state_dict()
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state) and not any(key.startswith(prefix) for key in names):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            how.append(f"the prefix {prefix!r} was taken off")
    _check(model, names, state, file)
    model.load_state_dict(state, strict=False)  # strict in all that counts: _check
    said = f" ({', '.join(how)})" if how else ""
    return f"{len(state)} tensors of {file.name}{said}."


def _state(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    if not file.is_file():
        raise Refused(f"Expected a file with weights; there is no file {file}.")
    suffix, how = file.suffix.lower(), list[str]()
    if suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file), how
        except SafetensorError as error:
            raise refused("a whole .safetensors file", f"{file.name} ({error})", "Save or copy it again.") from error
    if suffix not in PICKLED:
        formats = f".safetensors, {', '.join(PICKLED)}"
        raise refused(f"weights in {formats}", file.name, "Save model.state_dict() with safetensors.torch.save_file.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what it cannot read is refused below
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        why = str(error).strip().splitlines()[0] if "Unsupported" not in str(error) else "it holds more than tensors"
        raise refused(
            "a file that holds tensors alone",
            f"{file.name}, which torch reads only by running code that is in it ({why.rstrip('.')})",
            "Where you trust it, load it yourself and save model.state_dict().",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # cut off, or no file of torch
        raise refused("a whole file of torch.save", f"{file.name} ({error})", "Save or copy it again.") from error
    for name in NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
            how.append(f"found under {name!r}")
    if not isinstance(loaded, Mapping) or not loaded:
        raise refused("names and tensors", f"{type(loaded).__name__} in {file.name}", "Save model.state_dict().")
    odd = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if odd:
        fix = f"Save model.state_dict(), alone or under {NESTED[0]!r}."
        raise refused("tensors alone", f"{_few(odd)} in {file.name}", fix)
    return {str(key): value for key, value in loaded.items()}, how


def _check(model: nn.Module, names: Mapping[str, Tensor], state: Mapping[str, Tensor], file: Path) -> None:
    loaded = {names[key].data_ptr() for key in state if key in names and names[key].numel()}
    missing = [
        key
        for key, value in names.items()
        # a tied weight is written under one of its names; the counter of old batch norms does nothing in eval mode
        if key not in state and value.data_ptr() not in loaded and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in names]
    if missing or unexpected:
        raise refused(
            f"the {len(names)} keys of {type(model).__name__} in {file.name}",
            f"{len(state)}: {len(missing)} missing{_few(missing, ': ')}; {len(unexpected)} unexpected"
            f"{_few(unexpected, ': ')}",
            "Give the model that these weights are of.",
        )
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(names[key].shape)}"
        for key, value in state.items()
        if value.shape != names[key].shape
    ]
    if shapes:
        fix = "Give the model that these weights are of; --classes C if only the head differs."
        raise refused(f"tensors of the shapes of {type(model).__name__}", _few(shapes), fix)
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise refused(
            f"finite weights in {file.name}", f"NaN or infinite in {_few(broken)}", "Take another checkpoint."
        )


def _few(names: list[str], lead: str = "") -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return lead + ", ".join(names[:SHOWN]) + rest if names else ""
