"""The branches of a network, found and taken at their true inputs; their Jacobians are those of the formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contracts import convolve, randomised
from processes import register_ones_own_basic_block
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet18, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

from resalign_utils import (
    ResidualBlock,
    ResNetConfig,
    build_model,
    dense_jacobians,
    gated,
    linearize,
    measure_alignment,
    residual_branch,
    trace,
)
from resalign_utils.models import ResNet
from resalign_utils.residuals import is_residual_block, trace_states

ORDERS = [(activation, norm) for activation in ("post", "pre") for norm in (True, False)]


# Our own blocks


def affine(module, shape, stride):
    """Matrix and shift of a linear layer, a convolution, or a batch norm in eval mode, on an input of this shape."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        weight = module.weight.detach().numpy()
        shift = np.zeros(len(weight)) if module.bias is None else module.bias.detach().numpy()
        if isinstance(module, nn.Linear):
            return weight, shift, weight.shape[:1]
        units = np.eye(np.prod(shape)).reshape(-1, *shape)
        images = convolve(units, weight, stride)  # a column of the matrix for each unit input
        out = images.shape[1:]
        return images.reshape(len(images), -1).T, np.repeat(shift, np.prod(out[1:])), out
    scale = module.weight.detach().numpy() / np.sqrt(module.running_var.numpy() + module.eps)
    shift, pixels = module.bias.detach().numpy() - scale * module.running_mean.numpy(), np.prod(shape[1:], dtype=int)
    return np.diag(np.repeat(scale, pixels)), np.repeat(shift, pixels), shape


def forward_by_hand(modules, h, strides):
    """Value and Jacobian of layers at one h (*in,), batch norm folded into the matrices; one stride per layer."""
    shape, f, jacobian, strides = h.shape, h.ravel(), np.eye(h.size), iter(strides)
    for module in modules:
        if isinstance(module, nn.ReLU):
            active = np.diag((f > 0).astype(float))
            f, jacobian = active @ f, active @ jacobian
        else:
            stride = next(strides) if isinstance(module, nn.Linear | nn.Conv2d) else 1
            matrix, shift, shape = affine(module, shape, stride)
            f, jacobian = matrix @ f + shift, matrix @ jacobian
    return f.reshape(shape), jacobian


def branch_by_hand(block, factor, h, downsamples):
    """Value and Jacobian of the residual branch at one h (*in,): D·W₂·D₁·W₁, gated by what the skip adds."""
    f, jacobian = forward_by_hand(block.branch, h, (2, 1) if downsamples else (1, 1))
    if isinstance(block.outer, torch.nn.ReLU):
        skip = forward_by_hand(block.project, h, (2,))[0] if downsamples and factor else h
        active = (factor * skip + f > 0 if factor else f > 0).astype(float)
        f, jacobian = active * f, active.reshape(-1, 1) * jacobian
    return f, jacobian


@pytest.mark.parametrize("kind", ["fc", "conv", "conv_down"])
@pytest.mark.parametrize(("activation", "norm"), ORDERS)
@pytest.mark.parametrize("skip", [True, False, (0.5, -1.0, 2.0)])
def test_branch_of_our_blocks_has_the_closed_form(blobs, pictures, kind, activation, norm, skip):
    data = blobs if kind == "fc" else pictures
    config = ResNetConfig(3, 8 if kind == "fc" else 2, kind, skip=skip, activation=activation, norm=norm)
    model, gates = randomised(build_model(config, data)), []
    for residual, factor in zip(
        trace(model, data.test_x[:10].double()).residuals, (skip,) * 3 if isinstance(skip, bool) else skip, strict=True
    ):
        block, downsamples = model.get_submodule(residual.name), kind == "conv_down" and residual.index == 2
        by_hand = [branch_by_hand(block, float(factor), h, downsamples) for h in residual.input.numpy()]
        values, jacobians = (torch.from_numpy(np.stack(part)) for part in zip(*by_hand, strict=True))
        assert_close(residual.branch(residual.input).detach(), values)
        assert_close(dense_jacobians(residual.branch, residual.input), jacobians)
        gates.append((jacobians == 0).all(2).any())
        assert (residual.step is None) == downsamples
        assert residual.follows
    assert activation == "pre" or all(gates)  # the outer gate was at work


