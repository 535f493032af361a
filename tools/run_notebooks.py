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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.context import SpawnProcess
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


class Painter:
    """Draws figures in a process of its own: a browser that hangs can be waited for by no other means, and is ended."""

    def __init__(self, limit: float = 120, draw: Callable[[dict[str, Any]], str] | None = None) -> None:
        """``limit``: seconds for one figure and the start of the browser; ``draw``: by default Kaleido."""
        self.limit, self._draw = limit, draw or _drawn
        self._worker: SpawnProcess | None = None
        self._line: Any = None

    def png(self, figure: dict[str, Any]) -> str:
        """The figure as a base64 PNG.

        Raises:
            TimeoutError: two processes, one after the other, did not draw it in time.
            RuntimeError: it cannot be drawn.
        """
        for _ in range(2):
            if self._worker is None:
                self._start()
            self._line.send(figure)
            try:
                if self._line.poll(self.limit):
                    png, error = self._line.recv()
                    if error:
                        raise RuntimeError(error)
                    return str(png)
                why = f"was not drawn in {self.limit:g} s"
            except EOFError:
                why = "ended the process that drew it"
            self._end()
        raise TimeoutError(f"{why}, in two tries")

    def close(self) -> None:
        """Let the browser go, by force if it stays."""
        if self._worker is not None:
            self._line.send(None)
            self._worker.join(20)
            self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, other = context.Pipe()
        self._worker = context.Process(target=_paint, args=(other, self._draw))
        self._worker.start()
        other.close()  # so that the end of the process is seen on the line

    def _end(self) -> None:
        """End the process and all that it started."""
        import psutil  # type: ignore[import-untyped]  # comes with ipykernel

        if self._worker is None:
            return
        try:
            family = psutil.Process(self._worker.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self._worker.kill()
        self._worker.join()
        for child in family:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._line.close()
        self._worker = None


def _paint(line: Any, draw: Callable[[dict[str, Any]], str]) -> None:
    """What the process of a `Painter` does: a figure in, a picture or an error out."""
    while (figure := line.recv()) is not None:
        try:
            line.send((draw(figure), ""))
        except Exception as error:
            line.send(("", f"{type(error).__name__}: {error}"))


def _drawn(figure: dict[str, Any]) -> str:
    import kaleido  # type: ignore[import-untyped]

    kaleido.start_sync_server(silence_warnings=True)  # one browser for all figures: a second call does nothing
    return png_of(figure)


def add_pngs(paths: list[Path], painter: Painter | None = None) -> list[str]:
    """A picture beside each stored Plotly figure, for readers whose viewer (GitHub) draws no Plotly.

    Returns what could not be drawn, in words; such a figure has no picture then.
    """
    painter, failed = painter or Painter(), list[str]()
    try:
        for path in paths:
            nb = nbformat.read(path, as_version=4)
            for number, cell in enumerate(nb.cells, 1):
                for data in (out.get("data", {}) for out in cell.get("outputs", [])):
                    if PLOTLY in data:
                        failed += _add_png(data, f"{path}: cell {number}, {_figure_name(cell)}", painter)
            _write(nb, path)
    finally:
        painter.close()
    return failed


def _add_png(data: Any, where: str, painter: Painter) -> list[str]:
    """Put the picture into an output; returns why not, in a list of one."""
    data.pop("image/png", None)
    try:
        data["image/png"] = painter.png(data[PLOTLY])
    except TimeoutError as error:
        fix = "Run this notebook again when the machine is less busy, with a longer --png-timeout, or with --no-png."
        return [f"{where} {error}. {fix}"]
    except RuntimeError as error:
        return [f"{where} cannot be drawn: {error}"]
    return []


def _figure_name(cell: Any) -> str:
    name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
    return f"figure {name}" if name else "a figure without name"


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
    parser.add_argument("--png-timeout", type=float, default=120, help="seconds for one picture, twice")
    parser.add_argument("paths", nargs="*", type=Path, help="default: the notebooks of _toc.yml")
    return parser.parse_args()


def main() -> int:
    """Run, add pictures, check; 1 if anything is wrong."""
    options = arguments()
    paths = [path.resolve() for path in options.paths] or toc_notebooks()
    failed = [] if options.check else run_all(paths, jobs=options.jobs, timeout=options.timeout)
    if not options.check and not options.no_png and not failed:
        failed = add_pngs(paths, Painter(options.png_timeout))
    found = failed or ([] if options.no_png else check(paths))
    print("\n".join(found) or f"{len(paths)} notebooks: no problem found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
