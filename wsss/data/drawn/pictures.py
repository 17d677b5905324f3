"""Pictures drawn by code: the embedded data set, and two controls with a known answer.

The embedded ones have the difficulty that the paper is about. An object is a large body, which two
classes share and which resembles the clutter around it, with a small part whose vivid pattern
belongs to one class alone. A classifier can therefore rely on the part, and its CAM covers too
little.

The controls, positive and negative, are for the enhanced view. Beside each object hangs a lamp in
its class's colour, as water is beside a boat: an image-level label cannot tell the two apart, and
the lamp is the more vivid cue. The object itself shows its class by a paler hue. A plain CAM
therefore covers the lamps. No channel of a glaring lamp is below 153, so Eq. 2's enhanced view
(1.5 g + 30, in 8 bits) makes them all white: there only the object shows the class, and the maps of
a network that has learnt this move onto it, which is better at any threshold. Dim lamps keep their
colour in every view, so a view cannot help. The decreased view (.8 g + 15) keeps both colours.

Legend: H W image size in pixels; (u, v) object units, right and down from the object's centre.
"""

import cmath
import colorsys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor

from wsss.data.classes import VOC_CLASSES

Array = np.ndarray
Rng = np.random.Generator
Shape = tuple[int, int]
Blob = tuple[float, float, float, float, int]
"""A superellipse: centre u, v, radii, power (1 a diamond, 2 an oval, 8 nearly a box)."""


class Family(NamedTuple):
    """What two classes share: the shapes, the body's hue and its noise cells (down, across)."""

    body: tuple[Blob, ...]
    part: tuple[Blob, ...]
    hue: float
    grain: tuple[int, int]


class DrawnObject(NamedTuple):
    """One object: its class name, and the visible pixels of body and part, each bool [H, W]."""

    name: str
    body: Array
    part: Array


class Drawing(NamedTuple):
    """One picture: image uint8 [H, W, 3], labels uint8 [H, W] without borders, its objects."""

    image: Array
    labels: Array
    objects: list[DrawnObject]


# Parts are sized to show about 22 % of the whole object; a part's first blob holds its centre.
UNIT_AREA = 2.6  # square units that each family covers, within a tenth
TAILED = Family(
    ((0, 0.1, 1.05, 0.58, 2), (-1.1, -0.25, 0.2, 0.5, 2)),
    ((0.88, -0.35, 0.38, 0.36, 2), (0.67, -0.67, 0.18, 0.3, 1), (1.09, -0.67, 0.18, 0.3, 1)),
    hue=0.08,
    grain=(14, 14),
)
LEGGED = Family(
    ((-0.1, 0, 1, 0.44, 4), *((u, 0.5, 0.13, 0.42, 8) for u in (-0.85, -0.45, 0.25, 0.65))),
    ((0.95, -0.45, 0.43, 0.45, 2),),
    hue=0.28,
    grain=(4, 18),
)
VESSEL = Family(
    ((0, 0.15, 1.25, 0.4, 4), (-0.7, 0.5, 0.3, 0.3, 2), (0.7, 0.5, 0.3, 0.3, 2)),
    ((0, -0.38, 0.55, 0.32, 4),),
    hue=0.6,
    grain=(3, 5),
)
FAMILIES = (TAILED, LEGGED, VESSEL)
# Class -> its family, the part's two colours, and how they alternate at (u, v) from its centre.
# About two periods cross a part: at half size a band is still two or three pixels wide.
LOOKS: dict[str, tuple[Family, str, str, Callable[[Array, Array], Array]]] = {
    "bird": (TAILED, "#e61a1a", "#ffe633", lambda u, v: np.sin(14 * u)),
    "boat": (VESSEL, "#f2f2ff", "#1a33e6", lambda u, v: 1.5 * np.sin(9 * u) * np.sin(9 * v)),
    "car": (VESSEL, "#ff800d", "#1a1a1a", lambda u, v: np.sin(9 * (u + v))),
    "cat": (TAILED, "#e61abf", "#33f24d", lambda u, v: 2 * np.cos(10 * u) * np.cos(10 * v) - 0.5),
    "horse": (LEGGED, "#0d1a59", "#1ae6f2", lambda u, v: np.sin(18 * np.hypot(u, v))),
    "sheep": (LEGGED, "#731abf", "#ffffe6", lambda u, v: np.sin(3 * np.arctan2(v, u))),
}


