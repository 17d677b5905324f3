"""How fast this device trains, loads pictures and infers, and the hours that the tables take."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss.basics.errors import ForeseenError
from wsss.config import LabelsConfig, Precision
from wsss.data.loading.batches import CropDataset, Loader
from wsss.data.loading.crops import resized, scaled_size, stack_images
from wsss.data.pictures.image import read_image
from wsss.data.voc import Sample
from wsss.gpu_check.page import Options, Section, Table, first_line
from wsss.gpu_check.subjects import (
    CELLS,
    NUM_CLASSES,
    Pictures,
    Subject,
    Weights,
    affinity_subject,
    cam_subject,
    deeplab_subject,
)
from wsss.labels.infer import infer_cams
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS, PRESETS
from wsss.training.execution import Execution
from wsss.training.loop import num_loader_workers

PRECISIONS: tuple[Precision, ...] = ("tf32", "bf16", "fp32")
ROOT = Path(__file__).parents[2]
"""Of this project; paths of its files are shown relative to it."""
GIB = 2**30
ROUNDS = 3
MAX_STEPS = 20
"""Of a round."""
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


@dataclass(frozen=True)
class StepSpeed:
    """One cell in one precision."""

    cell: str
    precision: str
    batch: int
    micro_batch: int = 0
    """Images per forward; 0 if there was no step."""
    seconds: float = 0.0
    """Per step; median of ROUNDS, each of several steps with one wait at its end."""
    peak_bytes: int = 0
    """Most memory that torch held on the GPU; 0 on a CPU."""
    first_seconds: float = 0.0
    """Of the first step, which loads kernels and chooses the micro-batch."""
    failure: str = ""

    @property
    def images_per_second(self) -> float:
        """Images of the data set; each is forwarded once per view."""
        return self.batch / self.seconds if self.seconds else 0.0

    def row(self) -> tuple[str, ...]:
        """Return the table's row."""
        return (
            self.cell,
            self.precision,
            f"{self.images_per_second:,.1f}",
            f"{1000 * self.seconds:,.0f}",
            f"{self.peak_bytes / GIB:.1f}" if self.peak_bytes else "-",
            str(self.micro_batch),
            f"{self.first_seconds:.1f}",
        )


@dataclass(frozen=True)
class InferenceSpeed:
    """Inference of F3 in one precision, with `at_once` images per forward."""

    precision: str
    at_once: int
    images_per_second: float
    largest_change: float
    """Of a normalised CAM at any pixel, against fp32 with single images."""
    mean_change: float


@dataclass
class Speeds:
    """Everything that was measured; the sections fill it in one after the other."""

    full_size: bool
    """Whether steps have the crop and batch of the paper's preset."""
    steps: list[StepSpeed] = field(default_factory=list)
    by_micro_batch: list[StepSpeed] = field(default_factory=list)
    """F3 in tf32 and bf16."""
    waits: dict[str, list[str]] = field(default_factory=dict)
    """Training -> where its step makes the host wait for the GPU."""
    loaded: dict[int, float] = field(default_factory=dict)
    """Loading processes -> images per second."""
    inferred: list[InferenceSpeed] = field(default_factory=list)
    host_rate: float = 0.0
    """Images per second that the CPU decodes and scales, without the network."""

    def step(self, cell: str, precision: str) -> StepSpeed | None:
        """Return a measured step; None if it was not measured."""
        found = (s for s in self.steps if (s.cell, s.precision) == (cell, precision) and s.seconds)
        return next(found, None)

    def inference_rate(self, *precisions: str) -> float:
        """Return the most images per second in these precisions; 0 if none was measured."""
        found = [s.images_per_second for s in self.inferred if s.precision in precisions]
        return max(found, default=0.0)


