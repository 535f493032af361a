"""Sums as networks write them, and what looks like a residual sum and is none: right, or refused with the reason."""

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
