"""What is proved before a product is used: each fault that a branch may have, and the way that is taken instead."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resalign_utils import JacobianBatch, dense_jacobians
from resalign_utils.operators._derivatives import AsItIs, BackwardOnce, DoubleBackward, ForwardMode
from resalign_utils.operators._door import Way

F64 = torch.float64


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exact(function, x):
    """Row by row, one backward pass an output unit, in float64 (n, m, d)."""
    x = x.double()
    return torch.stack([torch.autograd.functional.jacobian(lambda h: function(h[None])[0], row) for row in x])


# Ways


def test_first_way_is_to_differentiate_backward_twice():
    assert JacobianBatch(torch.tanh, normal(3, 4))._way == Way(DoubleBackward, True)


def test_operation_without_second_derivative_is_done_by_forward_mode():
    weight, x = normal(4, 4, seed=1), 2 * normal(3, 4)
    batch = JacobianBatch(lambda h: nn.functional.hardsigmoid(h) @ weight, x)
    assert batch._way == Way(ForwardMode, True)
    expected = weight.T * ((x.abs() < 3).double() / 6)[:, None]
    assert_close(batch.dense(), expected)
    eye = torch.eye(4, dtype=F64).expand(3, 4, 4)
    assert_close(batch.matmat(eye).mT, expected)


class OnceDifferentiable(torch.autograd.Function):
    """h ↦ h³; a wrong one where ``factor`` is not 1."""

    factor = 1.0

    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return OnceDifferentiable.factor * 3 * ctx.saved_tensors[0] ** 2 * gradient


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_operation_without_second_derivative_and_forward_mode_is_formed(monkeypatch, dtype):
    x, weight = normal(3, 6, dtype=dtype), normal(6, 5, seed=1, dtype=dtype)

    def branch(h):
        return OnceDifferentiable.apply(h) @ weight

    batch = JacobianBatch(branch, x)
    assert batch._way == Way(BackwardOnce, True)
    expected = weight.T * 3 * x[:, None] ** 2  # (n, m, d)
    v, u = normal(3, 2, 6, seed=2, dtype=dtype), normal(3, 2, 5, seed=3, dtype=dtype)
    assert_close(batch.matmat(v), v @ expected.mT)
    assert_close(batch.rmatmat(u), u @ expected)
    assert_close(batch.dense(), expected)
    monkeypatch.setattr(OnceDifferentiable, "factor", 1.05)
    with pytest.raises(ValueError, match=r"backward once: J v is [45]\.\d% off the difference quotient"):
        JacobianBatch(branch, x)


class Bound:
    """A branch whose constant belongs to the rows that it was made at."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, h):
        return torch.tanh(h) * self.scale

    def rows(self, index):
        return Bound(self.scale[index])


def test_branch_that_is_bound_to_its_rows_is_repeated_by_its_own_method():
    x, scale = normal(3, 4), normal(3, 1, seed=1)
    batch = JacobianBatch(Bound(scale), x)
    assert batch._way == Way(DoubleBackward, True)
    assert_close(batch.dense(), torch.diag_embed(scale * (1 - torch.tanh(x) ** 2)))


@pytest.mark.parametrize("name", ["matmat", "rmatmat"])
def test_branch_that_cannot_be_repeated_is_done_vector_by_vector(name):
    x, scale = normal(3, 4), normal(3, 1, seed=1)
    batch = JacobianBatch(lambda h: torch.tanh(h) * scale, x)
    assert batch._way == Way(DoubleBackward, False)
    diagonal = scale * (1 - torch.tanh(x) ** 2)  # (n, d)
    v = normal(3, 5, 4, seed=2)
    assert_close(getattr(batch, name)(v), v * diagonal[:, None])


def test_constant_that_repeats_wrongly_is_not_believed():
    """Its shape fits, its values do not: rows are given another row's constant."""

    class Wrong(Bound):
        def rows(self, index):
            return Bound(self.scale[index].flip(0))

    x, scale = normal(3, 4), normal(3, 1, seed=1)
    batch = JacobianBatch(Wrong(scale), x)
    assert batch._way == Way(DoubleBackward, False)
    assert_close(batch.dense(), torch.diag_embed(scale * (1 - torch.tanh(x) ** 2)))


