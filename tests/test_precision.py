"""float32 functions evaluated in float64: as a copy that was converted, and nothing is left behind."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from resalign_utils.precision import in_double

MODELS = {
    "convolutions": (lambda: torchvision.models.resnet18(num_classes=5), (3, 32, 32)),
    "inverted residuals": (lambda: torchvision.models.mobilenet_v2(num_classes=5), (3, 32, 32)),
    "layer norm and scale": (lambda: torchvision.models.convnext_tiny(num_classes=5), (3, 32, 32)),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8)),
    "windows": (lambda: torchvision.models.swin_t(num_classes=5), (3, 32, 32)),
    "recurrent": (lambda: nn.LSTM(6, 6, batch_first=True), (4, 6)),
}


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", MODELS)
def test_result_is_that_of_a_converted_copy(name):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = first(copy.deepcopy(model).double()(x.double()))
    found = first(in_double(model, x))
    assert found.dtype == torch.float64
    assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not found.requires_grad


def test_dtypes_that_the_function_names_are_widened_too():
    def function(h):
        mask = torch.zeros(h.shape, dtype=torch.float32)
        return (h.to(torch.float32) + mask).float()

    x = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    assert_close(in_double(function, x).double(), x, rtol=0, atol=1e-7)  # .float() itself says float32


def test_whole_numbers_and_masks_stay_what_they_are():
    assert in_double(lambda h: h.argmax(1), torch.randn(2, 3)).dtype == torch.int64
    assert in_double(lambda h: h > 0, torch.randn(2, 3)).dtype == torch.bool
