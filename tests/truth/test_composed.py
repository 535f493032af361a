"""Random compositions of ordinary pieces: whatever is built of what is right must be right."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from .branches import Row
from .oracle import faults, measure
from .pieces import Attention, Highway, Made, Residual, SqueezeExcite, conv, mlp, write

Piece = tuple[str, Callable[[], nn.Module]]


def on_a_copy(f: nn.Module) -> nn.Module:
    """What works in place, on a tensor that no layer before needs: otherwise autograd itself refuses."""
    return nn.Sequential(Made(lambda s, h: h * 1), f)


ANYWHERE: list[Piece] = [
    ("ReLU", nn.ReLU),
    ("ELU in place", lambda: on_a_copy(nn.ELU(inplace=True))),
    ("LeakyReLU in place", lambda: on_a_copy(nn.LeakyReLU(0.2, inplace=True))),
    ("SiLU", nn.SiLU),
    ("GELU", nn.GELU),
    ("Hardsigmoid", nn.Hardsigmoid),
    ("Tanh", nn.Tanh),
    ("PReLU", nn.PReLU),
    ("F.relu in place", lambda: Made(lambda s, h: F.relu(h * 1.5, inplace=True) - 0.3)),
    ("written slice", lambda: Made(lambda s, h: write(h * 1, lambda g: g[:, ::2].mul_(2)))),
    ("gate", lambda: Made(lambda s, h: h * torch.sigmoid(h.flip(1)))),
    ("clamp", lambda: Made(lambda s, h: h.clamp(-0.8, 0.9))),
    ("cumsum", lambda: Made(lambda s, h: h.cumsum(1) / 2)),
    ("normalise", lambda: Made(lambda s, h: F.normalize(h.flatten(1), dim=1).reshape(h.shape))),
    ("mask without gradient", lambda: Made(lambda s, h: h * constant(h))),
]
PIECES: dict[tuple[int, ...], list[Piece]] = {
    (6,): [
        ("Linear", lambda: nn.Linear(6, 6)),
        ("MLP", lambda: mlp(nn.ReLU(inplace=True), m=6)),
        ("BatchNorm1d", lambda: nn.BatchNorm1d(6)),
        ("LayerNorm", lambda: nn.LayerNorm(6)),
        ("highway", lambda: Highway(6)),
        ("GLU", lambda: nn.Sequential(nn.Linear(6, 12), nn.GLU(1))),
        ("softmax", lambda: nn.Softmax(1)),
        ("sort", lambda: Made(lambda s, h: h.sort(1).values)),
    ],
    (2, 3, 3): [
        ("Conv2d", conv),
        ("depthwise", lambda: conv(groups=2)),
        ("BatchNorm2d", lambda: nn.BatchNorm2d(2)),
        ("GroupNorm", lambda: nn.GroupNorm(1, 2)),
        ("squeeze and excite", lambda: SqueezeExcite(2, inplace=True)),
        ("MaxPool2d", lambda: nn.MaxPool2d(3, 1, 1)),
        ("up and down", lambda: Made(lambda s, h: F.avg_pool2d(F.interpolate(h, scale_factor=2), 2))),
        ("Conv2d, PReLU per channel", lambda: nn.Sequential(conv(), nn.PReLU(2))),
    ],
    (4, 6): [
        ("Linear", lambda: nn.Linear(6, 6)),
        ("LayerNorm", lambda: nn.LayerNorm(6)),
        ("attention", Attention),
        ("attention, causal", lambda: Attention(mask="causal")),
        ("GRU", lambda: Made(lambda s, h: s.f(h)[0], f=nn.GRU(6, 6, batch_first=True))),
        ("encoder layer", lambda: nn.TransformerEncoderLayer(6, 2, 7, 0.0, batch_first=True)),
        ("mix tokens", lambda: Made(lambda s, h: s.f(h.transpose(1, 2)).transpose(1, 2), f=nn.Linear(4, 4))),
        ("convolve tokens", lambda: Made(lambda s, h: s.f(h), f=nn.Conv1d(4, 4, 3, padding=1))),
    ],
}
WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "": lambda f: f,
    "h + ": Residual,
    "h += ": lambda f: on_a_copy(Residual(f, inplace=True)),
}


def constant(h: torch.Tensor) -> torch.Tensor:
    """Weights (1, …) that depend on the shape of h alone."""
    with torch.no_grad():
        return torch.linspace(0.5, 1.5, h[0].numel()).to(h).reshape(1, *h.shape[1:])


@st.composite
def rows(draw: st.DrawFn, shape: tuple[int, ...]) -> Row:
    """Two to five pieces in a row, each as it is, in a residual, or in one in place; and one residual around two."""
    pieces = st.tuples(st.sampled_from(list(WRAPS)), st.sampled_from(PIECES[shape] + ANYWHERE))
    chosen = draw(st.lists(pieces, min_size=2, max_size=5))
    start, wrap = draw(st.integers(0, len(chosen) - 2)), draw(st.sampled_from(list(WRAPS)))

    def make() -> nn.Module:
        parts = [WRAPS[around](piece()) for around, (_, piece) in chosen]
        nested = WRAPS[wrap](nn.Sequential(*parts[start : start + 2]))
        return nn.Sequential(*parts[:start], nested, *parts[start + 2 :])

    names = [f"{around}{name}" for around, (name, _) in chosen]
    names[start : start + 2] = [f"{wrap}[{', '.join(names[start : start + 2])}]"]
    return Row(" → ".join(names), shape, make)


@pytest.mark.parametrize("shape", PIECES, ids=["vectors", "images", "tokens"])
def test_compositions_are_right(shape):
    @settings(max_examples=20)
    @given(row=rows(shape), n=st.sampled_from([1, 3]))
    def right(row, n):
        assert faults(row, n, measure(row, n)) == [], row.name

    right()
