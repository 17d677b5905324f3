"""Memory and operations of a training step on a GPU by micro-batch, counted without a GPU.

Usage: python -m benchmarks.training.gpu_memory [--presets paper short]. Nothing is measured on a
GPU: EXTRAPOLATED. A forward and backward of 1 and of 2 images run on the CPU, where every living
tensor is counted, as torch's allocator does on a GPU; each further image adds what the second one
adds. WORKSPACE is added. bf16 is run under autocast on the CPU, whose list of operations differs a
little from a GPU's. tf32 takes as much as fp32.

Operations are those that the host starts in a step of the whole batch, forward, backward and
optimiser, without views, which start nothing; TFLOP are of convolutions and matrix products.
"""

import argparse
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from wsss.config import Precision, RunConfig
from wsss.gpu_check.trainings import CELLS, cam_case
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS

GIB = 2**30
WORKSPACE = 1.5 * GIB
"""CUDA's context and libraries (about .6 GiB), cuDNN's workspace, fragmentation: an assumption."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class Alive(TorchDispatchMode):
    """Within this context, counts operations, and the bytes of all storages that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.bytes = self.peak = self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        self.operations += not function.is_view
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self.note(tensor.untyped_storage())
        return found

    def note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.bytes -= size


class Counted(NamedTuple):
    """The second step of a training."""

    peak: int
    """The most bytes alive, weights included."""
    operations: int
    flop: int


def counted(config: RunConfig, images: int, precision: Precision) -> Counted:
    """Count the second step of a training with so many images."""
    config = apply_overrides(config, {"train.batch_size": images, "train.lr": 1e-6})
    subject = cam_case(config, {})
    model = subject.build()
    step = subject.step(model, torch.device("cpu"), precision)
    step(subject.batch)  # gradients and momentum exist from now on
    step.optimizer.zero_grad()
    before = sum(p.nbytes * (2 if p.requires_grad else 1) for p in model.parameters())
    with FlopCounterMode(display=False) as products, Alive() as alive:
        step(subject.batch)
    return Counted(before + alive.peak, alive.operations, products.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["tiny", "short", "paper"])
    for preset in parser.parse_args().presets:
        for cell in ("B0", "F3"):
            config = apply_overrides(PRESETS[preset], CELLS[cell])
            counts = [n for n in (1, 2, 4, 8, 16) if config.train.batch_size % n == 0]
            for precision in PRECISIONS:
                first, second = (counted(config, images, precision) for images in (1, 2))
                each = second.peak - first.peak
                fixed = first.peak - each + WORKSPACE
                row = "  ".join(f"{n}: {(fixed + n * each) / GIB:5.1f}" for n in counts)
                name = f"{preset} {cell} {'fp32, tf32' if precision == 'fp32' else precision}"
                print(
                    f"{name:22} {each / GIB:6.3f} GiB per image; GiB by images per forward, "
                    f"EXTRAPOLATED: {row}",
                    flush=True,
                )
                tera = first.flop * config.train.batch_size / 1e12
                print(f"{name:22} {first.operations:,} operations, {tera:.3g} TFLOP per step")


if __name__ == "__main__":
    main()
