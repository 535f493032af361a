"""The Unconstrained Jacobians Model against independent oracles, and every step of the proofs of ``book/lemmas.md``."""

import numpy as np
import pytest
import torch
from contracts import matrix_with
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from torch.testing import assert_close

import resalign_utils as ra
from resalign_utils import fit_unconstrained_jacobians as fit

L = 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clouds(classes=2, d=6, n=120, seed=0):
    """Classes (n, d) that overlap, with unequal variances along the axes."""
    y = torch.arange(n) % classes
    x = normal(classes, d, seed=seed)[y] + normal(n, d, seed=seed + 1)
    return x * torch.linspace(1.5, 0.7, d, dtype=torch.float64), y


def whitened(x):
    values, vectors = torch.linalg.eigh(moment(x))
    return x @ vectors / values.sqrt()


def moment(x):
    return x.T @ x / len(x)


def objective(result, x, y, *, penalty="frobenius", weight=1e-2, head_weight=1e-2, loss="logistic"):
    """The objective of a result in NumPy, sample by sample and block by block, as the docstring has it."""
    jacobians, head, states = result.jacobians.numpy(), result.head.numpy(), x.double().numpy()
    kinetic = 0.0
    for jacobian in jacobians:
        after = states @ jacobian.T + result.skip * states
        kinetic += ((after - states) ** 2).sum(1).mean()
        states = after
    z, y = states @ head.T, y.numpy()
    if z.shape[1] == 1:
        sign = np.where(y == 1, 1.0, -1.0)
        losses = np.log1p(np.exp(-sign * z[:, 0])) if loss == "logistic" else (z[:, 0] - sign) ** 2 / 2
    elif loss == "logistic":
        losses = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
    else:
        losses = ((z - np.eye(z.shape[1])[y]) ** 2).sum(1) / 2
    cost = (jacobians**2).sum() if penalty == "frobenius" else kinetic
    return losses.mean() + weight / 2 * cost + head_weight / 2 * (head**2).sum()


def slope_of(sigma):
    """Least-squares slope of 1/σ (L,) on the block index."""
    return np.polyfit(np.arange(len(sigma)), 1 / sigma.numpy(), 1)[0]


def off_diagonal(matrix):
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


# the objective and its descent


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["logistic", "square"])
@pytest.mark.parametrize("penalty", ["frobenius", "kinetic"])
@pytest.mark.parametrize("skip", [True, False])
def test_the_objective_is_the_documented_one(classes, loss, penalty, skip):
    x, y = clouds(classes, d=4, n=30)
    options = {"penalty": penalty, "loss": loss, "weight": 0.3, "head_weight": 0.7}
    result = fit(x, y, 3, skip=skip, steps=4, tol=0, **options)
    assert len(result.losses) == 5
    assert float(result.losses[-1]) == pytest.approx(objective(result, x, y, **options), rel=1e-12)


def test_the_heads_penalty_is_that_of_the_blocks_unless_it_is_given():
    x, y = clouds()
    assert_close(fit(x, y, 2, steps=3, tol=0).head, fit(x, y, 2, head_weight=1e-2, steps=3, tol=0).head)
    start = fit(x, y, 2, head_weight=0, steps=0, tol=0)
    assert float(start.losses[0]) == pytest.approx(objective(start, x, y, head_weight=0), rel=1e-12)


def test_the_gradient_norm_is_that_of_finite_differences():
    x, y = clouds(d=3, n=20)
    result = fit(x, y, 2, steps=5, tol=0)
    parts, h, squares = (result.jacobians.clone(), result.head.clone()), 1e-5, 0.0
    for part in parts:
        for entry in range(part.numel()):
            values = []
            for sign in (1, -1):
                part.view(-1)[entry] += sign * h
                moved = ra.UnconstrainedJacobians(**{**vars(result), "jacobians": parts[0], "head": parts[1]})
                values.append(objective(moved, x, y))
                part.view(-1)[entry] -= sign * h
            squares += ((values[0] - values[1]) / (2 * h)) ** 2
    assert result.gradient_norm == pytest.approx(squares**0.5, rel=1e-6)


