"""Products with Jacobians, against closed forms and finite differences."""

import math

import pytest
import torch
from contracts import convolve, randomised
from processes import first_products
from torch import nn
from torch.testing import assert_close

from resalign_utils import JacobianBatch, JacobianOperator, dense_jacobians

F64 = torch.float64


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def two_layers(d, hidden, m):
    """x ↦ W₂ relu(W₁ x) with its weights."""
    w1, w2 = normal(hidden, d, seed=1), normal(m, hidden, seed=2)
    return (lambda x: torch.relu(x @ w1.T) @ w2.T), w1, w2


def differences(branch, x, step):
    """Central finite differences (n, m, d) at x (n, *in), one input unit after the other."""
    columns = []
    for unit in range(x[0].numel()):
        shift = torch.zeros_like(x).flatten(1)
        shift[:, unit] = step
        shift = shift.reshape(x.shape)
        columns.append((branch(x + shift) - branch(x - shift)).flatten(1) / (2 * step))
    return torch.stack(columns, -1)


SMOOTH = {
    "more outputs (forward mode)": (nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 7)), (4, 3)),
    "fewer outputs (reverse mode)": (nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3)), (4, 7)),
    "square": (nn.Sequential(nn.Linear(4, 4), nn.Tanh()), (4, 4)),
    "convolution, more outputs": (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh()), (3, 2, 4, 5)),
    "convolution, fewer outputs": (nn.Sequential(nn.Conv2d(2, 2, 3, stride=2), nn.Tanh()), (3, 2, 5, 4)),
    "to vectors from images": (nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.Tanh()), (3, 1, 3, 4)),
}


@pytest.fixture(params=SMOOTH)
def smooth(request):
    """A branch with a smooth activation and inputs (n, *in), in float64."""
    branch, shape = SMOOTH[request.param]
    return branch.double(), normal(*shape)


@pytest.mark.parametrize(("d", "m"), [(4, 6), (6, 4), (5, 5), (1, 3), (3, 1)])
def test_two_relu_layers_have_their_closed_form(d, m):
    branch, w1, w2 = two_layers(d, 8, m)
    x = normal(10, d, seed=3)
    active = (x @ w1.T > 0).double()
    expected = torch.stack([w2 @ torch.diag(row) @ w1 for row in active])
    assert_close(dense_jacobians(branch, x), expected)


def test_jacobians_agree_with_finite_differences(smooth):
    branch, x = smooth
    assert_close(dense_jacobians(branch, x), differences(branch, x, 1e-5), rtol=0, atol=1e-9)


def test_relu_agrees_with_finite_differences_away_from_kinks():
    branch, w1, _ = two_layers(6, 8, 5)
    x = normal(40, 6, seed=3)
    x = x[(x @ w1.T).abs().min(1).values > 1e-2]  # a step moves w₁ᵀx by less than that
    assert len(x) > 20
    assert_close(dense_jacobians(branch, x), differences(branch, x, 1e-4), rtol=0, atol=1e-9)


def test_batch_gives_what_its_rows_give_alone(smooth):
    branch, x = smooth
    apart = torch.cat([dense_jacobians(branch, row[None]) for row in x])
    assert_close(dense_jacobians(branch, x), apart)


def test_chunks_give_the_same(smooth):
    branch, x = smooth
    assert_close(dense_jacobians(branch, x, memory=1), dense_jacobians(branch, x))
    two_at_a_time = 2 * 8 * len(x) * max(x[0].numel(), branch(x)[0].numel()) * 8
    assert_close(dense_jacobians(branch, x, memory=two_at_a_time), dense_jacobians(branch, x))


def test_chunks_bound_how_many_products_live_at_once():
    sizes = []

    def branch(h):
        sizes.append(len(h))
        return torch.sin(h[:, :5])

    x = normal(2, 6)
    operator = JacobianBatch(branch, x, memory=2 * 8 * len(x) * 6 * 8)
    proved = len(sizes)
    operator.dense()
    assert sizes[proved:] == [4]  # two products with each of two matrices, then one, beside a zero


