"""From a name to a data set: classes chosen, training images drawn, pixels normalized."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from ._files import LOADERS, Raw
from ._images import ImageData, check_seed, normalized, pick, value_error

_NOISE = 10**6  # keeps the stream of the label noise apart from those of the classes


def load_data(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    classes: Sequence[int] | None = None,
    per_class: int | Sequence[int] | None = None,
    normalize: bool = True,
    label_noise: float = 0.0,
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
        per_class: keep so many training images of each class, or one number per class (in the order of
            `classes`) for imbalance. A class's draw depends on `seed` and its original label alone, a larger
            draw contains the smaller one, and the images stay in the order of the files.
        normalize: subtract the mean and divide by the deviation of all pixels of the whole training split,
            before `classes` and `per_class`, so that all subsets share one scale; False: pixels in [0, 1].
        label_noise: share of the training images whose label is replaced by another, drawn uniformly from the
            other classes; the larger share contains the smaller. Images, their order and the test labels stay.
        seed: of the `per_class` draw and of the label noise, from 0 on.
        device: where the tensors live.

    Raises:
        ValueError: unknown name; bad `classes`, `per_class`, `label_noise` or `seed`; a damaged file.
        FileNotFoundError: the data is not there; the message says where it should be and how to download it.
        ConnectionError: the download failed.

    Example:
        >>> import resalign_utils as ra
        >>> ra.load_data("digits", classes=(3, 8), per_class=50)
        ImageData('digits': 100 training and 72 test images (1, 8, 8), 2 classes, on cpu)
    """
    if name not in LOADERS:
        raise value_error("one of " + ", ".join(LOADERS), repr(name), "Use one of these, or ImageData.from_tensors.")
    folder = root or os.environ.get("RESALIGN_DATA") or platformdirs.user_cache_path("resalign") / "data"
    raw = LOADERS[name](Path(folder).expanduser().absolute(), download)
    labels = _check_classes(classes, len(raw.class_names))
    place = torch.full((len(raw.class_names),), -1)  # (original C,) new label of each class, -1: left out
    place[list(labels)] = torch.arange(len(labels))
    train_y, test_y = place[raw.train_y], place[raw.test_y]
    train, test = ((y >= 0).nonzero().flatten() for y in (train_y, test_y))
    if per_class is not None:
        train = pick(train_y, per_class, seed, labels, "train").sort().values
    mean, std = _statistics(raw) if normalize else (0.0, 1.0)
    return ImageData(
        name=name,
        train_x=normalized(raw.train_x[train].float().div_(raw.white), mean, std),  # (n, c, h, w)
        train_y=_with_noise(train_y[train], label_noise, len(labels), seed),  # (n,)
        test_x=normalized(raw.test_x[test].float().div_(raw.white), mean, std),  # (m, c, h, w)
        test_y=test_y[test],  # (m,)
        num_classes=len(labels),
        mean=mean,
        std=std,
        class_names=tuple(raw.class_names[label] for label in labels),
        source=raw.source,
    ).to(device)


def _statistics(raw: Raw) -> tuple[float, float]:
    """Return mean and deviation of all training pixels, from whole numbers: alike on all machines."""
    counts = torch.bincount(raw.train_x.flatten()).tolist()
    total, first, second = (sum(count * level**p for level, count in enumerate(counts)) for p in (0, 1, 2))
    return first / (total * raw.white), math.sqrt(second * total - first**2) / (total * raw.white)


def _with_noise(y: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """Move the labels (n,) of a drawn share of the images by 1..C−1 places, so that each becomes another one."""
    if not isinstance(share, Real) or not 0 <= share <= 1 or (share and classes < 2):
        raise value_error(
            "label_noise in [0, 1], and two classes or more for it", f"{share!r}", "Use e.g. label_noise=0.1."
        )
    if share == 0:
        return y
    check_seed(seed)
    generator = np.random.default_rng((seed, _NOISE))
    order, places = generator.permutation(len(y)), generator.integers(1, classes, len(y))
    chosen = torch.from_numpy(order[: round(share * len(y))])
    noisy = y.clone()
    noisy[chosen] = (y[chosen] + torch.from_numpy(places)[chosen]) % classes
    return noisy


def _check_classes(classes: Sequence[int] | None, num_classes: int) -> tuple[int, ...]:
    classes = range(num_classes) if classes is None else classes
    labels = tuple(classes) if isinstance(classes, Iterable) else (classes,)
    known = isinstance(classes, Iterable) and all(
        isinstance(label, Integral) and 0 <= label < num_classes for label in labels
    )
    if not labels or not known or len(set(labels)) < len(labels):
        expected = f"classes= with at least one label, all different, in 0..{num_classes - 1}"
        raise value_error(expected, repr(labels), "Use e.g. classes=(0, 1).")
    return tuple(int(label) for label in labels)
