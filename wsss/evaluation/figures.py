"""A run's threshold curve, and galleries of CAMs and segmentations like Figures 3 and 5.

Legend: P present classes of one image, H W its size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from wsss.basics.files import whole_or_absent
from wsss.config import LabelsConfig, RunConfig
from wsss.data.classes import IGNORE_INDEX
from wsss.data.pictures.image import as_array, read_image
from wsss.data.voc import Sample, VocDataset
from wsss.evaluation.mosaic import Line, draw_mosaic
from wsss.evaluation.score import Score
from wsss.labels.infer import infer_cams, multi_scale_cams
from wsss.labels.pseudo_label import pseudo_label
from wsss.labels.segment import label_colours
from wsss.method.losses import merged_cam
from wsss.method.views import adjust
from wsss.networks.cam_net import CamNet

SINGLE_SCALE = LabelsConfig(scales=(1.0,), flip=False)
COLUMNS = ("image", "M_o", "M_e", "M_d", "merged M^o", "pseudo-label", "ground truth")
LABEL_COLUMNS = ("pseudo-label", "ground truth")


def draw_threshold_curve(path: Path, score: Score) -> None:
    """Draw pseudo-label mIoU over the background threshold; mark the fixed and the best one."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    thresholds, values = zip(*score.curve, strict=True)
    axes.plot(thresholds, values, color="#1f4e79")
    fixed = f"fixed {score.fixed_threshold:g}: {score.miou_fixed:.2f}"
    best = f"best {score.best_threshold:g}: {score.miou_best:.2f} (chosen with ground truth)"
    axes.plot(score.fixed_threshold, score.miou_fixed, "o", color="#c00000", label=fixed)
    axes.plot(score.best_threshold, score.miou_best, "s", color="#7f7f7f", label=best)
    axes.set_xlabel("background threshold on the normalised CAM")
    axes.set_ylabel("pseudo-label mIoU (%)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with whole_or_absent(path) as partial:
        figure.savefig(partial, dpi=100, format="png")


def draw_gallery(
    path: Path,
    model: CamNet,
    dataset: VocDataset,
    samples: list[Sample],
    config: RunConfig,
    *,
    device: torch.device,
) -> None:
    """Draw one line per image: image, M_o, M_e, M_d, merged, pseudo-label, ground truth.

    Map columns show the maximum over the present classes at a single scale. M_e and M_d are drawn
    even if the view was not trained, and then the title says so. The pseudo-label is the one that
    is scored: multi-scale, at the fixed background score.
    """
    lines = []
    for cams in infer_cams(model, samples, config.labels, device=device):
        sample = cams.sample
        image = read_image(sample.image_path)
        maps = _view_maps(model, image, sample, config, device=device)
        label = pseudo_label(cams.cams, sample.labels, config.labels.background_score)
        mask = dataset.mask(sample.image_id)
        names = ", ".join(dataset.classes[k] for k in sample.labels)
        pictures = (as_array(image), *maps, label_colours(label), label_colours(mask))
        lines.append(Line(f"{sample.image_id}\n{names}", pictures))
    smooth = [column not in LABEL_COLUMNS for column in COLUMNS]
    draw_mosaic(path, lines, _titles(config)[1:], smooth=smooth)


def _titles(config: RunConfig) -> list[str]:
    trained = {"M_e": config.views.enhanced, "M_d": config.views.decreased}
    note = "\n(view not trained)"
    titles = [name if trained.get(name, True) else name + note for name in COLUMNS]
    titles[COLUMNS.index("pseudo-label")] += f" at {config.labels.background_score:g}"
    return titles


def _view_maps(
    model: CamNet, image: Tensor, sample: Sample, config: RunConfig, *, device: torch.device
) -> list[NDArray[np.uint8]]:
    """Return M_o, M_e, M_d and M^o of one image as colour overlays [H, W, 3].

    M^o is merged from the views that were trained, or from both if none was.
    """
    views, pixels = config.views, image.float()
    variants = [
        pixels,
        adjust(pixels, views.alpha_enhanced, views.beta_enhanced, views.reading),
        adjust(pixels, views.alpha_decreased, views.beta_decreased, views.reading),
    ]
    with torch.inference_mode():
        classes = [sample.labels] * 3
        found = multi_scale_cams(model, variants, classes, SINGLE_SCALE, device=device)
        raw = [cam.cpu() for cam in found]  # each [P, H, W]
    trained = (views.enhanced, views.decreased)
    used = [cam for cam, is_used in zip(raw[1:], trained, strict=True) if is_used]
    stacked = torch.stack(used or raw[1:])[:, None]  # [1 or 2, 1, P, H, W]
    present = torch.ones(1, len(sample.labels))
    merged = merged_cam(stacked, present, config.transfer)[0]
    return [_overlay(image, cam) for cam in (*raw, merged)]


def _overlay(image: Tensor, cam: Tensor) -> NDArray[np.uint8]:
    """Blend an image with the maximum over classes of its CAM [P, H, W], each scaled to 1."""
    scaled = (cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-5)).amax(0).numpy()
    colours = matplotlib.colormaps["jet"](scaled)[..., :3] * 255
    return (0.5 * as_array(image) + 0.5 * colours).astype(np.uint8)


class GalleryRow(NamedTuple):
    """One image with its label maps: ground truth, predictions."""

    title: str
    image: NDArray[np.uint8]
    """[H, W, 3]."""
    maps: tuple[NDArray[np.uint8], ...]
    """[H, W] labels each, one per column."""


def draw_segmentation_gallery(
    path: Path,
    rows: Sequence[GalleryRow],
    columns: Sequence[str],
    *,
    class_names: Sequence[str] = (),
    dots_per_inch: int = 80,
) -> None:
    """Draw one line per row: the image, then one column per name in `columns`.

    class_names: of the foreground, in label order; with them, a legend explains the colours that
    are shown.
    """
    lines = [Line(row.title, (row.image, *map(label_colours, row.maps))) for row in rows]
    draw_mosaic(
        path,
        lines,
        columns,
        smooth=[True] + [False] * len(columns),
        legend=_legend(rows, class_names) if class_names else (),
        dots_per_inch=dots_per_inch,
    )


def _legend(rows: Sequence[GalleryRow], class_names: Sequence[str]) -> list[Patch]:
    """Return an entry per label that a map holds, in label order."""
    shown = {value for row in rows for labels in row.maps for value in np.unique(labels).tolist()}
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
