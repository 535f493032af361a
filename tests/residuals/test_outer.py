"""The outer activation counts by its own derivative at the traced point, whatever function it is."""

import pytest
import torch
import torch.nn.functional as F
from contracts import randomised
from torch import nn
from torch.testing import assert_close
from torchvision.models.resnet import BasicBlock, Bottleneck

from resalign_utils import ResidualBlock, dense_jacobians, linearize, residual_branch, trace
from resalign_utils.residuals import Parts, gated


class Post(nn.Module):
    """σ(P h + f(h))."""

    def __init__(self, f, outer, shortcut=nn.Identity()):  # noqa: B008
        super().__init__()
        self.f, self.outer, self.shortcut = f, outer, shortcut

    def forward(self, h):
        return self.outer(self.shortcut(h) + self.f(h))


@residual_branch.register
def _(block: Post):
    return block.f, block.shortcut, block.outer


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tanh_branch(width=4, out=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, out or width))


def row_by_row(function, h):
    """Jacobians (n, m, d) of ``function(g, i)``, one row at a time, from plain autograd in float64."""
    rows = [torch.autograd.functional.jacobian(lambda g, i=i: function(g[None], i)[0], h[i]) for i in range(len(h))]
    return torch.stack([row.reshape(-1, h[0].numel()) for row in rows])


def exact(block, h):
    """J_σ(z)·∂F/∂h: the derivative of the block's output along the path through F alone."""
    return row_by_row(lambda g, i: block.outer(block.shortcut(h[i : i + 1]) + block.f(g)), h)


def prelu():
    layer = nn.PReLU(4)
    layer.weight.data = torch.tensor([-0.5, 0.0, 0.25, 1.0])
    return layer


ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.LeakyReLU(0.2, inplace=True), nn.PReLU(), prelu()),
    *(
        nn.ELU(),
        nn.ELU(inplace=True),
        nn.SELU(),
        nn.CELU(),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.SiLU(inplace=True),
    ),
    *(nn.Mish(), nn.Softplus(), nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU6(), nn.Hardtanh(), nn.Tanh(), nn.Sigmoid()),
    *(nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Softshrink(), nn.Hardshrink(0.1), nn.Threshold(0.0, 0.0)),
    *(nn.RReLU(), nn.Dropout(0.5), nn.Sequential(nn.ReLU(), nn.Tanh()), torch.sin),
]
MIXING = [
    nn.LayerNorm(4),
    nn.Sequential(nn.LayerNorm(4), nn.ReLU()),
    nn.GroupNorm(2, 4),
    nn.Softmax(dim=1),
    nn.GLU(),
    nn.Linear(4, 3),
    lambda z: F.normalize(z) * 2,
]


def name_of(outer):
    return getattr(outer, "__name__", type(outer).__name__)


@pytest.mark.parametrize("outer", [*ACTIVATIONS, *MIXING], ids=name_of)
def test_the_branch_has_the_derivative_through_f_alone(outer):
    block, h = randomised(Post(tanh_branch(), outer, nn.Linear(4, 4))), 2 * normal(5, 4)
    residual = trace(block, h).residuals[0]
    expected = exact(block, h)
    assert_close(dense_jacobians(residual.branch, h), expected)
    assert expected.abs().max() > 0.01
    assert_close(residual.output, block(h).detach())


@pytest.mark.parametrize("outer", [nn.ReLU(), nn.GELU(), nn.LayerNorm(4)], ids=name_of)
def test_all_ways_of_differentiating_agree(outer):
    block, h, v, u = Post(tanh_branch(), outer).double(), normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
    branch, jacobians = trace(block, h).residuals[0].branch, exact(block, h)
    forward, backward = (jacobians @ v[:, :, None])[:, :, 0], (jacobians.mT @ u[:, :, None])[:, :, 0]
    point = h.clone().requires_grad_()
    y = branch(point)
    zero = torch.zeros_like(y).requires_grad_()
    (pulled,) = torch.autograd.grad(y, point, zero, create_graph=True)
    assert_close(torch.autograd.grad(pulled, zero, v)[0], forward)
    assert_close(torch.autograd.grad(branch(point), point, u)[0], backward)
    several = torch.autograd.grad(branch(point), point, torch.stack([u, -u]), is_grads_batched=True)[0]
    assert_close(several, torch.stack([backward, -backward]))
    assert_close(torch.func.jvp(branch, (h,), (v,))[1], forward)
    pullback = torch.func.vjp(branch, h)[1]
    assert_close(torch.vmap(lambda w: pullback(w)[0])(torch.stack([u, -u])), torch.stack([backward, -backward]))
    with torch.no_grad():
        quotient = (branch(h + 1e-6 * v) - branch(h - 1e-6 * v)) / 2e-6  # z is held: the same function
    assert_close(quotient, forward, rtol=1e-6, atol=1e-8)


