"""The best measured cell, its baseline and the paper's best side by side, on the same images.

The pictures are cut out of the gallery that each scored trial has drawn.
"""

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image

from sweeps.report.document import Block, Heading, Picture, Pictures, Text
from sweeps.report.tables.model import CellReport, TableReport
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


def gallery(found: TableReport) -> tuple[Block, ...]:
    """Return the cells' pictures of the same images; nothing if the baseline has none."""
    cells, roles = found.cells, _roles(found)
    baseline = next(iter(roles))
    paths = {name: path for name in roles if (path := _path(cells[name], found.results))}
    if baseline not in paths:
        return ()
    drawn = _image_set(cells[baseline])
    kept = [name for name in paths if _image_set(cells[name]) == drawn]
    pictures = [Picture("Images and their masks", "", image=_cut(paths[baseline], OF_IMAGES))]
    for name in kept:
        seed = min(cells[name].values)
        about = f"{name}, seed {seed}: mIoU {number(cells[name].values[seed])}"
        title = f"{listed(roles[name]).capitalize()}: {about}"
        pictures.append(Picture(title, "", image=_cut(paths[name], OF_A_CELL)))
    sentences = []
    if lacking := [f"{listed(roles[name])} ({name})" for name in roles if name not in kept]:
        sentences.append(f"Without pictures of these images: {listed(lacking)}.")
    if others := [name for name, cell in cells.items() if cell.values and name not in roles]:
        named = listed(others, MAX_NAMED)
        sentences.append(f"Not shown: {named}; their pictures are in runs/<id>/{FILE}.")
    return (
        Heading("The same images under the baseline and the best cells"),
        Pictures(tuple(pictures), in_a_row=True),
        Text(" ".join(sentences), "soft"),
    )


def _roles(found: TableReport) -> dict[str, list[str]]:
    """Return the cells to show, each with its roles; the baseline first."""
    cells, best = list(found.cells.values()), found.best_rival()
    roles = {(best or cells[0]).baseline: ["baseline"]}
    if best:
        is_best = all((best.mean or 0) > (c.mean or 0) for c in cells if c.is_baseline)
        roles[best.reference] = [
            "best measured" if is_best else "best measured beside the baseline"
        ]
    printed = [cell for cell in cells if cell.printed is not None]
    if printed:
        papers = max(printed, key=lambda cell: cell.printed or 0)
        roles.setdefault(papers.reference, []).append("the paper's best")
    return roles


def _path(cell: CellReport, results: Results) -> Path | None:
    if not cell.values:
        return None
    path = results.store.run(cell.run_ids[min(cell.values)]).path / FILE
    return path if path.exists() else None


def _image_set(cell: CellReport) -> tuple[str, str]:
    """Return what identifies the images that a cell was scored on."""
    data = cell.trials[0].config.data
    return data.eval_split, data.fingerprint


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
