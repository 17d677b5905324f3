"""What a person sees while a sweep runs: the tables filling in, or plain lines.

Lines are printed into files and on terminals without cursor control.
"""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar

from sweeps.plan.states import TrialState, count_statuses
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.formats.terminal import as_rich, renderables
from sweeps.report.live.cost_lines import UNKNOWN_TIME, format_seconds
from sweeps.report.live.status import matrices
from wsss.basics.printable import counted

PLAIN_EVERY_SECONDS = 30.0
"""Running totals are printed as a line no more often than this."""


class Board:
    """Listens to a sweep and shows it. Use as a context manager.

    known: states of trials that are not missing, by run id.
    """

    def __init__(
        self, sweep: Sweep, console: Console, known: Mapping[str, TrialState] | None = None
    ) -> None:
        self.sweep, self.plan, self.console = sweep, sweep.plan, console
        self.states = {trial.run_id: TrialState() for trial in self.plan.trials} | dict(known or {})
        self.started = time.monotonic()
        self.progress_at_start = 0.0
        self.last_line = 0.0
        self.live: Live | None = None

    def __enter__(self) -> "Board":
        self.started = time.monotonic()
        self.progress_at_start = self.total_progress()
        if self.console.is_interactive:  # false on a dumb terminal
            self.live = Live(
                get_renderable=self.view, console=self.console, refresh_per_second=2, transient=True
            )
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, trial: Trial, *, status: str, record: dict[str, Any] | None = None) -> None:
        """Record a trial's progress; without a live display, print important changes."""
        state, record = self.states[trial.run_id], record or {}
        status = "finished" if status == "done" else status
        changed, state.status = state.status != status, status
        state.progress = 1.0 if status == "finished" else record.get("progress", state.progress)
        state.epoch = int(record.get("epoch", state.epoch))
        state.miou_fixed = record.get("miou_fixed", state.miou_fixed)
        if status == "failed" or record.get("collapsed") == 0:
            state.warning = ""
        if status == "failed" or "collapsed" in record:  # an epoch, which may have dead maps
            state.dead = None
        state.warning = record.get("warning") or state.warning
        state.dead = record.get("dead_maps") or state.dead
        if self.live is None:
            self._print_line(trial, state, changed=changed)

    def total_progress(self) -> float:
        """Return the finished share of all trials in [0, 1]; failed ones count as finished."""
        done = [1.0 if s.status == "failed" else s.progress for s in self.states.values()]
        return sum(done) / len(done)

    def remaining(self) -> str:
        """Return the time left, estimated from the progress since the start."""
        if all(state.status in ("finished", "failed") for state in self.states.values()):
            return "nothing left to run"
        made = self.total_progress() - self.progress_at_start
        if made < 0.01:
            return UNKNOWN_TIME
        seconds = (time.monotonic() - self.started) * (1 - self.total_progress()) / made
        return "nearly done" if seconds < 1 else f"about {format_seconds(seconds)} left"

    def view(self) -> Group:
        """Return the totals, and the tables with every cell's state.

        A low terminal cuts off the end, the tables on which nothing is running.
        """
        bar = ProgressBar(total=1.0, completed=self.total_progress(), width=60)
        header, totals = as_rich(self.sweep.describe(), "dim"), as_rich(self._totals())
        whole_line = Padding(bar, 0)  # a bar alone does not end its line
        tables = renderables(matrices(self.plan, self.states))
        return Group(header, totals, whole_line, *tables)

    def _totals(self) -> str:
        spent = format_seconds(time.monotonic() - self.started)
        counts = count_statuses(self.states.values())
        return (
            f"{counts} of {counted(len(self.states), 'trial')}; {spent} elapsed, {self.remaining()}"
        )

    def _print_line(self, trial: Trial, state: TrialState, *, changed: bool) -> None:
        now = time.monotonic()
        if changed and state.status in ("finished", "failed"):
            figure = "" if state.miou_fixed is None else f" mIoU {state.miou_fixed:.2f} (fixed)"
            self._print(f"{state.status}: {trial.name}{figure}; {self._totals()}")
        elif now - self.last_line > PLAIN_EVERY_SECONDS:
            self._print(self._totals())
        else:
            return
        self.last_line = now

    def _print(self, text: str) -> None:
        self.console.print(as_rich(text), soft_wrap=True)  # never wrapped in a log
