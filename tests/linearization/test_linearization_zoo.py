"""Foreign networks: path lengths, folding and linearising are right, or refused by name.

Of torchvision one network of every kind of image classifier, random weights, small images.
"""

import pytest
import torch
from slopes import slopes_of
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from resalign_utils import average_path_length, fold, linearize, path_length_distribution

GATE = r"\(mul\) merges 2 tensors"
WINDOWS = r"\(shifted_window_attention\) has no rule"
# NAPL or what is refused; the number of ReLUs or the activations there are instead
ZOO = {
    "alexnet": (7.0, 7),
    "convnext_tiny": (9.0, "GELU"),  # 18 blocks, each one GELU beside a skip
    "densenet121": (14.067314115079409, 121),
    "efficientnet_b0": (GATE, "SiLU, Sigmoid"),
    "googlenet": (17.156089743589742, 57),
    "inception_v3": (27.002777777777776, 94),
    "mnasnet0_5": (25.0, 35),
    "mobilenet_v2": (25.0, "ReLU6"),
    "mobilenet_v3_small": (GATE, 14),
    "regnet_x_400mf": (45.0, 67),
    "regnet_y_400mf": (GATE, 65),
    "resnet18": (1 + 8 * 1.5, 17),
    "resnet50": (1 + 16 * 2.0, 49),
    "resnext50_32x4d": (1 + 16 * 2.0, 49),
    "shufflenet_v2_x0_5": (19.5, 37),
    "squeezenet1_1": (18.0, 26),
    "swin_t": (WINDOWS, "GELU"),
    "swin_v2_t": (WINDOWS, "GELU"),
    "vit": (r"\(MultiheadAttention\) has no rule", "GELU"),
}


def foreign(name):
    torch.manual_seed(0)
    if name == "vit":
        vit = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10).eval()
        nn.init.normal_(vit.heads[0].weight)  # it begins with zeros
        return vit
    quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, num_classes=10, **quick).eval()
    for module in model.modules():  # else a batch norm is nearly the identity
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("name", ZOO)
@torch.no_grad()
def test_network_is_measured_folded_and_linearised_or_refused_by_name(name):
    length, relus = ZOO[name]
    model, x = foreign(name), torch.randn(2, 3, *[{"inception_v3": 96, "vit": 32}.get(name, 64)] * 2)
    expected = model(x)
    if isinstance(length, str):
        with pytest.raises(ValueError, match=length):
            average_path_length(model, x)
    else:
        law = path_length_distribution(model, x)
        assert average_path_length(model, x) == pytest.approx(length)
        assert float(law @ torch.arange(len(law), dtype=law.dtype)) == pytest.approx(length)

    folded = fold(model, x)  # compares in float64; here once more, as loosely as float32 asks
    assert float((folded(x) - expected).abs().max() / expected.abs().max()) < 1e-2
    assert bool(folded.meta["left"]) == (name == "densenet121")  # whose batch norms come before the convolutions

    if isinstance(relus, str):
        with pytest.raises(ValueError, match=f"calls no ReLU.* Its activations are {relus}; exchange them for ReLU"):
            linearize(model, x=x)
    else:
        copy = linearize(model, x=x)
        assert len(slopes_of(copy)) == relus
        torch.testing.assert_close(copy(x), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
