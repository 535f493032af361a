"""``resalign poc``: what to try first on one's own data."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import asdict

from .. import __version__
from ..diagnosis import ProofOfConcept, proof_of_concept
from ._networks import device_of
from ._output import as_json, check_outputs, show


def run(args: Namespace) -> None:
    """Compare, print the summary, write what was asked for."""
    check_outputs(args.out)
    proof = proof_of_concept(
        args.data,
        target=args.target,
        seeds=args.seeds,
        image_size=args.image_size,
        test_share=args.test_share,
        depth=args.depth,
        width=args.width,
        epochs=args.epochs,
        lr=args.lr,
        margin=args.margin,
        device=device_of(args.device),
    )
    content = _content(proof)
    for path in args.out:
        suffix = path.suffix.lower()
        if suffix == ".csv":
            proof.to_frame().to_csv(path, index=False)
        elif suffix == ".html":
            proof.figure().write_html(path)
        else:
            path.write_text(as_json(content) + "\n", encoding="utf-8")
    wrote = "".join(f"\nWritten: {path}" for path in args.out)
    show(proof.summary() + wrote, (), content, machine=args.json)


def _content(proof: ProofOfConcept) -> dict[str, object]:
    differences = [
        {name: _plain(value) for name, value in asdict(each).items()} | {"covers_zero": bool(each.covers_zero)}
        for each in proof.differences
    ]
    return {
        "resalign_utils": __version__,
        "data": proof.described,
        "decided_by": proof.decided_by,
        "choice": proof.choice,
        "best": proof.best,
        "recommendation": proof.recommendation,
        "rule": proof.rule,
        "differences": differences,
        "runs": [{name: _plain(value) for name, value in asdict(run).items()} for run in proof.runs],
        "notes": [*proof.notes],
    }


def _plain(value: object) -> object:
    """As JSON has it: NumPy's numbers as Python's, NaN as None."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
