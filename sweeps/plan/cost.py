"""What the missing trials of a plan will cost, estimated from the store's measurements only.

A trial is estimated from finished ones of the same configuration (with other seeds). If there are
none, from finished ones with the same data, backbone, crop and batch, preferably with as many
views: training is scaled by epochs and by the number of views (the original and the adjusted ones),
scoring by the pixels of its scales and flips. If there are none of those either, it has no
estimate.

Only trials on the kind of machine that finished the last one count. The costs of restarts, queues
and busier machines are not included.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeps.plan.chains.chain import inference_key
from sweeps.plan.states import Metrics, TrialState, read_metrics
from sweeps.plan.trials import Plan, Trial
from sweeps.store.errors import StoreError
from sweeps.store.rooms import DONE
from sweeps.store.store import Store, read_config
from wsss.config import RunConfig
from wsss.identity import cam_id, config_id


@dataclass(frozen=True)
class Measured:
    """The cost of one finished trial, in seconds and bytes."""

    config: RunConfig
    epoch: float
    """Seconds per epoch."""
    scoring: float
    """Seconds after training: inference and score."""
    rescoring: float
    """Seconds of the score alone, for a trial that uses another run's counts."""
    cam_bytes: int | None
    """Of its training's folder; None if that no longer exists."""
    run_bytes: int


@dataclass(frozen=True)
class TrialCost:
    """The remaining cost of one trial."""

    seconds: float | None
    """None: nothing like it was measured."""
    disk: float
    """Bytes still to be written."""
    basis: str
    """Source of the estimate: the "same" configuration, "scaled" ones; "" without an estimate."""


@dataclass(frozen=True)
class CostEstimate:
    """The remaining cost of a plan, without failed trials, which run only on request."""

    trials: Mapping[str, TrialCost]
    """Run id -> cost, of each missing or started trial."""
    num_measured: int
    """Finished trials in the store that the estimates can use."""
    device: str
    """Where those ran: cpu or cuda; "" if there are none."""
    processes: int
    """Number of processes of each of them."""

    @property
    def num_unknown(self) -> int:
        """Trials without an estimate."""
        return sum(cost.seconds is None for cost in self.trials.values())

    @property
    def seconds(self) -> float:
        """Time of all estimated trials, one at a time."""
        return sum(cost.seconds or 0.0 for cost in self.trials.values())

    def seconds_at(self, concurrent: int) -> float:
        """Return the least time with this many at once, if they do not slow each other down."""
        longest = max((cost.seconds or 0.0 for cost in self.trials.values()), default=0.0)
        return max(longest, self.seconds / concurrent)

    @property
    def device_hours(self) -> float:
        """GPU-hours or CPU-hours, at one device per process."""
        return self.seconds * self.processes / 3600

    @property
    def gibibytes(self) -> float:
        """Disk space that the estimated trials still need, in GiB."""
        return sum(cost.disk for cost in self.trials.values()) / 2**30

    def count(self, basis: str) -> int:
        """Return how many estimates have this basis."""
        return sum(cost.basis == basis for cost in self.trials.values())


def estimate_cost(
    plan: Plan, store: Store, states: Mapping[str, TrialState], metrics: Metrics | None = None
) -> CostEstimate:
    """Estimate the remaining cost of each trial that is neither finished nor failed.

    A training or inference shared by several trials counts for the first of them.
    metrics: as `read_metrics` returned them, if it was called.
    """
    measured, device, processes = read_measured(store, metrics)
    pool = _Pool(measured)
    shared = _Shared(plan, states)
    costs = {}
    for trials in plan.configs:
        means = pool.means(trials[0]) if measured else None
        for trial in trials:
            if states[trial.run_id].status in ("started", "running", "missing"):
                costs[trial.run_id] = _cost(trial, means, states[trial.run_id], shared, store)
    return CostEstimate(costs, len(measured), device, processes)


@dataclass(frozen=True)
class _Means:
    """Means over the measured trials that a configuration is estimated from."""

    scaled: bool
    """Whether times are per view and per inferred pixel, to be scaled to a configuration."""
    epoch: float
    """Seconds per epoch."""
    scoring: float
    rescoring: float
    cam_bytes: float
    run_bytes: float

    @classmethod
    def of(cls, measured: Sequence[Measured], *, scaled: bool) -> "_Means":
        """Average measured trials."""
        views = [num_views(m.config) if scaled else 1 for m in measured]
        pixels = [inferred_pixels(m.config) if scaled else 1.0 for m in measured]
        cam_bytes = [m.cam_bytes for m in measured if m.cam_bytes is not None]
        return cls(
            scaled=scaled,
            epoch=fmean(m.epoch / v for m, v in zip(measured, views, strict=True)),
            scoring=fmean(m.scoring / p for m, p in zip(measured, pixels, strict=True)),
            rescoring=fmean(m.rescoring for m in measured),
            cam_bytes=fmean(cam_bytes) if cam_bytes else 0.0,
            run_bytes=fmean(m.run_bytes for m in measured),
        )


class _Pool:
    """The measured trials, by the configurations that they serve to estimate."""

    def __init__(self, measured: Sequence[Measured]) -> None:
        same: dict[str, list[Measured]] = {}
        alike: dict[tuple[object, ...], list[Measured]] = {}
        for one in measured:
            key = config_id(one.config.model_copy(update={"repeat": 0}))
            same.setdefault(key, []).append(one)
            for alike_key in _alike_keys(one.config):
                alike.setdefault(alike_key, []).append(one)
        self.same = {key: _Means.of(found, scaled=False) for key, found in same.items()}
        self.alike = {key: _Means.of(found, scaled=True) for key, found in alike.items()}

    def means(self, trial: Trial) -> _Means | None:
        """Return the means for a trial's configuration, or None."""
        config, key = trial.config, trial.run_id
        if config.rng_seed or config.repeat:
            key = config_id(config.model_copy(update={"repeat": 0}))
        if key in self.same:
            return self.same[key]
        found = (self.alike.get(alike_key) for alike_key in _alike_keys(config))
        return next((means for means in found if means), None)


class _Shared:
    """The trainings and inferences that exist, or will after the trials added so far."""

    def __init__(self, plan: Plan, states: Mapping[str, TrialState]) -> None:
        self.trained: set[str] = set()
        self.inferred: set[tuple[str, str]] = set()
        for trial in plan.trials:
            if states[trial.run_id].status == "finished":
                self.add(trial)

    def add(self, trial: Trial) -> tuple[bool, bool]:
        """Return whether a trial's training and inference existed; from now on they do."""
        inference = (trial.cam_id, inference_key(trial.config))
        known = trial.cam_id in self.trained, inference in self.inferred
        self.trained.add(trial.cam_id)
        self.inferred.add(inference)
        return known


def _cost(
    trial: Trial, means: _Means | None, state: TrialState, shared: _Shared, store: Store
) -> TrialCost:
    config = trial.config
    is_trained, is_inferred = shared.add(trial)
    if means is None:
        return TrialCost(None, 0.0, "")
    views, pixels = (num_views(config), inferred_pixels(config)) if means.scaled else (1, 1.0)
    scoring = means.rescoring if is_inferred else means.scoring * pixels
    epochs = 0 if is_trained else max(0, config.train.epochs - state.epoch)
    disk = means.run_bytes
    if not is_trained:
        there = folder_bytes(store.cam(trial.cam_id).path) or 0 if state.epoch else 0
        disk += max(0.0, means.cam_bytes - there)
    basis = "scaled" if means.scaled else "same"
    return TrialCost(epochs * means.epoch * views + scoring, disk, basis)


def _alike_keys(config: RunConfig) -> tuple[tuple[object, ...], ...]:
    """Return keys that configurations with comparable times share, the closest one first.

    Time per view falls with the number of views, since an image is loaded once for all of them. So
    trials with equally many views are preferred.
    """
    data, train = config.data, config.train
    key = (
        data.name,
        data.fingerprint,
        data.train_split,
        data.eval_split,
        config.network.backbone,
        train.crop_size,
        train.batch_size,
    )
    return (*key, num_views(config)), key


def num_views(config: RunConfig) -> int:
    """Return how often each image is forwarded in training: in the original and adjusted views."""
    return 1 + len(config.views.names)


def inferred_pixels(config: RunConfig) -> float:
    """Return the pixels inferred per pixel of the image, over all scales and flips."""
    return sum(scale**2 for scale in config.labels.scales) * (2 if config.labels.flip else 1)


def read_measured(store: Store, metrics: Metrics | None = None) -> tuple[list[Measured], str, int]:
    """Return the finished trials on one kind of machine, that of the last one.

    Also returns its device and number of processes; ([], "", 0) if none is finished. Runs whose
    settings cannot be read, or that lack a time, are left out, such as those of older versions.
    """
    metrics = read_metrics(store) if metrics is None else metrics
    machines = {name: _machine(found) for name, found in metrics.items()}
    if not machines:
        return [], "", 0
    finished = {name: store.run(name).path / DONE for name in machines}
    last = max(machines, key=lambda name: finished[name].stat().st_mtime_ns)
    device, processes = machines[last]
    measured = [
        one
        for name, found in metrics.items()
        if machines[name] == (device, processes) and (one := _measured(store, name, found))
    ]
    return measured, device, processes


def _machine(metrics: dict[str, Any]) -> tuple[str, int]:
    environment = metrics.get("environment", {})
    return environment.get("device", "cpu"), environment.get("processes", 1)


def _measured(store: Store, run_id: str, metrics: dict[str, Any]) -> Measured | None:
    try:
        config = read_config(store.run(run_id).path / "config.json")
        return Measured(
            config=config,
            epoch=metrics["train_seconds"] / config.train.epochs,
            scoring=metrics["inference_seconds"] + metrics["score_seconds"],
            rescoring=metrics["score_seconds"],
            cam_bytes=folder_bytes(store.cam(cam_id(config)).path),
            run_bytes=folder_bytes(store.run(run_id).path) or 0,
        )
    except StoreError:
        return None


def folder_bytes(path: Path) -> int | None:
    """Return the size of all files under a folder, or None if there is no such folder."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path)) or 0
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return None
    return total
