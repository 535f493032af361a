"""From numbers to sentences, by the rules of ``_rules``. None of them says that alignment is good."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..formatting import format_number
from ._diagnosis import Diagnosis, Measured, Verdict
from ._rules import FEWEST_INPUTS, RULES


def verdicts_of(found: Diagnosis) -> Diagnosis:
    """The diagnosis with its sentences."""
    return replace(found, verdicts=tuple(_verdicts(found)))


def _verdicts(found: Diagnosis) -> list[Verdict]:
    if found.inputs < FEWEST_INPUTS:
        text = (
            f"{found.inputs} input{'s are' if found.inputs > 1 else ' is'} too few to judge: give at least "
            f"{FEWEST_INPUTS}, better ten of each class. The numbers are in measured.screen and measured.alignment."
        )
        return [_verdict("inputs", text, value=found.inputs)]
    said = [_straightness(found), *_triplets(found), *_blocks(found)]
    said += [_collapse(found), _decay(found)]
    return [verdict for verdict in said if verdict is not None]


def _verdict(
    subject: str,
    text: str,
    *,
    value: float = math.nan,
    interval: tuple[float, float] | None = None,
    null: float = math.nan,
) -> Verdict:
    low, high = interval or (math.nan, math.nan)
    rule = RULES[subject]
    return Verdict(subject, text, float(value), low, high, null, rule.says, rule.chapter)


def interval_of(values: Tensor) -> tuple[float, float, float]:
    """Mean and the ends of Student's 95 % interval of the mean over inputs; NaN values are left out."""
    from scipy.stats import t as student

    known = values[~values.isnan()].double()
    if len(known) == 0:
        return math.nan, math.nan, math.nan
    mean = float(known.mean())
    if len(known) == 1:
        return mean, math.nan, math.nan
    half = float(student.ppf(0.975, len(known) - 1) * known.std() / math.sqrt(len(known)))
    return mean, mean - half, mean + half


def per_input(values: Tensor, found: Diagnosis) -> Tensor:
    """Rows of tokens as means over the tokens of an input: they are not independent."""
    return values.reshape(-1, found.measured.screen.tokens_per_input).nanmean(1)


def _said(mean: float, low: float, high: float) -> str:
    if math.isnan(low):
        return format_number(mean)
    return f"{format_number(mean)} ({format_number(low)} to {format_number(high)})"


def null_range(values: Tensor, draws: Tensor) -> tuple[float, float, float]:
    """Mean over draws of the untrained network, and the ends of Student's 95 % range for one more draw.

    The model is one draw itself: of untrained weights, it would lie there in 19 of 20 cases. NaN with fewer than two.
    """
    from scipy.stats import t as student

    means = torch.stack([values[draws.to(values.device) == draw].nanmean() for draw in draws.unique()]).double()
    means = means[~means.isnan()]
    mean = float(means.mean()) if len(means) else math.nan
    if len(means) < 2:
        return mean, math.nan, math.nan
    half = float(student.ppf(0.975, len(means) - 1) * means.std() * math.sqrt(1 + 1 / len(means)))
    return mean, mean - half, mean + half


def _straightness(found: Diagnosis) -> Verdict | None:
    values = per_input(found.measured.screen.line_shape_score, found)
    finite = values[values.isfinite()]
    mean, low, high = interval_of(finite)
    if math.isnan(mean):
        return None
    null, null_low, null_high = math.nan, math.nan, math.nan
    if found.null is not None:
        each = found.measured.screen.tokens_per_input
        shapes = per_input(found.null.screen.line_shape_score, found)
        null, null_low, null_high = null_range(shapes, found.null.draws[::each])
    beside = "" if math.isnan(null) else f"; untrained twins {_said(null, null_low, null_high)}"
    text = f"Line shape: {_said(mean, low, high)}, where 1 is a straight line{beside}."
    if not math.isnan(null_low):
        apart = "straighter" if high < null_low else "less straight" if low > null_high else "no straighter"
        text += f" The states march {apart} than in untrained twins."
    text += _band(low, high)
    return _verdict("straightness", text, value=mean, interval=(low, high), null=null)


def _band(low: float, high: float) -> str:
    """What networks of this line shape had, where its interval lies on one side of a threshold."""
    straight, bent = RULES["straightness"].thresholds
    if low > bent:
        return f" Above {bent:g} no alignment above 0.19 was seen in the networks trained for this book."
    if low > straight:
        return f" Above {straight:g} an alignment of 0.5 or more is rare among the networks trained for this book."
    if high <= straight:
        most = f" Up to {straight:g} most networks trained for this book have an alignment of 0.5 or more"
        return f"{most}; fully-connected ones with layer norm or group norm have less."
    return ""


def _triplets(found: Diagnosis) -> list[Verdict | None]:
    report = found.measured.alignment
    if report is None:
        return [_verdict("inputs", "No singular triplets were measured: the budget allowed no input.", value=0)]
    inputs = len(per_input(report.alignment, found))
    if inputs < FEWEST_INPUTS:
        text = (
            f"Alignment, rank, and depth rest on {inputs} input{'s' * (inputs > 1)}, which is too few to judge: raise "
            f"the budget until there are {FEWEST_INPUTS}."
        )
        return [_verdict("inputs", text, value=inputs)]
    return [_alignment(found), _rank(found), _depth(found)]


def _null_of(found: Diagnosis, name: str) -> tuple[float, float, float]:
    """Mean and range of a score over draws of the untrained network; NaN where there is none."""
    if found.null is None or found.null.alignment is None:
        return math.nan, math.nan, math.nan
    each = found.null.alignment.tokens_per_input
    return null_range(per_input(_score(found.null, name), found), found.null.alignment_draws[::each])


