"""Which machine this is, and whether this torch can use its GPU."""

import os
import platform
import subprocess
from dataclasses import dataclass

import torch
import torchvision

from wsss.gpu_check.findings import Deadline, Line, Options, Table
from wsss.gpu_check.subjects import Weights

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """What the other sections' numbers belong to."""

    device: str
    capability: tuple[int, int] | None
    """Compute capability; None on a CPU."""
    memory: int
    """Bytes of the GPU; 0 on a CPU."""
    free_memory: int
    driver: str
    cuda: str
    cudnn: str
    torch: str
    torchvision: str
    num_gpus: int
    num_cpus: int
    """Which this process may use."""
    has_tf32: bool
    has_bf16: bool
    built_for: tuple[str, ...]
    """Kinds of cards for which this torch brings kernels."""

    def lines(self) -> list[Line]:
        """Return what the card lacks."""
        if self.capability is None:
            return [
                Line(
                    "INFO", "device", f"the CPU ({self.device}), {self.num_cpus} to use",
                    "The check tries itself here. Speeds of this run say nothing about a GPU.",
                )
            ]  # fmt: skip
        share = self.free_memory / self.memory
        return [
            Line("INFO", "card", f"{self.device}, {self.memory / GIB:.1f} GiB"),
            Line(
                "PASS" if share > 0.9 else "LOOK", "free memory", f"{share:.0%} of it",
                "What others hold, a training cannot use; `auto` then takes a smaller micro-batch.",
                "see with nvidia-smi who holds the rest, and end it",
            ),
            Line(
                "PASS" if self.has_tf32 and self.has_bf16 else "LOOK", "numbers",
                f"tf32 {'yes' if self.has_tf32 else 'no'}, bf16 "
                f"{'yes' if self.has_bf16 else 'no'} (compute capability "
                f"{'.'.join(map(str, self.capability))})",
                "Cards from Ampere (8.0) on multiply fast in both. An older one computes tf32 as "
                "fp32, and bf16 slowly.",
                "leave the precision at its default; docs/gpu.md says what fits this card",
            ),
            Line(
                "PASS" if self.num_cpus >= 4 * self.num_gpus else "LOOK", "CPUs",
                f"{self.num_cpus} for {self.num_gpus} GPU(s)",
                "Pictures are decoded and cut by CPUs while the GPU trains.",
                "ask for more CPUs a GPU; section 4 says how many this card needs",
            ),
        ]  # fmt: skip

    def tables(self) -> list[Table]:
        """Return the versions."""
        rows = [("torch", self.torch), ("torchvision", self.torchvision)]
        if self.capability is not None:
            rows += [("driver", self.driver), ("CUDA", self.cuda), ("cuDNN", self.cudnn)]
            rows += [("kernels of this torch", " ".join(self.built_for))]
        return [Table(("software", "version"), tuple(rows))]


def look_at_machine(options: Options, weights: Weights, deadline: Deadline) -> Machine:
    """Return what this machine is. Raises RuntimeError if its GPU cannot even multiply."""
    capability, memory, free, name = None, 0, 0, platform.processor() or platform.machine()
    if options.on_gpu:
        properties = torch.cuda.get_device_properties(options.device)
        capability, name = (properties.major, properties.minor), properties.name
        free, memory = torch.cuda.mem_get_info(options.device)
        torch.ones(8, 8, device=options.device).matmul(
            torch.ones(8, 8, device=options.device)
        ).sum().item()
    cudnn = torch.backends.cudnn.version() if options.on_gpu else None
    affinity = hasattr(os, "sched_getaffinity")
    return Machine(
        device=name,
        capability=capability,
        memory=memory,
        free_memory=free,
        driver=_driver() if options.on_gpu else "",
        cuda=torch.version.cuda or "none",
        cudnn=str(cudnn or "none"),
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        num_gpus=torch.cuda.device_count(),
        num_cpus=len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1,
        has_tf32=bool(capability and capability >= (8, 0)),
        has_bf16=bool(capability and capability >= (8, 0)),
        built_for=tuple(torch.cuda.get_arch_list()) if options.on_gpu else (),
    )


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"
    return (found.stdout.split() or ["unknown"])[0]
