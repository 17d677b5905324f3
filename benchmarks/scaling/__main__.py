"""How a sweep's driver scales with the number of trials: logical GPUs, trials that train nothing.

Usage: python -m benchmarks.scaling {sweep,replay,groups,store} [--help]. Each prints a line of
JSON. docs/scaling.md has the figures and what they mean. Linux.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from rich.console import Console

from benchmarks.scaling.made_up import NUM_EPOCHS, made_up_sweep, trial_writer, write_template
from benchmarks.scaling.meters import EventMeter, MeteredTracker, ProcessMeter, database_rows
from benchmarks.scaling.replay import replay
from benchmarks.scaling.store import time_store
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.live.progress import Board
from sweeps.run.dispatch import Dispatch, Listener
from sweeps.run.driver import run_missing
from sweeps.run.ray.resources import Resources
from sweeps.run.ray.tune import Records
from sweeps.run.subjects.tables import DrivenSweep, MissingTrials
from sweeps.store.store import Store
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.thread import TrackingThread
from sweeps.track.tracker import Tracker

CPUS = 0.01
"""Per trial: GPUs must be the scarce resource, and Ray starts as many workers at once as CPUs."""

Figures = dict[str, float]


def short_trial(sweep: Sweep, store: Store, seconds: float) -> Callable[..., Records]:
    """Return a trial that takes `seconds`, reports NUM_EPOCHS times and leaves a finished run.

    A closure over plain values: its process imports neither torch nor this file.
    """
    write = trial_writer(store.root, write_template(store.root / "template"))
    runs = {trial.cam_id: trial.run_id for trial in sweep.plan.trials}
    last = NUM_EPOCHS

    def trial(space: dict[str, Any], **others: Any) -> Records:
        own = 0.0
        for epoch in range(1, last + 1):
            begun = time.perf_counter()
            time.sleep(seconds / last)
            write(runs[space["cam_id"]], space["cam_id"], epoch)
            own += time.perf_counter() - begun
            record = {
                "epoch": float(epoch),
                "progress": epoch / last,
                "own_seconds": own,
                "run": runs[space["cam_id"]],
            }
            yield record | {f"loss_{name}": 1.0 / epoch for name in ("cls", "s", "bs")}

    return trial


@dataclass
class Watched:
    """The listeners of `sweeps run`, and a meter."""

    meter: EventMeter
    listeners: list[Listener]
    tracker: MeteredTracker
    drain_seconds: float = 0.0


@contextmanager
def watched(sweep: Sweep, store: Store) -> Iterator[Watched]:
    """Watch a sweep with board and tracking thread; measure how long the thread takes to end."""
    meter, board = EventMeter(), Board(sweep, Console(file=io.StringIO()))
    tracker = MeteredTracker(store, SweepRuns(store, sweep))
    thread = TrackingThread(tracker, print)
    found = Watched(meter, [board, thread, meter], tracker)
    with thread:
        yield found
        begun = time.perf_counter()
    found.drain_seconds = time.perf_counter() - begun


def tracking_figures(found: Watched, sweep: Sweep, store: Store) -> Figures:
    """Do the final synchronisation of `sweeps run`, timed; return all of tracking's figures."""
    figures = found.tracker.figures(found.meter.done) | {"drain_seconds": found.drain_seconds}
    final = Tracker(store, SweepRuns(store, sweep))
    begun = time.perf_counter()
    assert final.finish(), final.problem
    figures["finish_seconds"] = time.perf_counter() - begun
    return figures | database_rows(store.root / "mlflow.db")


def sweep_figures(num_trials: int, gpus: int, nodes: int, seconds: float) -> Figures:
    """Run a sweep by `run_missing` on fake nodes with `gpus` logical GPUs in all."""
    with tempfile.TemporaryDirectory(prefix="scaling") as folder, fake_nodes(gpus, nodes) as where:
        sweep, store = made_up_sweep(num_trials), Store(Path(folder))
        save_sweep(store, sweep)
        resources = Resources(where, workers=0, cpus=CPUS, gpus=1.0)
        with (
            patch("sweeps.run.ray.tune.sweep_trial", short_trial(sweep, store, seconds)),
            watched(sweep, store) as found,
            ProcessMeter() as process,
        ):
            run_missing(DrivenSweep(sweep, store), resources, found.listeners, print)
        figures: Figures = {"trials": num_trials, "gpus": gpus, "nodes": nodes}
        figures |= found.meter.figures(gpus) | process.figures()
        ended = process.begun + process.seconds - max(found.meter.done.values())
        return figures | {"end_seconds": ended} | tracking_figures(found, sweep, store)


