"""A search as a subject of the driver: Optuna draws and prunes, its study rebuilt from the store.

None of Optuna's or Tune's own files are kept. At each start the study is told the whole history,
trial by trial and epoch by epoch; interrupted trials come first and resume from their checkpoints,
and only as many as are missing are drawn. So a search survives a `kill -9`, another machine and
another version of either library, and unpickles nothing. With one trial at a time, it makes the
same draws and stops as a search that was never killed.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeps.plan.search import History, Search, SearchTrial, best_trials, save_search
from sweeps.report.formats.terminal import print_document
from sweeps.report.search import search_document, write_search
from sweeps.run.dispatch import End, Numbers, Source
from sweeps.run.driver import NOT_COMPLETE, Subject
from sweeps.run.ray.resources import Resources
from sweeps.stages.stage import Conduct, Place
from sweeps.store.errors import StoreError
from sweeps.store.failures import ErrorNote
from sweeps.store.rooms import Driven
from sweeps.store.store import Store
from wsss.basics.printable import counted
from wsss.identity import cam_id
from wsss.training.diagnosis.learning import PriorLimits

if TYPE_CHECKING:  # those load Ray, Optuna or MLflow
    import optuna

    from sweeps.run.ray.tune import TuneRunner
    from sweeps.track.view import Tracked

REDUCTION_FACTOR = 3
"""Of the trials that reach a rung, about one in three continues."""

GRACE_SHARE = 0.2
"""No trial is stopped before this share of its epochs: early mIoU says little of late mIoU."""

SEED_STEP = 1_000_003
"""Difference between the seeds of two draws: equal seeds would give equal draws."""

logger = logging.getLogger(__name__)


class Study:
    """Optuna's study of a search: TPE draws, and successive halving stops poor trials.

    Each draw has its own seed, made from the search's seed and the trial's number. So it depends on
    what is known at the time, not on how often the search was started.
    """

    def __init__(self, search: Search, trials: Iterable[SearchTrial]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search = search
        pruner = optuna.pruners.SuccessiveHalvingPruner(
            min_resource=max(1, math.ceil(GRACE_SHARE * search.base.train.epochs)),
            reduction_factor=REDUCTION_FACTOR,
        )
        self.study = optuna.create_study(direction="maximize", pruner=pruner)
        self.space = {
            r.key: optuna.distributions.FloatDistribution(r.low, r.high, log=r.log)
            for r in search.space
        }
        self.known: dict[int, optuna.Trial] = {}
        for trial in trials:
            known = self.known[trial.number] = self._add(trial.settings)
            for record in trial.epochs:
                known.report(record["objective"], int(record["epoch"]))
                known.should_prune()  # records the rung; the decision was carried out at the time
            if trial.ended:
                self.end(trial)

    def draw(self, number: int) -> dict[str, float]:
        """Draw the settings of a new trial, rounded as they are trained."""
        import optuna

        seed = (self.search.rng_seed + SEED_STEP * number) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        drawn = self.study.ask(self.space)
        settings = {r.key: r.round(drawn.params[r.key]) for r in self.search.space}
        self.study.tell(drawn, state=optuna.trial.TrialState.FAIL)  # unrounded, so ignored
        self.known[number] = self._add(settings)
        return settings

    def is_poor(self, trial: SearchTrial) -> bool:
        """Tell the study a trial's last epoch; return whether to stop the trial."""
        known = self.known[trial.number]
        known.report(trial.epochs[-1]["objective"], trial.last_epoch)
        return known.should_prune()

    def end(self, trial: SearchTrial) -> None:
        """Tell the study how a trial ended."""
        import optuna

        known = self.known[trial.number]
        if trial.status == "stopped":
            self.study.tell(known, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(known, trial.objective)

    def _add(self, settings: dict[str, float]) -> "optuna.Trial":
        self.study.enqueue_trial(settings)
        return self.study.ask(self.space)


Share = Callable[[SearchTrial | None], None]
"""Uploads the history after a trial's change; None: after a held-out score."""


@dataclass(frozen=True)
class Closing:
    """Settings to score on the held-out half."""

    cam_id: str
    settings: dict[str, float]
    """The drawn ones; {} for the base."""

    @property
    def run_id(self) -> str:
        """The training's id."""
        return self.cam_id

    @property
    def name(self) -> str:
        """Display name."""
        drawn = ", ".join(f"{key}={value:g}" for key, value in self.settings.items())
        return "held-out score of " + (drawn or "the base")


class Draws(Source[SearchTrial | Closing]):
    """The trials of a search, then its closing scores. The only writer of its history.

    Closing scores are handed out once all trials have ended: before, or if one was given up, the
    best ones are not known.
    """

    def __init__(self, search: Search, store: Store, samples: int, share: Share) -> None:
        super().__init__()
        self.search, self.store, self.samples, self.share = search, store, samples, share
        self.history = History(search, store)
        trials = self.history.trials()
        self.study = Study(search, trials)
        self.begun = [trial for trial in trials if not trial.ended]
        self.to_start = self.to_end = self.history.missing(samples)
        """Numbers of trials that are still to be handed out, and to end."""
        self.is_closing = False
        self.failures: dict[str, str] = {}
        """cam_id of a closing score -> why it failed."""

    def next(self) -> SearchTrial | Closing | None:
        """Return an interrupted trial, or draw one, until there are as many as asked for."""
        if self.to_start:
            self.to_start -= 1
            trial = self.begun.pop(0) if self.begun else self._draw()
            trial.status, trial.message = "running", ""  # forget an earlier failure
            self._keep(trial)
            return trial
        if not self.to_end and not self.is_closing:
            self.is_closing = True
            missing = self.history.missing_held_out()
            self.waiting = [Closing(key, settings) for key, settings in missing.items()]
        return super().next()

    def _draw(self) -> SearchTrial:
        number = next(n for n in itertools.count() if n not in self.study.known)
        settings = self.study.draw(number)
        return SearchTrial(number, cam_id(self.search.config(settings)), settings)

    def folder(self, target: SearchTrial | Closing) -> Path:
        """Return the training's folder."""
        return self.store.cam(target.cam_id).path

    def reported(self, target: SearchTrial | Closing, record: Numbers) -> bool:
        """Assess a trial by its epoch, and save both together; or save a closing score."""
        if isinstance(target, SearchTrial):
            if not target.ended:  # else assessed before its process died, and now reported again
                self._assess(target, record)
                self._keep(target)
            return target.status == "stopped"
        if "failed" in record:
            self.failures[target.cam_id] = f"{record['failed']}: {record['message']}"
        elif "held_out" in record:  # in the last one
            self.history.add_held_out(target.cam_id, record)
            self.share(None)
        return False

    def _assess(self, target: SearchTrial, record: Numbers) -> None:
        target.warning = record.get("warning", "")
        if "failed" in record:
            target.status, target.message = record["failed"], record["message"]
        else:
            is_new = record["epoch"] > target.last_epoch  # not one repeated after a kill
            target.add_epoch(record)
            is_poor = is_new and self.study.is_poor(target)
            if target.last_epoch == self.search.base.train.epochs:
                target.status = "finished"
            elif is_poor:
                target.status = "stopped"
        if target.ended:
            self.to_end -= 1
            self.study.end(target)

    def ended(self, target: SearchTrial | Closing) -> End:
        """Return its status and score; a trial that diverged has ended, too, with 0 %."""
        if isinstance(target, Closing):
            if score := self.history.held_out().get(target.cam_id):
                return End("done", f"{score['held_out']:.2f} %")
            why = self.failures.get(target.cam_id)
            return End("failed", why) if why else End("started")
        if not target.ended:
            return End("started")
        trials = self.history.trials()
        parts = [f"{target.status} after epoch {target.last_epoch}"]
        parts += [] if target.objective is None else [f"{target.objective:.2f} %"]
        parts += [f"{sum(t.ended for t in trials)} of {counted(self.samples, 'trial')} ended"]
        parts += [f"best so far {t.objective:.2f} % ({t.name})" for t in best_trials(trials, 1)]
        return End("done", "; ".join(filter(None, [*parts, target.message])))

    def gave_up(self, target: SearchTrial | Closing, note: ErrorNote) -> None:
        """Record a trial's error; the next start tries it again, as it does a closing score."""
        if isinstance(target, SearchTrial):
            lines = note.message.strip().splitlines() or [note.kind]
            target.status, target.message = "error", lines[-1]
            self._keep(target)

    def _keep(self, trial: SearchTrial) -> None:
        self.history.save(trial)
        self.share(trial)


class DrivenSearch(Subject):
    """A search: first its trials, then the closing scores."""

    def __init__(self, search: Search, store: Store, samples: int, limits: PriorLimits) -> None:
        # A search continues trainings of other code.
        conduct = Conduct(accept_changes=True, limits=limits)
        place = Place(store, search.data, search.weights_file, conduct=conduct)
        super().__init__(Driven("search", search.name), place)
        self.search, self.samples = search.model_copy(update={"samples": samples}), samples
        self.networks = [search.base.network]
        self.history = History(search, store)
        self.check_lock: Callable[[], None] | None = None

    def prepare(self, resources: Resources) -> list[str]:
        """Say how much there is to do."""
        missing = self.history.missing(self.samples)
        done = f"{self.samples - missing} of {counted(self.samples, 'trial')} done"
        return [f"{self.what.title}: {done}, {missing} to run"]

    def write_down(self) -> None:
        """Write what is searched."""
        save_search(self.store, self.search)

    def missing(self) -> list[object]:
        """Return the numbers of missing trials, and the ids of missing closing scores."""
        return [*range(self.history.missing(self.samples)), *self.history.missing_held_out()]

    def begin_alone(self, check_lock: Callable[[], None]) -> list[str]:
        """Download the history, which nobody else writes from now on."""
        self.check_lock = check_lock
        self.store.folder(self.what.path).pull()
        return []

    def runner(self, resources: Resources) -> "TuneRunner[Any]":
        """Return what runs the draws, then the closing scores."""
        from sweeps.run.ray.tune import TuneRunner, drawn_trial

        place = replace(self.place, execution=resources.execution)
        return TuneRunner(
            Draws(self.search, self.store, self.samples, self.share),
            drawn_trial,
            {"search": self.search, "place": place},
            lambda each: {"settings": each.settings, "held_out": isinstance(each, Closing)},
            self.store.root / "ray" / f"search-{self.search.name}",
            resources,
        )

    def share(self, trial: SearchTrial | None) -> None:
        """Upload the history before a trial continues.

        So no checkpoint in the bucket has an epoch that the history lacks. The search continues
        while the bucket is unreachable; the next epoch uploads what is missing. An ended trial's
        losses are downloaded from where it ran, for MLflow.
        """
        assert self.check_lock, "only the driver shares"
        try:
            self.check_lock()
            self.store.folder(self.what.path).push()
            if trial is None or trial.ended:
                self.store.pull_results()
        except StoreError as error:
            logger.warning("%s; the search continues", error)

    def tracked(self) -> "Tracked":
        """Return the runs of a search."""
        from sweeps.track.runs.search import SearchRuns

        return SearchRuns(self.store, self.search)

    def results(self) -> list[str]:
        """Return each trial with its status, and the ids of the closing scores."""
        trials = [f"{trial.number} {trial.status}" for trial in self.history.trials()]
        return [*trials, *sorted(self.history.held_out())]

    def show(self, console: Console) -> None:
        """Print the base, then the trials, best first."""
        print_document(console, search_document(self.search, self.store))

    def report(self) -> list[str]:
        """Write the report, and attach it to the search's MLflow run."""
        return self.attach(write_search(self.search, self.store))

    def failures(self) -> list[str]:
        """Return a line per trial that was given up, and what to do."""
        failed = [t for t in self.history.trials() if t.status == "error"]
        lines = [f"failed: {trial.name}: {trial.message}" for trial in failed]
        return [*lines, NOT_COMPLETE] if self.missing() else lines
