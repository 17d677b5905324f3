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
    shown = {
        name: path
        for name in roles
        if (path := _path(cells[name], found.results))
        and cells[name].eval_split == cells[baseline].eval_split
    }
    if baseline not in shown:
        return ()
    pictures = [Picture("Images and their masks", "", image=_cut(shown[baseline], OF_IMAGES))]
    for name, path in shown.items():
        seed, miou = min(cells[name].values.items())
        title = f"{listed(roles[name]).capitalize()}: {name}, seed {seed}: mIoU {number(miou)}"
        pictures.append(Picture(title, "", image=_cut(path, OF_A_CELL)))
    others = [name for name, cell in cells.items() if cell.values and name not in shown]
    left_out = f"Not shown: {listed(others, MAX_NAMED)}; their pictures are in runs/<id>/{FILE}."
    return (
        Heading("The same images under the baseline and the best cells"),
        Pictures(tuple(pictures), in_a_row=True),
        *((Text(left_out, "soft"),) if others else ()),
    )


def _roles(found: TableReport) -> dict[str, list[str]]:
    """Return the cells to show, each with its roles; the baseline first."""
    cells, best = list(found.cells.values()), found.best_rival()
    roles = {(best or cells[0]).baseline: ["baseline"]}
    if best:
        roles[best.reference] = ["best measured beside the baseline"]
    if printed := {cell.reference: cell.printed for cell in cells if cell.printed is not None}:
        papers = max(printed, key=printed.__getitem__)
        roles.setdefault(papers, []).append("the paper's best")
    return roles


def _path(cell: CellReport, results: Results) -> Path | None:
    if not cell.values:
        return None
    path = results.store.run(cell.run_ids[min(cell.values)]).path / FILE
    return path if path.exists() else None


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
