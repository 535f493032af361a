"""A monitor follows the full measure, and leaves the training bit for bit as it was."""

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import resalign_utils as ra
from resalign_utils.diagnosis import _monitor
from resalign_utils.diagnosis._untouched import untouched


class Noisy(nn.Module):
    """A block with batch norm and dropout."""

    def __init__(self, width):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.3))
        self.out = nn.Linear(width, width)

    def forward(self, h):
        return h + self.out(self.f(h))


@ra.residual_branch.register
def _(block: Noisy):
    return lambda h: block.out(block.f(h))


class Net(nn.Module):
    def __init__(self, width=12, blocks=3):
        super().__init__()
        self.stem = nn.Linear(6, width)
        self.blocks = nn.Sequential(*[Noisy(width) for _ in range(blocks)])
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


def built(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def images(n, seed=0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def trained(model, monitored, *, steps=12, forward=None, **how):
    """Losses of a training of AdamW, its end state, and the monitor."""
    forward = model if forward is None else forward
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        monitor = ra.AlignmentMonitor(forward, images(5, seed=9), **how) if monitored else None
        losses = []
        for _ in range(steps):
            x, y = torch.randn(16, 6), torch.randint(0, 3, (16,))
            loss = F.cross_entropy(forward(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if monitor is not None:
                monitor.step()
        end = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        gradients = [p.grad.clone() for p in model.parameters()]
        moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
        return (losses, end, gradients, moments, torch.get_rng_state()), monitor


def assert_same_bits(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    for one, other in zip([*a[1].values(), *a[2], *a[3], a[4]], [*b[1].values(), *b[2], *b[3], b[4]], strict=True):
        assert torch.equal(one, other)


def test_training_is_the_same_bit_for_bit():
    alone, _ = trained(built(), False)
    model = built()
    modes, wanted = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    watched, monitor = trained(model, True, every=2, refresh=3)
    assert_same_bits(watched, alone)
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert [m.step for m in monitor.history] == [2, 4, 6, 8, 10, 12]
    assert [m.fresh for m in monitor.history] == [True, False, False, True, False, False]


def test_one_measurement_between_forward_and_backward_changes_nothing():
    def gradients(measure):
        model = built().train()
        model.blocks[1].eval()  # a part that is frozen stays so
        model.stem.weight.requires_grad_(False)
        monitor = ra.AlignmentMonitor(model, images(4))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            loss = F.cross_entropy(model(images(16)), torch.arange(16) % 3)
            if measure:
                monitor.measure()
                monitor.measure()
            loss.backward()
        assert [block.training for block in model.blocks] == [True, False, True]
        assert model.stem.weight.grad is None
        assert not model.stem.weight.requires_grad
        return [p.grad for p in model.parameters() if p.grad is not None]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(one, other)


def test_random_generators_and_buffers_are_put_back_after_an_error():
    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))
            self.register_buffer("replaced", torch.zeros(2))

    model = Remembers().train()
    before, seen = torch.get_rng_state(), model.seen

    def fail():
        with untouched(model):
            assert not model.training
            assert not torch.is_grad_enabled()
            torch.rand(3)
            model.seen += 1
            model.replaced = torch.ones(2)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert model.seen is seen
    assert torch.equal(model.seen, torch.zeros(2))
    assert torch.equal(model.replaced, torch.zeros(2))
    assert torch.is_grad_enabled()


def test_python_and_numpy_draw_what_they_would_have():
    state, array = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    trained(built(), True, every=3)
    assert random.getstate() == state
    assert (np.random.get_state()[1] == array).all()  # noqa: NPY002


def test_full_measures_are_those_of_measure_alignment(digits):
    x, _ = digits.sample(per_class=1)
    model = ra.build_model(ra.ResNetConfig(depth=4, width=32), digits, seed=0)
    ra.train(model, digits, ra.TrainConfig(epochs=10, lr=0.5))
    monitor = ra.AlignmentMonitor(model, x, rank=3)
    monitor.measure()
    (found,) = monitor.history
    report = ra.measure_alignment(model, x, k=3)
    torch.testing.assert_close(found.coupling, report.coupling.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.singular_values, report.singular_values[..., :3].mean(0), atol=1e-4, rtol=1e-4)
    summary = report.summary()
    for name in ("alignment", "line_shape_score", "step_cv"):
        assert getattr(found, name) == pytest.approx(summary[name], abs=1e-4)
    states = ra.trace(model, x).states
    steps = [(b - a).double() for a, b in pairwise(states)]
    torch.testing.assert_close(found.step_lengths, torch.stack([s.norm(dim=1).mean() for s in steps]).float())
    cosines = [F.cosine_similarity(a, b) for a, b in pairwise(steps)]
    angles = torch.stack([torch.rad2deg(torch.arccos(c)).mean() for c in cosines]).float()
    torch.testing.assert_close(found.step_angles, angles, atol=1e-3, rtol=1e-4)
    assert found.block_names == report.block_names
    assert (found.residuals < 1e-3).all()


@pytest.mark.parametrize(("config", "epochs", "every"), [
    (ra.ResNetConfig(depth=6, width=32), 40, 7),
    (ra.ResNetConfig(depth=3, width=4, kind="conv"), 8, 2),
])  # fmt: skip
def test_warm_alignment_stays_within_two_hundredths_of_the_full_one(digits, config, epochs, every):
    x, _ = digits.sample(per_class=1)
    x, reports = x[:6], []
    model = ra.build_model(config, digits, seed=0)
    monitor = ra.AlignmentMonitor(model, x, every=every, refresh=1000)
    full = ra.Monitor("full", lambda model, _: reports.append(ra.measure_alignment(model, x, k=4)), every)
    ra.train(model, digits, ra.TrainConfig(epochs=epochs, lr=0.5), monitors=[monitor, full])
    assert len(monitor.history) == len(reports) >= 5
    assert [m.fresh for m in monitor.history] == [True] + [False] * (len(reports) - 1)
    for warm, report in zip(monitor.history, reports, strict=True):
        assert abs(warm.alignment - float(report.alignment.mean())) < 0.02
    spread = [float(report.alignment.mean()) for report in reports]
    assert max(spread) - min(spread) > 0.02  # what is followed moves


def test_a_wrong_subspace_is_left_and_its_drift_is_shown():
    """A network whose leading directions are exchanged at once for others, orthogonal to all that is followed."""
    layer = nn.Linear(16, 16, bias=False)
    blocks = [ra.ResidualBlock(layer, skip=1.0, post=False) for _ in range(2)]
    model = ra.ResNet(nn.Identity(), blocks, nn.Linear(16, 2)).eval()
    strong = torch.tensor([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.5] + [0.01] * 8)
    with torch.no_grad():
        layer.weight.copy_(torch.diag(strong))
    monitor = ra.AlignmentMonitor(model, images(2, seed=1).repeat(1, 3)[:, :16], rank=2, refresh=4)
    monitor.measure()
    with torch.no_grad():
        layer.weight.copy_(torch.diag(strong.flip(0)))
    for _ in range(4):
        monitor.measure()
    first, *warm, last = monitor.history
    truth = torch.tensor([[8.0, 7.0]] * 2)
    torch.testing.assert_close(first.singular_values, truth)
    errors = [float((m.singular_values - truth).abs().max()) for m in warm]
    assert errors[0] > 0.1  # one random vector a time finds them, but not at once
    assert warm[0].residuals.max() > 0.01
    assert errors[-1] < 0.01
    assert last.fresh
    torch.testing.assert_close(last.singular_values, truth, atol=1e-3, rtol=1e-3)
    assert last.drift.singular_values.abs().max() < 0.01
    assert all(m.drift is None for m in (first, *warm))


def test_drift_is_warm_minus_full_at_the_same_weights():
    model = built()
    monitor = ra.AlignmentMonitor(model, images(5), refresh=1)
    monitor.measure()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    monitor.measure()
    drift = monitor.history[1].drift
    follower = ra.AlignmentMonitor(built(), images(5), refresh=2)
    follower.measure()
    with torch.no_grad():
        for parameter in follower._model.parameters():
            parameter.mul_(1.5)
    follower.measure()
    warm, full = follower.history[1], monitor.history[1]
    assert not warm.fresh
    assert full.fresh
    assert drift.alignment == pytest.approx(warm.alignment - full.alignment, abs=1e-6)
    torch.testing.assert_close(drift.coupling, warm.coupling - full.coupling, atol=1e-6, rtol=1e-4)
    top = full.singular_values[:, :1]
    torch.testing.assert_close(
        drift.singular_values, (warm.singular_values - full.singular_values) / top, atol=1e-6, rtol=1e-3
    )
    assert drift.singular_values.abs().max() > 0


def test_inside_of_autocast_it_measures_in_full_precision():
    outside, inside = (ra.AlignmentMonitor(built(), images(5)) for _ in range(2))
    for _ in range(2):
        outside.measure()
        with torch.autocast("cpu", torch.bfloat16):
            inside.measure()
            assert torch.is_autocast_enabled("cpu")
    for a, b in zip(outside.history, inside.history, strict=True):
        assert a.row() == pytest.approx(b.row(), nan_ok=True, rel=1e-12)


def test_a_compiled_model_trains_on_as_before():
    def run(monitored):
        torch._dynamo.reset()
        model = built()
        with torch._dynamo.config.patch(error_on_recompile=True):
            return trained(model, monitored, steps=4, forward=torch.compile(model, backend="eager"), every=1, refresh=2)

    alone, _ = run(False)
    watched, monitor = run(True)
    assert_same_bits(watched, alone)
    assert len(monitor.history) == 4


@pytest.fixture
def gloo(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_training_is_measured_on_rank_0_alone(gloo, monkeypatch):
    def run(monitored):
        model = built()
        return trained(model, monitored, forward=nn.parallel.DistributedDataParallel(model), every=4)

    alone, _ = run(False)
    watched, monitor = run(True)
    assert_same_bits(watched, alone)
    assert [m.step for m in monitor.history] == [4, 8, 12]
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    elsewhere = ra.AlignmentMonitor(built(), images(5), every=1)
    assert elsewhere.step() is None
    assert elsewhere.history == []
    assert elsewhere.steps == 1


def test_by_default_it_keeps_to_its_share_of_the_time(monkeypatch):
    now, costs = [0.0], iter([2.0, 0.26, 0.31, 0.5])
    monkeypatch.setattr(_monitor.time, "perf_counter", lambda: now[0])
    monitor = ra.AlignmentMonitor(built(), images(5))
    measured = monitor._measured

    def slow(*args):
        found = measured(*args)
        now[0] += (cost := next(costs))
        return type(found)(**vars(found) | {"seconds": cost})

    monkeypatch.setattr(monitor, "_measured", slow)
    taken = []
    for step in range(1, 30):
        now[0] += 1.0
        if monitor.step() is not None:
            taken.append(step)
    assert taken == [1, 2, 13, 26]  # the first is not counted; 0.26 s / 0.025 = 10.4 s, 0.31 s / 0.025 = 12.4 s


def test_train_takes_it_as_a_monitor(digits):
    model = ra.build_model(ra.ResNetConfig(depth=2, width=16), digits, seed=0)
    monitor = ra.AlignmentMonitor(model, digits.test_x[:4], every=2)
    history = ra.train(model, digits, ra.TrainConfig(epochs=3), monitors=[monitor])
    kept = history.monitors["alignment"]
    assert [epoch for epoch, _ in kept] == [m.step for m in monitor.history] == [0, 2, 3]
    assert [value for _, value in kept] == [m.scalars() for m in monitor.history]
    other = ra.build_model(ra.ResNetConfig(depth=2, width=16), digits, seed=1)
    with pytest.raises(ValueError, match="Expected the model that this monitor was made for"):
        ra.train(other, digits, ra.TrainConfig(epochs=1), monitors=[monitor])


def test_rows_and_scalars():
    monitor = ra.AlignmentMonitor(built(), images(5), rank=2, refresh=2, every=1, first_step=7)
    assert monitor.scalars() == {}
    assert len(monitor.to_frame()) == 0
    scalars = [monitor.step() for _ in range(3)]
    assert scalars[-1] == monitor.scalars() == monitor.history[-1].scalars()
    assert all(isinstance(value, float) and np.isfinite(value) for value in scalars[-1].values())
    assert scalars[-1]["alignment/sigma_1/blocks.2"] == float(monitor.history[-1].singular_values[2, 0])
    assert "alignment/drift_alignment" in scalars[2]
    assert "alignment/drift_alignment" not in scalars[1]
    assert "run/alignment" in monitor.scalars("run/")
    frame = monitor.to_frame()
    assert list(frame.step) == [8, 9, 10]
    assert list(frame.fresh) == [True, False, True]
    assert list(frame.drift_sigma.isna()) == [True, True, False]
    assert {"alignment", "line_shape_score", "step_cv", "step_angle", "sigma_1", "sigma_2", "seconds"} <= set(frame)


@pytest.mark.parametrize(("how", "text"), [
    ({"rank": 13}, r"rank must lie in 1\.\.12, what the smallest block has; got 13"),
    ({"rank": 0}, "rank must be a whole number of at least 1; got 0"),
    ({"every": 0}, "every must be a whole number of at least 1; got 0"),
    ({"refresh": 1.5}, "refresh must be a whole number of at least 1; got 1.5"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused_at_once(how, text):
    with pytest.raises(ValueError, match=text):
        ra.AlignmentMonitor(built(), images(5), **how)


def test_weights_that_became_nan_are_refused():
    model = built()
    monitor = ra.AlignmentMonitor(model, images(5))
    monitor.measure()
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="holds NaN or infinite weights"):
        monitor.measure()
    assert model.training


class Masked(nn.Module):
    """Sums that nobody registered, called by keywords."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, 3)

    def forward(self, values, mask):
        for layer in self.layers:
            values = values + torch.tanh(layer(values)) * mask
        return self.head(values)


def test_blocks_that_are_found_are_followed_by_keywords():
    torch.manual_seed(0)
    model, x = Masked(), {"values": torch.randn(6, 8), "mask": (torch.rand(6, 8) < 0.8).float()}
    y, optimiser = torch.arange(6) % 3, torch.optim.SGD(model.parameters(), lr=0.3)
    monitor = ra.AlignmentMonitor(model, x, every=5, rank=3, refresh=100)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(model(**x), y).backward()
        optimiser.step()
        monitor.step()
    last = monitor.measure()
    full = ra.measure_alignment(model.eval(), x, k=3).summary()
    assert abs(last["alignment/alignment"] - full["alignment"]) < 0.02
    assert len(monitor.history) >= 8
