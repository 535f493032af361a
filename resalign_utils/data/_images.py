"""A data set in memory, and the checks that one of your own must pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
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
    ) -> ImageData:
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
        if not isinstance(num_classes, Integral):
            raise value_error("num_classes as a whole number", repr(num_classes), "Leave it out, or count the classes.")
        names = tuple(class_names or map(str, range(num_classes)))
        if len(names) != num_classes:
            raise value_error(f"{num_classes} class_names", f"{len(names)}", "Give one name per class.")
        for key, y in (("train_y", train_y), ("test_y", test_y)):
            if y.min() < 0 or y.max() >= num_classes:
                got, fix = f"labels from {int(y.min())} to {int(y.max())}", "Relabel, or set num_classes."
                raise value_error(f"{key} in 0..{num_classes - 1}", got, fix)
        mean, std = 0.0, 1.0
        if normalize:
            pixels = train_x.cpu().double()  # some devices have no float64
            mean, std = pixels.mean().item(), pixels.std(correction=0).item()
            train_x, test_x = normalized(train_x, mean, std), normalized(test_x, mean, std)
        return cls(name, train_x, train_y, test_x, test_y, num_classes, mean, std, names, source)

    def __repr__(self) -> str:
        counts = f"{len(self.train_y)} training and {len(self.test_y)} test images {self.shape}"
        return f"ImageData({self.name!r}: {counts}, {self.num_classes} classes, on {self.train_x.device})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of one image."""
        c, h, w = self.train_x.shape[1:]
        return c, h, w

    def to(self, device: torch.device | str) -> ImageData:
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
            raise value_error('split "test" or "train"', repr(split), 'Use split="test".')
        x, y = (self.test_x, self.test_y) if split == "test" else (self.train_x, self.train_y)
        index = pick(y.cpu(), per_class, seed, range(self.num_classes), split).to(x.device)  # (k,)
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


def normalized(x: Tensor, mean: float, std: float) -> Tensor:
    """Return (x - mean) / std, worked out on the CPU because GPUs round a little differently."""
    if std == 0:
        raise value_error("training images that vary", f"{mean:g} in every pixel", "Set normalize=False.")
    return x.cpu().sub(mean).div_(std).to(x.device)


def pick(y: Tensor, per_class: int | Sequence[int], seed: int | None, names: Sequence[int], split: str) -> Tensor:
    """Return the indices of each class's first images (no seed) or of nested draws, class after class."""
    counts = list(per_class) if isinstance(per_class, Iterable) else [per_class] * len(names)
    if len(counts) != len(names) or not all(isinstance(k, Integral) and k > 0 for k in counts):
        expected = f"per_class as a whole number from 1 on, or {len(names)} of them, one per class"
        raise value_error(expected, repr(per_class), "Use e.g. per_class=10, and classes= to leave a class out.")
    if seed is not None:
        check_seed(seed)
    picks = []
    for label, (count, name) in enumerate(zip(counts, names, strict=True)):
        members = (y == label).nonzero().flatten()
        if count > len(members):
            expected = f"per_class up to {len(members)}, all {split} images of class {name}"
            raise value_error(expected, str(count), "Ask for fewer, or leave that class out.")
        if seed is not None:  # one generator per class: no class's draw depends on another's
            members = members[np.random.default_rng((seed, name)).permutation(len(members))]
        picks.append(members[:count])
    return torch.cat(picks)


def check_seed(seed: int) -> None:
    if not isinstance(seed, Integral) or seed < 0:
        raise value_error("seed as a whole number from 0 on", repr(seed), "Use seed=0.")


def _check_tensors(given: dict[str, Tensor]) -> None:
    """Refuse what is not two sets of finite float32 images with as many int64 labels, on one device."""
    for key, value in given.items():
        images = key.endswith("x")
        dtype, dims = (torch.float32, "(n, c, h, w)") if images else (torch.int64, "(n,)")
        if not isinstance(value, Tensor):
            raise value_error(f"{key} as a torch tensor", type(value).__name__, f"Use torch.as_tensor({key}).")
        if value.dtype != dtype:
            raise value_error(f"{key} of {dtype}", str(value.dtype), f"Use {key}.to({dtype}).")
        if value.ndim != (4 if images else 1):
            raise value_error(f"{key} of shape {dims}", str(tuple(value.shape)), f"Use {key}.reshape(...).")
        if value.numel() == 0:
            raise value_error(
                f"something in {key}", f"shape {tuple(value.shape)}", "Give at least one image and label."
            )
    if len({value.device for value in given.values()}) > 1:
        got = ", ".join(f"{key} on {value.device}" for key, value in given.items())
        raise value_error("all tensors on one device", got, "Move them with .to(device).")
    if given["train_x"].shape[1:] != given["test_x"].shape[1:]:
        got = " and ".join(str(tuple(given[key].shape[1:])) for key in ("train_x", "test_x"))
        raise value_error("training and test images of one shape", got, "Resize one of them.")
    for split in ("train", "test"):
        x, y = given[f"{split}_x"], given[f"{split}_y"]
        if len(x) != len(y):
            raise value_error(f"as many {split} labels as images", f"{len(x)} images, {len(y)} labels", "Match them.")
        if bad := int((~x.isfinite()).sum()):
            raise value_error(f"finite numbers in {split}_x", f"{bad} NaN or infinite", "Mend or drop those images.")


def value_error(expected: str, got: str, fix: str) -> ValueError:
    return ValueError(f"Expected {expected}; got {got}. {fix}")
