"""`sweeps run --probe N`: the first steps of each distinct training of a plan, in a Ray task each.

It prints the results, and whether the sweep should be run. It writes nothing, neither to the store
nor to MLflow.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.util.queue import Queue
from rich.console import Console

from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Plan, Trial
from sweeps.report.live.cost_lines import format_bytes, format_seconds
from sweeps.run.driver import INTERRUPTED, download_weights, printer
from sweeps.run.ray.resources import DRIVER_SHARE, HEAD_NODE, Resources, concurrency
from sweeps.run.ray.start import running_ray
from sweeps.store.store import Store
from wsss.basics.printable import counted, first_of
from wsss.config import RunConfig
from wsss.identity import cam_id
from wsss.training.diagnosis.probe import ProbeOptions, ProbeResult, probe
from wsss.training.process import Process


@dataclass(frozen=True)
class ProbeTarget:
    """A distinct training of a plan, and how much of it is still to be trained."""

    config: RunConfig
    """With its lowest seed."""
    cells: tuple[str, ...]
    """All cells that use it, with any seed."""
    missing: float
    """Trainings still to be done, over all seeds; a partial one counts in part."""

    @property
    def name(self) -> str:
        """Its first cells, and the number of the others."""
        return first_of(self.cells, 3)


@dataclass(frozen=True)
class Probed:
    """The result of a probe."""

    target: ProbeTarget
    result: ProbeResult | None
    """None if the probe itself failed."""
    error: str = ""
    """Why it failed."""


def probe_targets(plan: Plan, store: Store) -> list[ProbeTarget]:
    """Return a plan's distinct trainings: seed and scoring do not count."""
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
    """Return the share of a training that is still to be done, in [0, 1]."""
    cam = store.cam(trial.cam_id)
    trained = len(cam.epochs()) / trial.config.train.epochs
    return 0.0 if cam.result() else max(0.0, 1 - trained)


