"""Meters for a sweep's driver: events, lag of the tracking behind them, processor time, memory."""

import sqlite3
import statistics
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from benchmarks.ratios import high_water_mib
from sweeps.plan.trials import Trial
from sweeps.track.tracker import Tracker


class EventMeter:
    """A listener that counts events, and records when trials started and ended."""

    def __init__(self) -> None:
        self.num_events = 0
        self.started: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.own_seconds: dict[str, float] = {}
        """Run id -> seconds of the trial itself, without its reports to Tune."""

    def update(self, trial: Trial, *, status: str, record: dict[str, float] | None = None) -> None:
        self.num_events += 1
        now = time.perf_counter()
        self.started.setdefault(trial.run_id, now)
        if record and "own_seconds" in record:
            self.own_seconds[trial.run_id] = record["own_seconds"]
        if status == "done":
            self.done[trial.run_id] = now

    def figures(self, concurrent: int) -> dict[str, float]:
        """Return the time per trial from the first start to the last end, and events.

        `steady_...` is counted once `concurrent` trials have started: before, Ray starts processes.
        """
        first, last = min(self.started.values()), max(self.done.values())
        own = statistics.fmean(self.own_seconds.values()) if self.own_seconds else 0.0
        full = sorted(self.started.values())[concurrent - 1]
        later = sum(end > full for end in self.done.values())
        return {
            "trials_done": len(self.done),
            "span_seconds": last - first,
            "fill_seconds": full - first,
            "own_seconds_per_trial": own,
            "steady_ms_per_trial": 1000 * (last - full) / max(1, later),
            "overhead_ms_per_trial": 1000 * ((last - first) / len(self.done) - own / concurrent),
            "events": self.num_events,
            "events_per_second": self.num_events / (last - first),
        }


class MeteredTracker(Tracker):
    """A tracker that records when each trial was synchronised, and how long that took."""

    seconds = thread_seconds = 0.0
    num_syncs = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.synced: dict[str, tuple[float, float]] = {}
        """Run id -> begin and end of its last synchronisation."""

    def sync(self, children: Collection[str], running: Collection[str]) -> bool:
        begun, thread = time.perf_counter(), time.thread_time()
        done = super().sync(children, running)
        ended = time.perf_counter()
        self.num_syncs += len(children)
        self.seconds += ended - begun
        self.thread_seconds += time.thread_time() - thread
        self.synced |= dict.fromkeys(children, (begun, ended))
        return done

    def figures(self, done: dict[str, float]) -> dict[str, float]:
        """Return how long after the trials' ends (`done`) they were logged."""
        pairs = [(self.synced[name], end) for name, end in done.items() if name in self.synced]
        lags = [ended - end for (begun, ended), end in pairs if begun >= end]
        return {
            "syncs": self.num_syncs,
            "ms_per_sync": 1000 * self.seconds / max(1, self.num_syncs),
            "tracking_cpu_ms_per_trial": 1000 * self.thread_seconds / max(1, len(done)),
            "logged_in_time": len(lags),
            "lag_median": statistics.median(lags) if lags else 0.0,
            "lag_most": max(lags, default=0.0),
        }


class ProcessMeter:
    """A context that measures this process: time, CPU time of all its threads, memory."""

    def __enter__(self) -> "ProcessMeter":
        self.before = high_water_mib("VmRSS")
        self.begun, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cpu = time.process_time() - self.cpu
        self.seconds = time.perf_counter() - self.begun
        self.peak = high_water_mib()

    def figures(self) -> dict[str, float]:
        return {
            "seconds": self.seconds,
            "driver_cpu_seconds": self.cpu,
            "driver_rss_before_mib": self.before,
            "driver_rss_peak_mib": self.peak,
        }


def database_rows(path: Path) -> dict[str, int]:
    """Return the rows by table of an MLflow SQLite file, and its runs with parameters."""
    counted = {name: f"COUNT(*) FROM {name}" for name in ("runs", "metrics", "params", "tags")}
    counted["runs_with_params"] = "COUNT(DISTINCT run_uuid) FROM params"
    with sqlite3.connect(path) as database:
        return {
            name: database.execute(f"SELECT {what}").fetchone()[0] for name, what in counted.items()
        }
