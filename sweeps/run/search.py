"""Runs a search with Ray Tune: Optuna's TPE draws, ASHA stops the hopeless, the history remembers.

A search goes on from its history alone, not from Tune's or Optuna's own files: ended trials are fed
to the sampler and to the scheduler as if they had just run, interrupted ones come first and
continue from their checkpoints, and only the missing number is drawn. So a search survives a
`kill -9`, another machine and another version of either library, and unpickles nothing.
"""

import math
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from sweeps.plan.search import Search
from sweeps.plan.search_history import History, Listen, SearchTrial
from sweeps.run.resources import Resources, concurrency
from sweeps.run.search_callbacks import ClosingCallback, DrawnCallback
from sweeps.run.search_remote import driving, pushing
from sweeps.run.search_trainable import closing_trial, drawn_trial
from sweeps.run.tune import MAX_TRIAL_RESTARTS, check_weights, running_ray
from sweeps.stages.task import SearchTask
from sweeps.store.store import Store
from wsss.identity import cam_id
from wsss.training.prior import PriorLimits

REDUCTION_FACTOR = 3
"""Of the trials that reach a rung, about one in three goes on."""

GRACE_SHARE = 0.2
"""No trial is stopped before this share of its epochs: early mIoU says little of late mIoU."""


def run_search(
    search: Search, store: Store, resources: Resources, *, samples: int, listen: Listen,
    limits: PriorLimits | None = None,
) -> bool:  # fmt: skip
    """Draw and train until `samples` trials have ended, then score on the held-out half.

    Returns whether Ctrl-C ended it early; the history is then as it is. Raises StoreError if
    another process runs the same search, WeightsError if the initial weights cannot be used.
    """
    folder = search.folder(store)
    folder.mkdir(parents=True, exist_ok=True)
    check_weights([search.base.network], search.weights_file)
    history = History(folder)
    with driving(search, store) as lease:
        listen = pushing(search, store, lease, listen)
        tasks = _Tasks(search, store, resources, limits or PriorLimits())
        with running_ray(resources):
            if history.missing(samples) and _draw(tasks, samples, listen):
                return True
            if history.missing(samples):  # failed: what is best is not known yet
                return False
            return _score_held_out(tasks, listen)


def make_searcher(search: Search, trials: list[SearchTrial]) -> OptunaSearch:
    """Return the sampler as it stands after these trials; interrupted ones are suggested first.

    A sampler that starts again with the same seed would draw its first points again, so the seed
    moves on with the number of trials.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {r.key: FloatDistribution(r.low, r.high, log=r.log) for r in search.space.ranges}
    searcher = OptunaSearch(
        space=space,
        metric="objective",
        mode="max",
        points_to_evaluate=[trial.settings for trial in trials if not trial.ended],
        seed=(search.rng_seed + 1_000_003 * len(trials)) % 2**32,
    )
    for trial in trials:
        if trial.ended and trial.objective is not None:
            searcher.add_evaluated_point(trial.settings, trial.objective)
    return searcher


class ResumedAsha(ASHAScheduler):  # type: ignore[misc]  # ray is untyped
    """ASHA that starts with the rungs as a search's history left them.

    Without this, the first trials after an interruption would meet empty rungs and never be
    stopped, and a trial that goes on would stand in its lower rungs with a later epoch's score.
    """

    def __init__(self, search: Search, trials: list[SearchTrial]) -> None:
        epochs = search.base.train.epochs
        super().__init__(
            time_attr="epoch",
            metric="objective",
            mode="max",
            max_t=epochs,
            grace_period=max(1, math.ceil(GRACE_SHARE * epochs)),
            reduction_factor=REDUCTION_FACTOR,
        )
        self.space = search.space
        self.interrupted = [trial for trial in trials if not trial.ended]
        for trial in trials:
            if trial.ended:
                known = SimpleNamespace(trial_id=f"history-{trial.number}")
                super().on_trial_add(None, known)
                self._replay(known, trial)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Note a new trial; one that was interrupted brings the epochs it was judged by before."""
        super().on_trial_add(tune_controller, trial)
        settings = self.space.round(trial.config)
        for known in self.interrupted:
            if known.settings == settings:
                self._replay(trial, known)

    def _replay(self, trial: Any, known: SearchTrial) -> None:
        for record in known.epochs:
            self.on_trial_result(None, trial, record)  # its decision was acted on at the time


def _draw(tasks: "_Tasks", samples: int, listen: Listen) -> bool:
    """Let Tune draw and run what is missing of the samples; return whether it was interrupted."""
    search, store, resources = tasks.search, tasks.store, tasks.resources
    history = History(search.folder(store))
    trials = history.trials()
    missing = history.missing(samples)
    # Not a part of the space, which Tune copies for each trial.
    shared = tune.with_parameters(drawn_trial, task=tasks.make({}))
    tuner = tune.Tuner(
        tune.with_resources(shared, resources.of_a_trial()),
        param_space={
            "ranges": [asdict(r) for r in search.space.ranges],
            "cpus": resources.cpus,
        },
        tune_config=tune.TuneConfig(
            search_alg=make_searcher(search, trials),
            scheduler=ResumedAsha(search, trials),
            num_samples=missing,
            max_concurrent_trials=concurrency(resources),
            reuse_actors=True,
        ),
        run_config=_run_config(
            f"search-{search.name}", store, DrawnCallback(search, history, listen)
        ),
    )
    return _interrupted(tuner.fit(), missing)


def _score_held_out(chosen: "_Tasks", listen: Listen) -> bool:
    """Score the best trials and the reference on the held-out half, and stop none of them.

    Returns whether it was interrupted.
    """
    search, store, resources = chosen.search, chosen.store, chosen.resources
    history = History(search.folder(store))
    missing = history.missing_held_out(cam_id(search.base))
    if not missing:
        return False
    tasks = {key: chosen.make(row) for key, row in missing.items()}
    # Not a part of the space, which Tune copies for each trial.
    shared = tune.with_parameters(closing_trial, tasks=tasks)
    tuner = tune.Tuner(
        tune.with_resources(shared, resources.of_a_trial()),
        param_space={"cam_id": tune.grid_search(list(tasks)), "cpus": resources.cpus},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrency(resources), reuse_actors=True
        ),
        run_config=_run_config(
            f"search-{search.name}-held-out", store, ClosingCallback(history, listen)
        ),
    )
    return _interrupted(tuner.fit(), len(tasks))


def _interrupted(results: tune.ResultGrid, num_trials: int) -> bool:
    """Whether some trials came to no end; Tune swallows the Ctrl-C itself."""
    return int(results.num_terminated + results.num_errors) < num_trials


def _run_config(name: str, store: Store, callback: tune.Callback) -> tune.RunConfig:
    return tune.RunConfig(
        name=name,
        storage_path=str(store.root / "ray"),
        callbacks=[callback],
        failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_RESTARTS),
        verbose=0,
    )


@dataclass(frozen=True)
class _Tasks:
    """Makes the tasks of a search's trials."""

    search: Search
    store: Store
    resources: Resources
    limits: PriorLimits

    def make(self, settings: dict[str, float]) -> SearchTask:
        """Return the task of the trial with these drawn settings."""
        search, store = self.search, self.store
        return SearchTask(
            config=search.config(settings).model_dump(mode="json"),
            objective=search.objective,
            store=str(store.root),
            data=str(search.data),
            weights_file=str(search.weights_file) if search.weights_file else None,
            execution=self.resources.execution,
            prior_warns_after=self.limits.warn_after,
            prior_fails_after=self.limits.fail_after,
            remote=store.remote.url if store.remote else None,
        )
