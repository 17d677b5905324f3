"""The archive that PASCAL VOC's evaluation server accepts, of predictions that are checked first.

    results/VOC2012/Segmentation/comp6_test_cls/<id>.png

comp6: training used data beyond VOC's own (ImageNet weights, SBD). The server scores the test
split, whose masks are not public, and allows few uploads: so every rule is checked here first.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from wsss.basics.errors import let_through
from wsss.basics.files import whole_or_absent
from wsss.data.classes import VOC_CLASSES, voc_palette
from wsss.data.errors import DataError
from wsss.data.pictures.image import BROKEN_IMAGE, opened
from wsss.evaluation.segmentation_score import read_prediction

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


def write_server_tar(folder: Path, sizes: Mapping[str, tuple[int, int]], tar_path: Path) -> None:
    """Write the predictions `folder`/<id>.png into an archive, atomically, after a check of each.

    sizes: id -> (width, height) of the image. Equal files give an equal archive, byte for byte:
    members are sorted, without time or owner. Raises DataError if there is no id, or if a file is
    missing or is no palette PNG of its image's size with labels 0..20.
    """
    if not sizes:
        raise DataError(f"{tar_path}: no image ids; give those of the test split")
    paths = {name: folder / f"{name}.png" for name in sorted(sizes)}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(paths)} predictions are missing, first "
            f"{missing[0]}; predict the whole split"
        )
    with (
        whole_or_absent(tar_path) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, path in paths.items():
            data = _checked(path, sizes[name])
            member = tarfile.TarInfo(f"{FOLDER}/{path.name}")
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))


def is_whole(tar_path: Path, num_images: int) -> bool:
    """Whether an archive of `write_server_tar` holds this many predictions, none of them damaged.

    Raises OSError if it cannot be read, as it may be whole.
    """
    count = 0
    try:
        with tarfile.open(tar_path, "r:") as archive:
            for member in archive:
                with Image.open(archive.extractfile(member), formats=["PNG"]) as image:  # type: ignore[arg-type]
                    image.verify()
                count += 1
    except (tarfile.TarError, *BROKEN_IMAGE) as error:
        let_through(error, tar_path)
        return False
    return count == num_images


def _checked(path: Path, size: tuple[int, int]) -> bytes:
    """Return a prediction's file. Raises DataError if it is not as the server takes it."""
    labels = read_prediction(path, len(VOC_CLASSES), size)
    with opened(path, ("PNG",)) as image:
        mode, palette = image.mode, image.getpalette("RGB") or []
    if mode != "P":
        raise DataError(f"{path}: has mode {mode}, the server takes P; write a palette PNG")
    used = 3 * (int(labels.max()) + 1)  # a writer may leave out colours that no pixel uses
    if len(palette) < used or palette != voc_palette()[: len(palette)]:
        raise DataError(f"{path}: another palette than VOC's; write it with write_label_png")
    return path.read_bytes()
