"""Blocks of torchvision and timm as they come: products beside autograd and differences of the plain module."""

import copy

import pytest
import torch
import torchvision.models as zoo
from torch import nn
from torch.testing import assert_close

import resalign_utils as ra

# that a slower way is taken is no fault here: the numbers count
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
DIRECTIONS = 3
# family: the model, the block's name in it, the shape of its input
TORCHVISION = {
    "resnet18": (zoo.resnet18, "layer1.0", (64, 4, 4)),
    "resnet18, downsampling": (zoo.resnet18, "layer2.0", (64, 4, 4)),
    "resnet50": (zoo.resnet50, "layer1.1", (256, 3, 3)),
    "wide_resnet50_2": (zoo.wide_resnet50_2, "layer1.1", (256, 3, 3)),
    "resnext50_32x4d": (zoo.resnext50_32x4d, "layer1.1", (256, 3, 3)),
    "mobilenet_v2": (zoo.mobilenet_v2, "features.3", (24, 5, 5)),
    "convnext_tiny": (zoo.convnext_tiny, "features.1.0", (96, 4, 4)),
    "efficientnet_b0": (zoo.efficientnet_b0, "features.2.1", (24, 5, 5)),
    "swin_t": (zoo.swin_t, "features.1.0", (7, 7, 96)),
    "swin_t, shifted windows": (zoo.swin_t, "features.1.1", (8, 8, 96)),
    "swin_v2_t": (zoo.swin_v2_t, "features.1.1", (8, 8, 96)),
    "vit_b_16": (zoo.vit_b_16, "encoder.layers.encoder_layer_0", (5, 768)),
    "densenet121": (zoo.densenet121, "features.denseblock1", (64, 3, 3)),
    "regnet_y_400mf": (zoo.regnet_y_400mf, "trunk_output.block2.block2-1", (104, 4, 4)),
    "shufflenet_v2_x0_5": (zoo.shufflenet_v2_x0_5, "stage2.1", (48, 4, 4)),
    "googlenet": (lambda: zoo.googlenet(init_weights=False), "inception3a", (192, 3, 3)),
}
TIMM = {
    "test_resnet": ("test_resnet", "layer1.0", (32, 4, 4)),
    "test_vit": ("test_vit", "blocks.0", (5, 64)),
    "test_convnext": ("test_convnext", "stages.1.blocks.0", (32, 4, 4)),
    "test_efficientnet": ("test_efficientnet", "blocks.1.0", (16, 5, 5)),
    "test_mambaout": ("test_mambaout", "stages.1.blocks.0", (5, 5, 32)),
    "mixer": ("mixer_s32_224", "blocks.0", (49, 512)),
    "resmlp": ("resmlp_12_224", "blocks.0", (196, 384)),
    "deit with layer scale": ("deit3_small_patch16_224", "blocks.0", (5, 384)),
}


def randomised(block: nn.Module) -> nn.Module:
    """The block in float64 and eval mode, where no gate is shut and no statistic is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
        if name.endswith("running_var"):
            tensor.data += torch.rand(tensor.shape, generator=generator)
        elif (tensor.dim() == 1 and tensor.is_floating_point()) or "layer_scale" in name:
            tensor.data += 0.2 * torch.randn(tensor.shape, generator=generator)
    return block.double().eval().requires_grad_(False)


def transposed(block, x, u):
    """``Jᵀ u`` (k, *in) at x (1, *in) for each u (k, *out), by autograd."""
    leaf = x.clone().requires_grad_()
    out = block(leaf.clone())
    return torch.cat([torch.autograd.grad(out, leaf, each[None], retain_graph=True)[0] for each in u])


@torch.no_grad()
def along(block, x, v, step=1e-6):
    """``J v`` (k, *out) at x (1, *in) for each v (k, *in), by central differences."""
    return torch.cat([(block(x + step * each) - block(x - step * each)) / (2 * step) for each in v])


def check_products(block, shape):
    """An operator on the block, in float64 and in float32, beside what its copies give."""
    generator = torch.Generator().manual_seed(1)
    x, v = (torch.randn(k, *shape, generator=generator).double() for k in (1, DIRECTIONS))
    u = torch.randn(DIRECTIONS, *block(x.clone()).shape[1:], generator=generator).double()
    forward, backward = along(copy.deepcopy(block), x, v), transposed(copy.deepcopy(block), x, u)
    assert_close(u.flatten(1) @ forward.flatten(1).T, backward.flatten(1) @ v.flatten(1).T, rtol=1e-6, atol=1e-5)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        operator = ra.JacobianOperator(copy.deepcopy(block).to(dtype), x.to(dtype))
        for got, want in ((operator.matmat(v.to(dtype)), forward), (operator.rmatmat(u.to(dtype)), backward)):
            assert got.dtype == dtype
            assert_close(got.double() / want.norm(), want / want.norm(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", TORCHVISION)
def test_blocks_of_torchvision(family):
    make, name, shape = TORCHVISION[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = randomised(make().get_submodule(name))
    check_products(block, shape)


@pytest.mark.parametrize("family", TIMM)
def test_blocks_of_timm(family):
    timm = pytest.importorskip("timm")
    model, name, shape = TIMM[family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = randomised(timm.create_model(model).get_submodule(name))
    check_products(block, shape)
