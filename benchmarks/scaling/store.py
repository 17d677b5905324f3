"""How long it takes to list, show and plan on a store of many runs."""

import io
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from rich.console import Console

from benchmarks.ratios import high_water_mib
from benchmarks.scaling.made_up import made_up_sweep, write_small_run
from sweeps.plan.states import folder_names, read_metrics, read_states
from sweeps.plan.sweep import load_sweep, save_sweep
from sweeps.report.live.plan_view import print_plan
from sweeps.report.live.render import render_tables
from sweeps.report.live.status import Status
from sweeps.run.subjects.tables import DrivenSweep
from sweeps.store.store import Store

T = TypeVar("T")


def time_store(store: Store, num_trials: int) -> dict[str, float]:
    """Fill a store with finished runs, and time what the commands do with them.

    Returns seconds by the clock, and of CPU time (..._cpu).
    """
    figures: dict[str, float] = {"trials": num_trials, "rss_before_mib": high_water_mib("VmRSS")}

    def timed(name: str, function: Callable[[], T]) -> T:
        begun, cpu = time.perf_counter(), time.process_time()
        result = function()
        figures[name] = time.perf_counter() - begun
        figures[f"{name}_cpu"] = time.process_time() - cpu
        return result

    sweep = made_up_sweep(num_trials)
    plan = timed("make_plan", lambda: sweep.plan)
    save_sweep(store, sweep)
    timed("write", lambda: deque(map(partial(write_small_run, store), plan.trials), maxlen=0))
    timed("list_names", lambda: folder_names(store.root / "runs"))
    metrics = timed("read_metrics", lambda: read_metrics(store))
    timed("read_states", lambda: read_states(store, plan.trials, metrics))
    timed("missing_trials", DrivenSweep(sweep, store).missing)
    loaded = timed("load_sweep", lambda: load_sweep(store))
    status = timed("status", lambda: Status(store, loaded))
    timed("status_again", status.read)
    timed("status_print", lambda: status.print(_console(), by_trial=False))
    timed("table", lambda: render_tables(sweep, store))
    timed("plan_print", lambda: print_plan(_console(), status, concurrent=8, show_all=False))
    return figures | {"rss_after_mib": high_water_mib("VmRSS")}


def _console() -> Console:
    return Console(file=io.StringIO(), width=110)
