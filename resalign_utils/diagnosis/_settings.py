"""Under which settings and versions a diagnosis was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from ..residuals import Inputs


def settings_of(model: nn.Module, inputs: Inputs, *, stages: Mapping[str, float], **given: Any) -> dict[str, Any]:
    """Settings, seconds of each stage, and versions, for a report."""
    device = inputs.data.device
    return {
        **{
            name: value if isinstance(value, int | float | str | None) else list(value) for name, value in given.items()
        },
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "input_shape": list(inputs.data.shape),
        "dtype": str(next((p.dtype for p in model.parameters()), inputs.data.dtype)).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "seconds": dict(stages),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "resalign_utils": _version("resalign-utils"),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # used from a folder that is not installed
        return "not installed"
