"""Full precision and twice differentiable kernels while it lasts, and the caller's settings afterwards."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from resalign_utils.arithmetic import exact_arithmetic

CPU = torch.device("cpu")
BACKENDS = torch.backends
ONE_BY_ONE = hasattr(BACKENDS.cudnn, "conv")  # torch 2.9 and newer have a switch for each kind of product
PRECISIONS = (
    [
        *(BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.cuda.matmul),
        *(BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn, BACKENDS.mkldnn.matmul),
    ]
    if ONE_BY_ONE
    else []
)
KERNELS = ("flash", "mem_efficient", "cudnn", "math")


def settings():
    """All that is changed: autocast, precisions, kernels of attention, the fast path."""
    kernels = [getattr(BACKENDS.cuda, f"{kernel}_sdp_enabled")() for kernel in KERNELS]
    autocast = [torch.is_autocast_enabled(device) for device in ("cpu", "cuda")]
    return autocast, [kind.fp32_precision for kind in PRECISIONS], kernels, BACKENDS.mha.get_fastpath_enabled()


EXACT = [False, False], ["ieee"] * len(PRECISIONS), [False, False, False, True], False


@pytest.fixture
def tf32_everywhere():
    before = [kind.fp32_precision for kind in PRECISIONS]
    for kind in PRECISIONS:
        kind.fp32_precision = "tf32"
    yield
    for kind, value in zip(PRECISIONS, before, strict=True):
        kind.fp32_precision = value


@pytest.mark.skipif(not ONE_BY_ONE, reason="this torch has the older switches, which have a test of their own")
@pytest.mark.usefixtures("tf32_everywhere")
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0"])
def test_all_is_exact_while_it_lasts_and_as_before_afterwards(device):
    BACKENDS.cudnn.rnn.fp32_precision = "ieee"  # not all the same
    before = settings()
    assert before[1:] == (["tf32", "ieee", *["tf32"] * 4], [True] * 4, True)
    with exact_arithmetic(torch.device(device)):
        assert settings() == EXACT
    assert settings() == before
    with pytest.raises(KeyError, match="inside"), exact_arithmetic(torch.device(device)):
        raise KeyError("inside")
    assert settings() == before


def test_what_the_caller_had_off_stays_off():
    BACKENDS.mha.set_fastpath_enabled(False)
    BACKENDS.cuda.enable_flash_sdp(False)
    try:
        before = settings()
        with exact_arithmetic(CPU):
            pass
        assert settings() == before
        assert before[2:] == ([False, True, True, True], False)
    finally:
        BACKENDS.mha.set_fastpath_enabled(True)
        BACKENDS.cuda.enable_flash_sdp(True)


@pytest.mark.usefixtures("tf32_everywhere")
def test_one_inside_another_changes_nothing():
    before = settings()
    with exact_arithmetic(CPU):
        with exact_arithmetic(CPU):
            assert settings() == EXACT
        assert settings() == EXACT
    assert settings() == before


@pytest.mark.usefixtures("tf32_everywhere")
def test_autocast_is_off_inside_and_on_again_afterwards():
    linear, h = nn.Linear(5, 3), torch.randn(2, 5)
    expected = linear(h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with exact_arithmetic(CPU):
            inside = linear(h)
        assert linear(h).dtype == torch.bfloat16
    assert_close(inside, expected, rtol=0, atol=0)


@pytest.fixture
def older_torch(monkeypatch):
    """The switches of torch before 2.9: one for cuDNN, and one for all matrix products."""

    class Cudnn:
        allow_tf32 = True

    class Older:
        cudnn, cuda, mha = Cudnn(), BACKENDS.cuda, BACKENDS.mha

    precision = ["medium"]
    monkeypatch.setattr(torch, "backends", Older)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision[0])
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda value: precision.__setitem__(0, value))
    return lambda: (Older.cudnn.allow_tf32, precision[0])


def test_older_torch_is_served_by_its_own_switches(older_torch):
    with exact_arithmetic(CPU):
        assert older_torch() == (False, "highest")
    assert older_torch() == (True, "medium")
    with pytest.raises(KeyError, match="inside"), exact_arithmetic(CPU):
        raise KeyError("inside")
    assert older_torch() == (True, "medium")


def second_derivative(function, h):
    h = h.requires_grad_()
    (first,) = torch.autograd.grad(function(h).square().sum(), h, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), h)
    return second


def test_attention_can_be_differentiated_twice():
    torch.manual_seed(0)
    q = torch.randn(2, 1, 4, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    for function, h in (
        (lambda h: F.scaled_dot_product_attention(h, h, h), q),
        (lambda h: attention(h, h, h, need_weights=False)[0], q[:, 0]),
    ):
        with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
            second_derivative(function, h.clone())
        with exact_arithmetic(CPU):
            found = second_derivative(function, h.clone())
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            assert_close(found, second_derivative(function, h.clone()))
        assert found.abs().max() > 0


def test_fast_path_of_a_transformer_layer_is_not_taken(monkeypatch):
    layer, h = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), torch.randn(2, 4, 8)
    taken = []
    fused = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a, **k: taken.append(1) or fused(*a, **k))
    with torch.no_grad():
        layer(h)
        assert taken == [1]
        with exact_arithmetic(CPU):
            layer(h)
    assert taken == [1]
