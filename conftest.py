"""What every pytest run shares: one environment for kernels, and what nbval does not compare."""

from pathlib import Path

from tools.run_notebooks import set_environment

ROOT = Path(__file__).resolve().parent
NOT_COMPARED = (
    "application/vnd.plotly.v1+json",  # a figure: exact JSON with last-bit floats and plotly's own template
    "stderr",  # library chatter is no result; tools/notebook_rules.py refuses it where it is stored
    "image/svg+xml",  # a picture, like PNG and JPEG, which nbval leaves out itself
    "application/papermill.record/text/plain",
    "application/papermill.record/text/html",  # a glued value, stored to sixteen digits
)

set_environment()


def pytest_configure(config):
    """A bare `pytest --nbval notebooks` compares as `make test` does, with this environment's Python."""
    if getattr(config.option, "nbval", False):
        config.option.nbval_current_env = True
        config.option.nbval_sanitize_with = str(ROOT / ".nbval-sanitize.cfg")


def pytest_collectstart(collector):
    """The hook that nbval documents for this."""
    if type(collector).__name__ == "IPyNbFile":
        collector.skip_compare += NOT_COMPARED