def test_at_the_kink_of_a_relu_the_derivative_is_zero():
    block = Post(nn.Linear(3, 3, bias=False), nn.ReLU()).double()
    block.f.weight.data = torch.diag(torch.tensor([-1.0, 1.0, -2.0])).double()
    h = torch.ones(2, 3, dtype=torch.float64)  # z = 0, 2, −1
    expected = torch.diag(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)).expand(2, 3, 3)
    assert_close(dense_jacobians(trace(block, h).residuals[0].branch, h), expected)


def test_the_gate_of_a_relu_is_to_the_bit_that_of_the_sum():
    block, h = Post(tanh_branch(), nn.ReLU()), normal(50, 4).float()
    residual = trace(block, h).residuals[0]
    with torch.no_grad():
        f = block.f(h)
        assert torch.equal(residual.branch(h), (h + f > 0) * f)


def test_parts_of_a_relu_have_the_jacobian_of_the_branch():
    block, h = ResidualBlock(tanh_branch(), 0.5, post=True).double(), normal(5, 4)
    expected = dense_jacobians(trace(block, h).residuals[0].branch, h)
    assert_close(dense_jacobians(residual_branch(block), h), expected)


def test_an_outer_function_that_mixes_units_at_some_inputs_only_is_seen():
    def clipped(z):
        return z / z.norm(dim=1, keepdim=True).clamp(min=1.5)

    block, h = Post(tanh_branch(), clipped).double(), normal(20, 4)
    h[:16] /= 10
    assert_close(dense_jacobians(trace(block, h).residuals[0].branch, h), exact(block, h))
    norms = (h + block.f(h)).norm(dim=1)
    assert norms[:16].max() < 1.5 < norms.max()


def test_gated_is_the_same_as_three_parts():
    f, h = tanh_branch().double(), normal(3, 4)
    parts = gated(f, lambda h: 2 * h)
    assert (parts.branch, parts.shortcut(h[0]).tolist(), type(parts.outer)) == (f, (2 * h[0]).tolist(), nn.ReLU)
    assert_close(parts(h), (2 * h + f(h) > 0) * f(h))
    assert Parts(f, None, None)(h).equal(f(h))
    assert_close(Parts(f, None, nn.LayerNorm(4).double())(h).shape, h.shape)


@pytest.mark.parametrize("outer", [nn.Tanh(), nn.LayerNorm(4)], ids=name_of)
def test_parts_can_be_called_at_any_h(outer):
    f, h = tanh_branch().double(), normal(3, 4)
    at = torch.stack([torch.autograd.functional.jacobian(lambda z: outer.double()(z[None])[0], z) for z in h + f(h)])
    assert_close(Parts(f, lambda h: h, outer)(h), (at @ f(h)[:, :, None])[:, :, 0])


# Torchvision's blocks with another activation


def swapped(kind, activation):
    torch.manual_seed(0)
    block = randomised(BasicBlock(4, 4) if kind is BasicBlock else Bottleneck(8, 2))
    block.relu = activation.double()
    return block


