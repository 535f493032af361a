"""What the tests of figures share: small inputs for every function, and how to look a figure over."""

import math

import numpy as np
import torch

from resalign_utils import plotting

NAMES = ("trained", "untrained", "no skip")
LABELS = torch.tensor([0, 2, 2, 0, 7, 2])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def states(inputs=6, blocks=4, dims=2):
    """The no-skip network has one block less, as in the book."""
    return {name: random(inputs, blocks + 1 - (name == "no skip"), dims, seed=i) for i, name in enumerate(NAMES)}


def sigmas(inputs=5, blocks=4, rank=6):
    return {name: random(inputs, blocks, rank, seed=i).abs().sort(-1, True).values for i, name in enumerate(NAMES)}


FILM = {epoch: random(6, 4, 2, seed=epoch) * 10 ** (2 - epoch) for epoch in (0, 1, 2, 5)}
GRIDS = {name: random(7, 7, 3, 3, seed=i) for i, name in enumerate(NAMES)}
SCORES = {name: random(5, 5, seed=i).clamp(-1, 1) for i, name in enumerate(NAMES)}
IMAGES = {"digits, v_1": random(4, 8, 8), "blobs": random(4, 14, 10, seed=1), "no skip": random(4, 2, 3, seed=2)}
STAGES = ("image", "block 1", "block 3", "x_i")
TOPS = {name: values[..., 0] for name, values in sigmas().items()}
FITS = {"trained": (1.25, -0.5, 0.99), "no skip": (-0.03, 2.0, 0.1)}
LAW = {"trained": ([4, 8, 16], random(3, 3).exp()), "wide": ([8, 16], torch.tensor([0.5, 0.25]))}
LINES = {"trained": ([1, 2, 3], random(4, 3).exp()), "loss": ([1, 2, 3], [3.0, math.nan, 1.0])}
ROWS = {"a": {"on": {"trained": random(3), "no skip": random(3)}, "off": {"trained": random(3)}}, "b": {"2": [0.25]}}
GAINS = {f"a − {i}": (random(3, seed=i) + 1, 1.0, -0.5, 2.5 + i) for i in range(5)}
LENGTHS = {"trained": torch.tensor([1.0, 5, 10, 10, 5, 1]) / 32, "no skip": torch.eye(12)[11]}
DOTS = {"a": {"trained": (random(5).exp(), random(5)), "no skip": (random(3).exp(), random(3))}, "b": {"x": ([1], [2])}}
MARKS = {"x_marks": {"limit": 2}, "y_marks": {"aligned": 0.5}}
XY = {"x_label": "epoch", "y_label": "loss"}
CASES = {
    "trajectories": (plotting.trajectories, (states(), LABELS), {}),
    "trajectories 3-D": (plotting.trajectories, (states(dims=3), LABELS), {}),
    "film": (plotting.trajectories_over_training, (FILM, LABELS), {}),
    "two films": (plotting.trajectories_over_training, ({"trained": FILM, "no skip": FILM}, LABELS), {}),
    "grid": (plotting.coupling_grid, (GRIDS,), {}),
    "scores": (plotting.score_matrix, (SCORES,), {}),
    "images": (plotting.image_grid, (IMAGES,), {"columns": STAGES}),
    "spectra": (plotting.spectra, (sigmas(), 3), {}),
    "inverse": (plotting.inverse_singular_values, (TOPS,), {"fits": FITS}),
    "law": (plotting.depth_law, (LAW,), {"fits": {"trained": (-1.02, 0.05)}}),
    "curves": (plotting.curves, (LINES,), XY | {"reference": {"null": 0.5}}),
    "curve panels": (plotting.curve_panels, ({"loss": LINES, "‖h_ℓ‖": LINES},), {"x_label": "epoch", "log_y": True}),
    "dots": (plotting.condition_dots, (ROWS,), {"x_label": "alignment", "reference": {"baseline": 0.5}}),
    "differences": (plotting.difference_dots, (GAINS,), {"x_label": "gain, points"}),
    "bars": (plotting.bars, (LINES,), XY),
    "path lengths": (plotting.path_lengths, (LENGTHS,), {}),
    "points": (
        plotting.point_panels,
        (DOTS,),
        XY | {"log_x": True, "x_marks": {"limit": 2}, "y_marks": {"aligned": 0.5}},
    ),
    "unit paths": (plotting.unit_paths, ({"channel-wise": [[1, 0], [0, 1]]}, {"channel-wise": [[0, 1]]}), {}),
}


def draw(name, **more):
    function, arguments, options = CASES[name]
    return function(*arguments, **options, **more)


def named(figure, name):
    (trace,) = [trace for trace in getattr(figure, "data", figure) if trace.name == name]
    return trace


def note(figure):
    return figure.layout.legend.title.text or ""


def close(drawn, given, atol=0.0):
    np.testing.assert_allclose(np.asarray(drawn, dtype=float), np.asarray(given, dtype=float), rtol=1e-5, atol=atol)


def clashes(figure):
    """Pairs of entries of one panel that a reader could not tell apart: for lines, colour and dash; else and symbol."""
    figure = figure if isinstance(figure, dict) else figure.to_plotly_json()
    seen, found = {}, []
    for trace in figure["data"]:
        look, entry = _look(trace), trace.get("legendgroup") or trace.get("name")
        if look is None or entry is None or (trace.get("showlegend") is False and not trace.get("legendgroup")):
            continue
        panel = trace.get("scene") or trace.get("xaxis", "x") + trace.get("yaxis", "y")
        other = seen.setdefault((panel, look), entry)
        found += [(panel, other, entry)] if other != entry else []
    return found


def _look(trace):
    line, marker, mode = trace.get("line", {}), trace.get("marker", {}), trace.get("mode", "")
    if trace["type"] == "bar":
        return "bar", marker.get("color")
    if "lines" in mode:
        return "line", line.get("color"), line.get("dash", "solid")
    if mode == "markers" and isinstance(marker.get("color"), str):
        return "mark", marker["color"], marker.get("symbol", "circle")
    return None
