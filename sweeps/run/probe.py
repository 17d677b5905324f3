"""`sweeps run --probe N`: the first steps of each distinct training of a plan, a Ray task for each.

It writes nothing into the store: neither a training nor a failure, nor MLflow.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Queue

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan, Trial
from sweeps.run.driver import check_weights
from sweeps.run.resources import DRIVER_SHARE, HEAD_NODE, Resources, concurrency, running_ray
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.training.probe import ProbeOptions, ProbeResult, probe
from wsss.training.process import Process


@dataclass(frozen=True)
class ProbeTarget:
    """A distinct training of a plan, and how much of it is still to be trained."""

    config: RunConfig
    """With its lowest seed."""
    cells: tuple[str, ...]
    """All cells that it stands behind, under whatever seed."""
    missing: float
    """Trainings that the plan still needs of it, over all seeds; one begun counts in part."""

    @property
    def name(self) -> str:
        """A name for people."""
        return " = ".join(self.cells)


@dataclass(frozen=True)
class Probed:
    """What came of probing a training."""

    target: ProbeTarget
    result: ProbeResult | None
    """None if the probe itself failed."""
    error: str = ""
    """Why it failed."""


def probe_targets(plan: Plan, store: Store) -> list[ProbeTarget]:
    """Return a plan's trainings, those once that differ in their seed or scoring only."""
    groups: dict[str, list[Trial]] = {}
    for trial in plan.trials:
        alike = trial.config.model_copy(update={"rng_seed": 0, "repeat": 0})
        groups.setdefault(cam_id(alike), []).append(trial)
    targets = []
    for trials in groups.values():
        trainings = {trial.cam_id: trial for trial in trials}
        lowest = min(trials, key=lambda trial: trial.config.rng_seed)
        cells = tuple(dict.fromkeys(cell for trial in trials for cell in trial.cells))
        missing = sum(_missing_part(trial, store) for trial in trainings.values())
        targets.append(ProbeTarget(lowest.config, cells, missing))
    return targets


def _missing_part(trial: Trial, store: Store) -> float:
    """Return which part of a training is still to be done, in [0, 1]."""
    cam = store.cam(trial.cam_id)
    if cam.trained():
        return 0.0
    return max(0.0, 1 - len(cam.epochs()) / trial.config.train.epochs)


def run_probes(
    sweep: Sweep, targets: list[ProbeTarget], resources: Resources, options: ProbeOptions
) -> Iterator[Probed]:
    """Probe the trainings under Ray; yield each as it ends. Closing it cancels the others.

    Raises WeightsError, ConfigError or CapacityError before any of them starts.
    """
    check_weights((target.config.network for target in targets), sweep.weights_file)
    with running_ray(resources):
        at_once, waiting = concurrency(resources), list(targets)
        task, running = _task(resources), dict[Any, ProbeTarget]()
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    target = waiting.pop(0)
                    running[task.remote(target.config, options, resources)] = target
                (ready,), _ = ray.wait(list(running))
                yield _collect(running.pop(ready), ready)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


def _task(resources: Resources) -> Any:
    """Return the Ray task that probes one configuration, in a process of its own."""
    needs: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if not resources.inline:
        needs = {"num_cpus": 0, "resources": {HEAD_NODE: DRIVER_SHARE}}
    # After one call the process ends, so the next one's peak memory is its own.
    return ray.remote(max_calls=1, max_retries=0, **needs)(_probe_one)


def _collect(target: ProbeTarget, reference: Any) -> Probed:
    try:
        return Probed(target, ray.get(reference))
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        is_ours = isinstance(error, ray.exceptions.RayTaskError)
        return Probed(target, None, lines[-1 if is_ours else 0] if lines else type(error).__name__)


def _probe_one(config: RunConfig, options: ProbeOptions, resources: Resources) -> ProbeResult:
    """Probe one configuration where a trial would train it; runs in a Ray task."""
    from wsss.training.distributed import Workers, fit
    from wsss.training.orphans import end_with_raylet
    from wsss.training.process import pick_device

    end_with_raylet()
    if resources.inline:
        return probe(config, options, Process(device=pick_device(resources.cpus)))
    answers = Queue(actor_options={"num_cpus": 0})
    with tempfile.TemporaryDirectory() as folder:
        fit(
            partial(_probe_rank, options=options, answers=answers),
            config,
            Workers(resources.num_workers, resources.gpus, resources.cpus, max_failures=0),
            name="probe",
            storage=Path(folder),
        )
    result: ProbeResult = answers.get(timeout=60)
    return result


def _probe_rank(
    config: RunConfig, process: Process, *, options: ProbeOptions, answers: Queue
) -> Iterator[dict[str, float]]:
    """Probe on one rank of several; the first one answers."""
    result = probe(config, options, process)
    if process.is_first:
        answers.put(result)
    yield {"steps": float(result.num_steps)}
