"""What the networks of ``wild`` are shown: photographs, faces, sentences, reactions. None of them is kept here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from ._wild_packages import FACES, PHOTOGRAPHS

# Names in scikit-image's data folder, and ImageNet's classes that are right where the picture shows one
PHOTOGRAPH_CLASSES = {
    "chelsea.png": (281, 282, 285),  # cats
    "coffee.png": (504, 967, 968),  # mug, espresso, cup
    "rocket.jpg": (657, 744),  # missile, projectile
    "motorcycle_left.png": (665, 670),  # moped, scooter
}
OTHER_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "moon.png",
    "motorcycle_right.png",
)

# Sample of face-api, and centre and half side of a face, in pixels of the sample 390 wide
FACE_BOXES = (
    (1, 325, 62, 20),
    (3, 146, 97, 22),
    (3, 245, 67, 22),
    (3, 322, 80, 22),
    (4, 150, 42, 20),
    (4, 270, 48, 18),
    (5, 140, 112, 20),
    (5, 172, 42, 18),
    (5, 240, 65, 20),
    (5, 303, 112, 25),
    (6, 78, 133, 20),
    (6, 160, 92, 22),
    (6, 253, 85, 20),
    (6, 320, 82, 23),
)

# Pairs that say the same in other words
SENTENCE_PAIRS = (
    ("A cat sleeps on the warm roof of our neighbours.", "On the house next door a kitten is having a nap."),
    ("The train to the coast leaves at nine in the morning.", "You can go to the sea by rail at 9 a.m."),
    ("He forgot his umbrella and came home completely wet.", "Without anything against the rain he got soaked."),
    ("The committee decided to raise the price of bread.", "Bread will cost more, the board has ruled."),
    ("Our teacher explained how plants turn light into sugar.", "In class we learned about photosynthesis."),
    ("The doctor told her to rest for at least two weeks.", "She was given a fortnight of sick leave by a physician."),
    ("Prices of houses in the capital have doubled.", "Homes in the largest city cost twice as much as before."),
    ("The violinist broke a string during the concert.", "While she played, a part of the fiddle snapped."),
)

# Reactants and reagents, two angle brackets, product: textbook reactions
REACTION_SMILES = (
    "CC(=O)O.OCC>>CC(=O)OCC",
    "CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1",
    "O=C(O)c1ccccc1.OC>>COC(=O)c1ccccc1",
    "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
    "CCBr.[Na+].[O-]c1ccccc1>>CCOc1ccccc1",
    "O=Cc1ccccc1.NCC>>CCNCc1ccccc1",
    "CC(C)(C)OC(=O)NCc1ccccc1.Cl>>NCc1ccccc1",
    "CCOC(=O)c1ccccc1.[Na+].[OH-]>>O=C(O)c1ccccc1",
    "O=[N+]([O-])c1ccccc1.[Fe]>>Nc1ccccc1",
    "C=CC=C.C=CC(=O)OC>>COC(=O)C1CC=CCC1",
    "OCc1ccccc1.O=[Mn]=O>>O=Cc1ccccc1",
    "CS(=O)(=O)Cl.OCCc1ccccc1>>CS(=O)(=O)OCCc1ccccc1",
)


def photographs(side: int) -> Tensor:
    """Photographs (14, 3, side, side) in [−1, 1]: the largest square in the middle, those with a known class first."""
    folder = PHOTOGRAPHS.folder() / "skimage" / "data"
    names = (*PHOTOGRAPH_CLASSES, *OTHER_PHOTOGRAPHS)
    pictures = [Image.open(folder / name).convert("RGB") for name in names]
    pictures += [Image.fromarray(picture) for picture in load_sample_images().images]
    return torch.stack([_pixels(_middle(picture), side) for picture in pictures]) / 127.5 - 1


def faces() -> Tensor:
    """Faces (14, 3, 150, 150), each pixel in [0, 255]."""
    folder = FACES.folder() / "package" / "demo"
    return torch.stack([_face(folder, *box) for box in FACE_BOXES])


def _face(folder: Path, number: int, x: int, y: int, half: int) -> Tensor:
    picture = Image.open(folder / f"sample{number}.jpg").convert("RGB")
    scale, half_side = picture.width / 390, 1.25 * half
    box = (x - half_side, y - half_side, x + half_side, y + half_side)
    return _pixels(picture.crop(tuple(int(scale * edge) for edge in box)), 150)  # type: ignore[arg-type]


def _middle(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _pixels(picture: Image.Image, side: int) -> Tensor:
    return torch.from_numpy(np.asarray(picture.resize((side, side)), dtype=np.float32).copy()).permute(2, 0, 1)