def through_f(block, g, skip):
    """The block's own forward pass, where its skip is not g but held."""
    block.downsample = lambda _: skip
    y = block(g)
    block.downsample = None
    return y


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
@pytest.mark.parametrize(
    "activation",
    [nn.LeakyReLU(0.1, inplace=True), nn.GELU(), nn.PReLU(), nn.SiLU(inplace=True), nn.Hardswish(), nn.Identity()],
    ids=name_of,
)
def test_torchvision_block_counts_the_activation_it_holds(kind, activation):
    block = swapped(kind, activation)
    h = normal(2, block.conv1.in_channels, 3, 3)
    residual = trace(block, h).residuals[0]
    block._modules.pop("downsample", None)
    expected = row_by_row(lambda g, i: through_f(block, g, h[i : i + 1]), h)
    assert_close(dense_jacobians(residual.branch, h), expected)
    plain = swapped(kind, nn.ReLU())
    other = dense_jacobians(trace(plain, h).residuals[0].branch, h)
    assert (expected - other).norm() / expected.norm() > 0.01
    assert getattr(block.relu, "inplace", False) == getattr(activation, "inplace", False)


@pytest.mark.parametrize("granularity", ["channel", "layer"])
def test_linearised_torchvision_block_counts_its_slopes(granularity):
    torch.manual_seed(0)
    model = randomised(nn.Sequential(BasicBlock(4, 4)))
    copy = linearize(model, granularity)
    h = normal(2, 4, 3, 3)
    assert_close(copy(h), model(h))


# Outer activations that cannot be


@pytest.mark.parametrize(
    "outer",
    [
        lambda z: torch.relu(z) + (z - z.detach()),
        lambda z: z * torch.sigmoid(z).detach(),
        lambda z: z - z.mean(1, keepdim=True).detach(),
    ],
    ids=["straight-through", "detached gate", "detached mean"],
)
def test_outer_activation_with_another_derivative_than_its_values_is_refused(outer):
    text = r"Block '' \(Post\): its outer activation has another derivative by autograd than by its values: .* detached"
    with pytest.raises(ValueError, match=text):
        trace(Post(tanh_branch(), outer).double(), normal(5, 4) + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("part", [1e-3, 0.01, 0.05, 0.1])
def test_an_outer_activation_that_hides_a_small_part_is_refused(part, dtype):
    block = Post(tanh_branch(), lambda z: z * (1 + part * z.detach().tanh())).to(dtype)
    with pytest.raises(ValueError, match="its outer activation has another derivative by autograd than by its values"):
        trace(block, normal(5, 4).to(dtype))
    weighted = nn.Linear(4, 4)
    block = Post(tanh_branch(), lambda z: weighted(z) + part * z.detach()).to(dtype)
    weighted.to(dtype)
    with pytest.raises(ValueError, match="its outer activation has another derivative by autograd than by its values"):
        trace(block, normal(5, 4).to(dtype))


@pytest.mark.parametrize("part", [0.0, 0.2])
def test_an_outer_activation_that_knows_no_float64_is_compared_in_float32(part):
    def picky(z):
        if z.dtype != torch.float32:
            raise TypeError("float32")
        return z.tanh() + part * z.detach()

    block = Post(tanh_branch(), picky)
    if part == 0.0:
        assert trace(block, normal(5, 4).float()).residuals
        return
    with pytest.raises(ValueError, match="has another derivative by autograd than by its values"):
        trace(block, normal(5, 4).float())


def test_outer_activation_without_derivative_is_refused():
    text = (
        r"Block '' \(Post\): its outer activation cannot be differentiated \(element 0 of tensors does not require grad"
    )
    with pytest.raises(ValueError, match=text):
        trace(Post(tanh_branch(), lambda z: z.detach().relu()).double(), normal(5, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("outer", [nn.ReLU(), nn.GELU(), nn.Hardtanh(), nn.LayerNorm(64), nn.Sigmoid()], ids=name_of)
def test_no_false_alarm_at_any_scale(outer, scale, shift, dtype):
    block = Post(nn.Linear(64, 64), outer)
    h = (normal(6, 64) + shift) * scale
    h[0], h[1, 1:], h[2, 0] = 0.0, 0.0, 300 * scale  # nothing, one entry, one far out
    block, h = block.to(dtype), h.to(dtype)
    (residual,) = trace(block, h).residuals
    assert torch.equal(residual.output, block(h))


def test_block_of_ours_with_nothing_to_gate_is_its_bare_branch():
    block = ResidualBlock(nn.Linear(3, 3), 1.0, post=False)
    assert trace(block, torch.ones(2, 3)).residuals[0].branch is block.branch
