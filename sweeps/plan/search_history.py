"""What became of a search's trials: the truth, of which MLflow and the closing table are views.

    <store>/searches/<name>/  search.json     what is searched
                              trials.jsonl    one line per trial, in the order of their start
                              held_out.json   the closing scores, by cam_id

The trainings themselves lie in the store's `cams/`, shared with any table's equal configuration.
"""

import json
import os
from collections.abc import Callable
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
    """finished: all epochs; stopped: early, by the scheduler; error: tried again next time."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """epoch (1-based), objective (percent, search half) and threshold, ascending in epoch."""
    message: str = ""
    """Why it diverged, did not learn or failed."""
    warning: str = ""
    """That it is not clearly below the label prior, in words."""

    @property
    def run_id(self) -> str:
        """A key for the tracking thread."""
        return f"{self.number}"

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


Listen = Callable[[SearchTrial | None], None]
"""Is told of a trial that started, was judged or ended; None: of a held-out score."""


class History:
    """The trials and closing scores in one search's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def trials(self) -> list[SearchTrial]:
        """Return all trials, by number. Raises StoreError if the file was damaged."""
        path = self.folder / "trials.jsonl"
        if not path.exists():
            return []
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            return [SearchTrial(**json.loads(line)) for line in lines]
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
            raise StoreError(
                f"{path}: not the history of a search ({error}); delete the file to search anew"
            ) from None

    def save(self, trials: list[SearchTrial]) -> None:
        """Write all trials by atomic rename."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "trials.jsonl"
        partial = path.with_name(f"{path.name}.partial{os.getpid()}")
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(trial)) + "\n" for trial in trials)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

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
