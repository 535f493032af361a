"""What kind of operation an operator is, for the question which term of a sum is the skip."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import torch

from ._tape import Operation, Ref

aten = torch.ops.aten


class Simplicity(IntEnum):
    """How simply a term of a sum depends on a state; the skip is the one term that does most simply."""

    IDENTITY = 0
    SCALED = 1  # scaled, shifted, normalised with fixed statistics, pooled, cut, or padded
    LINEAR = 2  # a linear map with weights
    OTHER = 3


def _packets(names: str) -> set[Any]:
    return {getattr(aten, name) for name in names.split() if hasattr(aten, name)}


_SAME_ENTRIES = _packets(
    "view _unsafe_view reshape alias clone detach permute transpose t unsqueeze squeeze contiguous lift_fresh expand "
    "_reshape_alias view_as movedim flatten unflatten lift_fresh_copy"
)
_FIXED_FACTOR = _packets("mul div")
_SHIFT = _packets("add sub rsub")
_SCALED = _packets(
    "neg avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "max_pool2d_with_indices max_pool3d_with_indices amax amin max min native_batch_norm cudnn_batch_norm "
    "_native_batch_norm_legit_no_training constant_pad_nd "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d upsample_bicubic2d "
    "_upsample_nearest_exact2d upsample_linear1d pixel_shuffle pixel_unshuffle roll flip repeat "
    "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d im2col col2im"
)
_CUTS = _packets("slice select narrow split split_with_sizes unsafe_split unsafe_chunk chunk unbind")
_LINEAR = _packets("convolution mm bmm addmm baddbmm mv addmv dot linear matmul sum mean")
_MATRICES = _packets(
    "convolution mm bmm addmm baddbmm mv addmv linear matmul _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_attention_math _fft_r2c _fft_c2c _fft_c2r avg_pool1d avg_pool2d avg_pool3d "
    "_adaptive_avg_pool2d mean grouped_mm _grouped_mm gru lstm mkldnn_rnn_layer"
)
_JOINED = _packets("cat stack")
_CHOSEN = _packets("where masked_fill")
_ACTIVATIONS = _packets(
    "relu gelu silu mish hardswish hardtanh leaky_relu elu celu selu sigmoid tanh softplus prelu "
    "_prelu_kernel threshold hardsigmoid log_sigmoid_forward rrelu_with_noise clamp clamp_min clamp_max "
    "abs sign softshrink hardshrink"
)
_NORMS = _packets(  # or what one comes apart into: a square root, of a variance or a mean square
    "native_layer_norm native_group_norm native_batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training "
    "_fused_rms_norm rms_norm rsqrt sqrt std var_mean linalg_vector_norm"
)


def packet(op: Any) -> Any:
    """The operator without its overload."""
    return op.overloadpacket


def simplicity(operation: Operation, moving: set[int]) -> Simplicity:
    """How simply the result of an operation depends on the values ``moving`` among its arguments."""
    kind, operands = packet(operation.op), moving_operands(operation, moving)
    if kind in _SAME_ENTRIES:
        return Simplicity.IDENTITY
    if kind is aten._to_copy:
        full = operation.kwargs.get("dtype") in (None, torch.float32, torch.float64)
        return Simplicity.IDENTITY if full else Simplicity.OTHER
    if kind in _SHIFT:
        return Simplicity.IDENTITY if len(operands) > 1 else Simplicity.SCALED
    if len(operands) == 1:
        if kind in _FIXED_FACTOR:
            return Simplicity.OTHER if kind is aten.div and operands[0] != 0 else Simplicity.SCALED
        if kind in _SCALED or kind in _CUTS or kind in _CHOSEN or (kind is aten.index and operands[0] == 0):
            return Simplicity.SCALED
        if kind in _LINEAR:
            return Simplicity.LINEAR
    if kind in _JOINED:
        return Simplicity.SCALED
    return Simplicity.OTHER


def moving_operands(operation: Operation, moving: set[int]) -> list[int]:
    """The places of arguments that hold values of ``moving``; those of a list count as one."""

    def holds(arg: Any) -> bool:
        if isinstance(arg, Ref):
            return arg.number in moving
        return isinstance(arg, tuple | list) and any(holds(item) for item in arg)

    return [place for place, arg in enumerate(operation.args) if holds(arg)]


def is_matrix(operation: Operation) -> bool:
    """Whether the operation mixes entries by a matrix: a linear layer, a convolution, attention, or a pooling."""
    return packet(operation.op) in _MATRICES


def is_outer(operation: Operation) -> bool:
    """Whether the operation may be what a block does to its sum: an activation or a normalisation."""
    return packet(operation.op) in _ACTIVATIONS or packet(operation.op) in _NORMS


def rescales(operation: Operation) -> bool:
    """Whether the operation scales or shifts one value by constants, as ``(h + f) / 2 ** 0.5`` does after the sum."""
    values = sum(isinstance(arg, Ref) for arg in operation.args)
    return packet(operation.op) in _FIXED_FACTOR | _SHIFT and values == 1


def averages(operation: Operation) -> bool:
    """Whether the operation is a mean: a pooling, or the statistic of a norm."""
    return packet(operation.op) is aten.mean


def keeps_entries(operation: Operation) -> bool:
    """Whether the operation gives the entries that it takes, in another order or shape at most."""
    return packet(operation.op) in _SAME_ENTRIES


def cuts(operation: Operation) -> bool:
    """Whether the operation takes parts out of a tensor."""
    return packet(operation.op) in _CUTS


def keeps_all(operation: Operation, before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Whether a cut from one shape to another leaves everything in place, as ``x[:, :]`` does."""
    return packet(operation.op) is aten.slice and before == after


def name_of(operation: Operation) -> str:
    """The operation's name for a reader: "relu", "layer_norm"."""
    name = str(packet(operation.op)).removeprefix("aten.").strip("_")
    return name.removeprefix("native_")


def joins(operation: Operation) -> bool:
    """Whether the operation lays tensors side by side."""
    return packet(operation.op) in _JOINED


def chooses(operation: Operation) -> bool:
    """Whether which operations come after may depend on what this one gives."""
    return packet(operation.op) in _packets("_local_scalar_dense nonzero masked_select equal is_nonzero")


def multiplies(operation: Operation, moving: set[int]) -> bool:
    """Whether two moving values are multiplied entry by entry, as gates do."""
    return packet(operation.op) is aten.mul and len(moving_operands(operation, moving)) == 2


def addends(operation: Operation) -> list[tuple[int, float]] | None:
    """The places of the two arguments that an operation adds, with their factors; None if it is no addition."""
    kind, args = packet(operation.op), operation.args
    if kind not in _SHIFT or len(args) < 2:
        return None
    alpha = float(operation.kwargs.get("alpha", args[2] if len(args) > 2 else 1))
    first, second = {aten.add: (1.0, alpha), aten.sub: (1.0, -alpha), aten.rsub: (-alpha, 1.0)}[kind]
    return [(0, first), (1, second)]
