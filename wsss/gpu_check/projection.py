"""Hours that the paper's Tables III to VI take on this card, from what the other sections measured.

Assumed: one training after the other, one attempt each, pictures loaded beside the GPU as fast as
section 4 measured. A part alone is counted as the whole module, which is a little too much.
"""

from dataclasses import dataclass, field

from wsss.gpu_check.findings import Line, Skipped, Table
from wsss.gpu_check.inference import Inference
from wsss.gpu_check.loading import Loading
from wsss.gpu_check.speed import PRECISIONS, Speed
from wsss.presets import PRESETS

NUM_TRAIN, NUM_SCORED = 10_582, 1_464
"""Images of VOC: train_aug, which is trained on, and train, which is scored."""
NUM_SEEDS = 3
TRAININGS = {(0, 0): 1, (0, 1): 4, (0, 2): 1, (0, 4): 1, (1, 4): 2, (2, 4): 16}
"""(adjusted views, parts of the module) -> distinct trainings of Tables III to VI, a seed.

Each is scored once. A test derives this table from the plan of the sweeps.
"""


@dataclass
class Projection:
    """Hours by precision."""

    hours: dict[str, float] = field(default_factory=dict)
    """All trainings and their scores, NUM_SEEDS seeds."""
    inference_hours: dict[str, float] = field(default_factory=dict)
    """The part of it that is inference."""
    bound_by_loading: bool = False
    """Whether loading is slower than a step anywhere."""
    skipped: Skipped = field(default_factory=Skipped)

    def lines(self) -> list[Line]:
        """Return the hours as configured, and in the fastest precision."""
        if not self.hours:
            return self.skipped.lines()
        own = PRESETS["paper"].train.precision
        best = min(self.hours, key=lambda p: self.hours[p])
        found = []
        for precision, what in ((own, "as configured"), (best, "in the fastest numbers")):
            if precision in self.hours:
                found.append(
                    Line(
                        "INFO", f"Tables III to VI, {NUM_SEEDS} seeds, {what}",
                        f"{self.hours[precision]:,.1f} hours on this card ({precision})",
                        "75 trainings and their scores, one after the other; no figure of the "
                        "paper's depends on it.",
                    )
                )  # fmt: skip
        if self.bound_by_loading:
            found.append(
                Line(
                    "LOOK", "pictures", "are loaded more slowly than some steps take them",
                    "The hours are those of the CPUs, in part.", "more CPUs a GPU; section 4",
                )
            )  # fmt: skip
        return found + self.skipped.lines()

    def tables(self) -> list[Table]:
        """Return hours by precision."""
        rows = tuple(
            (precision, f"{hours:,.1f}", f"{self.inference_hours[precision]:,.1f}")
            for precision, hours in self.hours.items()
        )
        note = (
            f"{NUM_TRAIN:,} training and {NUM_SCORED:,} scored images, {NUM_SEEDS} x "
            f"{sum(TRAININGS.values())} trainings. bf16 is another experiment than tf32."
        )
        columns = ("numbers", "hours in all", "of these inference")
        return [Table(columns, rows, note)] if rows else []


def project(
    speed: Speed | None, loading: Loading | None, inference: Inference | None
) -> Projection:
    """Return the hours, for every precision of which steps and inference were measured."""
    found = Projection()
    if speed is None or inference is None or speed.preset != "paper" or not speed.full_size:
        found.skipped.reasons["hours of Tables III to VI"] = (
            "only steps of --preset paper at full size (no --small) say them"
        )
        return found
    train = PRESETS["paper"].train
    num_steps = train.epochs * (NUM_TRAIN // train.batch_size)
    loading_seconds = train.batch_size / loading.best if loading and loading.best else 0.0
    for precision in PRECISIONS:
        cells = [speed.step(cell, precision) for cell in ("B0", "F0", "F3")]
        rate = inference.rate(precision)
        if not (cells[0] and cells[2] and rate):
            found.skipped.reasons[f"hours in {precision}"] = "its steps or CAMs were not measured"
            continue
        bare, full, views = (cell.seconds if cell else cells[0].seconds for cell in cells)
        training = 0.0
        for (num_views, parts), count in TRAININGS.items():
            step = (full if parts else bare) + num_views / 2 * (views - full)
            found.bound_by_loading |= loading_seconds > step
            training += count * num_steps * max(step, loading_seconds)
        scoring = sum(TRAININGS.values()) * NUM_SCORED / rate
        found.inference_hours[precision] = NUM_SEEDS * scoring / 3600
        found.hours[precision] = NUM_SEEDS * (training + scoring) / 3600
    return found
