"""Draw the README's two pictures from a finished sweep.

    sweeps run III --data drawn-glare --seeds 5
    python docs/pictures.py

The first one is the top of the report's page, and needs Chromium. The second is one image in two
cells' galleries, a line each: image, M_o, M_e, M_d, M^o, pseudo-label, truth.
"""

import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from PIL import Image

from sweeps.plan.sweep import Sweep, load_sweep, report_folder
from sweeps.report.tables.pictures import FILE
from sweeps.store.store import Store, open_store
from wsss.basics.errors import explained
from wsss.evaluation.mosaic import CELL_INCHES, TITLE_INCHES

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1000, 1530
"""Of the report's page, in pixels."""
COLOURS = 256
"""Of each picture, to keep its file small."""
NUM_COLUMNS = 7
"""Of a gallery."""


def main() -> None:
    """Draw both pictures."""
    asked = ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--store", default="results")
    asked.add_argument("--sweep", help="default: the last one started")
    asked.add_argument("--cells", nargs="+", default=["III[no,no]", "III[yes,no]"], help="seed 0")
    asked.add_argument("--line", type=int, default=2, help="of the galleries, from 0 on")
    asked.add_argument("--to", type=Path, default=Path(__file__).parent, help="folder")
    given = asked.parse_args()
    with explained():
        store = open_store(given.store)
        sweep = load_sweep(store, given.sweep)
        write(report_top(store, sweep), given.to / "report.png")
        lines = [gallery_line(store, sweep, cell, given.line) for cell in given.cells]
        write(stacked(lines), given.to / "gallery.png")


def report_top(store: Store, sweep: Sweep) -> Image.Image:
    """Return the top of a sweep's report, its commands as they are in this folder."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"error: none of {', '.join(BROWSERS)} is on the PATH; install Chromium")
    html = (report_folder(store, sweep) / "report.html").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "report.html"), Path(folder, "report.png")
        page.write_text(html.replace(f"{Path.cwd()}/", ""), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--screenshot={shot}"]
        subprocess.run(
            [browser, *options, f"--window-size={WIDTH},{HEIGHT}", page.as_uri()],
            check=True,
            capture_output=True,
            timeout=300,
        )
        with Image.open(shot) as image:
            return image.convert("RGB")


def gallery_line(store: Store, sweep: Sweep, cell: str, number: int) -> Image.Image:
    """Return a line of a cell's gallery under the titles of its columns."""
    cells = sweep.plan.cell_trials
    if cell not in cells:
        sys.exit(f"error: --cells {cell}: none of {', '.join(cells)}")
    with Image.open(store.run(cells[cell][0].run_id).path / FILE) as image:
        whole = image.convert("RGB")
    width = whole.width // NUM_COLUMNS
    height, titles = (
        round(width * inches / CELL_INCHES[0]) for inches in (CELL_INCHES[1], TITLE_INCHES)
    )
    line = whole.crop((0, number * height, whole.width, (number + 1) * height))
    line.paste(whole.crop((width, 0, whole.width, titles)), (width, 0))
    return line


def stacked(lines: list[Image.Image]) -> Image.Image:
    """Return pictures of equal size, one below the other."""
    width, height = lines[0].size
    image = Image.new("RGB", (width, height * len(lines)))
    for number, line in enumerate(lines):
        image.paste(line, (0, number * height))
    return image


def write(image: Image.Image, path: Path) -> None:
    """Write a picture with few colours, and say how large it is."""
    image.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(path, optimize=True)
    print(f"{path}: {image.width} x {image.height}, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
