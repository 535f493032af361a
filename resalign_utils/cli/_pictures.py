"""A folder of images, and how a network wants its images: resized, cut, in [0, 1], less a mean, over a deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..diagnosis._pictures import SPLITS, opened
from ._refused import Refused, refused

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Preparation:
    """From an image to what a network takes.

    Attributes:
        resize: pixels to which the shorter side comes, antialiased; None leaves it.
        crop: side of the middle that is cut out; None leaves it.
        mean: subtracted from pixels in [0, 1], one number a channel.
        std: by which they are then divided.
        interpolation: "bilinear", "bicubic", or another of torchvision's.
        source: whose settings these are.
        known: whether mean and deviation are known to be the network's own, or were given.
    """

    resize: int | None
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    source: str
    known: bool = True

    @classmethod
    def of_torchvision(cls, preset: Any, name: str) -> Preparation | None:
        """That of a model for classification; None for other presets."""
        if type(preset).__name__ != "ImageClassification":
            return None
        (resize,), (crop,) = preset.resize_size, preset.crop_size
        return cls(resize, crop, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, name)

    @classmethod
    def of_timm(cls, config: Mapping[str, Any], name: str) -> Preparation | None:
        """That of timm's data configuration; None where its images are not square or not cut from the middle."""
        _, height, width = config["input_size"]
        if height != width or config["crop_mode"] != "center":
            return None
        resize = math.floor(height / config["crop_pct"])
        return cls(resize, height, tuple(config["mean"]), tuple(config["std"]), config["interpolation"], name)

    def changed(self, size: int | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Preparation:
        """The same with what was given; what is resized keeps its ratio to what is cut.

        Raises:
            Refused: not one number for all channels or one a channel, or a deviation that is not positive.
        """
        made, given = self, [f"--{name}" for name, value in (("size", size), ("mean", mean), ("std", std)) if value]
        if size is not None:
            ratio = self.resize / self.crop if self.resize and self.crop else 1.0
            made = replace(made, resize=round(size * ratio), crop=size)
        if std is not None and min(std) <= 0:
            raise refused("--std above 0", ", ".join(map(str, std)), "Leave it out for 1.")
        made = replace(
            made,
            mean=self.mean if mean is None else self._each("--mean", mean),
            std=self.std if std is None else self._each("--std", std),
            known=self.known or (mean is not None and std is not None),
        )
        return replace(made, source=f"{self.source}, {', '.join(given)}") if given else made

    def __call__(self, picture: Image.Image) -> Tensor:
        """One image as a tensor (c, h, w), float32."""
        from torchvision.transforms import InterpolationMode, functional

        picture = picture.convert("L" if len(self.mean) == 1 else "RGB")
        if self.resize is not None:
            picture = functional.resize(picture, [self.resize], InterpolationMode(self.interpolation))
        if self.crop is not None:
            picture = functional.center_crop(picture, [self.crop, self.crop])
        x: Tensor = functional.normalize(functional.to_tensor(picture), list(self.mean), list(self.std))
        return x

    def __str__(self) -> str:
        size = "of the size that they have"
        if self.crop is not None:
            size = f"shorter side to {self.resize} ({self.interpolation}), middle {self.crop}×{self.crop}"
        scale = f"pixels in [0, 1] less {_joined(self.mean)} over {_joined(self.std)}"
        return f"{size}, {scale} ({self.source})"

    def _each(self, option: str, given: tuple[float, ...]) -> tuple[float, ...]:
        channels = len(self.mean)
        if len(given) not in (1, channels):
            raise refused(f"{option} as one number or {channels}", str(len(given)), "Give one for each channel.")
        return given * channels if len(given) == 1 else given


def listed(folder: Path) -> tuple[list[Path], list[str] | None]:
    """The images of a folder, and the sub-folder of each, None where there are no sub-folders.

    Raises:
        Refused: there is no such folder or no image in it, images lie beside sub-folders, or these are of a split.
    """
    from PIL import Image

    if not folder.is_dir():
        raise Refused(f"Expected a folder of images; there is no folder {folder}.")
    known = Image.registered_extensions()  # suffix → format

    def images(files: Sequence[Path]) -> list[Path]:
        return [file for file in files if file.suffix.lower() in known and not file.name.startswith(".")]

    alone = images(sorted(entry for entry in folder.iterdir() if entry.is_file()))
    classes = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    inside = {entry.name: images(sorted(file for file in entry.rglob("*") if file.is_file())) for entry in classes}
    inside = {name: files for name, files in inside.items() if files}
    if len(inside) > 1 and {name.lower() for name in inside} <= SPLITS:
        got = f"the folders of a split, {', '.join(inside)}"
        raise refused(
            f"one sub-folder a class in {folder}", got, f"Give one of them, as {folder / next(iter(inside))}."
        )
    if alone and inside:
        got = f"{len(alone)} images beside {len(inside)} sub-folders"
        raise refused(f"images, or sub-folders of images, in {folder}", got, "Move one kind away.")
    if not alone and not inside:
        raise refused(f"images in {folder}", "none", f"Known are {', '.join(sorted(known)[:8])} and more.")
    if alone:
        return alone, None
    pairs = [(file, name) for name, files in inside.items() for file in files]
    return [file for file, _ in pairs], [name for _, name in pairs]


def read(files: Sequence[Path], prepare: Preparation) -> Tensor:
    """Images as a tensor (n, c, h, w).

    Raises:
        Refused: they differ in size.
        ValueError: a damaged image, transparency, more than 8 bits.
    """
    prepared = [prepare(opened(file, None)) for file in files]
    sizes = sorted({(x.shape[-1], x.shape[-2]) for x in prepared})
    if len(sizes) > 1:
        got = f"{len(sizes)} sizes, from {sizes[0][0]}×{sizes[0][1]} to {sizes[-1][0]}×{sizes[-1][1]}"
        raise refused("images of one size", got, "Give --size, as --size 224.")
    return torch.stack(prepared)


def _joined(numbers: Sequence[float]) -> str:
    return "/".join(f"{number:g}" for number in (numbers if len({*numbers}) > 1 else numbers[:1]))
