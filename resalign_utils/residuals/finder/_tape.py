"""What a network computes, written down while it computes: every operation of torch, in order, with its module.

Operations are seen below autograd and after functionalisation: nothing in them works in place, and attention, linear
layers, and their like have come apart into a few hundred kinds of operation.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from .._inputs import tensors_of

aten = torch.ops.aten

# ``first + product(a, b)``: the operators, and those of their products
_ADDS_A_PRODUCT = {
    aten.addmm.default: aten.mm.default,
    aten.baddbmm.default: aten.bmm.default,
    aten.addmv.default: aten.mv.default,
    aten.addcmul.default: aten.mul.Tensor,
    aten.addcdiv.default: aten.div.Tensor,
}
_CHANGES_NO_NUMBER = (aten.as_strided_.default, aten.transpose_.default)


@dataclass(frozen=True)
class Ref:
    """A value that an operation before has given, by its number."""

    number: int


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        op: the operator.
        args: its arguments; ``Ref`` for values, tensors for constants (weights, buffers), and what is no tensor.
        kwargs: likewise.
        outputs: numbers of the values that it gives, None where it gives no tensor.
        several: whether it returns a tuple.
        module: name of the module in whose forward it was called, "" for the model itself.
        call: which call of that module it was, from 1.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int | None, ...]
    several: bool
    module: str
    call: int


@dataclass
class Tape:
    """All operations of one evaluation.

    Attributes:
        inputs: numbers of the values that were given.
        operations: in order.
        shapes: of each value.
        dtypes: of each value.
        ends: for each call of a module, by its name and number, how many operations were done at its end.
        outputs: numbers of the values that came out, as ``tensors_of`` finds them; None for a constant.
        writes: whether an operation in place was met, whose other readers are not followed.
    """

    inputs: list[int] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    outputs: list[int | None] = field(default_factory=list)
    writes: bool = False


class _Weights(nn.Module):
    """A model in an evaluation of it, so that its weights can be given."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._call = model, call

    def forward(self, *tensors: Tensor) -> Any:
        return self._call(*tensors)


def record(model: nn.Module, call: Callable[..., Any], tensors: list[Tensor]) -> Tape:
    """Write down ``call(*tensors)``, which evaluates the model.

    Raises:
        ValueError: the model cannot be followed; the text begins with a verb.
    """
    try:
        tape = _recorded(model, call, tensors, functional=True)
        return _with_weights_given(model, call, tensors, tape) if tape.writes else tape
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a custom autograd.Function cannot be functionalised: its operations are seen as well
        try:
            return _recorded(model, call, tensors, functional=False)
        except torch.OutOfMemoryError:
            raise
        except Exception as plain:
            why = next(iter(str(plain).strip().splitlines()), "")
            raise ValueError(f"cannot be followed operation by operation ({type(plain).__name__}: {why})") from plain


def _with_weights_given(model: nn.Module, call: Callable[..., Any], tensors: list[Tensor], tape: Tape) -> Tape:
    """Another tape, for which the weights are functionalised too: what is written on copies of them is followed then.

    The given one where that cannot be, or does not help: some models ask what kind of tensor a weight is.
    """
    given = _Weights(model, call)
    weights = dict(given.named_parameters()) | dict(given.named_buffers())

    def evaluate(*args: Tensor) -> Any:
        values = dict(zip(weights, args[len(tensors) :], strict=True))
        return torch.func.functional_call(given, values, args[: len(tensors)])

    try:
        other = _recorded(model, evaluate, tensors, functional=True, constants=list(weights.values()))
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return tape
    return tape if other.writes else other


def _without_writing(op: Any) -> Any:
    """The operator that gives what an operator in place writes: ``add`` for ``add_``.

    Inside of recurrent layers, and of a custom autograd.Function, some are left. That nothing else reads what they
    write is shown by the output of the whole list.
    """
    if not op._schema.is_mutable:
        return op
    if op is aten.transpose_.default:
        return aten.transpose.int
    writes = [argument.alias_info is not None and argument.alias_info.is_write for argument in op._schema.arguments]
    name = op._schema.name.partition("::")[2]
    packet = getattr(aten, name.removesuffix("_"), None)
    own = name.endswith("_") and writes[0] and not any(writes[1:])
    if not own or packet is None or op._overloadname not in packet.overloads():
        raise RuntimeError(f"{op} writes on its arguments")
    return getattr(packet, op._overloadname)


def _recorded(
    model: nn.Module,
    call: Callable[..., Any],
    tensors: list[Tensor],
    *,
    functional: bool,
    constants: Sequence[Tensor] = (),
) -> Tape:
    tape, numbers = Tape(), WeakTensorKeyDictionary()
    where = _Where(tape)
    mode = _Recorder(tape, numbers, where, functional)
    given = [tensor.clone() for tensor in tensors]
    out: list[Tensor] = []

    def evaluate(*args: Tensor) -> list[Tensor]:
        if not functional:
            mode.name(args)
        return tensors_of(call(*args))

    with where.of(model), torch.no_grad():
        if functional:
            # functionalize gives the mode its own copies: an alias names them before the model runs
            def named(*args: Tensor) -> list[Tensor]:
                mode.awaiting = len(given)
                return evaluate(*(torch.ops.aten.alias(arg) for arg in args[: len(given)]), *args[len(given) :])

            with mode:
                out = torch.func.functionalize(named, remove="mutations")(*given, *constants)
        else:
            with mode:
                out = evaluate(*given)
    tape.outputs = [numbers.get(value) for value in out]
    return tape


