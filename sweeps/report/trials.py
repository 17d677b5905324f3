"""A sweep trial by trial: the values behind the means in its tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sweeps.plan.sweep import Sweep
from sweeps.report.document import Records
from sweeps.report.tables.results import Measure, Results
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.recipes import preset_and_recipe


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial. mIoU and IoU in percent; None if it is not finished."""

    run_id: str
    cam_id: str
    """Of its training, which other trials may share."""
    cells: tuple[str, ...]
    """The cells that it belongs to, e.g. ("III[yes,yes]", "V[0.5,0.5]")."""
    seed: int
    preset: str
    recipe: str
    settings: Mapping[str, object]
    """Those that differ among the trials of the sweep, by dotted name."""
    state: str
    """finished, failed, started or missing."""
    failure: str = ""
    miou_fixed: float | None = None
    """At the fixed background score, which saw no pixel ground truth."""
    miou_held_out: float | None = None
    """At a threshold chosen on the other half of the images."""
    miou_best: float | None = None
    """At the best threshold, whose choice saw the pixel ground truth that scores it."""
    miou_auc: float | None = None
    """Mean over all thresholds."""
    best_threshold: float | None = None
    iou_fixed: Mapping[str, float | None] = field(default_factory=dict)
    """By the label's name, background first; None for a label that does not occur."""
    iou_best: Mapping[str, float | None] = field(default_factory=dict)
    train_seconds: float | None = None
    inference_seconds: float | None = None
    device: str = ""
    code_version: str = ""


def trial_rows(sweep: Sweep, store: Store) -> list[TrialRow]:
    """Return a row per trial of a sweep, finished or not, in the order of its plan."""
    trials = sweep.plan.trials
    results = Results(store, trials, Measure.fixed)
    varied = _varied([trial.config for trial in trials])
    preset, recipe = preset_and_recipe(sweep.preset)
    return [
        TrialRow(
            run_id=trial.run_id,
            cam_id=trial.cam_id,
            cells=trial.cells,
            seed=trial.config.rng_seed,
            preset=preset,
            recipe=recipe,
            settings={key: trial.config.flat()[key] for key in varied},
            state=results.states[trial.run_id].status,
            failure=results.states[trial.run_id].failure,
            **_outcome(trial.run_id, results),
        )
        for trial in trials
    ]


def trial_records(rows: Sequence[TrialRow]) -> Records:
    """Return rows as a table: a column per field, setting (`transfer.lambda_s`) and label
    (`iou_fixed/cat`); cells are joined by a comma.
    """
    return Records.of([_flat(row) for row in rows])


def _varied(configs: Sequence[RunConfig]) -> list[str]:
    """Return the settings, other than the seed, that differ among configurations."""
    flat = [config.flat() for config in configs]
    return [key for key in flat[0] if key != "rng_seed" and len({str(f[key]) for f in flat}) > 1]


def _outcome(run_id: str, results: Results) -> dict[str, Any]:
    """Return a finished trial's results by field of TrialRow; empty for any other trial."""
    found = results.states[run_id].metrics
    if found is None:
        return {}
    names = ("background", *found["classes"])
    return {
        **{f"miou_{measure.name}": miou for measure, miou in results.mious[run_id].items()},
        "best_threshold": found["best_threshold"],
        "iou_fixed": dict(zip(names, found["iou_fixed"], strict=True)),
        "iou_best": dict(zip(names, found["iou_best"], strict=True)),
        "train_seconds": found["train_seconds"],
        "inference_seconds": found.get("inference_seconds"),
        "device": found["environment"]["device"],
        "code_version": found["environment"]["code_version"],
    }


def _flat(row: TrialRow) -> dict[str, object]:
    found = dict[str, object]()
    for each in fields(row):
        value = getattr(row, each.name)
        if each.name == "settings":
            found |= value
        elif isinstance(value, Mapping):
            found |= {f"{each.name}/{name}": part for name, part in value.items()}
        else:
            found[each.name] = ", ".join(value) if isinstance(value, tuple) else value
    return found
