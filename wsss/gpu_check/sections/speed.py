"""How fast this machine trains, loads pictures and infers CAMs, and the hours that follow."""

import itertools
import statistics
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from wsss.config import LabelsConfig, Precision
from wsss.data.loading.batches import CropDataset, Loader
from wsss.data.loading.crops import resized, scaled_size, stack_images
from wsss.data.pictures.image import read_image
from wsss.data.voc import Sample
from wsss.gpu_check.bench import (
    DRAWN,
    PRECISIONS,
    Bench,
    InferenceSpeed,
    LoadingSpeed,
    StepSpeed,
    images_per_second,
    most,
)
from wsss.gpu_check.page import Section
from wsss.gpu_check.trainings import CELLS, RANDOM, TrainingCase, cam_case
from wsss.labels.infer import images_at_once, infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import PAPER, PRESETS
from wsss.training.cam import build_cam_net
from wsss.training.execution import Execution
from wsss.training.loop import num_loader_workers

GIB = 2**30
CANNOT_RUN = (
    "This training cannot run here at the preset's size.",
    'use a larger GPU, a smaller --micro-batch or SET="train.crop_size=..."; if it is not about '
    "memory, report it with gpu_check.json",
)
"""Meaning and remedy of a FAIL."""
WORKERS = (0, 1, 2, 4, 8, 16)
ENOUGH = 1.05
"""A loader is fast enough with this many times the images that the step needs."""
LARGEST_CHANGE = {"tf32": 0.02, "bf16": 0.1}
"""Mean change of a normalised CAM from fp32 above which the page says LOOK."""
NUM_TRAIN, NUM_SCORED = 10_582, 1_464
"""Images of VOC: train_aug, which is trained on, and train, which is scored."""
NUM_SEEDS = 3
TRAININGS = {(0, 0): 1, (0, 1): 4, (0, 2): 1, (0, 4): 1, (1, 4): 2, (2, 4): 16}
"""(adjusted views, parts of the module) -> distinct trainings of Tables III to VI per seed.

Each is scored once. A test derives this table from the sweeps' plan.
"""
NUM_TRAININGS = NUM_SEEDS * sum(TRAININGS.values())


def measure_steps(bench: Bench, section: Section) -> None:
    """Training at full size, from batches in memory.

    Steps of B0, F0 and F3 are measured, the most important first.
    """
    preset = PRESETS[bench.preset]
    if bench.small:
        size = {"train.crop_size": min(96, preset.train.crop_size), "train.batch_size": 2}
        preset = apply_overrides(preset, size)
    section.show(
        "steps",
        bench.steps,
        f"{preset.train.batch_size} images of {preset.train.crop_size} px per step, preset "
        f"{bench.preset}{', made SMALLER: not the speed of that preset' if bench.small else ''}. "
        "B0: bare network, one view. F0: full module. F3: full module, three views. An image "
        "counts once, whatever its views, and comes from memory.",
    )
    trainings = {
        cell: cam_case(apply_overrides(preset, CELLS[cell] | {"train.lr": 1e-6}), bench.weights)
        for cell in ("F3", "B0", "F0")
    }
    if not bench.on_gpu:
        section.skipped["memory"] = "not measured on a CPU"
    for precision, (cell, training) in itertools.product(PRECISIONS, trainings.items()):
        measure = partial(step_speed, cell, precision, training, bench)
        if found := section.part(f"{cell} in {precision}", measure, CANNOT_RUN):
            bench.steps.append(found)


def step_speed(cell: str, precision: Precision, training: TrainingCase, bench: Bench) -> StepSpeed:
    """Measure the steps of one network."""
    device, size = bench.device, len(training.batch.pixels)
    try:
        step, batch = training.warm(device, precision)
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        rate = images_per_second(lambda: step(batch), size, bench.seconds)
        peak = torch.cuda.max_memory_allocated(device) / GIB if bench.on_gpu else 0.0
        return StepSpeed(cell, precision, size, step.micro_batch or size, rate, peak)
    finally:
        if bench.on_gpu:
            torch.cuda.empty_cache()


