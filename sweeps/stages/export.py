"""Predictions of a split whose masks may not be public, as PASCAL VOC's server takes them.

    <root>/predictions/<prediction_id>/   png/<image>.png  gallery.png  comp6_test_cls.tar
                                          score.json (if the split has masks)  export.json (last)

An interrupted export goes on where it was; a finished one is never done again.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sweeps.plan.chain import ChainConfig, ChainFolders
from sweeps.store.store import Store, read_json, write_json
from wsss.data.classes import VOC_CLASSES
from wsss.data.image import as_array
from wsss.data.loading import read_rgb
from wsss.data.voc import DataError, Sample, VocDataset
from wsss.evaluation.figures_segmentation import GalleryRow, draw_segmentation_gallery
from wsss.evaluation.segmentation_score import score_folder
from wsss.evaluation.voc_server import check_server_tar, write_server_tar
from wsss.labels.segment import write_segmentation
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.segmentation import load_trained

TAR_NAME = "comp6_test_cls.tar"
NUM_GALLERY_IMAGES = 6


@dataclass(frozen=True)
class Export:
    """One network's archive."""

    split: str
    num_images: int
    tar: Path
    miou: float | None
    """Percent; None for a split without masks."""


def check_exportable(dataset: VocDataset, split: str) -> None:
    """Raise DataError, before anything is trained, for a split that cannot be exported."""
    if dataset.classes != VOC_CLASSES:
        raise DataError(
            f"{dataset.root}: {len(dataset.classes)} classes of classes.txt; VOC's server scores "
            "VOC's 20 classes only, so leave --export out"
        )
    for image_id in dataset.image_ids(split):
        dataset.image_size(image_id)


def export_folder(store: Store, chain: ChainConfig, split: str) -> Path:
    """Return where a chain's predictions of a split lie."""
    return ChainFolders(store.root, _of_split(chain, split)).predictions


def read_export(store: Store, chain: ChainConfig, split: str) -> Export | None:
    """Return a finished export, or None."""
    folder = export_folder(store, chain, split)
    found = read_json(folder / "export.json")
    if not found or not (folder / TAR_NAME).is_file():
        return None
    return Export(split, found["images"], folder / TAR_NAME, found["miou"])


def export_split(
    store: Store, data: Path, chain: ChainConfig, split: str, *, device: torch.device
) -> Iterator[tuple[int, int]]:
    """Predict a split by the chain's trained network and write the checked archive.

    Yields (done, total) images. Neither masks nor image-level labels of the split are needed.
    Raises DataError for an image that cannot be read, NotTrainedError before the training,
    ServerTarError if the archive breaks a rule of the server.
    """
    if read_export(store, chain, split):
        return
    dataset, folder = VocDataset(data), export_folder(store, chain, split)
    image_ids = dataset.image_ids(split)
    # The network takes no image-level labels, and a test split has none.
    samples = [Sample(name, dataset.image_path(name), (), "xml") for name in image_ids]
    missing = [s for s in samples if not (folder / "png" / f"{s.image_id}.png").is_file()]
    if missing:
        checkpoints = CheckpointFolder(ChainFolders(store.root, chain).segmentation / "checkpoints")
        model = load_trained(checkpoints, chain.segmentation, len(dataset.classes))
        paths = write_segmentation(
            model, missing, chain.segmentation, folder / "png", device=device
        )
        for done, _ in enumerate(paths, start=1):
            yield done, len(missing)
    has_masks = all(_has_mask(dataset, name) for name in image_ids)
    _gallery(dataset, samples, folder, has_masks=has_masks)
    write_server_tar(folder / "png", image_ids, folder / TAR_NAME)
    sizes = {name: dataset.image_size(name) for name in image_ids}
    check_server_tar(folder / TAR_NAME, image_ids, sizes)
    miou = None
    if has_masks:
        score = score_folder(folder / "png", dataset, image_ids)
        write_json(folder / "score.json", asdict(score))
        miou = score.miou
    write_json(folder / "export.json", {"split": split, "images": len(image_ids), "miou": miou})


def _of_split(chain: ChainConfig, split: str) -> ChainConfig:
    return chain.model_copy(update={"eval_split": split})


def _has_mask(dataset: VocDataset, image_id: str) -> bool:
    return any(
        (dataset.root / folder / f"{image_id}.png").is_file()
        for folder in ("SegmentationClass", "SegmentationClassAug")
    )


def _gallery(dataset: VocDataset, samples: list[Sample], folder: Path, *, has_masks: bool) -> None:
    shown = samples[:: max(1, len(samples) // NUM_GALLERY_IMAGES)][:NUM_GALLERY_IMAGES]
    rows = [
        GalleryRow(
            sample.image_id,
            as_array(read_rgb(sample)),
            dataset.mask(sample.image_id) if has_masks else None,
            (read_png(folder / "png" / f"{sample.image_id}.png"),),
        )
        for sample in shown
    ]
    draw_segmentation_gallery(
        folder / "gallery.png", rows, with_truth=has_masks, class_names=dataset.classes
    )


def read_png(path: Path) -> NDArray[np.uint8]:
    """Return a label map [H, W]."""
    with Image.open(path) as image:
        return np.array(image, dtype=np.uint8)
