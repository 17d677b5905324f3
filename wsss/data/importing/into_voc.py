"""Makes a data set in VOC layout from pictures and labels in another one.

It is built in a hidden folder and renamed when it is complete, with a record of what it was made
from: the same import, given again, does nothing, and another one is refused.
"""

import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from pydantic import BaseModel
from rich.progress import Progress

from wsss.basics.files import read_text, write_json
from wsss.basics.printable import counted, first_of, one_line
from wsss.data.building import alone, is_vacant, put_in_place, temporary
from wsss.data.classes import CLASS_LIST, require_class_names
from wsss.data.errors import DataError
from wsss.data.importing.coco import draw_mask, read_coco
from wsss.data.importing.foreign import (
    MAX_LABEL_BYTES,
    RECORD,
    Foreign,
    ForeignImage,
    Pictures,
    TableOptions,
    read_folders,
    read_table,
)
from wsss.data.pictures.image import image_size
from wsss.data.pictures.mask import write_label_png
from wsss.data.report import in_few_lines
from wsss.data.voc import labels_of_mask

VERSION = 1
DEFAULT_VAL = 0.2
MAX_ID = 120


@dataclass(frozen=True)
class ImportRequest:
    """What to import, and to where."""

    source: Path
    """COCO's JSON, a CSV of labels, or a folder with one folder per class."""
    root: Path
    images: Path | None = None
    """Folder of the pictures; None: the source's own."""
    val: str | None = None
    """Share of the images, or a second source; None: DEFAULT_VAL, unless the source has splits."""
    masks: bool = False
    copy: bool = False
    """Copy pictures; else they are hard-linked where the disk allows it."""
    table: TableOptions = field(default_factory=TableOptions)


class Record(BaseModel):
    """What a data set was made from: the content of `imported.json`."""

    source: str
    digest: str
    """Of classes, labels, splits, outlines, and of the pictures' names and sizes."""
    num_images: dict[str, int]
    """By split."""
    notes: list[str]
    """What was left out or renamed, one line each."""
    pictures: dict[str, str]
    """Id -> path below the source's folder of pictures."""


def import_voc(request: ImportRequest, *, progress: Progress) -> tuple[Record, bool]:
    """Make the data set; return its record, and whether it was made just now.

    `progress` is shown while files are written. Raises DataError, with file and
    remedy, for a source that cannot be used, and for a `root` that holds something else; then
    nothing is left behind.
    """
    foreign, notes = _usable(_read(request))
    _divide(foreign, request)
    digest, root = _digest(foreign, request), request.root
    with alone(root, "wsss data import"):
        if not is_vacant(root):
            return _require_same(root, digest), False
        with progress, temporary(root.with_name(f".{root.name}.part")) as building:
            ids = image_ids([image.name for image in foreign.images])
            lists, lost = _write(building, foreign, ids, request, progress)
            record = Record(
                source=_in_utf_8(request.source),
                digest=digest,
                num_images={split: len(members) for split, members in sorted(lists.items())},
                notes=notes + _notes(ids, lost),
                pictures={image_id: _in_utf_8(name) for name, image_id in ids.items()},
            )
            write_json(building / RECORD, record.model_dump())
            put_in_place(building, root)
    return record, True


def _require_same(root: Path, digest: str) -> Record:
    try:
        record = Record.model_validate_json(read_text(root / RECORD, MAX_LABEL_BYTES, DataError))
    except ValueError:  # not there, or not a record
        raise DataError(f"{root}: holds other files; name a folder that is not there yet") from None
    if record.digest != digest:
        raise DataError(
            f"{root}: holds another import, of {record.source}, or with other labels or options; "
            "remove it, or name another folder"
        )
    return record