# Refusals


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h):
        return h**3

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def without_gradients(h):
    with torch.no_grad():
        gate = torch.sigmoid(h)
    return h * gate


HIDDEN = {
    "no_grad": without_gradients,
    "detach": lambda h: h * torch.sigmoid(h).detach(),
    "data": lambda h: h * torch.sigmoid(h.data),
    "item": lambda h: h * torch.stack([torch.full_like(row, row.sum().item()) for row in h]),
    "straight through": lambda h: h + (torch.round(4 * h) / 4 - h).detach(),
    "a wrong backward": WrongBackward.apply,
    "everything": lambda h: torch.sigmoid(h).detach(),
}


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_hides_from_autograd_is_refused(name, dtype):
    with pytest.raises(
        ValueError, match=r"The Jacobian of the branch cannot be trusted .*hides from autograd"
    ) as caught:
        JacobianBatch(HIDDEN[name], normal(3, 6, dtype=dtype))
    assert "off the difference quotient" in str(caught.value)
    with pytest.raises(ValueError, match="cannot be trusted"):
        dense_jacobians(HIDDEN[name], normal(3, 6, dtype=dtype))


def test_one_row_of_many_that_hides_is_found():
    def branch(h):
        gate = torch.sigmoid(h)
        return torch.cat([h[:-1] * gate[:-1], h[-1:] * gate[-1:].detach()])

    with pytest.raises(ValueError, match="off the difference quotient"):
        JacobianBatch(branch, normal(50, 6))


def test_refusal_names_the_branch_and_what_was_found():
    with pytest.raises(
        ValueError, match=r"The Jacobian of block 3 \('body.2'\) cannot be trusted \(backward twice: J v"
    ):
        JacobianBatch(HIDDEN["detach"], normal(3, 6), name="block 3 ('body.2')")


def test_constants_that_do_not_depend_on_the_input_may_be_made_without_gradients():
    def branch(h):
        with torch.no_grad():
            mask = torch.ones(h.shape[1], h.shape[1], dtype=h.dtype).tril()
        return torch.tanh(h) @ mask

    x = normal(3, 5)
    assert_close(dense_jacobians(branch, x), exact(branch, x))


