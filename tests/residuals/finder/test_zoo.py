"""The number of residual sums of architectures as they come, and branches beside differences of the module itself."""

import pytest
import torch
from torch.testing import assert_close
from zoo import QUICK, TRANSFORMERS, ZOO, looked_at, row
from zoo.__main__ import PAGE, start, written
from zoo.pictures import IMAGES

import resalign_utils as ra
from resalign_utils import precision

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, on their own models


@pytest.mark.parametrize("architecture", [a for a in ZOO if a.name in QUICK], ids=lambda a: f"{a.library}: {a.name}")
def test_architecture_has_the_sums_of_its_source(architecture):
    table, model, x = looked_at(architecture)
    assert len(table) == architecture.sums, table
    anew = "write it anew: python -m tests.residuals.finder.zoo"
    assert f"\n{row(architecture, table)} " in PAGE.read_text(encoding="utf-8"), anew
    if len(table):
        assert len(ra.trace(model, x).residuals) == len(table)


def test_every_architecture_has_one_row_of_the_book_with_the_number_of_its_source():
    assert len({a.name for a in ZOO}) == len(ZOO)
    assert {a.name for a in ZOO} >= QUICK
    rows = written()
    assert list(rows) == [start(a) for a in ZOO]
    assert all(rows[start(a)].startswith(f"| {a.name} | {a.sums} |") for a in ZOO)


class Hooked:
    """A module of a model, with its input replaced by others while the model runs as it does."""

    def __init__(self, model, x, name):
        self._model, self._x, self._module = model, x, model.get_submodule(name)
        self.input, _ = self._run(None)

    def __call__(self, h):
        """Its output where its input is h."""
        return self._run(h)[1]

    def _run(self, h):
        seen = []

        def before(_, args, kwargs):
            own = args[0] if args else kwargs["hidden_states"]
            seen.append(own)
            new = own if h is None else h
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        def after(_, args, output):
            seen.append(output[0] if isinstance(output, tuple) else output)

        hooks = (
            self._module.register_forward_pre_hook(before, with_kwargs=True),
            self._module.register_forward_hook(after),
        )
        try:
            # some models convert to float32 inside, where a difference would be noise
            precision.in_double(lambda: self._model(**self._x) if isinstance(self._x, dict) else self._model(self._x))
        finally:
            for hook in hooks:
                hook.remove()
        return seen[:2]  # of the first call, if there are several


# These round to float32 inside of a float64 model, so that small differences drown
ROUNDED = {"Cohere, parallel", "Mamba", "Mamba-2", "DeBERTa", "Gemma 2", "Llama"}
ROUNDED |= {"Mixtral, experts", "Qwen2-MoE, experts", "DeepSeek-V3, experts"}


def accuracy(name):
    """The step of a difference quotient, and how far it may be off, relative to its largest entry."""
    return (1e-3, 2e-3) if name in ROUNDED else (1e-7, 1e-6)


def quotient(function, h, v, step):
    """The difference quotient of a function at h along v."""
    return (function(h + step * v) - function(h - step * v)) / (2 * step)


def in_double(name):
    """A model of the zoo in float64 with larger weights than at its start, and its inputs."""
    torch.manual_seed(0)
    make, inputs, _ = {**IMAGES, **TRANSFORMERS}[name]
    model, x = make().eval().double(), inputs()
    if "experts" in name:  # those grouped by a kernel have no float64
        model.set_experts_implementation("batched_mm")
    with torch.no_grad():
        for parameter in model.parameters():
            size = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1  # biases: no unit on its kink
            parameter.add_(torch.randn_like(parameter), alpha=0.5 * size)
    return model, x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def pushed(residual, v):
    return torch.func.jvp(residual.branch, (residual.input,), (v,))[1]


# model: a module that is one block, and the norm that is its outer operation
WHOLE = {
    "resnet18": ("layer1.0", "relu"),
    "resnet50": ("layer2.1", "relu"),
    "mobilenet_v2": ("features.3", None),
    "efficientnet_b0": ("features.2.1", None),
    "convnext, 8 blocks": ("features.1.0", None),
    "regnet_y_400mf": ("trunk_output.block2.block2-1", "relu"),
    "GPT-NeoX, parallel": ("gpt_neox.layers.1", None),
    "GPT-J, parallel": ("transformer.h.1", None),
    "Phi, parallel": ("model.layers.1", None),
    "Falcon, parallel": ("transformer.h.1", None),
    "Cohere, parallel": ("model.layers.1", None),
    "Mamba": ("backbone.layers.1", None),
    "Mamba-2": ("backbone.layers.1", None),
    "ConvNeXt V2": ("convnextv2.encoder.stages.0.layers.1", None),
    "BERT": ("bert.encoder.layer.1.attention", "bert.encoder.layer.1.attention.output.LayerNorm"),
    "BERT with a mask": ("bert.encoder.layer.1.attention", "bert.encoder.layer.1.attention.output.LayerNorm"),
    "DeBERTa": ("encoder.layer.1.attention", "encoder.layer.1.attention.output.LayerNorm"),
    "FNet": ("encoder.layer.1.fourier", "encoder.layer.1.fourier.output.LayerNorm"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_branch_has_the_derivative_of_its_module_less_its_skip(name):
    model, x = in_double(name)
    module, outer = WHOLE[name]
    block = Hooked(model, x, module)
    (residual,) = [
        r for r in ra.trace(model, x).residuals if r.name.partition("#")[0].removesuffix(".output") == module
    ]
    step, tolerance = accuracy(name)
    assert_close(residual.input, block.input, rtol=1e-5, atol=1e-5)
    v = torch.randn_like(block.input)
    skip = v
    if outer == "relu":
        skip = v * (block(block.input) > 0)
    elif outer is not None:
        norm = Hooked(model, x, outer)
        skip = quotient(norm, norm.input, v, step)
    branch = quotient(block, block.input, v, step) - skip
    assert branch.norm() > 0.01 * v.norm()
    assert_close(pushed(residual, v), branch, rtol=0, atol=tolerance * float(branch.abs().max()))


# model: a module of two sums, which its two blocks compose to
PAIRS = {
    "vit, 3 layers": "encoder.layers.encoder_layer_1",
    "swin, 4 blocks": "features.1.1",
    "swin_v2, 4 blocks": "features.1.1",
    "GPT-2": "transformer.h.1",
    "Llama": "model.layers.1",
    "Gemma 2": "model.layers.1",
    "Mixtral, experts": "model.layers.1",
    "Qwen2-MoE, experts": "model.layers.1",
    "DeepSeek-V3, experts": "model.layers.1",
    "Swin": "swin.encoder.layers.0.blocks.1",
    "SegFormer": "segformer.stages.0.blocks.1",
    "T5, encoder and decoder": "encoder.block.1",
    "Whisper, encoder and decoder": "encoder.layers.1",
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_branches_compose_to_the_derivative_of_their_module(name):
    model, x = in_double(name)
    if isinstance(x, dict):
        x = {key: value.double() if value.is_floating_point() else value for key, value in x.items()}
    step, tolerance = accuracy(name)
    module = Hooked(model, x, PAIRS[name])
    first, second = [
        r for r in ra.trace(model, x).residuals if r.name.startswith((PAIRS[name] + "#", PAIRS[name] + "."))
    ]
    v = torch.randn_like(module.input)
    middle = v.reshape(first.input.shape) + pushed(first, v.reshape(first.input.shape))
    end = middle + pushed(second, middle)
    wanted = quotient(module, module.input, v, step)
    assert_close(end.reshape(wanted.shape), wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))
