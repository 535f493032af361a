"""A block's registered parts must give its output: what is registered wrongly is refused, what is right is taken."""

import pytest
import torch
import torch.nn.functional as F
from contracts import randomised
from torch import nn
from torch.testing import assert_close
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.models.resnet import BasicBlock, Bottleneck

from resalign_utils import ResidualBlock, dense_jacobians, gated, residual_branch, trace
from resalign_utils.residuals import Parts

REFUSED = r"Block '{name}' \({kind}\) is not what is registered for it: {formula} differs from its output by {size}"


class Around(nn.Module):
    """A block that does ``forward``, registered with ``parts``."""

    def __init__(self, forward, parts):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4))
        self.ahead, self.parts = forward, parts

    def forward(self, h):
        return self.ahead(self.f, h)


@residual_branch.register
def _(block: Around):
    return block.parts(block.f)


def around(forward, parts):
    torch.manual_seed(0)
    return nn.Sequential(nn.Identity(), Around(forward, parts)).double()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def identity(h):
    return h


RIGHT = {
    "a bare branch": (lambda f, h: h + f(h), lambda f: f),
    "three parts": (lambda f, h: F.gelu(2 * h + f(h)), lambda f: (f, lambda h: 2 * h, F.gelu)),
    "no shortcut": (lambda f, h: F.relu(f(h)), lambda f: (f, None, F.relu)),
    "nothing but a branch": (lambda f, h: f(h), lambda f: (f, None, None)),
    "an outer identity": (lambda f, h: h + f(h), lambda f: (f, identity, nn.Identity())),
    "gated": (lambda f, h: F.relu(h + f(h)), lambda f: gated(f, identity)),
    "the first of a tuple": (lambda f, h: (h + f(h), h), lambda f: f),
    "the first of a list": (lambda f, h: [h + f(h)], lambda f: f),
    "a branch in place, the state kept": (
        lambda f, h: h + f(h.clone().relu_()),
        lambda f: lambda h: f(h.relu_()),
    ),
    "a branch in place, before the sum": (
        lambda f, h: f(h.relu_()) + h,
        lambda f: (lambda h: f(h.relu_()), torch.relu, None),
    ),
    "a shortcut in place": (lambda f, h: f(h) + h.relu_(), lambda f: (f, lambda h: h.relu_(), None)),
}


@pytest.mark.parametrize(("forward", "parts"), RIGHT.values(), ids=RIGHT)
def test_what_is_registered_rightly_is_taken(forward, parts):
    model, h = around(forward, parts), normal(3, 4)
    residual = trace(model, h).residuals[0]
    output = model(h.clone())
    assert_close(residual.output, (output if isinstance(output, torch.Tensor) else output[0]).detach())
    leaf = h.clone().requires_grad_()
    residual.branch(leaf).sum().backward()  # in place on a leaf would fail
    assert leaf.grad.abs().max() > 0
    assert torch.equal(leaf, h)


def test_a_branch_in_place_has_the_derivative_of_its_own():
    model, h = around(*RIGHT["a branch in place, before the sum"]), normal(3, 4)
    expected = [torch.autograd.functional.jacobian(lambda g: model[1].f(g.relu()), row) for row in h]
    assert_close(dense_jacobians(trace(model, h).residuals[0].branch, h), torch.stack(expected))


