"""A gallery of segmentations like the paper's Figure 5. Legend: H W image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wsss.data.classes import IGNORE_INDEX
from wsss.labels.segment import label_colours

LEGEND_COLUMNS = 7
LEGEND_INCHES = 0.22
"""Height of one line of the legend."""


@dataclass(frozen=True)
class GalleryRow:
    """One image with what is known and what is predicted of it."""

    title: str
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    ground_truth: NDArray[np.uint8] | None
    """[H, W] labels; None, an empty cell, where there are none."""
    predictions: tuple[NDArray[np.uint8], ...]
    """[H, W] labels each, one a column."""


def draw_segmentation_gallery(
    path: Path,
    rows: Sequence[GalleryRow],
    *,
    names: Sequence[str] = ("prediction",),
    with_truth: bool = True,
    class_names: Sequence[str] = (),
    dots_per_inch: int = 80,
) -> None:
    """Draw one line per row: image, ground truth, then one column per name in `names`.

    with_truth: False leaves the column of the ground truth out. class_names: of the foreground, in
    label order; with them, a legend says which colour is which of the labels that are shown. Raises
    ValueError if there is no row, or a row has another number of predictions than names.
    """
    if not rows:
        raise ValueError("a gallery needs at least one row")
    columns = ("image", *(("ground truth",) if with_truth else ()), *names)
    for row in rows:
        if len(row.predictions) != len(names):
            raise ValueError(
                f"{row.title}: {len(row.predictions)} predictions for {len(names)} columns "
                f"{', '.join(names)}; give one each"
            )
    entries = _legend(rows, class_names, with_truth=with_truth)
    below = LEGEND_INCHES * -(-len(entries) // LEGEND_COLUMNS)
    height = 1.75 * len(rows) + 0.4 + below
    figure = Figure(figsize=(2.1 * len(columns), height), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        labels = (*((row.ground_truth,) if with_truth else ()), *row.predictions)
        line[0].imshow(row.image)
        for axes, label in zip(line[1:], labels, strict=True):
            if label is not None:
                axes.imshow(label_colours(label))
        line[0].set_title(row.title, fontsize=7, parse_math=False)
    for axes, name in zip(grid[0][1:], columns[1:], strict=True):
        axes.set_title(name, fontsize=8, parse_math=False)
    if entries:
        figure.legend(
            handles=entries, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=7,
            frameon=False,
        )  # fmt: skip
    figure.savefig(path, dpi=dots_per_inch)


def _legend(
    rows: Sequence[GalleryRow], class_names: Sequence[str], *, with_truth: bool
) -> list[Patch]:
    """Return an entry per label that a shown map holds, in label order; none without names."""
    if not class_names:
        return []
    shown: set[int] = set()
    for row in rows:
        truth = [row.ground_truth] if with_truth and row.ground_truth is not None else []
        for label in (*row.predictions, *truth):
            shown.update(np.unique(label).tolist())
    names = dict(enumerate(("background", *class_names))) | {IGNORE_INDEX: "not scored"}
    return [
        Patch(
            facecolor=label_colours(np.full((1, 1), value, np.uint8))[0, 0] / 255,
            edgecolor="0.4", linewidth=0.4, label=names[value],
        )
        for value in sorted(shown)
    ]  # fmt: skip
