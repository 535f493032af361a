"""Projections of all states of a trace to a plane or a space."""

import dataclasses

import pytest
import torch
from contracts import randomised
from sklearn.decomposition import PCA
from torch import nn
from torch.testing import assert_close
from torchvision.models.resnet import BasicBlock

from resalign_utils import trace


def test_random_projection_keeps_squared_distances_on_average(small):
    path = trace(*small)
    states = torch.stack(path.states, 1)  # (n, L+1, D)
    distances = (states[1:] - states[:-1]).square().sum(-1)
    draws = torch.stack([path.project(seed=seed) for seed in range(3000)])  # (seeds, n, L+1, 2)
    projected = (draws[:, 1:] - draws[:, :-1]).square().sum(-1)
    assert draws.shape[1:] == (20, 4, 2)
    # a squared length in the plane is exponential: its mean over 3000 has a relative deviation of 0.018
    assert_close(projected.mean(0), distances, rtol=0.09, atol=0)


def test_random_projection_is_one_linear_map_for_all_states_and_depends_on_the_seed_alone(small):
    path = trace(*small)
    doubled = dataclasses.replace(path, states=[2 * state for state in path.states])
    assert_close(doubled.project(3, seed=1), 2 * path.project(3, seed=1))
    assert_close(trace(*small).project(3, seed=1), path.project(3, seed=1), rtol=0, atol=0)
    assert not torch.allclose(path.project(3, seed=1), path.project(3, seed=2))
    part = dataclasses.replace(path, states=path.states[1:3])
    assert_close(part.project(3, seed=1), path.project(3, seed=1)[:, 1:3])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pca_is_that_of_scikit_learn_up_to_signs(small, dims):
    path = trace(*small)
    flat = torch.stack(path.states, 1).flatten(0, 1).numpy()
    expected = torch.from_numpy(PCA(dims).fit_transform(flat)).reshape(20, 4, dims)
    found = path.project(dims, method="pca")
    signs = torch.sign((found * expected).sum((0, 1)))
    assert_close(found, signs * expected)


def test_image_states_are_projected_flat():
    torch.manual_seed(0)
    block = randomised(BasicBlock(3, 3))
    assert trace(block, torch.randn(4, 3, 5, 5, dtype=torch.float64)).project(3).shape == (4, 2, 3)


def test_projections_that_cannot_be_are_refused(small):
    path = trace(*small)
    for dims in (0, 9):
        with pytest.raises(ValueError, match=rf"dims must lie in 1..8; got {dims}"):
            path.project(dims)
    with pytest.raises(ValueError, match="method must be 'random' or 'pca'; got 'tsne'"):
        path.project(method="tsne")
    few = dataclasses.replace(path, states=[state[:1] for state in path.states])
    with pytest.raises(ValueError, match=r"dims must lie in 1..4; got 5"):  # one input's four states
        few.project(5, method="pca")
    block = randomised(BasicBlock(3, 4, 2, nn.Conv2d(3, 4, 1, 2)))
    mixed = trace(block, torch.randn(1, 3, 5, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"states of one shape; got \(3, 5, 5\), \(4, 3, 3\). Trace a part"):
        mixed.project()
