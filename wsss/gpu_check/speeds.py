"""The speeds that the check has measured, and the hours that the paper's tables take with them."""

from dataclasses import dataclass, field

from wsss.config import Precision
from wsss.gpu_check.page import Section
from wsss.gpu_check.subjects import Options, Pictures
from wsss.presets import PRESETS

PRECISIONS: tuple[Precision, ...] = ("tf32", "bf16", "fp32")
GIB = 2**30
NUM_TRAIN, NUM_SCORED = 10_582, 1_464
"""Images of VOC: train_aug, which is trained on, and train, which is scored."""
NUM_SEEDS = 3
TRAININGS = {(0, 0): 1, (0, 1): 4, (0, 2): 1, (0, 4): 1, (1, 4): 2, (2, 4): 16}
"""(adjusted views, parts of the module) -> distinct trainings of Tables III to VI per seed.

Each is scored once. A test derives this table from the sweeps' plan.
"""
NUM_TRAININGS = NUM_SEEDS * sum(TRAININGS.values())


@dataclass(frozen=True)
class StepSpeed:
    """One cell in one precision."""

    cell: str
    """With the images per forward, if they were not chosen by the GPU's memory."""
    precision: str
    batch: int
    micro_batch: int
    """Images per forward."""
    images_per_second: float
    """Of the data set (each is forwarded once per view): median of several rounds of steps."""
    peak_gib: float = 0.0
    """Most memory that torch held on the GPU; 0 on a CPU."""
    first_seconds: float = 0.0
    """Of the first step, which loads kernels and chooses the micro-batch."""

    @property
    def seconds(self) -> float:
        """Return the time of a step."""
        return self.batch / self.images_per_second


@dataclass(frozen=True)
class LoadingSpeed:
    """The loader with some worker processes; with none, the training process loads itself."""

    workers: int
    images_per_second: float


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

    steps: list[StepSpeed] = field(default_factory=list)
    loaded: list[LoadingSpeed] = field(default_factory=list)
    inferred: list[InferenceSpeed] = field(default_factory=list)

    def step(self, cell: str, precision: str) -> StepSpeed | None:
        """Return a measured step; None if it was not measured."""
        found = (s for s in self.steps if (s.cell, s.precision) == (cell, precision))
        return next(found, None)

    def loading_rate(self) -> float:
        """Return the most images per second that were loaded; 0 if none was measured."""
        return max((one.images_per_second for one in self.loaded), default=0.0)

    def inference_rate(self, *precisions: str) -> float:
        """Return the most images per second in these precisions; 0 if none was measured."""
        found = [s.images_per_second for s in self.inferred if s.precision in precisions]
        return max(found, default=0.0)


@dataclass(frozen=True)
class Bench:
    """What the sections measure: device and weights, pictures, and the speeds known so far."""

    options: Options
    pictures: Pictures
    speeds: Speeds = field(default_factory=Speeds)


@dataclass(frozen=True)
class Hours:
    """What Tables III to VI take on this GPU in one precision, with NUM_SEEDS seeds."""

    precision: str
    training: float
    inference: float
    bound_by_loading: bool
    """Whether loading is slower than a step of some training."""


def hours_of_tables(speeds: Speeds, precision: Precision) -> Hours | None:
    """Return the hours in a precision; None if its steps or inference were not measured.

    Assumptions: one training after the other, one attempt each, pictures loaded as fast as
    measured. A single part counts as the whole module, which is a little too much.
    """
    train = PRESETS["paper"].train
    bare, full, views = (speeds.step(cell, precision) for cell in ("B0", "F0", "F3"))
    rate = speeds.inference_rate(precision)
    if not (bare and views and rate):
        return None
    module = (full or bare).seconds
    steps = {
        kind: (module if kind[1] else bare.seconds) + kind[0] / 2 * (views.seconds - module)
        for kind in TRAININGS
    }
    loading = train.batch_size / speeds.loading_rate() if speeds.loaded else 0.0
    num_steps = train.epochs * (NUM_TRAIN // train.batch_size)
    seconds = sum(n * num_steps * max(steps[kind], loading) for kind, n in TRAININGS.items())
    return Hours(
        precision,
        NUM_SEEDS * seconds / 3600,
        NUM_TRAININGS * NUM_SCORED / rate / 3600,
        bound_by_loading=loading > min(steps.values()),
    )


def project(bench: Bench, section: Section) -> None:
    """Report the hours as configured, and in the fastest precision."""
    options, speeds = bench.options, bench.speeds
    hours: list[Hours] = []
    section.show(
        "hours",
        hours,
        f"{NUM_TRAIN:,} training and {NUM_SCORED:,} scored images, {NUM_SEEDS} x "
        f"{sum(TRAININGS.values())} trainings. bf16 is another experiment than tf32.",
    )
    if options.preset != "paper" or options.small or not speeds.inferred:
        section.skipped["hours of Tables III to VI"] = (
            "they need steps of --preset paper at full size (no --small)"
        )
        return
    for precision in PRECISIONS:
        if found := hours_of_tables(speeds, precision):
            hours.append(found)
        else:
            section.skipped[f"hours in {precision}"] = "its steps or CAMs were not measured"
    configured = [one for one in hours if one.precision == PRESETS["paper"].train.precision]
    fastest = sorted(hours, key=lambda one: one.training + one.inference)[:1]
    said = [("as configured", one) for one in configured]
    for what, one in [*said, *(("in the fastest precision", one) for one in fastest)]:
        section.say(
            "INFO",
            f"Tables III to VI, {NUM_SEEDS} seeds, {what}",
            f"{one.training + one.inference:,.1f} hours on this GPU ({one.precision})",
            f"{NUM_TRAININGS} trainings and their scores, one after the other.",
        )
    if any(one.bound_by_loading for one in hours):
        section.say(
            "LOOK",
            "pictures",
            "are loaded more slowly than some steps use them",
            "Part of these hours, the GPU waits for the CPUs.",
            "more CPUs per GPU; see section 4",
        )
