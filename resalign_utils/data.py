"""Named image data sets as tensors in memory, and a door for one's own.

    digits         1437 + 360    (1, 8, 8)    Alpaydin & Kaynak 1998, UCI, doi:10.24432/C50P49
    mnist          60000 + 10000 (1, 28, 28)  LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11)
    fashion_mnist  60000 + 10000 (1, 28, 28)  Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747
    cifar10        50000 + 10000 (3, 32, 32)  Krizhevsky 2009, technical report, University of Toronto
    cifar100       50000 + 10000 (3, 32, 32)  the same; its 100 fine labels
    imagenette     9469 + 3925   (3, 32, 32)  Howard 2019, github.com/fastai/imagenette (from ImageNet)

These are training + test images and their shape (c, h, w). `digits` is scikit-learn's copy and comes with it,
split once and for all; the others are read from torchvision's own folder layout. Imagenette's 160-pixel JPEGs
come to 32×32: the shorter side to 32 (Pillow's antialiased bilinear filter), then the middle is cut out.

"""

import hashlib
import json
import math
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import numpy as np
import platformdirs
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A data set for classification, wholly in memory on one device.

    Attributes:
        name: name of the data set.
        train_x: training images (n, c, h, w), float32.
        train_y: training labels (n,), int64 in 0..num_classes-1.
        test_x: test images (m, c, h, w), float32.
        test_y: test labels (m,), int64.
        num_classes: number of classes C.
        mean: what was subtracted from every pixel; 0 if not normalized.
        std: what every pixel was then divided by; 1 if not normalized.
        class_names: C names, in the order of the labels.
        source: where the images came from; never a path of this machine.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int
    mean: float
    std: float
    class_names: tuple[str, ...]
    source: str

    @classmethod
    def from_tensors(
        cls,
        train_x: Tensor,
        train_y: Tensor,
        test_x: Tensor,
        test_y: Tensor,
        *,
        name: str,
        normalize: bool = True,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        source: str = "tensors",
    ) -> "ImageData":
        """Make a data set of one's own tensors, after checking them.

        Args:
            train_x: images (n, c, h, w), float32, in any unit.
            train_y: labels (n,), int64 in 0..C-1.
            test_x: images (m, c, h, w), float32, on the same device.
            test_y: labels (m,), int64.
            name: name of the data set.
            normalize: subtract the mean and divide by the deviation of all pixels of `train_x`; if False the
                tensors are kept as they are, without a copy.
            num_classes: C; left out, the number of `class_names`, or else the largest training label + 1.
            class_names: C names; left out, the labels as text.
            source: where the images came from.

        Raises:
            ValueError: for anything but finite images and matching labels of these types and shapes.
        """
        _check_tensors({"train_x": train_x, "train_y": train_y, "test_x": test_x, "test_y": test_y})
        if num_classes is None:
            num_classes = len(class_names) if class_names else int(train_y.max()) + 1
        names = tuple(class_names or map(str, range(num_classes)))
        if len(names) != num_classes:
            raise _error(f"{num_classes} class_names", f"{len(names)}", "give one name per class")
        for key, y in (("train_y", train_y), ("test_y", test_y)):
            if y.min() < 0 or y.max() >= num_classes:
                came, fix = f"labels from {int(y.min())} to {int(y.max())}", "relabel, or set num_classes"
                raise _error(f"{key} in 0..{num_classes - 1}", came, fix)
        mean, std = 0.0, 1.0
        if normalize:
            pixels = train_x.cpu().double()  # some devices have no float64
            mean, std = pixels.mean().item(), pixels.std(correction=0).item()
            train_x, test_x = _normalized(train_x, mean, std), _normalized(test_x, mean, std)
        return cls(name, train_x, train_y, test_x, test_y, num_classes, mean, std, names, source)

    def __repr__(self) -> str:
        counts = f"{len(self.train_y)} training and {len(self.test_y)} test images {self.shape}"
        return f"ImageData({self.name!r}: {counts}, {self.num_classes} classes, on {self.train_x.device})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        c, h, w = self.train_x.shape[1:]
        return c, h, w

    def to(self, device: torch.device | str) -> "ImageData":
        """Return the same data set on `device`; this one stays where it is."""
        tensors = {key: getattr(self, key).to(device) for key in ("train_x", "train_y", "test_x", "test_y")}
        return replace(self, **tensors)

    def sample(
        self, per_class: int | Sequence[int] = 10, split: str = "test", seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a few images of every class, sorted by class: the default inputs of a measurement.

        Args:
            per_class: how many of each class, or one number per class.
            split: "test" or "train".
            seed: None takes the first of each class in the order of the files; a number draws them.

        Returns:
            Images (k, c, h, w) and labels (k,), where k is the sum of `per_class` over the classes.

        Raises:
            ValueError: if a class has fewer images, or an argument makes no sense.
        """
        if split not in ("test", "train"):
            raise _error('split "test" or "train"', repr(split), 'use split="test"')
        x, y = (self.test_x, self.test_y) if split == "test" else (self.train_x, self.train_y)
        index = _pick(y.cpu(), per_class, seed, range(self.num_classes), split).to(x.device)  # (k,)
        return x[index], y[index]

    def unnormalize(self, x: Tensor) -> Tensor:
        """Return images `x` (any shape) in the unit they came in: [0, 1] for the named data sets."""
        return x * self.std + self.mean

    def checksum(self) -> str:
        """Return the SHA-256 of images and labels with their shapes; the same on every device."""
        digest = hashlib.sha256()
        for tensor in (self.train_x, self.train_y, self.test_x, self.test_y):
            array = tensor.detach().cpu().contiguous().numpy()
            digest.update(f"{array.dtype.name}{array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()


def load_data(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    classes: Sequence[int] | None = None,
    per_class: int | Sequence[int] | None = None,
    normalize: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ImageData:
    """Load a named data set into memory; its split into training and test images is fixed.

    Args:
        name: digits, mnist, fashion_mnist, cifar10, cifar100 or imagenette.
        root: torchvision's data folder, the one that holds e.g. `FashionMNIST/raw`; left out, the variable
            RESALIGN_DATA, or else a folder in the user's cache. `digits` needs none.
        download: let torchvision fetch missing files into `root`.
        classes: original labels to keep, in training and test; they become 0, 1, … in the order given.
        per_class: keep so many *training* images of each class, or one number per class (in the order of
            `classes`) for imbalance. A class's draw depends on `seed` and its original label alone, a larger
            draw contains the smaller one, and the images stay in the order of the files.
        normalize: subtract the mean and divide by the deviation of all pixels of the *whole* training split,
            before `classes` and `per_class`, so that all subsets share one scale; False: pixels in [0, 1].
        seed: of the `per_class` draw, from 0 on.
        device: where the tensors live.

    Raises:
        ValueError: unknown name; bad `classes`, `per_class` or `seed`; a damaged file.
        FileNotFoundError: the data is not there; the message says where it should be and how to download it.
        ConnectionError: the download failed.
    """
    if name not in LOADERS:
        raise _error("one of " + ", ".join(LOADERS), repr(name), "use one of these, or ImageData.from_tensors")
    folder = root or os.environ.get("RESALIGN_DATA") or platformdirs.user_cache_path("resalign") / "data"
    raw = LOADERS[name](Path(folder).expanduser().absolute(), download)
    labels = _check_classes(classes, len(raw.class_names))
    place = torch.full((len(raw.class_names),), -1)  # (original C,) new label of each class, -1: left out
    place[list(labels)] = torch.arange(len(labels))
    train_y, test_y = place[raw.train_y], place[raw.test_y]
    train, test = ((y >= 0).nonzero().flatten() for y in (train_y, test_y))
    if per_class is not None:
        train = _pick(train_y, per_class, seed, labels, "train").sort().values
    mean, std = _statistics(raw) if normalize else (0.0, 1.0)
    return ImageData(
        name=name,
        train_x=_normalized(raw.train_x[train].float().div_(raw.white), mean, std),  # (n, c, h, w)
        train_y=train_y[train],  # (n,)
        test_x=_normalized(raw.test_x[test].float().div_(raw.white), mean, std),  # (m, c, h, w)
        test_y=test_y[test],  # (m,)
        num_classes=len(labels),
        mean=mean,
        std=std,
        class_names=tuple(raw.class_names[label] for label in labels),
        source=raw.source,
    ).to(device)


class _Raw(NamedTuple):
    """A whole data set as its files hold it; pixels are whole numbers in 0..white."""

    train_x: Tensor  # (n, c, h, w) uint8
    train_y: Tensor  # (n,) int64
    test_x: Tensor
    test_y: Tensor
    class_names: tuple[str, ...]
    source: str
    white: int = 255


def _load_digits(root: Path, download: bool) -> _Raw:
    """Split scikit-learn's digits, stratified: 35 to 37 test images of each class, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    train_x, test_x = (torch.from_numpy(x).to(torch.uint8).reshape(-1, 1, 8, 8) for x in parts[:2])
    train_y, test_y = (torch.from_numpy(y).long() for y in parts[2:])
    return _Raw(train_x, train_y, test_x, test_y, tuple("0123456789"), "scikit-learn load_digits", white=16)


def _load_idx(name: str, class_name: str, root: Path, download: bool) -> _Raw:
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
    return _Raw(train_x[:, None], train_y, test_x[:, None], test_y, names, f"torchvision {class_name}")


def _read_idx(read: Callable[[str], Tensor], file: Path, name: str, root: Path) -> Tensor:
    """Read one IDX file with torchvision's reader, whose errors do not say which file."""
    if not file.is_file():
        raise _missing(file, name, root)
    try:
        return read(str(file))
    except (AssertionError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(file, "a whole IDX file", f"{type(error).__name__} {error}", name, root) from error


def _load_cifar(name: str, class_name: str, root: Path, download: bool) -> _Raw:
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
        # NumPy 2.4 objects to how Python 2 pickled these arrays; they are read rightly.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        train, test = dataset(root, train=True), dataset(root, train=False)
    train_x, test_x = (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test))
    train_y, test_y = (torch.tensor(part.targets) for part in (train, test))
    return _Raw(train_x, train_y, test_x, test_y, tuple(train.classes), f"torchvision {class_name}")


def _load_imagenette(root: Path, download: bool) -> _Raw:
    """Read Imagenette; its `val` folder is the test set. Decoding takes tens of seconds on two cores."""
    from torchvision.datasets import Imagenette

    folder = root / "imagenette2-160"
    if download and not folder.is_dir():
        _download(partial(Imagenette, size="160px"), "imagenette", root)

    def read(part: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        if not (folder / part).is_dir():
            raise _missing(folder / part, "imagenette", root)
        try:
            images = Imagenette(root, part, size="160px", loader=partial(_read_jpeg, root=root))
            names = tuple(synonyms[0] for synonyms in images.classes)
            if len(names) != 10:
                raise KeyError(f"{len(names)} folders")
        except (FileNotFoundError, KeyError) as error:  # a folder is empty, missing, or not Imagenette's
            came = f"{type(error).__name__} {error}"
            raise _damaged(folder / part, "its ten folders of .jpeg files", came, "imagenette", root) from error
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
            x, y = zip(*pool.map(images.__getitem__, range(len(images))), strict=True)
        return torch.stack(x), torch.tensor(y), names  # (n, 3, 32, 32), (n,)

    (train_x, train_y, names), (test_x, test_y, _) = read("train"), read("val")
    return _Raw(train_x, train_y, test_x, test_y, names, "torchvision Imagenette 160px")


def _read_jpeg(file: str, root: Path) -> Tensor:
    """Return one image (3, 32, 32), uint8, resized and cut as the head of this file says."""
    from PIL import Image
    from torchvision.transforms import functional

    try:
        with Image.open(file) as image:
            rgb = image.convert("RGB")
    except OSError as error:  # not an image, or cut off
        raise _damaged(Path(file), "a whole JPEG image", error, "imagenette", root) from error
    return functional.pil_to_tensor(functional.center_crop(functional.resize(rgb, 32), [32, 32]))


LOADERS: dict[str, Callable[[Path, bool], _Raw]] = {
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
        fix = "check the network, or copy the files there"
        raise ConnectionError(f"could not download {name} into {root}: {error}; fix: {fix}") from error


def _command(name: str, root: Path) -> str:
    """Return the line for a terminal that downloads `name`."""
    call = f'load_data("{name}", root={json.dumps(str(root))}, download=True)'
    return "python -c " + shlex.quote(f"from resalign_utils import load_data; {call}")


def _missing(file: Path, name: str, root: Path) -> FileNotFoundError:
    fix = f"name another folder by root= or RESALIGN_DATA, or download: {_command(name, root)}"
    return FileNotFoundError(f"expected {name} in the folder {root}; came no {file}; fix: {fix}")


def _damaged(file: Path, expected: str, came: object, name: str, root: Path) -> ValueError:
    fix = f"delete it (and the archive it came from) and download again: {_command(name, root)}"
    return _error(f"{expected} in the damaged {file}", str(came), fix)


def _error(expected: str, came: str, fix: str) -> ValueError:
    return ValueError(f"expected {expected}; came {came}; fix: {fix}")


def _statistics(raw: _Raw) -> tuple[float, float]:
    """Return mean and deviation of all training pixels, from whole numbers: alike on all machines."""
    counts = torch.bincount(raw.train_x.flatten()).tolist()
    total, first, second = (sum(count * level**p for level, count in enumerate(counts)) for p in (0, 1, 2))
    return first / (total * raw.white), math.sqrt(second * total - first**2) / (total * raw.white)


def _normalized(x: Tensor, mean: float, std: float) -> Tensor:
    """Return (x - mean) / std, worked out on the CPU because GPUs round a little differently."""
    if std <= 1e-7 * abs(mean):  # float32 cannot tell
        raise _error("training images that vary", f"{mean:g} in every pixel", "set normalize=False")
    return x.cpu().sub(mean).div_(std).to(x.device)


def _pick(y: Tensor, per_class: int | Sequence[int], seed: int | None, names: Sequence[int], split: str) -> Tensor:
    """Return the indices of each class's first images (no seed) or of nested draws, class after class."""
    counts = list(per_class) if isinstance(per_class, Iterable) else [per_class] * len(names)
    if len(counts) != len(names) or not all(isinstance(k, Integral) and k > 0 for k in counts):
        expected = f"per_class as a whole number from 1 on, or {len(names)} of them, one per class"
        raise _error(expected, repr(per_class), "use e.g. per_class=10, and classes= to leave a class out")
    if seed is not None and (not isinstance(seed, Integral) or seed < 0):
        raise _error("seed as a whole number from 0 on", repr(seed), "use seed=0")
    picks = []
    for label, (count, name) in enumerate(zip(counts, names, strict=True)):
        members = (y == label).nonzero().flatten()
        if count > len(members):
            expected = f"per_class up to {len(members)}, all {split} images of class {name}"
            raise _error(expected, str(count), "ask for fewer, or leave that class out")
        if seed is not None:  # one generator per class: no class's draw depends on another's
            members = members[np.random.default_rng((seed, name)).permutation(len(members))]
        picks.append(members[:count])
    return torch.cat(picks)


def _check_classes(classes: Sequence[int] | None, num_classes: int) -> tuple[int, ...]:
    labels = tuple(range(num_classes)) if classes is None else tuple(classes)
    known = all(isinstance(label, Integral) and 0 <= label < num_classes for label in labels)
    if not labels or not known or len(set(labels)) < len(labels):
        expected = f"classes= with at least one label, all different, in 0..{num_classes - 1}"
        raise _error(expected, repr(labels), "use e.g. classes=(0, 1)")
    return tuple(int(label) for label in labels)


def _check_tensors(given: dict[str, Tensor]) -> None:
    """Refuse what is not two sets of finite float32 images with as many int64 labels, on one device."""
    for key, value in given.items():
        images = key.endswith("x")
        dtype, dims = (torch.float32, "(n, c, h, w)") if images else (torch.int64, "(n,)")
        if not isinstance(value, Tensor):
            raise _error(f"{key} as a torch tensor", type(value).__name__, f"torch.as_tensor({key})")
        if value.dtype != dtype:
            raise _error(f"{key} of {dtype}", str(value.dtype), f"{key}.to({dtype})")
        if value.ndim != (4 if images else 1):
            raise _error(f"{key} of shape {dims}", str(tuple(value.shape)), f"{key}.reshape(...)")
        if value.numel() == 0:
            raise _error(f"something in {key}", f"shape {tuple(value.shape)}", "give at least one image and label")
    if len({value.device for value in given.values()}) > 1:
        came = ", ".join(f"{key} on {value.device}" for key, value in given.items())
        raise _error("all tensors on one device", came, "move them with .to(device)")
    if given["train_x"].shape[1:] != given["test_x"].shape[1:]:
        came = " and ".join(str(tuple(given[key].shape[1:])) for key in ("train_x", "test_x"))
        raise _error("training and test images of one shape", came, "resize one of them")
    for split in ("train", "test"):
        x, y = given[f"{split}_x"], given[f"{split}_y"]
        if len(x) != len(y):
            raise _error(f"as many {split} labels as images", f"{len(x)} images, {len(y)} labels", "match them")
        if bad := int((~x.isfinite()).sum()):
            raise _error(f"finite numbers in {split}_x", f"{bad} NaN or infinite", "mend or drop those images")
