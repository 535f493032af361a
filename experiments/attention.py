"""Do transformers show Residual Alignment, and does the decay time carry over to them? For chapter 18.

python -m experiments.attention           writes ``results/attention.json``, and then what ``controls`` writes
python -m experiments.attention controls  writes ``results/attention_controls.json``: the order of norm, and skips
python -m experiments.attention more      writes ``results/attention_more.json``: what was asked and has not been run
python -m experiments.attention paper     writes ``results/attention_paper.json``, for which a GPU is wanted

The first takes about ten minutes of one core, the second four, the third an hour; networks and measurements are kept,
so that an interrupted command goes on where it was. The fourth trains wider and deeper networks on all images of
Fashion-MNIST (:func:`paper`): by the number of operations, at 20 TFLOP a second, some 8 hours on one GPU; it has not
been run.

A row is one network, measured at test images, one of each class: its sums after attention and after the small network
(MLP) apart, and whole blocks, in which the two are composed (pre-norm alone: with a norm after each sum there is no one
skip). States are taken whole, a whole sequence of tokens ("sequence"), or at one token of each of two images a class
("token"). The same is measured of the network before its training.

All are trained with AdamW at one learning rate and number of epochs; the weight decay w alone differs. The decay time
is S = w Σ_t η_t over all steps: AdamW multiplies every weight by 1 − w η_t in each step, so that exp(−S) is what is
left of the initial weights. The control for the recipe is a fully-connected residual network of eight blocks,
post-activation and with batch norm, which has as many sums as four blocks of a transformer: it is the book's base,
trained here with the same optimiser, epochs, learning rate and S.

What pilots (seed 90 alone, not recorded) had shown: at S = 3 the transformer fits its training images, at S = 10 it
reaches 0.97; the fully-connected network has an alignment of 0.70 there and the transformer next to none. So the
questions were asked in the expectation that the answers to 1 and 2 are no, and S = 3, the largest S at which the pilot
fitted, decides where one S has to.

Asked before the rows were measured. "Within" is the mean coupling of two sums of one kind, over both kinds; intervals
are over seeds, 95 %, Student's t.

1. *Does alignment appear, and rise with S?* It rises, if on the digits (4 blocks, pre-norm, sequences) "within" is
   larger at each next S in each of the five seeds. It appears, if the interval of trained minus untrained lies above
   0.1 at S = 3, or at S = 10; it is there, but small, if the interval lies above 0 and not above 0.1.
2. *Does the decay time carry over?* (a) The book's rule, no alignment beyond 0.1 below S = 1: here at S = 0.1, of
   "within" and of whole blocks, in each seed. (b) In value, if at each S the interval of the paired difference of
   "within", transformer minus fully-connected, lies within ±0.1; not, if at some S it lies outside.
3. *Within a kind or across?* Within, if at S = 3 the interval of "within" minus "across" lies above 0; and one kind
   has more, if the interval of attention minus MLP excludes 0. By sequences and by tokens.
4. *Do whole blocks align more than their sums, and tokens more than sequences?* By the paired differences at S = 3, if
   their intervals exclude 0.
5. *RA1, RA3, RA4* at S = 3: the line-shape score of whole blocks is below that of the untrained twin (interval of the
   difference); σ_{C+1}/σ_1 is below 0.1, by kind; a line of 1/σ_1 over the eight blocks of "depth", one kind at a
   time, rises and explains 80 % in each seed.
6. *Longer*: three times the epochs at S = 10, so a third of the weight decay, three seeds. If these fit (0.99) and the
   interval of "within" ends below that of the fully-connected networks at S = 10 by 0.1 or more, it is not the fit
   that is missing.
7. *Post-norm*: the difference of "within" to pre-norm, paired by seed, at S = 3 and 10. *Depth* (8 and 12 blocks) and
   *the skip* (1.25, 0.5, none): the same at S = 3. No skip is a control only where it fits (0.99).
8. *Other images and tokens*: "within", trained minus untrained, on 2,000 images of Fashion-MNIST (4 tokens), at S = 3
   and 10, and on the digits in 16 tokens at S = 3; three seeds.

What was run, said afterwards: there was time for three of the five seeds of 1 to 5. Of 7,
post-norm and the skip were run. The other two seeds, the depth in 5 and 7, longer training (6), and other images and
tokens (8) are in ``more`` and have no answer yet.

What was changed afterwards, when the first rows had been seen and a referee had read them. (a) The number of singular
vectors compared had not been said: it is K = 10, of a sequence of 4 · 64 = 256 numbers, of a token of 64, and of the
64 of a fully-connected network. An MLP acts on each token alone, so its Jacobian of a sequence has a block for each
token, and 10 directions are two or three a token. The view "per token", K = 40 of 256, was added: it answers none of
the questions above as they were asked, and says how much hangs on K. (b) Two of three transformers at S = 10 have a sum
that is dead (σ_1 at most a thousandth of the median over the sums): the singular vectors of such a sum are noise. They
are recorded and left out of all means of pairs, of ranks, and of lines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

import resalign_utils as ra
from resalign_utils.runs import Recipe, get_or_make, read_json, write_json
from resalign_utils.training import learning_rate

from ._record import Row, record, rounded, swept
from .counterfactuals import IMAGES, Setting

TIMES = (0.1, 1.0, 3.0, 10.0)
FITTING = 3.0  # the largest of them at which the pilot fitted its training images
SEEDS = range(3)
LATER_SEEDS = range(3, 5)
SIZES = {"digits": IMAGES, "fashion_mnist": 60_000}  # training images, if all are taken

TRAIN = ra.TrainConfig(epochs=40, lr=5e-3, batch_size=32, optimizer="adamw")
DIGITS = ra.RunConfig("digits", ra.TransformerConfig(4, 64, patch=4), TRAIN)
FASHION_MNIST = ra.RunConfig(
    ra.DataConfig("fashion_mnist", per_class=200),
    ra.TransformerConfig(4, 64, patch=14),
    replace(TRAIN, epochs=20),
)
FULLY_CONNECTED = replace(DIGITS, model=ra.ResNetConfig(8, 64))


def pre_norm(seeds: Sequence[int] = SEEDS) -> Iterator[Setting]:
    """Transformer and fully-connected network over S, the seeds outermost."""
    for seed in seeds:
        for time in TIMES:
            yield setting("pre-norm", DIGITS, time, seed)
            yield setting("fully-connected", FULLY_CONNECTED, time, seed)


def longer() -> Iterator[Setting]:
    """Three times the epochs."""
    config = replace(DIGITS, train=replace(TRAIN, epochs=3 * TRAIN.epochs))
    for seed in SEEDS:
        yield setting("longer", config, max(TIMES), seed)


def post_norm() -> Iterator[Setting]:
    """The norm after each sum."""
    for seed in SEEDS:
        for time in (FITTING, max(TIMES)):
            yield setting("post-norm", changed_model(DIGITS, norm="post"), time, seed)


def skips() -> Iterator[Setting]:
    """The skip taken out, halved, and scaled up."""
    for seed in SEEDS:
        for factor in (0.0, 0.5, 1.25):
            yield setting("skip", changed_model(DIGITS, skip=factor), FITTING, seed)


def depth() -> Iterator[Setting]:
    """Eight and twelve blocks."""
    for seed in SEEDS:
        for blocks in (8, 12):
            yield setting("depth", changed_model(DIGITS, depth=blocks), FITTING, seed)


def fashion_mnist() -> Iterator[Setting]:
    """Another data set."""
    for seed in SEEDS:
        for time in (FITTING, max(TIMES)):
            yield setting("Fashion-MNIST", FASHION_MNIST, time, seed)


def tokens() -> Iterator[Setting]:
    """The digits in sixteen tokens in place of four."""
    for seed in SEEDS:
        yield setting("16 tokens", changed_model(DIGITS, patch=2), FITTING, seed)


def recorded() -> list[Setting]:
    """What ``results/attention.json`` holds."""
    return list(pre_norm())


def controls() -> list[Setting]:
    """What ``results/attention_controls.json`` holds."""
    return [*post_norm(), *skips()]


def more() -> list[Setting]:
    """What was asked besides."""
    return [*fashion_mnist(), *longer(), *pre_norm(LATER_SEEDS), *depth(), *tokens()]


def setting(study: str, config: ra.RunConfig, time: float, seed: int) -> Setting:
    """A configuration with the weight decay that gives the decay time, and its labels."""
    decay = float(f"{time / rates(config.train, images_of(config.data)):.6g}")
    changed = replace(config, train=replace(config.train, weight_decay=decay))
    labels = {"study": study, "S": time, "blocks": config.model.depth, "skip": config.model.skip_factors[0]}
    return labels, changed.with_seed(seed)


def images_of(data: ra.DataConfig) -> int:
    """Number of training images."""
    if data.per_class is None:
        return SIZES[data.name]
    assert isinstance(data.per_class, int)
    return 10 * data.per_class


def rates(train: ra.TrainConfig, images: int) -> float:
    """Σ_t η_t over all steps of a training."""
    total = train.epochs * -(-images // train.batch_size)
    return sum(learning_rate(train, (step + 0.5) / total) for step in range(total))


def changed_model(config: ra.RunConfig, **fields: object) -> ra.RunConfig:
    """The same run with other fields of the transformer."""
    assert isinstance(config.model, ra.TransformerConfig)
    return replace(config, model=replace(config.model, **fields))  # type: ignore[arg-type]


def measured(run: ra.Run) -> Row:
    """The views of the network and of its untrained twin; kept, for they take a third of the time."""
    row = _kept(run, "trained", asdict(run.config))
    start = {"data": asdict(run.config.data), "model": asdict(run.config.model), "seed": run.config.train.seed}
    twin = _kept(run, "untrained", start)  # one for all weight decays
    row["untrained"] = {name: {k: v for k, v in view.items() if k in BRIEF} for name, view in twin.items()}
    return row | {"alignment": row["sequence"]["alignment"]}  # which `swept` prints


def _kept(run: ra.Run, which: str, config: Row) -> Row:
    recipe = Recipe(
        name=f"attention-{which}-{run.config.data.name}",
        config=config | {"measured": 2},
        stages=("data", "models", "training"),
        files=("row.json",),
    )

    def make(folder: Path) -> None:
        write_json(folder / "row.json", views(run, run.model if which == "trained" else run.untrained))

    row: Row = read_json(get_or_make(recipe, make, data=run.data).folder / "row.json")
    return row


BRIEF = ("k", "alignment", "attention", "mlp", "across", "line_shape_score", "step_cv", "rank_drop")
PER_TOKEN = 10  # singular vectors a token in the view that was asked for afterwards
SMALL = 1024  # numbers in a state, up to which that view is taken


def views(run: ra.Run, model: ra.ResNet) -> Row:
    """A network's sums and whole blocks, sequence by sequence and at single tokens.

    ``measure_alignment`` compares K = 10 singular vectors if not told otherwise. "per token" compares 10 a token of the
    sequence, and its rank drop is σ_{K+1}/σ_1 in place of σ_{C+1}/σ_1.
    """
    one, two = run.data.sample(1)[0], run.data.sample(2)[0]
    found = {"sequence": seen(ra.measure_alignment(model, one))}
    if not isinstance(run.config.model, ra.TransformerConfig):
        return found
    tokens = (one.shape[-1] // run.config.model.patch) ** 2
    if tokens * run.config.model.width <= SMALL:
        k = PER_TOKEN * tokens
        found["per token"] = seen(ra.measure_alignment(model, one, k=k, rank=k + 1, num_classes=k))
    found["token"] = seen(ra.measure_alignment(model, two, tokens="auto"))
    if run.config.model.norm == "pre" and run.config.model.skip_factors[0]:
        whole = ra.whole_blocks(model)
        found["whole"] = seen(ra.measure_alignment(whole, one))
        found["whole token"] = seen(ra.measure_alignment(whole, two, tokens="auto"))
    return found


def seen(report: ra.AlignmentReport) -> Row:
    """The scores of one view; of two kinds of sums in turn, apart too. Sums that are dead at an input are left out."""
    summary = report.summary()
    row: Row = {"k": report.k} | {name: _plain(torch.tensor(summary[name])) for name in ("line_shape_score", "step_cv")}
    coupling, misalignment = (_live_mean(pairs, report.dead) for pairs in (report.coupling, report.misalignment))
    row["alignment"] = _plain(_off_diagonal(coupling))
    kinds = {"": slice(None)}
    if report.block_names[0].endswith("attention"):
        kinds = {"attention": slice(0, None, 2), "mlp": slice(1, None, 2)}
        row |= {kind: _plain(_off_diagonal(coupling[part, part])) for kind, part in kinds.items()}
        row["across"] = _plain((coupling[::2, 1::2] + coupling[1::2, ::2].mT).nanmean() / 2)
    drop = report.rank_drop.masked_fill(report.dead, float("nan"))
    row["rank_drop"] = {kind: _plain(drop[:, part].nanmean()) for kind, part in kinds.items()}
    row["misalignment"] = {kind: _plain(_off_diagonal(misalignment[part, part])) for kind, part in kinds.items()}
    row["top_singular_values"] = rounded(report.singular_values[..., 0].mean(0), 4)
    top = report.singular_values[..., 0].masked_fill(report.dead, float("nan"))
    row["inverse_fits"] = {kind: line(top[:, part]) for kind, part in kinds.items()}
    row["dead"] = rounded(report.dead.float().mean(0), 3)  # (L,), the share of inputs
    row["coupling"] = rounded(coupling, 3)
    return row


def _plain(value: Tensor) -> float | None:
    number: float | None = rounded(value)
    return number


def _live_mean(pairs: Tensor, dead: Tensor) -> Tensor:
    """Mean over inputs of (n, L, L), without those at which one of the two is dead (n, L); NaN if there are none."""
    return pairs.masked_fill(dead[:, :, None] | dead[:, None], float("nan")).nanmean(0)


def _off_diagonal(square: Tensor) -> Tensor:
    """Mean of what is known off the diagonal."""
    return square[~torch.eye(len(square), dtype=torch.bool, device=square.device)].nanmean()


def line(top: Tensor) -> Row:
    """Slope and R² of the line of 1/σ_1 (n, L) over the block, without those that are NaN, each a mean over inputs."""
    inverse = 1 / top.double()
    place = torch.arange(top.shape[1], dtype=torch.float64, device=top.device)
    place = torch.where(inverse.isnan(), torch.nan, place)
    place, inverse = (values - values.nanmean(1, keepdim=True) for values in (place, inverse))
    spread = place.square().nansum(1)
    slope = (inverse * place).nansum(1) / spread  # (n,)
    explained = slope.square() * spread / inverse.square().nansum(1)
    return {"slope": _plain(slope.mean()), "r2": _plain(explained.mean())}


def paper(images: int = 60_000, width: int = 192, blocks: Sequence[int] = (6, 12), epochs: int = 100) -> list[Setting]:
    """What a GPU would add: all images of Fashion-MNIST in 49 tokens, two depths, both norms, S, five seeds.

    The arguments are for a smoke test. By default 80 networks, of 2.7 or 5.3 million parameters.
    """
    data = ra.DataConfig("fashion_mnist", per_class=None if images == 60_000 else images // 10)
    train = replace(TRAIN, epochs=epochs, lr=1e-3, batch_size=512)
    return [
        setting(norm, ra.RunConfig(data, ra.TransformerConfig(deep, width, 4, 4, 4, norm), train), time, seed)
        for seed in range(5)
        for norm in ("pre", "post")
        for deep in blocks
        for time in TIMES
    ]


if __name__ == "__main__":
    PARTS = {"": recorded, "controls": controls, "more": more, "paper": paper}
    for part in sys.argv[1:] or ("", "controls"):
        device = "cuda" if part == "paper" and torch.cuda.is_available() else "cpu"
        rows = swept(PARTS[part](), measured, device=device)
        record(f"attention_{part}".rstrip("_"), f"python -m experiments.attention {part}".rstrip(), rows)
