"""The files of a drawn data set in VOC's layout.

Legend: H W image size in pixels.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from wsss.data.classes import IGNORE_INDEX
from wsss.data.drawn.pictures import Array, Drawing, drawing_of
from wsss.data.pictures.mask import write_label_png

ANNOTATION = """<annotation>
  <folder>VOC2012</folder><filename>{id}.jpg</filename><source><database>drawn</database></source>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>1</segmented>
{objects}</annotation>
"""


def write_tree(root: Path, kind: str, counts: dict[str, int], rng_seed: int) -> None:
    """Draw and write all files. counts: of images that are only train, extra and val."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations"):
        (root / folder).mkdir(parents=True)
    parts = [part for part, count in counts.items() for _ in range(count)]
    ids = [f"drawn_{index:06d}" for index in range(len(parts))]
    for index, image_id in enumerate(ids):
        drawing = drawing_of(kind, rng_seed, index)
        _write_picture(root, image_id, drawing, extra=parts[index] == "extra")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    splits = {"train": ["train"], "val": ["val"], "trainval": ["train", "val"]}
    for split, members in {**splits, "train_aug": ["train", "extra"]}.items():
        lines = [f"{i}\n" for i, part in zip(ids, parts, strict=True) if part in members]
        (lists / f"{split}.txt").write_text("".join(lines))


def _write_picture(root: Path, image_id: str, drawing: Drawing, *, extra: bool) -> None:
    # As in VOC and SBD: an extra picture has one mask, without borders, and no annotation.
    Image.fromarray(drawing.image).save(root / "JPEGImages" / f"{image_id}.jpg", quality=95)
    mask_path = root / "SegmentationClassAug" / f"{image_id}.png"
    write_label_png(mask_path, drawing.labels if extra else _with_border(drawing))
    if not extra:
        shutil.copyfile(mask_path, root / "SegmentationClass" / mask_path.name)
        height, width = drawing.labels.shape
        objects = "".join(f"  <object><name>{o.name}</name></object>\n" for o in drawing.objects)
        text = ANNOTATION.format(id=image_id, width=width, height=height, objects=objects)
        (root / "Annotations" / f"{image_id}.xml").write_text(text)


def _with_border(drawing: Drawing) -> Array:
    # Labels with IGNORE_INDEX on the pixels either side of each object's outline.  [H, W]
    owners = sum(i * (o.body | o.part) for i, o in enumerate(drawing.objects, start=1))
    owner = Image.fromarray(owners.astype(np.uint8))
    most, least = (owner.filter(f(3)) for f in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return np.where(np.asarray(most) != np.asarray(least), IGNORE_INDEX, drawing.labels)