def measure_steps(options: Options, weights: Weights, speeds: Speeds, section: Section) -> None:
    """Measure steps of B0, F0 and F3, the most important first."""
    section.numbers |= {
        "steps": speeds.steps,
        "by_micro_batch": speeds.by_micro_batch,
        "waits": speeds.waits,
    }
    preset = PRESETS[options.preset]
    if options.small:
        size = {"train.crop_size": min(96, preset.train.crop_size), "train.batch_size": 2}
        preset = apply_overrides(preset, size)
    subjects = {
        cell: cam_subject(apply_overrides(preset, overrides | {"train.lr": 1e-6}), weights)
        for cell, overrides in CELLS.items()
    }
    if options.on_gpu:
        for name, subject in subjects_that_may_wait(options, weights).items():
            speeds.waits[name] = waits_of_a_step(subject, options.device)
    else:
        for what in ("waiting for the GPU", "memory"):
            section.skipped[what] = "not measured on a CPU"
    seconds = 0.5 if options.small else 2.5

    def measure(cell: str, precision: Precision, how: Execution) -> list[StepSpeed]:
        if section.is_late(f"{cell} in {precision}"):
            return []
        return [measured_step(cell, precision, subjects[cell], options.device, how, seconds)]

    for precision in PRECISIONS:
        for cell in ("F3", "B0", "F0"):
            speeds.steps += measure(cell, precision, Execution())
    batch = preset.train.batch_size
    for precision in ("tf32", "bf16") if options.on_gpu else ():
        for count in (n for n in range(1, batch + 1) if batch % n == 0):
            speeds.by_micro_batch += measure("F3", precision, Execution(micro_batch=count))
    judge_steps(speeds, section, on_gpu=options.on_gpu)
    columns = (
        "cell",
        "precision",
        "images/s",
        "ms/step",
        "peak GiB",
        "micro-batch",
        "first step s",
    )
    note = (
        f"{batch} images of {preset.train.crop_size} px per step, preset {options.preset}"
        f"{', made SMALLER: not the speed of that preset' if options.small else ''}. B0: bare "
        "network, one view. F0: full module. F3: full module, three views. images/s counts images "
        "of the data set. A noise batch in memory: no loading."
    )
    by_size = "Memory of F3 by images per forward (--micro-batch)."
    for measured, said in ((speeds.steps, note), (speeds.by_micro_batch, by_size)):
        section.tables.append(Table(columns, [s.row() for s in measured if s.seconds], said))


def judge_steps(speeds: Speeds, section: Section, *, on_gpu: bool) -> None:
    """Report what failed, bf16's gain, how a batch is cut, and where steps wait."""
    for step in (*speeds.steps, *speeds.by_micro_batch):
        if step.failure:
            section.say(
                "FAIL",
                f"{step.cell} in {step.precision}",
                step.failure,
                "This training cannot run here at the preset's size.",
                'use a larger GPU, a smaller --micro-batch or SET="train.crop_size=..."; if it is '
                "not about memory, report it with gpu_check.json",
            )
    tf32, bf16 = speeds.step("F3", "tf32"), speeds.step("F3", "bf16")
    if on_gpu and tf32 and bf16:
        gain = tf32.seconds / bf16.seconds
        section.say(
            "INFO",
            "bf16 against tf32",
            f"{gain:.2f} x as fast (F3)",
            "bf16 is a setting of the experiment: it changes results and has its own ids.",
            "" if gain < 1.2 else 'to use it: SET="train.precision=bf16 labels.precision=bf16"',
        )
    if on_gpu and tf32:
        whole = tf32.micro_batch == tf32.batch
        section.say(
            "PASS" if whole else "LOOK",
            "micro-batch `auto`, F3 in tf32",
            f"{tf32.micro_batch} of {tf32.batch} images per forward",
            "The whole batch fits."
            if whole
            else "The batch does not fit at once; its parts' gradients are added up, which gives "
            "the same result a little more slowly.",
            "nothing; with bf16 or a larger GPU more images fit",
        )
    for name, places in speeds.waits.items():
        if places:
            section.say(
                "LOOK",
                f"waiting, {name}",
                f"{len(places)} place(s): {'; '.join(places)}",
                "There the host waits until the GPU is idle, at every step. Results are right, but "
                "the GPU is idle while the next step is prepared.",
                "fix it in the code named; it matters most for small, fast steps",
            )
    if speeds.waits and not any(speeds.waits.values()):
        section.say(
            "PASS",
            "waiting",
            f"none in a step of {', '.join(speeds.waits)}",
            "The host runs ahead of the GPU, which always has work.",
        )


