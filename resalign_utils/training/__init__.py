"""One training loop for every network of the book: SGD on data that lies in memory."""

from ._checkpoints import write_atomically, write_weights
from ._config import Checkpoint, History, Monitor, Objective, Observer, Regularizer, TrainConfig
from ._loop import accuracy, learning_rate, train

__all__ = [
    "Checkpoint",
    "History",
    "Monitor",
    "Objective",
    "Observer",
    "Regularizer",
    "TrainConfig",
    "accuracy",
    "learning_rate",
    "train",
    "write_atomically",
    "write_weights",
]
