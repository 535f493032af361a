"""Weights and unfinished trainings on disk: safetensors and JSON, written atomically, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ._config import Checkpoint, History


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, then rename it: a kill leaves the old file or the new, never half."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid4().hex}"  # not tempfile: its files are for one user alone
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"Cannot write {path}: {reason}. Give a folder that exists or can be made, and has room."
        ) from error


def write_weights(path: Path, model: nn.Module) -> None:
    """Write a model's state as safetensors, atomically; what goes by several names is written under each of them.

    Raises:
        OSError: the file cannot be written.
        ValueError: an entry of the state is not a tensor.
    """
    tensors = _apart(model.state_dict())
    write_atomically(path, lambda file: save_file(tensors, file))


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, those that share memory (tied weights, a module placed twice) as copies.

    safetensors refuses shared memory, and its own way out leaves names out, which a strict loading then misses.
    """
    apart, seen = {}, set()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"Expected a model whose state is of tensors; entry '{name}' is of {type(value).__name__}. Keep it in "
                "a buffer, or drop get_extra_state."
            )
        memory, value = value.untyped_storage().data_ptr(), value.detach().cpu().contiguous()
        apart[name] = value.clone() if memory in seen else value
        seen.add(memory)
    return apart


def keep_snapshot(model: nn.Module, checkpoint: Checkpoint | None, epoch: int) -> None:
    if checkpoint is not None and epoch in checkpoint.snapshots:
        write_weights(checkpoint.snapshot_path(epoch), model)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: dict[str, Any], history: History
) -> None:
    tensors = {f"model.{name}": value for name, value in _apart(model.state_dict()).items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():  # SGD: momentum_buffer, None without momentum; Adam: step and two moments
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = value.contiguous()
    metadata = {"recipe": json.dumps(recipe), "history": json.dumps(asdict(history))}
    metadata["sha256"] = _sha256(tensors, metadata)
    write_atomically(path, lambda file: save_file(tensors, file, metadata=metadata))


def _sha256(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256((metadata["recipe"] + metadata["history"]).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def restore_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe: dict[str, Any]
) -> History:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if metadata["sha256"] != _sha256(tensors, metadata):
            raise ValueError("its SHA-256 is not the one noted in it")
        saved, history = json.loads(metadata["recipe"]), History(**json.loads(metadata["history"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise OSError(
            f"Checkpoint {path} is damaged or not a checkpoint of this package ({error}). Delete it to start again."
        ) from error
    if saved != recipe:
        different = sorted(key for key in {*saved, *recipe} if saved.get(key) != recipe.get(key))
        raise ValueError(
            f"Checkpoint {path} was written by a training with other {', '.join(different)}. Give the recipe it was "
            "started with, another path, or delete it to start again."
        )
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"Checkpoint {path} belongs to another network: {error}") from error
    _restore_optimizer(optimizer, tensors)
    return history


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            whole["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(whole)