def measure_loading(bench: Bench, section: Section) -> None:
    """CPU processes decode and crop pictures. Do they keep up with the fastest step?"""
    enlarged = ", enlarged to the size of VOC's" if bench.source == DRAWN else ""
    section.show(
        "loaded",
        bench.loaded,
        f"Crops of preset {bench.preset} from {bench.source}{enlarged}. 0 workers: the training "
        "process loads itself, between its steps.",
    )
    train = PRESETS[bench.preset].train
    default = num_loader_workers(Execution(), bench.device)
    batch = min(train.batch_size, len(bench.large))
    many = bench.large * (1 + 2**16 // len(bench.large))  # an epoch longer than the measurement
    crops = CropDataset(many, len(bench.dataset.classes), train, rng_seed=0)
    for workers in (n for n in WORKERS if n <= max(2, default + 1)):
        loader = Loader(crops, batch, num_workers=workers, pin=bench.on_gpu)
        if rate := section.part(f"{workers} workers", partial(loading_rate, loader, bench.seconds)):
            bench.loaded.append(LoadingSpeed(workers, rate))
    judge_loading(bench, default, section)


def judge_loading(bench: Bench, default_workers: int, section: Section) -> None:
    """Report whether the loader keeps up with the device, and with how many workers."""
    if not (bench.steps and bench.loaded):
        section.skipped["what the step needs"] = "no step, or no loader, was measured"
        return
    fastest = max(bench.steps, key=lambda step: step.images_per_second)
    needed = fastest.images_per_second
    enough = [n.workers for n in bench.loaded if n.images_per_second >= ENOUGH * needed]
    section.say(
        "PASS" if enough and enough[0] <= default_workers else "LOOK",
        "the loader keeps up with this device: "
        + (f"yes, with {enough[0]} worker(s)" if enough else "NO"),
        f"needs {needed:,.0f} images/s ({fastest.cell} in {fastest.precision}); loaded: "
        f"{most(bench.loaded):,.0f}; by default there are {default_workers} workers",
        "The GPU waits for pictures in its fastest trainings (one view, bare network); three "
        "views need a third of that.",
        f"give --loader-workers {enough[0]}"
        if enough
        else "give the job more CPUs per GPU, and --loader-workers N",
    )


def loading_rate(loader: Loader, seconds: float) -> float:
    """Return images per second, once the batches that workers made in advance are used up."""
    endless = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
    with closing(endless):  # ends the workers
        for _ in range(1 + 3 * loader.num_workers):
            next(endless)
        return images_per_second(lambda: next(endless), loader.batch_size, seconds)


def measure_inference(bench: Bench, section: Section) -> None:
    """Multi-scale CAMs, from which pseudo-labels are made, in every precision."""
    base = apply_overrides(PRESETS[bench.preset], CELLS["F3"])
    samples = bench.large[: 2 if bench.small else 32]
    section.show(
        "inferred",
        bench.inferred,
        f"F3 of preset {bench.preset}, {len(samples)} {bench.source}, all scales and flips, "
        "decoding included. Changes are against fp32, of CAMs in 0..1.",
    )
    name, file = bench.weights.get(base.network.backbone, RANDOM)
    config = apply_overrides(base, {"network.weights": name, "train.crop_size": 128})
    model = build_cam_net(config, samples, len(bench.dataset.classes), weights_file=file)
    at_once = images_at_once(bench.device)

    def infer(precision: Precision) -> list[np.ndarray]:
        labels = base.labels.model_copy(update={"precision": precision})
        found = infer_cams(model, samples, labels, device=bench.device)
        return [image.cams for image in found]  # NumPy arrays: the device is done

    expected: list[np.ndarray] = []
    for precision in ("fp32", "tf32", "bf16"):  # fp32 first: the others are compared with it
        if not section.is_late(precision):
            cams = infer(precision)  # also loads kernels for each size of image
            rate = images_per_second(partial(infer, precision), len(samples), 0)
            expected = expected or cams
            pairs = zip(cams, expected, strict=True)
            change = statistics.fmean(float(np.abs(a - b).mean()) for a, b in pairs)
            bench.inferred.append(InferenceSpeed(precision, at_once, rate, change))
            if largest := LARGEST_CHANGE.get(precision):
                section.say(
                    "PASS" if change <= largest else "LOOK",
                    f"CAMs in {precision}",
                    f"mean change {change:.1e} of a CAM in 0..1",
                    "Maps of an untrained network; thresholded labels change by about the mean.",
                    "score one training in both precisions (labels.precision) before you use it",
                )
    decoded = images_per_second(partial(decode, samples, base.labels), len(samples), 0)
    section.numbers["host_rate"] = decoded
    if best := most(bench.inferred):
        section.say(
            "LOOK" if best > 0.7 * decoded else "PASS",
            "the CPU's share of inference",
            f"decoding and scaling alone: {decoded:,.0f} images/s; with the network: {best:,.0f}",
            "The GPU waits for the CPU.",
            "run several trials per GPU; a faster precision will not help",
        )


def decode(samples: list[Sample], labels: LabelsConfig) -> None:
    """Decode and scale images as `multi_scale_cams` does."""
    for sample in samples:
        image = stack_images([read_image(sample.image_path)])
        for scale in labels.scales:
            height, width = image.shape[2:]
            resized(image, scaled_size(height, width, scale), labels.resize).float()


@dataclass(frozen=True)
class Hours:
    """What Tables III to VI take on this GPU in one precision, with NUM_SEEDS seeds."""

    precision: str
    training: float
    inference: float
    bound_by_loading: bool
    """Whether loading is slower than a step of some training."""


def hours_of_tables(bench: Bench, precision: Precision) -> Hours | None:
    """Return the hours in a precision; None if its steps or inference were not measured.

    Assumptions: one training after the other, one attempt each, pictures loaded as fast as
    measured. A single part counts as the whole module, which is a little too much.
    """
    rate = most(one for one in bench.inferred if one.precision == precision)
    seconds = {
        s.cell: s.batch / s.images_per_second for s in bench.steps if s.precision == precision
    }
    if seconds.keys() != CELLS.keys() or not rate:
        return None
    each_view = (seconds["F3"] - seconds["F0"]) / 2
    steps = {kind: seconds["F0" if kind[1] else "B0"] + kind[0] * each_view for kind in TRAININGS}
    train = PAPER.train
    loading = train.batch_size / most(bench.loaded) if bench.loaded else 0.0
    num_steps = train.epochs * (NUM_TRAIN // train.batch_size)
    in_all = sum(n * num_steps * max(steps[kind], loading) for kind, n in TRAININGS.items())
    return Hours(
        precision,
        NUM_SEEDS * in_all / 3600,
        NUM_TRAININGS * NUM_SCORED / rate / 3600,
        bound_by_loading=loading > min(steps.values()),
    )


def project(bench: Bench, section: Section) -> None:
    """Extrapolated from sections 3 to 5; none of it has been run."""
    if bench.preset != "paper" or bench.small:
        section.skipped["hours of Tables III to VI"] = (
            "they need steps of --preset paper at full size (no --small)"
        )
        return
    hours: list[Hours] = []
    section.show(
        "hours",
        hours,
        f"{NUM_TRAIN:,} training and {NUM_SCORED:,} scored images, {NUM_TRAININGS} trainings "
        f"({NUM_SEEDS} seeds), one after the other. bf16 is another experiment than tf32.",
    )
    for precision in PRECISIONS:
        if found := hours_of_tables(bench, precision):
            hours.append(found)
        else:
            section.skipped[f"hours in {precision}"] = "its steps or CAMs were not measured"
    if any(one.bound_by_loading for one in hours):
        section.say(
            "LOOK",
            "pictures",
            "are loaded more slowly than some steps use them",
            "Part of these hours, the GPU waits for the CPUs.",
            "more CPUs per GPU; see section 4",
        )
