"""A data set of a few small pictures in VOC's layout, its files, and what is in them."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss.data.classes import voc_palette

FOLDERS = ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug")
LISTS = "ImageSets/Segmentation"


def voc_tree(
    root: Path,
    masks: Mapping[str, Any],
    splits: Mapping[str, Iterable[str]],
    *,
    names: Mapping[str, Iterable[str]] = {},
    classes: Iterable[str] = (),
) -> Path:
    """Write one-coloured pictures with their masks.

    masks: image id -> [H, W]. names: image id -> what its XML names; others have no XML.
    """
    for folder in (*FOLDERS, LISTS):
        (root / folder).mkdir(parents=True)
    for image_id, mask in masks.items():
        save_mask(root / f"SegmentationClass/{image_id}.png", mask)
        Image.new("RGB", np.shape(mask)[::-1]).save(root / f"JPEGImages/{image_id}.jpg")
    for image_id, objects in names.items():
        (root / f"Annotations/{image_id}.xml").write_text(annotation(*objects))
    for split, ids in splits.items():
        write_split(root, split, ids)
    if classes:
        (root / "classes.txt").write_text("\n".join(classes))
    return root


def save_mask(path: Path, values: Any) -> None:
    """Write a mask [H, W] in grey."""
    Image.fromarray(np.array(values, np.uint8)).save(path)


def palette_mask(values: Any, palette: list[int] | None = None) -> Image.Image:
    """Return a mask [H, W] with a palette, by default VOC's."""
    mask = Image.fromarray(np.array(values, np.uint8))
    mask.putpalette(palette or voc_palette())
    return mask


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    """Return what a file of this format holds."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def contents(root: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def annotation(*names: str) -> str:
    """Return an XML with an object of each name."""
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    return f"<annotation>{objects}</annotation>"


def write_split(root: Path, split: str, ids: Iterable[str]) -> None:
    """Write a list."""
    (root / f"{LISTS}/{split}.txt").write_text("\n".join(ids))
