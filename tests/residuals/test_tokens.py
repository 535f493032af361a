"""Jacobians token by token are blocks of those of whole sequences, by torch's own derivative."""

import pytest
import torch
from contracts import randomised
from torch import nn
from torch.testing import assert_close

from resalign_utils import find_blocks, measure_alignment, residual_jacobians, trace
from resalign_utils.residuals import at_tokens
from resalign_utils.residuals._tokens import LoneTokenBranch


class Encoder(nn.Module):
    """Token numbers (n, T) through a transformer, to states (n, T, D)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.body(self.embed(x))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return randomised(Encoder()), torch.randint(0, 11, (3, 5))


def test_token_jacobian_is_the_diagonal_block_of_the_whole_one(encoder):
    model, x = encoder
    path = trace(model, x)
    tokens, positions = at_tokens(path, [0, -1])
    assert positions.tolist() == [0, 4] * 3
    for whole, single in zip(path.residuals, tokens.residuals, strict=True):
        jacobian = residual_jacobians(whole).reshape(3, 5, 8, 5, 8)
        expected = torch.stack([jacobian[i, t, :, t] for i in range(3) for t in (0, 4)])
        assert_close(residual_jacobians(single), expected, rtol=1e-10, atol=1e-12)


def test_whole_jacobian_of_a_found_block_is_that_of_its_module(encoder):
    model, x = encoder
    path = trace(model, x)
    layer, h = model.body.layers[0], path.states[0][:1]
    assert [r.name for r in path.residuals][:2] == ["body.layers.0#1", "body.layers.0#2"]

    def attention(h):
        return layer._sa_block(layer.norm1(h), None, None)

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.autograd.functional.jacobian(attention, h)
    assert_close(residual_jacobians(path.residuals[0])[0], expected.reshape(40, 40), rtol=1e-10, atol=1e-12)


def test_report_has_a_row_a_token_and_no_scores_of_classes(encoder):
    model, x = encoder
    report = measure_alignment(model, x, tokens=[1, 3], k=4)
    assert (report.coupling.shape, report.tokens, report.num_classes) == ((6, 4, 4), (1, 3) * 3, None)
    assert report.rank_energy.isnan().all()
    assert "there is no number of classes" in report.missing["rank_drop"]
    frame = report.to_frame()
    assert frame[["input", "token"]].drop_duplicates().to_numpy().tolist() == [[i, t] for i in range(3) for t in (1, 3)]


def test_auto_takes_the_last_token_of_text(encoder):
    model, x = encoder
    assert set(measure_alignment(model, x, tokens="auto").tokens) == {4}


@pytest.mark.parametrize(
    ("tokens", "text"), [([5], r"must lie in -5..4, for 5 tokens; got \[5\]"), ("first", "got 'first'")]
)
def test_tokens_that_are_not_there_are_refused(encoder, tokens, text):
    with pytest.raises(ValueError, match=text):
        measure_alignment(*encoder, tokens=tokens)


def test_tokens_of_images_are_refused(small):
    with pytest.raises(ValueError, match=r"Tokens need states \(n, T, D\) of one length T; got"):
        measure_alignment(*small, tokens="last")


def test_misalignment_ignores_signs_that_the_ordered_coupling_counts():
    class Turned(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.f = nn.Linear(4, 4, bias=False)
            self.f.weight.data = sign * torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))

        def forward(self, h):
            return h + torch.tanh(self.f(h) * 1e-3)

    model, x = nn.Sequential(Turned(1.0), Turned(-1.0)).double().eval(), torch.rand(2, 4, dtype=torch.float64)
    report = measure_alignment(model, x, k=3)
    assert_close(report.misalignment[:, 0, 1], torch.zeros(2, dtype=torch.float64), atol=1e-4, rtol=0)
    assert_close(report.coupling_ordered[:, 0, 1], -torch.ones(2, dtype=torch.float64), atol=1e-4, rtol=0)


def test_whole_layer_is_its_two_sums_composed(encoder):
    model, x = encoder
    path = trace(model, x, whole=True)
    assert [r.name for r in path.residuals] == ["body.layers.0", "body.layers.1"]
    layer, h = model.body.layers[1], path.states[1][:1]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = torch.autograd.functional.jacobian(layer, h).reshape(40, 40) - torch.eye(40, dtype=torch.float64)
    assert_close(residual_jacobians(path.residuals[1])[0], expected, rtol=1e-10, atol=1e-12)
    assert_close(path.residuals[1].branch(path.states[1]), path.states[2] - path.states[1])


def test_post_norm_layer_is_not_composed():
    torch.manual_seed(0)
    model = randomised(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2))
    table = find_blocks(model, torch.randn(2, 5, 8, dtype=torch.float64), whole=True)
    assert [(b.name, b.outer) for b in table] == [(f"layers.{i}#{j}", "layer_norm") for i in range(2) for j in (1, 2)]


def test_residual_part_is_the_total_jacobian_less_what_the_shortcut_carries():
    """J_σ(z) ∂F = ∂(σ(h + F(h))) − J_σ(z), the outer layer norm at the point; by torch's own derivatives."""
    torch.manual_seed(0)
    model = randomised(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1))
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    path, layer = trace(model, x), model.layers[0]
    h = path.states[1]

    def block(h):
        return layer.norm2(h + layer._ff_block(h))

    total = torch.autograd.functional.jacobian(block, h).reshape(40, 40)
    outer = torch.autograd.functional.jacobian(layer.norm2, h + layer._ff_block(h)).reshape(40, 40)
    assert_close(residual_jacobians(path.residuals[1])[0], total - outer, rtol=1e-10, atol=1e-12)
    less_identity = total - torch.eye(40, dtype=torch.float64)
    assert float((less_identity - (total - outer)).norm()) > 0.1  # block(h) − h is another thing


class Mixing(nn.Module):
    """Acts on each token alone but for a share of something else."""

    def __init__(self, extra):
        super().__init__()
        self.f, self.extra = nn.Linear(4, 4), extra

    def forward(self, h):
        return h + torch.tanh(self.f(h)) + 1e-6 * self.extra(h)


@pytest.mark.parametrize(
    ("extra", "packed"),
    [
        (torch.sin, True),
        (lambda h: h.mean(1, keepdim=True).cos(), False),
        (lambda h: torch.arange(h.shape[1])[:, None] * h.cos(), False),
        (lambda h: h.flip(1).cos(), False),
    ],
    ids=["alone", "mean over tokens", "place", "mirror"],
)
def test_only_branches_that_act_on_each_token_alone_are_packed(extra, packed):
    torch.manual_seed(0)
    model, x = nn.Sequential(Mixing(extra), Mixing(extra)).eval(), torch.randn(2, 7, 4)
    path = trace(model, x)
    tokens, positions = at_tokens(path, [0, 3, 5])
    for whole, single in zip(path.residuals, tokens.residuals, strict=True):
        assert isinstance(single.branch, LoneTokenBranch) is packed
        jacobian = residual_jacobians(whole).reshape(2, 7, 4, 7, 4)
        expected = torch.stack([jacobian[i, t, :, t] for i in range(2) for t in (0, 3, 5)])
        assert_close(residual_jacobians(single), expected)
        some = torch.tensor([4, 0, 4])
        assert_close(residual_jacobians(single.rows(some)), expected[some])
    assert positions.tolist() == [0, 3, 5] * 2
