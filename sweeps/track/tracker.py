"""MLflow as a view of the store. The only file that knows MLflow.

A tracker logs what MLflow lacks of the runs that a subject describes, so a server that was away
loses nothing. Runs are found by tag, hence one run per trial or network whatever happened. Nothing
here raises into a sweep; `problem` says what went wrong last.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from sweeps.store.store import Store, write_json
from sweeps.track.view import DatasetView, Outcome, RunLink, RunView, Subject, Summary, Values

URI, SQLITE = "MLFLOW_TRACKING_URI", "sqlite:///"
PARENT, EPOCH = "mlflow.parentRunId", "train/epoch"
MAX_PARAM_LENGTH = 500
MAX_BATCH = 900
"""Metrics in one request. MLflow takes 1000 entries, and up to 100 of them may be tags."""

# A server that is away should cost seconds, not minutes; the store replays what it missed.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
for _talkative in ("mlflow", "alembic"):  # a warning of theirs would tear the live display
    logging.getLogger(_talkative).setLevel(logging.ERROR)


class Tracker:
    """Logs one subject: its parent run, and a child run per trial or network."""

    def __init__(self, store: Store, subject: Subject) -> None:
        self.store, self.subject = store, subject
        self.uri = tracking_uri(store)
        self.problem: str | None = None
        self._runs: _Experiment | None = None
        self._parent_id = ""
        self._parent_status = "KILLED"
        """The parent's when this tracker does not sync: the one it found, or `finish` has set."""
        self._at_work = False
        """Whether the parent was marked as running."""
        self._said: Summary | None = None
        self._addresses: dict[str, str] = {}
        """Id of a child -> MLflow's id of its run, of those seen so far."""

    def sync(
        self, children: Collection[str] | None = None, *, running: Collection[str] = frozenset()
    ) -> bool:
        """Log what MLflow lacks of these children, or of all; `running` are now at work.

        Returns whether MLflow is up to date with the store; if not, `problem` says why.
        """
        return self._attempt(lambda: self._sync(children, running))

    def finish(self, *, status: str) -> bool:
        """Log what the subject says at its end, and end the parent run with an MLflow status."""
        return self._attempt(lambda: self._finish(status))

    def abandon(self) -> None:
        """End as killed what was marked as running: the work has met an error or Ctrl-C."""
        if self._at_work:
            self.sync()
            self.finish(status="KILLED")

    def log_report(self, folder: Path) -> bool:
        """Attach a folder of report files to the parent run, whose status stays what it was."""
        return self._attempt(lambda: self._log_report(folder))

    def _attempt(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception as error:  # whatever a tracking server does, the work goes on
            self.problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._runs = None
            return False
        self.problem = None
        return True

    def _connect(self) -> "_Experiment":
        """Return the experiment's runs, with the parent among them."""
        if self._runs is None:
            runs = _Experiment(self.store, self.subject)
            view = self.subject.parent()
            run = runs.find(view.key)
            if run is None:
                run = runs.create(view, {})
            elif not self._at_work:
                self._parent_status = run.info.status
            runs.log_params(run, view)
            self._parent_id, self._runs = run.info.run_id, runs
        return self._runs

    def _sync(self, children: Collection[str] | None, running: Collection[str]) -> None:
        runs = self._connect()
        if not self._at_work:
            runs.client.update_run(self._parent_id, status="RUNNING")
            self._at_work = True
        for view in self.subject.children(children, running):
            self._sync_child(view)
        progress = self.subject.progress()
        if progress is not None and progress != self._said:
            runs.log_summary(self._parent_id, progress)
            self._said = progress

    def _sync_child(self, view: RunView) -> None:
        parent = {PARENT: self._parent_id}
        run_id = self._connect().update(view, parent, self._addresses.get(view.id))
        if run_id is not None:
            self._addresses[view.id] = run_id

    def _finish(self, status: str) -> None:
        runs = self._connect()
        runs.log_summary(self._parent_id, self.subject.closing())
        runs.client.set_terminated(self._parent_id, status)
        self._parent_status, self._at_work = status, False
        if self.subject.addresses and self._addresses:
            found = {"uri": self.uri, "experiment_id": runs.id, "runs": self._addresses}
            write_json(self.subject.addresses, found)

    def _log_report(self, folder: Path) -> None:
        client = self._connect().client
        client.log_artifacts(self._parent_id, str(folder), "report")
        if self._parent_status != "RUNNING":  # else another process is at work, and ends it
            client.set_terminated(self._parent_id, self._parent_status)


class _Experiment:
    """The runs of one experiment: found by tag, made, and given what they lack."""

    def __init__(self, store: Store, subject: Subject) -> None:
        self.uri = tracking_uri(store)
        self.client = open_client(self.uri)
        known = self.client.get_experiment_by_name(subject.experiment)
        if known is not None:
            self.id = str(known.experiment_id)
            return
        local = self.uri.startswith(SQLITE)  # a server decides itself where artifacts lie
        folder = store.artifact_location if local else None
        tags = dict(subject.experiment_tags)
        self.id = str(self.client.create_experiment(subject.experiment, folder, tags))

    def find(self, tags: Mapping[str, str], experiment_id: str | None = None) -> Run | None:
        """Return a run of this (or another) experiment that has all the tags, if there is one."""
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found = self.client.search_runs([experiment_id or self.id], wanted, max_results=1)
        return found[0] if found else None

    def create(self, view: RunView, parent: Mapping[str, str]) -> Run:
        """Make a run with its tags; the rest is given to it as to any run that lacks it."""
        tags = {**view.tags, **view.key, **parent}
        return self.client.create_run(self.id, run_name=view.name, tags=tags)

    def update(self, view: RunView, parent: Mapping[str, str], known_id: str | None) -> str | None:
        """Log what a run lacks; return its MLflow id, None if it has not started.

        known_id: of a run that was seen before. A search takes longer the more runs there are.
        """
        run = self._known(known_id) or self.find(view.key)
        if run is None:
            if not view.started:
                return None  # MLflow shows runs, not plans
            run = self.create(view, parent)
        run_id = run.info.run_id
        self.log_params(run, view)
        self._log(run_id, _new_epochs(run, view), self._new_tags(run, view, parent))
        for tag, value in view.current_tags.items():
            if value is None and tag in run.data.tags:
                self.client.delete_tag(run_id, tag)
        if view.outcome is not None:
            complete = run.info.status == view.status and view.outcome.mark in run.data.metrics
            self._log_outcome(run, view.outcome, complete=complete)
        if view.status != run.info.status:
            if view.status == "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            else:
                self.client.set_terminated(run_id, view.status)
        return run_id

    def log_params(self, run: Run, view: RunView) -> None:
        """Log settings and data set, unless the run has settings: they never change."""
        if run.data.params or not view.params:
            return
        if view.dataset is not None:
            self.client.log_inputs(run.info.run_id, datasets=[_dataset(view.dataset)])
        params = [Param(key, str(v)[:MAX_PARAM_LENGTH]) for key, v in view.params.items()]
        self.client.log_batch(run.info.run_id, params=params)

    def log_summary(self, run_id: str, summary: Summary) -> None:
        """Log what a parent run says of its children."""
        self._log(run_id, _metrics(summary.values, step=summary.step), summary.tags)
        for name, text in summary.texts.items():
            self.client.log_text(run_id, text, name)

    def _known(self, run_id: str | None) -> Run | None:
        """Return the run of an id, unless it was deleted."""
        if run_id is None:
            return None
        run = self.client.get_run(run_id)
        return run if run.info.lifecycle_stage == "active" else None

    def _new_tags(self, run: Run, view: RunView, parent: Mapping[str, str]) -> dict[str, str]:
        """Return the tags that a run lacks or has otherwise."""
        known = run.data.tags
        tags = {key: value for key, value in {**view.tags, **parent}.items() if key not in known}
        for key, current in view.current_tags.items():
            if current is not None and known.get(key) != current:
                tags[key] = current
        for key, value in view.list_tags.items():
            values = [name for name in known.get(key, "").split(", ") if name]
            if value not in values:
                tags[key] = ", ".join([*values, value])
        for key, link in view.links.items():
            if key not in known and (linked := self._find_linked(link)):
                tags[key] = linked
        return tags

    def _find_linked(self, link: RunLink) -> str | None:
        """Return the MLflow id of a run in another experiment; None if MLflow lacks it."""
        experiment = self.client.get_experiment_by_name(link.experiment)
        if experiment is None:
            return None
        found = (self.find(tags, experiment.experiment_id) for tags in link.alternatives)
        return next((str(run.info.run_id) for run in found if run is not None), None)

    def _log_outcome(self, run: Run, outcome: Outcome, *, complete: bool) -> None:
        """Log artifacts, figures and network; to a complete run, the figures that it lacks.

        The network goes last: MLflow copies the run's figures to it, and then ends the run.
        """
        run_id, values = run.info.run_id, outcome.values
        if complete:
            lacking = {key: v for key, v in values.items() if key not in run.data.metrics}
            self._log(run_id, _metrics(lacking, step=0), {})
            return
        for path, folder in outcome.artifacts:
            self.client.log_artifact(run_id, str(path), folder or None)
        self._log(run_id, _metrics(values, step=0), outcome.tags)
        if outcome.network is not None:
            network = outcome.network()
            with _default_server(self.uri), mlflow.start_run(run_id=run_id):
                mlflow.pytorch.log_model(network, name="network", serialization_format="pickle")

    def _log(self, run_id: str, metrics: list[Metric], tags: Mapping[str, str]) -> None:
        batch = [RunTag(key, value) for key, value in tags.items()]
        while metrics or batch:
            self.client.log_batch(run_id, metrics=metrics[:MAX_BATCH], tags=batch)
            metrics, batch = metrics[MAX_BATCH:], []


def tracking_uri(store: Store) -> str:
    """Return MLFLOW_TRACKING_URI, or a SQLite file in the store."""
    return os.environ.get(URI) or f"{SQLITE}{store.root / 'mlflow.db'}"


def open_client(uri: str) -> MlflowClient:
    """Return a client; a SQLite file that does not exist is made first, whole, by one process.

    MLflow makes the tables of a new file in many steps, over seconds. A process killed meanwhile
    leaves a file which MLflow refuses for ever, so it is made under another name.
    """
    if uri.startswith(SQLITE):
        _make_whole(Path(uri.removeprefix(SQLITE)))
    return MlflowClient(uri)


def _make_whole(path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        for old in path.parent.glob(f"{path.name}.partial*"):
            old.unlink()
        partial = path.with_name(f"{path.name}.partial{os.getpid()}")
        MlflowClient(f"{SQLITE}{partial}").search_experiments(max_results=1)  # makes all tables
        partial.replace(path)


@contextmanager
def _default_server(uri: str) -> Iterator[None]:
    """Make this the server of MLflow's functions that take none; the environment stays as it was.

    MLflow writes the address into MLFLOW_TRACKING_URI, which says where the next tracker logs.
    """
    before = os.environ.get(URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        os.environ.pop(URI, None)
        if before is not None:
            os.environ[URI] = before


def _new_epochs(run: Run, view: RunView) -> list[Metric]:
    """Return the figures of the epochs that a run lacks.

    The epoch goes last: a run that has it has all of the epoch.
    """
    last = run.data.metrics.get(EPOCH, 0)
    return [
        metric
        for epoch, values in view.epochs.items()
        if epoch > last
        for metric in _metrics({**values, EPOCH: epoch}, step=epoch)
    ]


def _metrics(values: Values, *, step: int) -> list[Metric]:
    now = int(time.time() * 1000)
    return [
        Metric(key, float(value), now, step)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def _dataset(view: DatasetView) -> DatasetInput:
    """Return a data set's name and fingerprint as MLflow shows them beside a run."""
    data, source = view.data, json.dumps({"uri": str(view.folder)})
    dataset = Dataset(data.name, data.fingerprint, source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.train_split)])
