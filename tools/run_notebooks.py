"""Run notebooks and keep their stored form clean.

python -m tools.run_notebooks                  # all of _toc.yml in place, with PNG fallbacks (needs Chromium)
python -m tools.run_notebooks --no-png PATH…   # these in place, without a browser
python -m tools.run_notebooks --check          # run nothing, check what is stored
"""

from __future__ import annotations

import argparse
import base64
import io
import multiprocessing
import os
import re
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat

from tools.notebook_rules import PLOTLY, ROOT, problems, toc_notebooks

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3", "file_extension": ".py"},
}
# Stored figures are Plotly's own JSON, whatever the shell prefers; progress bars are not results.
FORCED = {"PLOTLY_RENDERER": "plotly_mimetype", "TQDM_DISABLE": "1"}
# Two processes of one thread beat one of two threads, and sums come out in one order.
DEFAULTS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def set_environment() -> None:
    """What a kernel inherits; conftest.py calls it too, so that nbval runs under the same conditions."""
    os.environ.update(FORCED)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # A reader's own start-up files for IPython must not change the book.
    folder = ROOT / "_build" / "ipython"
    folder.mkdir(parents=True, exist_ok=True)  # IPython warns where it is not there
    os.environ["IPYTHONDIR"] = str(folder)


def _kernel_manager_class() -> type:
    """Kernels of *this* Python; an installed kernelspec called python3 may belong to another one."""
    from ipykernel.kernelspec import make_ipkernel_cmd
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            command = make_ipkernel_cmd(extra_arguments=["--log-level=ERROR"])
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    return ThisPython


def execute(nb: Any, folder: Path, timeout: int) -> None:
    """Run all cells of `nb` with `folder` as working directory; raises on the first cell that raises."""
    from nbclient import NotebookClient

    client = NotebookClient(
        nb,
        kernel_manager_class=_kernel_manager_class(),  # a manager passed as km= would not be shut down
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # else the stored outputs depend on how the operating system cut the stream
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def normalise(nb: Any) -> None:
    """Leave out what differs from machine to machine and says nothing."""
    nb.metadata = nbformat.from_dict(METADATA)
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        for out in cell.get("outputs", []):
            figure = out.get("data", {}).get(PLOTLY, {})
            figure.get("config", {}).pop("plotlyServerURL", None)
            if "config" in figure and not figure["config"]:
                del figure["config"]


def run_one(path: Path, timeout: int) -> str | None:
    """Run one notebook in place. Returns None, or which cell failed and how; it runs in a worker process."""
    name, start = path.stem, time.perf_counter()
    print(f"  {name} is running …", flush=True)
    nb = nbformat.read(path, as_version=4)
    error = _run_cells(nb, path.parent, timeout)
    normalise(nb)
    _write(nb, path)
    seconds = time.perf_counter() - start
    print(f"  {name} {'FAILED' if error else 'done'} after {seconds:.0f} s", flush=True)
    return f"{path}: {error}" if error else None


def _run_cells(nb: Any, folder: Path, timeout: int) -> str | None:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    try:
        execute(nb, folder, timeout)
    except CellExecutionError as error:
        trace = ANSI.sub("", "\n".join(str(error.traceback).splitlines()[-25:]))
        return f"{_failed_cell(nb)} raised {error.ename}: {error.evalue}\n{trace}"
    except CellTimeoutError:
        return f"{_failed_cell(nb)} took more than {timeout} s (change it with --timeout)"
    except DeadKernelError as error:
        return f"{_failed_cell(nb)}: the kernel died ({error}); was there enough memory?"
    return None


def _failed_cell(nb: Any) -> str:
    """The last cell that was started: nbclient clears the outputs and counts of those that were not."""
    code = [(i, cell) for i, cell in enumerate(nb.cells, 1) if cell.cell_type == "code"]
    errors = [i for i, cell in code if any(out.output_type == "error" for out in cell.outputs)]
    started = [i for i, cell in code if cell.execution_count]
    return f"cell {(errors or started or [1])[-1]}"


def _write(nb: Any, path: Path) -> None:
    """Replace the file in one step, so that an interrupted run leaves the old one whole."""
    temporary = path.with_name(f".{path.name}.part")
    nbformat.write(nb, temporary)
    temporary.replace(path)


def run_all(paths: list[Path], *, jobs: int = 2, timeout: int = 1800) -> list[str]:
    """Run notebooks in place, `jobs` at a time; returns what failed, in words."""
    set_environment()
    print(f"Running {len(paths)} notebooks, {jobs} at a time", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        results = [pool.submit(run_one, path, timeout) for path in paths]
        return [error for result in results if (error := result.result())]


def add_pngs(paths: list[Path]) -> None:
    """A picture beside each stored Plotly figure, for readers whose viewer (GitHub) draws no Plotly."""
    import kaleido  # type: ignore[import-untyped]

    kaleido.start_sync_server(silence_warnings=True)  # one browser for all figures
    try:
        for path in paths:
            nb = nbformat.read(path, as_version=4)
            outputs = [out.get("data", {}) for cell in nb.cells for out in cell.get("outputs", [])]
            for data in outputs:
                if PLOTLY in data:
                    data["image/png"] = png_of(data[PLOTLY])
            _write(nb, path)
    finally:
        kaleido.stop_sync_server(silence_warnings=True)


def png_of(figure: dict[str, Any]) -> str:
    """The stored figure as a base64 PNG, at its own size or the book's."""
    import plotly.graph_objects as go

    spec = {key: figure[key] for key in ("data", "layout") if key in figure}
    size = {key: spec["layout"].get(key) or default for key, default in (("width", 700), ("height", 450))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plotly's notes on its own kaleido interface
        png = go.Figure(spec, skip_invalid=True).to_image(format="png", scale=1, **size)
    return base64.b64encode(smaller(png)).decode() + "\n"


def smaller(png: bytes) -> bytes:
    """The same picture in 256 colours of its own, a third of the size."""
    from PIL import Image

    picture, file = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    few = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    few.save(file, "PNG", optimize=True)
    return file.getvalue()


def check(paths: list[Path]) -> list[str]:
    """All problems of all stored notebooks, each with its notebook's name."""
    return [f"{path.name}: {text}" for path in paths for text in problems(path)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="run nothing, check what is stored")
    parser.add_argument("--no-png", action="store_true", help="add no PNG fallbacks (no browser needed)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for one cell")
    parser.add_argument("paths", nargs="*", type=Path, help="default: the notebooks of _toc.yml")
    return parser.parse_args()


def main() -> int:
    """Run, add pictures, check; 1 if anything is wrong."""
    options = arguments()
    paths = [path.resolve() for path in options.paths] or toc_notebooks()
    failed = [] if options.check else run_all(paths, jobs=options.jobs, timeout=options.timeout)
    if not options.check and not options.no_png and not failed:
        add_pngs(paths)
    found = failed or ([] if options.no_png else check(paths))
    print("\n".join(found) or f"{len(paths)} notebooks: no problem found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
