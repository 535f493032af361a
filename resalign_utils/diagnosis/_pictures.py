"""Images: a folder of classes, arrays, or an :class:`ImageData`, as examples that can be split."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data import ImageData
from ..data._images import value_error
from ._examples import Examples, Index, class_labels

if TYPE_CHECKING:
    from PIL import Image

SPLITS = {"train", "training", "test", "val", "valid", "validation"}


def read_folder(folder: str | os.PathLike[str], image_size: int | None) -> Examples:
    """Read a folder with one sub-folder of images a class; hidden files and files that are no images are left out.

    Args:
        folder: the folder.
        image_size: pixels of a side: the shorter one comes to it (antialiased), then the middle is cut out. None
            leaves the images as they are, which must be of one size.

    Raises:
        ValueError: no class folders, a damaged image, transparency or more than 8 bits, sizes that differ.
        NotADirectoryError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"Expected a folder with one sub-folder a class; there is no folder {root}.")
    classes = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if {entry.name.lower() for entry in classes} <= SPLITS and len(classes) > 1:
        fix = "Put the images of a class into one folder, or give ImageData.from_tensors(...), which keeps your split."
        raise value_error(f"sub-folders named for classes in {root.name}", "folders of a split", fix)
    files, labels, left_out = _listed(root, classes)
    pictures = [opened(file, image_size) for file in files]
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        got = f"{len(sizes)} sizes, from {sizes[0][0]}×{sizes[0][1]} to {sizes[-1][0]}×{sizes[-1][1]} pixels"
        raise value_error(f"images of one size in {root.name}", got, "Give image_size=, for instance image_size=32.")
    mode = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    pixels = np.stack([np.atleast_3d(np.asarray(picture.convert(mode))) for picture in pictures])  # (n, h, w, c)
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    notes = [f"{left_out} files that are no images were left out."] if left_out else []
    return _examples(x, *class_labels(labels, f"the folder {root.name}", table=False), root.name, notes)


def _listed(root: Path, classes: list[Path]) -> tuple[list[Path], list[str], int]:
    from PIL import Image

    known = Image.registered_extensions()  # suffix → format
    files: list[Path] = []
    labels: list[str] = []
    left_out = 0
    for entry in classes:
        inside = sorted(file for file in entry.rglob("*") if file.is_file() and not file.name.startswith("."))
        mine = [file for file in inside if file.suffix.lower() in known]
        if not mine:
            raise value_error(f"images in each class folder of {root.name}", f"none in {entry.name}", "Remove it.")
        files += mine
        labels += [entry.name] * len(mine)
        left_out += len(inside) - len(mine)
    if not files:
        raise value_error(f"one sub-folder of images a class in {root.name}", "no sub-folder", "Sort the images so.")
    return files, labels, left_out


def opened(file: Path, image_size: int | None) -> Image.Image:
    """One image, in mode L or RGB."""
    from PIL import Image
    from torchvision.transforms import functional

    name = f"{file.parent.name}/{file.name}"
    try:
        with Image.open(file) as image:
            image.load()
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise value_error("opaque images", f"transparency in {name}", "Put it on a ground, and save it so.")
            if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise value_error("images of 8 bits", f"mode {image.mode} in {name}", "Convert them to 8 bits.")
            picture = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except OSError as error:  # not an image, or cut off
        raise value_error("whole images", f"the damaged {name} ({error})", "Mend or remove it.") from error
    if image_size is None:
        return picture
    small: Image.Image = functional.center_crop(functional.resize(picture, image_size), [image_size, image_size])
    return small


def read_arrays(x: Any, y: Any) -> Examples:
    """Check images (n, h, w) or (n, c, h, w), bytes or finite numbers, and labels (n,), numbers or texts."""
    images = torch.as_tensor(x)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or 0 in images.shape or (images.shape[1] not in (1, 3) and images.shape[-1] in (1, 3)):
        fix = "Move the channels before the rows; for a table give a pandas DataFrame and target=."
        raise value_error("images (n, h, w) or (n, channels, h, w)", str(tuple(images.shape)), fix)
    if images.is_complex() or images.dtype == torch.bool:
        raise value_error("images of bytes or real numbers", str(images.dtype), "Convert them.")
    labels = y.tolist() if hasattr(y, "tolist") else list(y)
    if len(labels) != len(images):
        raise value_error("as many labels as images", f"{len(images)} images, {len(labels)} labels", "Match them.")
    if bad := int((~images.isfinite()).sum()):
        raise value_error("finite numbers in the images", f"{bad} NaN or infinite", "Mend or drop those images.")
    return _examples(images, *class_labels(labels, "the labels", table=False), "images", [])


def _examples(x: Tensor, y: Index, class_names: tuple[str, ...], name: str, notes: list[str]) -> Examples:
    copies = len(x) - len({row.numpy().tobytes() for row in x.cpu()})
    if copies:
        notes.append(f"{copies} images repeat another one; copies on both sides of a split make all scores too high.")
    prepare = partial(_prepare, x, y, class_names, name)
    return Examples(name, "images", _shape(x), "conv", y, class_names, prepare, notes=tuple(notes))


def _shape(x: Tensor) -> str:
    return "×".join(map(str, x.shape[1:]))


def _prepare(x: Tensor, y: Index, class_names: tuple[str, ...], name: str, train: Index, test: Index) -> ImageData:
    """One mean and one deviation of all training pixels."""
    train_x, test_x = (x[index].float() for index in (train, test))
    labels = [torch.from_numpy(y[index]).to(x.device) for index in (train, test)]
    return ImageData.from_tensors(train_x, labels[0], test_x, labels[1], name=name, class_names=class_names)


def from_image_data(data: ImageData) -> Examples:
    """Keep the split, and the scale of the pixels, that the data came with."""
    x, y = torch.cat([data.train_x, data.test_x]), torch.cat([data.train_y, data.test_y]).cpu().numpy()

    def prepare(train: Index, test: Index) -> ImageData:
        parts = (x[train], torch.from_numpy(y[train]).to(x.device), x[test], torch.from_numpy(y[test]).to(x.device))
        return ImageData.from_tensors(*parts, name=data.name, normalize=False, class_names=data.class_names)

    border, total = len(data.train_y), len(y)
    split = np.arange(border), np.arange(border, total)
    kind: Literal["fc", "conv"] = "fc" if 1 in x.shape[2:] else "conv"  # one row is no image
    return Examples(data.name, "images", _shape(x), kind, y, data.class_names, prepare, split)
