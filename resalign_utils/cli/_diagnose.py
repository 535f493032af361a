"""``resalign diagnose``: a network, inputs, and what is found."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..diagnosis import Diagnosis, diagnose
from ._inputs import Given, open_inputs
from ._networks import Network, function_of, open_network
from ._output import as_json, check_outputs, show


def run(args: Namespace) -> None:
    """Diagnose, print the summary, write what was asked for."""
    check_outputs(args.out)
    null = args.null if args.null == "reinitialised" else None if args.null == "none" else function_of(args.null)
    network = open_network(args)
    given = open_inputs(network, args)
    if not args.json:
        print(_opening(network, given), flush=True)
    found = diagnose(
        network.model,
        given.data,
        labels=given.labels,
        null=null,
        budget=args.budget,
        blocks=args.blocks,
        exclude=args.exclude,
        tokens=args.tokens,
        k=args.k,
        seed=args.seed,
        progress=sys.stderr.isatty(),
    )
    summary, notes = (
        found.summary(),
        _notes(network, given),
    )  # the notes are printed already, and belong to what is kept
    found = replace(found, notes=(*notes, *found.notes))
    content = {"resalign_utils": __version__, "command": _facts(args, network, given), "diagnosis": found.to_dict()}
    for path in args.out:
        _write(found, path, as_json(content))
    wrote = "".join(f"\nWritten: {path}" for path in args.out)
    show(f"\n{summary}{wrote}", notes, content, machine=args.json)


def _opening(network: Network, given: Given) -> str:
    lines = [f"Network: {network.spec}", f"Weights: {network.weights}", f"Inputs: {given.says}"]
    return "\n".join(lines + [f"Note: {note}" for note in given.notes])


def _notes(network: Network, given: Given) -> list[str]:
    return [*([network.weights] if network.untrained else []), *given.notes]


def _facts(args: Namespace, network: Network, given: Given) -> dict[str, object]:
    return {
        "model": network.spec,
        "weights": network.weights,
        "untrained": network.untrained,
        "inputs": given.says,
        "random_inputs": bool(args.random),
        "labelled": given.labels is not None,
        "notes": _notes(network, given),
        "seed": args.seed,
        "budget": args.budget,
    }


def _write(found: Diagnosis, path: Path, text: str) -> None:
    suffix = path.suffix.lower()
    if suffix == ".html":
        found.to_html(path)
    elif suffix == ".json":
        path.write_text(text + "\n", encoding="utf-8")
    else:
        found.save(path)
