"""Blocks that are found on a GPU have the Jacobians of those on the CPU; a diagnosis runs there."""

import copy

import pytest
import torch
from contracts import randomised
from torch.testing import assert_close
from torchvision.models import VisionTransformer, convnext_tiny, mobilenet_v2, resnet18, swin_t

import resalign_utils as ra

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

NETWORKS = {
    "resnet18": lambda: resnet18(num_classes=5),
    "mobilenet_v2": lambda: mobilenet_v2(num_classes=5),
    "convnext_tiny": lambda: convnext_tiny(num_classes=5),
    "swin_t": lambda: swin_t(num_classes=5),
    "vit": lambda: VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_are_those_of_the_cpu(name):
    torch.manual_seed(0)
    model, x = randomised(NETWORKS[name]()), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    here = ra.trace(model, x)
    there = ra.trace(copy.deepcopy(model).cuda(), x.cuda())
    for mine, own in zip(there.residuals, here.residuals, strict=True):
        assert mine.name == own.name
        assert_close(mine.output.cpu(), own.output, rtol=1e-8, atol=1e-8)
        v = torch.randn_like(own.input)
        pushed = [ra.JacobianBatch(r.branch, r.input).matmat(v[:, None].to(r.input)) for r in (own, mine)]
        assert_close(pushed[1].cpu(), pushed[0], rtol=1e-7, atol=1e-8 * float(pushed[0].abs().max()))


def test_diagnosis_runs_on_a_gpu():
    torch.manual_seed(0)
    model, x = resnet18(num_classes=5).cuda().eval(), torch.randn(12, 3, 32, 32).cuda()
    labels = torch.arange(12) % 5
    found = ra.diagnose(model, x, labels=labels, budget="60s", progress=False)
    assert found.measured.alignment.coupling.is_cuda
    assert "NVIDIA" in found.settings["device"]
    assert {"straightness", "alignment"} <= {verdict.subject for verdict in found.verdicts}


def test_tokens_are_measured_on_a_gpu():
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5).cuda().eval()
    report = ra.measure_alignment(model, torch.randn(3, 3, 32, 32).cuda(), tokens="auto")
    assert report.tokens == (0, 8, 16)
