"""Where all numbers were measured, and what its GPU lacks."""

import platform
import subprocess

import torch
import torchvision

from wsss.gpu_check.bench import Bench
from wsss.gpu_check.page import Section
from wsss.gpu_check.sections.speed import GIB
from wsss.training.execution import usable_cpus


def look_at_machine(bench: Bench, section: Section) -> None:
    """Where all numbers below were measured.

    Raises RuntimeError if the GPU cannot multiply.
    """
    num_cpus = usable_cpus()
    software = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    if bench.on_gpu:
        _look_at_card(bench.device, num_cpus, section)
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
