"""The archive that PASCAL VOC's evaluation server accepts, written and checked.

    results/VOC2012/Segmentation/comp6_test_cls/<id>.png

comp6: training used data beyond VOC's own (ImageNet weights, SBD). The server scores the test
split, whose masks are not public, and allows few uploads: so every rule is checked here first.
"""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.basics.errors import ForeseenError, let_through
from wsss.basics.files import whole_or_absent
from wsss.data.classes import VOC_CLASSES, voc_palette

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
PARENTS = frozenset(FOLDER.rsplit("/", depth)[0] for depth in range(4))
NUM_LABELS = len(VOC_CLASSES) + 1
MAX_OVERHEAD = 64 * 1024
"""Bytes that a PNG may be larger than its pixels: palette, other chunks, incompressible rows."""


class ServerTarError(ForeseenError, ValueError):
    """An archive the server would refuse; the message names member, rule and remedy."""


class _RefusedError(Exception):
    """What is wrong with a member, and the remedy."""


def write_server_tar(folder: Path, image_ids: Sequence[str], tar_path: Path) -> None:
    """Write `folder`/<id>.png of every id into an archive, atomically.

    Equal files give an equal archive, byte for byte: members are sorted, without time or owner.
    Raises ServerTarError if there is no id or a file is missing; `check_server_tar` checks the
    contents.
    """
    if not image_ids:
        raise ServerTarError(f"{tar_path}: no image ids; give those of the test split")
    missing = [name for name in sorted(image_ids) if not (folder / f"{name}.png").is_file()]
    if missing:
        raise ServerTarError(
            f"{folder}: {len(missing)} of {len(image_ids)} predictions are missing, first "
            f"{missing[0]}.png; predict the whole split"
        )
    with (
        whole_or_absent(tar_path) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name in sorted(set(image_ids)):
            data = (folder / f"{name}.png").read_bytes()
            member = tarfile.TarInfo(f"{FOLDER}/{name}.png")
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))


def check_server_tar(
    tar_path: Path, image_ids: Sequence[str], sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Raise ServerTarError unless the archive holds a valid prediction of every image, and no more.

    sizes: (width, height) of each image. Nothing is unpacked to disk, links are refused, and a
    member is read only after its size in bytes and its PNG header have been found plausible.
    """
    expected = {f"{FOLDER}/{name}.png": sizes[name] for name in image_ids}
    seen: set[str] = set()
    name = ""
    try:
        with tarfile.open(tar_path, "r:") as archive:
            for member in archive:
                name = member.name
                if name in seen:
                    raise _RefusedError("occurs twice; keep it once")
                seen.add(name)
                if member.isdir() and name in PARENTS:
                    continue
                if name not in expected:
                    raise _RefusedError(
                        f"is no image of the list; keep only {FOLDER}/<id>.png of the split"
                    )
                _check_png(_read(archive, member, expected[name]), expected[name])
        if absent := sorted(expected.keys() - seen):
            name, count = absent[0], f"{len(absent)} of {len(expected)}"
            raise _RefusedError(f"is missing, with {count} images in all; predict the whole split")
    except _RefusedError as fault:
        raise ServerTarError(f"{tar_path}: {name!r} {fault}") from None
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        let_through(error, tar_path)
        raise ServerTarError(
            f"{tar_path}: cannot be read as an uncompressed tar ({error}); write it with "
            "write_server_tar"
        ) from None


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, size: tuple[int, int]) -> bytes:
    """Return a member's bytes. Raises _RefusedError unless it is a plain file of plausible size."""
    if not member.isreg() or member.issparse():
        raise _RefusedError("is no plain file; store it as a regular file")
    limit = (size[0] + 1) * size[1] + MAX_OVERHEAD
    if member.size > limit:
        raise _RefusedError(
            f"has {member.size} bytes, a label map at most {limit}; write an 8-bit palette PNG"
        )
    file = archive.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()


def _check_png(data: bytes, size: tuple[int, int]) -> None:
    """Raise _RefusedError unless `data` is a palette PNG of this size with values 0..20."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != size:  # known from the header: nothing has been decoded yet
                raise _RefusedError(
                    f"has {image.width} x {image.height} pixels, its image {size[0]} x {size[1]}; "
                    "predict at the image's size"
                )
            if image.mode != "P":
                raise _RefusedError(
                    f"has mode {image.mode}, the server takes P; write an 8-bit palette PNG"
                )
            labels = np.array(image)
            palette = image.getpalette("RGB") or []
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _RefusedError(f"is no PNG ({error}); write it again") from None
    if labels.max() >= NUM_LABELS:
        raise _RefusedError(
            f"holds value {labels.max()}, labels are 0..{NUM_LABELS - 1}; predict a label for "
            "every pixel"
        )
    used = 3 * (int(labels.max()) + 1)  # a writer may leave out colours that no pixel uses
    if len(palette) < used or palette != voc_palette()[: len(palette)]:
        raise _RefusedError("has another palette than VOC's; write it with write_label_png")
