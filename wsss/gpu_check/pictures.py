"""The pictures of the check: the user's, or drawn ones."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wsss.data.drawn import draw_voc
from wsss.data.voc import Sample, VocDataset
from wsss.gpu_check.findings import Options

VOC_SIZE = (500, 375)
"""Width and height of a typical picture of VOC."""
NUM_ENLARGED = 16


@dataclass(frozen=True)
class Pictures:
    """A data set in VOC layout."""

    dataset: VocDataset
    are_drawn: bool

    @property
    def source(self) -> str:
        """Return what they are, for the page."""
        return "drawn pictures" if self.are_drawn else "pictures of --data"

    def split(self, *names: str) -> list[Sample]:
        """Return the images of the first of these splits that is there. Raises DataError."""
        there = self.dataset.split_names()
        return self.dataset.samples(next((name for name in names if name in there), names[0]))

    def voc_sized(self, folder: Path) -> list[Sample]:
        """Return training images of VOC's size: the user's own, or drawn ones enlarged."""
        samples = self.split("train_aug", "train")
        if not self.are_drawn:
            return samples
        folder.mkdir(parents=True, exist_ok=True)
        enlarged = []
        for sample in samples[:NUM_ENLARGED]:
            path = folder / f"{sample.image_id}.jpg"
            with Image.open(sample.image_path) as image:
                image.resize(VOC_SIZE, Image.Resampling.BICUBIC).save(path, quality=95)
            enlarged.append(sample._replace(image_path=path))
        return enlarged


def find_pictures(options: Options) -> Pictures:
    """Return the user's pictures, or draw some. Raises DataError for a folder of another layout."""
    if options.data is not None:
        return Pictures(VocDataset(options.data), are_drawn=False)
    counts = (24, 40, 4) if options.small else (60, 100, 4)
    root = draw_voc(options.out / f"drawn_{sum(counts)}", num_train=counts[0],
                    num_extra=counts[1], num_val=counts[2])  # fmt: skip
    return Pictures(VocDataset(root), are_drawn=True)