def _read(request: ImportRequest) -> Foreign:
    first = _read_one(request.source, request)
    if request.val is None or _share(request.val) is not None:
        return first
    second = _read_one(Path(request.val), request)
    base = Path(os.path.commonpath([first.folder.resolve(), second.folder.resolve()]))
    for part, split in ((first, "train"), (second, "val")):
        if any(image.split for image in part.images):
            raise DataError(f"{part.path}: has its own splits; leave --val out")
        below = part.folder.resolve().relative_to(base)
        for image in part.images:
            image.name, image.split = (below / image.name).as_posix(), split
        part.unnamed = [(below / name).as_posix() for name in part.unnamed]
    counts = Counter(image.name for image in first.images + second.images)
    if both := [name for name, count in counts.items() if count > 1]:
        raise DataError(
            f"{second.path}: has {first_of(both)} of {first.path}, too; keep each picture in one"
        )
    unnamed = dict.fromkeys(first.unnamed + second.unnamed)
    return Foreign(
        first.path,
        base,
        classes=list(dict.fromkeys(first.classes + second.classes)),
        images=first.images + second.images,
        unnamed=[name for name in unnamed if name not in counts],
    )


def _read_one(source: Path, request: ImportRequest) -> Foreign:
    """Return what a source holds. Raises DataError for an option without effect on it."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; give COCO's JSON, a CSV or a folder")
    ending = "" if source.is_dir() else source.suffix.lower()
    if ending not in ("", ".json", ".csv", ".tsv", ".txt"):
        raise DataError(f"{source}: not .json, .csv or .tsv; give COCO's JSON or a CSV of labels")
    idle = {
        "--masks": request.masks and ending != ".json",
        "--images": request.images and not ending,
        "--image-column, --label-column, --separator": request.table != TableOptions()
        and ending in ("", ".json"),
    }
    for option, is_idle in idle.items():
        if is_idle:
            raise DataError(f"{option}: no effect with {source}; leave it out")
    pictures = Pictures(request.images or (source.parent if ending else source))
    if ending == ".json":
        return read_coco(source, pictures)
    return read_table(source, pictures, request.table) if ending else read_folders(source, pictures)


def _share(text: str) -> float | None:
    """Return the share that `--val` gives; None for a path."""
    try:
        share = float(text)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise DataError(f"--val {text}: not a share of the images; give one from 0 to below 1")
    return share


def _usable(foreign: Foreign) -> tuple[Foreign, list[str]]:
    """Return the images with a label and the classes with an image, and notes on the rest.

    Raises DataError for a class name that cannot be used.
    """
    images = sorted((i for i in foreign.images if i.labels), key=lambda image: image.name)
    if not images:
        raise DataError(f"{foreign.path}: no image has a label; give at least one of each class")
    held = {name for image in images for name in image.labels}
    classes = [name for name in foreign.classes if name in held]
    require_class_names(classes, foreign.path)
    left_out = {
        "pictures without a label": [i.name for i in foreign.images if not i.labels],
        f"pictures that {foreign.path.name} does not label, or that are not read": foreign.unnamed,
        "classes in no image": [name for name in foreign.classes if name not in held],
    }
    notes = [f"left out, {what}: {first_of(names)}" for what, names in left_out.items() if names]
    return replace(foreign, classes=classes, images=images), notes


def _divide(foreign: Foreign, request: ImportRequest) -> None:
    """Fill in the splits if the source has none: val by a digest of the names."""
    images, share = foreign.images, None if request.val is None else _share(request.val)
    if all(image.split for image in images):
        if share is not None:
            raise DataError(f"{foreign.path}: has its own splits; leave --val out")
    else:
        share = DEFAULT_VAL if share is None else share
        wanted = round(share * len(images))
        num_val = min(max(wanted, int(share > 0)), len(images) - 1)
        by_digest = sorted(images, key=lambda image: _digest_of(image.name))
        for k, image in enumerate(by_digest):
            image.split = "val" if k < num_val else "train"
    if not any(image.split == "train" for image in images):
        raise DataError(f"{foreign.path}: no labelled image in train; put some into that split")


def image_ids(names: list[str]) -> dict[str, str]:
    """Return an id for each path: the file's name, with its folders where two are equal.

    Characters other than letters, digits, '.', '_' and '-' become '_'. A digest is added where two
    are still equal.
    """
    ids: dict[str, str] = {}
    for with_folders, with_digest in ((False, False), (True, False), (True, True)):
        spelled = {}
        for name in names:
            path = PurePosixPath(name).with_suffix("")
            plain = _plain(str(path) if with_folders else path.name)
            end = f"-{_digest_of(name)[:12]}" if with_digest else ""
            spelled[name] = plain + end
        counts, taken = Counter(spelled.values()), {*ids.values()}
        ids |= {n: i for n, i in spelled.items() if counts[i] == 1 and i not in taken}
        names = [name for name in names if name not in ids]
    return ids


def _digest_of(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()


def _in_utf_8(path: str | Path) -> str:
    r"""Return a path whose bytes that are not UTF-8 are written out, as `\xe9`: JSON has none."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _plain(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub("[^A-Za-z0-9._-]+", "_", ascii_only).lstrip("._-")[:MAX_ID] or "image"


