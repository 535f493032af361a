"""What the tests let other processes do; ``spawn`` in conftest.py starts them."""

import hashlib
import json
import os
import signal
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

import resalign_utils.training as training
from resalign_utils import Checkpoint, ImageData, JacobianOperator, ResNetConfig, TrainConfig, build_model, train
from resalign_utils.residuals import is_residual_block, residual_branch
from resalign_utils.runs import _run, load_or_train

NET = ResNetConfig(3, 8, stochastic_depth=0.5)
RECIPE = TrainConfig(epochs=9, momentum=0.9, batch_size=16, seed=1)  # three steps an epoch for the blobs
KEPT = (0, 3, 9)


def train_until_killed(data_file, checkpoint, moment):
    """Train, and be killed in the sixth epoch's second step, or half-way through writing its checkpoint."""
    data = ImageData.from_tensors(**load_file(data_file), name="blobs", normalize=False)
    model, steps, save_file = build_model(NET, data, seed=RECIPE.seed), [], training._checkpoints.save_file

    def count(module, args):
        steps.append(module.training)
        if moment == "in a step" and sum(steps) == 17:
            os.kill(os.getpid(), signal.SIGKILL)

    def save(tensors, file, metadata=None):
        save_file(tensors, file, metadata=metadata)
        if moment == "in writing a checkpoint" and metadata and len(json.loads(metadata["history"])["loss"]) == 6:
            os.truncate(file, os.path.getsize(file) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)
    training._checkpoints.save_file = save
    train(model, data, RECIPE, checkpoint=Checkpoint(checkpoint, every=2, snapshots=KEPT))


def ask_for_a_run(config, root, log, start):
    """Ask for a run at the moment ``start``; note in ``log`` that a training was begun, and which weights came out."""

    def slow_train(*arguments, **options):
        note("train")
        time.sleep(0.5)  # whoever does not wait has time to begin, too
        return train(*arguments, **options)

    def note(line):
        with Path(log).open("a") as file:
            file.write(line + "\n")

    _run.train = slow_train
    time.sleep(max(0.0, start - time.time()))
    run = load_or_train(config, root=root)
    note(hashlib.sha256((run.folder / "weights.safetensors").read_bytes()).hexdigest())


def first_products():
    """Let torch load its rules for products with Jacobians, with warnings as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator = JacobianOperator(torch.nn.Linear(3, 4), torch.ones(3))
        operator.matmat(torch.ones(1, 3))
        operator.rmatmat(torch.ones(1, 4))


def register_ones_own_basic_block():
    """Before any of torchvision's blocks was met: it is not overwritten, and does not hide the other kind."""
    from torchvision.models.resnet import BasicBlock, Bottleneck

    residual_branch.register(BasicBlock, lambda block: torch.sin)
    assert is_residual_block(BasicBlock(2, 2))
    assert residual_branch(BasicBlock(2, 2)) is torch.sin
    assert residual_branch(Bottleneck(8, 2)) is not torch.sin


def weights_of(run):
    return {"depth": run.config.model.depth, "weight": float(run.model.head[-1].weight[0, 0].detach())}


def final_accuracy(run):
    return run.history.test_accuracy[-1]


def refuse_depth_three(run):
    if run.config.model.depth == 3:
        raise ValueError("three")
    return run.config.model.depth


def labelled(label, run):
    """What a measurement was told, and the depth of the run it was given."""
    return label, run.config.model.depth
