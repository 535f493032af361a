"""Readers of the files of the named data sets, as their publishers lay them out."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from ._images import value_error

IMAGENETTE = {  # folder of a class → its name, in the order of the labels
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


class Raw(NamedTuple):
    """A whole data set as its files hold it; pixels are whole numbers in 0..white."""

    train_x: Tensor  # (n, c, h, w) uint8
    train_y: Tensor  # (n,) int64
    test_x: Tensor
    test_y: Tensor
    class_names: tuple[str, ...]
    source: str
    white: int = 255


def _load_digits(root: Path, download: bool) -> Raw:
    """Split scikit-learn's digits, stratified: 35 to 37 test images of each class, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    train_x, test_x = (torch.from_numpy(x).to(torch.uint8).reshape(-1, 1, 8, 8) for x in parts[:2])
    train_y, test_y = (torch.from_numpy(y).long() for y in parts[2:])
    return Raw(train_x, train_y, test_x, test_y, tuple("0123456789"), "scikit-learn load_digits", white=16)


def _load_idx(name: str, class_name: str, root: Path, download: bool) -> Raw:
    """Read the four IDX files of MNIST or Fashion-MNIST."""
    from torchvision import datasets

    dataset, reader = getattr(datasets, class_name), datasets.mnist
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    files = [root / class_name / "raw" / f"{kind}-ubyte" for kind in kinds]
    if download and not all(file.is_file() for file in files):
        _download(dataset, name, root)
    reads = (reader.read_image_file, reader.read_label_file) * 2
    tensors = [_read_idx(read, file, name, root) for read, file in zip(reads, files, strict=True)]
    for i in (0, 2):
        x, y = tensors[i : i + 2]  # (n, 28, 28), (n,)
        if x.shape != (len(y), 28, 28):
            expected = f"shape ({len(y)}, 28, 28), one image per label"
            raise _damaged(files[i], expected, tuple(x.shape), name, root)
        if y.max() > 9:
            raise _damaged(files[i + 1], "labels in 0..9", f"label {int(y.max())}", name, root)
    train_x, train_y, test_x, test_y = tensors
    names = tuple(dataset.classes) if name == "fashion_mnist" else tuple("0123456789")
    return Raw(train_x[:, None], train_y, test_x[:, None], test_y, names, f"torchvision {class_name}")


def _read_idx(read: Callable[[str], Tensor], file: Path, name: str, root: Path) -> Tensor:
    """Read one IDX file with torchvision's reader, whose errors do not say which file."""
    if not file.is_file():
        raise _missing(file, name, root)
    try:
        return read(str(file))
    except (AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(file, "a whole IDX file", f"{type(error).__name__} {error}", name, root) from error


def _load_cifar(name: str, class_name: str, root: Path, download: bool) -> Raw:
    """Read the pickled batches of CIFAR; nothing is unpickled before its MD5 sum was found right."""
    from torchvision import datasets

    dataset = getattr(datasets, class_name)
    if download:
        _download(dataset, name, root)
    meta = (dataset.meta["filename"], dataset.meta["md5"])
    for file_name, md5 in [*dataset.train_list, *dataset.test_list, meta]:
        file = root / dataset.base_folder / file_name
        if not file.is_file():
            raise _missing(file, name, root)
        if not datasets.utils.check_integrity(file, md5):
            raise _damaged(file, f"MD5 sum {md5}", datasets.utils.calculate_md5(file), name, root)
    with warnings.catch_warnings():
        # NumPy 2.4.0 to 2.4.4 warn of how Python 2 pickled an array; it is read rightly (pytorch/vision#9340).
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        train, test = dataset(root, train=True), dataset(root, train=False)
    train_x, test_x = (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test))
    train_y, test_y = (torch.tensor(part.targets) for part in (train, test))
    return Raw(train_x, train_y, test_x, test_y, tuple(train.classes), f"torchvision {class_name}")


