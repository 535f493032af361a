"""Several batches of matrices of one shape as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ._base import OperatorBatch


class JoinedBatches(OperatorBatch):
    """The matrices of several batches, one batch after the other, so that a solver works on all of them in step.

    Args:
        batches: at least one, all of one shape, dtype and device; their products are done one after the other.

    Attributes: as of :class:`OperatorBatch`.

    Raises:
        ValueError: batches of several shapes.
    """

    def __init__(self, batches: Sequence[OperatorBatch]) -> None:
        first = batches[0]
        if shapes := {(batch.in_shape, batch.out_shape) for batch in batches[1:]} - {(first.in_shape, first.out_shape)}:
            raise ValueError(
                f"Only matrices of one shape can be joined; the first has inputs {first.in_shape} and outputs "
                f"{first.out_shape}, others {', '.join(f'{a} and {b}' for a, b in sorted(shapes))}."
            )
        super().__init__(sum(map(len, batches)), first.in_shape, first.out_shape, first.dtype, first.device)
        self._batches, self.together = batches, first.together

    def dense(self) -> Tensor:
        """The matrices themselves, (n, m, d)."""
        return torch.cat([batch.dense() for batch in self._batches])

    def release(self) -> None:
        """Forget what the batches keep between products."""
        for batch in self._batches:
            batch.release()

    def _forward(self, v: Tensor) -> Tensor:
        return self._each("matmat", v)

    def _adjoint(self, u: Tensor) -> Tensor:
        return self._each("rmatmat", u)

    def _each(self, product: Literal["matmat", "rmatmat"], block: Tensor) -> Tensor:
        parts = block.split([len(batch) for batch in self._batches])
        return torch.cat([getattr(batch, product)(part) for batch, part in zip(self._batches, parts, strict=True)])
