"""Transformers do what their configuration says, and their sums and blocks have the right Jacobians."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from resalign_utils import (
    DataConfig,
    ImageData,
    ResidualBlock,
    RunConfig,
    TrainConfig,
    TransformerConfig,
    build_model,
    find_blocks,
    load_or_train,
    measure_alignment,
    residual_jacobians,
    trace,
    whole_blocks,
)

F64 = torch.float64


@pytest.fixture(scope="module")
def images():
    """Images (2, 4, 6) of three classes: six patches of side 2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, 2, 4, 6, generator=generator)
    y = torch.arange(24) % 3
    x[torch.arange(24), 0, 0, y] += 2
    return ImageData.from_tensors(x[:15], y[:15], x[15:], y[15:], name="patches", normalize=False)


def model_of(images, **choice):
    """In float64, and every vector, which begins as a constant, at random."""
    config = TransformerConfig(**({"depth": 2, "width": 8, "patch": 2, "heads": 2} | choice))
    model = build_model(config, images).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=F64) / 4)
    return model


def norm_by_hand(layer, h):
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def attention_by_hand(attention, h):
    """Head by head: softmax(q kᵀ / √size) v."""
    width, heads = h.shape[-1], attention.heads
    q, k, v = (h @ w.T + b for w, b in zip(attention.enter.weight.chunk(3), attention.enter.bias.chunk(3), strict=True))
    size, out = width // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        out.append(weights @ v[..., part])
    return torch.cat(out, -1) @ attention.leave.weight.T + attention.leave.bias


def mlp_by_hand(first, second, h):
    z = h @ first.weight.T + first.bias
    return z * (1 + torch.erf(z / math.sqrt(2))) / 2 @ second.weight.T + second.bias


def parts_of(block, norm):
    """Layer norms, attention and MLP of a block, wherever its order puts them."""
    if norm == "pre":
        return block.attention.branch[0], block.attention.branch[1], block.mlp.branch[0], block.mlp.branch[1::2]
    return block.attention.outer, block.attention.branch[0], block.mlp.outer, block.mlp.branch[::2]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("skip", [True, False, 0.5, (0.0, 1.25)])
