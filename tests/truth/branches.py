"""The table of branches: how each is made, the shape of its input, and whether it must be right or refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from . import pieces
from .pieces import Attention, Highway, Made, Residual, Rotary, SqueezeExcite, conv, mlp, write

Must = Literal["right", "refused", "either"]
Oracle = Literal["autograd", "difference", "none"]
VECTOR, IMAGE, TOKENS = (6,), (2, 4, 4), (4, 6)


@dataclass(frozen=True)
class Row:
    """A branch of the table.

    ``must_at_one`` is the same for one row alone, where a layer that mixes the batch has nothing to mix; ``oracle``
    says where the right value comes from: ``"none"`` if there is none, ``"difference"`` if autograd lies.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Any]
    must: Must = "right"
    must_at_one: Must | None = None
    oracle: Oracle = "autograd"
    train: bool = False
    sizes: tuple[int, ...] = (1, 3)  # numbers of rows that it is tried at
    row_of: Callable[[Any, int], Callable[[Tensor], Tensor]] | None = None  # the branch of row i, if it depends on i

    def verdict(self, n: int) -> Must:
        return self.must_at_one if n == 1 and self.must_at_one else self.must

    def fresh(self, dtype: torch.dtype = torch.float64) -> Any:
        """A new copy of the branch, the same each time, with no parameter at its initial zero or one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            branch = self.make()
            if not isinstance(branch, nn.Module):
                return branch
            for name, tensor in [*branch.named_parameters(), *branch.named_buffers()]:
                if name.endswith("running_var"):
                    tensor.data += torch.rand_like(tensor)
                elif tensor.is_floating_point() and ("running_mean" in name or isinstance(tensor, nn.Parameter)):
                    tensor.data += 0.2 * torch.randn_like(tensor)
        return branch.to(dtype).train(self.train)

    def points(self, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """(n, *in), the same each time; exact in float32."""
        generator = torch.Generator().manual_seed(1)
        return torch.randn(n, *self.shape, generator=generator).to(dtype)


ROWS: list[Row] = []


def row(name: str, shape: tuple[int, ...], make: Callable[[], Any], must: Must = "right", **how: Any) -> None:
    ROWS.append(Row(name, shape, make, must, **how))


def made(name: str, shape: tuple[int, ...], function: Callable, must: Must = "right", parts=dict, **how: Any) -> None:
    """A row whose branch is ``function(self, h)`` on the parts that ``parts()`` makes."""
    row(name, shape, lambda: Made(function, **parts()), must, **how)


def mixes(name: str, shape: tuple[int, ...], make: Callable[[], Any], **how: Any) -> None:
    """A row that depends on the other rows of the batch: refused, and of one row alone either."""
    row(name, shape, make, "refused", must_at_one="either", **how)


# -- activations: every one of torch.nn, out of place, in place and as a function ------------------------------------
ARGUMENTS: dict[str, dict[str, Any]] = {"Threshold": {"threshold": 0.1, "value": 0.3}, "RReLU": {}}
DIMENSION = {"Softmax": 1, "Softmin": 1, "LogSoftmax": 1}
NO_ACTIVATIONS = ("MultiheadAttention", "Softmax2d", "GLU")  # rows of their own


def activation_rows() -> None:
    for name in nn.modules.activation.__all__:
        layer = getattr(nn, name)
        how = ARGUMENTS.get(name, {}) | ({"dim": DIMENSION[name]} if name in DIMENSION else {})
        if name in NO_ACTIVATIONS:
            continue
        row(name, VECTOR, lambda layer=layer, how=how: mlp(layer(**how)))
        if "inplace" in inspect.signature(layer).parameters:
            row(f"{name} in place", VECTOR, lambda layer=layer, how=how: mlp(layer(**how, inplace=True)))
            row(f"{name} in place on the argument", VECTOR, lambda layer=layer, how=how: layer(**how, inplace=True))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu_": lambda h: F.relu_(h @ torch.eye(6).to(h)),
    "F.relu(inplace)": lambda h: F.relu(h * 2, inplace=True),
    "F.elu_": lambda h: F.elu_(h * 2),
    "F.leaky_relu_": lambda h: F.leaky_relu_(h * 2),
    "F.silu(inplace)": lambda h: F.silu(h * 2, inplace=True),
    "F.hardsigmoid": F.hardsigmoid,
    "F.hardswish": F.hardswish,
    "F.gelu, tanh": lambda h: F.gelu(h, approximate="tanh"),
    "F.prelu": lambda h: F.prelu(h, torch.linspace(0.1, 0.6, 6).to(h)),
    "F.glu": F.glu,
    "F.softplus": F.softplus,
    "F.logsigmoid": F.logsigmoid,
    "F.normalize": F.normalize,
    "torch.clamp": lambda h: h.clamp(-0.5, 0.5),
    "torch.clamp_": lambda h: (h * 2).clamp_(-0.5, 0.5),
    "torch.tanh_": lambda h: (h * 2).tanh_(),
    "torch.sigmoid_": lambda h: (h * 2).sigmoid_(),
    "torch.where": lambda h: torch.where(h > 0, h**2, h.sin()),
    "torch.abs, sqrt": lambda h: h.abs().sqrt(),
    "torch.exp, log1p": lambda h: h.exp().log1p(),
    "torch.atan2": lambda h: torch.atan2(h[:, :3], h[:, 3:]),
    "softmax of a product": lambda h: torch.softmax(h[:, :, None] * h[:, None, :], 2).flatten(1),
    "logsumexp": lambda h: h.logsumexp(1),
    "norm": lambda h: h.norm(dim=1, keepdim=True),
    "prod": lambda h: h.prod(1),
    "linalg.solve": lambda h: torch.linalg.solve(torch.eye(6).to(h) * 9 + h[:, :, None] * h[:, None], h),
    "einsum": lambda h: torch.einsum("ni,nj->nij", h, h),
    "cumsum over features": lambda h: h.cumsum(1),
    "cumprod over features": lambda h: h.cumprod(1),
    "sort": lambda h: h.sort(1).values,
    "topk": lambda h: h.topk(3, 1).values,
    "median": lambda h: h.median(1).values,
    "gather": lambda h: h.gather(1, h.argsort(1)[:, :4]),
    "kthvalue, amax": lambda h: torch.stack([h.kthvalue(2, 1).values, h.amax(1)], 1),
    "cdist within a row": lambda h: torch.cdist(h.reshape(-1, 3, 2), h.reshape(-1, 3, 2) * 2 + 1),
    "cdist to constants": lambda h: torch.cdist(h[:, None], torch.arange(12.0).reshape(1, 2, 6).to(h)),
    "fft and back": lambda h: torch.fft.irfft(torch.fft.rfft(h, dim=1) * 1j, n=6, dim=1),
    "fft as real numbers": lambda h: torch.view_as_real(torch.fft.rfft(h, dim=1)),
    "round": torch.round,
    "sign, floor": lambda h: h.sign() + h.floor(),
    "one row of a table, by argmax": lambda h: torch.arange(18.0).reshape(6, 3).to(h)[h.argmax(1)],
    "one-hot in floats": lambda h: F.one_hot(h.argmax(1), 6).to(h),
    "its input": lambda h: h,
    "a view of its input": lambda h: h.view(-1, 2, 3).transpose(1, 2),
    "zeros": torch.zeros_like,
    "constants": lambda h: torch.arange(4.0).to(h).expand(len(h), 4),
    "one number a row": lambda h: (h**2).sum(1),
    "one entry": lambda h: h[:, 2:3].exp(),
    "some entries only": lambda h: h[:, 1:4].sin(),
    "contiguous flip, roll": lambda h: h.flip(1).roll(2, 1) * h,
    "expanded": lambda h: h.tanh()[:, :, None].expand(-1, 6, 2),
    "written index": lambda h: write(h * 1, lambda g: g.__setitem__((slice(None), 0), h[:, 1] * h[:, 2])),
    "written slice in place": lambda h: write(h * 1, lambda g: g[:, ::2].mul_(2)),
    "written slice of the argument": lambda h: write(h, lambda g: g[:, ::2].mul_(2)),
    "written mask": lambda h: write(h * 1, lambda g: g.masked_fill_(g > 0.5, 0.0)),
    "written boolean index": lambda h: write(h * 1, lambda g: g.__setitem__(g < 0, 0.1)),
    "written into zeros": lambda h: write(torch.zeros_like(h), lambda g: g[:, :3].copy_(h[:, 3:].sin())),
    "written into new zeros": lambda h: write(h.new_zeros(len(h), 8), lambda g: g[:, 1:7].add_(h**2)),
    "add_ on the argument": lambda h: h.add_(torch.tanh(h)),
    "scatter_add": lambda h: torch.zeros_like(h).scatter_add(1, torch.tensor([[0, 0, 1, 1, 2, 2]]).expand_as(h), h**2),
    "index_add_": lambda h: h.new_zeros(len(h), 3).index_add_(1, torch.tensor([0, 1, 2, 0, 1, 2]), h.sin()),
    "transposed write": lambda h: write(h.reshape(-1, 2, 3) * 1, lambda g: g.transpose(1, 2)[:, 0].mul_(3)),
    "unbind, stack": lambda h: torch.stack([a * b for a, b in zip(h.unbind(1), h.flip(1).unbind(1), strict=True)], 1),
    "a row that comes with a condition": lambda h: torch.stack([r.sin() if r[0] > 0 else r.exp() for r in h]),
}


def function_rows() -> None:
    for name, function in FUNCTIONS.items():
        row(name, VECTOR, lambda function=function: function)


def activation_like_rows() -> None:
    row("PReLU per channel, vectors", VECTOR, lambda: mlp(nn.PReLU(8)))
    row("PReLU per channel, images", IMAGE, lambda: nn.Sequential(conv(), nn.PReLU(2)))
    row("RReLU in train mode", VECTOR, lambda: mlp(nn.RReLU()), "refused", oracle="none", train=True)
    row("GLU", VECTOR, lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU(1)))
    row("Softmax2d", IMAGE, lambda: nn.Sequential(conv(), nn.Softmax2d()))
    row("softmax over all of an image", IMAGE, lambda: Made(lambda s, h: h.flatten(1).softmax(1).reshape(h.shape)))
    mixes("softmax over the batch", VECTOR, lambda: nn.Softmax(0))


# -- normalisations --------------------------------------------------------------------------------------------------
def normalisation_rows() -> None:
    row("BatchNorm1d eval", VECTOR, lambda: mlp(nn.BatchNorm1d(8), nn.ReLU()))
    row("BatchNorm2d eval", IMAGE, lambda: nn.Sequential(conv(), nn.BatchNorm2d(2), nn.ReLU(inplace=True)))
    row("BatchNorm3d eval", (2, 2, 2, 3), lambda: nn.BatchNorm3d(2))
    row("BatchNorm1d train", VECTOR, lambda: mlp(nn.BatchNorm1d(8)), "refused", oracle="none", train=True)
    mixes("BatchNorm2d train", IMAGE, lambda: nn.Sequential(conv(), nn.BatchNorm2d(2)), train=True)
    forgetful = lambda: mlp(nn.BatchNorm1d(8, track_running_stats=False))  # noqa: E731
    row("BatchNorm1d without statistics", VECTOR, forgetful, "refused", oracle="none")
    mixes("BatchNorm2d without statistics", IMAGE, lambda: nn.BatchNorm2d(2, track_running_stats=False))
    row("LayerNorm", VECTOR, lambda: mlp(nn.LayerNorm(8)))
    row("LayerNorm of tokens", TOKENS, lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU()))
    row("GroupNorm", (4, 3, 3), lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(inplace=True)))
    row("InstanceNorm2d", IMAGE, lambda: nn.InstanceNorm2d(2, affine=True))
    row("InstanceNorm2d eval with statistics", IMAGE, lambda: nn.InstanceNorm2d(2, track_running_stats=True))
    row("RMSNorm", VECTOR, lambda: nn.RMSNorm(6))
    row("LocalResponseNorm", (4, 3, 3), lambda: nn.LocalResponseNorm(3, alpha=0.5))
    row("weight_norm", VECTOR, lambda: parametrizations.weight_norm(nn.Linear(6, 5)))
    row("spectral_norm eval", VECTOR, lambda: parametrizations.spectral_norm(nn.Linear(6, 5)))
    drifting = lambda: parametrizations.spectral_norm(nn.Linear(6, 5))  # noqa: E731
    row("spectral_norm train, a power step at each call", VECTOR, drifting, "refused", oracle="none", train=True)
    row("LayerNorm by hand", VECTOR, lambda: lambda h: (h - h.mean(1, True)) / h.var(1, keepdim=True).add(1e-5).sqrt())


# -- recurrent layers and attention ----------------------------------------------------------------------------------
def first(layer: nn.Module) -> Made:
    return Made(lambda s, h: s.f(h)[0], f=layer)


def recurrent_rows() -> None:
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        row(kind.__name__, TOKENS, lambda kind=kind: first(kind(6, 5, batch_first=True)))
    row("GRU, two layers, both ways", TOKENS, lambda: first(nn.GRU(6, 3, 2, batch_first=True, bidirectional=True)))
    last = lambda: Made(lambda s, h: s.f(h)[1].transpose(0, 1), f=nn.GRU(6, 5, batch_first=True))  # noqa: E731
    row("GRU, last state", TOKENS, last)
    row("LSTM with projection", TOKENS, lambda: first(nn.LSTM(6, 5, proj_size=3, batch_first=True)))
    row("GRUCell", VECTOR, lambda: Made(lambda s, h: s.f(h, h.sin()), f=nn.GRUCell(6, 6)))
    row("LSTMCell", VECTOR, lambda: Made(lambda s, h: s.f(h, (h, h))[0], f=nn.LSTMCell(6, 6)))
    mixes("GRU, sequence first", TOKENS, lambda: first(nn.GRU(6, 5)))


def attention_rows() -> None:
    def multihead(**how: Any) -> Made:
        return Made(lambda s, h: s.f(h, h, h, **how)[0], f=nn.MultiheadAttention(6, 2, batch_first=True))

    def encoder(**how: Any) -> nn.Module:
        return nn.TransformerEncoderLayer(6, 2, 7, 0.0, batch_first=True, **how)

    row("MultiheadAttention", TOKENS, lambda: multihead(need_weights=False))
    row("MultiheadAttention with weights", TOKENS, lambda: multihead(need_weights=True))
    mask = torch.ones(4, 4, dtype=torch.bool).triu(1)
    row("MultiheadAttention, causal", TOKENS, lambda: multihead(need_weights=False, attn_mask=mask, is_causal=True))
    row("scaled_dot_product_attention", TOKENS, Attention)
    row("scaled_dot_product_attention, causal", TOKENS, lambda: Attention(mask="causal"))
    row("scaled_dot_product_attention, mask inside", TOKENS, lambda: Attention(mask="inside"))
    row("attention with dropout on", TOKENS, lambda: Attention(dropout_p=0.5), "refused", oracle="none")
    row("TransformerEncoderLayer", TOKENS, encoder)
    row("TransformerEncoderLayer, norm first", TOKENS, lambda: encoder(norm_first=True, activation=F.gelu))
    masked = lambda s, h: s.f(h, src_mask=nn.Transformer.generate_square_subsequent_mask(4, dtype=h.dtype))  # noqa: E731
    row("TransformerEncoderLayer, mask inside", TOKENS, lambda: Made(masked, f=encoder()))
    row(
        "TransformerDecoderLayer", TOKENS, lambda: Made(decode, f=nn.TransformerDecoderLayer(6, 2, 7, batch_first=True))
    )
    mixes("MultiheadAttention, sequence first", TOKENS, lambda: Made(attend, f=nn.MultiheadAttention(6, 2)))
    row("Rotary", TOKENS, lambda: nn.Sequential(Rotary(), nn.Tanh()))


def attend(s: Any, h: Tensor) -> Tensor:
    return s.f(h, h, h)[0]


def decode(s: Any, h: Tensor) -> Tensor:
    return s.f(h, h * 2)


# -- gates, residuals, convolutions, and what samples ----------------------------------------------------------------
def gate_rows() -> None:
    row("highway", VECTOR, lambda: Highway(6))
    row("squeeze and excite", (3, 3, 3), lambda: SqueezeExcite(3))
    row("squeeze and excite, in place", (3, 3, 3), lambda: SqueezeExcite(3, inplace=True))
    row(
        "SwiGLU", VECTOR, lambda: Made(lambda s, h: s.o(F.silu(s.a(h)) * s.b(h)), **linear(a=8, b=8), o=nn.Linear(8, 6))
    )
    row("Bilinear", VECTOR, lambda: Made(lambda s, h: s.f(h, h.tanh()), f=nn.Bilinear(6, 6, 4)))
    row("residual inside residual", VECTOR, lambda: Residual(nn.Sequential(Residual(mlp(nn.ReLU(), m=6)), nn.Tanh())))
    row("h += f(h) on the argument", VECTOR, lambda: Residual(mlp(nn.Tanh(), m=6), inplace=True))
    inner = lambda: Residual(nn.Sequential(nn.Linear(6, 6), Residual(nn.ELU(inplace=True), inplace=True)))  # noqa: E731
    row("in place inside residual", VECTOR, inner)
    row("frozen weights", VECTOR, lambda: mlp(nn.Tanh()).requires_grad_(False))
    row("dropout in eval mode", VECTOR, lambda: mlp(nn.Dropout(0.5)))
    row("from one number", (1,), lambda: mlp(nn.Tanh(), d=1))
    row("to one number, images", IMAGE, lambda: Made(lambda s, h: s.f(h).exp().mean((1, 2, 3)), f=conv()))


def linear(**sizes: int) -> dict[str, nn.Linear]:
    return {name: nn.Linear(6, size) for name, size in sizes.items()}


def convolution_rows() -> None:
    row("Conv1d", (2, 6), lambda: nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU()))
    row("Conv3d", (1, 3, 3, 3), lambda: nn.Conv3d(1, 2, 2))
    row("Conv2d, in-place ReLUs", IMAGE, lambda: nn.Sequential(conv(), nn.ReLU(True), conv(), nn.ReLU(True)))
    row("depthwise Conv2d", IMAGE, lambda: nn.Sequential(conv(groups=2), nn.Hardswish()))
    row("grouped Conv2d", (4, 3, 3), lambda: conv(4, groups=2))
    row("dilated, strided Conv2d", (1, 7, 7), lambda: nn.Conv2d(1, 2, 3, dilation=2, stride=2))
    row("Conv2d, reflecting padding", IMAGE, lambda: conv(padding_mode="reflect"))
    row("ConvTranspose2d", (2, 3, 3), lambda: nn.ConvTranspose2d(2, 2, 2, stride=2))
    deformed = lambda s, h: torchvision.ops.deform_conv2d(h, s.offset(h), s.f.weight, s.f.bias, padding=1)  # noqa: E731
    parts = lambda: {"f": conv(), "offset": nn.Conv2d(2, 18, 3, padding=1)}  # noqa: E731
    made("DeformConv2d", IMAGE, deformed, parts=parts)
    made(
        "DeformConv2d with mask", IMAGE, deform_masked, parts=lambda: parts() | {"mask": nn.Conv2d(2, 9, 3, padding=1)}
    )
    made("convolution by weights from the input", IMAGE, hyper, parts=lambda: {"f": nn.Linear(2, 18)})
    for pool in (
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 1, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.AdaptiveMaxPool2d(2),
        nn.LPPool2d(2, 2),
    ):
        row(f"{type(pool).__name__}", IMAGE, lambda pool=pool: nn.Sequential(conv(), pool))
    row("MaxPool2d by indices, MaxUnpool2d", IMAGE, lambda: Made(unpool))
    row("unfold and fold", IMAGE, lambda: Made(lambda s, h: F.fold(F.unfold(h, 2) ** 2, (4, 4), 2)))
    row("pixel_shuffle", (4, 3, 3), lambda: nn.Sequential(conv(4), nn.PixelShuffle(2), nn.Tanh()))
    row("pad, roll", IMAGE, lambda: Made(lambda s, h: F.pad(h, (1, 0, 0, 1), "circular").roll(1, 2).sin()))
    for mode in ("bilinear", "bicubic", "nearest"):
        row(f"interpolate, {mode}", (2, 3, 3), lambda mode=mode: Made(lambda s, h: F.interpolate(h, size=5, mode=mode)))
    row("grid_sample, a warp from the input", IMAGE, lambda: Made(warp))
    row("roi_align", IMAGE, lambda: Made(crop), "either")
    row("channels_last", IMAGE, lambda: nn.Sequential(conv(), nn.ReLU()).to(memory_format=torch.channels_last))


def deform_masked(s: Any, h: Tensor) -> Tensor:
    return torchvision.ops.deform_conv2d(h, s.offset(h), s.f.weight, padding=1, mask=s.mask(h).sigmoid())


def hyper(s: Any, h: Tensor) -> Tensor:
    """A depthwise convolution of each image with kernels made of its own means."""
    kernels = s.f(h.mean((2, 3))).reshape(-1, 1, 3, 3)  # (2n, 1, 3, 3)
    return F.conv2d(h.reshape(1, -1, 4, 4), kernels, padding=1, groups=len(kernels)).reshape(h.shape)


def unpool(s: Any, h: Tensor) -> Tensor:
    values, indices = F.max_pool2d(h, 2, return_indices=True)
    return F.max_unpool2d(values.tanh(), indices, 2)


def warp(s: Any, h: Tensor) -> Tensor:
    grid = F.affine_grid(torch.eye(2, 3).to(h).expand(len(h), 2, 3), h.shape, align_corners=False)
    return F.grid_sample(h, grid + 0.1 * h.tanh().permute(0, 2, 3, 1), align_corners=False)


def crop(s: Any, h: Tensor) -> Tensor:
    boxes = [torch.tensor([[0.3, 0.2, 3.1, 2.9]]).to(h)] * len(h)
    return torchvision.ops.roi_align(h, boxes, 2)


# -- state, constants, gradients that are cut, randomness, mixing ----------------------------------------------------
def state_rows() -> None:
    def counted(s: Any, h: Tensor) -> Tensor:
        s.calls += 1
        return s.f(h)

    def remembered(s: Any, h: Tensor) -> Tensor:
        s.last.copy_(h[0].detach())
        return s.f(h)

    def cached(s: Any, h: Tensor) -> Tensor:
        s.cache = s.f(h)
        return s.cache * h

    def scratch(s: Any, h: Tensor) -> Tensor:
        s.buffer[: len(h)] = h
        return s.buffer[: len(h)].tanh()

    made("buffer that counts calls", VECTOR, counted, parts=lambda: {"f": mlp(nn.Tanh()), "calls": torch.zeros(())})
    made("buffer written, not read", VECTOR, remembered, parts=lambda: {"f": mlp(nn.Tanh()), "last": torch.zeros(6)})
    made("cache kept in self", VECTOR, cached, parts=lambda: {"f": mlp(nn.Tanh(), m=6)})
    made("result that depends on earlier calls", VECTOR, drifting, "refused", oracle="none", parts=drift)
    made("buffer written and read", VECTOR, scratch, "either", parts=lambda: {"buffer": torch.zeros(8, 6)})
    noise = lambda s, h: h * s.t  # noqa: E731
    bound = lambda s, i: lambda h: h * s.t[i]  # noqa: E731
    made("bound to three rows", VECTOR, noise, parts=times, row_of=bound, sizes=(3,))
    rows = lambda s, i: lambda h: torch.baddbmm(s.t[i : i + 1, None], h[:, None], s.w).flatten(1)  # noqa: E731
    made("bound to three rows, tokens", VECTOR, per_row, parts=per_row_parts, row_of=rows, sizes=(3,))


def drift() -> dict[str, Any]:
    return {"t": torch.ones(())}


def drifting(s: Any, h: Tensor) -> Tensor:
    s.t *= 1.1
    return h * s.t


def times() -> dict[str, Tensor]:
    return {"t": torch.linspace(0.5, 2, 18).reshape(3, 6)}


def per_row_parts() -> dict[str, Tensor]:
    return {"t": torch.linspace(0.5, 2, 15).reshape(3, 5), "w": torch.linspace(-1, 1, 30).reshape(1, 6, 5)}


def per_row(s: Any, h: Tensor) -> Tensor:
    return torch.baddbmm(s.t[:, None], h[:, None], s.w.expand(3, 6, 5)).flatten(1)


@torch.no_grad()
def without_grad(h: Tensor) -> Tensor:
    return torch.sigmoid(h) * 2


def mask_of(h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.ones(6, 6).to(h).tril()


def by_numpy(h: Tensor) -> Tensor:
    return torch.from_numpy(h.detach().numpy() ** 2)


def gradient_rows() -> None:
    lies: dict[str, Callable[[Tensor], Any]] = {
        "no_grad around a gate": lambda h: h * without_grad(h),
        "no_grad around all": lambda h: without_grad(h),
        "detach of a factor": lambda h: h * h.detach().tanh(),
        "detach of a norm": lambda h: h / (1 + h.norm(dim=1, keepdim=True).detach()),
        "detach of one entry": lambda h: torch.cat([h[:, :5].sin(), h[:, 5:].detach().sin()], 1),
        "detach of a small term": lambda h: h.sin() + 1e-3 * h.detach().cos(),
        "data": lambda h: h * h.data.exp(),
        "by numpy": by_numpy,
        "by a list": lambda h: torch.tensor(h.tolist(), dtype=h.dtype) * h,
        "straight-through estimator": lambda h: h + (torch.round(h) - h).detach(),
        "straight-through sign, clipped": lambda h: h.clamp(-1, 1) + (h.sign() - h.clamp(-1, 1)).detach(),
        "autograd.Function, wrong backward": pieces.CubeWrong.apply,
        "autograd.Function, gradient reversed": pieces.ReversedGradient.apply,
    }
    for name, branch in lies.items():
        row(name, VECTOR, lambda branch=branch: branch, "refused", oracle="difference")
    gate = lambda: Made(lambda s, h: s.f(h) * without_grad(s.g(h)), f=nn.Linear(6, 6), g=nn.Linear(6, 6))  # noqa: E731
    row("no_grad around a layer's gate", VECTOR, gate, "refused", oracle="difference")
    row("mask made under no_grad", VECTOR, lambda: Made(lambda s, h: s.f(h) @ mask_of(h), f=mlp(nn.Tanh(), m=6)))
    row("detach of a constant", VECTOR, lambda: Made(lambda s, h: h * s.w.detach(), w=nn.Parameter(torch.randn(6))))
    row("no_grad around a comparison", VECTOR, lambda: lambda h: h * without_grad(h).gt(1).to(h))
    row("detach of what cancels", VECTOR, lambda: lambda h: (h - h.amax(1, True).detach()).softmax(1))
    row("autograd.Function", VECTOR, lambda: pieces.CubeRight.apply)
    row("autograd.Function, wrong forward mode", VECTOR, lambda: pieces.CubeWrongForward.apply, "either")
    row("autograd.Function without a forward mode", VECTOR, lambda: pieces.CubeBackwardOnly.apply, "either")
    row("autograd.Function, old style", VECTOR, lambda: pieces.CubeOldStyle.apply, "either")
    row("autograd.Function, once differentiable", VECTOR, lambda: pieces.CubeOnce.apply, "either")
    again = lambda: Made(lambda s, h: checkpoint(s.f, h, use_reentrant=False), f=mlp(nn.Tanh()))  # noqa: E731
    row("checkpointed", VECTOR, again, "either")


def random_rows() -> None:
    drop: dict[str, Callable[[], nn.Module]] = {
        "dropout on": lambda: mlp(nn.Dropout(0.5)),
        "dropout on, rare": lambda: mlp(nn.Dropout(0.05)),
        "AlphaDropout on": lambda: mlp(nn.AlphaDropout(0.5)),
        "stochastic depth on, by row": lambda: nn.Sequential(
            nn.Linear(6, 6), torchvision.ops.StochasticDepth(0.5, "row")
        ),
        "stochastic depth on, by batch": lambda: nn.Sequential(
            nn.Linear(6, 6), torchvision.ops.StochasticDepth(0.5, "batch")
        ),
        "stochastic depth on, rare": lambda: nn.Sequential(
            nn.Linear(6, 6), torchvision.ops.StochasticDepth(0.02, "row")
        ),
        "Gaussian noise": lambda: Made(lambda s, h: h + torch.randn_like(h)),
        "Gaussian noise, small": lambda: Made(lambda s, h: h.tanh() + 1e-4 * torch.randn_like(h)),
        "functional dropout": lambda: Made(lambda s, h: F.dropout(h, 0.5)),
    }
    for name, make in drop.items():
        row(name, VECTOR, make, "refused", oracle="none", train=True)
    row("stochastic depth in eval mode", VECTOR, lambda: mlp(torchvision.ops.StochasticDepth(0.5, "row")))


def mixing_rows() -> None:
    mixed: dict[str, Callable[[Tensor], Tensor]] = {
        "h minus its mean over the batch": lambda h: h - h.mean(0),
        "cumsum over the batch": lambda h: h.cumsum(0),
        "rows rolled": lambda h: h.roll(1, 0) + h,
        "rows sorted": lambda h: h.sort(0).values,
        "only the last row mixed": lambda h: torch.cat([h[:-1], h[-1:] + h[:1] ** 2]),
        "mixed by a product that is small": lambda h: h + 1e-4 * h.sum(0),
        "divided by the largest of the batch": lambda h: h / h.abs().max(),
        "attention across the batch": lambda h: F.scaled_dot_product_attention(h[None], h[None], h[None])[0],
    }
    for name, branch in mixed.items():
        mixes(name, VECTOR, lambda branch=branch: branch)


def shape_rows() -> None:
    refused: dict[str, Callable[[Tensor], Any]] = {
        "complex result": lambda h: torch.fft.rfft(h, dim=1),
        "tuple": lambda h: (h.sin(), h.cos()),
        "nothing": lambda h: None,
        "rows merged": lambda h: h.flatten(),
        "rows summed": lambda h: h.sum(),
        "NaN": lambda h: (h.abs() * -1).sqrt(),
        "infinite": lambda h: h / 0,
    }
    for name, branch in refused.items():
        row(name, VECTOR, lambda branch=branch: branch, "refused", oracle="none")
    row("whole numbers", VECTOR, lambda: lambda h: h.argmax(1), "either")
    row("truth values", VECTOR, lambda: lambda h: h > 0, "either")
    row("in another precision", VECTOR, lambda: lambda h: h.to(torch.float32).sin(), "either")


SECTIONS: dict[str, tuple[Callable[[], None], ...]] = {
    "Activations": (activation_rows, activation_like_rows),
    "Functions of tensors, writes in place": (function_rows,),
    "Normalisations": (normalisation_rows,),
    "Recurrent layers": (recurrent_rows,),
    "Attention": (attention_rows,),
    "Gates and residuals": (gate_rows,),
    "Convolutions, pooling, sampling": (convolution_rows,),
    "State and constants": (state_rows,),
    "Derivatives that are hidden from autograd, or given by hand": (gradient_rows,),
    "Random numbers": (random_rows,),
    "Rows that depend on each other": (mixing_rows,),
    "Results of another kind": (shape_rows,),
}
GROUPS: dict[str, list[Row]] = {}
for title, sections in SECTIONS.items():
    before = len(ROWS)
    for section in sections:
        section()
    GROUPS[title] = ROWS[before:]

IN_FLOAT32 = [
    *("ReLU in place", "Hardsigmoid", "SiLU", "F.relu(inplace)", "written slice of the argument", "its input", "zeros"),
    *("BatchNorm2d eval", "LayerNorm", "GRU", "MultiheadAttention", "scaled_dot_product_attention, mask inside"),
    *("TransformerEncoderLayer, norm first", "squeeze and excite, in place", "h += f(h) on the argument"),
    *("DeformConv2d", "cdist within a row", "round", "one number a row", "linalg.solve", "bound to three rows"),
    *("no_grad around a gate", "detach of a factor", "straight-through estimator", "autograd.Function, wrong backward"),
    *(
        "dropout on",
        "h minus its mean over the batch",
        "cumsum over the batch",
        "GRU, sequence first",
        "complex result",
    ),
]
