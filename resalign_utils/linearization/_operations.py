"""Which operations of torch are linear, which are nonlinear units, and which only move entries.

What is on none of these lists has no rule: path lengths refuse it by name.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules import batchnorm, conv, dropout, instancenorm, padding, pooling


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Elementwise and nonlinear: one nonlinear unit on every path.
ACTIVATIONS = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid,
    nn.Mish, nn.ReLU, nn.RReLU, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh,
    nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
ELEMENTWISE = _names("""
    relu relu6 celu elu gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid log_sigmoid mish rrelu selu
    sigmoid expit silu softplus softshrink softsign tanh tanhshrink threshold clamp clamp_max clamp_min clip abs
    absolute acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil cos cosh digamma erf
    erfc erfinv exp exp2 expm1 float_power floor frac lgamma log log10 log1p log2 logit pow reciprocal round rsqrt sgn
    sign sin sinc sinh sqrt square tan trunc maximum minimum fmax fmin
""")
# Linear, and the shape stays.
SAME_MODULES = (nn.Identity, dropout._DropoutNd)
NORMS = (
    batchnorm._BatchNorm, nn.SyncBatchNorm, instancenorm._InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm,
    nn.LocalResponseNorm, nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax,
)  # fmt: skip
SAME = _names("""
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout stochastic_depth
    contiguous clone detach to type type_as float double half bfloat16 cpu cuda positive
""")
SCALED = _names("""
    batch_norm instance_norm layer_norm group_norm rms_norm local_response_norm normalize softmax log_softmax softmin
    neg negative deg2rad rad2deg
""")
SUMS = _names("add sub subtract rsub")
PRODUCTS = _names("mul multiply")
QUOTIENTS = _names("div divide true_divide truediv")
# Each channel for itself, places change.
POOLS = (
    pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveAvgPoolNd, pooling._AdaptiveMaxPoolNd,
    pooling._LPPoolNd, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.Upsample, padding._ConstantPadNd,
    padding._ReflectionPadNd, padding._ReplicationPadNd, padding._CircularPadNd,
)  # fmt: skip
POOLED = _names("""
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d lp_pool3d
    fractional_max_pool2d fractional_max_pool3d interpolate upsample upsample_nearest upsample_bilinear
""")
CONVOLUTIONS = (conv._ConvNd,)
CONVOLVED = _names("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
# Entries are moved, left out or repeated, and none is computed.
MOVED = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
MOVES = _names("""
    flatten unflatten reshape reshape_as view view_as permute transpose swapaxes swapdims movedim moveaxis squeeze
    unsqueeze chunk split tensor_split getitem narrow select index_select flip roll expand expand_as repeat tile unbind
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle pad cat concat concatenate stack
""") | {"getattr T", "getattr mT"}
CONCATENATIONS = _names("cat concat concatenate stack")
REDUCTIONS = _names("mean sum amax amin")
NOT_DATA = _names("""
    size dim numel ndimension stride is_floating_point zeros_like ones_like full_like empty_like new_zeros new_ones
    new_full new_empty
""") | {f"getattr {name}" for name in ("shape", "ndim", "dtype", "device")}  # fmt: skip


def is_one_of(module: nn.Module | None, types: tuple[type[nn.Module], ...]) -> bool:
    """Whether the module is of one of the types and computes what they do."""
    return module is not None and isinstance(module, types) and not has_own_forward(module)


def has_own_forward(module: nn.Module) -> bool:
    """Whether the module's forward pass is not torch's."""
    return "forward" in vars(module) or not type(module).forward.__module__.startswith("torch.nn.")
