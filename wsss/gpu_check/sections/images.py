"""How fast this machine loads pictures for a training, and how fast it infers CAMs."""

import itertools
import statistics
from contextlib import closing
from functools import partial

import numpy as np

from wsss.config import LabelsConfig, Precision
from wsss.data.loading.batches import CropDataset, Loader
from wsss.data.loading.crops import resized, scaled_size, stack_images
from wsss.data.pictures.image import read_image
from wsss.data.voc import Sample
from wsss.gpu_check.bench import DRAWN, Bench, InferenceSpeed, LoadingSpeed, images_per_second, most
from wsss.gpu_check.page import Section
from wsss.gpu_check.trainings import CELLS, RANDOM
from wsss.labels.infer import images_at_once, infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.training.cam import build_cam_net
from wsss.training.execution import Execution
from wsss.training.loop import num_loader_workers

WORKERS = (0, 1, 2, 4, 8, 16)
ENOUGH = 1.05
"""A loader is fast enough with this many times the images that the step needs."""
LARGEST_CHANGE = {"tf32": 0.02, "bf16": 0.1}
"""Mean change of a normalised CAM from fp32 above which the page says LOOK."""


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
    most_workers = default + 1 if bench.on_gpu else 2
    for workers in (n for n in WORKERS if n <= max(2, most_workers)):
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
    found = (
        f"needs {needed:,.0f} images/s ({fastest.cell} in {fastest.precision}); loaded: "
        f"{most(bench.loaded):,.0f}"
    )
    what = "the loader keeps up with this device"
    if enough:
        section.say(
            "PASS" if min(enough) <= default_workers else "LOOK",
            f"{what}: yes, with {min(enough)} worker(s)",
            f"{found}; by default there are {default_workers}",
            remedy=f"give --loader-workers {min(enough)}",
        )
    else:
        section.say(
            "LOOK",
            f"{what}: NO",
            found,
            "The GPU waits for pictures in its fastest trainings (one view, bare network); three "
            "views need a third of that.",
            "give the job more CPUs per GPU, and --loader-workers N",
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
    decoded = images_per_second(partial(decode, samples, base.labels), len(samples), 0)
    section.numbers["host_rate"] = decoded
    judge_inference(bench, decoded, section)


def judge_inference(bench: Bench, decoded: float, section: Section) -> None:
    """Report how much CAMs change with the precision, and whether the GPU waits for the CPU.

    decoded: images per second that the CPU decodes and scales, without the network.
    """
    for speed in bench.inferred:
        if speed.precision != "fp32":
            section.say(
                "PASS" if speed.mean_change <= LARGEST_CHANGE[speed.precision] else "LOOK",
                f"CAMs in {speed.precision}",
                f"mean change {speed.mean_change:.1e} of a CAM in 0..1",
                "Maps of an untrained network; thresholded labels change by about the mean.",
                "score one training in both precisions (labels.precision) before you use it",
            )
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
        height, width = image.shape[2:]
        for scale in labels.scales:
            resized(image, scaled_size(height, width, scale), labels.resize).float()