def measured_step(
    cell: str,
    precision: Precision,
    subject: Subject,
    device: torch.device,
    how: Execution,
    seconds: float,
) -> StepSpeed:
    """Measure the steps of one network for about `seconds`."""
    found = StepSpeed(cell, precision, len(subject.batch.pixels))
    try:
        step, batch = subject.step(subject.build(), device, precision, how), subject.pinned(device)

        def run(count: int) -> float:
            started = time.perf_counter()
            for _ in range(count):
                step(batch)
            wait(device)
            return (time.perf_counter() - started) / count

        first = run(1)
        run(1)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        count = max(1, min(MAX_STEPS, round(seconds / ROUNDS / run(1))))
        median = statistics.median(run(count) for _ in range(ROUNDS))
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        return replace(
            found,
            micro_batch=step.micro_batch or 0,
            seconds=median,
            peak_bytes=peak,
            first_seconds=first,
        )
    except ForeseenError as error:  # too little memory
        return replace(found, failure=str(error))
    except Exception as error:  # a driver may raise anything
        return replace(found, failure=first_line(error))
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def wait(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def subjects_that_may_wait(options: Options, weights: Weights) -> dict[str, Subject]:
    """Return each kind of training, at a small size."""
    base = apply_overrides(PRESETS[options.preset], {"train.crop_size": 128, "train.batch_size": 2})
    deeplab = DEEPLAB_PRESETS[options.preset].model_copy(update={"crop_size": 129, "batch_size": 2})
    walk = LABEL_PRESETS[options.preset].random_walk.model_copy(
        update={"crop_size": 128, "batch_size": 2}
    )
    return {
        "CAM network B0": cam_subject(base, weights),
        "CAM network F3": cam_subject(apply_overrides(base, CELLS["F3"]), weights),
        "DeepLab": deeplab_subject(deeplab, weights),
        "affinity network": affinity_subject(base.network, walk, weights),
    }


def waits_of_a_step(subject: Subject, device: torch.device) -> list[str]:
    """Return where a step of a subject waits for the GPU, after the first two steps."""
    step, batch = subject.step(subject.build(), device, "tf32", Execution()), subject.pinned(device)
    for _ in range(2):  # these allocate, and choose a micro-batch
        step(batch)
    return waits_of(lambda: step(batch))


def waits_of(run: Callable[[], object]) -> list[str]:
    """Return where `run` makes the host wait for the GPU, according to torch's sync debug mode.

    First every place by its warning; then once more with errors, in case a warning was lost.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _in_mode("warn", run)
    places = [
        _place(warning.filename, warning.lineno)
        for warning in caught
        if "synchronizing" in str(warning.message) and "prototype" not in str(warning.message)
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the mode is a prototype
            _in_mode("error", run)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        places.append(_place(frame.filename, frame.lineno))
    return sorted(set(places))


def _place(file: str, line: int | None) -> str:
    path = Path(file)
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}"


def _in_mode(mode: str, run: Callable[[], object]) -> None:
    torch.cuda.set_sync_debug_mode(mode)
    try:
        run()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def measure_loading(options: Options, pictures: Pictures, speeds: Speeds, section: Section) -> None:
    """Measure the loader at the preset's full crop."""
    section.numbers["rates"] = speeds.loaded
    train = PRESETS[options.preset].train
    samples = pictures.voc_sized(options.out / "enlarged")
    default = num_loader_workers(Execution(), options.device)
    batch = min(train.batch_size, len(samples))
    many = samples * -(-4096 // len(samples))  # an epoch longer than the measurement
    crops = CropDataset(many, NUM_CLASSES, train, rng_seed=0)
    most = default + 1 if options.on_gpu else 2
    for workers in (n for n in WORKERS if n <= max(2, most)):
        if not section.is_late(f"{workers} workers"):
            loader = Loader(crops, batch, num_workers=workers, pin=options.on_gpu)
            speeds.loaded[workers] = loading_rate(loader, 1.0 if options.small else 3.0)
    judge_loading(speeds, default, section)
    source = pictures.source + (", enlarged to the size of VOC's" if pictures.are_drawn else "")
    note = (
        f"Crops of preset {options.preset} from {source}. 0 workers: the training process loads "
        "itself, between its steps."
    )
    rows = [(str(n), f"{rate:,.0f}") for n, rate in speeds.loaded.items()]
    section.tables.append(Table(("workers", "images/s"), rows, note))


def judge_loading(speeds: Speeds, default_workers: int, section: Section) -> None:
    """Report whether the loader keeps up with the device, and with how many workers."""
    measured = [step for step in speeds.steps if step.seconds]
    if not measured:
        section.skipped["what the step needs"] = "no step was measured"
    if not (measured and speeds.loaded):
        return
    fastest = max(measured, key=lambda step: step.images_per_second)
    needed = fastest.images_per_second
    enough = [n for n, rate in speeds.loaded.items() if rate >= ENOUGH * needed]
    found = (
        f"needs {needed:,.0f} images/s ({fastest.cell} in {fastest.precision}); loaded: "
        f"{max(speeds.loaded.values()):,.0f}"
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


def measure_inference(
    options: Options, weights: Weights, pictures: Pictures, speeds: Speeds, section: Section
) -> None:
    """Infer the same images in every precision, one and eight at a time."""
    base = apply_overrides(PRESETS[options.preset], CELLS["F3"])
    samples = pictures.voc_sized(options.out / "enlarged")[: 2 if options.small else 32]
    size = {"train.crop_size": min(128, base.train.crop_size), "train.batch_size": 2}
    model: Any = cam_subject(apply_overrides(base, size), weights).build()
    speeds.host_rate = host_rate(samples, base.labels)
    expected: list[np.ndarray] = []
    for precision in ("fp32", "tf32", "bf16"):  # fp32 first: the others are compared with it
        labels = base.labels.model_copy(update={"precision": precision})
        for at_once in (1, 8):
            name = f"{precision}, {at_once} at once"
            if section.is_late(name):
                continue
            if at_once > 1 and options.small:
                section.skipped[name] = "not measured with --small"
                continue

            def infer(labels: LabelsConfig = labels, at_once: int = at_once) -> list[np.ndarray]:
                images = infer_cams(
                    model, samples, labels, device=options.device, batch_size=at_once
                )
                return [image.cams for image in images]

            if not options.small:
                infer()  # kernels for each size of image
            started = time.perf_counter()
            cams = infer()
            wait(options.device)
            rate = len(samples) / (time.perf_counter() - started)
            expected = expected or cams
            changes = [np.abs(a - b) for a, b in zip(cams, expected, strict=True)]
            largest = max(float(change.max()) for change in changes)
            mean = statistics.fmean(float(change.mean()) for change in changes)
            speeds.inferred.append(InferenceSpeed(precision, at_once, rate, largest, mean))
    judge_inference(speeds, section)
    section.numbers |= {"speeds": speeds.inferred, "host_rate": speeds.host_rate}
    rows = [
        (
            s.precision,
            str(s.at_once),
            f"{s.images_per_second:,.1f}",
            f"{s.largest_change:.1e}",
            f"{s.mean_change:.1e}",
        )
        for s in speeds.inferred
    ]
    note = (
        f"F3 of preset {options.preset}, {len(samples)} {pictures.source}, all scales and flips, "
        "decoding included. Changes are against fp32, of CAMs in 0..1."
    )
    columns = ("precision", "at once", "images/s", "largest change", "mean change")
    section.tables.append(Table(columns, rows, note))


def judge_inference(speeds: Speeds, section: Section) -> None:
    """Report how much CAMs change with the precision, and whether the GPU waits for the CPU."""
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
    best = speeds.inference_rate(*PRECISIONS)
    if best and speeds.host_rate:
        slow = best > 0.7 * speeds.host_rate
        section.say(
            "LOOK" if slow else "PASS",
            "the CPU's share of inference",
            f"decoding and scaling alone: {speeds.host_rate:,.0f} images/s; with the network: "
            f"{best:,.0f}",
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


@dataclass
class Hours:
    """What Tables III to VI take on this GPU in one precision, with NUM_SEEDS seeds."""

    training: float
    inference: float
    bound_by_loading: bool
    """Whether loading is slower than a step of some training."""

    @property
    def total(self) -> float:
        """Return all hours."""
        return self.training + self.inference


def project(speeds: Speeds, section: Section) -> dict[str, Hours]:
    """Report the hours in every precision whose steps and inference were measured; return them.

    Assumptions: one training after the other, one attempt each, pictures loaded as fast as section
    4 measured. A single part counts as the whole module, which is a little too much.
    """
    hours: dict[str, Hours] = {}
    section.numbers["hours"] = hours
    if not (speeds.full_size and speeds.inferred):
        section.skipped["hours of Tables III to VI"] = (
            "they need steps of --preset paper at full size (no --small)"
        )
        return hours
    train = PRESETS["paper"].train
    num_steps = train.epochs * (NUM_TRAIN // train.batch_size)
    loading = train.batch_size / max(speeds.loaded.values()) if speeds.loaded else 0.0
    for precision in PRECISIONS:
        bare, full, views = (speeds.step(cell, precision) for cell in ("B0", "F0", "F3"))
        rate = speeds.inference_rate(precision)
        if not (bare and views and rate):
            section.skipped[f"hours in {precision}"] = "its steps or CAMs were not measured"
            continue
        module = (full or bare).seconds
        steps = {
            kind: (module if kind[1] else bare.seconds) + kind[0] / 2 * (views.seconds - module)
            for kind in TRAININGS
        }
        seconds = sum(n * num_steps * max(steps[kind], loading) for kind, n in TRAININGS.items())
        hours[precision] = Hours(
            NUM_SEEDS * seconds / 3600,
            NUM_SEEDS * sum(TRAININGS.values()) * NUM_SCORED / rate / 3600,
            bound_by_loading=loading > min(steps.values()),
        )
    _say_hours(hours, section)
    return hours


def _say_hours(hours: dict[str, Hours], section: Section) -> None:
    """Report the hours as configured, and in the fastest precision."""
    if not hours:
        return
    best = min(hours, key=lambda precision: hours[precision].total)
    own = PRESETS["paper"].train.precision
    for precision, what in ((own, "as configured"), (best, "in the fastest precision")):
        if precision in hours:
            section.say(
                "INFO",
                f"Tables III to VI, {NUM_SEEDS} seeds, {what}",
                f"{hours[precision].total:,.1f} hours on this GPU ({precision})",
                f"{NUM_SEEDS * sum(TRAININGS.values())} trainings and their scores, one after the "
                "other.",
            )
    if any(found.bound_by_loading for found in hours.values()):
        section.say(
            "LOOK",
            "pictures",
            "are loaded more slowly than some steps use them",
            "Part of these hours, the GPU waits for the CPUs.",
            "more CPUs per GPU; see section 4",
        )
    rows = [(p, f"{one.total:,.1f}", f"{one.inference:,.1f}") for p, one in hours.items()]
    note = (
        f"{NUM_TRAIN:,} training and {NUM_SCORED:,} scored images, {NUM_SEEDS} x "
        f"{sum(TRAININGS.values())} trainings. bf16 is another experiment than tf32."
    )
    section.tables.append(Table(("precision", "total hours", "of these inference"), rows, note))
