"""Play the README's first page: each of its commands, by a newcomer with an empty environment.

    make first-page

In a clone of the last commit, with the packages of this checkout, one epoch a training, and the
first sweep killed in the middle. Prints what was seen of each command, or why it was left out, and
ends with 1 at the first thing which is not as the page says.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import numpy as np
from PIL import Image

REPO = Path(__file__).parents[1]
ACTIVATE = ". .venv/bin/activate"
PROGRAMS = ("make", "sweeps", "wsss", "sbatch", ".")
SHORT = "SET=train.epochs=1"
PORT = 5137
AGAIN_SECONDS = 20
"""Within which a finished sweep is printed again; a second on an idle machine."""
SERVER_SECONDS = 180
LIMIT_SECONDS = 3600
NO_VOC = "needs all of VOC and a GPU"
NO_SLURM = "needs a SLURM cluster"


class UnlikeError(Exception):
    """Something is not as the page says."""


class Newcomer:
    """Someone with a fresh clone, an empty environment and one shell."""

    def __init__(self, home: Path) -> None:
        self.clone = home / "wsss-sweeps"
        subprocess.run(["git", "clone", "--quiet", REPO, self.clone], check=True)
        (self.clone / ".venv").symlink_to((REPO / ".venv").resolve())
        for name in ("requirements.lock", "pyproject.toml"):
            os.utime(self.clone / name, (0, 0))  # older than the environment, which stays as it is
        self.environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        self.environment["PYTHONPATH"] = str(self.clone)  # the packages' own is the checkout
        self.results = self.clone / "results"

    @contextmanager
    def starts(self, command: str) -> Iterator["subprocess.Popen[str]"]:
        """Start a command in a process group of its own, which is killed in the end (-9)."""
        process = subprocess.Popen(
            ["bash", "-c", f"{ACTIVATE}\n{command}"],
            cwd=self.clone,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def gives(self, command: str) -> str:
        """Give a command and return what it prints. Raises UnlikeError if it fails."""
        with self.starts(command) as process:
            said, _ = process.communicate(timeout=LIMIT_SECONDS)
        require(process.returncode == 0, f"`{command}` ended with {process.returncode}:\n{said}")
        return said

    def trained(self) -> dict[str, float]:
        """Return each finished training, and when it ended."""
        done = self.results.glob("cams/*/done.json")
        return {path.parent.name: path.stat().st_mtime for path in done}


def require(holds: object, words: str) -> None:
    """Raise UnlikeError with these words if something does not hold."""
    if not holds:
        raise UnlikeError(words)


def sweep_lambdas(me: Newcomer) -> str:
    """Kill the sweep in the middle, give it again, and again."""
    command = f"make sweep-lambdas {SHORT}"
    until = time.monotonic() + LIMIT_SECONDS
    with me.starts(command) as process:
        while len(me.trained()) < 2:
            if process.poll() is not None:
                raise UnlikeError(f"the sweep ended:\n{process.communicate()[0]}")
            require(time.monotonic() < until, "the sweep does not come on")
            time.sleep(0.5)
    before = me.trained()
    said = me.gives(command)
    after = me.trained()
    require(len(after) == 16, f"{len(after)} trainings, not 16")
    require(before.items() <= after.items(), "what was trained before kill -9 was trained again")
    require(re.search(r"^MLflow: \S+", said, re.MULTILINE), f"no link to MLflow:\n{said}")
    report = re.search(r"^report: (\S+\.html)", said, re.MULTILINE)
    require(report and (me.clone / report[1]).is_file(), f"no report:\n{said}")
    start = time.monotonic()
    again = me.gives(command)
    took = time.monotonic() - start
    require(me.trained() == after, "the finished sweep trained again")
    require("16 of 16 trials done, 0 to run" in again, again)
    require("Table V." in again, f"no table:\n{again}")
    require(took < AGAIN_SECONDS, f"the finished sweep took {took:.0f} s to be printed")
    return (
        f"killed after {len(before)} of 16 trainings, gone on, then printed again in {took:.1f} s"
    )


def mlflow(me: Newcomer) -> str:
    """Open the page that is printed."""
    with me.starts(f"make mlflow MLFLOW_PORT={PORT}") as process:
        for line in process.stdout or ():
            if found := re.search(rf"http://127\.0\.0\.1:{PORT}\S*", line):
                page, start = found[0].partition("#")[0], time.monotonic()
                while not answers(page):
                    waited = time.monotonic() - start
                    require(waited < SERVER_SECONDS, f"{page} is printed, and does not answer")
                    time.sleep(1)
                return f"{page} answers"
    raise UnlikeError("no link to MLflow's pages")


def answers(page: str) -> bool:
    """Whether a server of this machine gives a page."""
    try:
        build_opener(ProxyHandler({})).open(page, timeout=60).close()
    except OSError:
        return False
    return True


def prints(command: str, words: str) -> Callable[[Newcomer], str]:
    """Return the play of a command that prints these words."""

    def play(me: Newcomer) -> str:
        said = me.gives(command)
        require(words in said, f"`{command}` does not print {words!r}:\n{said}")
        return f"prints {words!r}"

    return play


def data_import(me: Newcomer) -> str:
    """Make a data set of the drawn one's pictures and their masks as COCO has them; plan on it."""
    me.gives("wsss data draw drawn")
    shutil.copytree(me.clone / "drawn/JPEGImages", me.clone / "photos")
    masks = sorted(me.clone.glob("drawn/SegmentationClass/*.png"))
    (me.clone / "photos.json").write_text(json.dumps(coco(masks)), encoding="utf-8")
    said = me.gives("wsss data import photos.json imported --images photos --masks")
    require("no problem found" in said, f"a fault in what was imported:\n{said}")
    following = re.search(r"^next: (sweeps plan .*)", said, re.MULTILINE)
    require(following, f"nothing to do next:\n{said}")
    assert following
    planned = me.gives(following[1])
    require("16 trials to run" in planned, f"no plan of Table V:\n{planned}")
    return f"makes a data set of {len(masks)} pictures with masks, on which Table V can be planned"


