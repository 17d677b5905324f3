"""How fast this machine loads pictures for a training, and how fast it infers CAMs."""

import statistics
import time
from typing import Any

import numpy as np

from wsss.config import LabelsConfig, Precision
from wsss.data.loading.batches import CropDataset, Loader
from wsss.data.loading.crops import resized, scaled_size, stack_images
from wsss.data.pictures.image import read_image
from wsss.data.voc import Sample
from wsss.gpu_check.page import Section
from wsss.gpu_check.speeds import PRECISIONS, Bench, InferenceSpeed, LoadingSpeed, Speeds
from wsss.gpu_check.subjects import CELLS, NUM_CLASSES, cam_subject
from wsss.labels.infer import infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.training.execution import Execution
from wsss.training.loop import num_loader_workers

WORKERS = (0, 1, 2, 4, 8, 16)
ENOUGH = 1.05
"""A loader is fast enough with this many times the images that the step needs."""
LARGEST_CHANGE = {"tf32": 0.02, "bf16": 0.1}
"""Mean change of a normalised CAM from fp32 above which the page says LOOK."""


def measure_loading(bench: Bench, section: Section) -> None:
    """Measure the loader at the preset's full crop."""
    options, loaded = bench.options, bench.speeds.loaded
    enlarged = ", enlarged to the size of VOC's" if bench.pictures.are_drawn else ""
    section.show(
        "loaded",
        loaded,
        f"Crops of preset {options.preset} from {bench.pictures.source}{enlarged}. 0 workers: the "
        "training process loads itself, between its steps.",
    )
    train = PRESETS[options.preset].train
    samples = bench.pictures.large
    default = num_loader_workers(Execution(), options.device)
    batch = min(train.batch_size, len(samples))
    many = samples * -(-4096 // len(samples))  # an epoch longer than the measurement
    crops = CropDataset(many, NUM_CLASSES, train, rng_seed=0)
    most = default + 1 if options.on_gpu else 2
    for workers in (n for n in WORKERS if n <= max(2, most)):
        if not section.is_late(f"{workers} workers"):
            loader = Loader(crops, batch, num_workers=workers, pin=options.on_gpu)
            loaded.append(LoadingSpeed(workers, loading_rate(loader, options.seconds)))
    judge_loading(bench.speeds, default, section)


def judge_loading(speeds: Speeds, default_workers: int, section: Section) -> None:
    """Report whether the loader keeps up with the device, and with how many workers."""
    if not speeds.steps:
        section.skipped["what the step needs"] = "no step was measured"
    if not (speeds.steps and speeds.loaded):
        return
    fastest = max(speeds.steps, key=lambda step: step.images_per_second)
    needed = fastest.images_per_second
    enough = [n.workers for n in speeds.loaded if n.images_per_second >= ENOUGH * needed]
    found = (
        f"needs {needed:,.0f} images/s ({fastest.cell} in {fastest.precision}); loaded: "
        f"{speeds.loading_rate():,.0f}"
    )
    if not enough:
        section.say(
            "LOOK",
            "the loader keeps up with this device: NO",
            found,
            "The GPU waits for pictures in its fastest trainings (one view, bare network); three "
            "views need a third of that.",
            "give the job more CPUs per GPU, and --loader-workers N",
        )
        return
    section.say(
        "PASS" if min(enough) <= default_workers else "LOOK",
        f"the loader keeps up with this device: yes, with {min(enough)} worker(s)",
        f"{found}; by default there are {default_workers}",
        "Training is as fast as the GPU.",
        f"give --loader-workers {min(enough)}",
    )


def loading_rate(loader: Loader, seconds: float) -> float:
    """Return images per second, once the batches that workers made in advance are used up."""
    ahead, count = 1 + 3 * loader.num_workers, 0
    batches = loader.epoch(0)
    for _ in range(ahead):
        next(batches)
    started = time.perf_counter()
    for _ in batches:
        count += 1
        if count >= 2 and time.perf_counter() - started > seconds:
            break
    taken = time.perf_counter() - started
    batches.close()  # type: ignore[attr-defined]  # ends the workers
    return count * loader.batch_size / taken


def measure_inference(bench: Bench, section: Section) -> None:
    """Infer the same images in every precision, one and eight at a time."""
    options, inferred = bench.options, bench.speeds.inferred
    base = apply_overrides(PRESETS[options.preset], CELLS["F3"])
    samples = bench.pictures.large[: 2 if options.small else 32]
    section.show(
        "inferred",
        inferred,
        f"F3 of preset {options.preset}, {len(samples)} {bench.pictures.source}, all scales and "
        "flips, decoding included. Changes are against fp32, of CAMs in 0..1.",
    )
    size = {"train.crop_size": min(128, base.train.crop_size), "train.batch_size": 2}
    model: Any = cam_subject(apply_overrides(base, size), options.weights).build()

    def infer(precision: Precision, at_once: int) -> list[np.ndarray]:
        labels = base.labels.model_copy(update={"precision": precision})
        found = infer_cams(model, samples, labels, device=options.device, batch_size=at_once)
        return [image.cams for image in found]  # NumPy arrays: the device is done

    expected: list[np.ndarray] = []
    for precision in ("fp32", "tf32", "bf16"):  # fp32 first: the others are compared with it
        for at_once in (1, 8):
            name = f"{precision}, {at_once} at once"
            if section.is_late(name):
                continue
            if at_once > 1 and options.small:
                section.skipped[name] = "not measured with --small"
                continue
            if not options.small:
                infer(precision, at_once)  # kernels for each size of image
            started = time.perf_counter()
            cams = infer(precision, at_once)
            rate = len(samples) / (time.perf_counter() - started)
            expected = expected or cams
            changes = [np.abs(a - b) for a, b in zip(cams, expected, strict=True)]
            largest = max(float(change.max()) for change in changes)
            mean = statistics.fmean(float(change.mean()) for change in changes)
            inferred.append(InferenceSpeed(precision, at_once, rate, largest, mean))
    decoded = section.numbers["host_rate"] = host_rate(samples, base.labels)
    judge_inference(bench.speeds, decoded, section)


def judge_inference(speeds: Speeds, decoded: float, section: Section) -> None:
    """Report how much CAMs change with the precision, and whether the GPU waits for the CPU.

    decoded: images per second that the CPU decodes and scales, without the network.
    """
    for precision, limit in LARGEST_CHANGE.items():
        own = [s for s in speeds.inferred if s.precision == precision]
        if own:
            mean = max(s.mean_change for s in own)
            section.say(
                "PASS" if mean <= limit else "LOOK",
                f"CAMs in {precision}",
                f"mean change {mean:.1e}, largest {max(s.largest_change for s in own):.1e} of a "
                "CAM in 0..1",
                "Maps of an untrained network; thresholded labels change by about the mean.",
                "score one training in both precisions (labels.precision) before you use it",
            )
    if best := speeds.inference_rate(*PRECISIONS):
        slow = best > 0.7 * decoded
        section.say(
            "LOOK" if slow else "PASS",
            "the CPU's share of inference",
            f"decoding and scaling alone: {decoded:,.0f} images/s; with the network: {best:,.0f}",
            "The GPU waits for the CPU." if slow else "The network takes most of the time.",
            "run several trials per GPU; a faster precision will not help",
        )


def host_rate(samples: list[Sample], labels: LabelsConfig) -> float:
    """Return images per second of decoding and scaling, as `multi_scale_cams` does it."""
    started = time.perf_counter()
    for sample in samples:
        image = stack_images([read_image(sample.image_path)])
        height, width = image.shape[2:]
        for scale in labels.scales:
            resized(image, scaled_size(height, width, scale), labels.resize).float()
    return len(samples) / (time.perf_counter() - started)
