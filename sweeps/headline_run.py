"""Runs the chains of a headline one after the other, with progress, and logs them to MLflow."""

import time

from rich.console import Console
from rich.text import Text

from sweeps.chain_stages import run_chain
from sweeps.chain_work import ChainTask
from sweeps.cost_lines import format_seconds
from sweeps.headline import Headline
from sweeps.headline_tracking import HeadlineTracker
from sweeps.store import Store
from wsss.training.process import Process, pick_device

EVERY_SECONDS = 20.0


def run_headline(headline: Headline, store: Store, console: Console, *, workers: int) -> None:
    """Run what is missing of every chain; print a line per stage and every 20 seconds."""
    process = Process(device=pick_device())
    tracker = HeadlineTracker(store, headline)
    for chain in headline.chains:
        task = ChainTask(
            chain, store.root, headline.sweep.data, headline.sweep.weights_file, workers
        )
        _report_stages(task, process, console)
        if not tracker.log(chain):
            console.print(Text(f"MLflow at {tracker.uri} lacks {chain.name}: {tracker.problem}"))


def _report_stages(task: ChainTask, process: Process, console: Console) -> None:
    current, started, told = "", time.monotonic(), 0.0
    for stage, done, total in run_chain(task, process):
        now = time.monotonic()
        if stage != current:
            current, started, told = stage, now, 0.0
        if now - told > EVERY_SECONDS or done == total:
            told = now
            spent = format_seconds(now - started)
            console.print(Text(f"{task.chain.name}: {stage} {100 * done / total:.0f} % ({spent})"))
