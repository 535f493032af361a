"""Where and with what a result was made."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data import ImageData

PACKAGE = Path(__file__).resolve().parents[1]


def provenance_of_now(data: ImageData) -> dict[str, Any]:
    """Where and with what a result is made: date, versions, device, git state, data checksum; no path, no host name."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "numpy", "scikit-learn", "resalign-utils")},
        "device": _device_name(data.train_x.device),
        "threads": torch.get_num_threads(),
        "git": _git_state(),
        "data": data.checksum(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"


def _git_state() -> str | None:
    """Commit of the package's source, with "+changes" if it is not committed as it is; None outside a repository."""
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")  # fails for a copy inside another repository
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PACKAGE, check=True, capture_output=True, text=True)
    return done.stdout.strip()
