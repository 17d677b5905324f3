"""`sweeps run --probe N`: the first steps of each distinct training of a plan, a Ray task for each.

It says what they have shown, and whether the sweep should be run. It writes nothing into the store:
neither a training nor a failure, nor MLflow.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Queue
from rich.console import Console
from rich.text import Text

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan, Trial
from sweeps.report.live.cost_lines import format_bytes, format_seconds
from sweeps.run.driver import INTERRUPTED, download_weights
from sweeps.run.ray.resources import DRIVER_SHARE, HEAD_NODE, Resources, concurrency
from sweeps.run.ray.start import running_ray
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.printable import counted
from wsss.training.probe import ProbeOptions, ProbeResult, probe
from wsss.training.process import Process

FINE, BAD = 0, 1
NUM_NAMED = 3
"""Cells that a line names; more are counted."""


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
    if cam.result():
        return 0.0
    return max(0.0, 1 - len(cam.epochs()) / trial.config.train.epochs)


def run_probes(
    targets: list[ProbeTarget], resources: Resources, options: ProbeOptions
) -> Iterator[Probed]:
    """Probe the trainings under Ray; yield each as it ends. Closing it cancels the others.

    Raises WeightsError, ConfigError or CapacityError before any of them starts.
    """
    download_weights(target.config.network for target in targets)
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
    from sweeps.run.ray.train import Workers, end_with_raylet, fit
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


# What the probes have shown


def probe_sweep(sweep: Sweep, store: Store, resources: Resources, options: ProbeOptions) -> int:
    """Probe every distinct training of a sweep, and print what came of each and what all cost.

    Returns 0 if all train as far as this tells (`is_bad`), 1 if not, 130 after Ctrl-C.
    """
    console, found = Console(), list[Probed]()
    targets = probe_targets(sweep.plan, store)
    _print(console, sweep.describe())
    _print(
        console,
        f"probe: the first {options.num_steps} steps of "
        f"{counted(len(targets), 'distinct training')}; nothing of them is kept",
    )
    _print(console, resources.first_words)
    try:
        for probed in run_probes(targets, resources, options):
            found.append(probed)
            _print(console, f"{len(found)}/{len(targets)}  {describe(probed)}")
    except KeyboardInterrupt:
        _print(console, "interrupted; nothing was kept")
        return INTERRUPTED
    found.sort(key=lambda probed: targets.index(probed.target))
    for line in (*verdict(found), *cost(found, resources)):
        _print(console, line)
    return BAD if any(map(is_bad, found)) else FINE


def is_bad(probed: Probed) -> bool:
    """Whether to change something before the sweep is run.

    That is if the probe failed, the training would end (not finite, or not clearly below the label
    prior after --prior-fails-after iterations, or at its own end), or L_cls does not fall. Before
    that, not to be below the label prior is no fault.
    """
    result = probed.result
    if result is None or result.failure or not result.is_falling:
        return True
    return result.is_whole and result.at_prior


def describe(probed: Probed) -> str:
    """Return the lines on one training."""
    name, result = short_name(probed.target), probed.result
    if result is None:
        return f"{name}: the probe itself failed: {probed.error}"
    finite = "not all finite" if result.diverged else "losses and gradients finite"
    memory = "GPU memory" if result.on_gpu else "memory"
    return "\n     ".join(
        (
            f"{name}: {result.num_steps} of {result.total_steps} steps; {judge(result)}",
            f"L_cls {result.loss_first:.4g} -> {result.loss_last:.4g}, label prior "
            f"{result.prior:.4g}; {finite}, largest gradient norm {result.largest_norm:.3g}",
            f"{result.seconds_per_step:.3g} s per step, {result.images_per_second:.3g} images/s, "
            f"{format_bytes(result.peak_bytes / 2**30)} of {memory} at most; the whole training "
            f"about {_time(result.training_seconds)}",
        )
    )


def judge(result: ProbeResult) -> str:
    """Return in words how a training goes."""
    if result.failure:
        return result.failure
    if not result.is_falling:
        return "L_cls does not fall; try another train.lr, or set train.clip_norm"
    if result.at_prior:
        when = "at its end" if result.is_whole else f"after {result.num_steps} steps"
        return f"L_cls falls, and is not clearly below the label prior {when}"
    below = 1 - result.loss_last / result.prior
    return f"looks fine, L_cls is {below:.0%} below the label prior"


def verdict(found: Iterable[Probed]) -> list[str]:
    """Return a line for each way in which trainings go, with those that go it."""
    groups: dict[str, list[str]] = {}
    for probed in found:
        groups.setdefault(_group(probed), []).append(short_name(probed.target))
    return [f"{group}: {'; '.join(groups[group])}" for group in _GROUPS if group in groups]


_GROUPS = (
    "would diverge",
    "would be ended as not learning",
    "L_cls does not fall",
    "could not be probed",
    "ended without learning",
    "not clearly below the label prior yet (normal for a hundred steps; a longer probe tells more)",
    "look fine",
)


def _group(probed: Probed) -> str:
    diverge, not_learning, not_falling, failed, ended, at_prior, fine = _GROUPS
    result = probed.result
    if result is None:
        return failed
    if result.failure:
        return diverge if result.diverged else not_learning
    if not result.is_falling:
        return not_falling
    if not result.at_prior:
        return fine
    return ended if result.is_whole else at_prior


def cost(found: Iterable[Probed], resources: Resources) -> list[str]:
    """Return what the missing trainings of all seeds will take, scoring left out."""
    device, per_rank = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
    seconds, missing, unknown = 0.0, 0.0, 0.0
    for probed in found:
        took = probed.result.training_seconds if probed.result else math.nan
        missing += probed.target.missing
        if math.isfinite(took):
            seconds += took * probed.target.missing
        else:
            unknown += probed.target.missing
    hours = seconds * resources.demand.workers * per_rank / 3600
    text = (
        f"what the plan still needs, {missing:.4g} of its trainings under all seeds: about "
        f"{_time(seconds)} one at a time, {hours:.2g} {device}-hours; scoring comes on top"
    )
    return [text + (f"; {unknown:.4g} of them of unknown time" if unknown else "")]


def short_name(target: ProbeTarget) -> str:
    """Return the first cells that a training stands behind, and how many more there are."""
    named = replace(target, cells=target.cells[:NUM_NAMED]).name
    more = len(target.cells) - NUM_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _time(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "unknown"


def _print(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
