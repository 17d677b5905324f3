"""The figures of a report: pure functions from numbers to inline SVG text.

figures_lines.py losses and thresholds · figures_dead.py empty maps · figures_oscillation.py how
smooth a loss is · figures_heatmap.py tables as maps · figures_rows.py dots, bars and intervals ·
figures_svg.py what they share: theme, ids, escaping.
"""

from sweeps.report.figures.dead import DeadCurve, dead_curves
from sweeps.report.figures.heatmap import heatmap
from sweeps.report.figures.lines import (
    LossCurve,
    ThresholdCurve,
    loss_curves,
    threshold_curves,
)
from sweeps.report.figures.oscillation import oscillation
from sweeps.report.figures.rows import (
    DotRow,
    OscillationRow,
    cell_dots,
    oscillation_bars,
    per_class_differences,
)

__all__ = [
    "DeadCurve",
    "DotRow",
    "LossCurve",
    "OscillationRow",
    "ThresholdCurve",
    "cell_dots",
    "dead_curves",
    "heatmap",
    "loss_curves",
    "oscillation",
    "oscillation_bars",
    "per_class_differences",
    "threshold_curves",
]
