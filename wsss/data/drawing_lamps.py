"""Pictures with a known answer: positive and negative control of the enhanced view.

Beside each object hangs a lamp in its class's colour, off the object, as water is to a boat: an
image-level label cannot tell the two apart, and the lamp is the more vivid cue. The object itself
tells its class by a paler hue. A plain CAM therefore falls on the lamps.

Of glaring lamps no channel is below 153, so Eq. 2's enhanced view (1.5 g + 30, at 8 bits) makes
them all white: there only the object tells the class, and maps of a network which has learnt that
move onto it. That is better at any threshold. Dim lamps keep their colour in every view: there is
nothing for a view to mend. The decreased view (.8 g + 15) saves the colours of either.
"""

import colorsys

import numpy as np

from wsss.data.drawing import (
    FAMILIES,
    LOOKS,
    Array,
    Drawing,
    DrawnObject,
    Rng,
    backdrop,
    coverage,
    find_pose,
    finished,
    first_class,
    in_front,
    paint,
    picture_size,
)

LAMP_SATURATION = 0.4
GLARING, DIM = 1.0, 0.45
"""Values (HSV) of the lamps' colours."""
LAMP_RADIUS = (12.0, 16.0)
BODY_SATURATION = (0.12, 0.2)
BODY_VALUES = (0.35, 0.5)


def _hue(name: str) -> float:
    return list(LOOKS).index(name) / len(LOOKS)


def _add_object(
    rng: Rng, canvas: Array, name: str, area: float, earlier: list[DrawnObject]
) -> list[DrawnObject]:
    # Of any family's shape, in one piece, in the hue of its class.
    family = FAMILIES[rng.integers(len(FAMILIES))]
    pose = find_pose(rng, canvas.shape[:2], family, area, earlier)
    hue, saturation = _hue(name) + rng.normal(0, 0.02), rng.uniform(*BODY_SATURATION)
    body, part = (coverage(blobs, *pose) for blobs in (family.body, family.part))
    for cover in (body, part):
        paint(
            rng, canvas, cover, hue=hue, saturation=saturation, grain=family.grain,
            values=BODY_VALUES,
        )  # fmt: skip
    return in_front(name, body, part, earlier)


def _add_lamp(rng: Rng, canvas: Array, name: str, taken: Array, value: float) -> Array:
    # Hang it where it hides nothing, if such a place is found; return what is taken now, [H, W].
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
    """Draw picture `image_index` of the set that belongs to `rng_seed`, alone and repeatably.

    glaring: lamps which the enhanced view makes white; else dim ones, all else being equal.
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
        objects = _add_object(rng, canvas, name, rng.uniform(low, high), objects)
    canvas += 0.015 * rng.standard_normal(canvas.shape, np.float32)
    taken = np.logical_or.reduce([drawn.body | drawn.part for drawn in objects])
    for name in names:
        taken = _add_lamp(rng, canvas, name, taken, GLARING if glaring else DIM)
    return finished(canvas, objects)
