"""What measurements say to someone who has to decide."""

from ._diagnose import diagnose
from ._diagnosis import Diagnosis, Measured, Verdict, Worth
from ._difference import Difference
from ._measurement import Drift, Measurement
from ._monitor import AlignmentMonitor
from ._proof import ProofOfConcept, ProofRun
from ._proof_of_concept import proof_of_concept
from ._recipe import TrainingRecipe
from ._rules import RULES, Rule
from ._screen import Screen

__all__ = [
    "RULES",
    "AlignmentMonitor",
    "Diagnosis",
    "Difference",
    "Drift",
    "Measured",
    "Measurement",
    "ProofOfConcept",
    "ProofRun",
    "Rule",
    "Screen",
    "TrainingRecipe",
    "Verdict",
    "Worth",
    "diagnose",
    "proof_of_concept",
]
