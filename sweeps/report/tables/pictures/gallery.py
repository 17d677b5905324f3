"""The best measured cell, its baseline and the paper's best side by side, on the same images.

The pictures are cut out of the gallery that each scored trial has drawn.
"""

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from PIL import Image

from sweeps.report.document import Block, Heading, Picture, Pictures, Text
from sweeps.report.tables.model import CellReport
from sweeps.report.tables.pictures.classes import best_rival
from sweeps.report.tables.results import Results
from sweeps.report.words import listed, number
from sweeps.store.errors import StoreError
from wsss.data.errors import DataError
from wsss.data.pictures.image import opened

FILE = "cam_gallery.png"
COLUMNS = ("image", "M_o", "M_e", "M_d", "merged M^o", "pseudo-label", "ground truth")
"""Columns of that file, all equally wide."""
OF_IMAGES = ("image", "ground truth")
OF_A_CELL = ("merged M^o", "pseudo-label")
COLUMN_WIDTH = 168
"""Pixels."""
MAX_NAMED = 12
"""No more cells than this are named among those that are not shown."""


def gallery(cells: Mapping[str, CellReport], results: Results) -> tuple[Block, ...]:
    """Return the cells' pictures of the same images; nothing if the baseline has none."""
    chosen: dict[str, list[str]] = {}
    for cell, role in _roles(cells):
        chosen.setdefault(cell.reference, []).append(role)
    baseline = next(iter(chosen))
    paths = {name: path for name in chosen if (path := _path(cells[name], results))}
    if baseline not in paths:
        return ()
    drawn = _image_set(cells[baseline], results)
    kept = [name for name in paths if _image_set(cells[name], results) == drawn]
    pictures = [Picture("Images and their masks", "", image=_cut(paths[baseline], OF_IMAGES))]
    for name in kept:
        seed = min(cells[name].values)
        about = f"{name}, seed {seed}: mIoU {number(cells[name].values[seed])}"
        title = f"{listed(chosen[name]).capitalize()}: {about}"
        pictures.append(Picture(title, "", image=_cut(paths[name], OF_A_CELL)))
    return (
        Heading("The same images under the baseline and the best cells"),
        Pictures(tuple(pictures), in_a_row=True),
        Text(_left_out(cells, chosen, kept), "soft"),
    )


def _roles(cells: Mapping[str, CellReport]) -> list[tuple[CellReport, str]]:
    """Return the cells to show, each with its role; the baseline first."""
    best = best_rival(cells)
    shown = best or next(iter(cells.values()))
    found = [(cells[shown.baseline], "baseline")]
    if best:
        is_best = all((best.mean or 0) > (c.mean or 0) for c in cells.values() if c.is_baseline)
        found.append((best, "best measured" if is_best else "best measured beside the baseline"))
    printed = [cell for cell in cells.values() if cell.printed is not None]
    if printed:
        found.append((max(printed, key=lambda cell: cell.printed or 0), "the paper's best"))
    return found


def _path(cell: CellReport, results: Results) -> Path | None:
    if not cell.values:
        return None
    path = results.store.run(cell.run_ids[min(cell.values)]).path / FILE
    return path if path.exists() else None


def _image_set(cell: CellReport, results: Results) -> tuple[str, ...]:
    """Return what identifies the images that a cell was scored on."""
    data = results.trials[cell.run_ids[min(cell.values)]].config.data
    return data.eval_split, data.fingerprint


def _left_out(
    cells: Mapping[str, CellReport], chosen: Mapping[str, list[str]], kept: list[str]
) -> str:
    """Name the cells that are not shown, and where their pictures are."""
    lacking = [f"{listed(chosen[name])} ({name})" for name in chosen if name not in kept]
    others = [name for name, cell in cells.items() if cell.values and name not in chosen]
    sentences = []
    if lacking:
        sentences.append(f"Without pictures of these images: {listed(lacking)}.")
    if others:
        named = listed(others, MAX_NAMED)
        sentences.append(f"Not shown: {named}; their pictures are in runs/<id>/{FILE}.")
    return " ".join(sentences)


def _cut(path: Path, names: tuple[str, ...]) -> str:
    """Return columns of a gallery side by side as a data URI. Raises StoreError if it is broken."""
    try:
        with opened(path, ("PNG",)) as image:
            whole = image.convert("RGB")
    except DataError:
        raise StoreError(
            f"{path}: cannot be decoded; delete {path.parent} and run its table again"
        ) from None
    width = whole.width / len(COLUMNS)
    height = max(1, round(whole.height * COLUMN_WIDTH / width))
    canvas = Image.new("RGB", (COLUMN_WIDTH * len(names), height), "white")
    for place, name in enumerate(names):
        left = COLUMNS.index(name) * width
        part = whole.crop((round(left), 0, round(left + width), whole.height))
        scaled = part.resize((COLUMN_WIDTH, height), Image.Resampling.LANCZOS)
        canvas.paste(scaled, (place * COLUMN_WIDTH, 0))
    buffer = BytesIO()
    canvas.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
