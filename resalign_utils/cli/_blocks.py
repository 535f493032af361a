"""``resalign blocks``: where a network adds."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from ..residuals import find_blocks
from ._inputs import open_inputs
from ._networks import open_network
from ._output import show

TRIED = 2  # inputs: enough to see which rows belong together


def run(args: Namespace) -> None:
    """Print the table of blocks."""
    network = open_network(args)
    given = open_inputs(network, args, random=TRIED)
    table = find_blocks(network.model, given.data, blocks=args.blocks, exclude=args.exclude)
    content = {
        "model": args.model,
        "blocks": [asdict(block) for block in table],
        "others": [asdict(other) for other in table.others],
        "note": table.note,
    }
    text = f"{args.model}: {len(table)} residual blocks at {given.says}\n{table}"
    show(text, (), content, machine=args.json)
