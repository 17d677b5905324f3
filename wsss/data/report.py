"""What a check finds in a data set."""

from pathlib import Path

from pydantic import BaseModel

from wsss.basics.printable import command
from wsss.data.errors import DataError

MAX_PROBLEMS = 20
"""Problems listed in one error; the others are counted."""


class MaskCounts(BaseModel):
    """What the masks of one split hold. The lists have an entry per class, without background."""

    images: list[int]
    """For each class, the masks that hold it."""
    pixels: list[int]
    """For each class, its pixels in all masks."""
    background_pixels: int
    ignored_pixels: int


class DataReport(BaseModel):
    """What the checked splits of a data set hold."""

    root: Path
    classes: tuple[str, ...]
    fingerprint: str = ""
    """First 16 hex digits of a SHA-256 over splits, labels, masks and image files."""
    fingerprints: dict[str, str] = {}
    """Split -> the same of this split alone."""
    training_fingerprints: dict[str, str] = {}
    """Split -> the same without masks, which a training on image-level labels does not see."""
    num_images: dict[str, int] = {}
    """Split -> number of images."""
    images_per_class: dict[str, list[int]] = {}
    """Split -> for each class, the number of images that hold it."""
    labels_from_mask: dict[str, int] = {}
    """Split -> number of images without XML, whose image-level labels come from their masks."""
    num_masks: dict[str, int] = {}
    """Split -> number of images with a mask."""
    problems: list[str] = []
    """What keeps the data from being used, one line each."""
    notes: list[str] = []
    """What is allowed, but may not be intended, one line each."""
    counts: dict[str, MaskCounts] = {}
    """Split -> what its masks hold."""
    official: dict[str, bool] = {}
    """Split of VOC's -> whether its ids are those of the full VOC 2012 (`compare_lists`)."""

    def raise_if_broken(self) -> None:
        """Raise DataError with the problems, one per line, if there are any."""
        if not self.problems:
            return
        see = command("wsss", "data", "check", "--json", "--data", self.root)
        raise DataError(in_few_lines(self.problems, see=f"; see: {see}"))


def in_few_lines(problems: list[str], *, see: str = "") -> str:
    """Return problems one per line; those after MAX_PROBLEMS are counted. see: where they are."""
    rest = len(problems) - MAX_PROBLEMS
    more = [f"... and {rest} more{see}"] if rest > 0 else []
    return "\n".join([*problems[:MAX_PROBLEMS], *more])
