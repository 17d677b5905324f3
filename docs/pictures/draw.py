"""Draw the pictures of the README anew: `.venv/bin/python docs/pictures/draw.py`.

Runs Table VI with the defaults (two minutes on two idle cores), unless --store has it already, and
needs a `chromium`. Writes report.png (the first screen of the report) and gallery.png (the maps of
one image) beside this file.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1280, 900
COLOURS = 128
ROWS = 6
"""Images in a run's gallery."""


def draw(store: Path, chromium: str) -> None:
    """Write both pictures from a store, whose sweep is run first or completed."""
    subprocess.run([sys.executable, "-m", "sweeps", "run", "VI", "--store", store], check=True)
    (page,) = store.glob("sweeps/VI-*/report/report.html")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", page.absolute().as_uri()],
            check=True, capture_output=True,
        )  # fmt: skip
        save(Image.open(shot), HERE / "report.png", width=1000)
    gallery = Image.open(max(store.glob("runs/*/cam_gallery.png"), key=str))
    row = gallery.crop((0, 0, gallery.width, gallery.height // ROWS))
    save(row, HERE / "gallery.png", width=1000)


def save(image: Image.Image, path: Path, *, width: int) -> None:
    """Write a small PNG of this width, in few colours."""
    small = image.convert("RGB").resize((width, round(image.height * width / image.width)))
    small.quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {small.width}x{small.height}, {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("results"))
    parser.add_argument("--chromium", default="chromium")
    given = parser.parse_args()
    draw(given.store, given.chromium)
