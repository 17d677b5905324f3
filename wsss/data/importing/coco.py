"""COCO's instances: image-level labels, and masks from its polygons and run lengths.

Legend: H W image size.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field, ValidationError

from wsss.basics.files import read_text
from wsss.basics.printable import quoted
from wsss.basics.strict import first_problem
from wsss.data.classes import IGNORE_INDEX, class_name
from wsss.data.errors import DataError
from wsss.data.importing.foreign import MAX_LABEL_BYTES, Foreign, ForeignImage, Pictures, Region

FINEST, MAX_FINE_PIXELS = 8, 1 << 24
"""A polygon is drawn at 8 times its size (less if it is large) and scaled down: Pillow draws the
outline as part of it, which makes small objects a quarter too large."""

Id = Annotated[int | str, Field(union_mode="left_to_right")]
"""VIA writes an image's id as a number, and as text in its annotations: both become numbers."""


class _Image(BaseModel):
    id: Id
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(BaseModel):
    image_id: Id
    category_id: Id
    segmentation: Any = None
    iscrowd: bool = False


class _Category(BaseModel):
    id: Id
    name: str


class _Coco(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: Path, pictures: Pictures) -> Foreign:
    """Read COCO's JSON of instances. Raises DataError for other JSON and for unknown ids."""
    try:
        coco = _Coco.model_validate_json(read_text(path, MAX_LABEL_BYTES, DataError))
    except ValidationError as error:
        raise DataError(
            f"{path}: not COCO's instances ({first_problem(error)}); give the JSON with the lists "
            "images, annotations and categories"
        ) from None
    _require_unique(path, "categories have the id", (each.id for each in coco.categories))
    _require_unique(path, "images have the id", (image.id for image in coco.images))
    _require_unique(path, "images have the file_name", (image.file_name for image in coco.images))
    names = {category.id: class_name(category.name) for category in coco.categories}
    images = {
        image.id: ForeignImage(image.file_name, size=(image.width, image.height))
        for image in coco.images
    }
    for k, annotation in enumerate(coco.annotations):
        try:
            found, name = images[annotation.image_id], names[annotation.category_id]
        except KeyError as error:
            raise DataError(
                f"{path}: annotations[{k}] has an image_id or category_id, {error}, that is not "
                "listed; list it or remove the annotation"
            ) from None
        found.labels[name] = None
        found.regions.append(Region(name, annotation.segmentation, annotation.iscrowd))
    classes = list(dict.fromkeys(names.values()))
    return pictures.labelled(path, classes, {image.name: image for image in images.values()})


def _require_unique(path: Path, what: str, values: Iterable[int | str]) -> None:
    for value, count in Counter(values).most_common(1):
        if count > 1:
            raise DataError(f"{path}: {count} {what} {quoted(value)}; give each its own")


def draw_mask(image: ForeignImage, size: tuple[int, int], foreign: Foreign) -> NDArray[np.uint8]:
    """Return the mask [H, W] of an image's objects: 0 background, 1..K classes, 255 crowds.

    size: (width, height). Crowds are below all objects, smaller objects above larger ones. Raises
    DataError for an outline that is invalid, or of another size.
    """
    drawn = []
    for region in image.regions:
        try:
            corner, shape = _shape(region.outline, size)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise DataError(
                f"{foreign.path}: {image.name}: the segmentation of {quoted(region.name)} is "
                f"neither polygons nor run lengths of {size[0]}x{size[1]} pixels ({error}); "
                "correct it, or leave --masks out"
            ) from None
        drawn.append((not region.is_crowd, -shape.histogram()[255], region, corner, shape))
    canvas = Image.new("L", size)
    for _, _, region, corner, shape in sorted(drawn, key=lambda each: each[:2]):
        label = IGNORE_INDEX if region.is_crowd else foreign.classes.index(region.name) + 1
        canvas.paste(label, (*corner, corner[0] + shape.width, corner[1] + shape.height), shape)
    return np.array(canvas)


def _shape(outline: Any, size: tuple[int, int]) -> tuple[tuple[int, int], Image.Image]:
    """Return where an object's box begins, (x, y), and the object in it: 255, 0 outside."""
    if not outline:
        raise ValueError("there is none")
    if isinstance(outline, dict):
        return (0, 0), Image.fromarray(_decoded(outline["counts"], outline["size"], size))
    if not isinstance(outline[0], list):  # one polygon, as VIA writes it
        outline = [outline]
    polygons = [np.array(polygon, float).reshape(-1, 2) for polygon in outline]
    points = np.concatenate(polygons)
    if min(map(len, polygons)) < 2 or not np.isfinite(points).all():
        raise ValueError("a polygon has fewer than two points, or a number is not finite")
    if points.max() <= 1:  # would be drawn as one pixel, too small to be noticed
        raise ValueError("no coordinate is above 1, as if in shares of the picture's sides")
    low = np.clip(np.floor(points.min(0)), 0, np.array(size) - 1).astype(int)
    high = np.clip(np.ceil(points.max(0)), low + 1, size).astype(int)
    width, height = (high - low).tolist()
    finer = int(np.clip((MAX_FINE_PIXELS / (width * height)) ** 0.5, 1, FINEST))
    fine = Image.new("L", (width * finer, height * finer))
    for polygon in polygons:
        ImageDraw.Draw(fine).polygon([*map(tuple, (polygon - low) * finer)], fill=255)
    shape = fine.reduce(finer)
    half = min(128, max(1, shape.getextrema()[1]))  # an object thinner than a pixel keeps its peak
    return (int(low[0]), int(low[1])), shape.point(lambda share: 255 * (share >= half))


def _decoded(
    counts: list[int] | str, stored: list[int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return an object [H, W], 255 inside, from counts outside, inside, ... down the columns."""
    runs = np.array(_unpacked(counts) if isinstance(counts, str) else counts, np.int64)
    if [*stored] != [size[1], size[0]] or runs.sum() != size[0] * size[1]:
        raise ValueError(f"{runs.sum()} pixels of {stored}")
    inside = np.repeat(np.arange(len(runs)) % 2, runs)
    return (255 * inside).astype(np.uint8).reshape(size).T.copy()


def _unpacked(text: str) -> list[int]:
    """Decode COCO's compressed counts: 5 bits per character; from the fourth count on, the
    difference to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for code in (ord(char) - 48 for char in text):
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16) << (shift - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
