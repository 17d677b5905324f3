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
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeps.plan.chains.chain import inference_key
from sweeps.plan.states import Metrics, TrialState
from sweeps.plan.trials import Plan, Trial
from sweeps.store.errors import StoreError
from sweeps.store.rooms import DONE
from sweeps.store.store import Store, read_config
from wsss.config import RunConfig
from wsss.identity import cam_id, config_id

BASES = ("same", "scaled", "scaled")
"""How an estimate was made, by the index of the key of `_keys` that it and its trials share."""


@dataclass(frozen=True)
class Measured:
    """The cost of one finished trial, in seconds and bytes."""

    config: RunConfig
    epoch: float
    """Seconds per epoch and view."""
    scoring: float
    """Seconds after training, inference and score, per inferred pixel."""
    rescoring: float
    """Seconds of the score alone, for a trial that uses another run's counts."""
    cam_bytes: float
    """Of its training's folder; 0 if that no longer exists."""
    run_bytes: float


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
    plan: Plan,
    store: Store,
    states: Mapping[str, TrialState],
    metrics: Metrics,
    known: dict[str, Measured | None],
) -> CostEstimate:
    """Estimate the remaining cost of each trial that is neither finished nor failed.

    A training or inference shared by several trials counts for the first of them.
    known: as for `read_measured`.
    """
    over = {run_id for run_id, s in states.items() if s.status in ("finished", "failed")}
    if len(over) == len(states):
        return CostEstimate({}, 0, "", 0)
    measured, device, processes = read_measured(store, metrics, known)
    alike: dict[object, list[Measured]] = defaultdict(list)
    for one in measured:
        for key in _keys(one.config):
            alike[key].append(one)
    finished = [t for t in plan.trials if states[t.run_id].status == "finished"]
    there: set[object] = {product for trial in finished for product in _products(trial)}
    costs = {}
    for trials in plan.configs:
        keys = _keys(trials[0].config) if measured else ()
        bases = [(BASES[i], alike[key]) for i, key in enumerate(keys) if key in alike]
        for trial in trials:
            if trial.run_id in over:
                continue
            costs[trial.run_id] = TrialCost(None, 0.0, "")
            if bases:
                state = states[trial.run_id]
                costs[trial.run_id] = _cost(trial, *bases[0], state, there, store)
            there.update(_products(trial))
    return CostEstimate(costs, len(measured), device, processes)


def _products(trial: Trial) -> tuple[object, object]:
    """Return what names a trial's training and its inference."""
    return trial.cam_id, (trial.cam_id, inference_key(trial.config))


def _cost(
    trial: Trial,
    basis: str,
    alike: Sequence[Measured],
    state: TrialState,
    there: set[object],
    store: Store,
) -> TrialCost:
    """Estimate a trial from the means of trials like it. there: products that need no work."""
    config, (training, inference) = trial.config, _products(trial)
    seconds, disk = fmean(one.rescoring for one in alike), fmean(one.run_bytes for one in alike)
    if inference not in there:
        seconds = fmean(one.scoring for one in alike) * inferred_pixels(config)
    if training not in there:
        epochs = max(0, config.train.epochs - state.epoch)
        seconds += epochs * fmean(one.epoch for one in alike) * num_views(config)
        sizes = [one.cam_bytes for one in alike if one.cam_bytes] or [0.0]
        begun = folder_bytes(store.cam(trial.cam_id).path) if state.epoch else 0
        disk += max(0.0, fmean(sizes) - begun)
    return TrialCost(seconds, disk, basis)


def _keys(config: RunConfig) -> tuple[object, ...]:
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
    same = config_id(config.model_copy(update={"repeat": 0}))
    return same, (*key, num_views(config)), key


def num_views(config: RunConfig) -> int:
    """Return how often each image is forwarded in training: in the original and adjusted views."""
    return 1 + len(config.views.names)


def inferred_pixels(config: RunConfig) -> float:
    """Return the pixels inferred per pixel of the image, over all scales and flips."""
    return sum(scale**2 for scale in config.labels.scales) * (2 if config.labels.flip else 1)


def read_measured(
    store: Store, metrics: Metrics, known: dict[str, Measured | None]
) -> tuple[list[Measured], str, int]:
    """Return the finished trials on one kind of machine, that of the last one.

    Also returns its device and number of processes; ([], "", 0) if none is finished. Runs whose
    settings cannot be read, or that lack a time, are left out, such as those of older versions.
    metrics: of all finished runs. known: what was read before, by run id; those are not read again,
    and new ones are added.
    """
    machines = {name: _machine(found) for name, found in metrics.items()}
    if not machines:
        return [], "", 0
    finished = {name: store.run(name).path / DONE for name in machines}
    last = machines[max(machines, key=lambda name: finished[name].stat().st_mtime_ns)]
    alike = [name for name in metrics if machines[name] == last]
    known |= {name: _measured(store, name, metrics[name]) for name in alike if name not in known}
    return [one for name in alike if (one := known[name])], *last


def _machine(metrics: dict[str, Any]) -> tuple[str, int]:
    environment = metrics.get("environment", {})
    return environment.get("device", "cpu"), environment.get("processes", 1)


def _measured(store: Store, run_id: str, metrics: dict[str, Any]) -> Measured | None:
    try:
        config = read_config(store.run(run_id).path / "config.json")
        rescoring = metrics["score_seconds"]
        return Measured(
            config=config,
            epoch=metrics["train_seconds"] / config.train.epochs / num_views(config),
            scoring=(metrics["inference_seconds"] + rescoring) / inferred_pixels(config),
            rescoring=rescoring,
            cam_bytes=folder_bytes(store.cam(cam_id(config)).path),
            run_bytes=folder_bytes(store.run(run_id).path),
        )
    except (StoreError, OSError):
        return None


def folder_bytes(path: Path) -> int:
    """Return the size of all files under a folder; 0 if there is no such folder."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # or a file in it has gone meanwhile
        pass
    return total
