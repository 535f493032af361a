"""Constants of the n rows go with them: the outer activation's derivative, and what else a block is called with."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resalign_utils import Residual, dense_jacobians, residual_branch, trace
from resalign_utils.arithmetic import exact_arithmetic
from resalign_utils.residuals import branch_rows


class Called(nn.Module):
    """A model of one block that is called with what it is told to."""

    def __init__(self, forward, parts, *args, **kwargs):
        super().__init__()
        self.block, self.args, self.kwargs = Inner(forward, parts), args, kwargs

    def forward(self, x):
        return self.block(x, *self.args, **self.kwargs)


class Inner(nn.Module):
    def __init__(self, forward, parts):
        super().__init__()
        self.f, self.ahead, self.parts = nn.Linear(4, 4), forward, parts

    def forward(self, h, *args, **kwargs):
        return self.ahead(self.f, h, *args, **kwargs)


@residual_branch.register
def _(block: Inner):
    return block.parts(block.f)


def model_of(forward, parts, *args, **kwargs):
    torch.manual_seed(0)
    return Called(forward, parts, *args, **kwargs).double().eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def identity(h):
    return h


def check_rows(residual, index):
    """At the rows ``index``, the residual is that of the whole."""
    index = torch.as_tensor(index)
    part = residual.rows(index)
    assert (part.index, part.name, part.follows) == (residual.index, residual.name, residual.follows)
    for name in ("input", "output"):
        assert_close(getattr(part, name), getattr(residual, name)[index], rtol=0, atol=0)
    assert_close(part.branch(part.input), residual.branch(residual.input)[index])
    with exact_arithmetic(residual.input.device):
        whole, some = (dense_jacobians(r.branch, r.input) for r in (residual, part))
    assert_close(some, whole[index])
    return part


INDICES = [[2], [0, 1], [4, 3, 2, 1, 0], [1, 1, 3, 3, 1, 0, 4]]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("outer", [nn.ReLU(), nn.GELU(), nn.LayerNorm(4)], ids=lambda outer: type(outer).__name__)
def test_the_outer_derivative_goes_with_its_rows(outer, index):
    model = model_of(lambda f, h: outer.double()(h + f(h)), lambda f: (f, identity, outer.double()))
    residual = trace(model, normal(5, 4)).residuals[0]
    part = check_rows(residual, index)
    again = part.rows(torch.arange(len(index)).flip(0))  # rows of rows
    assert_close(again.branch(again.input), residual.branch(residual.input)[torch.tensor(index[::-1])])


def test_inputs_can_be_repeated_for_products_with_several_vectors():
    model = model_of(lambda f, h: torch.relu(h + f(h)), lambda f: (f, identity, nn.ReLU()))
    residual, v = trace(model, normal(5, 4)).residuals[0], normal(3, 5, 4, seed=1)
    part = residual.rows(torch.arange(5).repeat(3))
    products = torch.func.jvp(part.branch, (part.input,), (v.flatten(0, 1),))[1].unflatten(0, (3, 5))
    assert_close(products, torch.einsum("nij,knj->kni", dense_jacobians(residual.branch, residual.input), v))


@pytest.mark.parametrize("outer", [nn.ReLU(), nn.LayerNorm(4)], ids=lambda outer: type(outer).__name__)
def test_other_numbers_of_rows_are_refused_but_for_a_single_one(outer):
    model = model_of(lambda f, h: outer.double()(h + f(h)), lambda f: (f, identity, outer.double()))
    residual = trace(model, normal(5, 4)).residuals[0]
    text = r"bound to the 5 inputs at which it was traced, .* called with 2. Take residual.rows\(index\).branch"
    with pytest.raises(ValueError, match=text):
        residual.branch(normal(2, 4))
    one, h = residual.rows(torch.tensor([3])).branch, normal(7, 4)
    assert_close(one(h), torch.cat([one(row[None]) for row in h]))


def test_a_branch_without_constants_is_as_it_was_registered():
    model = model_of(lambda f, h: h + f(h), lambda f: f)
    residual = trace(model, normal(5, 4)).residuals[0]
    assert residual.branch is model.block.f
    assert check_rows(residual, [3, 3]).branch is model.block.f
    assert branch_rows(torch.sin, torch.tensor([0])) is torch.sin


def test_a_residual_made_by_hand_has_rows():
    h = normal(5, 4)
    residual = Residual(1, "sine", torch.sin, h, h, True, torch.zeros_like(h))
    assert_close(residual.rows(torch.tensor([4, 0])).input, h[[4, 0]])
    assert dataclasses.replace(residual, index=2).rows(torch.tensor([1])).index == 2


# What else a block is called with

T = normal(5, 1, seed=1)
SHARED = normal(5, 5, seed=2)  # as many rows as there are inputs

ARGUMENTS = {
    "a number for each input": (lambda f, h, t: h + f(h * t), lambda f: lambda h, t: f(h * t), (T,), {}, {0}),
    "the same by keyword": (lambda f, h, t: h + f(h * t), lambda f: lambda h, t: f(h * t), (), {"t": T}, {"t"}),
    "in a tuple": (
        lambda f, h, pair: h + f(h * pair[0] + pair[1]["b"]),
        lambda f: lambda h, pair: f(h * pair[0] + pair[1]["b"]),
        ((T, {"b": normal(1, 4)}),),
        {},
        {0},
    ),
    "shared, of another size": (
        lambda f, h, w: h + f(h) @ w,
        lambda f: lambda h, w: f(h) @ w,
        (normal(4, 4),),
        {},
        set(),
    ),
    "that the shortcut takes": (
        lambda f, h, t: torch.relu(h * t + f(h)),
        lambda f: (f, lambda h, t: h * t, torch.relu),
        (T,),
        {},
        {0},
    ),
    "with defaults": (
        lambda f, h, t, mask=None, flag=False: h + f(h * t),
        lambda f: lambda h, t, mask=None, **rest: f(h * t),
        (T,),
        {"mask": None, "flag": True},
        {0},
    ),
    "that no part takes": (lambda f, h, flag: h + f(h), lambda f: f, ("training",), {}, set()),
    "that a builtin does not take": (lambda f, h, t: h + torch.sin(h), lambda f: torch.sin, (1,), {}, set()),
    "two of them": (
        lambda f, h, t, w: h + f(h * t) @ w[:4, :4],
        lambda f: lambda h, t, w: f(h * t) @ w[:4, :4],
        (T, SHARED),
        {},
        {0},
    ),
}


@pytest.mark.parametrize(("forward", "parts", "args", "kwargs", "per_row"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_further_arguments_are_held_and_go_with_their_rows(forward, parts, args, kwargs, per_row):
    model, h = model_of(forward, parts, *args, **kwargs), normal(5, 4)
    residual = trace(model, h).residuals[0]
    assert_close(residual.output, model(h).detach())
    for index in INDICES:
        check_rows(residual, index)
    assert residual.branch.arguments.per_row == per_row
    if not isinstance(parts(model.block.f), tuple):  # the block is h + F(h, ...)
        rows = [lambda g, i=i: model(torch.cat([h[:i], g[None], h[i + 1 :]]))[i] for i in range(5)]
        whole = [torch.autograd.functional.jacobian(row, h[i]) for i, row in enumerate(rows)]
        found = dense_jacobians(residual.branch, h)
        assert_close(found + torch.eye(4, dtype=torch.float64), torch.stack(whole))
        assert found.abs().max() > 0.01


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_mask_as_long_as_the_batch_is_shared(n):
    attention = nn.MultiheadAttention(4, 2, batch_first=True).double()
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    model = model_of(
        lambda f, h, attn_mask: h + attention(h, h, h, attn_mask=attn_mask, need_weights=False)[0],
        lambda f: lambda h, attn_mask: attention(h, h, h, attn_mask=attn_mask, need_weights=False)[0],
        attn_mask=mask,
    )
    residual = trace(model, normal(n, 5, 4)).residuals[0]
    assert residual.branch.arguments.per_row == set()
    check_rows(residual, [n - 1, 0, 0])


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_padding_mask_belongs_to_its_rows(n):
    attention = nn.MultiheadAttention(4, 2, batch_first=True).double()
    padding = torch.arange(5) >= torch.tensor([[5], [3], [4], [2], [1]])[:n]
    model = model_of(
        lambda f, h, padding: h + attention(h, h, h, key_padding_mask=padding, need_weights=False)[0],
        lambda f: lambda h, padding: attention(h, h, h, key_padding_mask=padding, need_weights=False)[0],
        padding=padding,
    )
    residual = trace(model, normal(n, 5, 4)).residuals[0]
    assert residual.branch.arguments.per_row == {"padding"}
    check_rows(residual, [n - 1, 0, 0])


def test_arguments_are_kept_as_they_were_when_the_block_was_called():
    t = T.clone()
    model = model_of(lambda f, h, t: h + f(h * t.mul_(2)), lambda f: lambda h, t: f(h * (2 * t)), t)
    model.forward = lambda x: model.block(x, T.clone())
    residual = trace(model, normal(5, 4)).residuals[0]
    assert_close(residual.branch.arguments.args[0], T, rtol=0, atol=0)


def test_errors_of_a_part_tell_which_block_was_replayed_and_with_what():
    gru = nn.GRU(4, 4).double()
    model = model_of(lambda f, h, t: h + gru(h[None])[0][0] * t, lambda f: Recurrent(gru), T)
    text = (
        r"Block 'block' \(Inner\): its registered branch cannot be evaluated at \(5, 4\) \(RuntimeError: .+\). Parts "
        r"that take them are called with all that the block is called with; register 'lambda h: f\(h\)' for one"
    )
    with pytest.raises(ValueError, match=text):
        trace(model, normal(5, 4))


class Recurrent(nn.Module):
    def __init__(self, gru):
        super().__init__()
        self.gru = gru

    def forward(self, h, start=None):
        return self.gru(h[None], start)[0][0]


@dataclasses.dataclass
class Opaque:
    t: torch.Tensor


MIXED = {
    "the batch's mean": (lambda f, h: f(h) + h.mean(0), ()),
    "a sum over the batch": (lambda f, h: f(h).cumsum(0), ()),
    "the order": (lambda f, h: f(h) + h.flip(0) / 2, ()),
    "what is stored elsewhere": (lambda f, h: f(h) * T, ()),
    "what is inside of an object": (lambda f, h, a: f(h) * a.t, (Opaque(T),)),
}


@pytest.mark.parametrize(("branch", "args"), MIXED.values(), ids=MIXED)
def test_a_block_that_depends_on_more_than_a_row_is_refused(branch, args):
    model = model_of(lambda f, h, *a: h + branch(f, h, *a), lambda f: lambda h, *a: branch(f, h, *a), *args)
    text = r"Block 'block' \(Inner\): its result for one input depends on the other inputs of the batch"
    with pytest.raises(ValueError, match=text):
        trace(model, normal(5, 4))


def test_arguments_that_do_not_explain_it_are_named():
    model = model_of(
        lambda f, h, t, w: h + f(h) * SHARED[:, :1] * t * w,
        lambda f: lambda h, t, w: f(h) * SHARED[:, :1] * t * w,
        T,
        w=T,
    )
    text = r"no reading of its further arguments \(number 2, 'w'\) as theirs or as shared by all explains it"
    with pytest.raises(ValueError, match=text):
        trace(model, normal(5, 4))


def test_work_in_place_behind_autograds_back_is_seen():
    model = model_of(lambda f, h: h + f(h.relu()), lambda f: lambda h: f(h.data.relu_()))
    residual = trace(model, h := normal(5, 4)).residuals[0]
    residual.branch(residual.input)
    assert torch.equal(residual.input, h)


def test_a_block_called_without_its_state_first_is_refused():
    model = model_of(lambda f, h: h + f(h), lambda f: f)
    text = "Block 'block' must be called with its state, a tensor, as first positional argument"
    for call in (lambda x: model.block(h=x), lambda x: model.block([x])):
        model.forward = call
        with pytest.raises(TypeError, match=text):
            trace(model, normal(5, 4))


# Inputs that meet outside of the branches: two of the same model, or one alone, show it only where others are changed


class Stacked(nn.Module):
    """Stem, blocks σ(P h + f(h)), head."""

    def __init__(self, stem=identity, shortcut=identity, between=identity, head=identity, gate=None):
        super().__init__()
        self.stem, self.between, self.head, self.gate = stem, between, head, gate
        self.blocks = nn.ModuleList(Skipping(shortcut) for _ in range(2))

    def forward(self, x):
        h = self.stem(x)
        args = () if self.gate is None else (self.gate(x),)
        return self.head(self.blocks[1](self.between(self.blocks[0](h, *args)), *args))


class Skipping(nn.Module):
    def __init__(self, shortcut):
        super().__init__()
        self.f, self.shortcut = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), shortcut

    def forward(self, h, gate=1.0):
        return self.shortcut(h) + gate * self.f(h)


@residual_branch.register
def _(block: Skipping):
    return lambda h, gate=1.0: gate * block.f(h), block.shortcut, None


MIXES = {
    "batch statistics": lambda h: nn.functional.batch_norm(h[:, None], None, None, training=True)[:, 0],
    "the mean taken off": lambda h: h - h.mean(0),
    "a little of the sum": lambda h: h + 1e-3 * h.sum(0),
    "the largest of all": lambda h: h / h.abs().amax(),
    "its neighbour": lambda h: h + h.roll(1, 0),
    "the next but one": lambda h: h + h.roll(2, 0),
}
PLACES = {
    "stem": "A layer outside of its residual blocks, before Block 'blocks.0' (Skipping)",
    "shortcut": "Block 'blocks.0' (Skipping)",
    "between": "A layer outside of its residual blocks, before Block 'blocks.1' (Skipping)",
    "head": "A layer outside of its residual blocks",
}


INPUTS = {
    "one": normal(1, 4),
    "duplicates": normal(1, 4).repeat(4, 1),
    "three": normal(3, 4),
    "five": normal(5, 4),
}
# alone, an input is its own next but one
MET = [(name, kind) for name in MIXES for kind in INPUTS if (name, kind) != ("the next but one", "one")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("mixes", "kind"), MET)
@pytest.mark.parametrize("place", PLACES)
def test_inputs_that_meet_anywhere_are_refused_with_the_place(place, mixes, kind, dtype):
    torch.manual_seed(0)
    model = Stacked(**{place: MIXES[mixes]}).to(dtype)
    with pytest.raises(ValueError, match="depends on the other inputs of the batch") as caught:
        trace(model, INPUTS[kind].to(dtype))
    assert str(caught.value).startswith(PLACES[place] + ": its result for one input depends")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_gate_of_the_batch_among_the_arguments_is_refused(n):
    torch.manual_seed(0)
    model = Stacked(gate=lambda x: x.mean(0).sigmoid()).double()
    with pytest.raises(
        ValueError, match=r"Block 'blocks.0' \(Skipping\): its result for one input depends on the other"
    ):
        trace(model, normal(n, 4))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_gate_of_each_input_is_taken(n):
    torch.manual_seed(0)
    model = Stacked(gate=lambda x: x.sigmoid()).double()
    assert len(trace(model, normal(n, 4)).residuals) == 2


def test_a_sequence_before_the_batch_is_refused_where_both_are_as_long():
    torch.manual_seed(0)
    model = Stacked(stem=lambda x: x.transpose(0, 1), head=lambda h: h.mean(0)).double()
    with pytest.raises(ValueError, match=r"A layer outside of its residual blocks, before Block 'blocks.0'"):
        trace(model, normal(3, 3, 4))


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("same", [True, False])
def test_tokens_are_changed_to_tokens(n, same):
    torch.manual_seed(0)
    x = torch.ones(n, 5, dtype=torch.long) if same else torch.arange(5 * n).reshape(n, 5) % 7
    embed = nn.Embedding(7, 4)
    assert len(trace(Stacked(stem=embed), x).residuals) == 2
    with pytest.raises(ValueError, match="depends on the other inputs of the batch"):
        trace(Stacked(stem=lambda x: embed(x) + embed(x).mean(0)), x)


def test_a_model_that_takes_one_input_alone_is_taken():
    torch.manual_seed(0)
    model = Stacked(stem=lambda x: x.reshape(1, 4)).double()
    assert len(trace(model, normal(1, 4)).residuals) == 2


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_rounding_is_no_mixing(n, seed):
    torch.manual_seed(seed)
    blocks = [Normed() for _ in range(6)]
    model = nn.Sequential(*blocks, nn.Linear(64, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 100
    assert len(trace(model, torch.randn(n, 64)).residuals) == 6


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        self.norm = nn.LayerNorm(64)

    def forward(self, h):
        return self.norm(h + self.f(h))


@residual_branch.register
def _(block: Normed):
    return block.f, identity, block.norm


class Drawing(Skipping):
    def forward(self, h):
        return super().forward(h) + 0.0 * torch.randn_like(h)


def test_numbers_drawn_without_effect_are_no_difference():
    torch.manual_seed(0)
    assert len(trace(nn.Sequential(Drawing(identity)), torch.randn(3, 4)).residuals) == 1
