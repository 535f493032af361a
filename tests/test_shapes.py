"""Shapes and dtypes of what the public functions return, in the letters of their docstrings.

Within one test a letter stands for one size, whichever tensor it appears in, and no two sizes are alike. The axes of an
``AlignmentReport`` are read from its docstring, so that what stands there is what comes.
"""

import re

import pytest
import torch
from contracts import randomised
from jaxtyping import Bool, Float64, Int, jaxtyped
from torch import Tensor

import resalign_utils as ra

N, DEPTH, WIDTH, K, CLASSES = 4, 5, 6, 2, 3
AXES = dict(re.findall(r"^ +(\w+): \((\w(?:, \w)*),?\)", ra.AlignmentReport.__doc__, re.MULTILINE))
DTYPES = {"rank": Int, "dead": Bool, "still": Bool, "comparable": Bool}  # all others are floating point


@pytest.fixture(params=["fc", "conv"])
def measured(request, pictures):
    """A network in float64, and N inputs (2, 5, 7) of three classes."""
    model = ra.build_model(ra.ResNetConfig(DEPTH, WIDTH, request.param), pictures)
    return randomised(model), pictures.test_x[:N].double()


def holds(value, dtype, axes):
    """Assert that a tensor has this dtype and these axes, in the sizes that the letters had before."""
    came = f"{value.dtype} {tuple(value.shape)}"
    assert isinstance(value, dtype[Tensor, axes]), f"expected {dtype.__name__} ({axes}); got {came}"


def letters(**sizes):
    """Fix the sizes of letters, for the test that asks."""
    for letter, size in sizes.items():
        holds(torch.empty(size, dtype=torch.float64), Float64, letter)


@jaxtyped(typechecker=None)
def test_a_trace(measured):
    letters(n=N, C=CLASSES)
    model, x = measured
    path = ra.trace(model, x)
    assert (len(path.states), len(path.residuals)) == (DEPTH + 1, DEPTH)
    holds(path.logits, Float64, "n C")
    for state in path.states:
        holds(state, Float64, "n *in")
    for residual in path.residuals:
        for value in (residual.input, residual.output, residual.step, residual.branch(residual.input)):
            holds(value, Float64, "n *in")


@pytest.mark.parametrize("method", ["dense", "krylov"])
@jaxtyped(typechecker=None)
def test_singular_triplets(measured, method):
    model, x = measured
    path = ra.trace(model, x)
    letters(n=N, k=K)
    blocks = ra.jacobian_svd(path, K, method=method)
    assert len(blocks) == DEPTH
    for state, residual, block in zip(path.states[1:], path.residuals, blocks, strict=True):
        holds(residual.input, Float64, "n *in")
        holds(state, Float64, "n *out")
        holds(block.U, Float64, "n k *out")
        holds(block.V, Float64, "n k *in")
        holds(block.S, Float64, "n k")
        holds(block.residuals, Float64, "n k")
        holds(block.converged, Bool, "n k")
        for value in (block.stable_rank, block.stable_rank_error, block.squared_norm, block.squared_norm_error):
            holds(value, Float64, "n")


@jaxtyped(typechecker=None)
def test_a_report_has_the_axes_of_its_docstring(measured):
    report = ra.measure_alignment(*measured, k=K)
    tensors = {name: value for name, value in vars(report).items() if isinstance(value, Tensor)}
    assert tensors.keys() == AXES.keys()
    letters(n=N, L=DEPTH, k=K)
    for name, value in tensors.items():
        holds(value, DTYPES.get(name, Float64), AXES[name].replace(",", ""))


@jaxtyped(typechecker=None)
def test_jacobians_and_their_products(measured):
    letters(n=N, k=K)
    residual = ra.trace(*measured).residuals[0]
    branch, h = residual.branch, residual.input
    holds(h, Float64, "n *in")
    holds(h[0].flatten(), Float64, "d")
    holds(ra.dense_jacobians(branch, h), Float64, "n d d")  # m = d: in and out are of one shape
    jacobian = ra.JacobianOperator(lambda v: branch(v.expand_as(h))[:1], h[:1])
    holds(jacobian.dense(), Float64, "d d")
    holds(jacobian.matmat(h[:K]), Float64, "k *in")
    holds(jacobian.rmatmat(h[:K]), Float64, "k *in")


@jaxtyped(typechecker=None)
def test_another_size_of_a_letter_is_found():
    letters(n=N)
    with pytest.raises(AssertionError, match=r"expected Float64 \(n m\); got torch.float64 \(5, 1\)"):
        holds(torch.zeros(N + 1, 1, dtype=torch.float64), Float64, "n m")
    with pytest.raises(AssertionError, match=r"got torch.float32 \(4, 1\)"):
        holds(torch.zeros(N, 1), Float64, "n m")
