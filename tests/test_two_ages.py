"""``experiments.two_ages``: its numbers where they can be said beforehand, and its rows against its settings."""

import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import resalign_utils as ra
from experiments import _two_ages_blocks as blocks
from experiments import two_ages
from experiments.counterfactuals import changed, decay_times

WIDTH = 8


def linear_chain(*matrices):
    """A network of linear blocks without outer activation; inputs are flat, the head reads the state."""
    layers = []
    for matrix in matrices:
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        layer.weight = nn.Parameter(matrix)
        layers.append(ra.ResidualBlock(nn.Sequential(layer), 1.0, post=False))
    return ra.ResNet(nn.Flatten(), layers, nn.Sequential(nn.Linear(WIDTH, 3, bias=False))).eval()


@pytest.fixture
def images():
    """Three classes in directions 0, 1 and 2 of eight."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(6)
    x = 0.05 * torch.randn(len(y), WIDTH, generator=generator) + 2 * torch.eye(WIDTH)[y]
    x = x[:, None, None]
    return replace(ra.load_data("digits"), train_x=x, train_y=y, test_x=x, test_y=y, num_classes=3)


@pytest.mark.parametrize("agree", [2, 4, 5])
def test_a_group_that_agrees_counts_as_its_blocks(agree):
    coupling = torch.eye(5)
    coupling[:agree, :agree] = 1
    assert blocks.taking_part(coupling) == pytest.approx((agree, agree))


def test_an_even_coupling_counts_all_blocks_by_its_size():
    coupling = torch.full((5, 5), 0.3).fill_diagonal_(1)
    assert blocks.taking_part(coupling) == pytest.approx((5, 1 + 4 * 0.3))
    assert blocks.with_others(coupling) == pytest.approx([0.3] * 5)


def test_coupling_of_formed_jacobians_is_the_reports(images):
    generator = torch.Generator().manual_seed(1)
    model = linear_chain(*torch.randn(3, WIDTH, WIDTH, generator=generator) / 4)
    report = ra.measure_alignment(model, images.test_x, k=3)
    formed = blocks.coupling_of(blocks.jacobians(model, images.test_x), k=3)
    torch.testing.assert_close(formed, report.coupling.mean(0), atol=1e-5, rtol=1e-4)


def test_the_moving_frame_finds_blocks_that_only_turn(images):
    """I + J is a rotation times a positive matrix: turned back, all blocks are the same."""
    generator = torch.Generator().manual_seed(2)
    turns = [torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0] for _ in range(3)]
    grown = torch.eye(WIDTH) + torch.diag(torch.tensor([3.0, 2, 1, 0, 0, 0, 0, 0]))
    frames = [torch.eye(WIDTH)]
    for turn in turns:
        frames.append(turn @ frames[-1])
    whole = [after @ grown @ before.T for before, after in pairwise(frames)]
    model = linear_chain(*(matrix - torch.eye(WIDTH) for matrix in whole))
    x = images.test_x
    with torch.no_grad():
        masks = torch.stack([(part.output > 0).float().mean(0) for part in ra.trace(model, x).residuals])
        found = blocks.moving_frames(model, x)
        carried = blocks.jacobians(model, x).mean(0) + torch.diag_embed(masks)
    turned = found[1:].mT @ carried @ found[:-1]
    torch.testing.assert_close(turned, turned.mT, atol=1e-4, rtol=1e-4)
    assert torch.linalg.eigvalsh(turned).min() > -1e-4


def test_a_cut_branch_is_a_block_of_zeros(images):
    generator = torch.Generator().manual_seed(3)
    matrices = torch.randn(3, WIDTH, WIDTH, generator=generator) / 4
    model, without = linear_chain(*matrices), linear_chain(matrices[0], torch.zeros(WIDTH, WIDTH), matrices[2])
    without.head = model.head
    states = images.test_x.flatten(1)
    torch.testing.assert_close(blocks.logits_without(model, states, {1}), without(images.test_x))
    torch.testing.assert_close(blocks.logits_without(model, states, ()), model(images.test_x))


def test_blocks_without_a_branch_to_cut_are_refused(images):
    model = ra.ResNet(nn.Flatten(), [nn.Linear(WIDTH, WIDTH)], nn.Linear(WIDTH, 3))
    with pytest.raises(TypeError, match="got Linear"):
        blocks.logits_without(model, images.test_x.flatten(1), ())


def test_each_criterion_removes_its_own_block_first(images):
    """Of four blocks one turns the classes away, one hardly acts, and two agree."""
    agreed = torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0]))
    idle = torch.zeros(WIDTH, WIDTH)
    idle[6, 3] = 1e-3
    model = linear_chain(agreed, idle, -3 * agreed, agreed)
    with torch.no_grad():
        model.head[0].weight.copy_(torch.eye(WIDTH)[:3])
    found = blocks.pruned(model, images, seed=0)
    assert found["orders"]["least magnitude"][0] == found["orders"]["highest cosine"][0] == 1
    assert found["orders"]["least coupling"][0] == 2  # its coupling with the two that agree is −1
    assert found["orders"]["measured"][0] == 2
    assert found["test"]["measured"][:2] == [0, 1]
    assert set(map(len, found["test"].values())) == {4}


def test_greedy_measures_again_after_each_cut():
    """Of two blocks that raise the class either may be cut, not both: the third, which lowers it, goes first."""
    e = torch.zeros(WIDTH, WIDTH)
    e[0, 0] = 1.0
    model = linear_chain(e, e, -0.1 * e)
    with torch.no_grad():
        model.head[0].weight.copy_(torch.eye(WIDTH)[:3])
    states = torch.zeros(4, WIDTH)
    states[:, 0], states[:, 1] = 1.0, 1.2
    labels = torch.zeros(4, dtype=torch.long)
    assert blocks.greedy(model, states, labels, 2) == [2, 0]
    assert blocks.accuracy_without(model, states, labels, {0, 2}) == 1
    assert blocks.accuracy_without(model, states, labels, {0, 1}) == 0


def test_the_gradient_cannot_vanish_behind_a_batch_norm():
    data = ra.load_data("digits", per_class=10)
    model = ra.build_model(ra.ResNetConfig(3, 16), data)
    assert min(blocks.imbalance(model, data, decay=10.0)["imbalance"]) == pytest.approx(1, abs=1e-2)
    assert min(blocks.imbalance(model, data, decay=1e-3)["imbalance"]) > 1
    assert max(map(abs, blocks.imbalance(model, data, decay=1.0)["balance"])) < 1e-3


def test_the_norm_loses_its_hold_where_the_variance_is_below_epsilon():
    block = ra.build_model(ra.ResNetConfig(1, 4), ra.load_data("digits")).blocks[0]
    first, second = (part for part in block.modules() if isinstance(part, nn.BatchNorm1d))
    first.running_var.fill_(1.0)
    second.running_var.fill_(second.eps / 3)
    assert blocks.hold_of_norm(block) == pytest.approx((1 + 1 / 4) / 2, abs=1e-4)
    assert blocks.hold_of_norm(nn.Linear(2, 2)) is None


def test_the_small_epsilon_is_that_of_the_network_that_is_trained():
    config, data = two_ages.NORM, ra.load_data("digits")
    for epsilon, expected in ((1e-10, 1e-10), (None, 1e-5)):
        norms = [part for part in two_ages._built(config, data, epsilon).modules() if hasattr(part, "eps")]
        assert {part.eps for part in norms} == {expected}
        assert len(norms) == 17


def test_imbalance_is_the_gradient_of_loss_and_decay():
    data = ra.load_data("digits", per_class=10)
    model = ra.build_model(ra.ResNetConfig(2, 16, norm=False), data)
    theta = [p for p in model.blocks[0].parameters() if p.dim() > 1]
    size = sum(p.square().sum() for p in theta)
    loss = nn.functional.cross_entropy(model(data.train_x), data.train_y) + 0.05 / 2 * size
    slopes = torch.autograd.grad(loss, theta)
    along = -sum((g * p).sum() for g, p in zip(slopes, theta, strict=True)) / (0.05 * size)
    expected = (sum(g.square().sum() for g in slopes).sqrt() / (0.05 * size.sqrt())).item()
    assert blocks.imbalance(model, data, decay=0.05)["imbalance"][0] == pytest.approx(expected, rel=1e-3)
    found = blocks.imbalance(model, data, decay=0.05)["balance"][0]
    assert found == pytest.approx(1 + along.item(), rel=1e-3, abs=1e-3)  # the gradient of the decay is decay·θ


def test_every_course_ends_at_the_decay_time_that_is_said():
    for config in (*two_ages.KINDS.values(), two_ages.CONSTANT):
        assert decay_times(config)[-1] == pytest.approx(30.24)
        times = [decay_times(config)[epoch] for epoch in two_ages.epochs_of(config)]
        assert len(times) == 15
        assert max(abs(a - b) for a, b in zip(times, two_ages.TIMES, strict=False)) < 0.1


def test_convolutional_blocks_are_measured_on_the_way():
    data = ra.load_data("digits")
    model = ra.build_model(ra.ResNetConfig(2, 4, kind="conv"), data).eval()
    found = two_ages.on_the_way(model, data.test_x[:2])
    assert [len(found[name]) for name in ("cosine", "magnitude", "step_share", "norm_hold")] == [2] * 4
    assert sum(found["step_share"]) == pytest.approx(1, abs=1e-3)


def test_a_row_is_kept_and_the_larger_settings_run(tmp_path, monkeypatch):
    monkeypatch.setenv("RESALIGN_CACHE", str(tmp_path))
    labels, config = two_ages.paper()[0]
    small = replace(
        changed(config, model={"depth": 2, "width": 16}, train={"epochs": 2}), data=ra.DataConfig("digits", per_class=5)
    )
    row = two_ages.followed(labels, small)
    monkeypatch.setattr(two_ages, "_row", None)  # would fail if it were measured again
    assert two_ages.followed(labels, small) == row
    assert row["highest"] < len(row["alignment"]) == len(row["decay_times"]) == len(row["epochs"])
    assert len(row["end"]["pruned"]["test"]["chance"]) == 2


@pytest.mark.parametrize(("part", "name"), [("networks", "two_ages"), ("convolutional", "two_ages_convolutional")])
def test_recorded_rows_are_what_the_program_lists(part, name):
    settings, frame = getattr(two_ages, part)(), ra.recorded(name)
    assert len(settings) == len(frame)
    for (labels, config), row in zip(settings, frame.to_dict("records"), strict=True):
        assert labels == {key: row[key] for key in labels}
        assert row["config"] == json.loads(json.dumps(asdict(config)))
        assert row["epochs"] == two_ages.epochs_of(config)
