"""What a diagnosis of a foreign network costs, stage by stage."""

from __future__ import annotations

import torch
from torch import nn

import resalign_utils as ra

from .memory import in_child, measured
from .operators import warm_up
from .plan import Plan
from .recording import Row, Table, integer, key, median_of, megabytes, number

INPUTS = 10


def diagnosis(plan: Plan) -> list[Table]:
    """One process for each network, so that peak memory is its own."""
    side, budget = (64, 10) if plan.quick else (224, 300)
    rows: list[Row] = []
    for name in ("resnet18",) if plan.quick else ("resnet50", "vit_tiny_patch16_224", "efficientnet_b0"):
        task = f"{name}, {INPUTS} inputs 3 × {side} × {side}"
        if plan.goes_on(task):
            found = in_child(diagnosed, name, side, budget, str(plan.device), number=plan.threads)
            rows.append({"task": task} | found)
    columns = {
        "task": key("task"),
        "blocks": integer("blocks"),
        "seconds": median_of(),
        "of the trace": number("trace", ".1f"),
        "of the twin": number("twin", ".1f"),
        "of the blocks' worth": number("worth", ".1f"),
        "of the triplets": number("triplets", ".1f"),
        "inputs with triplets": integer("inputs"),
        "peak memory, MB": megabytes("peak_bytes"),
        "find_blocks, seconds": number("finding", ".2f"),
    }
    note = (
        "Untrained networks, `ra.diagnose` at its defaults, with a budget of five minutes; seconds of all stages, of "
        "one run. The last column is of `ra.find_blocks` alone, at two inputs."
    )
    return [Table("A diagnosis of a foreign network", columns, rows, note)]


def diagnosed(name: str, side: int, budget: float, device: str) -> Row:
    """``ra.diagnose`` of one network, after ``ra.find_blocks`` at two inputs."""
    warm_up(device)
    torch.manual_seed(0)
    model = foreign(name, side).eval().to(device)
    x = torch.randn(INPUTS, 3, side, side, device=device)
    finding = measured(lambda: ra.find_blocks(model, x[:2]), device)
    found = measured(lambda: ra.diagnose(model, x, budget=budget, progress=False), device)
    result = found.pop("result")
    stages, report = result.settings["seconds"], result.measured.alignment
    return found | {
        "blocks": len(result.blocks),
        "trace": stages["trace"],
        "twin": stages["untrained twin"],
        "worth": stages["worth"],
        "triplets": stages["triplets"],
        "inputs": 0 if report is None else len(report.alignment) // report.tokens_per_input,
        "finding": finding["seconds"][0],
    }


def foreign(name: str, side: int) -> nn.Module:
    """A network of torchvision or timm, untrained."""
    import timm
    from torchvision import models

    if hasattr(models, name):
        made: nn.Module = getattr(models, name)(weights=None)
        return made
    return timm.create_model(name, pretrained=False, img_size=side)