def test_forward_equals_the_formula_written_by_hand(images, norm, skip):
    model = model_of(images, norm=norm, skip=skip)
    x = images.test_x.double()
    patches = [x[:, :, i : i + 2, j : j + 2].flatten(1) for i in (0, 2) for j in (0, 2, 4)]
    h = torch.stack(patches, 1) @ model.stem.embed.weight.T + model.stem.embed.bias + model.stem.position
    factors = {True: (1, 1), False: (0, 0), 0.5: (0.5, 0.5)}.get(skip, skip)
    for block, factor in zip(model.blocks, factors, strict=True):
        first, attention, second, mlp = parts_of(block, norm)
        if norm == "pre":
            h = factor * h + attention_by_hand(attention, norm_by_hand(first, h))
            h = factor * h + mlp_by_hand(*mlp, norm_by_hand(second, h))
        else:
            h = norm_by_hand(first, factor * h + attention_by_hand(attention, h))
            h = norm_by_hand(second, factor * h + mlp_by_hand(*mlp, h))
    h = norm_by_hand(model.head[0], h) if norm == "pre" else h
    logits = h.mean(1) @ model.head[-1].weight.T + model.head[-1].bias
    assert_close(model(x), logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("skip", [True, 1.25, False])
def test_residual_jacobians_of_both_sums_are_the_exact_ones(images, norm, skip):
    model = model_of(images, norm=norm, skip=skip)
    x = images.test_x[:2].double()
    path = trace(model, x)
    assert [r.name for r in path.residuals] == [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention", "mlp")]
    for residual in path.residuals:
        block = model.get_submodule(residual.name)
        exact = [_exact(block, h, float(skip), norm) for h in residual.input]
        formed = residual_jacobians(residual).reshape(2, 48, 48)
        assert_close(formed, torch.stack(exact), rtol=1e-8, atol=1e-9)


def _exact(block, h, factor, norm):
    """D(whole block) less what the skip alone carries, σ'(z)·λ, by automatic differentiation of the forward pass."""
    whole = torch.autograd.functional.jacobian(lambda h: block(h[None])[0], h).reshape(48, 48)
    if norm == "pre":
        return whole - factor * torch.eye(48, dtype=F64)
    z = factor * h + block.branch(h[None])[0]
    outer = torch.autograd.functional.jacobian(lambda z: norm_by_hand(block.outer, z), z).reshape(48, 48)
    return whole - factor * outer


def test_skip_factor_scales_the_skip_alone(images):
    one, other = (model_of(images, skip=skip).blocks[0].mlp for skip in (1.0, 1.25))
    h = torch.randn(3, 6, 8, dtype=F64, generator=torch.Generator().manual_seed(2))
    assert_close(one(h) - h, other(h) - 1.25 * h, rtol=1e-12, atol=1e-12)


class Plain(nn.Module):
    """The same network without registered types: its sums have to be found."""

    def __init__(self, model):
        super().__init__()
        self.stem, self.head = model.stem, model.head
        self.layers = nn.ModuleList(PlainLayer(block) for block in model.blocks)

    def forward(self, x):
        h = self.stem(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h)


class PlainLayer(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.attention, self.mlp = block.attention.branch, block.mlp.branch

    def forward(self, h):
        h = h + self.attention(h)
        return h + self.mlp(h)


def test_whole_blocks_are_those_that_the_finder_composes(images):
    model = model_of(images)
    x = images.test_x.double()
    found = measure_alignment(Plain(model).eval(), x, whole=True)
    mine = measure_alignment(whole_blocks(model), x)
    assert found.block_names == ("layers.0", "layers.1")
    assert mine.block_names == ("blocks.0", "blocks.1")
    assert_close(mine.singular_values, found.singular_values, rtol=1e-6, atol=1e-9)
    assert_close(mine.coupling, found.coupling, rtol=1e-5, atol=1e-6)
    assert_close(whole_blocks(model)(x), model(x), rtol=1e-10, atol=1e-10)


def test_whole_blocks_with_another_factor_leave_out_its_square(images):
    model = model_of(images, skip=1.25)
    block = whole_blocks(model).blocks[0]
    h = torch.randn(3, 6, 8, dtype=F64, generator=torch.Generator().manual_seed(2))
    inner = model.blocks[0]
    first = inner.attention.branch(h)
    assert_close(block.branch(h), 1.25 * first + inner.mlp.branch(1.25 * h + first), rtol=1e-10, atol=1e-10)
    assert block.skip == 1.25**2


def test_whole_blocks_are_refused_where_a_norm_comes_after_a_sum(images):
    with pytest.raises(ValueError, match="Expected blocks of a transformer with norm='pre'; got TransformerBlock"):
        whole_blocks(model_of(images, norm="post"))


def test_blocks_are_listed_as_registered(images):
    table = find_blocks(model_of(images, norm="post"), images.test_x[:2].double())
    assert [row.outer for row in table] == ["LayerNorm"] * 4
    assert isinstance(model_of(images).blocks[0].mlp, ResidualBlock)


def test_weights_have_xaviers_variance_and_the_seed_decides_them(digits):
    config = TransformerConfig(2, 64, 4)
    one, same, other = (build_model(config, digits, seed=seed) for seed in (0, 0, 1))
    enter = one.blocks[0].attention.branch[1].enter
    assert float(enter.weight.detach().var()) == pytest.approx(2 / (64 + 192), rel=0.05)
    assert (enter.bias == 0).all()
    assert float(one.stem.position.detach().std()) == pytest.approx(1 / 8, rel=0.15)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
        assert weight.dim() < 2 or not torch.equal(weight, other.state_dict()[name])


def test_a_run_is_kept_under_a_key_of_its_own(images, tmp_path):
    config = RunConfig(
        DataConfig("digits", per_class=3), TransformerConfig(1, 8, 4, 2), TrainConfig(2, optimizer="adamw")
    )
    run = load_or_train(config, root=tmp_path)
    again = load_or_train(config, root=tmp_path)
    assert run.folder.name.startswith("digits-transformer1-")
    assert_close(again.model(run.data.test_x[:3]), run.model(run.data.test_x[:3]), rtol=0, atol=0)
    assert replace(config, model=replace(config.model, norm="post")).key != config.key
    assert len(trace(run.untrained, run.data.test_x[:2]).residuals) == 2


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"norm": "batch"}, "norm must be one of 'pre', 'post'; got 'batch'"),
        ({"kind": "fc"}, "kind must be one of 'transformer'; got 'fc'"),
        ({"depth": 0}, "depth must be a whole number of at least 1; got 0"),
        ({"patch": 1.5}, "patch must be a whole number of at least 1; got 1.5"),
        ({"mlp_ratio": True}, "mlp_ratio must be a whole number of at least 1; got True"),
        ({"heads": 3}, "width must be a multiple of heads=3; got 8"),
        ({"skip": (1.0,)}, "skip has 1 factors; depth=3 needs as many"),
        ({"skip": float("nan")}, "skip must be True, False or finite factors; got nan"),
    ],
)
def test_value_out_of_range_is_refused_with_what_is_allowed(choice, text):
    with pytest.raises(ValueError, match=text):
        TransformerConfig(**({"depth": 3, "width": 8, "patch": 2} | choice))


def test_patches_that_do_not_fill_the_image_are_refused(images):
    with pytest.raises(ValueError, match="patch must divide both sides of the image, 4 and 6; got 4"):
        build_model(TransformerConfig(1, 8, 4), images)
