"""How fast a training step is on this device, what memory it takes, and whether anything waits."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch

from wsss.config import Precision
from wsss.data.loading import CropBatch
from wsss.errors import ForeseenError
from wsss.gpu_check.findings import (
    OUT_OF_TIME,
    Deadline,
    Line,
    Options,
    Skipped,
    Table,
    first_line,
    wait,
)
from wsss.gpu_check.machine import GIB
from wsss.gpu_check.subjects import (
    CELLS,
    Subject,
    Weights,
    affinity_subject,
    cam_subject,
    deeplab_subject,
)
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS
from wsss.segmentation_presets import DEEPLAB_PRESETS, LABEL_PRESETS
from wsss.training.execution import Execution

PRECISIONS: tuple[Precision, ...] = ("tf32", "bf16", "fp32")
ROOT = Path(__file__).parents[2]
"""Of this project; files within it are named from here."""
ROUNDS = 3
MAX_STEPS = 20
"""Of a round."""


@dataclass(frozen=True)
class StepSpeed:
    """One cell in one precision."""

    cell: str
    precision: str
    batch: int
    micro_batch: int = 0
    """Images a forward; 0 if there was no step."""
    seconds: float = 0.0
    """A step; median of ROUNDS, each of several steps with one wait at its end."""
    peak_bytes: int = 0
    """Most that torch held on the GPU; 0 on a CPU."""
    first_seconds: float = 0.0
    """Of the first step: kernels, the search for a micro-batch, compilation."""
    failure: str = ""

    @property
    def images_per_second(self) -> float:
        """Images of the data set; each is forwarded once a view."""
        return self.batch / self.seconds if self.seconds else 0.0


@dataclass
class Speed:
    """All of it, at one preset's crop and batch."""

    preset: str
    crop: int
    batch: int
    full_size: bool
    """Whether crop and batch are the preset's own."""
    on_gpu: bool
    steps: list[StepSpeed] = field(default_factory=list)
    by_micro_batch: list[StepSpeed] = field(default_factory=list)
    """F3 in tf32 and bf16."""
    waits: dict[str, list[str]] = field(default_factory=dict)
    """Training -> where its step makes the host wait for the GPU."""
    skipped: Skipped = field(default_factory=Skipped)

    def step(self, cell: str, precision: str) -> StepSpeed | None:
        """Return a measured step, None if it was not."""
        found = (s for s in self.steps if (s.cell, s.precision) == (cell, precision) and s.seconds)
        return next(found, None)

    def fastest(self) -> StepSpeed | None:
        """Return the step that asks most images a second of a loader."""
        return max((s for s in self.steps if s.seconds), key=lambda s: s.images_per_second,
                   default=None)  # fmt: skip

    def lines(self) -> list[Line]:
        """Return judgements of failures, of bf16's gain, of the micro-batch and of waiting."""
        found = [self._failed(step) for step in (*self.steps, *self.by_micro_batch) if step.failure]
        found += [*self._gains(), *self._micro_batch()]
        for name, places in self.waits.items():
            if places:
                found.append(
                    Line(
                        "LOOK", f"waiting, {name}", f"{len(places)} place(s): {'; '.join(places)}",
                        "There the host stops until the GPU is idle, at every step. Results are "
                        "right; the GPU stands still while the next step is prepared.",
                        "worth mending in the code named; matters most for small, fast steps",
                    )
                )  # fmt: skip
        if self.waits and not any(self.waits.values()):
            found.append(
                Line("PASS", "waiting", f"none in a step of {', '.join(self.waits)}",
                     "The host runs ahead of the GPU, which always has work.")
            )  # fmt: skip
        return found + self.skipped.lines()

    def _failed(self, step: StepSpeed) -> Line:
        what = f"{step.cell} in {step.precision}"
        return Line(
            "FAIL", what, step.failure, "This training cannot run here at the preset's size.",
            "use a larger card, a smaller --micro-batch or SET=\"train.crop_size=...\"; if it is "
            "not for memory, report it with gpu_check.json",
        )  # fmt: skip

    def _gains(self) -> list[Line]:
        own, other = self.step("F3", "tf32"), self.step("F3", "bf16")
        if not (self.on_gpu and own and other):
            return []
        gain = own.seconds / other.seconds
        return [
            Line(
                "INFO", "bf16 against tf32", f"{gain:.2f} x as fast (F3)",
                "bf16 is a setting of the experiment: it moves results and has ids of its own.",
                "" if gain < 1.2 else 'to use it: SET="train.precision=bf16 labels.precision=bf16"',
            )
        ]  # fmt: skip

    def _micro_batch(self) -> list[Line]:
        own = self.step("F3", "tf32")
        if not (self.on_gpu and own):
            return []
        whole = own.micro_batch == own.batch
        return [
            Line(
                "PASS" if whole else "LOOK", "micro-batch `auto`, F3 in tf32",
                f"{own.micro_batch} of {own.batch} images a forward",
                "The whole batch fits." if whole else "The batch does not fit at once; its parts' "
                "gradients are added up, which gives the same result a little slower.",
                "" if whole else "nothing; bf16 or a larger card fits more",
            )
        ]  # fmt: skip

    def tables(self) -> list[Table]:
        """Return steps, and memory by micro-batch."""
        size = f"{self.batch} images of {self.crop} px a step, preset {self.preset}"
        if not self.full_size:
            size += ", made SMALLER: no figure of that preset"
        columns = ("cell", "numbers", "images/s", "ms a step", "peak GiB", "micro-batch",
                   "first step s")  # fmt: skip
        note = (
            f"{size}. B0: bare network, one view. F0: full module. F3: full module, three views. "
            "images/s counts images of the data set. A noise batch in memory: no loading."
        )
        found = [Table(columns, tuple(_row(s) for s in self.steps if s.seconds), note)]
        if self.by_micro_batch:
            rows = tuple(_row(s) for s in self.by_micro_batch if s.seconds)
            found.append(Table(columns, rows, "Memory of F3 by images a forward (--micro-batch)."))
        return found


