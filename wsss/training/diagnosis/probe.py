"""The first steps of a CAM training, to see whether it trains and what it costs. Saves nothing.

They are the real training's: same seed, order of images, learning rates, device.
"""

import itertools
import math
import resource
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

import torch

from wsss.config import RunConfig
from wsss.data.voc import VocDataset
from wsss.training.cam import L_CLS, build_cam_net, cam_training, label_prior
from wsss.training.diagnosis.learning import (
    COLLAPSE_MARGIN,
    WINDOW,
    NotLearningError,
    PriorLimits,
    PriorWatch,
    prior_gap,
)
from wsss.training.execution import Execution
from wsss.training.loop import DivergedError, Reading
from wsss.training.process import Process

NUM_FIRST = 5
"""Steps over which L_cls is averaged at the start."""
FALL_MARGIN = 0.01
"""A fall by less says nothing: one batch differs from the next by more."""
NUM_WARM_UP = 3
"""Steps left out of the time per step: they allocate, and choose kernels."""


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe runs on, and how far. Changes no loss beyond rounding."""

    num_steps: int
    data: Path
    weights_file: Path | None = None
    execution: Execution = field(default_factory=Execution)
    limits: PriorLimits = field(default_factory=PriorLimits)


@dataclass(frozen=True)
class ProbeResult:
    """What the first steps of a training showed. Losses and norms are means over the ranks."""

    num_steps: int
    """Steps done: as many as asked for, or the whole training, or fewer if it failed."""
    total_steps: int
    """Of the whole training."""
    loss_first: float
    """Mean L_cls of the first NUM_FIRST steps; NaN if none was done."""
    loss_last: float
    """Mean L_cls of the last steps: a quarter of all, 1 to WINDOW of them; NaN if none was done."""
    prior: float
    """L_cls of the label frequencies."""
    largest_norm: float
    """Largest finite gradient norm before clipping."""
    seconds_per_step: float
    """Median, without the first NUM_WARM_UP steps; of all if there are no more; NaN without any."""
    batch_size: int
    """Images per step, of all ranks together."""
    peak_bytes: int
    """Of the rank that took most: its GPU's memory, or on the CPU its resident memory."""
    on_gpu: bool
    failure: str = ""
    """Why the training would fail here, in words; "" if it would not."""
    diverged: bool = False
    """Whether a loss or a gradient was not finite."""

    @property
    def images_per_second(self) -> float:
        """Of all ranks together."""
        return self.batch_size / self.seconds_per_step

    @property
    def training_seconds(self) -> float:
        """Estimate for the whole training, without scoring."""
        return self.total_steps * self.seconds_per_step

    @property
    def is_falling(self) -> bool:
        """Whether L_cls is lower at the end than at the start, by more than FALL_MARGIN."""
        return self.loss_last < (1 - FALL_MARGIN) * self.loss_first

    @property
    def at_prior(self) -> bool:
        """Whether L_cls at the end is not clearly below that of the label frequencies."""
        return not prior_gap(self.loss_last, self.prior) >= COLLAPSE_MARGIN

    @property
    def is_whole(self) -> bool:
        """Whether the probe was the whole training."""
        return self.num_steps == self.total_steps


def probe(config: RunConfig, options: ProbeOptions, process: Process) -> ProbeResult:
    """Train for the first steps of a configuration; every rank calls this.

    Ends early, without an exception, where the training would fail: on a gradient or a loss that is
    not finite, or at the label prior according to `options.limits`. Raises DataError and
    WeightsError.
    """
    if process.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(process.device)
    dataset = VocDataset(options.data)
    samples, num_classes = dataset.samples(config.data.train_split), len(dataset.classes)
    model = build_cam_net(config, samples, num_classes, weights_file=options.weights_file)
    process = replace(process, execution=options.execution)
    training = cam_training(model, config, samples, process=process)
    watch = PriorWatch(options.limits, label_prior(config, samples, num_classes))
    losses: list[float] = []
    norms, times = [0.0], [time.perf_counter()]
    failure, diverged = "", False
    readings = (found for found in training.run() if isinstance(found, Reading))
    try:
        for reading in itertools.islice(readings, options.num_steps):
            times.append(time.perf_counter())
            norms.append(reading.norm)
            losses.append(float(reading.values[L_CLS]))
            watch.look(losses[-1], reading.iteration)
    except (DivergedError, NotLearningError) as error:
        failure, diverged = str(error), isinstance(error, DivergedError)
    seconds = [end - start for start, end in itertools.pairwise(times)]
    steady = seconds[NUM_WARM_UP:] or seconds
    return ProbeResult(
        num_steps=len(losses),
        total_steps=training.num_iterations,
        loss_first=_mean(losses[:NUM_FIRST]),
        loss_last=_mean(losses[-min(WINDOW, max(1, len(losses) // 4)) :]),
        prior=watch.prior,
        largest_norm=max(norms),
        seconds_per_step=median(steady) if steady else math.nan,
        batch_size=training.loader.batch_size,
        peak_bytes=max(process.gather(_peak_bytes(process.device))),
        on_gpu=process.device.type == "cuda",
        failure=failure,
        diverged=diverged,
    )


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan


def _peak_bytes(device: torch.device) -> int:
    """Return this process's peak memory: on its GPU, else resident since it started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
