"""The rules by which numbers become sentences: all thresholds in one table, each with the chapter that supports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: by which verdicts name it.
        thresholds: the numbers that decide, in the order in which ``says`` speaks of them.
        says: what is compared with what, a sentence.
        chapter: of the book, that supports it: the name of its page.
    """

    name: str
    thresholds: tuple[float, ...]
    says: str
    chapter: str


FEWEST_INPUTS = 10

RULES = {
    rule.name: rule
    for rule in (
        Rule(
            "inputs",
            (FEWEST_INPUTS,),
            "A score is judged at ten inputs or more; below, what is missing is said and nothing else.",
            "05_alignment",
        ),
        Rule(
            "straightness",
            (1.09, 2.0),
            "Fitted on 419 recorded networks that fit 99 % of their training images (17 pass with an alignment below "
            "0.5; drawn anew, their settings put the threshold at about 1.05 to 1.1). Tested on 200 others, nearly "
            "all aligned ones variants of one fully-connected recipe: of the 70 with an alignment of 0.5 or more, 68 "
            "have a line-shape score of at most 1.09; of the 130 others all have a higher one. Fully-connected "
            "networks with layer norm or group norm, recorded later, all pass with less. Above 2 none of the 619 had "
            "an alignment above 0.19. That a network is straighter than its untrained twins tells next to nothing: "
            "nearly all trained ones are. Published networks can be otherwise: one whose layers share their weights "
            "has 0.32 at 9.1.",
            "21_screening",
        ),
        Rule(
            "alignment",
            (0.1, 0.5),
            "The interval of the alignment over inputs is compared with the range in which one more untrained network "
            "would lie: overlapping, it is none that was learned; else below 0.1 it is weak, up to 0.5 partial, above "
            "it is strong.",
            "05_alignment",
        ),
        Rule(
            "rank",
            (0.9,),
            "Li & Papyan's third property: the C largest singular values hold the energy of a Residual Jacobian. It "
            "counts as held where their share is at least 0.9.",
            "05_alignment",
        ),
        Rule(
            "depth",
            (0.8,),
            "Li & Papyan's fourth property: 1/σ₁ grows linearly over depth. It counts as held where the slope is "
            "positive and the line explains at least 0.8 of the variance.",
            "07_depth",
        ),
        Rule(
            "dead",
            (1e-3,),
            "A block whose σ₁ is at most a thousandth of the median over blocks hardly responds to its input. Its step "
            "may still matter.",
            "07_depth",
        ),
        Rule(
            "removable",
            (0.01, 0.0),
            "A block may be removable if the output without its branch differs by a Kullback–Leibler divergence of at "
            "most 0.01 nats in the mean over the inputs, and no decision changes.",
            "14_paths",
        ),
        Rule(
            "collapse",
            (0.1,),
            "Neural Collapse: the within-class variance of the last features, relative to that between classes (NC1), "
            "below 0.1.",
            "11_neural_collapse",
        ),
        Rule(
            "decay time",
            (1.0,),
            "In the networks of the book no alignment beyond 0.1 was seen below a decay time S = 1 (weight decay times "
            "the sum of the learning rates).",
            "09_counterfactuals",
        ),
    )
}
