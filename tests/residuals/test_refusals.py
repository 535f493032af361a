"""What a trace refuses, each with its text; and that it leaves a model as it was."""

import math

import pytest
import torch
from contracts import randomised
from torch import nn
from torch.testing import assert_close
from torchvision.models import quantization
from torchvision.ops import StochasticDepth

from resalign_utils import ResidualBlock, ResNetConfig, build_model, residual_branch, trace
from resalign_utils.models import ResNet


class Sum(nn.Module):
    """h + f(h)."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, h):
        return h + self.f(h)


@residual_branch.register
def _(block: Sum):
    return block.f


def test_network_that_adds_nowhere_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({"a": nn.ReLU()})["a"])
    text = r"No residual block found in Sequential: it has no additive stream, or it adds inside of kernels that cannot"
    with pytest.raises(ValueError, match=text):
        trace(model, torch.ones(1, 3))


def test_unknown_block_is_refused_with_how_to_register_it():
    with pytest.raises(TypeError, match=r"Linear is not registered as a residual block. Register .*'Your own model'"):
        residual_branch(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(8),
        nn.Dropout(0.1),
        nn.AlphaDropout(0.1),
        nn.RReLU(),
        StochasticDepth(0.1, "row"),
        ResidualBlock(nn.Identity(), 1.0, False, drop=0.1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_in_train_mode_is_refused_with_its_name(blobs, layer):
    model = build_model(ResNetConfig(2, 8, norm=False), blobs)
    model.stem.append(layer)
    text = rf"Layer 'stem.3' \({type(layer).__name__}\) is in train mode, .* Call model.eval\(\) before measuring"
    with pytest.raises(ValueError, match=text):
        trace(model, blobs.test_x)
    trace(model.eval(), blobs.test_x)


def test_train_mode_without_such_layers_is_no_matter(blobs):
    model = build_model(ResNetConfig(2, 8, norm=False), blobs)
    assert_close(trace(model.train(), blobs.test_x).states, trace(model.eval(), blobs.test_x).states)


@pytest.mark.parametrize("shape", [(0, 1, 2, 3), (6,)])
def test_empty_batch_is_refused(blobs, shape):
    with pytest.raises(ValueError, match=r"Expected a batch of at least one input \(n, ...\); got shape \("):
        trace(build_model(ResNetConfig(2, 8), blobs).eval(), torch.zeros(shape))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_or_infinite_inputs_are_refused_and_counted(small, bad):
    model, x = small
    x = x.clone()
    x[3], x[7, 0, 1, 2] = bad, bad
    with pytest.raises(ValueError, match=r"2 of 20 inputs hold NaN or infinite values. Remove them"):
        trace(model, x)


@pytest.mark.parametrize("name", ["blocks.1.branch.0.weight", "blocks.2.branch.1.running_mean"])
def test_nan_weights_and_statistics_are_refused_with_their_name(small, name):
    model, x = small
    model.state_dict()[name].view(-1)[2] = math.nan
    with pytest.raises(ValueError, match=rf"'{name}' holds NaN or infinite weights"):
        trace(model, x)


def test_overflow_is_refused_with_the_block_it_begins_in():
    torch.manual_seed(1)
    branches = [nn.Linear(3, 3) for _ in range(3)]
    nn.init.constant_(branches[1].weight, 3e38)
    model = ResNet(nn.Identity(), [ResidualBlock(branch, 1.0, post=False) for branch in branches], nn.Linear(3, 2))
    text = r"output of block 2 \('blocks.1'\) is NaN or infinite although inputs and weights are finite.*float64"
    with pytest.raises(ValueError, match=text):
        trace(model, torch.ones(2, 3))
    trace(model.double(), torch.ones(2, 3, dtype=torch.float64))


def test_mixed_dtypes_are_refused_with_the_fix(small):
    model, x = small
    with pytest.raises(ValueError, match=r"'stem.1.weight' has dtype torch.float64, the inputs torch.float32.*x.to\("):
        trace(model, x.float())


def test_mixed_devices_are_refused_with_the_fix(small):
    model, x = small
    text = r"'stem.1.weight' is on cpu, the inputs are on meta. Move one: model.to\(x.device\)"
    with pytest.raises(ValueError, match=text):
        trace(model, x.to("meta"))


def test_weights_without_values_are_refused(small):
    model, x = small
    model.blocks[1].to("meta")
    text = (
        r"'blocks.1.branch.0.weight' is on meta, the inputs are on cpu. It has a shape and no values: load the weights"
    )
    with pytest.raises(ValueError, match=text):
        trace(model, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_with_the_line_that_converts(small, dtype):
    model, x = small
    text = rf"'stem.1.weight' is {dtype}, too coarse .*: model = copy.deepcopy\(model\).float\(\); x = x.float\(\)"
    for inputs in (x, x.to(dtype)):
        with pytest.raises(ValueError, match=text):
            trace(model.to(dtype), inputs)
    with pytest.raises(ValueError, match=rf"The inputs are {dtype}, too coarse .* Convert them: x = x.float\(\)"):
        trace(nn.Flatten(), x.to(dtype))


def test_model_that_computes_in_half_precision_by_itself_is_refused(blobs):
    class Own(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.model(x)

    model = Own(build_model(ResNetConfig(2, 8, norm=False, activation="pre"), blobs))
    with pytest.raises(
        ValueError, match=r"state at block 'model.blocks.0' is torch.bfloat16 .* an autocast of its own"
    ):
        trace(model, blobs.test_x)


def test_state_of_whole_numbers_is_refused():
    model = nn.Sequential(Sum(nn.Identity()))
    with pytest.raises(ValueError, match=r"The state at block '0' is torch.int64. Expected float32 or float64"):
        trace(model, torch.ones(2, 3, dtype=torch.int64))


def test_states_without_a_row_for_each_input_are_refused():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Sum(nn.Linear(3, 3))

        def forward(self, x):
            return self.block(x.transpose(0, 1))

    text = r"Block 'block' has a state of shape \(5, 2, 3\) for 2 inputs. Expected \(n, ...\): put the batch first"
    with pytest.raises(ValueError, match=text):
        trace(SequenceFirst(), torch.ones(2, 5, 3))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_batch_norm_without_running_statistics_is_refused_anywhere(blobs, norm, training):
    model = build_model(ResNetConfig(2, 8, norm=False), blobs).train(training)
    model.head.append(norm(3, track_running_stats=False).train(training))
    text = (
        rf"Layer 'head.\d' \({norm.__name__}\) has no running statistics: in eval mode too, its output .* other inputs"
    )
    with pytest.raises(ValueError, match=text):
        trace(model, blobs.test_x)


def test_instance_norm_is_no_matter(pictures):
    model = build_model(ResNetConfig(2, 2, "conv", norm=False), pictures).eval()
    model.stem.append(nn.InstanceNorm2d(2))
    assert len(trace(model, pictures.test_x).residuals) == 2


class Always(nn.Module):
    """Dropout that no mode turns off."""

    def forward(self, h):
        return nn.functional.dropout(h, 0.5)


def test_dropout_that_is_always_on_is_refused_with_the_block_it_is_in(small):
    model, x = small
    text = r"Two evaluations of ResNet at the same inputs differ; the first to differ is {}. .*training=self.training"
    model.head.insert(0, Always())
    with pytest.raises(ValueError, match=text.format("a layer outside of its residual blocks")):
        trace(model, x)
    del model.head[0]
    model.blocks[1].branch.append(Always())
    with pytest.raises(ValueError, match=text.format(r"Block 'blocks.1' \(ResidualBlock\)")):
        trace(model, x)


@pytest.mark.parametrize("kind", ["FullyShardedDataParallel", "FSDPModule"])
def test_sharded_model_is_refused(kind):
    sharded = type("FSDPLinear", (type(kind, (), {}), nn.Linear), {})
    with pytest.raises(ValueError, match=r"'1' \(FSDPLinear\) is sharded: no process holds .*get_model_state_dict"):
        trace(nn.Sequential(Sum(nn.Linear(3, 3)), sharded(3, 3)), torch.ones(1, 3))


def test_sharded_weight_is_refused():
    class Sharded(nn.Parameter):
        def full_tensor(self):
            return self

    model = Sum(nn.Linear(3, 3))
    model.f.weight = Sharded(torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"'f.weight' is sharded over processes. Gather the weights"):
        trace(model, torch.ones(1, 3))


def test_quantised_layer_is_refused():
    layer = type("Linear", (nn.Linear,), {"__module__": "torch.ao.nn.quantized.modules.linear"})(3, 3)
    text = r"Layer 'f' \(torch.ao.nn.quantized.modules.linear.Linear\) is quantised and has no derivative. Measure the"
    with pytest.raises(ValueError, match=text):
        trace(Sum(layer), torch.ones(1, 3))


def test_model_that_is_prepared_for_quantisation_is_no_matter():
    model = randomised(quantization.resnet18(quantize=False, num_classes=3))
    assert len(trace(model, torch.ones(1, 3, 32, 32, dtype=torch.float64)).residuals) == 8


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(dtype):
    model = Sum(nn.Linear(3, 3))
    model.f.weight = nn.Parameter(torch.ones(3, 3).to(dtype), requires_grad=False)
    with pytest.raises(ValueError, match=rf"'f.weight' is {dtype}: quantised weights have no derivative. Measure the"):
        trace(model, torch.ones(1, 3))


def test_sparse_weights_are_refused():
    model = Sum(nn.Linear(3, 3))
    model.f.weight = nn.Parameter(torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match=r"'f.weight' is stored as torch.sparse_coo. Make it dense first"):
        trace(model, torch.ones(1, 3))


def test_weights_of_inference_mode_are_refused():
    with torch.inference_mode():
        model = Sum(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"'f.weight' was made under torch.inference_mode, .* Build or load the model"):
        trace(model, torch.ones(1, 3))


@pytest.mark.parametrize("x", ["text", 3, {"pixel_values": 3}, {"mask": None}, ()])
def test_inputs_without_a_tensor_are_refused(small, x):
    with pytest.raises(TypeError, match=r"Expected (the inputs as one tensor \(n, ...\), a tuple|a tensor among the)"):
        trace(small[0], x)


class Answer(nn.Module):
    """A model that returns what it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.block, self.answer = Sum(nn.Linear(3, 3)), answer

    def forward(self, x):
        return self.answer(self.block(x))


