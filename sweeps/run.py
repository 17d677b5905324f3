"""Runs a sweep's missing trials with Ray Tune, each inline or as a Ray Train run of its own.

The explicit list of trials is given to Tune; which of them are missing is read from the store, so
the same command starts a sweep, resumes it and extends it.
"""

import os
from dataclasses import asdict
from typing import Any, Protocol

import ray
import torch
from filelock import Timeout
from ray import tune

from sweeps.plan import Trial
from sweeps.resources import Resources, concurrency
from sweeps.store import Store, StoreError
from sweeps.sweep import Sweep
from sweeps.trainable import trainable, write_failure
from sweeps.trial import TrialTask
from wsss.networks.backbone import build_backbone

MAX_TRIAL_RESTARTS = 2
"""Restarts of a trial whose process died or whose code raised an unforeseen error."""


class Listener(Protocol):
    """Is told what happens to trials."""

    def update(self, trial: Trial, *, status: str, record: dict[str, float] | None = None) -> None:
        """status: running, done or failed; record: the numbers last reported."""


def run_sweep(
    sweep: Sweep, store: Store, resources: Resources, trials: list[Trial], listeners: list[Listener]
) -> None:
    """Run the given trials to their end; each ends finished or with a recorded failure.

    Raises StoreError if another process drives the same sweep, WeightsError or ConfigError if the
    initial weights cannot be used, before any trial starts.
    """
    check_weights(sweep, trials)
    try:
        with store.driver_lock(sweep.name).acquire(timeout=0):
            start_ray(resources)
            try:
                _run_with_tune(sweep, store, resources, trials, listeners)
            finally:
                ray.shutdown()
    except Timeout:
        raise StoreError(
            f"another process runs sweep {sweep.name}; follow it with `sweeps status`, or end it"
        ) from None


def check_weights(sweep: Sweep, trials: list[Trial]) -> None:
    """Load the initial weights once here, so that a wrong file is refused before trials start."""
    networks = {(t.config.network.backbone, t.config.network.weights): t for t in trials}
    for trial in networks.values():
        build_backbone(trial.config.network, sweep.weights_file)


def start_ray(resources: Resources) -> None:
    """Join the cluster at resources.address, or start Ray on this machine."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if resources.address:
        ray.init(resources.address, **quiet)
        return
    # A bare ray.init() may join somebody else's cluster. The dashboard is only for Train's cleaner.
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    ray.init("local", num_gpus=gpus, include_dashboard=resources.workers > 0, **quiet)


def _run_with_tune(
    sweep: Sweep, store: Store, resources: Resources, trials: list[Trial], listeners: list[Listener]
) -> None:
    for trial in trials:
        store.run(trial.run_id).clear_failure()
    tasks = {trial.run_id: _task(sweep, store, resources, trial) for trial in trials}
    space = {
        "run_id": tune.grid_search(list(tasks)),
        "tasks": {run_id: asdict(task) for run_id, task in tasks.items()},
        "resources": asdict(resources),
    }
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources.of_a_trial()),
        param_space=space,
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrency(resources), reuse_actors=resources.inline
        ),
        run_config=tune.RunConfig(
            name=sweep.name,
            storage_path=str(store.root / "ray"),
            callbacks=[_Callback(store, {t.run_id: t for t in trials}, listeners)],
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_RESTARTS),
            verbose=0,
        ),
    )
    tuner.fit()


def _task(sweep: Sweep, store: Store, resources: Resources, trial: Trial) -> TrialTask:
    return TrialTask(
        config=trial.config.model_dump(mode="json"),
        store=str(store.root),
        data=str(sweep.data),
        weights_file=str(sweep.weights_file) if sweep.weights_file else None,
        num_loader_workers=resources.loader_workers,
    )


class _Callback(tune.Callback):  # type: ignore[misc]  # ray is untyped
    """Passes Tune's events on to the listeners, and records errors which no worker could."""

    def __init__(self, store: Store, trials: dict[str, Trial], listeners: list[Listener]) -> None:
        self.store, self.trials, self.listeners = store, trials, listeners
        self.last: dict[str, dict[str, float]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; listeners hold terminals and threads."""
        return {"store": self.store, "trials": {}, "listeners": [], "last": {}}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._tell(trial, "running")

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.last[trial.config["run_id"]] = result
        self._tell(trial, "running", result)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        run_id = trial.config["run_id"]
        done = self.store.run(run_id).metrics() is not None
        self._tell(trial, "done" if done else "failed", self.last.get(run_id))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        error = trial.get_error() or RuntimeError("the trial's process ended without a word")
        message = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        write_failure(
            self.store.run(trial.config["run_id"]).path, type(error).__name__, message, str(error)
        )
        self._tell(trial, "failed")

    def _tell(self, trial: Any, status: str, record: dict[str, Any] | None = None) -> None:
        for listener in self.listeners:
            listener.update(self.trials[trial.config["run_id"]], status=status, record=record)