def coverage(blobs: tuple[Blob, ...], u: Array, v: Array, scale: float) -> Array:
    """Return the union of the blobs, [H, W] in [0, 1]; edges are a pixel soft."""
    inside = np.full_like(u, -np.inf)
    for centre_u, centre_v, radius_u, radius_v, power in blobs:
        norm = abs((u - centre_u) / radius_u) ** power + abs((v - centre_v) / radius_v) ** power
        inside = np.maximum(inside, (1 - norm ** (1 / power)) * min(radius_u, radius_v))
    return np.clip(0.5 + inside * scale, 0, 1)


def _noise(rng: Rng, shape: Shape, grain: Shape) -> Array:
    # Three octaves of smoothed random values, roughly in [-1, 1].  [H, W]
    total = np.zeros(shape, np.float32)
    for octave in range(3):
        cells = rng.uniform(-1, 1, [n * 2**octave + 1 for n in grain]).astype(np.float32)
        smooth = Image.fromarray(cells).resize(shape[::-1], Image.Resampling.BICUBIC)
        total += np.asarray(smooth) * 0.6**octave
    return total / 1.4


def paint(
    rng: Rng,
    canvas: Array,
    cover: Array | float,
    *,
    hue: float,
    saturation: float,
    grain: Shape,
    values: tuple[float, float] = (0.35, 0.7),
) -> None:
    """Lay one textured, unevenly lit surface over the canvas where `cover` ([H, W], 0 to 1) says.

    hue, saturation, and the range of values that the surface's is drawn from: HSV, 0 to 1.
    """
    shape = canvas.shape[:2]
    colour = np.array(colorsys.hsv_to_rgb(hue % 1, saturation, rng.uniform(*values)), np.float32)
    down, across = (np.linspace(0, rng.uniform(-0.4, 0.4), n, dtype=np.float32) for n in shape)
    light = 1 + down[:, None] + across + 0.35 * _noise(rng, shape, grain)  # [H, W]
    canvas += (colour * light[..., None] - canvas) * np.asarray(cover, np.float32)[..., None]


def backdrop(rng: Rng, shape: Shape, *, grey_clutter: bool = False) -> Array:
    """Return two surfaces that meet in an uneven line, and clutter, [H, W, 3] in about 0 to 1.

    The clutter has the hues of the bodies, or nearly none.
    """
    canvas = np.zeros((*shape, 3), np.float32)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    skyline = shape[0] * (rng.uniform(0.2, 0.8) + 0.2 * _noise(rng, (1, shape[1]), (1, 3)))
    for cover in (1.0, np.clip(skyline - rows, 0, 1)):
        grain, (hue, saturation) = rng.integers(2, 16, 2), rng.uniform((0, 0.05), (1, 0.4))
        paint(rng, canvas, cover, hue=hue, saturation=saturation, grain=tuple(grain))
    for _ in range(rng.integers(4, 9)):
        y, x = rng.uniform(0, shape)
        near = np.s_[max(0, int(y) - 24) : int(y) + 24, max(0, int(x) - 24) : int(x) + 24]
        turned = (columns[near] - x + 1j * (rows[near] - y)) * cmath.rect(1, rng.uniform(0, 3))
        blob = (0, 0, *rng.uniform(4, 16, 2), int(rng.choice([1, 2, 8])))
        cover = coverage((blob,), turned.real, turned.imag, 1)
        grain, saturation = rng.integers(1, 6, 2), rng.uniform(0.2, 0.6)
        hue = FAMILIES[rng.integers(3)].hue + rng.normal(0, 0.06)
        saturation *= 0.2 if grey_clutter else 1
        paint(rng, canvas[near], cover, hue=hue, saturation=saturation, grain=tuple(grain))
    return canvas


class Pose(NamedTuple):
    """Where an object lies: object units of each pixel, [H, W], and pixels per unit."""

    u: Array
    v: Array
    scale: float