def _digest(foreign: Foreign, request: ImportRequest) -> str:
    found = hashlib.sha256(f"{VERSION} {foreign.classes} {request.masks}\n".encode())
    for image in foreign.images:
        size = (foreign.folder / image.name).stat().st_size
        labels = sorted(image.labels)
        found.update(f"{image.name!r} {size} {labels} {image.split}\n".encode())
        if request.masks:
            found.update(json.dumps(image.regions).encode())
    return found.hexdigest()


def _write(
    building: Path,
    foreign: Foreign,
    ids: dict[str, str],
    request: ImportRequest,
    progress: Progress,
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Write all files but the record; return the ids by split, and how often a class was lost.

    Raises DataError naming the broken pictures.
    """
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (building / folder).mkdir(parents=True)
    lists: dict[str, list[str]] = defaultdict(list)
    problems, lost = [], Counter[str]()
    task = progress.add_task("import", total=len(foreign.images))
    for image in foreign.images:
        try:
            shown = _write_image(building, image, ids[image.name], foreign, request)
        except DataError as error:
            problems.append(str(error))
        else:
            lost.update(image.labels.keys() - {*shown})
            if shown:
                lists[image.split].append(ids[image.name])
        progress.advance(task)
    if problems:
        raise DataError(in_few_lines(problems))
    if not lists["train"]:
        raise DataError(
            f"{foreign.path}: no mask in train shows an object: they are crowds (iscrowd 1), or "
            "outside the pictures; correct that, or leave --masks out"
        )
    lists["train_aug"] = lists["train"]
    texts = {f"ImageSets/Segmentation/{split}.txt": members for split, members in lists.items()}
    for path, lines in {**texts, CLASS_LIST: foreign.classes}.items():
        (building / path).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return lists, lost


def _notes(ids: dict[str, str], lost: Counter[str]) -> list[str]:
    notes = [
        f"{name}: {counted(count, 'image')} lost this label, as no pixel of the mask has it "
        "(hidden, outside the picture, or a crowd)"
        for name, count in sorted(lost.items())
    ]
    renamed = [name for name, image_id in ids.items() if PurePosixPath(name).stem != image_id]
    if renamed:
        notes.append(
            f"{counted(len(renamed), 'picture')} renamed, for example {one_line(renamed[0])} to "
            f"{ids[renamed[0]]}; {RECORD} lists all"
        )
    return notes


def _write_image(
    building: Path, image: ForeignImage, image_id: str, foreign: Foreign, request: ImportRequest
) -> list[str]:
    """Write an image's files, if it has a class; return its classes in label order."""
    picture = foreign.folder / image.name
    size, classes = image_size(picture), foreign.classes
    shown = [name for name in classes if name in image.labels]
    if request.masks:
        if all(image.size) and image.size != size:  # some tools write 0
            raise DataError(
                f"{picture}: {size[0]}x{size[1]} pixels upright, {foreign.path.name} says "
                f"{image.size[0]}x{image.size[1]}; save the picture as it was annotated, without "
                "an EXIF tag that turns it"
            )
        mask = draw_mask(image, size, foreign)
        shown = [classes[k] for k in labels_of_mask(mask)]
    if not shown:
        return []
    if request.masks:
        write_label_png(building / f"SegmentationClass/{image_id}.png", mask)
    objects = "".join(f"  <object><name>{name}</name></object>\n" for name in shown)
    text = f"<annotation>\n{objects}</annotation>\n"
    (building / f"Annotations/{image_id}.xml").write_text(text, encoding="utf-8")
    target = building / f"JPEGImages/{image_id}{picture.suffix.lower()}"
    if not request.copy:
        with suppress(OSError):  # another disk, or no hard links: the picture is copied
            os.link(picture.resolve(), target)
            return shown
    shutil.copyfile(picture, target)
    return shown