def _score(measured: Measured, name: str) -> Tensor:
    report = measured.alignment
    assert report is not None
    values: Tensor = getattr(report, name)
    return values if values.dim() == 1 else values.nanmean(1)


def _alignment(found: Diagnosis) -> Verdict | None:
    mean, low, high = interval_of(per_input(_score(found.measured, "alignment"), found))
    if math.isnan(mean):
        text = "No two blocks map between the same shapes: alignment has nothing to compare."
        return _verdict("alignment", text)
    weak, strong = RULES["alignment"].thresholds
    size = "weak" if mean < weak else "partial" if mean < strong else "strong"
    text = f"Alignment of top singular vectors across depth: {_said(mean, low, high)}"
    null, null_low, null_high = _null_of(found, "alignment")
    if math.isnan(null_low):
        text += f"; there are no untrained twins to compare with. If it is not due to the architecture, it is {size}."
        return _verdict("alignment", text, value=mean, interval=(low, high), null=null)
    text += f"; untrained twins {_said(null, null_low, null_high)}."
    if low > null_high:
        text += f" There is {size} alignment that untrained networks do not have."
    elif high < null_low:
        text += " It is lower than in untrained networks."
    else:
        text += " It does not differ from untrained networks."
    return _verdict("alignment", text, value=mean, interval=(low, high), null=null)


def _rank(found: Diagnosis) -> Verdict | None:
    report = found.measured.alignment
    assert report is not None
    mean, low, high = interval_of(per_input(_score(found.measured, "rank_energy"), found))
    if math.isnan(mean):
        return None
    (held,) = RULES["rank"].thresholds
    text = f"The {report.num_classes} largest singular values hold {_said(mean, low, high)} of a Jacobian's energy"
    null, null_low, null_high = _null_of(found, "rank_energy")
    if not math.isnan(null_low):
        text += f", of untrained twins' {_said(null, null_low, null_high)}"
        if low <= null_high:
            return _verdict("rank", f"{text}: no more than untrained.", value=mean, interval=(low, high), null=null)
    ends = "is about the number of classes" if low >= held else "is not cut off at the number of classes"
    return _verdict("rank", f"{text}: the rank {ends}.", value=mean, interval=(low, high), null=null)


def _depth(found: Diagnosis) -> Verdict | None:
    report = found.measured.alignment
    assert report is not None
    fits = report.depth_fits()
    mean, low, high = interval_of(per_input(fits[:, 2], found))
    slope = float(fits[:, 0].nanmean())
    if math.isnan(mean):
        return None
    (held,) = RULES["depth"].thresholds
    null, null_low, null_high = math.nan, math.nan, math.nan
    if found.null is not None and found.null.alignment is not None:
        shares = per_input(found.null.alignment.depth_fits()[:, 2], found)
        each = found.null.alignment.tokens_per_input
        null, null_low, null_high = null_range(shares, found.null.alignment_draws[::each])
    beside = "" if math.isnan(null) else f" (of untrained twins {_said(null, null_low, null_high)})"
    grows = slope > 0 and low >= held
    text = (
        f"A line over depth explains {_said(mean, low, high)} of the variance of 1/σ₁{beside}: top singular values "
        f"{'fall' if grows else 'do not fall'} inversely with depth."
    )
    return _verdict("depth", text, value=mean, interval=(low, high), null=null)


def _blocks(found: Diagnosis) -> list[Verdict]:
    said, names = list[Verdict](), found.blocks.names
    report = found.measured.alignment
    if report is not None:
        dead = [name for name, share in zip(names, report.dead.double().mean(0), strict=True) if share > 0.5]
        if dead:
            verb = "responds" if len(dead) == 1 else "respond"
            text = f"{_listed(dead)} hardly {verb} to the input: σ₁ is below a thousandth of the median."
            said.append(_verdict("dead", text, value=len(dead)))
    worth, (most, changes) = found.worth, RULES["removable"].thresholds
    known = ~worth.divergence.isnan()
    if not known.any():
        return said
    free = known & (worth.divergence <= most)
    if worth.kind == "divergence":
        free &= worth.changed <= changes
    removable = [name for name, on in zip(names, free.tolist(), strict=True) if on]
    unit = " nats" if worth.kind == "divergence" else " of its length"
    top = int(torch.where(known, worth.divergence, -1.0).argmax())
    among = "" if known.all() else f"Of the {int(known.sum())} blocks that were cut, the"
    text = f"{among or 'The'} output depends most on {names[top]}: without its branch it changes by "
    text += f"{format_number(float(worth.divergence[top]))}{unit}."
    if removable:
        them = "it" if len(removable) == 1 else "them"
        text += f" {_listed(removable)} may be removable: test without {them} on your own validation data."
    else:
        text += f" {'None of them' if among else 'No block'} may be cut without a change."
    said.append(_verdict("removable", text, value=len(removable)))
    return said


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    noun = "Block" if len(names) == 1 else "Blocks"
    return f"{noun} {shown}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _collapse(found: Diagnosis) -> Verdict | None:
    if found.collapse is None:
        return None
    (limit,) = RULES["collapse"].thresholds
    nc1 = found.collapse.nc1
    state = "have" if nc1 < limit else "have not"
    text = f"Neural Collapse: NC1 is {format_number(nc1)}; the last features {state} collapsed to their class means."
    return _verdict("collapse", text, value=nc1)


def _decay(found: Diagnosis) -> Verdict | None:
    if math.isnan(found.decay_time):
        return None
    (least,) = RULES["decay time"].thresholds
    text = f"The training's decay time is S = {format_number(found.decay_time)}."
    if found.decay_time < least:
        text += f" Below S = {least:g} an alignment near 0 may mean no more than: not yet."
    return _verdict("decay time", text, value=found.decay_time)