@pytest.mark.parametrize("granularity", ["channel", "layer"])
@pytest.mark.parametrize(("kind", "skip"), [("fc", True), ("fc", False), ("conv", True)])
def test_branch_of_a_partly_linear_block_passes_the_slope_of_its_outer_activation(pictures, granularity, kind, skip):
    model = randomised(linearize(build_model(ResNetConfig(3, 4, kind, skip=skip), pictures), granularity))
    generator = torch.Generator().manual_seed(1)
    for block in model.blocks:
        block.outer.weight.data.copy_(torch.rand(block.outer.weight.shape, generator=generator))
        block.outer.weight.data[0] = 1.0
    for residual, block in zip(trace(model, pictures.test_x[:5].double()).residuals, model.blocks, strict=True):
        h, f = residual.input.numpy(), block.branch(residual.input).detach().numpy()
        slopes = block.outer.weight.detach().numpy().reshape(1, -1, *[1] * (h.ndim - 2))
        expected = np.where(skip * h + f > 0, 1.0, slopes) * f
        assert_close(residual.branch(residual.input).detach(), torch.from_numpy(expected))
        assert (expected != np.where(skip * h + f > 0, f, 0.0)).any()


@pytest.mark.parametrize("kind", ["conv", "conv_down"])
@pytest.mark.parametrize(("activation", "norm"), ORDERS)
@pytest.mark.parametrize("skip", [True, False])
def test_convolutional_networks_are_measured_where_blocks_have_one_shape(pictures, kind, activation, norm, skip):
    config = ResNetConfig(4, 2, kind, skip=skip, activation=activation, norm=norm)
    model, x = build_model(config, pictures).eval(), pictures.test_x[:3]
    path = trace(model, x)
    small = (4, 3, 4) if kind == "conv_down" else (2, 5, 7)
    assert [tuple(state.shape[1:]) for state in path.states] == [(2, 5, 7)] * 3 + [small] * 2
    report = measure_alignment(model, x)
    pairs = [[i == j or kind == "conv" or {i, j} == {0, 1} for j in range(4)] for i in range(4)]
    assert report.comparable.tolist() == pairs
    assert report.alignment.isfinite().all()


def test_trace_tells_the_states_the_blocks_and_the_logits(small):
    model, x = small
    path = trace(model, x)
    h = [model.stem(x)]
    for block in model.blocks:
        h.append(block(h[-1]))
    assert_close(path.states, [state.detach() for state in h])
    assert_close(path.logits, model(x).detach())
    assert [residual.index for residual in path.residuals] == [1, 2, 3]
    assert [residual.name for residual in path.residuals] == ["blocks.0", "blocks.1", "blocks.2"]
    for residual, before, after in zip(path.residuals, path.states[:-1], path.states[1:], strict=True):
        assert_close(residual.input, before)
        assert_close(residual.output, after)
        assert_close(residual.step, after - before)
        assert residual.follows
    tensors = [path.logits, *path.states, *(residual.input for residual in path.residuals)]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_states_alone_are_those_of_the_trace(small):
    model, x = small
    path = trace(model, x)
    assert_close(trace_states(nn.DataParallel(model), x), (path.states, path.logits), rtol=0, atol=0)
    with pytest.raises(ValueError, match="No residual block found"):
        trace_states(model.head, path.states[-1])


# Torchvision's blocks


def norm(h, bn):
    return F.batch_norm(h, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def shortcut(block, h):
    if block.downsample is None:
        return h
    conv, bn = block.downsample
    return norm(F.conv2d(h, conv.weight, stride=conv.stride), bn)


def formula(block, h):
    """F(h) of He et al. 2016, from functions; nothing here is torchvision's forward pass."""
    if isinstance(block, BasicBlock):
        h = F.relu(norm(F.conv2d(h, block.conv1.weight, stride=block.stride, padding=1), block.bn1))
        return norm(F.conv2d(h, block.conv2.weight, padding=1), block.bn2)
    h = F.relu(norm(F.conv2d(h, block.conv1.weight), block.bn1))
    h = F.relu(norm(F.conv2d(h, block.conv2.weight, stride=block.stride, padding=1), block.bn2))
    return norm(F.conv2d(h, block.conv3.weight), block.bn3)


def downsampling(channels, out, stride):
    return nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))


