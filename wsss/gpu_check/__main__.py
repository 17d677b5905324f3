"""`python -m wsss.gpu_check`: is everything correct and fast on this machine's GPU?

Needs torch, torchvision, numpy, pillow, pydantic and pyyaml, and no network.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torchvision

from wsss.basics.errors import ForeseenError, explained
from wsss.basics.files import expanded
from wsss.gpu_check import page
from wsss.gpu_check.equality import check_equality
from wsss.gpu_check.page import Deadline, Options, Section, Table, first_line
from wsss.gpu_check.real_training import train_for_real
from wsss.gpu_check.speed import (
    GIB,
    Speeds,
    measure_inference,
    measure_loading,
    measure_steps,
    project,
)
from wsss.gpu_check.subjects import Pictures, Weights, find_pictures, read_weights
from wsss.presets import PRESETS
from wsss.training.execution import usable_cpus

SHARES = {
    "machine": 1,
    "equality": 45,
    "speed": 36,
    "loading": 8,
    "inference": 9,
    "real_training": 20,
    "projection": 1,
}
"""A section's share of the time left, relative to the shares of the sections still to come."""
PLANNED = 0.94
"""Share of --minutes that is planned; the rest is for the start and for parts that end late."""


class NoGpuError(ForeseenError, RuntimeError):
    """There is no GPU, or torch cannot use it; the message says what to do."""


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
        given = parser().parse_args(words)
        options = Options(
            device=pick(given.device, small=given.small),
            out=given.out,
            data=given.data,
            weights=given.weights,
            minutes=given.minutes,
            small=given.small,
            preset=given.preset or ("tiny" if given.small else "paper"),
        )
        return check(options, read_weights(options.weights), find_pictures(options))


def pick(name: str | None, *, small: bool) -> torch.device:
    """Return the device asked for. Raises NoGpuError."""
    if name == "cpu":
        if small:
            torch.set_num_threads(1)  # more are no faster at this size
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise NoGpuError(
            f"torch {torch.__version__} sees no GPU: check whether `nvidia-smi` shows one, whether "
            f"its driver is new enough for CUDA {torch.version.cuda}, and CUDA_VISIBLE_DEVICES; to "
            "try the check itself on a CPU, give --device cpu --small"
        )
    return torch.device("cuda", torch.cuda.current_device())


def check(options: Options, weights: Weights, pictures: Pictures) -> int:
    """Run all sections; write the page after each. Returns the exit code."""
    speeds = Speeds(full_size=options.preset == "paper" and not options.small)
    sections: dict[str, Callable[[Section], object]] = {
        "machine": lambda own: look_at_machine(options, own),
        "equality": lambda own: check_equality(options, weights, own),
        "speed": lambda own: measure_steps(options, weights, speeds, own),
        "loading": lambda own: measure_loading(options, pictures, speeds, own),
        "inference": lambda own: measure_inference(options, weights, pictures, speeds, own),
        "real_training": lambda own: train_for_real(options, weights, pictures, own),
        "projection": lambda own: project(speeds, own),
    }
    found: dict[str, Section] = {}
    started, whole = time.monotonic(), Deadline(60 * PLANNED * options.minutes)
    for name, measure in sections.items():
        to_come = sum(share for key, share in SHARES.items() if key not in found)
        print(f"{page.TITLES[name][0]} ...", flush=True)
        own = found[name] = Section(Deadline(whole.left() * SHARES[name] / to_come))
        try:
            measure(own)
        except Exception as error:  # the other sections may still run
            own.say(
                "FAIL",
                "this section",
                f"ended with an error: {first_line(error)}",
                "Its results cannot be trusted, and a sweep may fail with the same error.",
                "run the check again; if it fails again, report it with gpu_check.json",
            )
        for line in own.lines():
            print(page.line_text(line), flush=True)
        page.write(options, found, time.monotonic() - started)
    print(f"\n{options.out / 'gpu_check.txt'}: the page; gpu_check.json: its numbers")
    return int(any(line.verdict == "FAIL" for own in found.values() for line in own.lines()))


def look_at_machine(options: Options, section: Section) -> None:
    """Report the machine and what its GPU lacks. Raises RuntimeError if it cannot multiply."""
    num_cpus = usable_cpus()
    software = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    if options.on_gpu:
        _look_at_card(options.device, num_cpus, section)
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
    section.tables.append(Table(("software", "version"), list(software.items())))


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


if __name__ == "__main__":
    sys.exit(main())