WRONG = {
    "another activation": (lambda f, h: F.leaky_relu(h + f(h)), lambda f: gated(f, identity), "outer(shortcut(h)"),
    "no activation": (lambda f, h: F.relu(h + f(h)), lambda f: f, "shortcut(h) + branch(h)"),
    "one that is not there": (lambda f, h: h + f(h), lambda f: gated(f, identity), "outer(shortcut(h) + branch(h))"),
    "a shortcut that is not there": (lambda f, h: F.relu(f(h)), lambda f: gated(f, identity), "outer(shortcut(h)"),
    "no shortcut": (lambda f, h: F.relu(h + f(h)), lambda f: (f, None, F.relu), "outer(branch(h))"),
    "a scaled branch": (lambda f, h: h + 0.999 * f(h), lambda f: f, "shortcut(h) + branch(h)"),
    "work in place": (lambda f, h: f(h.relu_()) + h, lambda f: lambda h: f(h.relu_()), "shortcut(h) + branch(h)"),
    "not the state": (lambda f, h: (f(h), h + f(h)), lambda f: f, "shortcut(h) + branch(h)"),
    "GELU's other form": (
        lambda f, h: F.gelu(h + f(h), approximate="tanh"),
        lambda f: (f, identity, F.gelu),
        "outer(shortcut(h) + branch(h))",
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("forward", "parts", "formula"), WRONG.values(), ids=WRONG)
def test_what_is_registered_wrongly_is_refused_with_the_size(forward, parts, formula, dtype):
    model = around(forward, parts).to(dtype)
    with pytest.raises(ValueError, match="is not what is registered for it") as caught:
        trace(model, normal(3, 4).to(dtype))
    text = str(caught.value)
    assert text.startswith("Block '1' (Around) is not what is registered for it: " + formula)
    assert "Check what the registered function returns, (branch, shortcut, outer)" in text
    assert ("in place" in text) == (forward is WRONG["work in place"][0])


def test_the_size_of_the_difference_is_told():
    model, h = around(lambda f, h: h + f(h) + 0.25, lambda f: f), normal(1, 4)
    f = model[1].f(h)
    largest = float(torch.stack([h, f, h + f]).detach().abs().max())
    with pytest.raises(ValueError, match=rf"differs from its output by {0.25 / largest:.1e} of the largest entry"):
        trace(model, h)


SMALL = {
    "another factor": (lambda f, h: h + 1e-5 * f(h), lambda f: lambda h: -3e-5 * f(h)),
    "a smaller one": (lambda f, h: h + 1e-7 * f(h), lambda f: lambda h: 1.001e-7 * f(h)),
    "a summand forgotten": (lambda f, h: h + f(h) * 1e-5 + (h * 1e-5).sin(), lambda f: lambda h: 1e-5 * f(h)),
    "under an activation": (
        lambda f, h: F.gelu(h + 1e-5 * f(h)),
        lambda f: (lambda h: 2e-5 * f(h), identity, F.gelu),
    ),
    "in a norm": (
        lambda f, h: F.layer_norm(1e3 * h + f(h), (4,)),
        lambda f: (lambda h: 1.01 * f(h), lambda h: 1e3 * h, lambda z: F.layer_norm(z, (4,))),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("forward", "parts"), SMALL.values(), ids=SMALL)
def test_a_branch_that_is_small_beside_the_state_is_checked(forward, parts, n, dtype):
    with pytest.raises(ValueError, match="is not what is registered for it"):
        trace(around(forward, parts).to(dtype), normal(n, 4).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_massive_activation_hides_no_other_unit(dtype):
    def massive(h):
        return h + torch.tensor([1e5, 0, 0, 0], dtype=h.dtype)

    right = (lambda f, h: massive(h) + 1e-3 * f(h), lambda f: (lambda h: 1e-3 * f(h), massive, None))
    assert trace(around(*right).to(dtype), normal(2, 4).to(dtype)).residuals
    with pytest.raises(ValueError, match="is not what is registered for it"):
        trace(around(right[0], lambda f: (lambda h: 2e-3 * f(h), massive, None)).to(dtype), normal(2, 4).to(dtype))


class Transformer(nn.Module):
    """h + g·attention(h), then + g·MLP."""

    def __init__(self, whole):
        super().__init__()
        self.attend, self.mlp, self.whole = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 8), whole

    def branch(self, h):
        f = 1e-6 * self.attend(h, h, h, need_weights=False)[0]
        return f + 1e-6 * self.mlp(h + f) if self.whole else f

    def forward(self, h):
        h = h + 1e-6 * self.attend(h, h, h, need_weights=False)[0]
        return h + 1e-6 * self.mlp(h)


residual_branch.register(Transformer, lambda block: block.branch)


def test_a_transformer_that_forgets_its_mlp_is_refused():
    torch.manual_seed(0)
    assert trace(Transformer(True), torch.randn(2, 5, 8)).residuals
    with pytest.raises(ValueError, match=r"of the largest entry, where the branch adds \d\.\de-0[67]\."):
        trace(Transformer(False), torch.randn(2, 5, 8))


class Picky(Around):
    """It asks for its dtype."""

    def forward(self, h):
        if h.dtype != torch.float32:
            raise TypeError("float32")
        return super().forward(h)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_where_float64_cannot_be_the_resolution_of_float32_is_left(factor):
    torch.manual_seed(0)
    model = Picky(lambda f, h: h + 1e-4 * f(h), lambda f: lambda h: factor * 1e-4 * f(h))
    if factor == 1.0:
        assert trace(model, normal(3, 4).float()).residuals
        return
    with pytest.raises(ValueError, match="is not what is registered for it"):
        trace(model, normal(3, 4).float())


@pytest.mark.parametrize("before", [True, False])
def test_a_hook_that_scales_is_named(before):
    def doubled(module, args, *output):
        return 2 * (output or args)[0]

    model = around(lambda f, h: h + f(h), lambda f: f)
    (model[1].register_forward_pre_hook if before else model[1].register_forward_hook)(doubled)
    if before:  # what a trace sees is what the block is given
        assert trace(model, normal(3, 4)).residuals
        return
    with pytest.raises(ValueError, match=r"It has forward hooks \(doubled\), which its parts do not pass: remove them"):
        trace(model, normal(3, 4))


@pytest.mark.parametrize("parts", [lambda f: f[0], lambda f: (f, f[2], None), lambda f: (f, None, f[2])], ids="012")
def test_a_part_that_cannot_be_evaluated_is_named_with_the_reason(parts):
    def broken(f):
        made = parts(f)
        return (lambda h: f(f[0](h)), None, None) if callable(made) else made

    text = (
        r"Block '1' \(Around\): its registered (branch|shortcut|outer activation) cannot be evaluated at \(3, 4\) \(R"
    )
    with pytest.raises(ValueError, match=text):
        trace(around(lambda f, h: h + f(h), broken), normal(3, 4))


def test_a_wrong_row_among_large_ones_is_found():
    model = around(lambda f, h: h + f(h) + (h[:, :1].abs() < 1e-5) * 1e-6, lambda f: f)
    h = normal(3, 4) * torch.tensor([[1e6], [1e6], [1e-6]], dtype=torch.float64)
    model[1].f[0].bias.data.zero_()
    model[1].f[2].bias.data.zero_()
    with pytest.raises(ValueError, match="is not what is registered for it"):
        trace(model, h)


MALFORMED = {
    "no tensor": (lambda f: lambda h: (f(h), None), r"its registered branch must return a tensor; got tuple"),
    "no tensor from the shortcut": (
        lambda f: (f, lambda h: 0.0, None),
        "registered shortcut must return a tensor; got f",
    ),
    "no tensor from outside": (lambda f: (f, None, lambda z: [z]), "registered outer activation must return a tensor"),
    "two parts": (
        lambda f: (f, identity),
        r"registered for Around must return its branch, .* it returned \(.*, func.*\)",
    ),
    "nothing": (
        lambda f: None,
        r"registered for Around must return its branch, or \(branch, shortcut, outer\).*NoneType",
    ),
    "a number": (lambda f: (f, 1.0, None), r"registered for Around must return .* returned \(Sequential, float, NoneT"),
}


@pytest.mark.parametrize(("parts", "text"), MALFORMED.values(), ids=MALFORMED)
def test_registered_functions_that_return_something_else_are_refused(parts, text):
    with pytest.raises(TypeError, match=text):
        trace(around(lambda f, h: h + f(h), parts), normal(3, 4))


SHAPES = {
    "a bare branch that changes the shape": (
        lambda f: lambda h: f(h)[:, :2],
        r"its registered branch gives \(3, 2\) and its shortcut \(3, 4\) for an input \(3, 4\). .* None for no",
    ),
    "one that would broadcast": (lambda f: lambda h: f(h)[:, :1], r"gives \(3, 1\) and its shortcut \(3, 4\)"),
    "fewer rows": (lambda f: (lambda h: f(h)[:1], None, None), r"its registered branch gives \(1, 4\) for an input"),
    "an outer pooling": (
        lambda f: (f, identity, lambda z: z[:, :2]),
        r"registered parts give \(3, 2\), the block \(3, 4\)",
    ),
}


@pytest.mark.parametrize(("parts", "text"), SHAPES.values(), ids=SHAPES)
def test_parts_of_other_shapes_are_refused(parts, text):
    with pytest.raises(ValueError, match=text):
        trace(around(lambda f, h: h + f(h), parts), normal(3, 4))


@pytest.mark.parametrize("answer", [lambda h: {"h": h}, lambda h: (None, h), lambda h: (), lambda h: None])
def test_blocks_that_return_no_state_are_refused(answer):
    model = around(lambda f, h: answer(h + f(h)), lambda f: f)
    model.append(nn.Identity())
    text = r"Block '1' must return its state, a tensor or the first of a tuple; it returned \w+. Register the"
    with pytest.raises(TypeError, match=text):
        trace(model, normal(3, 4))


# Foreign blocks


class Squeezed(BasicBlock):
    """A subclass with a forward pass of its own."""

    def forward(self, h):
        f = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(h)))))
        return F.relu(h + f * torch.sigmoid(f.mean((2, 3), keepdim=True)))