BLOCKS = {
    "BasicBlock": lambda: BasicBlock(3, 3),
    "BasicBlock, downsampling": lambda: BasicBlock(3, 4, 2, downsampling(3, 4, 2)),
    "Bottleneck": lambda: Bottleneck(8, 2),
    "Bottleneck, downsampling": lambda: Bottleneck(4, 2, 2, downsampling(4, 8, 2)),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_torchvision_block_has_the_jacobian_of_the_formula(kind):
    torch.manual_seed(0)
    block = randomised(BLOCKS[kind]())
    h = torch.relu(torch.randn(2, block.conv1.in_channels, 5, 5, dtype=torch.float64))
    path = trace(block, h)
    assert_close(path.states[0], h)
    assert_close(path.states[1], torch.relu(shortcut(block, h) + formula(block, h)).detach())
    jacobians = dense_jacobians(path.residuals[0].branch, h)
    for x, jacobian in zip(h, jacobians, strict=True):
        gate = (shortcut(block, x[None]) + formula(block, x[None]) > 0).detach()
        expected = torch.autograd.functional.jacobian(lambda y, gate=gate: (gate * formula(block, y[None]))[0], x)
        assert_close(jacobian, expected.reshape(jacobian.shape))
        assert jacobian.abs().max() > 0.01


@pytest.mark.parametrize(("build", "layers"), [(resnet18, (2, 2, 2, 2)), (resnet50, (3, 4, 6, 3))])
def test_torchvision_network_is_traced_through_its_inplace_activations(build, layers):
    torch.manual_seed(0)
    model = randomised(build(num_classes=5), seed=1)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    path = trace(model, x)
    names = [f"layer{stage + 1}.{place}" for stage, count in enumerate(layers) for place in range(count)]
    assert [residual.name for residual in path.residuals] == names
    assert len(path.states) == len(names) + 1
    assert all(residual.follows for residual in path.residuals)
    with torch.no_grad():
        h = F.max_pool2d(F.relu(norm(F.conv2d(x, model.conv1.weight, stride=2, padding=3), model.bn1)), 3, 2, 1)
        for residual, state in zip(path.residuals, path.states, strict=False):
            assert_close(residual.input, h)
            assert_close(state, h)
            block = model.get_submodule(residual.name)
            f, z = formula(block, h), shortcut(block, h) + formula(block, h)
            assert_close(residual.branch(residual.input), f * (z > 0))
            assert_close(residual.output, F.relu(z))
            assert (residual.step is None) == (block.downsample is not None and h.shape != z.shape)
            h = F.relu(z)
        assert_close(path.logits, model(x))


# Anyone's blocks


def test_block_of_ones_own_joins_in_a_few_lines():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(4, 4)

        def forward(self, h):
            return torch.relu(h + self.f(h))

    assert not is_residual_block(Mine())

    @residual_branch.register
    def _(block: Mine):
        return gated(block.f, shortcut=lambda h: h)

    model = nn.Sequential(nn.Linear(3, 4), Mine(), Mine()).double()
    path = trace(model, torch.randn(5, 3, dtype=torch.float64))
    assert [residual.name for residual in path.residuals] == ["1", "2"]
    for residual in path.residuals:
        block = model.get_submodule(residual.name)
        gate = (residual.output > 0).double()
        assert_close(dense_jacobians(residual.branch, residual.input), gate[:, :, None] * block.f.weight.detach())


def test_registered_blocks_inside_another_belong_to_the_outer_one(small):
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, h):
            return h + self.inner(h)

    @residual_branch.register
    def _(block: Outer):
        return block.inner

    model, x = small
    inner, last = nn.Sequential(model.blocks[0], model.blocks[1]), model.blocks[2]
    path = trace(ResNet(model.stem, [Outer(inner), last], model.head), x)
    assert [residual.name for residual in path.residuals] == ["blocks.0", "blocks.1"]
    assert_close(path.residuals[0].branch(path.states[0]), inner(path.states[0]))


def test_ones_own_function_for_a_torchvision_block_comes_first(spawn):
    child = spawn(register_ones_own_basic_block)
    child.join(60)
    assert child.exitcode == 0


def test_subclass_of_a_registered_block_is_one():
    class Named(ResidualBlock):
        pass

    assert is_residual_block(Named(nn.Identity(), 1.0, True))


def test_input_that_a_block_overwrites_is_kept_as_it_was():
    class InPlace(ResidualBlock):
        def forward(self, h):
            return h.add_(self.branch(h))

    model = nn.Sequential(nn.Identity(), *(InPlace(nn.Linear(3, 3), 1.0, post=False) for _ in range(2))).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        h1 = x + model[1].branch(x)
        h2 = h1 + model[2].branch(h1)
    path = trace(model, x.clone())
    assert_close(path.states, [x, h1, h2])
    assert_close(path.residuals[1].input, h1)


class Between(nn.Module):
    """Works in place on what lies between two blocks."""

    def forward(self, h):
        return h.mul_(2)


@pytest.mark.parametrize("between", [nn.Tanh(), Between()], ids=["a layer", "work in place"])
def test_block_after_something_else_does_not_follow(small, between):
    model, x = small
    model.blocks.insert(1, between)
    assert [residual.follows for residual in trace(model, x).residuals] == [True, False, True]


def test_block_that_changes_the_shape_has_no_step():
    block = randomised(BLOCKS["BasicBlock, downsampling"]())
    assert trace(block, torch.randn(1, 3, 5, 5, dtype=torch.float64)).residuals[0].step is None
