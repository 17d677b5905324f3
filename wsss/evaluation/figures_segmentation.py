"""A gallery of segmentations like the paper's Figure 5. Legend: H W image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from wsss.labels.segment import label_colours


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
    path: Path, rows: Sequence[GalleryRow], *, names: Sequence[str] = ("prediction",)
) -> None:
    """Draw one line per row: image, ground truth, then one column per name in `names`.

    Raises ValueError if there is no row, or a row has another number of predictions than names.
    """
    if not rows:
        raise ValueError("a gallery needs at least one row")
    columns = ("image", "ground truth", *names)
    for row in rows:
        if len(row.predictions) != len(names):
            raise ValueError(
                f"{row.title}: {len(row.predictions)} predictions for {len(names)} columns "
                f"{', '.join(names)}; give one each"
            )
    figure = Figure(figsize=(2.1 * len(columns), 1.75 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        labels = (row.ground_truth, *row.predictions)
        line[0].imshow(row.image)
        for axes, label in zip(line[1:], labels, strict=True):
            if label is not None:
                axes.imshow(label_colours(label))
        line[0].set_title(row.title, fontsize=7, parse_math=False)
    for axes, name in zip(grid[0][1:], columns[1:], strict=True):
        axes.set_title(name, fontsize=8, parse_math=False)
    figure.savefig(path, dpi=80)
