"""What every truncated singular value decomposition promises, against NumPy in float64."""

import numpy as np
import torch
from torch import nn
from torch.testing import assert_close

# How far a result of LAPACK may be from the truth, relative to the largest singular value.
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-13}
# The same of Krylov when a residual of half as much is asked. In float32 its short recurrence has a floor of about
# 1e-5: each block inherits the rounding of those before.
KRYLOV_TOLERANCE = {torch.float32: 4e-5, torch.float64: 1e-11}


class MatrixOperator:
    """A matrix (m, d) behind the interface that ``truncated_svd`` asks for; it counts its products."""

    def __init__(self, matrix, in_shape=None, out_shape=None):
        self.matrix, self.matvecs, self.shape = matrix, 0, tuple(matrix.shape)
        self.dtype, self.device = matrix.dtype, matrix.device
        self.out_shape, self.in_shape = out_shape or (self.shape[0],), in_shape or (self.shape[1],)

    def matmat(self, v):
        self.matvecs += len(v)
        return (v.flatten(1) @ self.matrix.T).reshape(-1, *self.out_shape)

    def rmatmat(self, u):
        self.matvecs += len(u)
        return (u.flatten(1) @ self.matrix).reshape(-1, *self.in_shape)

    def dense(self):
        self.matvecs += min(self.shape)
        return self.matrix


class MatrixBatch:
    """Matrices (n, m, d) behind the interface that ``decompose`` asks for; it counts its products with each."""

    def __init__(self, matrices, in_shape=None, out_shape=None):
        self.matrices, self.matvecs, self.shape = matrices, 0, tuple(matrices.shape[1:])
        self.together = len(matrices)
        self.dtype, self.device = matrices.dtype, matrices.device
        self.out_shape, self.in_shape = out_shape or (self.shape[0],), in_shape or (self.shape[1],)

    def __len__(self):
        return len(self.matrices)

    def matmat(self, v):
        self.matvecs += v.shape[1]
        return (v.flatten(2) @ self.matrices.mT).reshape(*v.shape[:2], *self.out_shape)

    def rmatmat(self, u):
        self.matvecs += u.shape[1]
        return (u.flatten(2) @ self.matrices).reshape(*u.shape[:2], *self.in_shape)


def matrix_with(spectrum, m, d, seed=0):
    """A matrix (m, d) float64 with random singular vectors and this spectrum."""
    random = np.random.default_rng(seed)
    left, right = (np.linalg.qr(random.standard_normal((size, min(m, d))))[0] for size in (m, d))
    return torch.from_numpy(left * np.asarray(spectrum) @ right.T)


def check_svd(u, s, v, matrix, k, *, in_shape=None, out_shape=None, tolerance=None):
    """Assert the whole contract of the k largest triplets u (k, *out), s (k,), v (k, *in) of a matrix (m, d)."""
    m, d = matrix.shape
    assert u.shape == (k, *(out_shape or (m,)))
    assert s.shape == (k,)
    assert v.shape == (k, *(in_shape or (d,)))
    assert u.dtype == s.dtype == v.dtype == matrix.dtype
    assert u.device == s.device == v.device == matrix.device
    tolerance, a = tolerance or TOLERANCE[matrix.dtype], matrix.double().cpu()
    u, s, v = (part.double().cpu() for part in (u.flatten(1), s, v.flatten(1)))  # (k, m), (k,), (k, d)
    left, sigma, right = (torch.from_numpy(part) for part in np.linalg.svd(a.numpy(), full_matrices=False))
    top = float(sigma[0])
    near = {"rtol": 0, "atol": tolerance * top}
    assert (s >= 0).all()
    assert (s.diff() <= 0).all()
    assert_close(s, sigma[:k], **near)
    for frame in (u, v):
        assert_close(frame @ frame.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=tolerance)
    # paired signs
    assert_close(v @ a.T, s[:, None] * u, **near)
    assert_close(u @ a, s[:, None] * v, **near)
    # Eckart & Young 1936: nothing of rank k is nearer than σ_{k+1}
    rest = np.linalg.norm((a - u.T @ (s[:, None] * v)).numpy(), 2)
    assert rest <= (float(sigma[k]) if k < len(sigma) else 0.0) + 2 * tolerance * top
    # the spanned subspaces, which are unique where there is a gap (Wedin 1972)
    gap = float(sigma[k - 1] - (sigma[k] if k < len(sigma) else 0))
    if k < len(sigma) and gap > 1e-2 * top:
        near = {"rtol": 0, "atol": 2 * tolerance * top / gap}
        assert_close(u.T @ u, left[:, :k] @ left[:, :k].T, **near)
        assert_close(v.T @ v, right[:k].T @ right[:k], **near)
    assert (v.gather(1, v.abs().argmax(1, keepdim=True)) > 0).all()  # the sign rule


def randomised(model, seed=0):
    """The model in float64 and eval mode, with random biases and batch-norm statistics in place of 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) / 2)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) / 2)
                for positive in (module.weight, module.running_var):
                    positive.copy_(0.5 + torch.rand(positive.shape, generator=generator))
    return model


def convolve(h, weight, stride=1):
    """Convolution of images (n, c, h, w) with kernels (o, c, k, k), zeros around: the sum over the kernel's taps."""
    size = weight.shape[-1]
    rows, columns = ((side - 1) // stride + 1 for side in h.shape[2:])
    h = np.pad(h, [(0, 0), (0, 0), *[(size // 2, size // 2)] * 2])
    taps = [
        np.einsum("oc,nchw->nohw", weight[:, :, a, b], h[:, :, a::stride, b::stride][:, :, :rows, :columns])
        for a in range(size)
        for b in range(size)
    ]
    return sum(taps)
