"""After how many iterations `--compile` has paid for its compiling, by preset.

Usage: python benchmarks/compiled.py [--threads 1] [PRESET ...]. The full module with both views, as
the preset trains it, on random images and weights; `paper` at batch 2 and 256 pixels. Kernels are
compiled into an empty cache, as on a new machine. Needs a C++ compiler.
"""

import argparse
import os
import tempfile
from collections.abc import Callable

import torch
from ratios import alternate, seconds, show
from train_step import NUM_CLASSES, batch_of

from sweeps.tables.studies import F3
from wsss.networks.cam_net import CamNet
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.training.cam import cam_step
from wsss.training.execution import Execution
from wsss.training.process import pick_device

SMALLER = {"paper": {"train.batch_size": 2, "train.crop_size": 256}}
ROUNDS = {"tiny": 20, "short": 4, "paper": 4}


def training(preset: str, *, compiled: bool) -> Callable[[], object]:
    """Return a function that takes one training step of the preset."""
    settings = F3 | {"network.weights": "none", "train.lr": 1e-6} | SMALLER.get(preset, {})
    if settings.get("train.crop_size"):
        settings |= {"train.min_long_side": 256, "train.max_long_side": 256}
    config = apply_overrides(PRESETS[preset], settings)
    torch.manual_seed(0)
    model = CamNet(config.network, NUM_CLASSES).to(memory_format=torch.channels_last).train()
    step = cam_step(model, config, execution=Execution(compiled=compiled))
    batch = batch_of(config)
    return lambda: step(batch)


def break_even(preset: str) -> None:
    """Print the gain of a compiled step, what compiling costs, and where they meet."""
    plain, compiled = training(preset, compiled=False), training(preset, compiled=True)
    first = seconds(compiled) + seconds(compiled)
    pairs = alternate(compiled, plain, ROUNDS[preset])
    gain = show(f"{preset} F3: a compiled step against a plain one", [b / a for a, b in pairs])
    saved = sorted(theirs - own for own, theirs in pairs)[len(pairs) // 2]
    cost = first - 2 * min(own for own, _ in pairs)
    usual = min(theirs for _, theirs in pairs)
    meet = f"pays after {cost / saved:,.0f} iterations" if gain.median > 1 else "never pays"
    print(f"    compiling costs {cost:.0f} s, {cost / usual:,.0f} plain steps; {meet}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("presets", nargs="*", default=list(PRESETS), metavar="PRESET")
    chosen = parser.parse_args()
    pick_device(chosen.threads)
    with tempfile.TemporaryDirectory(prefix="compiled") as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        for preset in chosen.presets:
            break_even(preset)


if __name__ == "__main__":
    main()
