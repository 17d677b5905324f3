"""Line charts: losses, as in the paper's Figures 6 to 8, mIoU by threshold, dead maps by epoch.

Legend: S seeds, T training steps, E epochs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sweeps.report.figures.svg import (
    FONT_SIZE,
    LEGEND_CHARACTERS,
    MARKERS,
    draw_svg,
    line_style,
    num_lines,
    wrapped,
)
from wsss.basics.printable import mean_of_seeds
from wsss.training.diagnosis.learning import MAX_DEAD

WIDTH, HEIGHT = 560, 350
"""Without the legend."""

Seeds = Sequence[Sequence[float]]
"""[S][T] or [S][E]: a quantity during training, one series per seed. One without its last records
is shorter; means are over what all have."""
Look = dict[str, Any]
"""How a line is drawn, and its label."""
LIMIT: Look = {"color": "black", "linewidth": 1.2, "dashes": (3, 3)}


def loss_curves(curves: Mapping[str, Seeds], steps_per_epoch: int) -> str:
    """Draw the loss L per training step, a line per configuration, as SVG.

    curves: label -> [S][T]. The pale line is the mean over seeds at every step, the strong one its
    moving average over an epoch.
    """
    num_steps = max(len(seed) for seeds in curves.values() for seed in seeds)

    def draw(axes: Axes, looks: Sequence[Look]) -> None:
        for seeds, look in zip(curves.values(), looks, strict=True):
            mean = _mean_over_seeds(seeds)
            steps = np.arange(1, len(mean) + 1)
            axes.plot(steps, mean, color=look["color"], alpha=0.35, linewidth=0.8)
            axes.plot(steps, moving_average(mean, steps_per_epoch), **look)
        axes.set(xlabel="training step", ylabel="loss L", xlim=(0, num_steps + 1))
        axes.grid(axis="y")

    explanation = f"pale: every step; strong: moving average over {steps_per_epoch} steps"
    return _chart(_with_seeds(curves), draw, explanation)


def threshold_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    fixed: float | None,
    limits: tuple[float, float],
) -> str:
    """Draw pseudo-label mIoU (percent) by background threshold, a line per configuration, as SVG.

    curves: label -> (thresholds, mIoU). A vertical line marks the fixed threshold, if all have the
    same, a marker each curve's best one within the limits.
    """
    low, high = limits

    def draw(axes: Axes, looks: Sequence[Look]) -> None:
        markers = MARKERS * len(curves)
        for (thresholds, mious), look, marker in zip(curves.values(), looks, markers, strict=False):
            within = [at for at, t in enumerate(thresholds) if low - 1e-6 <= t <= high + 1e-6]
            best = [max(within, key=mious.__getitem__)]
            axes.plot(thresholds, mious, marker=marker, markersize=8, markevery=best, **look)
        if fixed is not None:
            axes.axvline(fixed, **LIMIT)
            where = axes.get_xaxis_transform()
            axes.text(fixed, 1.01, f"fixed: {fixed:g}", ha="center", va="bottom", transform=where)
        axes.set_xlabel("background threshold on the normalised CAM")
        axes.set_ylabel("pseudo-label mIoU (%)")
        axes.grid()

    return _chart(curves, draw, "marker: best threshold, chosen on the masks that score it")


def dead_curves(curves: Mapping[str, Seeds]) -> str:
    """Draw the share of dead maps by epoch, mean over seeds, a line per configuration, as SVG.

    curves: label -> [S][E] in [0, 1]. The limit above which trainings are warned of is drawn over
    the second half of the longest one, where it holds.
    """
    longest, limit = max(len(seed) for seeds in curves.values() for seed in seeds), 100 * MAX_DEAD

    def draw(axes: Axes, looks: Sequence[Look]) -> None:
        for seeds, look in zip(curves.values(), looks, strict=True):
            mean = 100 * _mean_over_seeds(seeds)
            axes.plot(np.arange(1, len(mean) + 1), mean, marker="o", markersize=4, **look)
        axes.plot([1 + longest / 2, longest + 0.5], [limit] * 2, **LIMIT)
        where = axes.get_yaxis_transform()
        axes.text(1, limit + 1, f"limit: {limit:g} %", ha="right", va="bottom", transform=where)
        axes.set(xlabel="epoch", ylabel="empty maps of present classes (%)")
        axes.set(xlim=(0.5, longest + 0.5), ylim=(0, 104))  # so that a line at 100 % shows
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")

    return _chart(_with_seeds(curves), draw, "mean over seeds")


def _mean_over_seeds(seeds: Seeds) -> NDArray[np.float64]:
    """Return the mean over the steps or epochs that all seeds have: [S][T] -> [T]."""
    common = min(map(len, seeds))
    return np.mean([seed[:common] for seed in seeds], axis=0)


def _with_seeds(curves: Mapping[str, Seeds]) -> list[str]:
    """Return the curves' labels with their number of seeds."""
    return [f"{name} ({mean_of_seeds(len(seeds))})" for name, seeds in curves.items()]


def _chart(
    names: Iterable[str], draw: Callable[[Axes, Sequence[Look]], None], explanation: str
) -> str:
    """Return a chart of labelled lines as SVG, its legend below the axes, where it hides nothing.

    draw: gets the axes and a look for each name.
    """
    looks: list[Look] = []
    for index, name in enumerate(names):
        colour, dashes = line_style(index)
        look = {"color": colour, "dashes": dashes, "label": wrapped(name, LEGEND_CHARACTERS)}
        looks.append({**look, "linewidth": 2.2})

    def draw_all(figure: Figure) -> None:
        axes = figure.add_subplot()
        draw(axes, looks)
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside lower left",
            handlelength=3.6,
            title=explanation,
            alignment="left",
            title_fontsize=FONT_SIZE - 1,
        )

    legend = 1.5 * FONT_SIZE * sum(num_lines(look["label"]) for look in looks)
    return draw_svg(draw_all, width=WIDTH, height=HEIGHT + legend)


def moving_average(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """Return the centred moving average of a series [T] -> [T].

    Step i is averaged over i - window // 2 to i + window // 2, so an even window counts as the next
    odd one; at both ends over those of these steps that exist.
    """
    series = np.asarray(values, dtype=np.float64)
    half = min(window // 2, len(series) - 1)
    sums, counts = (
        np.convolve(terms, np.ones(2 * half + 1))[half : half + len(series)]
        for terms in (series, np.ones(len(series)))
    )
    return sums / counts
