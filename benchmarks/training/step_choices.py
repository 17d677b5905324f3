"""How a training step runs against the other way: the ground of rules in docs/performance.md.

Usage: python -m benchmarks.training.step_choices [--threads 1]. Random images and weights.
"""

import argparse
import os
import statistics
import subprocess
import sys

import torch
from torch import Tensor

from benchmarks.ratios import faster, seconds, show
from benchmarks.training.train_step import NUM_CLASSES, SIZES, config_of, training
from sweeps.tables.studies import F3
from wsss.networks.cam_net import CamNet
from wsss.training.execution import SWITCH_VARIABLE
from wsss.training.process import pick_device


def views_together() -> None:
    """Three views in one forward against one after the other."""
    config = config_of("short", dict(F3))
    (_, together), (model, apart) = training(config), training(config)
    model.frozen_norm = False  # which sends the views one by one; the norms stay frozen
    faster("three views in one forward, against one by one (short)", together, apart, rounds=2)


def kept_memory() -> None:
    """Steps that keep the memory they free against glibc's default, each in its own process."""
    rounds = [(timed_steps("short", keep="1"), timed_steps("short", keep="0")) for _ in range(3)]
    show("keeping freed memory, against glibc's default (short F3)", [b / a for a, b in rounds])


def timed_steps(preset: str, *, keep: str) -> float:
    """Return the seconds of a step in a new process."""
    command = [sys.executable, "-m", "benchmarks.training.step_choices", "--only-steps", preset]
    environment = {**os.environ, SWITCH_VARIABLE: keep}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    return float(done.stdout)


def only_steps(preset: str) -> float:
    """Return the median time of a few steps, after one that does not count."""
    _, step = training(config_of(preset, dict(F3)))
    return statistics.median([seconds(step) for _ in range(4)][1:])


def memory_format() -> None:
    """channels_last against contiguous, for the backbones of the presets."""
    for preset in ("tiny", "short", "paper"):
        config = config_of(preset, {})
        model = training(config)[0]
        other = CamNet(config.network, NUM_CLASSES).train()
        batch, crop = SIZES[preset]
        x = torch.randn(batch, 3, crop, crop)

        def contiguous(other: CamNet = other, x: Tensor = x) -> None:
            other(x).cams.mean().backward()

        def channels_last(model: CamNet = model, x: Tensor = x) -> None:
            model(x.contiguous(memory_format=torch.channels_last)).cams.mean().backward()

        faster(f"channels_last against contiguous ({preset})", channels_last, contiguous, rounds=3)


def precision() -> None:
    """bf16 autocast against fp32; larger presets take minutes on a CPU without bf16 units."""
    _, bf16 = training(config_of("tiny", F3 | {"train.precision": "bf16"}))
    _, fp32 = training(config_of("tiny", dict(F3)))
    faster("bf16 autocast against fp32 (tiny F3)", bf16, fp32, rounds=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-steps", metavar="PRESET", help="time a few steps and nothing else")
    chosen = parser.parse_args()
    pick_device(chosen.threads)
    if chosen.only_steps:
        print(only_steps(chosen.only_steps))
        return
    views_together()
    kept_memory()
    memory_format()
    precision()


if __name__ == "__main__":
    main()
