"""An empty figure to draw on."""

from __future__ import annotations

from typing import Any

from melcap.extras import import_extra

INSTALL = 'pip install "melcap[plot]"'


def new_figure(width: float, height: float, dpi: int = 130) -> Any:
    """A matplotlib figure of so many inches, drawn without a screen, whatever the user has set.

    Raises `MelcapError` where matplotlib is not installed.
    """
    figure_module = import_extra("matplotlib.figure", INSTALL)
    agg = import_extra("matplotlib.backends.backend_agg", INSTALL)
    figure = figure_module.Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure
