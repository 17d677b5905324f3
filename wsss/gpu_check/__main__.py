"""`python -m wsss.gpu_check`: is everything correct and fast on this machine's GPU?

Needs torch, torchvision, numpy, pillow, pydantic and pyyaml, and no network.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from wsss.basics.errors import ForeseenError, explained
from wsss.basics.files import expanded
from wsss.basics.printable import printable
from wsss.data.drawn.folder import draw_voc
from wsss.data.voc import VocDataset
from wsss.gpu_check.bench import DRAWN, NUM_ENLARGED, Bench, enlarged, split_of
from wsss.gpu_check.page import Section, section_text, write
from wsss.gpu_check.sections.equality import check_equality
from wsss.gpu_check.sections.machine import look_at_machine
from wsss.gpu_check.sections.real_training import train_for_real
from wsss.gpu_check.sections.speed import measure_inference, measure_loading, measure_steps, project
from wsss.gpu_check.trainings import read_weights
from wsss.presets import PRESETS

PLANNED = 0.94
"""Share of --minutes that is planned; the rest is for the start and for parts that end late."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""

    def path(text: str) -> Path:
        return Path(expanded(text))

    found = argparse.ArgumentParser(prog="python -m wsss.gpu_check", description=__doc__)
    found.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda")
    found.add_argument("--data", type=path, help="folder in VOC layout; default: drawn pictures")
    found.add_argument("--weights", type=path, help="state dict of a backbone; default: random")
    found.add_argument("--out", type=path, default=Path("gpu-check"), help="default: gpu-check")
    found.add_argument("--minutes", type=float, default=8.0, help="time limit; default: 8")
    found.add_argument("--small", action="store_true", help="small crops and batches, for a CPU")
    found.add_argument("--preset", choices=tuple(PRESETS), help="for the speed; default: paper")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Check; return 0 if nothing FAILs, else 1. Exits with 2 for options that cannot be used."""
    with explained():
        return check(bench_for(parser().parse_args(words)))


def bench_for(given: argparse.Namespace) -> Bench:
    """Return what the options ask for; draw pictures if none are given.

    Raises ForeseenError for options that cannot be used.
    """
    if not given.minutes >= 0:
        raise ForeseenError(f"--minutes {given.minutes}: give 0 or more")
    device, weights = pick(given.device, small=given.small), read_weights(given.weights)
    dataset = VocDataset(given.data or draw_voc(given.out / "drawn"))
    training = dataset.samples(split_of(dataset, "train_aug", "train"))
    large = training
    if given.data is None:
        large = [enlarged(sample, given.out / "enlarged") for sample in training[:NUM_ENLARGED]]
    return Bench(
        device,
        given.out,
        given.small,
        given.preset or ("tiny" if given.small else "paper"),
        given.minutes,
        weights,
        "pictures of --data" if given.data else DRAWN,
        dataset,
        training,
        large,
    )


def pick(name: str | None, *, small: bool) -> torch.device:
    """Return the device asked for. Raises ForeseenError if torch can use no GPU."""
    if name == "cpu":
        if small:
            torch.set_num_threads(1)  # more are no faster at this size
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ForeseenError(
            f"torch {torch.__version__} sees no GPU: check whether `nvidia-smi` shows one, whether "
            f"its driver is new enough for CUDA {torch.version.cuda}, and CUDA_VISIBLE_DEVICES; to "
            "try the check itself on a CPU, give --device cpu --small"
        )
    return torch.device("cuda", torch.cuda.current_device())


def new_sections() -> list[Section]:
    """Return the sections in the page's order: name, title, share of time, and code."""
    return [
        Section("machine", "The machine", 1, look_at_machine),
        Section("equality", "Equality", 45, check_equality),
        Section("speed", "Speed of a step", 36, measure_steps),
        Section("loading", "Loader and step", 8, measure_loading),
        Section("inference", "Inference", 9, measure_inference),
        Section("real_training", "A short real training", 20, train_for_real),
        Section("projection", "Hours of the paper's tables", 1, project),
    ]


def check(bench: Bench) -> int:
    """Run all sections; write the page after each. Returns the exit code."""
    sections, started = new_sections(), time.monotonic()
    end = started + 60 * PLANNED * bench.minutes
    for number, section in enumerate(sections, start=1):
        print(f"\n{section.title} ...", flush=True)
        now, to_come = time.monotonic(), sections[number - 1 :]
        section.end = now + (end - now) * section.share / sum(one.share for one in to_come)
        section.attempt("this section", partial(section.measure, bench, section))
        print(printable(section_text(number, section)), flush=True)
        progress = f"{number} of {len(sections)} sections"
        write(bench, sections[:number], progress, time.monotonic() - started)
    print(f"\n{bench.out / 'gpu_check.txt'}: the page; gpu_check.json: its numbers")
    return int(any(line.verdict == "FAIL" for one in sections for line in one.lines()))


if __name__ == "__main__":
    sys.exit(main())