def test_subclass_with_a_forward_of_its_own_is_refused():
    torch.manual_seed(0)
    block, h = randomised(nn.Sequential(Squeezed(4, 4))), normal(2, 4, 5, 5)
    text = REFUSED.format(
        name="0", kind="Squeezed", formula=r"outer\(shortcut\(h\) \+ branch\(h\)\)", size=r"\d\.\de-01"
    )
    with pytest.raises(ValueError, match=text):
        trace(block, h)


@pytest.mark.parametrize(
    "block", [lambda: BasicBlock(4, 4), lambda: Bottleneck(8, 2)], ids=["BasicBlock", "Bottleneck"]
)
def test_torchvision_block_whose_forward_was_patched_is_refused(block):
    block = randomised(block())
    whole = block.forward
    block.forward = lambda h: whole(h) * 1.5
    with pytest.raises(ValueError, match=r"is not what is registered for it: outer\(shortcut\(h\) \+ branch\(h\)\)"):
        trace(nn.Sequential(block), normal(2, block.conv1.in_channels, 5, 5))


def test_skips_that_are_conditional_are_refused_or_told_apart():
    class Inverted(InvertedResidual):
        pass

    torch.manual_seed(0)
    model, x = MobileNetV2(num_classes=3, block=Inverted).double().eval(), normal(2, 3, 32, 32)
    residual_branch.register(Inverted, lambda block: block.conv)
    with pytest.raises(ValueError, match=r"Block 'features.1' \(Inverted\): its registered branch gives \(2, 16, "):
        trace(model, x)
    residual_branch.register(Inverted, lambda block: (block.conv, identity, None))
    with pytest.raises(ValueError, match=r"Block 'features.1' \(Inverted\): its registered branch gives"):
        trace(model, x)
    residual_branch.register(Inverted, lambda block: block.conv if block.use_res_connect else (block.conv, None, None))
    residuals = trace(model, x).residuals
    assert len(residuals) == 17
    with torch.no_grad():
        steps = [torch.allclose(r.output, r.branch(r.input)) for r in residuals]
    assert steps.count(False) == 10  # the skips