def test_graph_of_many_vectors_is_not_used_for_few():
    sizes = []

    def branch(h):
        sizes.append(len(h))
        return torch.sin(h)

    operator = JacobianBatch(branch, normal(1, 64))
    operator.dense()
    proved = len(sizes)
    operator.matmat(normal(1, 16, 64))
    operator.matmat(normal(1, 12, 64))  # near enough
    operator.matmat(normal(1, 2, 64))
    assert sizes[proved:] == [16, 2]


def test_weights_get_no_gradients_and_results_carry_none():
    branch = nn.Linear(3, 4).double()
    x = normal(2, 3).requires_grad_()
    operator = JacobianOperator(branch, x[:1])
    results = dense_jacobians(branch, x), operator.matmat(normal(2, 3)), operator.rmatmat(normal(2, 4))
    assert not any(result.requires_grad for result in results)
    assert branch.weight.grad is None
    assert x.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_that_of_the_inputs(dtype):
    branch = nn.Linear(3, 4).to(dtype)
    assert dense_jacobians(branch, torch.ones(2, 3, dtype=dtype)).dtype == dtype
    assert JacobianOperator(branch, torch.ones(1, 3, dtype=dtype)).matmat(torch.ones(2, 3, dtype=dtype)).dtype == dtype


# The operator


def test_products_are_those_with_the_dense_matrix(smooth):
    branch, x = smooth
    operator = JacobianOperator(branch, x[:1])
    jacobian = differences(branch, x[:1], 1e-5)[0]  # (m, d)
    v, u = normal(3, *operator.in_shape, seed=5), normal(3, *operator.out_shape, seed=6)
    near = {"rtol": 0, "atol": 1e-8}
    assert_close(operator.matmat(v), (v.flatten(1) @ jacobian.T).reshape(3, *operator.out_shape), **near)
    assert_close(operator.rmatmat(u), (u.flatten(1) @ jacobian).reshape(3, *operator.in_shape), **near)
    assert_close(operator.dense(), jacobian, **near)
    assert operator.shape == tuple(jacobian.shape)


def test_products_are_adjoint(smooth):
    branch, x = smooth
    operator = JacobianOperator(branch, x[:1])
    v, u = normal(5, *operator.in_shape, seed=5), normal(5, *operator.out_shape, seed=6)
    left = (u * operator.matmat(v)).flatten(1).sum(1)
    right = (operator.rmatmat(u) * v).flatten(1).sum(1)
    assert_close(left, right)


def test_products_are_counted_one_by_one():
    operator = JacobianOperator(nn.Linear(3, 5).double(), normal(3))
    assert operator.matvecs == 0
    operator.matmat(normal(4, 3))
    assert operator.matvecs == 4
    operator.rmatmat(normal(2, 5))
    assert operator.matvecs == 6
    operator.dense()
    assert operator.matvecs == 9  # min(m, d) more


def test_products_in_chunks_are_the_same(smooth):
    branch, x = smooth
    operator = JacobianOperator(branch, x[:1])
    v, u = normal(5, *operator.in_shape, seed=5), normal(5, *operator.out_shape, seed=6)
    whole = operator.matmat(v), operator.rmatmat(u)
    two_at_a_time = 2 * 8 * max(operator.shape) * 8
    for memory in (1, two_at_a_time):
        chunked = JacobianOperator(branch, x[:1], memory=memory)
        assert_close((chunked.matmat(v), chunked.rmatmat(u)), whole)


def test_expanded_and_transposed_blocks_are_welcome():
    branch, *_ = two_layers(3, 8, 4)
    operator = JacobianOperator(branch, normal(3, seed=3))
    assert_close(operator.matmat(normal(1, 3).expand(6, 3)), operator.matmat(normal(1, 3).repeat(6, 1)))
    assert_close(operator.matmat(normal(3, 2).T), operator.matmat(normal(3, 2).T.contiguous()))


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_point_is_one_input_with_or_without_a_batch(shape):
    branch, *_ = two_layers(3, 8, 4)
    point = normal(3, seed=3)
    operator = JacobianOperator(branch, point.reshape(shape))
    assert operator.in_shape == (3,)
    assert operator.out_shape == (4,)
    assert_close(operator.dense(), dense_jacobians(branch, point[None])[0])


def test_point_with_one_unit_is_an_input_of_one_unit():
    operator = JacobianOperator(nn.Linear(1, 2).double(), normal(1))
    assert operator.shape == (2, 1)


