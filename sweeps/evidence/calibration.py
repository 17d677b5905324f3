"""Is IRN's published CAM score reproduced here? The verdict on a finished sweep of `calibrate`.

The criterion is a 95 % prediction interval for the mean of n new trainings of the same kind as the
m known ones (`sweeps.tables.irn_runs`), which differ in machine and library versions as well as in
seed.
"""

import textwrap
from enum import StrEnum
from statistics import fmean, stdev

from sweeps.evidence.calibration_checks import LABELS, DataFacts, Point, compare
from sweeps.evidence.seeds import LEVEL, Interval, prediction_interval
from sweeps.plan.sweep import Sweep
from sweeps.store.errors import StoreError, disk_errors
from sweeps.store.store import Store, read_json, read_written, write_json
from sweeps.tables.irn_runs import PUBLISHED, RUNS
from wsss.basics.files import whole_or_absent
from wsss.basics.strict import Strict

TABLE = "calibrate"
MAX_SHOWN = 320
"""Characters of a finding that are printed; calibration.json has all of it."""


class Outcome(StrEnum):
    """The result of a calibration."""

    reproduces = "reproduces"
    does_not_reproduce = "does not reproduce"
    calibrates_nothing = "calibrates nothing here"


class Calibration(Strict):
    """A verdict and its evidence; written beside the sweep."""

    outcome: Outcome
    description: str
    """The sweep's: data, network, training, seeds."""
    values: dict[int, float]
    """Seed -> mIoU in percent at the fixed background score."""
    interval: tuple[float, float] | None
    """Expected interval of the mean, percent. None if nothing is calibrated."""
    facts: DataFacts
    checks: tuple[Point, ...]

    @property
    def mean(self) -> float:
        """Mean mIoU over seeds, percent."""
        return fmean(self.values.values())

    @property
    def reasons(self) -> tuple[Point, ...]:
        """The points for which nothing is calibrated."""
        return tuple(point for point in self.checks if point.state == "differs")

    @property
    def exit_code(self) -> int:
        """1 if the score is not reproduced, else 0."""
        return int(self.outcome is Outcome.does_not_reproduce)


def weigh(sweep: Sweep, store: Store, facts: DataFacts) -> Calibration:
    """Return the verdict on a sweep of the table `calibrate` whose trials are all finished.

    Raises StoreError if one is not.
    """
    values: dict[int, float] = {}
    for trial in sweep.plan.trials:
        metrics = store.run(trial.run_id).result()
        if metrics is None:
            raise StoreError(f"{trial.name} is not finished; run `sweeps calibrate` again")
        values[trial.config.rng_seed] = float(metrics["miou_fixed"])
    checks = compare(sweep, store, facts)
    interval, outcome = None, Outcome.calibrates_nothing
    if not any(point.state == "differs" for point in checks):
        interval = expected(len(values))
        inside = interval[0] <= fmean(values.values()) <= interval[1]
        outcome = Outcome.reproduces if inside else Outcome.does_not_reproduce
    return Calibration(
        outcome=outcome,
        description=sweep.describe(),
        values=values,
        interval=interval,
        facts=facts,
        checks=checks,
    )


def expected(num_seeds: int) -> Interval:
    """Return the expected interval of the mean mIoU of new trainings of IRN's CAMs, percent."""
    return prediction_interval([run.miou for run in RUNS], num_seeds)


def sentence(calibration: Calibration) -> str:
    """Return the verdict in one sentence, for a report."""
    if calibration.interval is None:
        names = ", ".join(point.name for point in calibration.reasons)
        return f"Calibration: {calibration.outcome}, as these are not IRN's settings ({names})."
    low, high = calibration.interval
    return (
        f"Calibration: {calibration.outcome} IRN's published {PUBLISHED.miou:g} (IRN's number, not "
        f"the paper's): {calibration.mean:.2f} measured over {_seeds(calibration)}, {low:.2f} to "
        f"{high:.2f} expected."
    )


