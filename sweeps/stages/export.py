"""Predictions of a split, whose masks need not be public, in the format of PASCAL VOC's server.

<root>/predictions/<prediction_id>/png/<image>.png
<root>/predictions/<prediction_id>/export/    comp6_test_cls.tar  gallery.png  done.json
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.chains.headline import Headline
from sweeps.stages.score import Score, evenly_spaced
from sweeps.stages.segmentation import Predict, draw_gallery
from sweeps.stages.stage import Place, Stage
from sweeps.store.store import Folder, Store
from wsss.data.classes import VOC_CLASSES
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset
from wsss.evaluation.segmentation_score import SegmentationScore, score_folder
from wsss.evaluation.voc_server import is_whole, write_server_tar

TAR_NAME = "comp6_test_cls.tar"


@dataclass(frozen=True)
class Packed:
    """One network's archive."""

    split: str
    num_images: int
    score: SegmentationScore | None
    """None for a split without masks."""


@dataclass(frozen=True)
class Export(Predict):
    """Predictions of the split `chain.eval_split` as a checked archive."""

    title: ClassVar[str] = "export"

    def id(self) -> str:
        """The predictions' id; its folder is inside theirs."""
        return f"{self.chain.prediction_id}/export"

    def is_done(self, place: Place) -> bool:
        """Whether it is finished, with no file lost, and the archive whole, here or elsewhere."""
        folder = place.store.folder(self.rel)
        tar = folder.path / TAR_NAME
        if not super().is_done(place):
            return False
        if not tar.is_file():
            return folder.remote.has_file(tar)
        return is_whole(tar, place.result(self)["num_images"])

    def finish(self, place: Place, folder: Folder) -> Packed:
        """Draw a gallery, write the archive, and score the predictions if there are masks.

        Raises DataError if a prediction breaks a rule of the server.
        """
        dataset, ids = place.dataset, self.image_ids(place)
        images = self.pulled(place)
        with_truth = all(dataset.has_mask(name) for name in ids)
        draw_gallery(
            folder.path / "gallery.png",
            {"prediction": images},
            dataset,
            evenly_spaced(ids),
            with_truth=with_truth,
            legend=True,
        )
        sizes = {name: dataset.image_size(name) for name in ids}
        write_server_tar(images, sizes, folder.path / TAR_NAME)
        score = score_folder(images, dataset, ids) if with_truth else None
        return Packed(self.chain.eval_split, len(ids), score)


def export_of(chain: ChainConfig, split: str) -> Export:
    """Return the export of a split by a chain's network."""
    return Export(chain.model_copy(update={"eval_split": split}))


def end_stages(headline: Headline, chain: ChainConfig) -> tuple[Stage, ...]:
    """Return the stages that a chain of a headline ends with; their needs follow from them.

    A failure of the chain is recorded in the folder of the last one.
    """
    found: list[Stage] = [Score(chain.run)] if chain.labels else []
    found.append(Predict(chain))
    if split := headline.exported_by(chain):
        found.append(export_of(chain, split))
    return tuple(found)


@dataclass(frozen=True)
class Archive:
    """A finished export."""

    split: str
    num_images: int
    tar: Path
    miou: float | None
    """Percent; None for a split without masks."""


def read_export(store: Store, chain: ChainConfig, split: str) -> Archive | None:
    """Return a finished export; None before that."""
    folder = store.folder(export_of(chain, split).rel)
    found = folder.result()
    if not found or not (folder.path / TAR_NAME).is_file():
        return None
    miou = found["score"]["miou"] if found["score"] else None
    return Archive(found["split"], found["num_images"], folder.path / TAR_NAME, miou)


def check_exportable(dataset: VocDataset, split: str) -> str:
    """Return a digest of a split's list, its images, and the masks that it has.

    Raises DataError, before anything is trained, for a split that cannot be exported.
    """
    if dataset.classes != VOC_CLASSES:
        raise DataError(
            f"{dataset.root}: {len(dataset.classes)} classes of classes.txt; VOC's server scores "
            "VOC's 20 classes only, so leave --export out"
        )
    digest = hashlib.sha256()
    for image_id in dataset.image_ids(split):
        dataset.image_size(image_id)
        paths = [dataset.image_path(image_id)]
        paths += [dataset.mask_path(image_id)] if dataset.has_mask(image_id) else []
        for part in (image_id.encode(), *(path.read_bytes() for path in paths)):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]