def test_operator_without_forward_mode_is_done_the_other_way():
    """torchvision's C++ operator gives zeros by forward mode, without a word."""
    from torchvision.ops import deform_conv2d

    offsets, weight = nn.Conv2d(2, 18, 3, padding=1).double(), normal(2, 2, 3, 3, seed=1)

    def branch(h):
        return deform_conv2d(h, offsets(h), weight, padding=1)

    x = normal(2, 2, 4, 4)
    batch = JacobianBatch(branch, x)
    assert_close(batch.dense(), exact(branch, x).reshape(2, 32, 32), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_every_row_is_tested_for_independence(n):
    def last_two(h):  # only the last row sees the one before it
        return torch.cat([h[:-1], h[-1:] + h[-2:-1] ** 2])

    for mixing in (last_two, lambda h: h.cumsum(0), lambda h: h + 1e-6 * h.roll(1, 0), lambda h: h - h.mean(0)):
        with pytest.raises(ValueError, match="depends on the other inputs of the batch"):
            JacobianBatch(mixing, normal(n, 6))


def test_state_that_changes_from_call_to_call_is_refused():
    calls = []

    def branch(h):
        calls.append(1)
        return h * len(calls)

    with pytest.raises(ValueError, match=r"Two evaluations of the branch at one point differ.*keeps a state"):
        JacobianBatch(branch, normal(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64])
def test_numbers_without_enough_digits_are_refused_with_the_line_that_converts(dtype):
    with pytest.raises(ValueError, match=r"The input of the branch is of torch.*Convert.*model.float\(\), x.float\(\)"):
        JacobianBatch(lambda h: 2 * h, torch.ones(2, 3).to(dtype))


@pytest.mark.parametrize("branch", [lambda h: h.to(torch.complex64), lambda h: h.long(), lambda h: h.half()])
def test_results_without_enough_digits_are_refused(branch):
    with pytest.raises(ValueError, match=r"The result of the branch is of torch\."):
        JacobianBatch(branch, torch.ones(2, 3))


def test_empty_input_is_refused():
    with pytest.raises(ValueError, match=r"The input of the branch is empty: \(2, 0\)"):
        JacobianBatch(lambda h: h, torch.ones(2, 0))


# What must not be refused


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_units_on_their_kink_are_no_fault(dtype):
    """After a ReLU most states are exactly zero; torch takes 0 for the slope there, a difference quotient one half."""
    h = normal(4, 8, dtype=dtype).relu()
    weight = normal(8, 8, seed=1, dtype=dtype)
    expected = weight * (h > 0).to(dtype)[:, None]
    assert_close(dense_jacobians(lambda h: torch.relu(h) @ weight.T, h), expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("width", [8, 512, 4096])
def test_wide_branches_with_many_kinks_pass_in_single_precision(width, scale):
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(width, width, generator=generator) * (2 / width) ** 0.5 for _ in range(3)]

    def branch(h):
        for weight in layers:
            h = torch.relu(h @ weight.T)
        return h

    batch = JacobianBatch(branch, scale * torch.randn(4, width, generator=generator))
    assert batch._way == Way(DoubleBackward, True)


def test_result_much_larger_than_its_derivative_passes_in_single_precision():
    x = normal(3, 50, dtype=torch.float32)
    jacobians = dense_jacobians(lambda h: 1e4 + 1e-3 * torch.tanh(h), x)
    assert_close(jacobians, torch.diag_embed(1e-3 * (1 - torch.tanh(x) ** 2)))


@pytest.mark.parametrize("branch", [lambda h: 0 * h, lambda h: h, torch.round, lambda h: torch.ones_like(h)])
def test_constant_and_trivial_branches_pass(branch):
    x = normal(3, 6)
    jacobians = dense_jacobians(branch, x)
    assert_close(jacobians, torch.eye(6, dtype=F64).expand(3, 6, 6) * float(branch(x[:1]).equal(x[:1])))


def test_branch_may_work_in_place_on_its_argument():
    def branch(h):
        h += torch.tanh(h)
        h[:, 0] *= 2
        return h.relu_()

    x = normal(3, 4)
    before = x.clone()
    assert_close(dense_jacobians(branch, x), exact(lambda h: branch(h.clone()), before))
    assert torch.equal(x, before)


def test_caller_in_inference_mode_gets_the_same():
    layer, x = nn.Linear(4, 4).double(), normal(3, 4)
    expected = dense_jacobians(layer, x)
    with torch.inference_mode():
        assert_close(dense_jacobians(layer, x.clone()), expected)


def test_attention_of_a_whole_encoder_layer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x = normal(2, 3, 8)
    flat = exact(layer, x).reshape(2, 24, 24)
    batch = JacobianBatch(layer, x)
    assert_close(batch.dense(), flat)
    v = normal(2, 4, 3, 8, seed=1)
    assert_close(batch.matmat(v).flatten(2), v.flatten(2) @ flat.mT)


# Small parts, large numbers


class Squeeze(nn.Module):
    """A convolution scaled by a gate over channel means, which may be hidden."""

    def __init__(self, hidden, channels=16):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(channels, channels, 3, padding=1), nn.Linear(channels, channels)
        self.hidden = hidden

    def forward(self, h):
        f = self.conv(torch.relu(h))
        means = f.mean((2, 3))
        return f * torch.sigmoid(self.gate(means.detach() if self.hidden else means))[:, :, None, None]


def test_hidden_gate_over_means_is_seen_in_single_precision():
    x = 0.5 + normal(1, 16, 32, 32, dtype=torch.float32)
    for hidden in (False, True):
        torch.manual_seed(0)
        branch = Squeeze(hidden).requires_grad_(False)
        if hidden:
            with pytest.raises(ValueError, match="off the difference quotient"):
                JacobianBatch(branch, x)
        else:
            JacobianBatch(branch, x)


def test_one_hidden_direction_of_many_is_seen_in_single_precision():
    u, w = (nn.functional.normalize(normal(65536, seed=seed, dtype=torch.float32), dim=0) for seed in (1, 2))
    x = normal(1, 65536, dtype=torch.float32)
    JacobianBatch(lambda h: h + 2 * u * (h @ w)[:, None], x)
    with pytest.raises(ValueError, match="off the difference quotient"):
        JacobianBatch(lambda h: h + 2 * u * (h.detach() @ w)[:, None], x)


def test_hidden_part_beside_a_large_constant_is_seen_in_single_precision():
    layer = nn.Linear(32, 32).requires_grad_(False)
    with pytest.raises(ValueError, match=r"100.0% off the difference quotient.*try float64"):
        JacobianBatch(lambda h: 1 + 3e-3 * layer(h).detach(), normal(8, 32, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_checkpointed_layers_are_left_to_torch(dtype):
    from torch.utils.checkpoint import checkpoint

    layers = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6)).to(dtype)
    x = normal(3, 6, dtype=dtype)
    batch = JacobianBatch(lambda h: checkpoint(layers, h, use_reentrant=False), x)
    assert batch._way == Way(AsItIs, True)
    assert_close(batch.dense(), dense_jacobians(layers, x))


def test_batch_norm_far_from_its_mean_is_left_to_torch():
    norm = nn.BatchNorm1d(8).eval()
    norm.running_mean.fill_(20.0)
    norm.running_var.fill_(1e-5)
    x = 20 + 1e-3 * normal(4, 8, dtype=torch.float32)
    jacobians = dense_jacobians(norm, x)
    assert_close(jacobians, torch.eye(8).expand(4, 8, 8) * (1e-5 + norm.eps) ** -0.5)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("states", [torch.zeros, torch.ones])
def test_ties_of_a_pooling_layer_are_no_fault(states, dtype):
    sparse = (normal(3, 1, 14, 14, dtype=dtype) - 1.5).relu()
    for x in (states(2, 4, 8, 8, dtype=dtype), sparse):
        jacobians = dense_jacobians(nn.MaxPool2d(3, 1, 1), x)
        assert (jacobians.sum(2) == 1).all()  # each output is one of its inputs


@pytest.mark.parametrize("scale", [1e-30, 1e20])
def test_very_small_and_very_large_states_pass(scale):
    x = scale * normal(2, 3, dtype=torch.float32)
    assert_close(dense_jacobians(lambda h: 2 * h, x), 2 * torch.eye(3).expand(2, 3, 3))


def test_derivative_that_is_not_finite_is_said_to_be_so():
    with pytest.raises(ValueError, match=r"NaN or infinite.*Look at the point"):
        JacobianBatch(lambda h: h * h.square().sum(1, keepdim=True).sqrt(), torch.zeros(2, 4, dtype=F64))


def test_noise_that_does_nothing_is_called_noise():
    with pytest.raises(ValueError, match="The branch draws random numbers, which another time may change its result"):
        JacobianBatch(lambda h: h + 0.0 * torch.randn_like(h), normal(2, 4))


def test_cancellation_in_single_precision_is_told_with_its_remedy():
    def branch(h):
        return (h + 1e-6 * torch.tanh(h)) - h

    with pytest.raises(ValueError, match=r"small difference of large numbers.*try float64"):
        JacobianBatch(branch, normal(2, 40, dtype=torch.float32))
    JacobianBatch(branch, normal(2, 40))


def test_default_dtype_of_another_precision_does_not_matter():
    layer, x = nn.Linear(4, 4), normal(3, 4, dtype=torch.float32)
    torch.set_default_dtype(F64)
    try:
        assert dense_jacobians(layer, x).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_partial_function_is_a_branch_like_any_other():
    """Also one that asks for float32 by name, so that its quotients are computed in float32."""

    def scaled(weight, h):
        return (h.float() @ weight).tanh()

    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    jacobians = JacobianBatch(partial(scaled, weight), x).dense()
    expected = (1 - scaled(weight, x) ** 2)[:, :, None] * weight.T
    assert_close(jacobians, expected)
