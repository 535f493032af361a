"""Which blocks of a model are measured: those of registered types, and the sums that are found beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ._inputs import Inputs
from ._registry import is_residual_block, parts_of
from ._watch import Call, watched
from .finder import Block, BlockTable, Finder, FoundBlock, NotABlock

_ADDITIONS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor, torch.ops.aten.sub.Tensor)
_REGISTER = "Register the block that holds a skip by its type, with @resalign_utils.residual_branch.register."


class Blocks:
    """The blocks of a model, and how to evaluate them at any inputs.

    Args:
        model: in eval mode.
        inputs: at which its blocks are looked for.
        wanted: names of the blocks to keep, None for all.
        exclude: names of blocks to leave out.
        whole: whether the sums of one module count as one block.
        look: whether sums are looked for also where all additions are in registered blocks.

    Attributes:
        calls: of the blocks at the inputs, in order.
        logits: the model's output there (n, C).
        finder: of the sums, None if there are registered blocks alone.
        others: what else adds or joins; known if ``finder`` is there.
        problem: why the model cannot be followed operation by operation, "" if it can.

    Raises:
        ValueError: a name that no block has.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        wanted: BlockTable | Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        *,
        whole: bool = False,
        look: bool = False,
    ) -> None:
        self._model, self.problem = model, ""
        self.finder: Finder | None = None
        self._kept: list[str] | None = None
        names = None if wanted is None else wanted.names if isinstance(wanted, BlockTable) else list(wanted)
        with _OtherSums(model) as sums:
            calls, logits = watched(model, inputs)
        if look or sums.seen or not calls or names is not None:
            try:
                self.finder = Finder(model, inputs, names or (), whole=whole)
            except ValueError as error:
                self.problem = str(error)
        if self.finder is not None and self.finder.found:
            self.finder.check(inputs)
            calls, logits = self.finder.run(inputs)
        self.calls, self.logits = _named(calls), logits
        self._choose(names, exclude)

    @property
    def others(self) -> list[NotABlock]:
        """What else adds or joins."""
        if self.finder is None:
            return []
        return [NotABlock(name, other.kind, other.reason) for name, other in self.finder.others]

    def run(self, inputs: Inputs) -> tuple[list[Call], Tensor]:
        """The calls of the blocks at other inputs, and the model's output there."""
        found = self.finder is not None and bool(self.finder.found)
        calls, logits = self.finder.run(inputs) if self.finder and found else watched(self._model, inputs)
        return [call for call in _named(calls) if self._kept is None or call.name in self._kept], logits

    def table(self) -> BlockTable:
        """The blocks for a reader."""
        rows = [_row(index, call, self.finder) for index, call in enumerate(self.calls, start=1)]
        if not rows:
            return BlockTable(rows, self.others, self.why_none())
        return BlockTable(rows, self.others, " ".join(said for said in (self.problem, self._shared()) if said))

    def _shared(self) -> str:
        """The sentence about blocks that have weights in common, "" if none have."""
        owner, shared = dict[int, str](), list[tuple[str, str]]()
        for call in self.calls:
            first = {owner.setdefault(key, call.name) for key in _weights(call.block)} - {call.name}
            shared += [(name, call.name) for name in sorted(first)]
        if not shared:
            return ""
        pairs = ", ".join(f"{a} and {b}" for a, b in shared[:3]) + (", …" if len(shared) > 3 else "")
        return f"Blocks share weights ({pairs}): alignment among them says nothing of what was learned across depth."

    def why_none(self) -> str:
        """The sentence that no residual block is found."""
        kind = type(self._model).__name__
        if self.problem:
            return f"No residual block found in {kind}: no type in it is registered, and {self.problem} {_REGISTER}"
        said = f"No residual block found in {kind}: it has no additive stream, "
        counts = Counter(other.kind for other in self.others)
        if not counts:
            return said + f"or it adds inside of kernels that cannot be seen. {_REGISTER}"
        kinds = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items())
        return said + f"only {kinds}, which find_blocks lists under others. {_REGISTER}"

    def _choose(self, wanted: list[str] | None, exclude: Sequence[str]) -> None:
        if wanted is None and not exclude:
            return
        names = [call.name for call in self.calls]
        unknown = [name for name in [*(wanted or ()), *exclude] if name not in names]
        if unknown:
            raise ValueError(
                f"No block is named {', '.join(map(repr, unknown))}. The names are {', '.join(map(repr, names))}; "
                "find_blocks(model, x) lists them."
            )
        self._kept = [name for name in names if (wanted is None or name in wanted) and name not in exclude]
        self.calls = [call for call in self.calls if call.name in self._kept]


class _OtherSums(TorchDispatchMode):
    """Whether two tensors are added outside of registered blocks, of which a weight is none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen, self._inside, self._model, self._stack = False, 0, model, ExitStack()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch loads its compiler at the first operation, which takes seconds

    def __enter__(self) -> Any:
        for module in self._model.modules():
            if is_residual_block(module):
                self._stack.callback(module.register_forward_pre_hook(self._enter_block).remove)
                self._stack.callback(module.register_forward_hook(self._leave_block).remove)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._stack.close()

    def _enter_block(self, module: nn.Module, args: Any) -> None:
        self._inside += 1

    def _leave_block(self, module: nn.Module, args: Any, output: Any) -> None:
        self._inside -= 1

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op in _ADDITIONS and not self._inside:
            floats = [a for a in args[:2] if isinstance(a, Tensor) and not isinstance(a, nn.Parameter)]
            self.seen |= len(floats) == 2 and all(a.is_floating_point() and a.dim() > 1 for a in floats)
        return op(*args, **kwargs or {})


def _named(calls: list[Call]) -> list[Call]:
    """The calls with names of their own: ``@2`` for the second call of a registered block."""
    seen, named = Counter[str](), list[Call]()
    for call in calls:
        seen[call.name] += 1
        name = call.name if seen[call.name] == 1 else f"{call.name}@{seen[call.name]}"
        named.append(call if name == call.name else replace(call, name=name))
    return named


def _weights(block: nn.Module) -> set[int]:
    """Where the weights of a block's branch lie in memory."""
    if isinstance(block, FoundBlock):
        return block.weights()
    return {parameter.data_ptr() for parameter in block.parameters() if parameter.dim() > 1}


def _row(index: int, call: Call, finder: Finder | None) -> Block:
    shapes = tuple(call.input.shape[1:]), tuple(call.output.shape[1:])
    if finder is not None and isinstance(call.block, FoundBlock):
        return Block(index, call.name, *finder.words_of(call.block), *shapes, finder.how(call.block))
    outer = parts_of(call.block).outer
    name = "" if outer is None else getattr(outer, "__name__", type(outer).__name__)
    return Block(index, call.name, "as registered", name, *shapes, "registered")
