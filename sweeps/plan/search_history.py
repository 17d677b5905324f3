"""What became of a search's trials: the truth, of which MLflow and the closing table are views.

    <store>/searches/<name>/  search.json     what is searched
                              trials/         a file per trial, by number: 0003.json
                              held_out.json   the closing scores, by cam_id

The trainings themselves lie in the store's `cams/`, shared with any table's equal configuration.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeps.store.store import StoreError, read_json, write_json

Status = Literal["running", "finished", "stopped", "diverged", "not learning", "error"]
WORTHLESS: tuple[Status, ...] = ("diverged", "not learning")
"""Worth 0 %: the settings are at fault."""
ENDED: tuple[Status, ...] = ("finished", "stopped", *WORTHLESS)
"""Never run again. A trial that is `running` though no search runs was interrupted."""

NUM_HELD_OUT = 3
"""How many of the best trials are scored on the held-out half."""


@dataclass
class SearchTrial:
    """One draw and what came of it."""

    number: int
    """0-based, in the order of their start."""
    cam_id: str
    settings: dict[str, float]
    """The drawn ones; the search's base has all others."""
    status: Status = "running"
    """finished: all epochs; stopped: early, as a poor one; error: tried again next time."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """epoch (1-based), objective (percent, search half) and threshold, ascending in epoch."""
    message: str = ""
    """Why it diverged, did not learn or failed."""
    warning: str = ""
    """That it is not clearly below the label prior, in words."""

    @property
    def run_id(self) -> str:
        """Its number, by which the driver and MLflow know it."""
        return f"{self.number}"

    @property
    def name(self) -> str:
        """Its number, for a person."""
        return f"trial {self.number}"

    @property
    def ended(self) -> bool:
        """Whether the trial came to its end, good or bad."""
        return self.status in ENDED

    @property
    def last_epoch(self) -> int:
        """The last epoch that was judged, 0 if none was."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else 0

    @property
    def objective(self) -> float | None:
        """mIoU of the search half in percent after the last epoch; 0 of a worthless one."""
        if self.status in WORTHLESS:
            return 0.0
        return self.epochs[-1]["objective"] if self.epochs else None

    def add_epoch(self, record: dict[str, float]) -> None:
        """Take note of an epoch; one that was repeated after a kill counts once."""
        kept = [known for known in self.epochs if known["epoch"] < record["epoch"]]
        self.epochs = [*kept, {key: record[key] for key in ("epoch", "objective", "threshold")}]


class History:
    """The trials and closing scores in one search's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def trials(self) -> list[SearchTrial]:
        """Return all trials, by number. Raises StoreError if a file was damaged."""
        paths = sorted((self.folder / "trials").glob("*.json"), key=lambda path: int(path.stem))
        return [_read_trial(path) for path in paths]

    def save(self, trial: SearchTrial) -> None:
        """Write a trial by atomic rename."""
        write_json(self.folder / "trials" / f"{trial.number:04}.json", asdict(trial))

    def missing(self, samples: int) -> int:
        """Return how many of so many trials have still to come to an end."""
        return max(0, samples - sum(trial.ended for trial in self.trials()))

    def missing_held_out(self, reference: str) -> dict[str, dict[str, float]]:
        """Return cam_id -> drawn settings of what lacks its closing score.

        reference: the cam_id of the paper's setting, which has no drawn settings.
        """
        wanted: dict[str, dict[str, float]] = {reference: {}}
        for trial in best_trials(self.trials(), NUM_HELD_OUT):
            wanted.setdefault(trial.cam_id, trial.settings)
        known = self.held_out()
        return {key: settings for key, settings in wanted.items() if key not in known}

    def held_out(self) -> dict[str, dict[str, float]]:
        """Return the closing scores by cam_id: objective, threshold, held_out (percent)."""
        found: dict[str, dict[str, float]] = read_json(self.folder / "held_out.json") or {}
        return found

    def add_held_out(self, cam_id: str, record: dict[str, Any]) -> None:
        """Remember a configuration's closing score."""
        row = {key: float(record[key]) for key in ("objective", "threshold", "held_out")}
        write_json(self.folder / "held_out.json", self.held_out() | {cam_id: row})


def _read_trial(path: Path) -> SearchTrial:
    try:
        return SearchTrial(**read_json(path))
    except (StoreError, TypeError) as error:
        raise StoreError(
            f"{path}: not a trial of a search ({error}); delete the file to draw another in its "
            "place"
        ) from None


def ranking(trials: list[SearchTrial]) -> list[SearchTrial]:
    """Return judged trials, best first: those of all epochs, then by the epochs they got.

    A trial that was stopped has no score which could be compared with a finished training's.
    """
    judged = [trial for trial in trials if trial.epochs or trial.status in WORTHLESS]
    return sorted(
        judged,
        key=lambda t: (t.status != "finished", -t.last_epoch, -(t.objective or 0.0), t.number),
    )


def best_trials(trials: list[SearchTrial], count: int) -> list[SearchTrial]:
    """Return the best finished trials, equal trainings once."""
    best: dict[str, SearchTrial] = {}
    for trial in ranking(trials):
        if trial.status == "finished":
            best.setdefault(trial.cam_id, trial)
    return list(best.values())[:count]
