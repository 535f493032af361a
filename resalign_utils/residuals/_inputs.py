"""What a model is called with, a tensor, a tuple, or keyword arguments, and the tensors in what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

ModelInputs = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """n inputs of a model.

    Attributes:
        tensors: those that have a row for each input, (n, ...) each; the first of them holds the data.
        build: from such tensors, of any number of rows, to the model's positional and keyword arguments.
    """

    tensors: tuple[Tensor, ...]
    build: Callable[[Sequence[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def data(self) -> Tensor:
        """The tensor (n, ...) that holds the data: floating point, or else token numbers."""
        return self.tensors[0]

    def call(self, model: nn.Module) -> Any:
        """What the model returns at these inputs; an error of its own says how it was called."""
        args, kwargs = self.build([tensor.clone() for tensor in self.tensors])  # its first layer may work in place
        try:
            return model(*args, **kwargs)
        except Exception as error:
            error.add_note(_called(model, args, kwargs))
            raise

    def arguments(self) -> ModelInputs:
        """The same as a tuple of positional or a dictionary of keyword arguments."""
        args, kwargs = self.build(self.tensors)
        return kwargs or args

    def rows(self, index: Tensor) -> Inputs:
        """The same at the rows ``index`` (r,), repeats allowed."""
        return replace(self, tensors=tuple(tensor[index.to(tensor.device)] for tensor in self.tensors))

    def with_tensors(self, tensors: Sequence[Tensor]) -> Inputs:
        """The same with other tensors (n, ...) in their places."""
        return replace(self, tensors=tuple(tensors))

    def with_data(self, data: Tensor) -> Inputs:
        """The same with other data (n, ...)."""
        return replace(self, tensors=(data, *self.tensors[1:]))


def inputs_of(x: ModelInputs) -> Inputs:
    """Take apart what a model is to be called with.

    Args:
        x: a tensor (n, ...), a tuple or list of positional arguments, or a mapping of keyword arguments. In the last
            two, every tensor whose first side is as long as the data's has a row for each input.

    Raises:
        TypeError: none of these, or no tensor in it.
    """
    if isinstance(x, Tensor):
        return Inputs((x,), lambda tensors: ((tensors[0],), {}))
    if not isinstance(x, tuple | list | Mapping):
        raise TypeError(
            "Expected the inputs as one tensor (n, ...), a tuple of positional arguments, or a dictionary of keyword "
            f"arguments; got {type(x).__name__}."
        )
    plain = dict(x) if isinstance(x, Mapping) else tuple(x)
    leaves, spec = tree_flatten(plain)
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.dim() > 0]
    if not tensors:
        raise TypeError(f"Expected a tensor among the inputs; got a {type(x).__name__} without one.")
    first = min(tensors, key=lambda i: (*_as_data(leaves[i]), i))
    n = len(leaves[first])
    rowwise = [first, *(i for i in tensors if i != first and len(leaves[i]) == n)]

    def build(given: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        filled = list(leaves)
        for i, tensor in zip(rowwise, given, strict=True):
            filled[i] = tensor
        built = tree_unflatten(filled, spec)
        return ((), built) if isinstance(built, dict) else (built, {})

    return Inputs(tuple(leaves[i] for i in rowwise), build)


def _called(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """How the model was called, for whoever reads its error; what a second argument is taken for."""

    def told(value: Any) -> str:
        return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__

    said = [*map(told, args), *(f"{name}={told(value)}" for name, value in kwargs.items())]
    text = f"resalign_utils called {type(model).__name__} with ({', '.join(said)})."
    if len(args) > 1:
        text += (
            " A tuple of inputs is taken for the model's positional arguments: labels are given apart, as "
            "ra.diagnose(model, x, labels=y), and have no place in other measurements."
        )
    return text


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors in what a model returned, through dictionaries, tuples, and the output classes of other libraries."""
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return [tensor for item in items for tensor in tensors_of(item)]


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returned: the field ``logits``, or the first tensor."""
    logits = getattr(output, "logits", None)
    tensors = tensors_of(output if logits is None else logits)
    if not tensors:
        raise TypeError(
            f"Expected a model that returns its logits, a tensor; it returned {type(output).__name__}. Wrap it in a "
            "module whose forward takes the tensor out."
        )
    return tensors[0].detach()


def _as_data(tensor: Tensor) -> tuple[bool, bool, bool]:
    """Sorts what holds data before what only says where it counts: masks are of 0 and 1, and are often integers."""
    mask = tensor.dtype == torch.bool or bool(((tensor == 0) | (tensor == 1)).all())
    return mask, not (tensor.is_floating_point() or tensor.is_complex()), tensor.dim() < 2
