"""`sweeps status`: how far a sweep is, read from the store, whoever runs it and wherever."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from sweeps.plan.cost import estimate_cost
from sweeps.plan.states import Metrics, count_statuses, read_metrics, read_states
from sweeps.plan.sweep import Sweep
from sweeps.report.live.cost_lines import time_left
from sweeps.report.live.matrix import matrices
from sweeps.store.store import Store


class Status:
    """A sweep's state as the store tells it. What is finished is read once."""

    def __init__(self, store: Store, sweep: Sweep) -> None:
        self.store, self.sweep, self.plan = store, sweep, sweep.plan
        self.metrics: Metrics = {}
        self.read()

    def read(self) -> None:
        """Look again."""
        self.store.pull_results()
        self.metrics = read_metrics(self.store, self.metrics)
        self.states = read_states(self.store, self.plan.trials, self.metrics)
        self.cost = estimate_cost(self.plan, self.store, self.states, self.metrics)

    @property
    def is_over(self) -> bool:
        """Whether every trial is finished or failed."""
        return all(state.status in ("finished", "failed") for state in self.states.values())

    def header(self) -> Text:
        """Return the sweep's name and description."""
        return Text(f"sweep {self.sweep.name}\n{self.sweep.describe()}")

    def totals(self) -> Text:
        """Return warnings and failures, each with its message, then counts and the time left."""
        failed = [trial for trial in self.plan.trials if self.states[trial.run_id].failure]
        text = Text()
        for trial in self.plan.trials:
            state = self.states[trial.run_id]
            for warning in filter(None, (state.warning, state.dead)):
                text.append(f"warning: {trial.name}: {warning}\n", style="yellow")
        for trial in failed:
            text.append(f"failed: {trial.name}: {self.states[trial.run_id].failure}\n", style="red")
        if failed:
            text.append("run them again with: sweeps run ... --retry-failed\n")
        counts = count_statuses(self.states.values())
        text.append(f"{counts} of {len(self.states)} trials; {time_left(self.cost)}")
        return text

    def view(self) -> Group:
        """Return the tables as matrices of states, and the totals."""
        return Group(self.header(), *matrices(self.plan, self.states), self.totals())

    def trial_lines(self) -> Group:
        """Return one line per trial, and the totals."""
        lines = []
        for trial in self.plan.trials:
            state = self.states[trial.run_id]
            done = f"{state.epoch}/{trial.config.train.epochs} epochs"
            lines.append(Text(f"  {trial.run_id}  {state.status:9} {done:14} {trial.name}"))
        return Group(self.header(), *lines, self.totals())


def show_status(
    console: Console, store: Store, sweep: Sweep, *, by_trial: bool, every: float | None
) -> None:
    """Print how far a sweep is; with `every` seconds, again and again in place until it is over."""
    status = Status(store, sweep)
    if every is not None:
        try:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while not status.is_over:
                    live.update(status.trial_lines() if by_trial else status.view(), refresh=True)
                    time.sleep(every)
                    status.read()
        except KeyboardInterrupt:
            pass  # a person has seen enough; the last view is printed below
    console.print(status.trial_lines() if by_trial else status.view())
