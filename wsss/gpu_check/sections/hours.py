"""The hours that the paper's tables take with the speeds that were measured."""

from dataclasses import dataclass

from wsss.config import Precision
from wsss.gpu_check.bench import PRECISIONS, Bench, most
from wsss.gpu_check.page import Section
from wsss.presets import PAPER

NUM_TRAIN, NUM_SCORED = 10_582, 1_464
"""Images of VOC: train_aug, which is trained on, and train, which is scored."""
NUM_SEEDS = 3
TRAININGS = {(0, 0): 1, (0, 1): 4, (0, 2): 1, (0, 4): 1, (1, 4): 2, (2, 4): 16}
"""(adjusted views, parts of the module) -> distinct trainings of Tables III to VI per seed.

Each is scored once. A test derives this table from the sweeps' plan.
"""
NUM_TRAININGS = NUM_SEEDS * sum(TRAININGS.values())


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
    cells = (bench.step(cell, precision) for cell in ("B0", "F0", "F3"))
    bare, module, views = (cell and cell.batch / cell.images_per_second for cell in cells)
    if not (bare and module and views and rate):
        return None
    steps = {
        kind: (module if kind[1] else bare) + kind[0] / 2 * (views - module) for kind in TRAININGS
    }
    train = PAPER.train
    loading = train.batch_size / most(bench.loaded) if bench.loaded else 0.0
    num_steps = train.epochs * (NUM_TRAIN // train.batch_size)
    seconds = sum(n * num_steps * max(steps[kind], loading) for kind, n in TRAININGS.items())
    return Hours(
        precision,
        NUM_SEEDS * seconds / 3600,
        NUM_TRAININGS * NUM_SCORED / rate / 3600,
        bound_by_loading=loading > min(steps.values()),
    )


def project(bench: Bench, section: Section) -> None:
    """Extrapolated from sections 3 to 5; none of it has been run."""
    if bench.preset != "paper" or bench.small or not bench.inferred:
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