def test_image_point_keeps_its_shape():
    branch = nn.Conv2d(2, 3, 3, padding=1).double()
    operator = JacobianOperator(branch, normal(2, 4, 5))
    assert operator.in_shape == (2, 4, 5)
    assert operator.out_shape == (3, 4, 5)
    assert operator.shape == (3 * 20, 2 * 20)
    assert JacobianOperator(branch, normal(1, 2, 4, 5)).in_shape == (2, 4, 5)


def test_scalar_point_is_refused():
    with pytest.raises(ValueError, match=r"Expected a point of shape \(\*in\) or \(1, \*in\); got a scalar"):
        JacobianOperator(torch.relu, torch.tensor(1.0))


@pytest.mark.parametrize(
    ("block", "got"),
    [
        (torch.zeros(2, 4, dtype=F64), r"got \(2, 4\), torch.float64 on cpu"),
        (torch.zeros(3, dtype=F64), r"got \(3,\), torch.float64"),
        (torch.zeros(2, 3), r"got \(2, 3\), torch.float32"),
        (torch.zeros(2, 3, dtype=F64, device="meta"), r"got \(2, 3\), torch.float64 on meta"),
    ],
)
def test_block_of_another_shape_dtype_or_device_is_refused_and_not_counted(block, got):
    operator = JacobianOperator(nn.Linear(3, 3).double(), normal(3))
    for product in (operator.matmat, operator.rmatmat):
        with pytest.raises(ValueError, match=r"Expected a block of shape \(k, 3\), torch.float64 on cpu; " + got):
            product(block)
    assert operator.matvecs == 0


# Many points at once


def batch_products(batch, k=3):
    """Random blocks v (n, k, *in), u (n, k, *out), and J v, Jᵀ u."""
    v = normal(len(batch), k, *batch.in_shape, seed=5, dtype=batch.dtype)
    u = normal(len(batch), k, *batch.out_shape, seed=6, dtype=batch.dtype)
    return v, u, batch.matmat(v), batch.rmatmat(u)


def check_products(batch, jacobians, near=None):
    """Assert that the products of a batch are those with the matrices (n, m, d)."""
    near = near or {"rtol": 0, "atol": 1e-8}
    v, u, image, preimage = batch_products(batch)
    assert_close(image, torch.einsum("nmd,nkd->nkm", jacobians, v.flatten(2)).reshape(image.shape), **near)
    assert_close(preimage, torch.einsum("nmd,nkm->nkd", jacobians, u.flatten(2)).reshape(preimage.shape), **near)
    assert image.shape[2:] == batch.out_shape
    assert preimage.shape[2:] == batch.in_shape


def test_batch_multiplies_each_row_by_its_own_jacobian(smooth):
    branch, x = smooth
    batch, jacobians = JacobianBatch(branch, x), differences(branch, x, 1e-5)
    check_products(batch, jacobians)
    assert_close(batch.dense(), jacobians, rtol=0, atol=1e-8)
    assert len(batch) == len(x)
    assert batch.shape == tuple(jacobians.shape[1:])
    assert (batch.dtype, batch.device) == (F64, x.device)


def test_batch_products_are_adjoint(smooth):
    v, u, image, preimage = batch_products(JacobianBatch(*smooth))
    assert_close((u * image).flatten(2).sum(2), (preimage * v).flatten(2).sum(2))


def test_batch_products_in_chunks_are_the_same(smooth):
    branch, x = smooth
    whole = batch_products(JacobianBatch(branch, x), 5)
    for memory in (1, 2 * 8 * len(x) * max(JacobianBatch(branch, x).shape) * 8):
        assert_close(batch_products(JacobianBatch(branch, x, memory=memory), 5), whole)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_its_own_jacobian(stride):
    layer = nn.Conv2d(2, 3, 3, stride=stride, padding=1).double()
    batch = JacobianBatch(layer, normal(4, 2, 5, 7))
    v, u, image, preimage = batch_products(batch)
    weight = layer.weight.detach().numpy()
    for row in range(4):
        assert_close(image[row], torch.from_numpy(convolve(v[row].numpy(), weight, stride)))
    # against every unit vector: the columns
    columns = convolve(torch.eye(70, dtype=F64).reshape(70, 2, 5, 7).numpy(), weight, stride)
    columns = torch.from_numpy(columns).flatten(1)  # (d, m)
    assert_close(preimage.flatten(2), u.flatten(2) @ columns.T)


