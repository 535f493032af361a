"""Residual Alignment from scratch: train a small residual network, take its Jacobians apart, print what they share.

This is the method of the whole book, to be read from top to bottom. The four statements RA1–RA4 are those of Li &
Papyan (NeurIPS 2023), https://arxiv.org/abs/2401.09018. It needs PyTorch, scikit-learn and half a minute:

    python examples/alignment_from_scratch.py
"""

import copy
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

DEPTH, WIDTH, CLASSES = 16, 64, 10  # L blocks; d units in each state; C

SCORES = {
    "line_shape_score": "RA1: 1 if the states lie on a line, 4 = √L if each step takes a direction of its own",
    "step_cv": "RA1: spread of the step lengths, standard deviation / mean: 0 if they are equal",
    "alignment": "RA2: 1 if the blocks share their leading singular vectors, 0 if they have nothing in common",
    "rank_drop": "RA3: σ₁₁ / σ₁: near 0 if a Jacobian has no more singular values than there are classes",
    "rank_energy": "RA3: share of ‖J‖² in the first ten; weak evidence, for it is large untrained too",
    "depth_slope": "RA4: growth of 1/σ₁ per block: positive if later blocks act less",
    "depth_r2": "RA4: share of 1/σ₁'s variation over depth that a line explains: 1 if it grows evenly",
}


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """8 × 8 images of ten digits, as rows of 64 numbers: training images, test images, and their labels."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images, labels, test_size=360, stratify=labels, random_state=0)
    train_x, test_x, train_y, test_y = map(torch.as_tensor, parts)
    mean, deviation = train_x.mean(), train_x.std()
    return ((train_x - mean) / deviation).float(), ((test_x - mean) / deviation).float(), train_y, test_y


def layer() -> nn.Sequential:
    """A linear layer with batch norm, which takes the place of the bias."""
    linear = nn.Linear(WIDTH, WIDTH, bias=False)
    nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(linear, nn.BatchNorm1d(WIDTH))


class Block(nn.Module):
    """One residual block, h ↦ ReLU(h + F(h)). The branch F is what the block adds to what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(layer(), nn.ReLU(), layer())

    def forward(self, h: Tensor) -> Tensor:
        return F.relu(h + self.branch(h))


class Network(nn.Module):
    """The stem makes the state h₀ of an image, the blocks make h₁ … h_L of it, the head reads the class off h_L."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(), nn.ReLU())
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(trace(self, x)[-1])


def trace(model: Network, x: Tensor) -> list[Tensor]:
    """The states h₀ … h_L of n inputs, each (n, d)."""
    states = [model.stem(x)]
    for block in model.blocks:
        states.append(block(states[-1]))
    return states


def train(model: Network, x: Tensor, y: Tensor, epochs: int) -> None:
    """Plain gradient descent in 12 steps an epoch. The strong weight decay makes low rank; with little, less aligns."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, 12 * epochs, pct_start=0.1, cycle_momentum=False)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).tensor_split(12):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def residual_jacobians(model: Network, states: list[Tensor]) -> Tensor:
    """J_ℓ = diag(ReLU′(h + F(h))) ∂F/∂h at h = h_{ℓ−1}, the block's derivative without the skip: (n, L, d, d)."""
    jacobians = []
    for block, h in zip(model.blocks, states[:-1], strict=True):
        derivative = torch.func.vmap(torch.func.jacrev(block.branch))(h[:, None])[:, 0, :, 0]  # (n, d, d)
        active = h + block.branch(h) > 0  # (n, d): a unit that the outer ReLU switches off has a row of zeros
        jacobians.append(active[:, :, None] * derivative)
    return torch.stack(jacobians, 1)


@torch.no_grad()
def measure(model: Network, x: Tensor, k: int = CLASSES) -> dict[str, float]:
    """RA1–RA4 of the first k singular vectors, averaged over inputs x (n, d); the model must be in eval mode."""
    states = trace(model, x)
    steps = torch.stack(states, 1).diff(dim=1)  # (n, L, d)
    lengths = steps.norm(dim=2)
    line_shape = DEPTH / (steps / lengths[:, :, None]).sum(1).norm(dim=1)  # number of steps / ‖sum of unit steps‖
    spread = lengths.std(1, correction=0) / lengths.mean(1)

    jacobians = residual_jacobians(model, states)
    u, s, vt = torch.linalg.svd(jacobians)  # (n, L, d, d), (n, L, d), (n, L, d, d)
    real = (s[..., None, :k] > 1e-4 * s[..., None, :1]).to(s)  # the vectors of a vanishing singular value are noise
    u, v = u[..., :k] * real, vt.mT[..., :k] * real
    seen = torch.einsum("njdk,nide,njek->nij", u, jacobians, v)  # tr(U_jᵀ J_i V_j): J_i in the frames of block j
    coupling = seen / s[..., :k].sum(2)[:, :, None]  # over the trace in its own frames: at most 1
    alignment = coupling[:, ~torch.eye(DEPTH, dtype=torch.bool)]

    drop = s[..., CLASSES] / s[..., 0]  # σ_{C+1} / σ₁
    energy = s[..., :CLASSES].square().sum(2) / s.square().sum(2)

    depth = torch.arange(DEPTH).to(s) - (DEPTH - 1) / 2  # ℓ, and 1/σ₁ below, each around its mean
    inverse = 1 / s[..., 0] - (1 / s[..., 0]).mean(1, keepdim=True)  # (n, L)
    slope = inverse @ depth / depth.square().sum()  # least squares
    unexplained = (inverse - slope[:, None] * depth).square().sum(1) / inverse.square().sum(1)

    scores = (line_shape, spread, alignment, drop, energy, slope, 1 - unexplained)
    return {name: float(score.mean()) for name, score in zip(SCORES, scores, strict=True)}


def main(epochs: int = 200) -> None:
    """Measure one network before and after training."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads that share matrices of 64 × 64 mostly wait for each other
    train_x, test_x, train_y, test_y = digits()
    model = Network()
    update_bn([train_x], model)  # so that the untrained network too can be measured in eval mode
    untrained = measure(copy.deepcopy(model).eval().double(), test_x[:100].double())
    train(model, train_x, train_y, epochs)
    correct = model.eval()(test_x).argmax(1) == test_y
    trained = measure(model.double(), test_x[:100].double())
    print(f"{DEPTH} blocks, trained for {epochs} epochs; test accuracy {correct.double().mean():.3f}\n")
    print(f"{'score':18}{'untrained':>11}{'trained':>9}")
    for name, meaning in SCORES.items():
        print(f"{name:18}{untrained[name]:>11.4f}{trained[name]:>9.4f}  {meaning}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
