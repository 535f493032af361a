"""The same on a GPU as on the CPU: products, the door, attention, whole networks."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import resalign_utils as ra
from resalign_utils.operators._derivatives import BackwardOnce, DoubleBackward, ForwardMode

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

F64 = torch.float64
BRANCHES = {
    "convolution, batch norm": (
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)),
        (3, 5, 6),
    ),
    "strided, grouped": (nn.Conv2d(4, 6, 3, stride=2, groups=2), (4, 6, 6)),
    "transposed convolution": (nn.ConvTranspose2d(3, 2, 3), (3, 4, 4)),
    "linear, SiLU": (nn.Sequential(nn.Linear(8, 12), nn.SiLU(), nn.Linear(12, 8)), (8,)),
    "hardsigmoid": (nn.Sequential(nn.Linear(8, 8), nn.Hardsigmoid()), (8,)),
    "encoder layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8)),
    "GRU": (nn.GRU(6, 6, batch_first=True), (4, 6)),
    "max pool": (nn.MaxPool2d(2), (2, 6, 6)),
    "pixel shuffle, interpolation": (nn.Sequential(nn.PixelShuffle(2), nn.Upsample(scale_factor=2)), (4, 3, 3)),
}


class First(nn.Module):
    """The first of what a recurrent layer returns."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, h):
        out = self.layer(h)
        return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", BRANCHES)
def test_products_are_those_of_the_cpu(name, dtype):
    branch, shape = BRANCHES[name]
    branch = First(branch).double().eval()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    exact = ra.dense_jacobians(branch, x)
    there = branch.to("cuda", dtype)
    batch = ra.JacobianBatch(there, x.to("cuda", dtype))
    assert batch._way.derivative in (DoubleBackward, ForwardMode, BackwardOnce)
    scale = float(exact.abs().max())
    near = {"rtol": 0, "atol": (1e-5 if dtype == torch.float32 else 1e-12) * scale, "check_dtype": False}
    assert_close(batch.dense().cpu(), exact, **near)
    v = torch.randn(3, 4, *shape, generator=torch.Generator().manual_seed(1), dtype=F64)
    image = batch.matmat(v.to("cuda", dtype)).cpu().reshape(3, 4, -1)
    wide = {**near, "atol": near["atol"] * v[0, 0].numel()}
    assert_close(image, (v.reshape(3, 4, -1) @ exact.mT), **wide)
    branch.to("cpu", F64)


def test_tf32_and_autocast_do_not_reach_the_products():
    branch = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.Tanh(), nn.Conv2d(32, 32, 3, padding=1)).cuda()
    x = torch.randn(1, 32, 6, 6, device="cuda")
    exact = ra.dense_jacobians(branch.double(), x.double())
    branch.float()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = ra.dense_jacobians(branch, x)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert_close(found.double(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


@pytest.mark.parametrize("hidden", [lambda h: h * torch.sigmoid(h).detach(), lambda h: h - h.mean(0)])
def test_door_stands_on_a_gpu_too(hidden):
    with pytest.raises(ValueError, match=r"cannot be trusted|depends on the other inputs"):
        ra.JacobianBatch(hidden, torch.randn(3, 6, device="cuda"))


def test_whole_network_gives_the_scores_of_the_cpu():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=F64)
    here = ra.measure_alignment(model, x, k=5, tol=1e-9)
    there = ra.measure_alignment(model.cuda(), x.cuda(), k=5, tol=1e-9)
    for name in ("singular_values", "coupling", "line_shape_score", "alignment"):
        assert_close(getattr(there, name).cpu(), getattr(here, name), rtol=0, atol=1e-6, equal_nan=True)
