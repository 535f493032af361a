"""What a page of one's own needs to draw figures without a network: their JSON, and plotly.js itself."""

from __future__ import annotations

import base64
import gzip
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@cache
def packed_plotly() -> str:
    """The plotly.js of the installed Plotly, compressed (gzip) and in base64: 2 MB instead of 4.8."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def figure_json(figure: go.Figure) -> str:
    """A figure's JSON, as it may stand in a script element: nothing in it can close the element."""
    text: str = figure.to_json()
    return text.replace("<", "\\u003c")