def replay_figures(num_trials: int, concurrent: int) -> Figures:
    """Replay a sweep's events without Ray and without pauses, to measure the rest of a driver."""
    with tempfile.TemporaryDirectory(prefix="scaling") as folder:
        sweep, store = made_up_sweep(num_trials), Store(Path(folder))
        save_sweep(store, sweep)
        trials: list[Trial] = list(sweep.plan.trials)
        write = trial_writer(store.root, write_template(store.root / "template"))
        with watched(sweep, store) as found, ProcessMeter() as process:
            source = MissingTrials(store, trials)
            dispatch = Dispatch[Any](source, found.listeners, lambda: None, print)
            hooks = replay(dispatch, trials, concurrent, write)
        figures: Figures = {"trials": num_trials, "concurrent": concurrent, "hook_seconds": hooks}
        figures |= {"hook_events_per_second": found.meter.num_events / hooks}
        figures |= found.meter.figures(concurrent) | process.figures()
        return figures | tracking_figures(found, sweep, store)


def group_figures(num_groups: int, gpus: int, nodes: int) -> Figures:
    """Time placement groups of one GPU, with which Tune reserves a trial, `gpus` at a time.

    Nothing runs in them, so this is Ray's scheduling alone.
    """
    with fake_nodes(gpus, nodes) as address:
        ray.init(address, logging_level="ERROR", log_to_driver=False)
        begun, held = time.perf_counter(), list[PlacementGroup]()
        full = begun
        for number in range(num_groups):
            if number >= gpus:
                remove_placement_group(held.pop(0))
            held.append(placement_group([{"CPU": CPUS, "GPU": 1.0}]))
            if number >= gpus:
                assert held[-1].wait(60)  # `ready` would start a process in it
            elif number == gpus - 1:
                assert all(group.wait(60) for group in held)
                full = time.perf_counter()
        ended = time.perf_counter()
        ray.shutdown()
    cycles = num_groups - gpus
    return {
        "groups": num_groups,
        "gpus": gpus,
        "nodes": nodes,
        "ms_per_group_filling": 1000 * (full - begun) / gpus,
        "ms_per_group_cycling": 1000 * (ended - full) / cycles,
    }


@contextmanager
def fake_nodes(gpus: int, nodes: int) -> Iterator[str]:
    """Start a Ray cluster on this machine with `gpus` logical GPUs, evenly divided over nodes."""
    assert gpus % nodes == 0, f"{gpus} GPUs do not spread evenly over {nodes} nodes"
    args = {
        "num_cpus": 4 if nodes == 1 else 1,
        "num_gpus": gpus // nodes,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
    }
    cluster = Cluster(initialize_head=True, head_node_args=args)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(**args)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sweep", "replay", "groups", "store"))
    parser.add_argument("--trials", type=int, default=1000, help="a multiple of 100")
    parser.add_argument("--gpus", type=int, default=8, help="logical GPUs, so trials at a time")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.0, help="that a trial sleeps")
    given = parser.parse_args()
    # With Ray's 15, other programs on the machine would be measured.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling
    os.environ["MLFLOW_TRACKING_URI"] = ""  # always a SQLite file in the made-up store
    trials = given.trials
    load = os.getloadavg()[0]
    if given.what == "sweep":
        figures = sweep_figures(trials, given.gpus, given.nodes, given.seconds)
    elif given.what == "replay":
        figures = replay_figures(trials, given.gpus)
    elif given.what == "groups":
        figures = group_figures(trials, given.gpus, given.nodes)
    else:
        with tempfile.TemporaryDirectory(prefix="scaling") as folder:
            figures = time_store(Store(Path(folder)), trials)
    loads = {"load_before": load, "load_after": os.getloadavg()[0]}
    print(json.dumps({"what": given.what} | {k: round(v, 3) for k, v in (figures | loads).items()}))


if __name__ == "__main__":
    main()
