"""The same architecture at initialisation: what a measurement gives where nothing was learned."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..residuals import Inputs

POWER_STEPS = 30
_APART = 0x7215  # from the seeds that people use
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def untrained_twin(
    model: nn.Module, inputs: Inputs, factory: Callable[[], nn.Module] | None = None, seed: int = 0
) -> tuple[nn.Module, str]:
    """A network of the same architecture with weights drawn anew, in eval mode, and a sentence that says how.

    Args:
        model: the trained network; it is left as it is.
        inputs: at which the statistics of its batch norms are set, as they are in the first step of a training.
        factory: makes the network anew. If not given, ``reset_parameters`` of every module is called; a model of
            Hugging Face's transformers is made from its configuration; and parameters that no module can reset (class
            tokens, position embeddings, layer scales) keep their entries, shuffled, which has their size and none of
            their structure.
        seed: of the draws; the global generators are left as they were.

    Raises:
        TypeError: the factory makes something else than a module.
        ValueError: the factory's network has other parameters than the model.
    """
    device = inputs.data.device
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        # torch.manual_seed reseeds all GPUs
        # of its own: a model made under the same seed would be its own twin
        (torch.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(seed + _APART)
        twin, how = _made(model, factory) if factory is not None else _reset(model, seed)
    twin = twin.to(device=device, dtype=next(model.parameters()).dtype)
    if _set_statistics(twin, inputs):
        how += " Its batch norms have the statistics of these inputs."
    return twin.eval(), how


def _made(model: nn.Module, factory: Callable[[], nn.Module]) -> tuple[nn.Module, str]:
    twin = factory()
    if not isinstance(twin, nn.Module):
        raise TypeError(f"null must make a module; it made {type(twin).__name__}.")
    mine, other = ({name: tuple(p.shape) for name, p in m.named_parameters()} for m in (model, twin))
    if mine != other:
        raise ValueError(
            f"The network that null makes has other parameters than the model ({len(other)} and {len(mine)}, or of "
            "other shapes). Build it with the same arguments."
        )
    return twin, "The null is a network that the given function made."


def _reset(model: nn.Module, seed: int) -> tuple[nn.Module, str]:
    config = getattr(model, "config", None)
    if config is not None and hasattr(model, "_init_weights"):  # a model of transformers
        return type(model)(copy.deepcopy(config)), "The null is a network made anew from the model's configuration."
    twin = copy.deepcopy(model)
    covered = set[int]()
    for module in twin.modules():
        if parametrize.is_parametrized(module):
            covered |= _redrawn(module)
            continue
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            covered |= {id(p) for p in module.parameters(recurse=False)}
            # multi-head attention also resets the weights of a layer inside
            covered |= {id(p) for p in module.parameters()} if isinstance(module, nn.MultiheadAttention) else set()
    rest = [(name, p) for name, p in twin.named_parameters() if id(p) not in covered]
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in rest:
        _shuffle(parameter, generator)
    how = "The null is the same network with all weights drawn anew by reset_parameters."
    if rest:
        kinds = sorted({name.rpartition(".")[2] for name, _ in rest})
        how = (
            "The null is the same network with its weights drawn anew by reset_parameters; "
            f"{len(rest)} parameter{'s' * (len(rest) > 1)} that no module can reset "
            f"({', '.join(kinds[:5])}{', …' * (len(kinds) > 5)}) "
            f"{'have their' if len(rest) > 1 else 'has its'} entries shuffled. "
            "Give null=a function that makes the network for an exact one."
        )
    return twin, how


@torch.no_grad()
def _redrawn(module: nn.Module) -> set[int]:
    """Draw the weights of a module with parametrizations anew, spectral or weight norm for instance.

    Returns:
        The ids of its parameters; none if it cannot be reset.
    """
    names = list(module.parametrizations)  # type: ignore[arg-type]
    # not by remove_parametrizations, which changes the class that the model shares with its copy
    base: type[nn.Module] = type(module).__bases__[0]
    plain = base.__new__(base)
    plain.__dict__.update(module.__dict__)
    own = [*(name for name, _ in module.named_parameters(recurse=False)), *names]
    plain._parameters = {name: nn.Parameter(getattr(module, name).detach().clone()) for name in own}
    plain._modules = {}
    reset = getattr(plain, "reset_parameters", None)
    if not callable(reset):
        return set()
    reset()
    for name, parameter in module.named_parameters(recurse=False):
        parameter.copy_(getattr(plain, name))
    module.train()
    for name in names:
        setattr(module, name, getattr(plain, name).detach())
        for _ in range(POWER_STEPS):  # spectral norm follows its singular vectors a step at each use in train mode
            getattr(module, name)
    module.eval()
    return {id(parameter) for parameter in module.parameters()}


@torch.no_grad()
def _shuffle(parameter: Tensor, generator: torch.Generator) -> None:
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


@torch.no_grad()
def _set_statistics(twin: nn.Module, inputs: Inputs) -> bool:
    """Set the running statistics of batch norms to those of the inputs; False if there are none."""
    norms = [m for m in twin.modules() if isinstance(m, _BATCH_NORM) and m.running_mean is not None]
    if not norms:
        return False
    twin.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, of which there is one
        norm.train()
    try:
        inputs.call(twin)
    except ValueError:  # one value a channel has no variance: the statistics stay those of a new layer
        for norm in norms:
            norm.reset_running_stats()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return True