def _row(step: StepSpeed) -> tuple[str, ...]:
    return (
        step.cell, step.precision, f"{step.images_per_second:,.1f}", f"{1000 * step.seconds:,.0f}",
        f"{step.peak_bytes / GIB:.1f}" if step.peak_bytes else "-", str(step.micro_batch),
        f"{step.first_seconds:.1f}",
    )  # fmt: skip


def measure_speed(options: Options, weights: Weights, deadline: Deadline) -> Speed:
    """Measure steps of B0, F0 and F3, most important ones first."""
    preset = PRESETS[options.preset]
    if options.small:
        size = {"train.crop_size": min(96, preset.train.crop_size), "train.batch_size": 2}
        preset = apply_overrides(preset, size)
    train = preset.train
    found = Speed(
        options.preset, train.crop_size, train.batch_size, not options.small, options.on_gpu
    )
    subjects = {
        cell: cam_subject(apply_overrides(preset, overrides | {"train.lr": 1e-6}), weights)
        for cell, overrides in CELLS.items()
    }
    seconds = 0.5 if options.small else 2.5
    if options.on_gpu:
        check_waits(found, subjects_that_may_wait(options, weights), options.device)
    else:
        found.skipped.reasons["waiting for the GPU"] = "not measured on a CPU"
        found.skipped.reasons["memory"] = "not measured on a CPU"

    def measure(cell: str, precision: str, execution: Execution | None = None) -> StepSpeed | None:
        if deadline.passed:
            found.skipped.reasons[f"{cell} in {precision}"] = OUT_OF_TIME
            return None
        return measured_step(cell, precision, subjects[cell], options.device,
                             execution or Execution(), seconds)  # fmt: skip

    for precision in PRECISIONS:
        for cell in ("F3", "B0", "F0"):
            found.steps += filter(None, [measure(cell, precision)])
    if options.on_gpu:
        counts = [n for n in range(1, train.batch_size + 1) if train.batch_size % n == 0]
        for precision in ("tf32", "bf16"):
            for count in counts:
                step = measure("F3", precision, Execution(micro_batch=count))
                found.by_micro_batch += filter(None, [step])
    return found


def measured_step(
    cell: str, precision: str, subject: Subject, device: torch.device, execution: Execution,
    seconds: float,
) -> StepSpeed:  # fmt: skip
    """Measure the steps of one network for about so many seconds."""
    found = StepSpeed(cell, precision, len(subject.batch.pixels))
    try:
        step = subject.step(subject.build(), device, cast("Precision", precision), execution)
        batch = pinned(subject, device)

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
        return replace(found, micro_batch=step.micro_batch or 0, seconds=median, peak_bytes=peak,
                       first_seconds=first)  # fmt: skip
    except ForeseenError as error:  # too little memory
        return replace(found, failure=str(error))
    except Exception as error:  # whatever a driver may do
        return replace(found, failure=first_line(error))
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def pinned(subject: Subject, device: torch.device) -> CropBatch:
    """Return a subject's batch as the loader hands it over: in pinned memory beside a GPU."""
    if device.type != "cuda":
        return subject.batch
    return CropBatch(*(part.pin_memory() for part in subject.batch))


def subjects_that_may_wait(options: Options, weights: Weights) -> dict[str, Subject]:
    """Return each kind of training, at a small size."""
    size = {"train.crop_size": 128, "train.batch_size": 2}
    base = apply_overrides(PRESETS[options.preset], size)
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


def check_waits(found: Speed, subjects: dict[str, Subject], device: torch.device) -> None:
    """Note where a step of each subject waits for the GPU."""
    for name, subject in subjects.items():
        step = subject.step(subject.build(), device, "tf32", Execution())
        batch = pinned(subject, device)
        for _ in range(2):  # the first ones allocate, and choose a micro-batch
            step(batch)
        found.waits[name] = waits_of(lambda step=step, batch=batch: step(batch))  # type: ignore[misc]


def waits_of(run: Callable[[], object]) -> list[str]:
    """Return where `run` makes the host wait for the GPU, as torch's sync debug mode sees it.

    First every place by its warnings; then, lest one goes unseen, as errors.
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