def coco(masks: list[Path]) -> dict[str, list[dict[str, object]]]:
    """Return masks of class numbers as COCO's instances, each class an uncompressed run length."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    classes = set[int]()
    for path in masks:
        with Image.open(path) as opened:
            mask = np.asarray(opened)
        height, width = mask.shape
        images.append(
            {"id": path.stem, "file_name": f"{path.stem}.jpg", "height": height, "width": width}
        )
        for number in {*mask.flat} - {0, 255}:
            inside = np.concatenate([[False], (mask == number).T.ravel(), [False]])
            changes = np.flatnonzero(np.diff(inside))
            runs = np.diff([0, *changes, mask.size])
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": path.stem,
                    "category_id": int(number),
                    "segmentation": {"counts": runs.tolist(), "size": [height, width]},
                    "iscrowd": 0,
                }
            )
            classes.add(int(number))
    categories: list[dict[str, object]] = [
        {"id": number, "name": f"class {number}"} for number in sorted(classes)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


PLAYS: dict[str, Callable[[Newcomer], str] | str] = {
    "make sweep-lambdas": sweep_lambdas,
    "make mlflow": mlflow,
    "sweeps status --watch": prints("sweeps status --watch", "16 finished of 16 trials"),
    "sweeps report": prints("sweeps report", "Does Table V hold"),
    "sweeps list": prints("sweeps list", "16/16"),
    "wsss data import photos.json /data/mine --images photos --masks": data_import,
    ACTIVATE: "given before each of the others",
    "make test": "takes a quarter of an hour",
    "make sweep-lambdas DATA=/data/mine": "downloads weights",
    "sweeps run III --data drawn-glare --seeds 5": "20 trainings; the page shows what came of them",
    "make calibrate DATA=/data/VOC2012 GPUS=1": NO_VOC,
    "make probe DATA=/data/VOC2012 PRESET=paper GPUS=1": NO_VOC,
    "make tables DATA=/data/VOC2012 PRESET=paper GPUS=1 SEEDS=3": NO_VOC,
    "sweeps slurm V --nodes 2 --gpus-per-node 4 --hours 24 --preset paper --data /data/VOC2012 "
    "--gpus 1": NO_SLURM,
    "sbatch wsss.sbatch": NO_SLURM,
}
"""Command of the page -> how it is played, or why it is left out; in this order."""


def shown(page: str) -> Iterator[str]:
    """Yield the commands in a page's indented blocks, and in its `code`, without comments."""
    for line in re.findall(r"^ {4}(\S.*)$", page, re.MULTILINE):
        if line.split()[0] in PROGRAMS:
            yield " ".join(line.partition(" #")[0].split())
    yield from (code for code in re.findall(r"`([^`]+)`", page) if code.startswith("make "))


def main() -> None:
    """Play the page."""
    commands = set(shown((REPO / "README.md").read_text(encoding="utf-8")))
    if commands != PLAYS.keys():
        sys.exit(f"error: of the README or of this script alone: {sorted(commands ^ PLAYS.keys())}")
    home, start = Path(tempfile.mkdtemp(prefix="first-")), time.monotonic()
    try:
        me = Newcomer(home)
        for command, play in PLAYS.items():
            seen = f"left out: {play}" if isinstance(play, str) else play(me)
            print(f"{command}: {seen}", flush=True)
        print(f"the README's first page holds; played in {time.monotonic() - start:.0f} s")
    except UnlikeError as problem:
        sys.exit(f"error: {problem}")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
