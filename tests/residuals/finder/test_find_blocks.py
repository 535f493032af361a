"""Residual sums that are found are those that are registered, to rounding; and the table of them."""

import warnings

import pytest
import torch
from contracts import randomised
from torch import nn
from torch.testing import assert_close
from torchvision.models import densenet121, mobilenet_v2, resnet18
from torchvision.models.resnet import BasicBlock

from resalign_utils import find_blocks, linearize, measure_alignment, residual_branch, residual_jacobians, trace


def jacobians(model, x, **how):
    return [residual_jacobians(residual) for residual in trace(model, x, **how).residuals]


def by_autograd(function, h):
    """The Jacobian (m, d) of a function at one input (*in), by torch's own loop of backward passes."""
    jacobian = torch.autograd.functional.jacobian(lambda h: function(h[None])[0], h)
    return jacobian.reshape(-1, h.numel())


class Mine(nn.Module):
    """Sums written out in one forward, with no block of their own."""

    def __init__(self, width=5, depth=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


@pytest.fixture
def resnet():
    torch.manual_seed(0)
    return randomised(resnet18(num_classes=3)), torch.randn(2, 3, 32, 32, dtype=torch.float64)


@pytest.fixture
def unregistered(monkeypatch):
    """The resnet with blocks of a type that no one knows."""

    class Foreign(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.__dict__["conv"] = block.conv1
            for name, module in block.named_children():
                setattr(self, name, module)

        forward = BasicBlock.forward

    def swap(model):
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for i, block in enumerate(stage):
                foreign = Foreign(block)
                foreign.downsample = block.downsample
                stage[i] = foreign
        return model.eval()

    return swap


def test_found_blocks_have_the_jacobians_of_registered_ones(resnet, unregistered):
    model, x = resnet
    expected = trace(model, x)
    unregistered(model)
    found = trace(model, x)
    table = find_blocks(model, x)
    assert [block.how for block in table] == ["found"] * 8
    assert [block.outer for block in table] == ["relu"] * 8
    assert [block.shortcut for block in table] == ["identity"] * 2 + ["linear", "identity"] * 3
    for mine, own in zip(found.residuals, expected.residuals, strict=True):
        assert mine.name == own.name
        assert_close((mine.input, mine.output), (own.input, own.output))
        probe = torch.randn_like(own.input)
        _, pushed = torch.func.jvp(mine.branch, (own.input,), (probe,))
        _, wanted = torch.func.jvp(own.branch, (own.input,), (probe,))
        assert_close(pushed, wanted, rtol=1e-12, atol=1e-13)


def test_scripted_model_has_the_blocks_of_the_eager_one(resnet):
    model, x = resnet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
        scripted = torch.jit.trace(model, x)
        states = trace(scripted, x).states
    assert_close(states, trace(model, x).states)


def test_graph_of_a_model_has_its_blocks(resnet):
    model, x = resnet
    graph = linearize(model)
    assert len(find_blocks(graph, x)) == 8
    assert_close(trace(graph, x).states, trace(model, x).states)


def test_sums_in_one_forward_are_found_and_measured():
    torch.manual_seed(0)
    model, x = Mine().double().eval(), torch.randn(4, 5, dtype=torch.float64)
    assert find_blocks(model, x).names == ["(model)#1", "(model)#2", "(model)#3"]
    found = jacobians(model, x)
    h = x
    for layer, mine in zip(model.layers, found, strict=True):
        own = torch.stack([by_autograd(lambda h, layer=layer: torch.tanh(layer(h)), row) for row in h])
        assert_close(mine, own, rtol=1e-12, atol=1e-14)
        h = (h + torch.tanh(layer(h))).detach()
    assert measure_alignment(model, x).coupling.shape == (4, 3, 3)


def test_looped_network_has_a_block_a_call():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Mine(depth=1)

        def forward(self, x):
            for _ in range(3):
                x = self.block(x)
            return x

    model, x = Looped().eval(), torch.randn(2, 5)
    assert find_blocks(model, x).names == ["block", "block@2", "block@3"]
    first, last = jacobians(model, x)[::2]
    assert not torch.allclose(first, last)


def test_registered_block_in_a_loop_is_a_block_a_call(small):
    model, x = small
    model.blocks.append(model.blocks[0])
    path = trace(model, x)
    assert path.residuals[-1].name == "blocks.0@2"
    assert_close(path.residuals[-1].input, path.states[-2])


def test_registered_types_override_what_is_found():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.f = nn.Linear(5, 5)

        def forward(self, h):
            return h + torch.tanh(self.f(h))

    @residual_branch.register
    def _(block: Scaled):
        return lambda h: torch.tanh(block.f(h))

    model, x = nn.Sequential(Scaled(), Mine(depth=2), Scaled()).eval(), torch.randn(2, 5)
    table = find_blocks(model, x)
    assert [(b.name, b.how) for b in table] == [
        ("0", "registered"),
        ("1#1", "found"),
        ("1#2", "found"),
        ("2", "registered"),
    ]
    states = trace(model, x).states
    assert_close(states[1], model[0](x).detach())
    assert_close(states[4], model(x).detach())


def test_blocks_can_be_chosen_and_left_out():
    model, x = Mine().eval(), torch.randn(2, 5)
    table = find_blocks(model, x)
    assert [r.name for r in trace(model, x, blocks=table[1:]).residuals] == ["(model)#2", "(model)#3"]
    assert [r.name for r in trace(model, x, exclude=["(model)#2"]).residuals] == ["(model)#1", "(model)#3"]
    with pytest.raises(ValueError, match=r"No block is named 'blocks.7'. The names are '\(model\)#1', "):
        trace(model, x, blocks=["blocks.7"])


def test_what_is_no_block_is_named_with_its_reason():
    table = find_blocks(densenet121(num_classes=3).eval(), torch.randn(2, 3, 32, 32))
    assert (len(table), list(table), {other.kind for other in table.others}) == (0, [], {"concatenation"})
    assert "It has no additive stream" in str(table) or "it has no additive stream" in str(table)
    assert "57 more (concatenation)" in str(table)


@pytest.mark.parametrize("form", [lambda x, m: (x, m), lambda x, m: {"x": x, "mask": m}])
def test_model_with_several_arguments_is_called_with_all_of_them(form):
    class Masked(Mine):
        def forward(self, x, mask):
            for layer in self.layers:
                x = x + torch.tanh(layer(x)) * mask
            return x

    torch.manual_seed(0)
    model, x = Masked().double().eval(), torch.randn(4, 5, dtype=torch.float64)
    mask = (torch.rand(4, 5) < 0.5).double()
    for mine, (layer, h) in zip(
        jacobians(model, form(x, mask)),
        zip(model.layers, trace(model, form(x, mask)).states, strict=False),
        strict=True,
    ):
        own = torch.stack(
            [
                by_autograd(lambda h, layer=layer, m=m: torch.tanh(layer(h)) * m, row)
                for row, m in zip(h, mask, strict=True)
            ]
        )
        assert_close(mine, own, rtol=1e-12, atol=1e-14)


def test_table_prints_and_has_rows(resnet):
    table = find_blocks(mobilenet_v2(num_classes=3).eval(), torch.randn(2, 3, 32, 32))
    assert (len(table), table[0].name, table.to_frame().shape) == (10, "features.3", (10, 6))
    assert "features.3" in str(table)
    assert "<table" in table._repr_html_()
