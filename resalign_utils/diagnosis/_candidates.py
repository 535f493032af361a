"""What is compared: networks with all, half and none of their skips, and what costs less than a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..data import ImageData
from ..models import ResNetConfig, build_model
from ..training import TrainConfig, train
from ._examples import Index

WITH, HALF, WITHOUT = "with skips", "half of the skips", "without skips"
FREQUENT, LOGISTIC, BOOSTING = "most frequent class", "logistic regression", "gradient boosting"


class Predicted(NamedTuple):
    """Labels that a fitted candidate gives to the training and the test examples, and what it cost."""

    train: Index
    test: Index
    parameters: int | None
    seconds: float


class Candidate(Protocol):
    """Something that learns from training examples and labels others."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def settings(self) -> tuple[float, ...]:
        """What may be chosen, inside of the training examples."""

    def fit(self, setting: float, data: ImageData, seed: int) -> Predicted:
        """Learn from the training part of ``data``; its test part is only labelled."""


@dataclass(frozen=True)
class Network:
    """A network of this package; a setting is a weight decay."""

    name: str
    model: ResNetConfig
    recipe: TrainConfig
    settings: tuple[float, ...]

    def fit(self, setting: float, data: ImageData, seed: int) -> Predicted:
        """Train; the seed gives initial weights and order, the same for networks that differ in their skips alone."""
        started = time.perf_counter()
        model = build_model(self.model, data, seed=seed)
        train(model, data, replace(self.recipe, weight_decay=setting, seed=seed))
        seconds = time.perf_counter() - started
        labels = [_labels(model, x) for x in (data.train_x, data.test_x)]
        return Predicted(labels[0], labels[1], sum(p.numel() for p in model.parameters()), seconds)


@torch.no_grad()
def _labels(model: torch.nn.Module, x: torch.Tensor) -> Index:
    return torch.cat([model(part).argmax(1) for part in x.split(512)]).cpu().numpy()


@dataclass(frozen=True)
class Classical:
    """A classifier of scikit-learn, made from a setting and a seed."""

    name: str
    make: Callable[[float, int], Any]
    count: Callable[[Any], int | None]
    settings: tuple[float, ...]

    def fit(self, setting: float, data: ImageData, seed: int) -> Predicted:
        """Fit to the columns that the networks see."""
        train_x, test_x = (x.flatten(1).cpu().double().numpy() for x in (data.train_x, data.test_x))
        model, train_y = self.make(setting, seed), data.train_y.cpu().numpy()
        started = time.perf_counter()
        model.fit(train_x, train_y)
        seconds = time.perf_counter() - started
        return Predicted(model.predict(train_x), model.predict(test_x), self.count(model), seconds)


def candidates(
    kind: str, depth: int, width: int, recipe: TrainConfig, decays: tuple[float, ...]
) -> tuple[Candidate, ...]:
    """All that are compared, from the simplest to the least simple."""
    every_second = tuple(float(block % 2) for block in range(1, depth + 1))
    skips: dict[str, bool | tuple[float, ...]] = {WITHOUT: False, HALF: every_second, WITH: True}
    networks = [
        Network(name, ResNetConfig(depth, width, kind="fc" if kind == "fc" else "conv", skip=skip), recipe, decays)
        for name, skip in skips.items()
    ]
    simple = [Classical(FREQUENT, _frequent, lambda _: 0, (0.0,))]
    if kind == "fc":
        simple.append(Classical(LOGISTIC, _logistic, lambda m: m.coef_.size + m.intercept_.size, (1.0, 0.01)))
        simple.append(Classical(BOOSTING, _boosting, lambda _: None, (20.0, 5.0)))
    return (*simple, *networks)


def _frequent(setting: float, seed: int) -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="most_frequent")


def _logistic(setting: float, seed: int) -> Any:
    """The setting is scikit-learn's C, the inverse strength of its penalty."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=setting, max_iter=5000)


def _boosting(setting: float, seed: int) -> Any:
    """The setting is the least number of training rows in a leaf."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(min_samples_leaf=int(setting), early_stopping=False, random_state=seed)


def recalls(labels: Index, y: Index, classes: int) -> NDArray[np.float64]:
    """Share of each class's examples (C,) that are labelled right; each class must occur in ``y``."""
    right = np.bincount(y[labels == y], minlength=classes)
    return right / np.bincount(y, minlength=classes)
