"""Sums as networks write them, and what looks like a residual sum and is none: right, or refused with the reason."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from resalign_utils import find_blocks, trace


class Written(nn.Module):
    """A forward given as a function of the module and h, a linear layer of the input."""

    def __init__(self, forward):
        super().__init__()
        self.first, self.a, self.b, self.gate = (nn.Linear(6, 6) for _ in range(4))
        self.written = forward

    def forward(self, x):
        return self.written(self, self.first(x))


def in_place(m, h):
    h += torch.tanh(m.a(h))
    h.add_(torch.tanh(m.b(h)))
    return h


def own_relu_in_place(m, h):
    r = m.a(h)
    r[r < 0] = 0
    return h + m.b(r)


# what is written: (blocks, forward)
FOUND = {
    "in place": (2, in_place),
    "scaled skip": (1, lambda m, h: 0.5 * h + torch.tanh(m.a(h))),
    "skip in addmm": (1, lambda m, h: torch.addmm(h, torch.tanh(m.a(h)), m.b.weight)),
    "skip in lerp": (1, lambda m, h: torch.lerp(h, torch.tanh(m.a(h)), 0.3)),
    "sum of a stack": (1, lambda m, h: torch.stack([h, torch.tanh(m.a(h))]).sum(0)),
    "sum of a list": (1, lambda m, h: sum([h, torch.tanh(m.a(h)), torch.tanh(m.b(h))])),
    "parallel": (1, lambda m, h: torch.tanh(m.a(h)) + (torch.tanh(m.b(h)) + h)),
    "own relu in place": (1, own_relu_in_place),
    "dictionary": (1, lambda m, h: {"y": h + torch.tanh(m.a(h)), "h": h}),
    "subtracted": (1, lambda m, h: torch.tanh(m.a(h)) - h),
}
REFUSED = {
    "highway": ("gate", lambda m, h: (g := torch.sigmoid(m.gate(h))) * torch.tanh(m.a(h)) + (1 - g) * h),
    "gate in lerp": ("gate", lambda m, h: torch.lerp(h, torch.tanh(m.a(h)), torch.sigmoid(m.gate(h)))),
    "concatenation": ("concatenation", lambda m, h: torch.cat([h, torch.tanh(m.a(h))], 1)),
    "linear branch": ("sum", lambda m, h: h + m.a(h)),
    "skip twice": ("sum", lambda m, h: h + h + torch.tanh(m.a(h))),
}


@pytest.mark.parametrize("name", FOUND)
def test_written_sum_is_found_and_replayed(name):
    torch.manual_seed(0)
    blocks, forward = FOUND[name]
    model, x = Written(forward).eval(), torch.randn(4, 6)
    assert len(find_blocks(model, x)) == blocks
    assert len(trace(model, x).residuals) == blocks


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_residual_sum_is_listed_beside(name):
    kind, forward = REFUSED[name]
    table = find_blocks(Written(forward).eval(), torch.randn(4, 6))
    assert len(table) == 0
    assert kind in {other.kind for other in table.others}


def test_gates_of_a_recurrent_layer_are_no_blocks():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.gru = nn.LSTM(6, 6, batch_first=True), nn.GRU(6, 6, batch_first=True)

        def forward(self, x):
            h = x + self.lstm(x)[0]
            return h + self.gru(h)[0]

    model, x = Recurrent().eval(), torch.randn(3, 5, 6)
    assert find_blocks(model, x).names == ["(model)#1", "(model)#2"]
    first, again = (trace(model, x).states for _ in range(2))
    torch.testing.assert_close(first, again)


def test_mask_is_no_state():
    class Masked(Written):
        def forward(self, x, mask):
            h, scores = self.first(x), None
            for layer in (self.a, self.b):
                scores = layer(h) @ h.mT + torch.where(mask[:, None, :] > 0, 0.0, -1e9)
                h = h + scores.softmax(-1) @ h
            return h if bool(mask.all()) else h * mask[..., None]

    mask = torch.tensor([[1] * 5, [1] * 3 + [0] * 2, [1] * 4 + [0]])
    table = find_blocks(Masked(None).eval(), {"x": torch.randn(3, 5, 6), "mask": mask})
    assert (len(table), table[0].in_shape) == (2, (5, 6))


def test_choice_by_values_and_chance_are_refused_in_a_sentence():
    def choice(m, h):
        return h + torch.tanh(m.a(h)) if h.sum() > 0 else h

    with pytest.raises(ValueError, match="chooses what it does by the values of its inputs"):
        trace(Written(choice).eval(), torch.randn(4, 6))
    with pytest.raises(ValueError, match="draws by chance in eval mode too"):
        trace(Written(lambda m, h: h + functional.dropout(torch.tanh(m.a(h)), 0.5)).eval(), torch.randn(4, 6))


@pytest.mark.parametrize("factor", [lambda n: n, lambda n: 1 / n, lambda n: n * n])
def test_number_of_inputs_in_a_branch_is_refused(factor):
    with pytest.raises(ValueError, match=r"the other inputs of the batch|other operations|the number of inputs"):
        trace(Written(lambda m, h: h + factor(len(h)) * torch.tanh(m.a(h))).eval(), torch.randn(4, 6))


def test_model_is_left_as_it_was():
    def counting(m, h):
        m.count += 1
        return h + torch.tanh(m.a(h))

    model, x = Written(counting).eval(), torch.randn(4, 6)
    model.register_buffer("count", torch.zeros(()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_model_that_writes_its_weights_once_is_refused_once():
    def rescaling(m, h):
        if not m.done:
            with torch.no_grad():
                m.a.weight.div_(2)
            m.done = True
        return h + torch.tanh(m.a(h))

    model, x = Written(rescaling).eval(), torch.randn(4, 6)
    model.done, before = False, model.a.weight.detach().clone()
    for look in (find_blocks, trace):
        model.done = False
        with pytest.raises(ValueError, match=r"writes 1 of its parameters in its forward pass, 'a.weight' first"):
            look(model, x)
    assert torch.equal(model.a.weight, before / 4)  # as two calls of the model leave it
    (residual,) = trace(model, x).residuals
    torch.testing.assert_close(residual.branch(residual.input), torch.tanh(model.a(residual.input)))


def two(m, h):
    h = h + torch.tanh(m.a(h))
    return h + torch.tanh(m.b(h))


def test_parts_in_data_parallel_and_compiled_ones_are_looked_into():
    plain, x = Written(two).eval(), torch.randn(4, 6)
    for wrapped in (nn.DataParallel(plain), torch.compile(plain, backend="eager")):
        model = nn.Sequential(wrapped, nn.Linear(6, 3)).eval()
        assert len(find_blocks(model, x)) == 2
        torch.testing.assert_close(trace(model, x).states, trace(plain, x).states)


def test_hook_of_the_user_counts_if_it_changes_what_comes_out():
    model, x, seen = Written(two).eval(), torch.randn(4, 6), []
    model.a.register_forward_hook(lambda module, args, output: 2 * output)
    model.b.register_forward_hook(lambda module, args, output: seen.append(output))
    first, second = trace(model, x).residuals
    h = first.input
    torch.testing.assert_close(first.branch(h), torch.tanh(2 * (h @ model.a.weight.T + model.a.bias)))
    torch.testing.assert_close(second.branch(h), torch.tanh(h @ model.b.weight.T + model.b.bias))
    assert seen
    model.a.register_forward_hook(lambda module, args, output: seen.append(output.sum().item()))
    with pytest.raises(ValueError, match="only prints or stores a number, or a hook does"):
        trace(model, x)


def test_time_to_find_grows_with_the_number_of_operations_alone():
    class Deep(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(depth))

        def forward(self, h):
            for layer in self.layers:
                h = h + torch.tanh(layer(h))
            return h

    def seconds(depth):
        model, start = Deep(depth).eval(), time.process_time()
        assert len(find_blocks(model, torch.randn(4, 6))) == depth
        return time.process_time() - start

    seconds(10)
    few = min(seconds(100) for _ in range(2))
    assert seconds(1000) < 30 * few  # in proportion 10; if each block looked at all operations, 100


def test_additive_u_net_has_its_outer_sum_alone():
    class Additive(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.deep, self.middle = (nn.Conv2d(a, 8, 3, s, 1) for a, s in ((3, 1), (8, 2), (8, 2)))
            self.up, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            a = torch.relu(self.down(x))
            b = torch.relu(self.deep(a))
            c = torch.relu(self.middle(b))
            b = b + torch.relu(self.up(functional.interpolate(c, scale_factor=2)))
            return a + torch.relu(self.out(functional.interpolate(b, scale_factor=2)))

    table = find_blocks(Additive().eval(), torch.randn(2, 3, 16, 16))
    assert table.names == ["(model)#2"]
    assert [other.reason for other in table.others] == ["It lies inside the branch of another residual sum."]


@pytest.mark.parametrize("whole", [True, False])
def test_autocast_of_the_model_itself_is_named(whole):
    def cast(m, h):
        with torch.autocast("cpu", torch.bfloat16):
            return h + torch.tanh(m.a(h)) if whole else h + torch.tanh(m.a(h)).float()

    with pytest.raises(ValueError, match=r"computes in half precision by itself .* by an autocast of its own most"):
        find_blocks(Written(cast).eval(), torch.randn(4, 6))
