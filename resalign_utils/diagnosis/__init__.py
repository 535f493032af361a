"""What measurements say to someone who has to decide."""

from ._difference import Difference
from ._proof import ProofOfConcept, ProofRun
from ._proof_of_concept import proof_of_concept

__all__ = ["Difference", "ProofOfConcept", "ProofRun", "proof_of_concept"]
