"""Networks whose blocks are unlike one another: in size, in shape, in scale. Right values from plain autograd."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import resalign_utils as ra
from resalign_utils.operators import JoinedBatches
from resalign_utils.residuals import residual_branch


class Between(nn.Module):
    """z = P h + F(h) between vectors of two sizes."""

    def __init__(self, ins, outs, scale=1.0):
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(ins, 64), nn.GELU(), nn.Linear(64, outs))
        self.shortcut = nn.Linear(ins, outs, bias=False) if ins != outs else nn.Identity()
        self.scale = scale

    def scaled(self, h):
        return self.scale * self.branch(h)

    def forward(self, h):
        return self.shortcut(h) + self.scaled(h)


class ToDepth(nn.Module):
    """Maps of (4, 16, 16) to (16, 8, 8): another shape, as many entries."""

    def __init__(self):
        super().__init__()
        self.shortcut, self.branch = nn.PixelUnshuffle(2), nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 16, 1))

    def forward(self, h):
        return self.shortcut(h) + self.branch(h)


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, h):
        return h + self.branch(h)


residual_branch.register(Between, lambda block: (block.scaled, block.shortcut, None))
residual_branch.register(ToDepth, lambda block: (block.branch, block.shortcut, None))
residual_branch.register(Convolution, lambda block: block.branch)


def chain(*blocks, ins, classes=10, seed=0):
    torch.manual_seed(seed)
    for block in blocks:
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.2)
    return nn.Sequential(nn.Linear(20, ins), *blocks, nn.Linear(blocks[-1].branch[-1].out_features, classes)).eval()


def truth(model, x):
    """Jacobians (m, d) of all branches at one input, and steps, in float64 by plain autograd."""
    model, h = copy.deepcopy(model).double(), x.double()
    h, jacobians, steps = model[0](h), [], []
    for block in list(model)[1:-1]:
        jacobian = torch.autograd.functional.jacobian(block.scaled, h)
        jacobians.append(jacobian.reshape(-1, h.numel()))
        if h.shape == block(h).shape:
            steps.append(block.scaled(h).detach().flatten())
        h = block(h).detach()
    return jacobians, steps


def test_rank_energy_is_known_block_by_block():
    """Fewer singular values than classes in the smallest block: of the larger ones too few were computed."""
    model = chain(Between(64, 64), Between(64, 64), Between(64, 6), Between(6, 6), ins=64).double()
    x = torch.randn(1, 20, dtype=torch.float64)
    report = ra.measure_alignment(model, x)
    assert report.singular_values.shape[2] == 6
    assert report.rank_energy[0, :2].isnan().all()
    assert_close(report.rank_energy[0, 2:], torch.ones(2, dtype=torch.float64))
    assert "so no more were computed of any block" in report.missing["rank_energy"]
    squares = [torch.linalg.svdvals(j).square() for j in truth(model, x)[0]]
    wide = ra.measure_alignment(nn.Sequential(*model[:3], nn.Linear(64, 10).double()).eval(), x)
    expected = torch.stack([s[:10].sum() / s.sum() for s in squares[:2]])
    assert_close(wide.rank_energy[0], expected, rtol=1e-9, atol=0)
    assert not wide.missing


@pytest.mark.parametrize(
    ("scales", "dead"),
    [([1, 1, 1e-6, 1e-6], [False, False, True, True]), ([1, 1e-6], [False, True]), ([1, 1, 1], [False] * 3)],
)
def test_dead_is_below_a_thousandth_of_the_true_median(scales, dead):
    """Of an even number of blocks too, where the lower of the middle two may itself be dead."""
    model = chain(*[Between(16, 16, scale) for scale in scales], ins=16).double()
    report = ra.measure_alignment(model, torch.randn(1, 20, dtype=torch.float64))
    assert report.dead[0].tolist() == dead


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-6, 1e-8])
def test_steps_of_small_branches_are_not_lost_in_the_rounding_of_their_states(scale):
    model, x = chain(*[Between(16, 16, scale) for _ in range(8)], ins=16), torch.randn(1, 20)
    steps = torch.stack(truth(model, x)[1])
    expected = len(steps) / (steps / steps.norm(dim=1, keepdim=True)).sum(0).norm()
    report = ra.measure_alignment(model, x)
    assert_close(report.line_shape_score[0].double(), expected, rtol=2e-5, atol=0)
    lengths = steps.norm(dim=1)
    assert_close(report.step_cv[0].double(), lengths.std(correction=0) / lengths.mean(), rtol=1e-4, atol=0)
    assert not report.still.any()


def test_blocks_of_one_size_and_two_shapes_are_solved_apart():
    torch.manual_seed(0)
    stem, head = nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    model = nn.Sequential(stem, Convolution(), ToDepth(), *head).eval()
    x = torch.randn(1, 3, 16, 16)
    dense, krylov = (ra.measure_alignment(model, x, method=method) for method in ("dense", "krylov"))
    assert_close(krylov.singular_values, dense.singular_values, rtol=1e-4, atol=1e-6)
    batches = [ra.JacobianBatch(residual.branch, residual.input) for residual in ra.trace(model, x).residuals]
    with pytest.raises(ValueError, match=r"of one shape can be joined; the first has inputs \(4, 16, 16\)"):
        JoinedBatches(batches)
