"""A gallery of segmentations like the paper's Figure 5. Legend: H W image size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch
from numpy.typing import NDArray

from wsss.data.classes import IGNORE_INDEX
from wsss.evaluation.mosaic import Line, draw_mosaic
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
    lines = []
    for row in rows:
        labels = (*((row.ground_truth,) if with_truth else ()), *row.predictions)
        maps = (None if label is None else label_colours(label) for label in labels)
        lines.append(Line(row.title, (row.image, *maps)))
    smooth = [True] + [False] * (len(columns) - 1)
    draw_mosaic(
        path, lines, columns[1:], smooth=smooth, legend=entries, dots_per_inch=dots_per_inch
    )


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
            edgecolor="0.4",
            linewidth=0.4,
            label=names[value],
        )
        for value in sorted(shown)
    ]
