"""What a block is worth: the model's output with the block's branch, or its skip, scaled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ._checks import check_inputs, unwrapped
from ._inputs import Inputs, ModelInputs, inputs_of, logits_of
from ._registry import parts_of
from ._runner import Blocks
from ._trace import measuring
from ._watch import Call, state_of
from .finder import BlockTable, FoundBlock


def outputs_with_scaled_block(
    model: nn.Module,
    x: ModelInputs,
    *,
    branch: float = 0.0,
    skip: float = 1.0,
    blocks: BlockTable | Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    whole: bool = False,
) -> Iterator[tuple[str, Tensor | None]]:
    """For each block in turn, the model's output where this block computes ``σ(skip · P(h) + branch · F(h))``.

    All other blocks compute what they always do, from the states that come of it.

    Args:
        model: in eval mode.
        x: inputs, as in :func:`trace`.
        branch: factor of the branch: 0 cuts it.
        skip: factor of the shortcut.
        blocks: names of blocks, as in :func:`trace`.
        exclude: names of blocks to leave out.
        whole: as in :func:`trace`.

    Yields:
        The block's name and the logits (n, C); None for the logits of a block without a shortcut if ``branch`` is 0, of
        which nothing would be left.

    Raises:
        ValueError: what :func:`trace` refuses of model and inputs.
    """
    model, inputs = unwrapped(model), inputs_of(x)
    check_inputs(model, inputs)
    with measuring(model, inputs):
        found = Blocks(model, inputs, blocks, exclude, whole=whole)
        if not found.calls:
            raise ValueError(found.why_none())
        calls = list(found.calls)
        for call in calls:
            parts = parts_of(call.block)
            if parts.shortcut is None and branch == 0:
                yield call.name, None
                continue
            z = branch * call.arguments.call(parts.branch, call.input.clone())
            if parts.shortcut is not None:
                z = z + skip * call.arguments.call(parts.shortcut, call.input.clone())
            if found.finder is not None and isinstance(call.block, FoundBlock):
                yield call.name, found.finder.output_from(call.block, z, inputs)
            else:
                output = z if parts.outer is None else parts.outer(z)
                yield call.name, _with_output(model, inputs, call, output)


def _with_output(model: nn.Module, inputs: Inputs, call: Call, output: Tensor) -> Tensor:
    """The model's output where one call of a registered block gives ``output``."""
    _, _, number = call.name.rpartition("@")
    wanted = int(number) if call.name.endswith(f"@{number}") and number.isdigit() else 1
    calls = 0

    def replace(block: nn.Module, args: Any, given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != wanted:
            return given
        state_of(call.name, given)  # refuses what holds no state
        return type(given)([output, *given[1:]]) if isinstance(given, tuple | list) else output

    handle = call.block.register_forward_hook(replace)
    try:
        return logits_of(inputs.call(model))
    finally:
        handle.remove()
