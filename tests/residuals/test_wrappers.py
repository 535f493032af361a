"""Models that something is wrapped around: what is inside is traced."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resalign_utils import ResNetConfig, build_model, trace
from resalign_utils.models import ResNet


@pytest.fixture
def plain(small):
    model, x = small
    return model, x, trace(model, x)


def same(path, other):
    assert_close([*path.states, path.logits], [*other.states, other.logits], rtol=0, atol=0)
    for a, b in zip(path.residuals, other.residuals, strict=True):
        h = a.input.clone().requires_grad_()
        assert_close(a.branch(h), b.branch(b.input), rtol=0, atol=0)
        a.branch(h).sum().backward()
        assert h.grad.abs().max() > 0
    return [residual.name for residual in path.residuals]


@pytest.fixture
def one_process():
    distributed = torch.distributed
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_data_parallel_models_are_unwrapped(plain):
    model, x, path = plain
    for wrapped in (nn.DataParallel(model), nn.parallel.DistributedDataParallel(model)):
        assert same(trace(wrapped, x), path) == ["blocks.0", "blocks.1", "blocks.2"]


def compiled(module):
    """As ``torch.compile`` does it, and never to be run: the trace runs the module itself."""

    def refuse(graph, inputs):
        raise AssertionError("compiled")

    return torch.compile(module, backend=refuse)


def test_compiled_models_are_unwrapped(plain):
    model, x, path = plain
    assert same(trace(compiled(model), x), path) == ["blocks.0", "blocks.1", "blocks.2"]
    assert same(trace(compiled(nn.DataParallel(model)), x), path) == ["blocks.0", "blocks.1", "blocks.2"]
    model.compile(backend="eager")
    assert same(trace(model, x), path) == ["blocks.0", "blocks.1", "blocks.2"]


def test_compiled_blocks_are_found(plain):
    model, x, path = plain
    mixed = ResNet(model.stem, [compiled(model.blocks[0]), model.blocks[1], model.blocks[2]], model.head)
    assert same(trace(mixed, x), path) == ["blocks.0._orig_mod", "blocks.1", "blocks.2"]


def test_blocks_compiled_in_place_and_compiled_parts_of_blocks_are_found(plain):
    model, x, path = plain
    model.blocks[0].compile(backend="eager")
    with torch.no_grad():
        model(x)  # compiled before there were hooks
    model.blocks[1].branch.compile(backend="eager")
    model.blocks[2].branch = compiled(model.blocks[2].branch)
    assert same(trace(model, x), path) == ["blocks.0", "blocks.1", "blocks.2"]
    torch._dynamo.reset()


def test_part_that_is_spread_over_devices_is_refused(blobs):
    model = build_model(ResNetConfig(2, 8), blobs).eval()
    model.stem = nn.DataParallel(model.stem)
    assert len(trace(model, blobs.test_x).residuals) == 2
    model.stem.device_ids = [0, 1]
    with pytest.raises(
        ValueError, match=r"Part 'stem' of the model is spread over devices by DataParallel. Put its .m"
    ):
        trace(model, blobs.test_x)