def test_batch_norm_in_eval_mode_uses_the_running_statistics():
    branch = randomised(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
        )
    )
    statistics = branch[1].running_mean.clone()
    x = normal(3, 2, 4, 5)
    check_products(JacobianBatch(branch, x), differences(branch, x, 1e-5))
    assert_close(branch[1].running_mean, statistics, rtol=0, atol=0)


def test_batch_counts_the_products_with_each_matrix():
    batch = JacobianBatch(nn.Linear(3, 5).double(), normal(2, 3))
    assert batch.matvecs == 0
    batch.matmat(normal(2, 4, 3))
    assert batch.matvecs == 4
    batch.rmatmat(normal(2, 3, 5))
    assert batch.matvecs == 7
    batch.dense()
    assert batch.matvecs == 10  # min(m, d) more


@pytest.mark.parametrize(
    ("block", "got"),
    [
        (torch.zeros(2, 4, 5, dtype=F64), r"got \(2, 4, 5\), torch.float64 on cpu"),
        (torch.zeros(3, 4, 3, dtype=F64), r"got \(3, 4, 3\), torch.float64"),
        (torch.zeros(2, 3, dtype=F64), r"got \(2, 3\), torch.float64"),
        (torch.zeros(2, 4, 3), r"got \(2, 4, 3\), torch.float32"),
        (torch.zeros(2, 4, 3, dtype=F64, device="meta"), r"got \(2, 4, 3\), torch.float64 on meta"),
    ],
)
def test_batch_refuses_a_block_of_another_shape_dtype_or_device_and_does_not_count_it(block, got):
    batch = JacobianBatch(nn.Linear(3, 3).double(), normal(2, 3))
    for product in (batch.matmat, batch.rmatmat):
        with pytest.raises(ValueError, match=r"Expected a block of shape \(2, k, 3\), torch.float64 on cpu; " + got):
            product(block)
    assert batch.matvecs == 0


def test_branch_is_evaluated_once_for_all_products_of_one_size():
    calls, layer = [], two_layers(3, 8, 4)[0]

    def branch(h):
        calls.append(len(h))
        return layer(h)

    batch = JacobianBatch(branch, normal(5, 3))
    proved = len(calls)
    for _ in range(3):
        batch.matmat(normal(5, 2, 3))
        batch.rmatmat(normal(5, 2, 4))
    assert calls[proved:] == [10]
    batch.release()
    batch.matmat(normal(5, 2, 3))
    assert calls[proved:] == [10, 10]


def test_batch_gives_weights_no_gradients():
    branch, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double(), normal(2, 3).requires_grad_()
    batch = JacobianBatch(branch, x)
    results = [batch.matmat(normal(2, 2, 3).requires_grad_()), batch.rmatmat(normal(2, 2, 4).requires_grad_())]
    assert not any(result.requires_grad for result in [*results, batch.dense()])
    assert branch[0].weight.grad is None
    assert x.grad is None


# Precision


