"""`python -m wsss.gpu_check`: is everything right and fast on this machine's GPU?

Needs torch, torchvision, numpy, pillow, pydantic and pyyaml, and no network.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wsss.errors import ForeseenError, explained
from wsss.gpu_check import page
from wsss.gpu_check.equality import check_equality
from wsss.gpu_check.findings import Deadline, Failed, Options, Section, first_line
from wsss.gpu_check.inference import Inference, measure_inference
from wsss.gpu_check.loading import Loading, measure_loading
from wsss.gpu_check.machine import look_at_machine
from wsss.gpu_check.pictures import Pictures, find_pictures
from wsss.gpu_check.projection import project
from wsss.gpu_check.real_training import train_for_real
from wsss.gpu_check.speed import Speed, measure_speed
from wsss.gpu_check.subjects import Weights, read_weights
from wsss.presets import PRESETS

SHARES = {"machine": 1, "equality": 45, "speed": 36, "loading": 8, "inference": 9,
          "real_training": 20, "projection": 1}  # fmt: skip
"""Of the time left, a section gets its share among those still to come."""

PLANNED = 0.94
"""Share of --minutes that is planned with; the rest is for the start, and for late parts."""


class NoGpuError(ForeseenError, RuntimeError):
    """There is no GPU, or torch cannot use it; the message says what to do."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    found = argparse.ArgumentParser(prog="python -m wsss.gpu_check", description=__doc__)
    found.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda")
    found.add_argument("--data", type=Path, help="folder in VOC layout; default: drawn pictures")
    found.add_argument("--weights", type=Path, help="state dict of a backbone; default: random")
    found.add_argument("--out", type=Path, default=Path("gpu-check"), help="default: gpu-check")
    found.add_argument("--minutes", type=float, default=8.0, help="at most; default: 8")
    found.add_argument("--small", action="store_true", help="small crops and batches, for a CPU")
    found.add_argument("--preset", choices=tuple(PRESETS), help="of the speed; default: paper")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Check; return 0 if nothing FAILs, else 1. Exits with 2 for options that cannot be."""
    given = parser().parse_args(words)
    with explained():
        options = Options(
            device=pick(given.device, small=given.small), out=given.out, data=given.data,
            weights=given.weights, minutes=given.minutes, small=given.small,
            preset=given.preset or ("tiny" if given.small else "paper"),
        )  # fmt: skip
        weights = read_weights(options.weights)
        pictures = find_pictures(options)
        return check(options, weights, pictures)


def pick(name: str | None, *, small: bool) -> torch.device:
    """Return the device asked for. Raises NoGpuError."""
    if name == "cpu":
        if small:
            torch.set_num_threads(1)  # more gain nothing at this size, and get in others' way
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise NoGpuError(
            f"torch {torch.__version__} sees no GPU: see whether `nvidia-smi` shows one, whether "
            f"its driver is new enough for CUDA {torch.version.cuda}, and CUDA_VISIBLE_DEVICES; "
            "to try the check itself on a CPU, give --device cpu --small"
        )
    return torch.device("cuda", torch.cuda.current_device())


def check(options: Options, weights: Weights, pictures: Pictures) -> int:
    """Go through all sections; write the page after each. Returns the exit code."""
    found: dict[str, Section] = {}
    started, whole = time.monotonic(), Deadline(60 * PLANNED * options.minutes)

    def speed() -> Speed | None:
        return one if isinstance(one := found["speed"], Speed) else None

    def loading(deadline: Deadline) -> Loading:
        fastest = measured.fastest() if (measured := speed()) else None
        name = f"{fastest.cell} in {fastest.precision}" if fastest else ""
        rate = (name, fastest.images_per_second) if fastest else None
        return measure_loading(options, pictures, rate, deadline)

    def projection(deadline: Deadline) -> Section:
        loaded, inferred = found["loading"], found["inference"]
        return project(
            speed(), loaded if isinstance(loaded, Loading) else None,
            inferred if isinstance(inferred, Inference) else None,
        )  # fmt: skip

    sections: dict[str, Callable[[Deadline], Section]] = {
        "machine": lambda end: look_at_machine(options, weights, end),
        "equality": lambda end: check_equality(options, weights, end),
        "speed": lambda end: measure_speed(options, weights, end),
        "loading": loading,
        "inference": lambda end: measure_inference(options, weights, pictures, end),
        "real_training": lambda end: train_for_real(options, weights, pictures, end),
        "projection": projection,
    }
    for name, section in sections.items():
        to_come = sum(share for key, share in SHARES.items() if key not in found)
        print(f"{page.TITLES[name][0]} ...", flush=True)
        try:
            found[name] = section(Deadline(whole.left() * SHARES[name] / to_come))
        except Exception as error:  # the other sections still say something
            found[name] = Failed(first_line(error))
        for line in found[name].lines():
            print(page.line_text(line), flush=True)
        page.write(options, found, time.monotonic() - started)
    print(f"\n{options.out / 'gpu_check.txt'}: the page; gpu_check.json: its numbers")
    return page.exit_code(found)


if __name__ == "__main__":
    sys.exit(main())
