"""How a training step runs against the other way: the ground of rules in docs/performance.md.

Usage: python -m benchmarks.training.step_choices [--threads 1]. Random images and weights.
"""

import argparse
import os
import statistics
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.ratios import faster, in_new_process, seconds, show
from benchmarks.training.train_step import SIZES, config_of, training
from sweeps.tables.studies import F3
from wsss.gpu_check.trainings import NUM_CLASSES
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
    rounds = [(step_seconds(keep="1"), step_seconds(keep="0")) for _ in range(3)]
    show("keeping freed memory, against glibc's default (short F3)", [b / a for a, b in rounds])


def step_seconds(*, keep: str) -> float:
    """Return the median time of a few steps in a new process, after one that does not count."""
    with patch.dict(os.environ, {SWITCH_VARIABLE: keep}):
        return in_new_process(few_steps, torch.get_num_threads())


def few_steps(threads: int) -> float:
    pick_device(threads)
    _, step = training(config_of("short", dict(F3)))
    return statistics.median([seconds(step) for _ in range(4)][1:])


def memory_format() -> None:
    """channels_last against contiguous, for the backbones of the presets."""
    for preset in ("tiny", "short", "paper"):
        config = config_of(preset, {})
        model = training(config)[0]
        other = CamNet(config.network, NUM_CLASSES).train()
        batch, crop = SIZES[preset]
        x = torch.randn(batch, 3, crop, crop)
        ours, peer = (
            partial(forward_and_backward, *each)
            for each in ((model, x, torch.channels_last), (other, x, torch.contiguous_format))
        )
        faster(f"channels_last against contiguous ({preset})", ours, peer, rounds=3)


def forward_and_backward(model: CamNet, x: Tensor, layout: torch.memory_format) -> None:
    model(x.contiguous(memory_format=layout)).cams.mean().backward()


def precision() -> None:
    """bf16 autocast against fp32; larger presets take minutes on a CPU without bf16 units."""
    _, bf16 = training(config_of("tiny", F3 | {"train.precision": "bf16"}))
    _, fp32 = training(config_of("tiny", dict(F3)))
    faster("bf16 autocast against fp32 (tiny F3)", bf16, fp32, rounds=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    pick_device(parser.parse_args().threads)
    views_together()
    kept_memory()
    memory_format()
    precision()


if __name__ == "__main__":
    main()