def _load_imagenette(root: Path, download: bool) -> Raw:
    """Read Imagenette; its `val` folder is the test set. Decoding takes tens of seconds on two cores."""
    from torchvision.datasets import Imagenette

    folder = root / "imagenette2-160"
    if download and not folder.is_dir():
        _download(partial(Imagenette, size="160px"), "imagenette", root)

    def read(part: str) -> tuple[Tensor, Tensor]:
        if not (folder / part).is_dir():
            raise _missing(folder / part, "imagenette", root)
        files, labels = zip(*_image_files(folder / part, root), strict=True)
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
            x = list(pool.map(partial(_read_jpeg, root=root), files))
        return torch.stack(x), torch.tensor(labels)  # (n, 3, 32, 32), (n,)

    return Raw(*read("train"), *read("val"), tuple(IMAGENETTE.values()), "torchvision Imagenette 160px")


def _image_files(folder: Path, root: Path) -> list[tuple[str, int]]:
    """The images below the ten folders of classes with their labels, in the order of their names.

    Hidden files and folders are not the data set's: in `.ipynb_checkpoints` Jupyter keeps copies of images, and what
    macOS calls `._name.JPEG` is none.
    """
    from torchvision.datasets.folder import make_dataset

    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    try:
        if classes != [*IMAGENETTE]:
            raise FileNotFoundError(f"{len(classes)} folders: {', '.join(classes)}")
        labels = {name: label for label, name in enumerate(classes)}
        return [*make_dataset(folder, labels, is_valid_file=lambda file: _is_image(Path(file).relative_to(folder)))]
    except FileNotFoundError as error:
        expected = f"its ten folders {', '.join(IMAGENETTE)} of .jpeg files"
        raise _damaged(folder, expected, error, "imagenette", root) from error


def _is_image(file: Path) -> bool:
    return file.suffix.lower() == ".jpeg" and not any(part.startswith(".") for part in file.parts)


def _read_jpeg(file: str, root: Path) -> Tensor:
    """Return one image (3, 32, 32), uint8, resized and cut as the head of this file says."""
    from PIL import Image
    from torchvision.transforms import functional

    try:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
    except OSError as error:  # not an image, or cut off
        raise _damaged(Path(file), "a whole JPEG image", error, "imagenette", root) from error
    pixels: Tensor = functional.pil_to_tensor(functional.center_crop(functional.resize(rgb, 32), [32, 32]))
    return pixels


LOADERS: dict[str, Callable[[Path, bool], Raw]] = {
    "digits": _load_digits,
    "mnist": partial(_load_idx, "mnist", "MNIST"),
    "fashion_mnist": partial(_load_idx, "fashion_mnist", "FashionMNIST"),
    "cifar10": partial(_load_cifar, "cifar10", "CIFAR10"),
    "cifar100": partial(_load_cifar, "cifar100", "CIFAR100"),
    "imagenette": _load_imagenette,
}


def _download(dataset: Callable[..., Any], name: str, root: Path) -> None:
    try:
        dataset(root, download=True)
    except (RuntimeError, URLError) as error:
        fix = "Check the network, or copy the files there."
        raise ConnectionError(f"Cannot download {name} into {root}: {error}. {fix}") from error


def _command(name: str, root: Path) -> str:
    """Return the line for a terminal that downloads `name`."""
    call = f'load_data("{name}", root={json.dumps(str(root))}, download=True)'
    return "python -c " + shlex.quote(f"from resalign_utils import load_data; {call}")


def _missing(file: Path, name: str, root: Path) -> FileNotFoundError:
    fix = f"Name another folder by root= or RESALIGN_DATA, or download: {_command(name, root)}"
    return FileNotFoundError(f"Expected {name} in the folder {root}; there is no {file}. {fix}")


def _damaged(file: Path, expected: str, got: object, name: str, root: Path) -> ValueError:
    fix = f"Delete it (and the archive it came from) and download again: {_command(name, root)}"
    return value_error(f"{expected} in the damaged {file}", str(got), fix)
