"""A headline as a subject of the driver: its chains, run in this process or on a Ray cluster.

Chains share stages, and each stage has a lock, so they run one after the other. A chain that failed
is tried again at the next start.
"""

import time
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.chains.headline import Headline, save_headline
from sweeps.report.document import Document
from sweeps.report.formats.terminal import print_document
from sweeps.report.formats.write import write_document
from sweeps.report.headline.document import headline_document
from sweeps.report.live.cost_lines import format_seconds
from sweeps.run.dispatch import Dispatch, End, Listener, Numbers, Source
from sweeps.run.driver import NOT_COMPLETE, Subject, printer
from sweeps.run.ray.resources import Resources
from sweeps.stages.export import end_stages, export_of, read_export
from sweeps.stages.segmentation import TrainDeepLab, require_packages
from sweeps.stages.stage import Conduct, Crew, EndedEarlyError, Place, Stage, complete
from sweeps.store.failures import ErrorNote, note_of
from sweeps.store.rooms import DONE, RUN_HERE, Driven
from sweeps.store.store import Folder, Store
from wsss.basics.printable import command, counted
from wsss.config import NetworkConfig
from wsss.identity import cam_id
from wsss.training.process import Process, pick_device

if TYPE_CHECKING:  # it loads MLflow
    from sweeps.track.view import Tracked

EVERY_SECONDS = 20.0
"""Time between two lines about one stage."""


class DrivenHeadline(Subject):
    """A headline."""

    noun = "chain"
    page = Path("report/headline.html")

    def __init__(
        self, headline: Headline, store: Store, conduct: Conduct, label_workers: int
    ) -> None:
        sweep = headline.sweep
        place = Place(store, sweep.data, sweep.weights_file, conduct=conduct)
        super().__init__(Driven("headline", headline.name), place)
        self.headline, self.label_workers = headline, label_workers
        self.chains = [Chain(config, end_stages(headline, config)) for config in headline.chains]
        network = headline.chains[0].segmentation
        self.networks = [chain.run.network for chain in headline.chains if chain.labels]
        self.networks.append(NetworkConfig(backbone=network.backbone, weights=network.weights))

    def prepare(self, resources: Resources) -> list[str]:
        """Download what the report shows of finished chains, and of other seeds."""
        self.store.pull_results()
        self.store.folder("predictions").pull({DONE})
        missing, total = self.missing(), len(self.chains)
        if not resources.address:  # a cluster's machines may have other packages
            for chain in missing:
                require_packages(chain.config, self.place)
        for chain in self.chains:
            if chain not in missing:
                bring_results(self.store, chain.config)
        done = f"{total - len(missing)} of {counted(total, 'network')} done"
        return [f"{self.headline.choice}.", f"{self.what.title}: {done}, {len(missing)} to run"]

    def write_down(self) -> None:
        """Write the headline's description, and for `sweeps fetch` that it is this store's."""
        save_headline(self.store, self.headline)
        (self.folder / RUN_HERE).touch()

    def missing(self) -> "list[Chain]":
        """Return the chains that are not finished, or whose files have been lost."""
        return [chain for chain in self.chains if not chain.is_done(self.place)]

    def needs_ray(self, resources: Resources) -> bool:
        """Whether a cluster, workers or GPUs were asked for."""
        return bool(resources.address or resources.gpus or not resources.inline)

    def runner(self, resources: Resources) -> "Chains":
        """Return the missing chains, which run themselves."""
        chains, place = self.missing(), replace(self.place, execution=resources.execution)
        for chain in chains:
            chain.folder(self.store).clear_failure()
        if self.needs_ray(resources):
            from sweeps.run.ray.crew import Cluster

            place = replace(place, crew=Cluster(resources))
        else:
            process = Process(device=pick_device())
            place = replace(place, crew=Crew(self.label_workers), rank=process)
        return Chains(chains, place)

    def watched(self, console: Console) -> AbstractContextManager[list[Listener]]:
        """Print lines."""
        return nullcontext([_Lines(console)])

    def tracked(self) -> "Tracked":
        """Return the runs of a headline."""
        from sweeps.track.runs.headline import HeadlineRuns

        return HeadlineRuns(self.store, self.headline)

    def results(self) -> list[str]:
        """Return the ids of the predictions."""
        return [chain.prediction_id for chain in self.headline.chains]

    @cached_property
    def document(self) -> Document:
        """The report, built when the work has ended."""
        return headline_document(self.headline, self.store)

    def show(self, console: Console) -> None:
        """Print where the exported archives are, the report, and how to use the networks."""
        say = printer(console)
        for chain in self.headline.chains:
            if split := self.headline.exported_by(chain):
                self.store.folder(export_of(chain, split).rel).pull()
                if export := read_export(self.store, chain, split):
                    made = f"{export.num_images} predictions of {export.split}"
                    say(f"{chain.name}: {made} in the checked archive {export.tar}")
        print_document(console, self.document)
        missing = self.missing()
        if trained := [chain for chain in self.chains if chain not in missing]:
            words = command("wsss", "predict", "IMAGE", "--network", "FOLDER")
            say(f"to segment pictures of your own: {words}, with one of")
            for each in trained:
                folder = self.store.folder(TrainDeepLab(each.config).rel).path
                say(f"  {each.name}: {folder}")

    def report(self) -> list[str]:
        """Write the report, and attach it to the headline's MLflow run."""
        folder = self.headline.report_folder(self.store)
        return self.attach(write_document(self.document, folder, "headline")[0])

    def failures(self) -> list[str]:
        """Return a line per chain that has failed, and what to do."""
        whys = [(chain.name, chain.folder(self.store).why_failed()) for chain in self.chains]
        lines = [f"failed: {name}: {why}" for name, why in whys if why]
        return [*lines, NOT_COMPLETE] if self.missing() else lines