def find_pose(
    rng: Rng, shape: Shape, family: Family, area: float, earlier: list[DrawnObject]
) -> Pose:
    """Return a pose within the picture that hides little of the earlier objects.

    shape: H, W in pixels. area: the share of the picture to cover, 0 to 1; less if it does not fit.
    """
    height, width = shape
    scale = float(np.sqrt(area * height * width / UNIT_AREA))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    # Poses are tried on every third pixel and on the frame, which is several times faster.
    sparse = np.ix_(*(np.linspace(0, n - 1, n // 3).astype(int) for n in (height, width)))
    masks = [mask[sparse] for o in earlier for mask in (o.body | o.part, o.part)]
    while True:  # ends, as the object shrinks a little with each pose that does not fit
        scale *= 0.995
        x, y = (n / 2 + rng.uniform(-1, 1) * max(n / 2 - scale * 0.8, 2) for n in (width, height))
        turn, mirror = cmath.rect(1 / scale, rng.uniform(-0.45, 0.45)), float(rng.choice([-1, 1]))
        local = ((columns - x) * mirror + 1j * (rows - y)) * turn
        u, v = local.real, local.imag
        tried = coverage(family.body + family.part, u[sparse], v[sparse], scale) > 0.5
        cut = tried[[0, -1]].sum() + tried[:, [0, -1]].sum()
        if cut <= 3 and all((tried & mask).sum() < 0.15 * mask.sum() for mask in masks):
            return Pose(u, v, scale)


def in_front(name: str, body: Array, part: Array, earlier: list[DrawnObject]) -> list[DrawnObject]:
    """Return all objects with what is still visible; body, part: covers [H, W] of the new one."""
    part = part > 0.5
    whole = part | (body > 0.5)
    kept = [DrawnObject(o.name, o.body & ~whole, o.part & ~whole) for o in earlier]
    return [*kept, DrawnObject(name, whole & ~part, part)]


def _add_object(
    rng: Rng, canvas: Array, name: str, area: float, earlier: list[DrawnObject]
) -> list[DrawnObject]:
    # Paint one object on about `area` of the canvas; return all objects as in `in_front`.
    family, *colours, pattern = LOOKS[name]
    u, v, scale = find_pose(rng, canvas.shape[:2], family, area, earlier)
    body_cover, part_cover = (coverage(b, u, v, scale) for b in (family.body, family.part))
    hue, saturation = family.hue + rng.normal(0, 0.03), rng.uniform(0.3, 0.5)
    paint(rng, canvas, body_cover, hue=hue, saturation=saturation, grain=family.grain)
    first, second = (np.array(ImageColor.getrgb(colour)) / 255 for colour in colours)
    wave = pattern(u - family.part[0][0], v - family.part[0][1])
    mix = np.clip(0.5 + 1.5 * wave, 0, 1)[..., None]  # bands with edges about a pixel soft
    canvas += (first + (second - first) * mix - canvas) * part_cover[..., None]
    return in_front(name, body_cover, part_cover, earlier)


def picture_size(rng: Rng) -> Shape:
    """Return H and W in pixels; one picture in five is upright."""
    sides = int(rng.integers(88, 113)), int(rng.integers(112, 145))
    return sides[::-1] if rng.uniform() < 0.2 else sides


def first_class(rng_seed: int, image_index: int) -> str:
    """Return the class of a picture's first object: all six in turn, in a shuffled order."""
    deck = np.random.default_rng([rng_seed, image_index // len(LOOKS), 1])
    return str(deck.permutation(list(LOOKS))[image_index % len(LOOKS)])


def finished(canvas: Array, objects: list[DrawnObject]) -> Drawing:
    """Return the picture in 8 bits, with its labels."""
    labels = np.zeros(canvas.shape[:2], np.uint8)
    for drawn in objects:
        labels[drawn.body | drawn.part] = VOC_CLASSES.index(drawn.name) + 1
    return Drawing((canvas.clip(0, 1) * 255).round().astype(np.uint8), labels, objects)


def draw_picture(*, rng_seed: int, image_index: int) -> Drawing:
    """Draw picture `image_index` of the set of `rng_seed`, independently and repeatably.

    The first object's class runs through all six in a shuffled order, the others are random, so
    the classes are about equally frequent, and unrelated to each other and to the background.
    """
    rng = np.random.default_rng([rng_seed, image_index])
    shape = picture_size(rng)
    first = first_class(rng_seed, image_index)
    second, third = rng.permutation([name for name in LOOKS if name != first])[:2].tolist()
    layouts = [first], [first, second], [first, first], [first, second, third]
    layout = rng.choice(4, p=(0.45, 0.45, 0.05, 0.05))
    low, high = ((0.14, 0.36), (0.14, 0.22), (0.14, 0.22), (0.12, 0.15))[layout]  # of the image
    canvas, objects = backdrop(rng, shape), list[DrawnObject]()
    for name in layouts[layout]:
        objects = _add_object(rng, canvas, name, rng.uniform(low, high), objects)
    canvas = canvas * rng.uniform(0.75, 1.2) + 0.015 * rng.standard_normal(canvas.shape, np.float32)
    return finished(canvas, objects)


LAMP_SATURATION = 0.4
GLARING, DIM = 1.0, 0.45
"""Values (HSV) of the lamps' colours."""
LAMP_RADIUS = (12.0, 16.0)
BODY_SATURATION = (0.12, 0.2)
BODY_VALUES = (0.35, 0.5)


def _hue(name: str) -> float:
    return list(LOOKS).index(name) / len(LOOKS)


def _add_plain_object(
    rng: Rng, canvas: Array, name: str, area: float, earlier: list[DrawnObject]
) -> list[DrawnObject]:
    # Of any family's shape, in one piece, in the hue of its class.
    family = FAMILIES[rng.integers(len(FAMILIES))]
    pose = find_pose(rng, canvas.shape[:2], family, area, earlier)
    hue, saturation = _hue(name) + rng.normal(0, 0.02), rng.uniform(*BODY_SATURATION)
    body, part = (coverage(blobs, *pose) for blobs in (family.body, family.part))
    for cover in (body, part):
        paint(
            rng,
            canvas,
            cover,
            hue=hue,
            saturation=saturation,
            grain=family.grain,
            values=BODY_VALUES,
        )
    return in_front(name, body, part, earlier)


def _add_lamp(rng: Rng, canvas: Array, name: str, taken: Array, value: float) -> Array:
    # Paint it where it hides nothing, if such a place is found; return what is taken now, [H, W].
    height, width = canvas.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(200):
        radius = rng.uniform(*LAMP_RADIUS)
        y, x = rng.uniform(radius, height - radius), rng.uniform(radius, width - radius)
        distance = np.hypot(rows - y, columns - x)
        if not (taken & (distance < radius)).any():
            break
    else:
        return taken
    colour = np.array(colorsys.hsv_to_rgb(_hue(name), LAMP_SATURATION, value), np.float32)
    canvas += (colour - canvas) * np.clip(radius - distance, 0, 1)[..., None]
    return taken | (distance < radius)


def draw_lamp_picture(*, rng_seed: int, image_index: int, glaring: bool) -> Drawing:
    """Draw picture `image_index` of the set of `rng_seed`, independently and repeatably.

    glaring: lamps that the enhanced view makes white; else dim ones, all else being equal.
    """
    rng = np.random.default_rng([rng_seed, image_index, 2])
    shape = picture_size(rng)
    names = [first_class(rng_seed, image_index)]
    if rng.uniform() < 0.1:
        names.append(str(rng.choice([name for name in LOOKS if name != names[0]])))
    low, high = (0.2, 0.3) if len(names) == 1 else (0.15, 0.2)  # of the picture's area
    canvas, objects = backdrop(rng, shape, grey_clutter=True), list[DrawnObject]()
    canvas *= rng.uniform(0.75, 1.2)
    for name in names:
        objects = _add_plain_object(rng, canvas, name, rng.uniform(low, high), objects)
    canvas += 0.015 * rng.standard_normal(canvas.shape, np.float32)
    taken = np.logical_or.reduce([drawn.body | drawn.part for drawn in objects])
    for name in names:
        taken = _add_lamp(rng, canvas, name, taken, GLARING if glaring else DIM)
    return finished(canvas, objects)


def drawing_of(kind: str, rng_seed: int, image_index: int) -> Drawing:
    """Draw one picture of a set of this kind ("parts", "glare" or "dim") and seed."""
    if kind == "parts":
        return draw_picture(rng_seed=rng_seed, image_index=image_index)
    is_glaring = {"glare": True, "dim": False}[kind]
    return draw_lamp_picture(rng_seed=rng_seed, image_index=image_index, glaring=is_glaring)
