"""What is refused before a model is run: layers that mix the batch or draw by chance, weights without values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models import ResidualBlock
from ._inputs import Inputs

HALF = (torch.float16, torch.bfloat16)

_STOCHASTIC_OR_BATCHED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)
_RANDOM_DEPTH = ("StochasticDepth", "DropPath")  # torchvision's and timm's, known by name: neither is imported here
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of DataParallel, DistributedDataParallel and ``torch.compile``, however they are nested."""
    while True:
        if isinstance(model, _WRAPPERS):
            model = model.module
        elif isinstance(original := getattr(model, "_orig_mod", None), nn.Module):
            model = original
        else:
            return model


def check_eval_mode(model: nn.Module) -> None:
    """Refuse a model with a layer that depends on the batch or on chance.

    Raises:
        ValueError: a batch norm or dropout layer is in train mode, or a batch norm has no running statistics; the text
            names it.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise ValueError(
                f"Layer '{name}' ({type(module).__name__}) has no running statistics: in eval mode too, its output for "
                "one input depends on the other inputs. Build it with track_running_stats=True and train it so."
            )
        random_depth = type(module).__name__ in _RANDOM_DEPTH or (isinstance(module, ResidualBlock) and module.drop > 0)
        if module.training and (isinstance(module, _STOCHASTIC_OR_BATCHED) or random_depth):
            raise ValueError(
                f"Layer '{name}' ({type(module).__name__}) is in train mode, where its output depends on the batch or "
                "on chance. Call model.eval() before measuring."
            )


def check_inputs(model: nn.Module, inputs: Inputs) -> None:
    """Refuse what cannot be measured at all; see :func:`trace`."""
    check_eval_mode(model)
    _check_kinds(model)
    x = inputs.data
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"Expected a batch of at least one input (n, ...); got shape {tuple(x.shape)}.")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        _check_weight(name, tensor, x)
    if x.dtype in HALF:
        raise ValueError(f"The inputs are {x.dtype}, too coarse for a derivative. Convert them: x = x.float().")
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x.flatten(1))).any(1).sum())
        raise ValueError(f"{bad} of {len(x)} inputs hold NaN or infinite values. Remove them before measuring.")


def check_state(name: str, state: Tensor, n: int) -> None:
    """Refuse the state that a block is given or gives, if it is not a row of full precision for each input."""
    if state.dtype in HALF:
        raise ValueError(
            f"The state at block '{name}' is {state.dtype} although the weights are not: the model computes in half "
            "precision by itself, with an autocast of its own. Take that out before measuring."
        )
    if state.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"The state at block '{name}' is {state.dtype}. Expected float32 or float64.")
    if state.dim() == 0 or len(state) != n:
        raise ValueError(
            f"Block '{name}' has a state of shape {tuple(state.shape)} for {n} inputs. Expected (n, ...): put the "
            "batch first (batch_first=True), or register the block around the part that folds it."
        )


def _check_kinds(model: nn.Module) -> None:
    for name, module in model.named_modules():
        kind = type(module)
        if any(base.__name__ in _SHARDED for base in kind.__mro__):
            raise ValueError(
                f"'{name}' ({kind.__name__}) is sharded: no process holds all its weights. Load into a plain model "
                "what torch.distributed.checkpoint.state_dict.get_model_state_dict returns with full_state_dict=True."
            )
        # FloatFunctional, which lives there too, is in floating point
        if "quantized" in kind.__module__.split(".") and "Float" not in kind.__name__:
            raise ValueError(
                f"Layer '{name}' ({kind.__module__}.{kind.__name__}) is quantised and has no derivative. Measure the "
                "model in floating point that it was made from."
            )
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise ValueError(
                f"Part '{name}' of the model is spread over devices by DataParallel. Put its .module in its place."
            )


def _check_weight(name: str, tensor: Tensor, x: Tensor) -> None:
    _check_storage(name, tensor)
    if tensor.device != x.device:
        fix = (
            "It has a shape and no values: load the weights first, with model.to_empty(device=...) and load_state_dict."
            if tensor.is_meta
            else "Move one: model.to(x.device)."
        )
        raise ValueError(f"'{name}' is on {tensor.device}, the inputs are on {x.device}. {fix}")
    if tensor.dtype in HALF:
        raise ValueError(
            f"'{name}' is {tensor.dtype}, too coarse for a derivative. Convert a copy: "
            "model = copy.deepcopy(model).float(); x = x.float()."
        )
    # integer inputs are token numbers, which the model embeds in its own dtype
    if tensor.is_floating_point() and x.is_floating_point() and tensor.dtype != x.dtype:
        raise ValueError(f"'{name}' has dtype {tensor.dtype}, the inputs {x.dtype}. Convert one: x.to({tensor.dtype}).")
    # an infinite buffer may be meant, as in the mask of an attention layer
    if not torch.isfinite(tensor).all() and (isinstance(tensor, nn.Parameter) or tensor.isnan().any()):
        raise ValueError(f"'{name}' holds NaN or infinite weights. The training diverged or the file is damaged.")


def _check_storage(name: str, tensor: Any) -> None:
    if hasattr(tensor, "full_tensor"):  # a DTensor
        raise ValueError(f"'{name}' is sharded over processes. Gather the weights into a plain model first.")
    narrow = isinstance(tensor, nn.Parameter) and tensor.element_size() == 1 and tensor.dtype != torch.bool
    if tensor.is_quantized or narrow:
        raise ValueError(
            f"'{name}' is {tensor.dtype}: quantised weights have no derivative. Measure the model in floating point "
            "that it was made from."
        )
    if tensor.is_inference():
        raise ValueError(
            f"'{name}' was made under torch.inference_mode, which bars it from derivatives. Build or load the model "
            "outside of it."
        )
    if tensor.layout != torch.strided:
        raise ValueError(f"'{name}' is stored as {tensor.layout}. Make it dense first: tensor.to_dense().")
