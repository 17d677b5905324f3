"""The figure of dead maps: their share by epoch, a line per configuration.

Legend: S seeds, E epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sweeps.report.figures.svg import (
    FONT_SIZE,
    INK,
    LEGEND_CHARACTERS,
    draw_svg,
    legend_below,
    line_style,
    mean_of_seeds,
    num_lines,
    wrapped,
)
from wsss.training.dead_maps import MAX_DEAD

WIDTH = 560


@dataclass(frozen=True)
class DeadCurve:
    """The share of dead maps of one configuration after every epoch."""

    label: str
    shares: Sequence[Sequence[float]]
    """[S][E] in [0, 1], one series per seed; a seed whose training was cut short has fewer."""


def dead_curves(curves: Sequence[DeadCurve], *, name: str, title: str) -> str:
    """Share of dead maps (percent) by epoch, one line per configuration, as SVG.

    A pale line is a seed, the strong one their mean while all go on. The limit of which a training
    is warned is drawn where it holds, in the second half of the longest one.
    """
    labels = [
        wrapped(f"{curve.label} ({mean_of_seeds(len(curve.shares))})", LEGEND_CHARACTERS)
        for curve in curves
    ]
    longest = max((len(seed) for curve in curves for seed in curve.shares), default=1)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for index, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            colour, dashes = line_style(index)
            for seed in curve.shares if len(curve.shares) > 1 else ():
                axes.plot(_epochs(seed), _percent(seed), color=colour, alpha=0.35, linewidth=0.8)
            common = min(map(len, curve.shares))
            mean = np.mean([seed[:common] for seed in curve.shares], axis=0)
            axes.plot(
                _epochs(mean), _percent(mean), color=colour, dashes=dashes, linewidth=2.2,
                marker="o", markersize=4, label=label,
            )  # fmt: skip
        limit = [1 + longest / 2, longest + 0.5]
        axes.plot(limit, [100 * MAX_DEAD] * 2, color=INK, linewidth=1.2, dashes=(3, 3))
        axes.annotate(
            f"limit: {100 * MAX_DEAD:g} %", (1, 100 * MAX_DEAD), xycoords=("axes fraction", "data"),
            xytext=(0, 3), textcoords="offset points", ha="right", va="bottom",
        )  # fmt: skip
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_ylim(0, 104)  # a line at 100 % is seen
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("empty maps of present classes (%)")
        axes.grid(axis="y")
        legend_below(figure, axes, "pale: a seed; strong: their mean", labels)

    return draw_svg(
        draw, name=name, title=title, width=WIDTH,
        height=300 + 1.5 * FONT_SIZE * sum(map(num_lines, labels)),
    )  # fmt: skip


def _epochs(shares: Sequence[float]) -> range:
    return range(1, len(shares) + 1)


def _percent(shares: Sequence[float]) -> list[float]:
    return [100 * share for share in shares]
