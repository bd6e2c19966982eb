"""New matplotlib figures, drawn without a screen."""

from __future__ import annotations

from typing import Any

from melcap.extras import import_extra

INSTALL = 'pip install "melcap[plot]"'


def new_figure(width: float, height: float, dpi: int = 130) -> Any:
    """Return an empty matplotlib figure that needs no screen, whatever backend the user has set.

    Args:
        width: in inches.
        height: in inches.
        dpi: pixels per inch.

    Raises:
        MelcapError: where matplotlib is not installed.
    """
    figure_module = import_extra("matplotlib.figure", INSTALL)
    agg = import_extra("matplotlib.backends.backend_agg", INSTALL)
    figure = figure_module.Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure
