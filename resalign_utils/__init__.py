"""Residual Jacobians and Residual Alignment: how the blocks of a residual network work together.

Data walk through the modules in this order: ``data → models → training → runs`` make a trained network,
``residuals → operators → svd → alignment, collapse`` measure it, ``linearization`` takes nonlinear units out of it and
counts what is left. ``theory`` is the model in which alignment can be proved, ``sweeps`` makes many runs,
``diagnosis`` says what to do, ``plotting`` draws. What the book uses is here.

A name is imported when it is first asked for, with all rooms: what needs none, as ``resalign --help``, waits for none.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import plotting
    from .alignment import (
        AlignmentReport,
        BlockSVD,
        DepthFit,
        compare,
        coupling_matrices,
        jacobian_svd,
        line_shape_score,
        measure_alignment,
        plus_minus,
        residual_jacobians,
    )
    from .collapse import NeuralCollapse, collapse_by_layer, neural_collapse
    from .data import ImageData, load_data
    from .diagnosis import (
        AlignmentMonitor,
        Diagnosis,
        ProofOfConcept,
        TrainingRecipe,
        Verdict,
        diagnose,
        proof_of_concept,
    )
    from .linearization import (
        LinearizationConfig,
        LinearizationHistory,
        average_path_length,
        fold,
        linearize,
        path_length_distribution,
        post_train,
    )
    from .models import RepVGGBlock, ResidualBlock, ResNet, ResNetConfig, build_model
    from .operators import JacobianBatch, JacobianOperator, MatrixBatch, dense_jacobians
    from .records import recorded, recorded_networks
    from .residuals import Block, BlockTable, NotABlock, Residual, Trace, find_blocks, gated, residual_branch, trace
    from .runs import DataConfig, Run, RunConfig, load_or_train, over_seeds
    from .svd import TruncatedSVD, dense_svd, truncated_svd
    from .sweeps import sweep
    from .theory import DepthLaws, UnconstrainedJacobians, depth_laws, fit_unconstrained_jacobians
    from .training import Checkpoint, History, Monitor, TrainConfig, accuracy, train

__version__ = "0.1.0"

__all__ = [
    "AlignmentMonitor",
    "AlignmentReport",
    "Block",
    "BlockSVD",
    "BlockTable",
    "Checkpoint",
    "DataConfig",
    "DepthFit",
    "DepthLaws",
    "Diagnosis",
    "History",
    "ImageData",
    "JacobianBatch",
    "JacobianOperator",
    "LinearizationConfig",
    "LinearizationHistory",
    "MatrixBatch",
    "Monitor",
    "NeuralCollapse",
    "NotABlock",
    "ProofOfConcept",
    "RepVGGBlock",
    "ResNet",
    "ResNetConfig",
    "Residual",
    "ResidualBlock",
    "Run",
    "RunConfig",
    "Trace",
    "TrainConfig",
    "TrainingRecipe",
    "TruncatedSVD",
    "UnconstrainedJacobians",
    "Verdict",
    "accuracy",
    "average_path_length",
    "build_model",
    "collapse_by_layer",
    "compare",
    "coupling_matrices",
    "dense_jacobians",
    "dense_svd",
    "depth_laws",
    "diagnose",
    "find_blocks",
    "fit_unconstrained_jacobians",
    "fold",
    "gated",
    "jacobian_svd",
    "line_shape_score",
    "linearize",
    "load_data",
    "load_or_train",
    "measure_alignment",
    "neural_collapse",
    "over_seeds",
    "path_length_distribution",
    "plotting",
    "plus_minus",
    "post_train",
    "proof_of_concept",
    "recorded",
    "recorded_networks",
    "residual_branch",
    "residual_jacobians",
    "sweep",
    "trace",
    "train",
    "truncated_svd",
]

_ROOMS = (
    *("alignment", "arithmetic", "collapse", "data", "diagnosis", "formatting", "linearization", "models", "operators"),
    *("plotting", "precision", "records", "residuals", "runs", "svd", "sweeps", "theory", "training"),
)

if not TYPE_CHECKING:  # with it, a type checker would believe in any name

    def __getattr__(name: str) -> object:
        """A room, or a name that one of them shows; the first call imports them all."""
        if name in _ROOMS:
            return import_module(f".{name}", __name__)
        if name in __all__:
            rooms = [import_module(f".{room}", __name__) for room in _ROOMS]
            shown = {
                key: getattr(room, key)
                for room in rooms
                for key in getattr(room, "__all__", vars(room))
                if key in __all__
            }
            globals().update(shown)
            return shown[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_ROOMS})