def lines(calibration: Calibration) -> list[str]:
    """Return the verdict as printed lines."""
    if calibration.interval is None:
        return [
            "Calibration: CALIBRATES NOTHING HERE. The steps run, but data or settings are not "
            "those of IRN's published CAM score, so the mIoU above cannot be compared with it:",
            *(f"  - {_told(point)}" for point in calibration.reasons),
            "To calibrate: make calibrate DATA=/data/VOC2012 GPUS=1, with the full VOC 2012 and "
            "SBD (wsss data prepare), without PRESET, WEIGHTS and SET.",
        ]
    texts = [
        f"Calibration: {calibration.outcome.upper()} IRN's published CAM score.",
        *_evidence(calibration, calibration.interval),
        "",
    ]
    if calibration.outcome is Outcome.reproduces:
        notes = (p for p in calibration.checks if p.name == LABELS and p.state == "note")
        return [
            *texts,
            *(f"note: {_told(point)}" for point in notes),
            "Next: `make probe PRESET=paper`, then `make tables PRESET=paper`, both with this DATA "
            "and GPUS.",
        ]
    return [
        *texts,
        "What to look at, in this order (IRN's in brackets):",
        *(f"{at:2}. {_told(point)}" for at, point in enumerate(calibration.checks, 1)),
        "docs/calibration.md says how each point affects the score.",
    ]


def _evidence(calibration: Calibration, interval: tuple[float, float]) -> list[str]:
    low, high = interval
    side = "inside"
    if not low <= calibration.mean <= high:
        side = "below" if calibration.mean < low else "above"
    each = ", ".join(f"{value:.2f}" for value in calibration.values.values())
    mious = [run.miou for run in RUNS]
    known = "; ".join(f"{run.miou:g} ({run.source})" for run in RUNS)
    return [
        f"Measured: {calibration.mean:.2f} mIoU over {_seeds(calibration)} ({each}), VOC train, at "
        f"the fixed background score, which saw no mask: {side} the interval.",
        f"Published: {PUBLISHED.miou:g} ({PUBLISHED.source}), which is IRN's number and not the "
        "paper's.",
        f"Expected: {low:.2f} to {high:.2f}, a {LEVEL:.0%} prediction interval for the mean of "
        f"{len(calibration.values)} new from {len(RUNS)} known runs of IRN's code, mean "
        f"{fmean(mious):.2f}, SD {stdev(mious):.2f}: {known}.",
        "It assumes that new and known runs are of the same kind and normally distributed. The "
        "known runs differ in machine and library versions as well as in seed. With more seeds the "
        "interval narrows as if all of their spread came from the seed.",
    ]


def _seeds(calibration: Calibration) -> str:
    seeds = list(calibration.values)
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}-{seeds[-1]}"


def _told(point: Point) -> str:
    mark = " (look)" if point.state == "note" else ""
    found = textwrap.shorten(point.found, MAX_SHOWN, placeholder=" ...")
    return f"{point.name}{mark}: {found} [{point.reference}]"


def write(store: Store, sweep: Sweep, calibration: Calibration) -> bool:
    """Write calibration.json and .txt beside the sweep; return whether anything is new."""
    folder = store.sweep(sweep.name)
    value = calibration.model_dump(mode="json")
    if read_json(folder / "calibration.json") == value:
        return False
    text = "\n".join([calibration.description, *lines(calibration), ""])
    with disk_errors(folder), whole_or_absent(folder / "calibration.txt") as partial:
        partial.write_text(text, encoding="utf-8")
    write_json(folder / "calibration.json", value)
    return True


def read(store: Store, sweep_name: str) -> Calibration | None:
    """Return a sweep's verdict, None before there is one. Raises StoreError if it is broken."""
    path = store.sweep(sweep_name) / "calibration.json"
    remedy = "delete it, and give the `sweeps calibrate` command again"
    if not path.exists():
        return None
    return read_written(path, "sweeps calibrate", Calibration.model_validate, remedy)