@pytest.mark.parametrize("skip", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("outer", [nn.ReLU(), nn.GELU(), nn.Identity()])
def test_our_block_with_any_skip_and_outer_activation_is_replayed(skip, outer):
    torch.manual_seed(0)
    block = ResidualBlock(nn.Linear(4, 3), skip, post=True, project=nn.Linear(4, 3)).double()
    block.outer, h = outer, normal(5, 4)
    parts = residual_branch(block)
    assert isinstance(parts, Parts)
    assert (parts.shortcut is None) == (skip == 0)
    assert_close(trace(block, h).residuals[0].output, block(h).detach())


def test_block_of_ours_with_a_merge_of_its_own_is_refused():
    class Halved(ResidualBlock):
        def merge(self, h, f):
            return (h + f) / 2

    with pytest.raises(ValueError, match=r"Block '' \(Halved\) is not what is registered for it"):
        trace(Halved(nn.Linear(4, 4), 1.0, post=False).double(), normal(5, 4))


@pytest.mark.parametrize("kind", [nn.TransformerEncoderLayer, nn.MultiheadAttention])
def test_attention_is_replayed_by_the_same_kernel(kind):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = kind(8, 2, 16, dropout=0.1, batch_first=True) if kind is nn.TransformerEncoderLayer else None
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def branch(self, h):
            return self.attend(h, h, h, need_weights=False)[0] if self.inner is None else self.inner(h)

        def forward(self, h):
            return h + self.branch(h)

    residual_branch.register(Layer, lambda block: block.branch)
    residual = trace(Layer().eval(), normal(2, 5, 8).float()).residuals[0]
    assert torch.isfinite(residual.output).all()
