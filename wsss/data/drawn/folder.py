"""A small data set in VOC's layout, drawn by code, for first runs, tests and demonstrations.

Legend: H W image size in pixels.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from wsss.basics.errors import ForeseenError
from wsss.basics.files import BrokenFileError, read_json
from wsss.data.classes import IGNORE_INDEX

if TYPE_CHECKING:  # NumPy and Pillow are only for drawing; usually the data set is there already
    from wsss.data.drawn.pictures import Array, Drawing

DRAWN = {"drawn": "parts", "drawn-glare": "glare", "drawn-dim": "dim"}
"""Name of a drawn data set, as `--data` takes it -> its kind of pictures.

parts: objects with a distinctive part; glare, dim: positive and negative control of the enhanced
view (pictures.py).
"""
RECORD = "drawn.json"
"""In a drawn data set: how it was drawn."""
DRAWING_VERSION = 1  # raise it when the pictures change, so that older ones are not reused


class DrawnError(ForeseenError, FileExistsError):
    """The folder for a drawn set holds something else."""


def _with_border(drawing: "Drawing") -> "Array":
    # Labels with IGNORE_INDEX on the pixels either side of each object's outline.  [H, W]
    import numpy as np
    from PIL import Image, ImageFilter

    owners = sum(i * (o.body | o.part) for i, o in enumerate(drawing.objects, start=1))
    owner = Image.fromarray(owners.astype(np.uint8))
    most, least = (owner.filter(f(3)) for f in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return np.where(np.asarray(most) != np.asarray(least), IGNORE_INDEX, drawing.labels)


ANNOTATION = """<annotation>
  <folder>VOC2012</folder><filename>{id}.jpg</filename><source><database>drawn</database></source>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>1</segmented>
{objects}</annotation>
"""
ANNOTATED_OBJECT = """  <object>
    <name>{}</name><pose>Unspecified</pose><difficult>0</difficult>
    <bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
  </object>
"""


def _annotation(image_id: str, drawing: "Drawing") -> str:
    # VOC's XML; a box has the first and the last visible pixel, counted from 1.
    import numpy as np

    objects = ""
    for drawn in drawing.objects:
        rows, columns = np.nonzero(drawn.body | drawn.part)
        corners = columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1
        objects += ANNOTATED_OBJECT.format(drawn.name, *corners)
    height, width = drawing.labels.shape
    return ANNOTATION.format(id=image_id, width=width, height=height, objects=objects)


def _write_picture(root: Path, image_id: str, drawing: "Drawing", *, extra: bool) -> None:
    # As in VOC and SBD: an extra picture has one mask, without borders, and no annotation.
    from PIL import Image

    from wsss.data.pictures.mask import write_label_png

    Image.fromarray(drawing.image).save(root / "JPEGImages" / f"{image_id}.jpg", quality=95)
    mask_path = root / "SegmentationClassAug" / f"{image_id}.png"
    write_label_png(mask_path, drawing.labels if extra else _with_border(drawing))
    if not extra:
        shutil.copyfile(mask_path, root / "SegmentationClass" / mask_path.name)
        (root / "Annotations" / f"{image_id}.xml").write_text(_annotation(image_id, drawing))


def _already_drawn(root: Path, record: dict[str, Any]) -> bool:
    if not root.exists():
        return False
    found: Any = None
    with suppress(NotADirectoryError, BrokenFileError):
        found = read_json(root / RECORD)
    if found == record:
        return True
    what = "something else"
    if isinstance(found, dict):
        there, asked = ({"kind": "parts"} | each for each in (found, record))
        what = "pictures drawn with " + ", ".join(
            f"{key} {there.get(key)}, not {asked.get(key)}"
            for key in sorted(there.keys() | asked.keys())
            if there.get(key) != asked.get(key)
        )
    raise DrawnError(f"{root}: holds {what}; remove it or name another folder")


def drawing_of(kind: str, rng_seed: int, image_index: int) -> "Drawing":
    """Draw one picture of a set of this kind and seed."""
    from wsss.data.drawn.pictures import draw_lamp_picture, draw_picture

    if kind == "parts":
        return draw_picture(rng_seed=rng_seed, image_index=image_index)
    is_glaring = {"glare": True, "dim": False}[kind]
    return draw_lamp_picture(rng_seed=rng_seed, image_index=image_index, glaring=is_glaring)


def _write_tree(root: Path, kind: str, counts: dict[str, int], rng_seed: int) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations"):
        (root / folder).mkdir(parents=True)
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    ids = [f"drawn_{index:06d}" for index in range(len(kinds))]
    for index, image_id in enumerate(ids):
        drawing = drawing_of(kind, rng_seed, index)
        _write_picture(root, image_id, drawing, extra=kinds[index] == "extra")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    splits = {"train": ["train"], "val": ["val"], "trainval": ["train", "val"]}
    for split, members in {**splits, "train_aug": ["train", "extra"]}.items():
        lines = [f"{i}\n" for i, kind in zip(ids, kinds, strict=True) if kind in members]
        (lists / f"{split}.txt").write_text("".join(lines))


def draw_voc(
    root: Path,
    *,
    kind: str = "parts",
    num_train: int = 60,
    num_extra: int = 100,
    num_val: int = 48,
    rng_seed: int = 0,
) -> Path:
    """Write a drawn data set in VOC's layout to `root`; return `root`. Same seed, same bytes.

    kind: one of `DRAWN`'s values. `root` appears in one rename; a killed process can only leave a
    hidden `.part` folder beside it. The same set, if it is there already, is left as it is. Raises
    DrawnError if `root` is anything but this set.
    """
    counts = {"train": num_train, "extra": num_extra, "val": num_val}
    record: dict[str, Any] = {"version": DRAWING_VERSION, **counts, "rng_seed": rng_seed}
    record |= {"kind": kind} if kind != "parts" else {}
    if _already_drawn(root, record):
        return root
    from wsss.data.building import temporary  # needs filelock; usually the set is there already

    root.parent.mkdir(parents=True, exist_ok=True)
    with temporary(root.with_name(f".{root.name}.{uuid4().hex}.part")) as building:
        _write_tree(building, kind, counts, rng_seed)
        (building / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        try:
            building.rename(root)
        except OSError:  # another process may have put the same set there meanwhile
            if not _already_drawn(root, record):
                raise
    return root