class Output(dict):
    logits = property(lambda self: self["logits"])


def test_labels_in_the_place_of_an_argument_are_explained_beside_the_models_own_error(small):
    model, x = small
    with pytest.raises(TypeError, match="positional argument") as caught:
        trace(model, (x, torch.zeros(len(x), dtype=torch.long)))
    (note,) = caught.value.__notes__
    assert note.startswith(
        f"resalign_utils called ResNet with ({tuple(x.shape)} torch.float64, ({len(x)},) torch.int64)."
    )
    assert "labels are given apart, as ra.diagnose(model, x, labels=y)" in note


def test_a_models_own_error_says_how_it_was_called(small):
    model, x = small
    with pytest.raises(RuntimeError) as caught:
        trace(model, x[:, :, :, :1].contiguous())
    (note,) = caught.value.__notes__
    assert note == f"resalign_utils called ResNet with ({tuple(x[:, :, :, :1].shape)} torch.float64)."


@pytest.mark.parametrize(
    "answer", [lambda y: (y, None), lambda y: [y], lambda y: Output(logits=y), lambda y: {"out": y}]
)
def test_logits_are_taken_out_of_what_the_model_returns(answer):
    model, x = Answer(answer), torch.randn(2, 3)
    assert_close(trace(model, x).logits, model.block(x).detach())


