"""`python -m wsss.gpu_check`: is everything correct and fast on this machine's GPU?

Needs torch, torchvision, numpy, pillow, pydantic and pyyaml, and no network.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision

from wsss.basics.errors import ForeseenError, explained
from wsss.basics.files import expanded
from wsss.gpu_check.equality import check_equality
from wsss.gpu_check.images import measure_inference, measure_loading
from wsss.gpu_check.page import Section, line_text, write
from wsss.gpu_check.real_training import train_for_real
from wsss.gpu_check.speeds import GIB, Bench, project
from wsss.gpu_check.steps import measure_steps
from wsss.gpu_check.subjects import Options, find_pictures, read_weights
from wsss.presets import PRESETS
from wsss.training.execution import usable_cpus

PLANNED = 0.94
"""Share of --minutes that is planned; the rest is for the start and for parts that end late."""


def _path(text: str) -> Path:
    return Path(expanded(text))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    found = argparse.ArgumentParser(prog="python -m wsss.gpu_check", description=__doc__)
    found.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda")
    found.add_argument("--data", type=_path, help="folder in VOC layout; default: drawn pictures")
    found.add_argument("--weights", type=_path, help="state dict of a backbone; default: random")
    found.add_argument("--out", type=_path, default=Path("gpu-check"), help="default: gpu-check")
    found.add_argument("--minutes", type=float, default=8.0, help="time limit; default: 8")
    found.add_argument("--small", action="store_true", help="small crops and batches, for a CPU")
    found.add_argument("--preset", choices=tuple(PRESETS), help="for the speed; default: paper")
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Check; return 0 if nothing FAILs, else 1. Exits with 2 for options that cannot be used."""
    with explained():
        return check(bench_for(parser().parse_args(words)))


def bench_for(given: argparse.Namespace) -> Bench:
    """Return what the options ask for. Raises ForeseenError for those that cannot be used."""
    options = Options(
        device=pick(given.device, small=given.small),
        out=given.out,
        weights=read_weights(given.weights),
        minutes=given.minutes,
        small=given.small,
        preset=given.preset or ("tiny" if given.small else "paper"),
        seconds=0.5 if given.small else 2.5,
    )
    return Bench(options, find_pictures(given.data, options.out))


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


def look_at_machine(bench: Bench, section: Section) -> None:
    """Report the machine and what its GPU lacks. Raises RuntimeError if it cannot multiply."""
    num_cpus = usable_cpus()
    software = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    if bench.options.on_gpu:
        _look_at_card(bench.options.device, num_cpus, section)
        software |= {
            "driver": _driver(),
            "CUDA": torch.version.cuda or "none",
            "cuDNN": str(torch.backends.cudnn.version()),
            "kernels of this torch": " ".join(torch.cuda.get_arch_list()),
        }
    else:
        cpu = platform.processor() or platform.machine()
        section.say(
            "INFO",
            "device",
            f"the CPU ({cpu}), {num_cpus} usable",
            "This only tests the check itself. Its speeds say nothing about a GPU.",
        )
    section.numbers |= {"num_cpus": num_cpus, "software": software}
    section.say("INFO", "software", ", ".join(map(" ".join, software.items())))


def _look_at_card(device: torch.device, num_cpus: int, section: Section) -> None:
    card, num_gpus = torch.cuda.get_device_properties(device), torch.cuda.device_count()
    free, memory = torch.cuda.mem_get_info(device)
    torch.ones(8, 8, device=device).matmul(torch.ones(8, 8, device=device)).sum().item()
    section.numbers |= {
        "device": card.name,
        "capability": (card.major, card.minor),
        "memory": memory,
        "free_memory": free,
        "num_gpus": num_gpus,
    }
    section.say("INFO", "card", f"{card.name}, {memory / GIB:.1f} GiB")
    section.say(
        "PASS" if free > 0.9 * memory else "LOOK",
        "free memory",
        f"{free / memory:.0%} of it",
        "A training cannot use what others hold; `auto` then chooses a smaller micro-batch.",
        "find with nvidia-smi what holds the rest, and end it",
    )
    ampere = card.major >= 8
    section.say(
        "PASS" if ampere else "LOOK",
        "precision",
        f"tf32 and bf16: {'yes' if ampere else 'no'} (compute capability {card.major}."
        f"{card.minor})",
        "GPUs from Ampere (8.0) on are fast in both. An older one computes tf32 as fp32, and bf16 "
        "slowly.",
        "leave the precision at its default; docs/gpu.md says what suits this GPU",
    )
    section.say(
        "PASS" if num_cpus >= 4 * num_gpus else "LOOK",
        "CPUs",
        f"{num_cpus} for {num_gpus} GPU(s)",
        "CPUs decode and crop pictures while the GPU trains.",
        "request more CPUs per GPU; section 4 says how many this GPU needs",
    )


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"
    return (found.stdout.split() or ["unknown"])[0]


class Plan(NamedTuple):
    """One section of the check."""

    title: str
    asks: str
    """What it wants to know."""
    share: int
    """Of the time left, relative to the shares of the sections still to come."""
    measure: Callable[[Bench, Section], None]


PLANS = {
    "machine": Plan("The machine", "Where all numbers below were measured.", 1, look_at_machine),
    "equality": Plan(
        "Equality",
        "One step of every training, and every inference, on the CPU and on the device in full "
        "fp32: the same losses, gradients and maps? This decides whether results can be trusted.",
        45,
        check_equality,
    ),
    "speed": Plan(
        "Speed of a step", "Training at full size, from batches in memory.", 36, measure_steps
    ),
    "loading": Plan(
        "Loader and step",
        "CPU processes decode and crop pictures. Do they keep up with the fastest step?",
        8,
        measure_loading,
    ),
    "inference": Plan(
        "Inference", "Multi-scale CAMs, from which pseudo-labels are made.", 9, measure_inference
    ),
    "real_training": Plan(
        "A short real training",
        "From files to a score, with few pictures and few steps.",
        20,
        train_for_real,
    ),
    "projection": Plan(
        "Hours of the paper's tables",
        "Extrapolated from sections 3 to 5; none of it has been run.",
        1,
        project,
    ),
}
"""The sections in the page's order."""


def check(bench: Bench, plans: Mapping[str, Plan] = PLANS) -> int:
    """Run all sections; write the page after each. Returns the exit code."""
    found: dict[str, Section] = {}
    started = time.monotonic()
    end = started + 60 * PLANNED * bench.options.minutes
    for name, plan in plans.items():
        print(f"{plan.title} ...", flush=True)
        to_come = sum(other.share for key, other in plans.items() if key not in found)
        now = time.monotonic()
        section = Section(plan.title, plan.asks, now + (end - now) * plan.share / to_come)
        found[name] = section
        section.attempt(
            "this section",
            partial(plan.measure, bench, section),
            "Its results cannot be trusted, and a sweep may fail with the same error.",
            "run the check again; if it fails again, report it with gpu_check.json",
        )
        for line in section.lines():
            print(line_text(line), flush=True)
        write(bench.options, found, time.monotonic() - started, len(plans))
    out = bench.options.out
    print(f"\n{out / 'gpu_check.txt'}: the page; gpu_check.json: its numbers")
    return int(any(line.verdict == "FAIL" for own in found.values() for line in own.lines()))


if __name__ == "__main__":
    sys.exit(main())