def bring_results(store: Store, chain: ChainConfig) -> None:
    """Download what a report and MLflow show of a chain: predictions and network."""
    store.folder(f"predictions/{chain.prediction_id}").pull()
    store.folder(TrainDeepLab(chain).rel).pull_training()


@dataclass(frozen=True)
class Chain:
    """A chain as a target."""

    config: ChainConfig
    stages: tuple[Stage, ...]

    @property
    def run_id(self) -> str:
        """The id of its predictions."""
        return self.config.prediction_id

    @property
    def cam_id(self) -> str:
        """Id of its CAM training."""
        return cam_id(self.config.run)

    @property
    def name(self) -> str:
        """The source of its labels."""
        return self.config.name

    def folder(self, store: Store) -> Folder:
        """Return the folder of its last stage, which also records a failure."""
        return store.folder(self.stages[-1].rel)

    def is_done(self, place: Place) -> bool:
        """Whether it is finished, with no file lost since."""
        return all(stage.is_done(place) for stage in self.stages)


class Chains(Source[Chain]):
    """The chains to run, in this process or on the crew of their place: a runner of its own."""

    noun = "chain"

    def __init__(self, chains: list[Chain], place: Place) -> None:
        super().__init__(chains)
        self.store, self.place, self.source = place.store, place, self
        self.working = ""
        """Path of the stage that reported last."""

    def folder(self, target: Chain) -> Path:
        """Return the folder of its last stage."""
        return target.folder(self.store).path

    def ended(self, target: Chain) -> End:
        """Look for its results."""
        self.store.pull_results()
        if why := target.folder(self.store).why_failed():
            return End("failed", why)
        if not target.is_done(self.place):
            return End("started")
        bring_results(self.store, target.config)
        return End("done")

    def gave_up(self, target: Chain, note: ErrorNote) -> None:
        """Record why it failed, and upload it."""
        target.folder(self.store).fail(note.kind, note.message, note.traceback)

    def run(self, dispatch: Dispatch[Chain], at_once: int) -> None:
        """Run a dispatch's chains one after the other, until there are no more or it is ending."""
        while (chain := dispatch.next()) is not None:
            dispatch.begun(chain.run_id)
            try:
                self._advance(chain, dispatch)
            except EndedEarlyError:
                pass
            except Exception as error:
                dispatch.raised(chain.run_id, note_of(error))
                continue
            dispatch.ended(chain.run_id)

    def _advance(self, chain: Chain, dispatch: Dispatch[Chain]) -> None:
        """Complete a chain. Raises EndedEarlyError, and what the stages raise."""
        place, known = replace(self.place, is_ending=dispatch.is_ending), dict[str, Any]()
        for stage in chain.stages:
            with closing(complete(stage, place)) as records:
                for record in records:
                    if record.stage.rel != self.working:
                        self.working, known = record.stage.rel, {}
                    if "epoch" in record.numbers:  # not in news of progress alone
                        known = {"epoch": record.numbers["epoch"]}
                    numbers = {"stage": record.stage.title, "progress": record.progress}
                    dispatch.reported(chain.run_id, numbers | known | dict(record.numbers))


class _Lines:
    """Prints the progress of each stage: a listener."""

    def __init__(self, console: Console) -> None:
        self.say = printer(console)
        self.stage = ("", "")
        """Name of the chain, and title of the stage."""
        self.progress = self.started = self.printed_at = 0.0

    def update(self, trial: Chain, *, status: str, record: Numbers | None = None) -> None:
        """Print a stage's progress every EVERY_SECONDS and at its end."""
        if status != "running" or record is None:
            return
        now, stage = time.monotonic(), (trial.name, record["stage"])
        if stage != self.stage:
            self.stage, self.started, self.printed_at, self.progress = stage, now, now, -1.0
        if record["progress"] == self.progress:
            return
        self.progress = record["progress"]
        if now - self.printed_at > EVERY_SECONDS or self.progress == 1:
            self.printed_at = now
            spent = format_seconds(now - self.started)
            self.say(f"{trial.name}: {stage[1]} {100 * self.progress:.0f} % ({spent})")
