"""Runs the chains of a headline one after the other, with progress, and logs them to MLflow."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from sweeps.plan.headline import Headline
from sweeps.report.live.cost_lines import format_seconds
from sweeps.run.resources import Resources, concurrency, running_ray
from sweeps.stages.chain_stages import Here, Place, run_chain
from sweeps.stages.chain_work import ChainTask
from sweeps.store.store import Store
from sweeps.track.headline import HeadlineRuns
from sweeps.track.tracker import Tracker
from wsss.training.process import Process, pick_device

EVERY_SECONDS = 20.0


def run_headline(
    headline: Headline,
    store: Store,
    console: Console,
    *,
    label_workers: int,
    resources: Resources,
) -> None:
    """Run what is missing of every chain; print a line per stage and every 20 seconds.

    Ray does the work if a cluster, workers or GPUs are asked for, else this process, with
    `label_workers` more to refine labels. Raises CapacityError if no training can ever run.
    """
    tracker = Tracker(store, HeadlineRuns(store, headline))
    with _place(resources, label_workers) as place:
        for chain in headline.chains:
            task = ChainTask(
                chain, store.root, headline.sweep.data, headline.sweep.weights_file,
                resources.execution, remote=store.remote.url if store.remote else None,
            )  # fmt: skip
            _report_stages(task, place, console)
            if not tracker.sync([chain.prediction_id]):
                console.print(
                    Text(f"MLflow at {tracker.uri} lacks {chain.name}: {tracker.problem}")
                )
    store.pull_results()  # the CAMs' own scores, from the nodes that made them


@contextmanager
def _place(resources: Resources, label_workers: int) -> Iterator[Place]:
    if resources.address is None and resources.inline and not resources.gpus:
        yield Here(Process(device=pick_device()), num_workers=label_workers)
        return
    from sweeps.run.chain_cluster import Cluster

    with running_ray(resources):
        concurrency(resources)  # refuses what would wait for ever
        yield Cluster(resources)


def _report_stages(task: ChainTask, place: Place, console: Console) -> None:
    current, started, told = "", time.monotonic(), 0.0
    for stage, done, total in run_chain(task, place):
        now = time.monotonic()
        if stage != current:
            current, started, told = stage, now, now
        if now - told > EVERY_SECONDS or done == total:
            told = now
            spent = format_seconds(now - started)
            console.print(Text(f"{task.chain.name}: {stage} {100 * done / total:.0f} % ({spent})"))
