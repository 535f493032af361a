"""The book's main training run, against the loop that most tutorials write."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import resalign_utils as ra


def training() -> dict[str, dict[str, Callable[[], object]]]:
    """Tasks and ways; all ways make the same number of steps on the same batches sizes."""
    data = ra.load_data("digits")
    recipe = ra.TrainConfig(epochs=50, lr=0.5)

    def build() -> ra.ResNet:
        return ra.build_model(ra.ResNetConfig(16, 64), data, seed=0)

    return {
        "train 16 blocks of width 64 on digits, 50 epochs": {
            "ra.train (data in memory, fused SGD, accuracies every epoch)": lambda: ra.train(build(), data, recipe),
            "DataLoader loop (workers=0, torch.optim.SGD, OneCycleLR)": lambda: dataloader_loop(build(), data, recipe),
        }
    }


def dataloader_loop(model: ra.ResNet, data: ra.ImageData, recipe: ra.TrainConfig) -> None:
    """A plain loop over a DataLoader, with the accuracies that ``ra.train`` records too."""
    loaders = {
        "train": DataLoader(TensorDataset(data.train_x, data.train_y), batch_size=120, shuffle=True),
        "test": DataLoader(TensorDataset(data.test_x, data.test_y), batch_size=120),
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(loaders["train"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, steps, pct_start=0.1, cycle_momentum=False)
    for _ in range(recipe.epochs):
        model.train()
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            for loader in loaders.values():
                sum(int((model(x).argmax(1) == y).sum()) for x, y in loader)