def run_probes(
    targets: list[ProbeTarget], resources: Resources, options: ProbeOptions
) -> Iterator[Probed]:
    """Probe the trainings under Ray; yield each result. Closing the generator cancels the others.

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
    # One process per call, so that each measures its own peak memory.
    return ray.remote(max_calls=1, max_retries=0, **needs)(_probe_one)


def _collect(target: ProbeTarget, reference: Any) -> Probed:
    try:
        return Probed(target, ray.get(reference))
    except ray.exceptions.RayTaskError as error:  # its message is the whole traceback
        return Probed(target, None, str(error).strip().splitlines()[-1])
    except ray.exceptions.RayError as error:
        return Probed(target, None, str(error) or type(error).__name__)


def _probe_one(config: RunConfig, options: ProbeOptions, resources: Resources) -> ProbeResult:
    """Probe one configuration where a trial would train it: in a Ray task, or by Ray Train."""
    from sweeps.run.ray.train import end_with_raylet, fit
    from wsss.training.process import pick_device

    end_with_raylet()
    if resources.inline:
        return probe(config, options, Process(device=pick_device(resources.cpus)))
    answers = Queue(actor_options={"num_cpus": 0})
    with tempfile.TemporaryDirectory() as folder:
        fit(
            partial(_probe_rank, options=options, answers=answers),
            config,
            resources,
            folder=Path(folder) / "probe",
            max_failures=0,
        )
    result: ProbeResult = answers.get(timeout=60)
    return result


def _probe_rank(
    config: RunConfig, process: Process, *, options: ProbeOptions, answers: Queue
) -> Iterator[dict[str, float]]:
    """Probe on one rank of several; the first one sends the result."""
    result = probe(config, options, process)
    if process.is_first:
        answers.put(result)
    yield {"steps": float(result.num_steps)}


# Results


def probe_sweep(sweep: Sweep, store: Store, resources: Resources, options: ProbeOptions) -> int:
    """Probe every distinct training of a sweep; print each result, a verdict and the cost.

    Returns 0 if no training is bad, else 1; 130 after Ctrl-C.
    """
    say, found = printer(Console()), list[Probed]()
    targets = probe_targets(sweep.plan, store)
    say(sweep.describe())
    trainings = counted(len(targets), "distinct training")
    say(f"probe: the first {options.num_steps} steps of {trainings}; nothing is kept")
    say(resources.first_words)
    try:
        for probed in run_probes(targets, resources, options):
            found.append(probed)
            say(f"{len(found)}/{len(targets)}  {describe(probed)}")
    except KeyboardInterrupt:
        say("interrupted; nothing was kept")
        return INTERRUPTED
    found.sort(key=lambda probed: targets.index(probed.target))
    say(*verdict(found), cost(found, resources))
    return int(any(judge(probed).is_bad for probed in found))


def describe(probed: Probed) -> str:
    """Return the lines on one training."""
    name, result, words = probed.target.name, probed.result, judge(probed).words
    if result is None:
        return f"{name}: {words}: {probed.error}"
    finite = "not all finite" if result.diverged else "losses and gradients finite"
    memory = "GPU memory" if result.on_gpu else "memory"
    return "\n     ".join(
        (
            f"{name}: {result.num_steps} of {result.total_steps} steps; {result.failure or words}",
            f"L_cls {result.loss_first:.4g} -> {result.loss_last:.4g}, label prior "
            f"{result.prior:.4g}; {finite}, largest gradient norm {result.largest_norm:.3g}",
            f"{result.seconds_per_step:.3g} s per step, {result.images_per_second:.3g} images/s, "
            f"{format_bytes(result.peak_bytes / 2**30)} of {memory} at most; the whole training "
            f"about {_time(result.training_seconds)}",
        )
    )


class Judgement(NamedTuple):
    """What a probe says of a training."""

    is_bad: bool
    """Whether something should be changed before the sweep is run."""
    words: str
    """Equal for those that are listed together."""


def judge(probed: Probed) -> Judgement:
    """Judge a training.

    Not to be below the label prior is a fault only at the end of a training, or after
    --prior-fails-after iterations.
    """
    result, is_bad = probed.result, True
    if result is None:
        words = "could not be probed"
    elif result.failure:
        words = "would diverge" if result.diverged else "would be ended as not learning"
    elif not result.is_falling:
        words = "L_cls does not fall; try another train.lr, or set train.clip_norm"
    elif not result.at_prior:
        is_bad, words = False, "looks fine"
    elif result.is_whole:
        words = "L_cls falls, and is not clearly below the label prior at the end"
    else:
        is_bad = False
        words = (
            "L_cls falls, and is not clearly below the label prior yet (normal for a hundred "
            "steps; a longer probe tells more)"
        )
    return Judgement(is_bad, words)


def verdict(found: Iterable[Probed]) -> list[str]:
    """Return a line per judgement, the bad ones first."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for probed in found:
        is_bad, words = judge(probed)
        groups.setdefault((not is_bad, words), []).append(probed.target.name)
    return [f"{group[1]}: {'; '.join(groups[group])}" for group in sorted(groups)]


def cost(found: Iterable[Probed], resources: Resources) -> str:
    """Return a line on the cost of the missing trainings of all seeds, without their scoring."""
    device, per_rank = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
    seconds, missing, unknown = 0.0, 0.0, 0.0
    for probed in found:
        took = probed.result.training_seconds if probed.result else math.nan
        missing += probed.target.missing
        if math.isfinite(took):
            seconds += took * probed.target.missing
        else:
            unknown += probed.target.missing
    hours = seconds * resources.processes * per_rank / 3600
    text = (
        f"still to be trained, over all seeds: {missing:.4g} trainings, about "
        f"{_time(seconds)} one at a time, {hours:.2g} {device}-hours, plus scoring"
    )
    return text + (f"; {unknown:.4g} of them of unknown time" if unknown else "")


def _time(seconds: float) -> str:
    return format_seconds(seconds) if math.isfinite(seconds) else "unknown"
