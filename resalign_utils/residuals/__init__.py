"""From a trained network to its residual branches, each at its true input.

The residual part of the Jacobian of a block ``h ↦ σ(P h + F(h))`` is ``J_σ(z)·∂F/∂h`` with ``z = P h + F(h)`` held at
the point: the skip path is left out, the outer activation counts through its derivative. For a ReLU that is the
Residual Jacobian ``∂/∂h [σ'(P h + F(h)) ⊙ F(h)]`` of Li & Papyan (2023, section 2). What this room calls a *branch* is
therefore the function ``h ↦ J_σ(z)·F(h)``, in which J_σ(z) is a constant.

Which function a block's F is, its type says (``_registry``). That it is true, a replay of the block shows at every
trace (``_replay``): shortcut plus branch, through the outer activation, must give what the block gave.
"""

from ..operators import Branch, branch_rows
from ._checks import check_eval_mode
from ._cut import outputs_with_scaled_block
from ._inputs import Inputs, ModelInputs, inputs_of, tensors_of
from ._registry import Parts, gated, is_residual_block, residual_branch
from ._tokens import Tokens, are_sequences, at_tokens
from ._trace import Residual, Trace, find_blocks, trace, trace_states
from .finder import Block, BlockTable, NotABlock

__all__ = [
    "Block",
    "BlockTable",
    "Branch",
    "Inputs",
    "ModelInputs",
    "NotABlock",
    "Parts",
    "Residual",
    "Tokens",
    "Trace",
    "are_sequences",
    "at_tokens",
    "branch_rows",
    "check_eval_mode",
    "find_blocks",
    "gated",
    "inputs_of",
    "is_residual_block",
    "outputs_with_scaled_block",
    "residual_branch",
    "tensors_of",
    "trace",
    "trace_states",
]
