"""How fast this device trains, from batches in memory, and where a step waits for it."""

import statistics
import warnings
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch

from wsss.config import Precision
from wsss.gpu_check.bench import PRECISIONS, Bench, StepSpeed, images_per_second
from wsss.gpu_check.page import Section
from wsss.gpu_check.trainings import CELLS, TrainingCase, cam_case, other_cases
from wsss.overrides import apply_overrides
from wsss.presets import PRESETS

GIB = 2**30
ROOT = Path(__file__).parents[3]
"""Of this project; paths of its files are shown relative to it."""
CANNOT_RUN = (
    "This training cannot run here at the preset's size.",
    'use a larger GPU, a smaller --micro-batch or SET="train.crop_size=..."; if it is not about '
    "memory, report it with gpu_check.json",
)
"""Meaning and remedy of a FAIL."""
ROUNDS = 3


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
    if bench.on_gpu:
        waits = section.numbers["waits"] = {}
        for name, training in cases_that_may_wait(bench).items():
            waits[name] = waits_of_a_step(training, bench.device)
            judge_waits(name, waits[name], section)
    else:
        for what in ("waiting for the GPU", "memory"):
            section.skipped[what] = "not measured on a CPU"
    trainings = {
        cell: cam_case(apply_overrides(preset, overrides | {"train.lr": 1e-6}), bench.weights)
        for cell, overrides in CELLS.items()
    }
    for precision, cell in product(PRECISIONS, ("F3", "B0", "F0")):
        measure = partial(step_speed, cell, precision, trainings[cell], bench)
        if found := section.part(f"{cell} in {precision}", measure, CANNOT_RUN):
            bench.steps.append(found)


def step_speed(cell: str, precision: Precision, training: TrainingCase, bench: Bench) -> StepSpeed:
    """Measure the steps of one network."""
    device, size = bench.device, len(training.batch.pixels)
    try:
        step = training.step(training.build(), device, precision)
        batch = training.pinned(device)
        for _ in range(2):  # the first loads kernels, and chooses the micro-batch
            step(batch)
        if bench.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        rounds = [
            images_per_second(lambda: step(batch), size, bench.seconds / ROUNDS)
            for _ in range(ROUNDS)
        ]
        return StepSpeed(
            cell,
            precision,
            size,
            step.micro_batch or size,
            images_per_second=statistics.median(rounds),
            peak_gib=torch.cuda.max_memory_allocated(device) / GIB if bench.on_gpu else 0.0,
        )
    finally:
        if bench.on_gpu:
            torch.cuda.empty_cache()


def cases_that_may_wait(bench: Bench) -> dict[str, TrainingCase]:
    """Return each kind of training, at a small size."""
    base = apply_overrides(PRESETS[bench.preset], {"train.crop_size": 128, "train.batch_size": 2})
    return {
        "CAM network B0": cam_case(base, bench.weights),
        "CAM network F3": cam_case(apply_overrides(base, CELLS["F3"]), bench.weights),
        **other_cases(bench.preset, 128, bench.weights),
    }


def waits_of_a_step(training: TrainingCase, device: torch.device) -> list[str]:
    """Return where a step of a training waits for the GPU, after the first two steps."""
    step, batch = training.step(training.build(), device, "tf32"), training.pinned(device)
    for _ in range(2):  # these allocate, and choose a micro-batch
        step(batch)
    return waits_of(lambda: step(batch))


def waits_of(run: Callable[[], object]) -> list[str]:
    """Return where `run` makes the host wait for the GPU, according to torch's sync debug mode."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = {
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{warning.lineno}"
        for warning in caught
        for path in [Path(warning.filename)]
        if "synchronizing" in str(warning.message) and "prototype" not in str(warning.message)
    }
    return sorted(places)


def judge_waits(name: str, places: list[str], section: Section) -> None:
    """Report where the step of a kind of training waits for the GPU."""
    section.say(
        "LOOK" if places else "PASS",
        f"waiting, {name}",
        f"{len(places)} place(s): {'; '.join(places)}" if places else "none in a step",
        "There the host waits until the GPU is idle, at every step. Results are right, but the GPU "
        "is idle while the next step is prepared.",
        "fix it in the code named; it matters most for small, fast steps",
    )