def test_autocast_around_the_products_does_not_reach_them():
    branch, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), normal(3, 6, dtype=torch.float32)
    plain = JacobianBatch(branch, x)
    outside = [*batch_products(plain)[2:], plain.dense(), dense_jacobians(branch, x)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert branch(x).dtype == torch.bfloat16
        batch = JacobianBatch(branch, x)
        inside = [*batch_products(batch)[2:], batch.dense(), dense_jacobians(branch, x)]
        assert torch.is_autocast_enabled("cpu")
        late = batch_products(plain)[2:]  # opened outside
    assert_close(inside, outside)
    assert_close(late, outside[:2], rtol=0, atol=0)
    assert {result.dtype for result in inside} == {torch.float32}


# The probe


def probe(branch, shape=(1, 6)):
    return JacobianOperator(branch, normal(*shape))


def test_dropout_in_train_mode_is_found():
    with pytest.raises(ValueError, match=r"Two evaluations of the branch at one point differ. Call model.eval\(\)"):
        probe(nn.Dropout(0.5).train(), (1, 64))
    probe(nn.Dropout(0.5).eval(), (1, 64))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(6), (1, 6)),
        (nn.BatchNorm2d(2), (1, 2, 3, 3)),
        (nn.BatchNorm1d(6, track_running_stats=False), (1, 6)),
    ],
)
def test_batch_norm_in_train_mode_is_found_even_at_a_single_input(norm, shape):
    norm.double()
    with pytest.raises(ValueError, match=r"depends on the other inputs of the batch. Call model.eval\(\): batch norm"):
        probe(norm.train(), shape)
    if norm.track_running_stats:
        probe(norm.eval(), shape)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda h: h - h.mean(0),
        lambda h: h.flip(0),
        lambda h: torch.softmax(h, 0),
    ],
)
def test_layer_that_mixes_the_batch_is_found(mixing):
    with pytest.raises(ValueError, match="depends on the other inputs of the batch"):
        probe(mixing)


@pytest.mark.parametrize(
    ("branch", "gave"),
    [
        (torch.sum, r"\(\)"),
        (lambda h: h[:2], r"\(2, 6\)"),
        (lambda h: h.reshape(-1), r"\(18,\)"),
        (lambda h: (h, h), "tuple"),
    ],
)
def test_branch_that_loses_the_batch_is_refused(branch, gave):
    text = r"Expected a branch \(n, \*in\) → \(n, \*out\); the branch made " + gave + r" of \(3, 6\)"
    with pytest.raises(ValueError, match=text):
        JacobianBatch(branch, normal(3, 6))


def test_branch_that_keeps_one_row_of_a_batch_is_found_at_a_single_input():
    with pytest.raises(ValueError, match="depends on the other inputs of the batch"):
        probe(lambda h: h[:1])


@pytest.mark.parametrize("branch", [lambda h: h / 0, lambda h: h * math.nan])
def test_branch_with_nan_or_infinite_values_is_refused(branch):
    with pytest.raises(ValueError, match="The branch gives NaN or infinite values"):
        probe(branch)


def test_unit_that_rounding_moves_across_a_kink_is_no_batch_mixing():
    """Sums round differently in batches of different sizes; a ReLU's gate near zero may then differ."""

    def branch(h):
        f = h.clone()
        f[:, 0] = float(len(h) > 1)  # one unit of two hundred
        return f

    assert probe(branch, (1, 200)).shape == (200, 200)


def test_zero_branch_passes_the_probe():
    operator = probe(lambda h: 0 * h)
    assert_close(operator.dense(), torch.zeros(6, 6, dtype=F64))


def test_no_warning_reaches_the_user(spawn):
    """torch warns about its own use of torch.jit when it first loads its rules."""
    child = spawn(first_products)
    child.join(60)
    assert child.exitcode == 0


def test_moved_jacobians_are_those_of_the_weights_of_now():
    layer = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    proved, other = JacobianBatch(layer, normal(4, 3)), normal(4, 3, seed=7)
    v = normal(4, 2, 3, seed=8)
    proved.matmat(v)
    with torch.no_grad():
        layer[0].weight.mul_(2)
    moved = proved.moved(layer, other)
    assert_close(moved.matmat(v), JacobianBatch(layer, other).matmat(v), rtol=1e-12, atol=1e-12)
    assert_close(moved.dense(), differences(layer, other, 1e-6).detach(), rtol=1e-6, atol=1e-8)
    assert moved.shape == proved.shape


def test_moved_jacobians_must_be_like_the_proved_ones():
    layer = nn.Linear(3, 2).double()
    proved = JacobianBatch(layer, normal(4, 3))
    with pytest.raises(ValueError, match=r"as it was proved, with inputs \(4, 3\).*got \(5, 3\)"):
        proved.moved(layer, normal(5, 3))
    with pytest.raises(ValueError, match=r"with results \(4, 2\).*got \(4, 6\)"):
        proved.moved(nn.Linear(3, 6).double(), normal(4, 3))
    with torch.no_grad():
        layer.weight.fill_(math.inf)
    with pytest.raises(ValueError, match="is NaN or infinite"):
        proved.moved(layer, normal(4, 3))
