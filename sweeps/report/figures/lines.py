"""Line charts: losses, as in the paper's Figures 6 to 8, mIoU by threshold, dead maps by epoch.

Legend: S seeds, T training steps, E epochs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sweeps.report.figures.svg import (
    FONT_SIZE,
    INK,
    LEGEND_CHARACTERS,
    MARKERS,
    LineStyle,
    draw_svg,
    line_style,
    num_lines,
    wrapped,
)
from wsss.basics.printable import mean_of_seeds
from wsss.training.diagnosis.learning import MAX_DEAD

WIDTH = 560
MAX_DRAWN_POINTS = 500
MAX_MARKED_EPOCHS = 20


@dataclass(frozen=True)
class SeedCurve:
    """A quantity of one configuration during training."""

    label: str
    seeds: Sequence[Sequence[float]]
    """[S][T] or [S][E], one series per seed."""


@dataclass(frozen=True)
class ThresholdCurve:
    """Pseudo-label mIoU (percent) of one configuration by background threshold."""

    label: str
    thresholds: Sequence[float]
    miou: Sequence[float]


def loss_curves(curves: Sequence[SeedCurve], steps_per_epoch: int, *, name: str, title: str) -> str:
    """Draw the loss L per training step [S][T], a line per configuration, as SVG.

    The pale line is the mean over seeds at every step, the strong one its moving average over an
    epoch. Raises ValueError if a curve has no seed or its seeds differ in length.
    """
    means = [_mean_over_seeds(curve) for curve in curves]
    longest = max(map(len, means))
    labels = [_label(curve.label, len(curve.seeds)) for curve in curves]

    def draw(axes: Axes) -> None:
        for index, (mean, label) in enumerate(zip(means, labels, strict=True)):
            _draw_loss(axes, mean, steps_per_epoch, line_style(index), label)
        axes.set_xlabel("training step")
        axes.set_ylabel("loss L")
        axes.set_xlim(0, longest + 1)
        axes.grid(axis="y")
        _mark_epochs(axes, steps_per_epoch, longest)

    explanation = f"pale: every step; strong: moving average over {steps_per_epoch} steps"
    return _chart(draw, labels, explanation, name=name, title=title)


def threshold_curves(
    curves: Sequence[ThresholdCurve], fixed: float, *, name: str, title: str
) -> str:
    """Draw pseudo-label mIoU (percent) by background threshold, a line per configuration, as SVG.

    A vertical line marks the fixed threshold, a marker each curve's best one.
    """
    labels = [wrapped(curve.label, LEGEND_CHARACTERS) for curve in curves]

    def draw(axes: Axes) -> None:
        for index, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            _draw_thresholds(axes, curve, line_style(index), MARKERS[index % len(MARKERS)], label)
        axes.axvline(fixed, color=INK, linewidth=1.2, dashes=(3, 3))
        axes.annotate(
            f"fixed: {fixed:g}",
            (fixed, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
        )
        axes.set_xlabel("background threshold on the normalised CAM")
        axes.set_ylabel("pseudo-label mIoU (%)")
        axes.grid()

    explanation = "marker: best threshold, chosen on the masks that score it"
    return _chart(draw, labels, explanation, name=name, title=title)


def dead_curves(curves: Sequence[SeedCurve], *, name: str, title: str) -> str:
    """Draw the share of dead maps by epoch, [S][E] in [0, 1], a line per configuration, as SVG.

    A training that ended early has a shorter series. A pale line is a seed, the strong one their
    mean over the epochs that all have. The limit above which trainings are warned of is drawn over
    the second half of the longest one, where it holds.
    """
    labels = [_label(curve.label, len(curve.seeds)) for curve in curves]
    longest = max(len(seed) for curve in curves for seed in curve.seeds)

    def draw(axes: Axes) -> None:
        for index, (curve, label) in enumerate(zip(curves, labels, strict=True)):
            _draw_dead(axes, curve, line_style(index), label)
        limit = [1 + longest / 2, longest + 0.5]
        axes.plot(limit, [100 * MAX_DEAD] * 2, color=INK, linewidth=1.2, dashes=(3, 3))
        axes.annotate(
            f"limit: {100 * MAX_DEAD:g} %",
            (1, 100 * MAX_DEAD),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
        )
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_ylim(0, 104)  # so that a line at 100 % shows
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel("empty maps of present classes (%)")
        axes.grid(axis="y")

    explanation = "pale: a seed; strong: their mean"
    return _chart(draw, labels, explanation, name=name, title=title, height=300)


def _label(name: str, num_seeds: int) -> str:
    return wrapped(f"{name} ({mean_of_seeds(num_seeds)})", LEGEND_CHARACTERS)


def _chart(
    draw: Callable[[Axes], None],
    labels: list[str],
    explanation: str,
    *,
    name: str,
    title: str,
    height: float = 350,
) -> str:
    """Return a chart of labelled lines as SVG, its legend below the axes, where it hides nothing.

    height: without the legend.
    """

    def draw_with_legend(figure: Figure) -> None:
        axes = figure.add_subplot()
        draw(axes)
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside lower left",
            handlelength=3.6,
            title=explanation,
            alignment="left",
            title_fontsize=FONT_SIZE - 1,
        )

    height += 1.5 * FONT_SIZE * sum(map(num_lines, labels))
    return draw_svg(draw_with_legend, name=name, title=title, width=WIDTH, height=height)


def moving_average(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """Return the centred moving average of a series [T] -> [T].

    Step i is averaged over i - window // 2 to i + window // 2, so an even window counts as the next
    odd one; at both ends over those of these steps that exist. A value that is not finite makes
    only the averages around it nan.
    """
    series = np.asarray(values, dtype=np.float64)
    size = len(series)
    half = min(window // 2, max(size - 1, 0))
    kernel = np.ones(2 * half + 1)
    bad = ~np.isfinite(series)

    def sums(terms: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.convolve(terms, kernel, mode="full")[half : half + size]

    if size == 0:
        return series
    averages = sums(np.where(bad, 0.0, series)) / sums(np.ones(size))
    return np.where(sums(bad.astype(np.float64)) > 0, np.nan, averages)


def oscillation(step_losses: Sequence[float], window: int) -> float:
    """Return how much a loss oscillates late in training, relative to its mean there (0.1 = 10 %).

    The root mean square deviation of the step losses from their `moving_average` over `window`
    steps, taken over the last half of the steps (from T // 2), divided by the mean step loss of
    that half. The average follows the trend, so a loss that falls steadily does not oscillate.
    nan if a loss there is not finite or their mean is 0. Raises ValueError for a window below 3
    or fewer than 2 * window steps: such an average would follow the oscillation itself, or have
    no full window in the half.
    """
    if window < 3:
        raise ValueError(f"oscillation about an average over {window} steps; give at least 3")
    losses = np.asarray(step_losses, dtype=np.float64)
    if len(losses) < 2 * window:
        raise ValueError(
            f"oscillation of {len(losses)} steps about an average over {window}; give at least "
            f"{2 * window} steps or a window of at most {len(losses) // 2}"
        )
    late = slice(len(losses) // 2, None)
    mean = float(losses[late].mean())
    if not np.isfinite(mean) or mean == 0:
        return float("nan")
    deviations = (losses - moving_average(losses, window))[late]
    return float(np.sqrt(np.mean(deviations**2))) / mean


def _mean_over_seeds(curve: SeedCurve) -> NDArray[np.float64]:
    """[S][T] -> [T]; nan where a seed's loss is not finite."""
    lengths = sorted({len(steps) for steps in curve.seeds})
    if len(lengths) != 1:
        raise ValueError(
            f"{curve.label}: seeds with {', '.join(map(str, lengths)) or 'no'} steps; give seeds "
            "that were trained for the same number of steps"
        )
    losses = np.asarray(curve.seeds, dtype=np.float64)
    return np.where(np.isfinite(losses), losses, np.nan).mean(axis=0)


def _draw_loss(
    axes: Axes, mean: NDArray[np.float64], window: int, style: LineStyle, label: str
) -> None:
    """Draw one configuration's losses [T], pale, and their moving average."""
    colour, dashes = style
    steps = np.arange(1, len(mean) + 1)
    shown = _peaks(mean, MAX_DRAWN_POINTS)
    axes.plot(steps[shown], mean[shown], color=colour, alpha=0.35, linewidth=0.8)
    every = slice(None, None, max(1, len(mean) // MAX_DRAWN_POINTS))
    smooth = moving_average(mean, window)[every]
    axes.plot(steps[every], smooth, color=colour, dashes=dashes, linewidth=2.2, label=label)


def _draw_thresholds(
    axes: Axes, curve: ThresholdCurve, style: LineStyle, marker: str, label: str
) -> None:
    colour, dashes = style
    best = [int(np.nanargmax(curve.miou))] if np.isfinite(curve.miou).any() else []
    axes.plot(
        curve.thresholds,
        curve.miou,
        color=colour,
        dashes=dashes,
        linewidth=2,
        marker=marker,
        markersize=8,
        markevery=best,
        label=label,
    )


def _draw_dead(axes: Axes, curve: SeedCurve, style: LineStyle, label: str) -> None:
    colour, dashes = style

    def line(shares: ArrayLike, **look: Any) -> None:
        percent = 100 * np.asarray(shares)
        axes.plot(np.arange(1, len(percent) + 1), percent, color=colour, **look)

    for seed in curve.seeds if len(curve.seeds) > 1 else ():
        line(seed, alpha=0.35, linewidth=0.8)
    common = min(map(len, curve.seeds))
    mean = np.mean([seed[:common] for seed in curve.seeds], axis=0)
    line(mean, dashes=dashes, linewidth=2.2, marker="o", markersize=4, label=label)


def _peaks(values: NDArray[np.float64], num_points: int) -> NDArray[np.intp]:
    """Return the indices of about `num_points` steps that keep the look of a long, noisy line.

    They are the least and the greatest value of each of num_points / 2 equal parts.
    """
    if len(values) <= num_points:
        return np.arange(len(values))
    kept: set[int] = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), num_points // 2):
        filled = np.where(np.isfinite(values[part]), values[part], np.nanmax(values, initial=0))
        kept |= {int(part[filled.argmin()]), int(part[filled.argmax()])}
    return np.array(sorted(kept))


def _mark_epochs(axes: Axes, steps_per_epoch: int, num_steps: int) -> None:
    """Number the epochs on the upper edge, with a line at the end of each."""
    num_epochs = num_steps // steps_per_epoch
    stride = -(-num_epochs // MAX_MARKED_EPOCHS) or 1
    epochs = range(stride, num_epochs + 1, stride)
    ends = [epoch * steps_per_epoch for epoch in epochs]
    for step in ends:
        axes.axvline(step, color=INK, alpha=0.18, linewidth=0.8, dashes=(2, 3))
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(ends, [str(epoch) for epoch in epochs])
    upper.set_xlabel("end of epoch")