def test_model_that_returns_no_logits_is_refused():
    with pytest.raises(
        TypeError, match=r"Expected a model that returns its logits, a tensor; it returned str. Wrap it"
    ):
        trace(Answer(lambda y: "yes"), torch.ones(1, 3))


# The model is left as it was


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_hooks_are_removed_after_a_trace_and_after_a_failed_one(small):
    model, x = small
    trace(model, x)
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        trace(model, x[..., :2])
    assert hooks(model) == 0


class Counting(nn.Module):
    """Writes its buffers when it is run: one in place, one anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("last", torch.zeros(2, 3))

    def forward(self, h):
        self.calls += 1
        self.last = h.detach()
        return h


def test_modes_gradients_buffers_and_hooks_stay_as_they_were():
    model = nn.Sequential(Counting(), Sum(nn.Linear(3, 3)), Sum(nn.Linear(3, 3)))
    model[1].eval()
    model[2].f.weight.requires_grad_(False)
    seen = model[1].register_forward_hook(lambda *_: None)
    x = torch.randn(2, 3)
    before = [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]
    values, last = {k: v.clone() for k, v in model.state_dict().items()}, model[0].last
    trace(model, x)
    assert ([module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]) == before
    assert_close(dict(model.state_dict()), values, rtol=0, atol=0)
    assert model[0].last is last
    assert [p.grad for p in model.parameters()] == [None] * 4
    assert list(model[1]._forward_hooks) == [seen.id]


def test_inputs_stay_as_they_were():
    model, x = nn.Sequential(nn.ReLU(inplace=True), Sum(nn.Linear(3, 3))), torch.randn(4, 3)
    before = x.clone()
    assert_close(trace(model, x).states[0], before.relu())
    assert torch.equal(x, before)


def test_a_trace_inside_of_autocast_or_inference_mode_is_the_same(small):
    model, x = small[0].float(), small[1].float()
    expected = trace(model, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = trace(model, x)
    with torch.inference_mode():
        inference = trace(model, x + 0)
    for path in (cast, inference):
        assert_close([*path.states, path.logits], [*expected.states, expected.logits], rtol=0, atol=0)
        for residual, other in zip(path.residuals, expected.residuals, strict=True):
            h = residual.input.requires_grad_()
            (residual.branch(h).sum()).backward()
            assert_close(residual.branch(h), other.branch(h), rtol=0, atol=0)
            assert h.grad is not None
