"""Runs a sweep's missing trials with Ray Tune, each inline or as a Ray Train run of its own.

The explicit list of trials is given to Tune; which of them are missing is read from the store, so
the same command starts a sweep, resumes it and extends it.
"""

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from filelock import Timeout
from ray import tune

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.run.budget import Budget, GatedTrials, size_of
from sweeps.run.capacity import CapacityError
from sweeps.run.events import MAX_LOST_NODES, MAX_TRIAL_RESTARTS, Events, Listener
from sweeps.run.interrupts import Interrupts
from sweeps.run.resources import Resources, concurrency
from sweeps.run.stopping import EarlyEnd
from sweeps.run.trainable import trainable
from sweeps.stages.guard import check_half_trained
from sweeps.stages.task import Conduct, TrialTask
from sweeps.store.attempts import Ledger
from sweeps.store.failures import ErrorNote
from sweeps.store.store import Store, StoreError, read_json, write_json
from wsss.config import NetworkConfig
from wsss.interrupts import held_back
from wsss.training.allocation import let_children_keep_memory

__all__ = ["MAX_TRIAL_RESTARTS", "Ending", "Listener", "driving", "run_sweep", "running_ray"]


@dataclass(frozen=True)
class Ending:
    """How a sweep's run came to its end."""

    interrupted: bool = False
    """Whether a signal ended it."""
    common_error: ErrorNote | None = None
    """The error for which it was stopped, as trial after trial met it."""
    traceback_file: Path | None = None
    over_budget: str | None = None
    """That the budget is spent, in words."""


def run_sweep(
    sweep: Sweep,
    store: Store,
    resources: Resources,
    trials: list[Trial],
    listeners: list[Listener],
    *,
    conduct: Conduct | None = None,
    budget_hours: float | None = None,
    say: Callable[[str], None] = print,
) -> Ending:
    """Run the given trials to their end; each ends finished or with a recorded failure.

    `say` is given a line for a person at each restart; `budget_hours` are GPU-hours, or CPU-hours
    without GPUs. Ends early, in order, after SIGINT, SIGTERM, a spent budget or three trials with
    the same unforeseen error; a second signal raises KeyboardInterrupt. Raises StoreError if
    another process drives the same sweep, ChangedError for half-trained networks of other code,
    WeightsError or ConfigError if the initial weights cannot be used, all before any trial starts.
    """
    conduct = conduct or Conduct()
    check_weights((trial.config.network for trial in trials), sweep.weights_file)
    with driving(store, sweep.name), Ledger(store, sweep.name, size_of(resources)) as ledger:
        budget = Budget(ledger, budget_hours)
        if reason := budget.reason():
            return Ending(over_budget=reason)
        for warning in check_half_trained(trials, store, accept_changes=conduct.accept_changes):
            say(f"{warning}; it goes on all the same (--accept-changes)")
        with running_ray(resources), Interrupts() as interrupts:
            events = Events(
                store, {t.run_id: t for t in trials}, [*listeners, ledger], say, ledger.ended
            )
            stopper = EarlyEnd(store, events, interrupts, budget, say)
            _run_with_tune(sweep, store, resources, trials, conduct, events, stopper)
    return Ending(
        interrupts.requested is not None,
        events.common_error,
        events.traceback_file,
        budget.reason(),
    )


@contextmanager
def driving(store: Store, name: str) -> Iterator[None]:
    """Hold a sweep as its only driver. Raises StoreError, which names the other one."""
    holder = store.sweep(name) / "driver.json"
    try:
        with store.driver_lock(name).acquire(timeout=0):
            since = datetime.now().astimezone().isoformat(timespec="seconds")
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        known = read_json(holder)
        who = "process {pid} on {host}, since {since}".format(**known) if known else "unknown"
        raise StoreError(
            f"another process runs sweep {name} ({who}); follow it with `sweeps status --watch "
            f"--store {store.root} --sweep {name}`, or end it"
        ) from None


def check_weights(networks: Iterable[NetworkConfig], weights_file: Path | None) -> None:
    """Load the initial weights once here, so that a wrong file is refused before trials start.

    Imports torch only if there are any. Raises WeightsError or ConfigError.
    """
    named = {(network.backbone, network.weights): network for network in networks}
    pretrained = [network for network in named.values() if network.weights != "none"]
    if not pretrained:
        return
    from wsss.networks.backbone import build_backbone

    for network in pretrained:
        build_backbone(network, weights_file)


@contextmanager
def running_ray(resources: Resources) -> Iterator[None]:
    """Join or start Ray (`start_ray`), and leave or end it. Ctrl-C waits until either is done."""
    try:
        with held_back():
            start_ray(resources)
        yield
    finally:
        with held_back():
            ray.shutdown()


def start_ray(resources: Resources) -> None:
    """Join the cluster at resources.address, or start Ray on this machine.

    Raises CapacityError for GPUs on a machine where torch finds none.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if resources.address:
        ray.init(resources.address, **quiet)
        return
    let_children_keep_memory()
    # A bare ray.init() may join somebody else's cluster. The dashboard is only for Train's cleaner.
    ray.init(
        "local",
        num_gpus=_gpus_here(resources.gpus) if resources.gpus else None,
        include_dashboard=not resources.inline,
        **quiet,
    )


def _gpus_here(asked: float) -> int:
    """Return how many GPUs torch can use on this machine; refuse if there are none."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    built = torch.version.cuda or torch.version.hip
    hint = "see `nvidia-smi` and CUDA_VISIBLE_DEVICES" if built else "it is built without CUDA"
    raise CapacityError(
        f"--gpus {asked:g}: torch {torch.__version__} finds no GPU on this machine ({hint}); leave "
        "out --gpus (GPUS=0 with make) to train on its CPUs, or name a Ray cluster that has GPUs "
        "with --address"
    )


def _run_with_tune(
    sweep: Sweep,
    store: Store,
    resources: Resources,
    trials: list[Trial],
    conduct: Conduct,
    events: Events,
    stopper: EarlyEnd,
) -> None:
    at_once = concurrency(resources)
    for trial in trials:
        store.run(trial.run_id).clear_failure()
    tasks = {trial.run_id: _task(sweep, store, resources, trial) for trial in trials}
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # files that nobody reads
    # Not a part of the space, which Tune writes into its logs again with every report.
    shared = tune.with_parameters(trainable, tasks=tasks, resources=resources, conduct=conduct)
    stopper.budget.ledger.room(at_once)
    tuner = tune.Tuner(
        tune.with_resources(shared, resources.of_a_trial()),
        param_space={"run_id": tune.grid_search(list(tasks))},
        tune_config=tune.TuneConfig(
            search_alg=GatedTrials(at_once, lambda: stopper.shut() is not None),
            reuse_actors=resources.inline,
        ),
        run_config=tune.RunConfig(
            name=sweep.name,
            storage_path=str(store.root / "ray"),
            callbacks=[events],
            stop=stopper,
            # Which end of a process counts as a failure is decided by `events`.
            failure_config=tune.FailureConfig(max_failures=MAX_TRIAL_RESTARTS + MAX_LOST_NODES),
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
        execution=resources.execution,
        remote=store.remote.url if store.remote else None,
    )