class _Where:
    """In whose forward the evaluation is."""

    def __init__(self, tape: Tape) -> None:
        self.stack: list[tuple[str, int]] = [("", 1)]
        self._tape = tape
        self._calls: Counter[str] = Counter()

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        handles = []
        try:
            for name, module in model.named_modules():
                if name:
                    handles.append(module.register_forward_pre_hook(self._enter(name)))
                    handles.append(module.register_forward_hook(self._leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, args: Any) -> None:
            self._calls[name] += 1
            self.stack.append((name, self._calls[name]))

        return hook

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._tape.ends[self.stack.pop()] = len(self._tape.operations)


class _Recorder(TorchDispatchMode):
    def __init__(self, tape: Tape, numbers: Any, where: _Where, functional: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape, self._numbers, self._where, self._functional = tape, numbers, where, functional
        self._stacked = WeakTensorKeyDictionary()  # what a stack is of, and along which side
        self.awaiting = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler at the first operation, which takes seconds

    def name(self, tensors: Any) -> None:
        for tensor in tensors:
            self._tape.inputs.append(self._number(tensor))

    def _number(self, tensor: Tensor) -> int:
        number = len(self._tape.shapes)
        self._numbers[tensor] = number
        self._tape.shapes.append(tuple(tensor.shape))
        self._tape.dtypes.append(tensor.dtype)
        return number

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if op.namespace == "profiler":  # marks of time, as DataParallel sets them
            return op(*args, **kwargs)
        if self.awaiting and op is torch.ops.aten.alias.default:
            self.awaiting -= 1
            result = op(*args)
            self.name([result])
            return result
        if op is aten._convolution.default:  # as scripted models call it, with cuDNN's switches behind
            op, args = aten.convolution.default, args[:9]
        if op in _ADDS_A_PRODUCT and isinstance(args[0], Tensor) and args[0] in self._numbers:
            return self._apart(_ADDS_A_PRODUCT[op], *args, **kwargs)
        if op.overloadpacket is aten.lerp and args[0] in self._numbers and args[1] in self._numbers:
            return self._between(*args)
        if op.overloadpacket is aten.sum and args[0] in self._stacked:
            parts, side = self._stacked[args[0]]
            if self._over(args, kwargs) == side:
                return functools.reduce(self._plus, parts)
        noted = tree_map_only(Tensor, self._noted, (tuple(args), dict(kwargs)))
        result = op(*args, **kwargs)
        if op.overloadpacket is aten.stack and all(value in self._numbers for value in args[0]):
            self._stacked[result] = tuple(args[0]), (args[1] if len(args) > 1 else 0) % result.dim()
        several = isinstance(result, tuple | list)
        values = result if several else [result]
        outputs = tuple(self._number(value) if isinstance(value, Tensor) else None for value in values)
        module, call = self._where.stack[-1]
        self._tape.writes |= op._schema.is_mutable and op not in _CHANGES_NO_NUMBER
        op = _without_writing(op)
        self._tape.operations.append(Operation(op, noted[0], noted[1], outputs, several, module, call))
        return result

    def _apart(
        self, product: Any, first: Tensor, a: Tensor, b: Any, *, beta: Any = 1, alpha: Any = 1, value: Any = 1
    ) -> Any:
        """``first + a b`` as a product and a sum, in which a skip can be seen."""
        first = first if beta == 1 else self.__torch_dispatch__(aten.mul.Scalar, (), (first, beta))
        second = self.__torch_dispatch__(product, (), (a, b))
        return self.__torch_dispatch__(aten.add.Tensor, (), (first, second), {"alpha": alpha * value})

    def _between(self, first: Tensor, second: Tensor, weight: Any) -> Any:
        """``lerp`` as a sum of two products."""
        times = aten.mul.Tensor if isinstance(weight, Tensor) else aten.mul.Scalar
        rest = self.__torch_dispatch__(aten.rsub.Scalar, (), (weight, 1)) if isinstance(weight, Tensor) else 1 - weight
        return self._plus(
            self.__torch_dispatch__(times, (), (first, rest)), self.__torch_dispatch__(times, (), (second, weight))
        )

    def _plus(self, first: Tensor, second: Tensor) -> Any:
        return self.__torch_dispatch__(aten.add.Tensor, (), (first, second))

    @staticmethod
    def _over(args: Any, kwargs: Any) -> int | None:
        """The only side over which a sum goes, None for several or where it does more."""
        sides = args[1] if len(args) > 1 else None
        plain = len(args) == 2 and not kwargs and isinstance(sides, tuple | list) and len(sides) == 1
        return int(sides[0]) % args[0].dim() if plain and sides is not None else None

    def _noted(self, tensor: Tensor) -> Any:
        number = self._numbers.get(tensor)
        return tensor.detach() if number is None else Ref(number)