def test_the_start_is_random_small_with_skips_and_belongs_to_the_seed(random_state_untouched):
    x, y = clouds(d=20)
    a, b, other = (fit(x, y, L, steps=0, tol=0, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(a.jacobians, b.jacobians)
    assert not torch.equal(a.jacobians, other.jacobians)
    plain = fit(x, y, L, steps=0, tol=0, seed=3, skip=False)
    assert float(a.jacobians.std()) == pytest.approx((1 / (20 * L)) ** 0.5, rel=0.05)
    assert float(plain.jacobians.std()) == pytest.approx((1 / 20) ** 0.5, rel=0.05)


def test_fewer_steps_are_a_prefix_of_more():
    x, y = clouds()
    few, many = (fit(x, y, 3, steps=steps, tol=0) for steps in (5, 9))
    assert torch.equal(few.losses, many.losses[:6])


def test_inputs_of_single_precision_are_computed_in_double():
    x, y = clouds()
    result = fit(x.float(), y.int(), 2, steps=2, tol=0)
    tensors = (result.jacobians, result.head, result.losses, result.coupling, result.singular_values)
    assert all(tensor.dtype == torch.float64 and not tensor.requires_grad for tensor in tensors)


def test_it_says_when_it_has_not_converged():
    x, y = clouds()
    with pytest.warns(
        RuntimeWarning, match=r"not converged within 3 steps: the gradient's norm is .*asked was 1.0e-07"
    ):
        result = fit(x, y, 2, steps=3)
    assert not result.converged
    assert fit(x, y, 2, steps=3, tol=10.0).converged


# Frobenius


@pytest.mark.parametrize("seed", range(5))
def test_frobenius_two_classes_rank_one_aligned_and_balanced(seed):
    x, y = clouds()
    result = fit(x, y, L, seed=seed)
    sigma = result.singular_values
    assert result.converged
    assert float(result.coupling.min()) >= 0.999
    assert result.alignment >= 0.999
    assert float((sigma[:, 1] / sigma[:, 0]).max()) <= 1e-3
    assert float(sigma[:, 0].std(correction=0) / sigma[:, 0].mean()) <= 0.01
    assert_close(result.U, result.V, rtol=0, atol=1e-4)


@pytest.mark.parametrize("ratio", [0.2, 4.0])
@pytest.mark.parametrize(
    ("classes", "loss", "rank"), [(2, "logistic", 1), (2, "square", 1), (4, "logistic", 3), (4, "square", 4)]
)
def test_every_block_is_the_theorems_function_of_the_head(classes, loss, rank, ratio):
    x, y = clouds(classes, d=7)
    result = fit(x, y, 3, loss=loss, head_weight=1e-2 * ratio)
    w = result.head.numpy()
    block = np.real(sqrtm(np.eye(7) / 4 + ratio * w.T @ w)) - np.eye(7) / 2
    for jacobian in result.jacobians.numpy():
        np.testing.assert_allclose(jacobian, block, atol=2e-4)
    assert result.U.shape == (3, rank, 7)
    assert float(result.coupling.min()) >= 0.999
    assert float((result.singular_values[:, rank] / result.singular_values[:, 0]).max()) <= 1e-3
    assert float(result.singular_values[:, rank - 1].min()) > 10 * float(result.singular_values[:, rank].max())
    assert float(result.singular_values[:, :rank].std(0, correction=0).max()) < 1e-4


def test_frobenius_two_classes_reaches_the_minimum_of_the_reduced_problem():
    """Only the direction and the size s of the blocks are left: ‖w‖² = s(1+s), and the map is ‖w‖(1+s)^L û."""
    x, y = clouds()
    sign = 2 * y.numpy() - 1.0

    def reduced(g):
        s = np.linalg.norm(g)
        size = np.sqrt(s * (1 + s))
        margin = sign * (x.numpy() @ g) / s * size * (1 + s) ** L
        return np.logaddexp(0, -margin).mean() + 5e-3 * (L * s**2 + size**2)

    best = min((minimize(reduced, normal(6, seed=s).numpy() / 10, tol=1e-12) for s in range(3)), key=lambda r: r.fun)
    assert float(fit(x, y, L).losses[-1]) == pytest.approx(best.fun, abs=1e-9)


def test_gradients_of_neighbours_are_tied_at_any_point():
    """(I + J_{ℓ+1})ᵀ ∂/∂J_{ℓ+1} = ∂/∂J_ℓ (I + J_ℓ)ᵀ, and so for the head."""
    x, y, eye = normal(9, 4), torch.arange(9) % 3, torch.eye(4, dtype=torch.float64)
    jacobians = [normal(4, 4, seed=s).div(3).requires_grad_() for s in range(3)]
    head = normal(3, 4, seed=7).requires_grad_()
    total = eye
    for jacobian in jacobians:
        total = (eye + jacobian) @ total
    loss = torch.nn.functional.cross_entropy(x @ (head @ total).T, y)
    *gradients, of_head = torch.autograd.grad(loss, [*jacobians, head])
    for below, above in ((0, 1), (1, 2)):
        left = (eye + jacobians[above]).T @ gradients[above]
        assert_close(left, gradients[below] @ (eye + jacobians[below]).T)
    assert_close(head.T @ of_head, gradients[2] @ (eye + jacobians[2]).T)
    assert_close(of_head.sum(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-15)  # softmax


def test_a_network_with_a_reflection_has_a_cheaper_twin():
    """Part 2 of the proof: eigenvalues −1 − s, in different directions in different blocks, are replaced."""
    d, depth, s, eta = 4, 3, 0.4, 0.5
    rho, identity = (s * (1 + s) / eta) ** 0.5, np.eye(d)
    head = rho * np.linalg.qr(normal(5, d).numpy())[0]
    jacobians, total = [], identity
    for seed in range(depth):
        n = np.linalg.qr(normal(d, d, seed=seed).numpy())[0][:, :1]
        jacobians.append((s + 0.5) * (identity - 2 * n @ n.T) - identity / 2)
        np.testing.assert_allclose(jacobians[-1] @ jacobians[-1] + jacobians[-1], eta * head.T @ head, atol=1e-12)
        total = (identity + jacobians[-1]) @ total
    u, a, vt = np.linalg.svd(head @ total / rho, full_matrices=False)
    assert a.max() <= (1 + s) ** depth + 1e-12
    assert a.min() < 1
    gain = np.maximum(a, 1) ** (1 / depth) - 1
    assert (gain <= s + 1e-12).all()
    cheaper_head = rho * (u * np.minimum(a, 1)) @ vt
    block = vt.T * gain @ vt
    np.testing.assert_allclose(cheaper_head @ np.linalg.matrix_power(identity + block, depth), head @ total, atol=1e-12)
    before = sum((j**2).sum() for j in jacobians) + eta * (head**2).sum()
    assert depth * (block**2).sum() + eta * (cheaper_head**2).sum() < before - 0.1


def two_classes(jacobians, head, weight):
    """Objective of blocks (L, d, d) and head (d,) at inputs ±e₁, one of each class, with η = 1."""
    first = torch.eye(head.shape[0], dtype=torch.float64)[0]
    states = torch.stack([first, -first])
    for jacobian in jacobians:
        states = states + states @ jacobian.T
    margins = torch.tensor([1.0, -1.0], dtype=torch.float64) * (states @ head)
    return torch.nn.functional.softplus(-margins).mean() + weight / 2 * (jacobians.square().sum() + head @ head)


def reflected(d, w, reflects):
    """Blocks along e₁ with s (1 + s) = w², eigenvalue −1 − s where it is said, else s; and the head w e₁."""
    s = (-1 + (1 + 4 * w * w) ** 0.5) / 2
    first = torch.eye(d, dtype=torch.float64)[0]
    gains = torch.tensor([-1 - s if reflect else s for reflect in reflects], dtype=torch.float64)
    return gains[:, None, None] * torch.outer(first, first), w * first, s


def flat_derivatives(jacobians, head, weight):
    """Norm of the gradient and eigenvalues of the Hessian in all entries of blocks and head."""
    size = jacobians.numel()

    def flat(parameters):
        return two_classes(parameters[:size].view(jacobians.shape), parameters[size:], weight)

    at = torch.cat([jacobians.flatten(), head])
    gradient = torch.func.grad(flat)(at)
    return float(gradient.norm()), torch.linalg.eigvalsh(torch.autograd.functional.hessian(flat, at))


def first_coupling(jacobians):
    """Coupling of block 1 in the frame of block 2, k = 1."""
    u, s, vh = torch.linalg.svd(jacobians)
    return float(u[1, :, 0] @ jacobians[0] @ vh[1, 0] / s[0, 0])


def test_a_critical_point_need_not_be_aligned():
    """Two blocks s and −1 − s along one direction: no gradient, coupling −1, a saddle."""
    weight, w = 0.01, -0.02
    for _ in range(50):
        w = -weight * (1 + np.exp(-(w**3)))  # ω = −w σ(w³): the head's equation
    jacobians, head, s = reflected(3, w, (False, True))
    assert s == pytest.approx(4.0e-4, rel=1e-3)
    norm, curvature = flat_derivatives(jacobians, head, weight)
    assert norm < 1e-16
    assert first_coupling(jacobians) == pytest.approx(-1)
    assert float(curvature[0]) == pytest.approx(-0.697, abs=1e-3)
    identity = torch.eye(3, dtype=torch.float64)
    for jacobian in jacobians:
        assert_close(jacobian @ jacobian + jacobian, torch.outer(head, head))
    aligned = two_classes(reflected(3, abs(w), (False, False))[0], abs(w) * identity[0], weight)
    assert float(aligned) < float(two_classes(jacobians, head, weight)) - 1e-3


@pytest.mark.parametrize("reflects", [(True, False), (False, True), (True, True, False)])
def test_a_reflection_is_no_minimum_where_the_head_leaves_a_direction_free(reflects):
    """The path of the proof: the map stays, the penalty falls by 2 s (1 − cos t)."""
    block = reflects.index(True)
    jacobians, head, s = reflected(3, 1.2, reflects)
    e, f, _ = torch.eye(3, dtype=torch.float64)
    for t in (1e-3, 0.5):
        cos, sin = np.cos(t), np.sin(t)
        turn = torch.eye(3, dtype=torch.float64) + (cos - 1) * (torch.outer(e, e) + torch.outer(f, f))
        turn += sin * (torch.outer(f, e) - torch.outer(e, f))
        turned = jacobians.clone()
        turned[block] = torch.outer(turn @ e, -s * e - turn @ e)
        turned[block + 1 :] = turn @ jacobians[block + 1 :] @ turn.T
        assert_close(map_of(turned).T @ (turn @ head), map_of(jacobians).T @ head)
        fall = jacobians.square().sum() - turned.square().sum()
        assert float(fall) == pytest.approx(2 * s * (1 - cos), rel=1e-6)


def map_of(jacobians):
    total = torch.eye(jacobians.shape[1], dtype=torch.float64)
    for jacobian in jacobians:
        total = total + jacobian @ total
    return total


@pytest.mark.parametrize(("d", "is_minimum"), [(1, True), (2, False)])
def test_with_one_dimension_a_reflection_can_be_a_minimum_which_is_not_global(d, is_minimum):
    w = -((1.1 * 2.1) ** 0.5)
    jacobians, head, s = reflected(d, w, (False, True))
    p = -w * s * (1 + s)
    weight = p / w**2 / (1 + np.exp(p))
    norm, curvature = flat_derivatives(jacobians, head, weight)
    assert norm < 1e-15
    assert first_coupling(jacobians) == pytest.approx(-1)
    assert (float(curvature[0]) > 0.05) == is_minimum
    assert is_minimum or float(curvature[0]) < -0.01
    x, y = torch.eye(d, dtype=torch.float64)[:1] * torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1])
    found = [fit(x, y, 2, weight=weight, seed=seed) for seed in (0, 1)]
    assert [round(one.alignment, 6) for one in found] == ([-1, 1] if is_minimum else [1, 1])
    assert float(found[1].losses[-1]) == pytest.approx(0.0796, abs=1e-3)
    assert float(two_classes(jacobians, head, weight)) == pytest.approx(0.2042, abs=1e-3)


def test_a_repeated_singular_value_of_the_head_leaves_the_blocks_own_frames():
    """A critical point whose symmetric blocks do not commute: head ρ I, reflections in different directions."""
    s, eta, weight = 0.7, 0.5, 0.1
    rho, identity = (s * (1 + s) / eta) ** 0.5, torch.eye(2, dtype=torch.float64)
    normals = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    blocks = torch.stack([s * identity - (2 * s + 1) * torch.outer(n, n) for n in normals])
    head, kept = rho * identity, identity + blocks
    gradient = -weight / rho * blocks[1] @ torch.linalg.inv(kept[0])  # of the loss by the map
    target = head @ kept[1] @ kept[0] - gradient  # of a square loss with this gradient
    parts = [part.clone().requires_grad_() for part in (blocks[0], blocks[1], head)]
    total = parts[2] @ (identity + parts[1]) @ (identity + parts[0])
    cost = parts[0].square().sum() + parts[1].square().sum() + eta * parts[2].square().sum()
    value = (total - target).square().sum() / 2 + weight / 2 * cost
    assert max(float(g.norm()) for g in torch.autograd.grad(value, parts)) < 1e-14
    assert float((blocks[0] @ blocks[1] - blocks[1] @ blocks[0]).norm()) > 0.5
    for block in blocks:
        assert_close(block @ block + block, eta * head.T @ head)


# kinetic


def kinetic_slopes(x, y, **options):
    result = fit(x, y, L, penalty="kinetic", **options)
    return result, slope_of(result.singular_values[:, 0]), (result.U[:, 0] * result.V[:, 0]).sum(1)


@pytest.mark.parametrize("loss", ["logistic", "square"])
def test_kinetic_on_whitened_inputs_has_slope_one(loss):
    x, y = clouds()
    result, slope, left_right = kinetic_slopes(whitened(x), y, loss=loss, tol=1e-8)
    assert float(result.coupling.min()) >= 0.999
    assert slope == pytest.approx(1, abs=0.02)
    assert float(left_right.min()) > 0.999


@pytest.mark.parametrize("seed", [0, 2])
def test_kinetic_on_other_inputs_has_the_theorems_slope_and_directions(seed):
    x, y = clouds(seed=seed)
    result, slope, left_right = kinetic_slopes(x, y)
    assert_close(left_right, torch.full_like(left_right, slope), rtol=0, atol=0.02)
    assert slope < 0.95
    u = result.head[0] / result.head[0].norm()
    v = torch.linalg.solve(moment(x), u)
    assert slope == pytest.approx(float(u @ v / v.norm()), abs=2e-3)
    assert_close((result.V[:, 0] @ v / v.norm()).abs(), torch.ones(L, dtype=torch.float64), rtol=0, atol=1e-4)
    assert_close((result.U[:, 0] @ u).abs(), torch.ones(L, dtype=torch.float64), rtol=0, atol=1e-4)
    assert float((result.singular_values[:, 1] / result.singular_values[:, 0]).max()) <= 1e-3


def test_kinetic_steps_are_equal_on_a_line():
    x, y = clouds()
    report = ra.measure_alignment(fit(x, y, L, penalty="kinetic").network, x[:9])
    assert float(report.step_cv.max()) < 1e-3
    assert float(report.line_shape_score.max()) < 1 + 1e-6


def test_kinetic_two_classes_reaches_the_minimum_of_the_reduced_problem():
    """Only the head w and the map a are left: the penalty is (a − w)ᵀ Σ (a − w) / (L ‖w‖²) + ‖w‖²."""
    x, y = clouds()
    sign, second = 2 * y.numpy() - 1.0, moment(x).numpy()

    def reduced(parameters):
        a, w = parameters[:6], parameters[6:]
        cost = (a - w) @ second @ (a - w) / (L * w @ w) + w @ w
        return np.logaddexp(0, -sign * (x.numpy() @ a)).mean() + 5e-3 * cost

    best = min((minimize(reduced, normal(12, seed=s).numpy(), tol=1e-12) for s in range(3)), key=lambda r: r.fun)
    assert float(fit(x, y, L, penalty="kinetic").losses[-1]) == pytest.approx(best.fun, abs=1e-9)


def test_kinetic_many_classes_whitened_has_slope_one_in_every_direction():
    x, y = clouds(4, d=6)
    result = fit(whitened(x), y, 4, penalty="kinetic", tol=1e-8)
    assert float(result.coupling.min()) >= 0.999
    for kappa in range(3):
        assert slope_of(result.singular_values[:, kappa]) == pytest.approx(1, abs=0.02)
    first, w = result.jacobians[0], result.head
    assert_close(first + 4 * first @ first, w.T @ w, rtol=0, atol=2e-4)


def test_kinetic_many_classes_not_whitened_equal_steps_and_a_symmetric_s():
    x, y = clouds(3, d=5)
    result, second = fit(x, y, 4, penalty="kinetic", tol=1e-8), moment(x)
    d = result.jacobians[0]
    s = d @ second
    assert_close(s, s.T, rtol=0, atol=1e-4)
    assert_close(s + 4 * d @ second @ d.T, result.head.T @ result.head, rtol=0, atol=2e-4)
    eye = torch.eye(5, dtype=torch.float64)
    for block, jacobian in enumerate(result.jacobians):
        assert_close(jacobian, d @ torch.linalg.inv(eye + block * d), rtol=0, atol=2e-4)


# many classes, free heads, no skips


def test_symmetric_classes_make_a_simplex_which_is_neural_collapse():
    x = 2 * torch.linalg.qr(normal(8, 8))[0][:4]
    result = fit(x, torch.arange(4), 3)
    gram = result.head @ result.head.T
    centred = torch.eye(4, dtype=torch.float64) - 0.25
    assert_close(gram, gram[0, 0] / 0.75 * centred, rtol=0, atol=1e-5)
    sigma = result.singular_values
    assert_close(sigma[:, :3], sigma[:1, :1].expand(3, 3), rtol=0, atol=1e-5)
    states = ra.trace(result.network, x).states[-1]
    found = ra.neural_collapse(states, torch.arange(4), result.head, torch.zeros(4))
    assert max(found.nc2_norm, found.nc2_angle, found.nc3) < 1e-5


def test_a_free_head_takes_all_the_work():
    x, y = clouds()
    result = fit(x, y, 4, loss="square", head_weight=0)
    assert float(result.singular_values.max()) < 1e-4
    solution = np.linalg.lstsq(x.numpy(), 2 * y.numpy() - 1.0, rcond=None)[0]
    np.testing.assert_allclose(result.head[0].numpy(), solution, atol=1e-3)


def test_a_free_head_on_separable_inputs_has_no_minimum():
    x, y = clouds()
    x[:, 0] = (2 * y - 1) * (0.5 + x[:, 0].abs())
    early, late = (fit(x, y, 4, head_weight=0, steps=steps, tol=0) for steps in (100, 1000))
    assert float(late.losses[-1]) < float(early.losses[-1]) / 10
    assert float(late.head.norm()) > 2 * float(early.head.norm())
    assert float(late.singular_values.max()) < float(early.singular_values.max()) / 2
    assert fit(x, y, 4, steps=2000).converged


@pytest.mark.parametrize("seed", [0, 1])
def test_without_skips_blocks_form_a_relay_and_no_common_frame(seed):
    x, y = clouds()
    result = fit(x, y, 6, skip=False, weight=1e-3, seed=seed)
    assert result.converged
    handed_on = (result.U[:-1, 0] * result.V[1:, 0]).sum(1).abs()
    assert float(handed_on.min()) > 0.999
    assert float(off_diagonal(result.coupling).abs().mean()) < 0.5
    assert result.alignment == pytest.approx(float(off_diagonal(result.coupling).mean()))
    sigma = result.singular_values[:, 0]
    assert_close(sigma, result.head.norm().expand(6), rtol=1e-3, atol=0)
    turns = [torch.linalg.qr(normal(6, 6, seed=s))[0] for s in range(7)]
    turns[0] = turns[6] = torch.eye(6, dtype=torch.float64)
    turned = torch.stack([turns[i + 1] @ j @ turns[i].T for i, j in enumerate(result.jacobians)])
    other = ra.UnconstrainedJacobians(**{**vars(result), "jacobians": turned})
    ours, theirs = (objective(r, x, y, weight=1e-3, head_weight=1e-3) for r in (result, other))
    assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(("classes", "skip"), [(2, True), (4, True), (3, False)])
def test_the_scores_are_those_of_the_network(classes, skip):
    x, y = clouds(classes)
    result = fit(x, y, 5, penalty="kinetic", steps=40, tol=0, skip=skip)
    report = ra.measure_alignment(result.network, x[:2], k=result.U.shape[1])
    assert_close(report.coupling[0], result.coupling, rtol=0, atol=1e-10)
    width = report.singular_values.shape[2]
    assert_close(report.singular_values[0], result.singular_values[:, :width])
    state = x[:2]
    for jacobian in result.jacobians:
        state = state @ jacobian.T + skip * state
    assert_close(result.network(x[:2]), state @ result.head.T)


# lemmas on chains


def states_of(jacobians, start):
    states = [start]
    for jacobian in jacobians:
        states.append(states[-1] + jacobian @ states[-1])
    return torch.stack(states)


@pytest.mark.parametrize("count", [1, 4])
def test_lemma_shared_frames_and_inverse_gains_make_equal_steps_on_a_line(count):
    u = torch.linalg.qr(normal(7, 7))[0][:, :count]
    c = torch.linspace(-0.5, 3, count, dtype=torch.float64)
    jacobians = [u / (block + c) @ u.T for block in range(1, L + 1)]
    start = normal(7, seed=3)
    d = u @ (u.T @ start / (1 + c))
    expected = start + torch.arange(L + 1)[:, None] * d
    assert_close(states_of(jacobians, start), expected)


def test_lemma_equal_steps_for_every_start():
    d = matrix_with([0.9, 0.4, 0.2, 0.0, 0.0], 5, 5)
    eye = torch.eye(5, dtype=torch.float64)
    jacobians = [d @ torch.linalg.inv(eye + block * d) for block in range(L)]
    start = normal(5, seed=2)
    assert_close(states_of(jacobians, start).diff(dim=0), (d @ start).expand(L, 5))


def test_lemma_slope_of_equal_steps_is_u_times_v():
    u, v = (part / part.norm() for part in normal(2, 6))
    delta, eye = 0.3, torch.eye(6, dtype=torch.float64)
    jacobians = [delta * torch.outer(u, v) @ torch.linalg.inv(eye + b * delta * torch.outer(u, v)) for b in range(L)]
    gains = torch.stack([u @ jacobian @ v for jacobian in jacobians])
    assert_close(jacobians[-1], gains[-1] * torch.outer(u, v))
    assert_close(1 / gains, 1 / delta + torch.arange(L) * (u @ v))


def test_lemma_slope_with_growth_and_shift():
    u, v = (part / part.norm() for part in normal(2, 6).abs())
    h, shares, gains, lengths = normal(6, seed=4).abs(), [], [], []
    for block in range(L):
        gain, shift = 0.2 + 0.1 * block % 3, 0.05 * (block + 1)
        length = gain * (v @ h) + shift
        shares.append(shift / length), gains.append(gain), lengths.append(length)
        h = h + length * u
    for i in range(L - 1):
        growth = lengths[i + 1] / lengths[i]
        left = growth * (1 - shares[i + 1]) / gains[i + 1]
        assert_close(left, (1 - shares[i]) / gains[i] + u @ v)


@pytest.mark.parametrize(("product", "depth"), [(3.0, 1), (1.2, 7), (40.0, 12)])
def test_both_laws_spend_the_product_and_keep_the_bound(product, depth):
    laws = ra.depth_laws(product, depth)
    for gains in laws:
        assert gains.shape == (depth,)
        assert float((1 + gains).prod()) == pytest.approx(product, rel=1e-12)
        assert np.log(product) <= float(gains.sum()) <= np.log(product) + (product - 1) ** 2 / (2 * depth) + 1e-12
    assert_close(laws.geometric, laws.geometric[:1].expand(depth))
    assert_close((1 / laws.arithmetic).diff(), torch.ones(depth - 1, dtype=torch.float64))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_no_other_gains_have_a_smaller_power_sum(power):
    laws = ra.depth_laws(5.0, 6)
    best = float((laws.geometric**power).sum())
    for seed in range(200):
        shares = normal(6, seed=seed)  # logarithms of 1 + s, of any sign, of sum ln P
        gains = (shares - shares.mean() + np.log(5.0) / 6).expm1()
        assert float((gains.abs() ** power).sum()) > best
    assert float((laws.arithmetic**power).sum()) > best


def test_no_other_path_has_a_smaller_sum_of_squared_steps():
    def energy(q):
        return float(q.diff().square().sum())

    steps = {}
    for name, gains in ra.depth_laws(5.0, 6)._asdict().items():
        steps[name] = torch.cat([torch.ones(1, dtype=torch.float64), (1 + gains).cumprod(0)])
    assert energy(steps["arithmetic"]) < energy(steps["geometric"])
    for seed in range(50):
        other = steps["arithmetic"].clone()
        other[1:-1] += normal(5, seed=seed) / 10
        assert energy(other) > energy(steps["arithmetic"])


# refusals


def test_laws_refuse_what_they_cannot_spend():
    for product, depth in ((1.0, 3), (0.5, 3), (float("nan"), 3), (2.0, 0)):
        with pytest.raises(ValueError, match=r"need a product above 1 and a depth of at least 1; got .* and "):
            ra.depth_laws(product, depth)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x": torch.zeros(4, 2, 2)}, r"Expected x \(n, d\) and y \(n,\); got x \(4, 2, 2\) and y \(4,\). Flatten"),
        ({"y": torch.tensor([0, 1])}, r"got x \(4, 2\) and y \(2,\)"),
        ({"x": torch.full((4, 2), torch.nan)}, "hold NaN or infinite entries; remove"),
        ({"y": torch.zeros(4, dtype=torch.long)}, r"each of 0..C−1 with C ≥ 2; got \[0\]"),
        ({"y": torch.tensor([0, 2, 0, 2])}, r"got \[0, 2\]"),
        ({"y": torch.tensor([-1, 1, -1, 1])}, r"got \[-1, 1\]"),
        ({"y": torch.tensor([0.0, 1.0, 0.5, 1.0])}, r"whole numbers.*got \[0.0, 0.5, 1.0\]"),
        ({"penalty": "nuclear"}, "penalty must be one of 'frobenius', 'kinetic'; got 'nuclear'"),
        ({"loss": "hinge"}, "loss must be one of 'logistic', 'square'; got 'hinge'"),
        ({"depth": 0}, "Expected depth ≥ 1, .* got depth=0"),
        ({"steps": -1}, "got .*steps=-1"),
        ({"weight": 0.0}, "weight > 0.* got .*weight=0.0"),
        ({"weight": float("inf"), "head_weight": 1.0}, "got .*weight=inf"),
        ({"head_weight": float("inf")}, "got .*head_weight=inf"),
        ({"head_weight": -1.0}, "got .*head_weight=-1.0"),
        ({"tol": float("nan")}, "got .*tol=nan"),
    ],
)
def test_a_fit_refuses_what_it_cannot_use(change, text):
    arguments = {"x": torch.zeros(4, 2), "y": torch.arange(4) % 2, "depth": 2} | change
    with pytest.raises(ValueError, match=text):
        fit(**arguments)
