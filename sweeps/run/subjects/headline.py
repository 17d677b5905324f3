"""Runs the chains of a headline one after the other, with progress, and logs them to MLflow."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from sweeps.plan.chain import ChainConfig
from sweeps.plan.headline import Headline, save_headline
from sweeps.report.live.cost_lines import format_seconds
from sweeps.run.resources import Resources, concurrency, running_ray
from sweeps.stages.export import export_of
from sweeps.stages.score import Score
from sweeps.stages.segmentation import Predict, TrainDeepLab
from sweeps.stages.stage import Conduct, Crew, Here, Place, Record, Stage, complete
from sweeps.store.store import Store
from sweeps.track.tracker import Tracker
from wsss.training.process import Process, pick_device

EVERY_SECONDS = 20.0


def run_headline(
    headline: Headline,
    store: Store,
    console: Console,
    tracker: Tracker,
    resources: Resources,
    conduct: Conduct,
    *,
    label_workers: int,
) -> None:
    """Run what is missing of every chain; print a line per stage and every 20 seconds.

    The headline is entered into the store once Ray has started: a refused start leaves none.
    Ray does the work if a cluster, workers or GPUs are asked for, else this process, with
    `label_workers` more to refine labels. Raises CapacityError if no training can ever run.
    """
    with _crew(resources, console, label_workers) as crew:
        save_headline(store, headline)
        place = Place(
            store,
            headline.sweep.data,
            headline.sweep.weights_file,
            resources.execution,
            conduct,
            crew,
            Process(device=pick_device()),
        )
        for chain in headline.chains:
            for target in targets(headline, chain):
                _report(chain.name, complete(target, place), console)
            bring_results(store, chain)
            if not tracker.sync([chain.prediction_id]):
                console.print(
                    Text(f"MLflow at {tracker.address} lacks {chain.name}: {tracker.problem}")
                )
    store.pull_results()  # the CAMs' own scores, from the nodes that made them


def targets(headline: Headline, chain: ChainConfig) -> list[Stage]:
    """Return the stages which a chain is to end with; what they need comes first."""
    found: list[Stage] = [Score(chain.run)] if chain.labels else []
    found.append(Predict(chain))
    if headline.export and chain in headline.exported:
        found.append(export_of(chain, headline.export))
    return found


def bring_results(store: Store, chain: ChainConfig) -> None:
    """Bring here what a report and MLflow show of a chain: predictions and network."""
    store.folder(f"predictions/{chain.prediction_id}").pull()
    store.folder(TrainDeepLab(chain).rel).pull_training()


@contextmanager
def _crew(resources: Resources, console: Console, label_workers: int) -> Iterator[Crew]:
    if resources.address is None and resources.inline and not resources.gpus:
        yield Here(label_workers)
        return
    console.print(Text(resources.first_words))
    with running_ray(resources):
        from sweeps.run.crew import Cluster

        concurrency(resources)  # refuses what would wait for ever
        yield Cluster(resources)


def _report(name: str, records: Iterator[Record], console: Console) -> None:
    title, started, told = "", time.monotonic(), 0.0
    for record in records:
        now = time.monotonic()
        if record.stage.title != title:
            title, started, told = record.stage.title, now, now
        if now - told > EVERY_SECONDS or record.progress == 1:
            told = now
            spent = format_seconds(now - started)
            console.print(Text(f"{name}: {title} {100 * record.progress:.0f} % ({spent})"))
