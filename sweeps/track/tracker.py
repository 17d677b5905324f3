"""MLflow as a view of the store. The only file that imports MLflow.

A tracker logs what MLflow lacks of the runs that a subject describes, so nothing is lost while a
server is down. Runs are found by tag, so that a trial or network never has two; those of other
stores on the same server are left alone. Runs deleted in the UI are restored. A tracker never
raises into a sweep: `problem` says what went wrong.
"""

import functools
import getpass
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Concatenate, ParamSpec
from uuid import uuid4

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sweeps.report.mlflow_pages import PAGES_FILE, charts_page, run_page, server_of, table_view
from sweeps.store.local_lock import local_lock
from sweeps.store.store import Store, read_json, write_json
from sweeps.track import database
from sweeps.track.address import (
    VARIABLE,
    is_database,
    is_own,
    sqlite_file,
    sqlite_uri,
    tracking_uri,
    without_password,
)
from sweeps.track.faults import check_address, diagnose
from sweeps.track.view import AtEnd, RunView, Summary, Tracked, Values
from wsss.basics.environment import variables
from wsss.basics.errors import ForeseenError
from wsss.basics.printable import command
from wsss.basics.progress import shown
from wsss.basics.waiting import within
from wsss.config import DataConfig

P = ParamSpec("P")
PARENT, STORE, EPOCH = "mlflow.parentRunId", "wsss.store", "train/epoch"
MAX_PARAM_LENGTH, MAX_TAG_LENGTH, MAX_KEY_LENGTH = 500, 5000, 250
"""Limits of every MLflow since 1.0; newer ones accept more."""
ACTIVE = "active"
LOCK_SECONDS = 300.0
"""How long to wait for another process that logs a run of this store, perhaps with its network."""
NETWORK_NEEDS = [f"{package}=={version(package)}" for package in ("torch", "torchvision")]
"""Logged with a network, as MLflow takes half a minute to find them. `wsss` is on no package index:
a network is loaded in a checkout, or where this project is installed."""
MAX_BATCH, PAGE = 800, 100
"""Metrics in one request, where MLflow accepts 1000 entries, of which up to 100 may be tags and 100
settings; runs in one answer, which a busy server gives within the timeout below."""

# A server that is down should cost seconds, not minutes; what it missed is logged later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines for each run
for _talkative in ("mlflow", "alembic"):  # they would break the live display
    logging.getLogger(_talkative).setLevel(logging.CRITICAL)


def _never_fatal(step: "Callable[Concatenate[Tracker, P], object]") -> "Callable[..., bool]":
    """Let a method of a tracker return whether MLflow did it; `problem` then says why not."""

    @functools.wraps(step)
    def attempt(self: "Tracker", *given: P.args, **options: P.kwargs) -> bool:
        try:
            step(self, *given, **options)
        except Exception as error:  # whatever a tracking server does, the work continues
            self.problem = diagnose(error, self.uri)
            self._runs = None
            self._addresses.clear()  # a run may be gone
            return False
        self.problem = ""
        return True

    return attempt


class Tracker:
    """Logs one subject: its parent run, and a child run per trial or network.

    What asks MLflow returns whether that succeeded; if not, `problem` says why.
    """

    def __init__(self, store: Store, subject: Tracked) -> None:
        self.store, self.subject = store, subject
        self.uri = tracking_uri(store)
        self.address = without_password(self.uri)
        """The URI without a password, for messages."""
        self.problem = ""
        """What was wrong with the last step, and the remedy; "" if nothing was."""
        self.notes: list[str] = []
        """What was repaired in MLflow, and what could not be logged."""
        self._runs: _Experiment | None = None
        self._parent_id = ""
        self._at_work = False
        """Whether this tracker has marked the parent as running."""
        self._said: Summary | None = None
        self._addresses: dict[str, str] = {}
        """Child's id -> MLflow's id of its run."""

    @property
    def page(self) -> str:
        """Where a browser shows charts of the runs, in words; "" until MLflow was reached."""
        if self._runs is None:
            return ""
        page = charts_page(
            server_of(self.address),
            self._runs.id,
            role=self.subject.role,
            metric=self.subject.shown[0],
        )
        if self.address.startswith("http"):
            return f"charts: {page}"
        server = f"an MLflow server on {self.address}"
        if is_own(self.store, self.uri):
            server = f"`{command('sweeps', 'mlflow', '--store', self.store.address)}`"
        return f"charts, while {server} runs: {page}"

    def remarks(self, what: str, remedy: str) -> list[str]:
        """Return messages for a person: the notes, and why MLflow could not log something.

        what: the thing that was to be logged; remedy: the command that logs it later.
        """
        lines = [f"MLflow: {note}" for note in self.notes]
        if self.problem:
            why = f"{self.problem}; then run {remedy}"
            lines.append(f"MLflow at {self.address} did not log {what}: {why}")
        return lines

    @_never_fatal
    def check(self) -> None:
        """Ask whether MLflow answers. Changes nothing."""
        open_client(self.uri).get_experiment_by_name(self.subject.experiment)

    @_never_fatal
    def sync(self, children: Collection[str], running: Collection[str]) -> None:
        """Log what MLflow lacks of these children; `running` are those running now.

        The parent runs from then on until `finish`.
        """
        runs = self._connect()
        if running and not self._at_work:
            runs.client.update_run(self._parent_id, status="RUNNING")
            self._at_work = True
        self._log_children(runs, self.subject.children(children, running), {})

    @_never_fatal
    def finish(self) -> None:
        """Log what MLflow lacks of all children and the closing summary; end the parent run.

        Runs that lack nothing are read many at a time, so that a second time is quick.

        If that fails, as for a damaged record or a run that MLflow refuses, the parent is killed.
        """
        runs = self._connect()
        try:
            listed = runs.listed({PARENT: self._parent_id}, self.subject.id_tag)
            children = self.subject.children(None, ())
            self._log_children(runs, shown(children, "to MLflow", self.subject.size), listed)
            runs.log_summary(self._parent_id, self.subject.closing())
            status = self.subject.status()
        except Exception:
            with suppress(Exception):  # the server may be gone; the first error says why
                runs.client.set_terminated(self._parent_id, "KILLED")
            raise
        runs.client.set_terminated(self._parent_id, status)
        self._at_work = False
        if self.subject.kind == "sweep":
            server = server_of(self.address)
            pages = {each: run_page(server, runs.id, run) for each, run in self._addresses.items()}
            write_json(self.store.sweep(self.subject.name) / PAGES_FILE, pages)

    def abandon(self) -> None:
        """End runs that are marked as running, after an error or Ctrl-C."""
        if self._at_work:
            self.finish()

    @_never_fatal
    def log_report(self, files: Iterable[Path], said: Summary | None = None) -> None:
        """Attach the files of a report, and their summary, to the parent run.

        The run keeps its status.
        """
        runs = self._connect()
        for file in filter(Path.is_file, files):  # of a pipe, MLflow would wait for the end
            runs.client.log_artifact(self._parent_id, str(file), "report")
        if said is not None:
            runs.log_summary(self._parent_id, said)

    def _log_children(
        self, runs: "_Experiment", children: Iterable[RunView], listed: Mapping[str, Run]
    ) -> None:
        """Log what MLflow lacks of some children. listed: by id, as they were found before."""
        parent = {PARENT: self._parent_id}
        for view in children:
            run = listed.get(view.id)
            if run is not None and not _lacks(run, view):
                run_id = runs.update(view, parent, run)
            else:
                with runs.alone():  # another process may have logged it since, or be about to
                    run = runs.look(view, self._addresses.get(view.id))
                    run_id = runs.update(view, parent, run)
            if run_id is not None:
                self._addresses[view.id] = run_id
        progress = self.subject.progress()
        if progress is not None and progress != self._said:
            runs.log_summary(self._parent_id, progress)
            self._said = progress

    def _connect(self) -> "_Experiment":
        """Return the experiment's runs, with the parent among them."""
        if self._runs is None:
            runs = _Experiment(self.store, self.subject, self.notes)
            view = self.subject.parent()
            with runs.alone():
                run = runs.usable(runs.find(view.key), view, {})
                runs.log_settings(run, view, [], {})
            self._parent_id, self._runs = run.info.run_id, runs
        return self._runs


class _Experiment:
    """The runs of one experiment: found by tag, created, and completed."""

    def __init__(self, store: Store, subject: Tracked, notes: list[str]) -> None:
        self.uri, self.notes = tracking_uri(store), notes
        self.client = open_client(self.uri)
        self._alone = store.remote.lock("mlflow", store.root / "mlflow.lock")
        """Held while something is logged, so that two processes do not both log it."""
        self._owner = "" if is_own(store, self.uri) else self._store_id(store)
        """Tag of this store's runs, which other stores on the same server leave alone."""
        self._active: dict[str, bool] = {}
        """MLflow's id of a run -> whether it exists and is not deleted, of runs already checked."""
        known = self.client.get_experiment_by_name(subject.experiment)
        tags = {
            "mlflow.experimentKind": "custom_model_development",
            "mlflow.note.content": subject.note,
            **dict([table_view(role=subject.role, metrics=subject.shown)]),
        }
        if known is None:
            folder = store.artifact_location if is_database(self.uri) else None  # servers have one
            try:
                self.id = self.client.create_experiment(subject.experiment, folder, tags)
                return
            except MlflowException:  # another process may have been faster
                known = self.client.get_experiment_by_name(subject.experiment)
                if known is None:
                    raise
        self.id = str(known.experiment_id)
        if not known.experiment_id:
            raise MlflowException("no MLflow: it knows an experiment without an id")
        if known.lifecycle_stage != ACTIVE:  # its runs are restored with it
            self.client.restore_experiment(self.id)
            self.notes.append(f"restored the experiment {known.name}, which had been deleted")
        self._follow_store(known.artifact_location, store)
        for key in tags.keys() - known.tags.keys():  # of an older version
            self.client.set_experiment_tag(self.id, key, tags[key])

    def _follow_store(self, before: str, store: Store) -> None:
        """Correct the absolute addresses of artifacts in the store's own SQLite file.

        They are wrong after the store was moved or copied.
        """
        file, now = sqlite_file(self.uri), store.artifact_location
        old, new = database.local_folder(before), database.local_folder(now)
        if file is None or old is None or new is None or before == now:
            return
        if not is_own(store, self.uri) or old.name != new.name:
            return
        if old.parent.exists() and old.parent.samefile(new.parent):
            return  # the same folder, through a link
        database.move_artifacts(file, before, now)
        self.notes.append(f"artifacts are now in {new}, no longer in {old}")

    def _store_id(self, store: Store) -> str:
        """Return a store's id: its bucket, or that in a file, hidden so that fetch leaves it."""
        if store.remote.url:
            return store.remote.url
        file = store.root / ".id"
        with self._alone.acquire():
            if not file.exists():
                write_json(file, uuid4().hex)
        return str(read_json(file))

    def find(self, tags: Mapping[str, str]) -> Run | None:
        """Return a run of this store in this experiment with all of the tags, if there is one.

        A run without a store's tag, of an older version, is anybody's. A deleted run is returned
        only if there is no other.
        """
        return min(self._search(tags), key=_is_deleted, default=None)

    def look(self, view: RunView, known_id: str | None) -> Run | None:
        """Return a run as it is now; known_id saves a search among all runs."""
        return self.client.get_run(known_id) if known_id else self.find(view.key)

    def listed(self, tags: Mapping[str, str], id_tag: str) -> dict[str, Run]:
        """Return the runs of this store with all of the tags, by the value of one more tag."""
        found = sorted(self._search(tags), key=_is_deleted, reverse=True)
        return {run.data.tags[id_tag]: run for run in found if id_tag in run.data.tags}

    def _search(self, tags: Mapping[str, str]) -> Iterator[Run]:
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        token: str | None = None
        while token != "":
            page = self.client.search_runs([self.id], wanted, ViewType.ALL, PAGE, page_token=token)
            yield from (r for r in page if r.data.tags.get(STORE, self._owner) == self._owner)
            token = page.token or ""

    def alone(self) -> AbstractContextManager[object]:
        """Hold the lock of all processes that log runs of this store. Raises Timeout."""
        return self._alone.acquire(timeout=LOCK_SECONDS)

    def usable(self, run: Run | None, view: RunView, parent: Mapping[str, str]) -> Run:
        """Return a run, created with its tags if there is none, restored if it was deleted."""
        if run is None:
            return self._created(view, parent)
        if _is_deleted(run):
            self.client.restore_run(run.info.run_id)
            self.notes.append(f"restored the run {run.info.run_name}, which had been deleted")
        if self._owner and STORE not in run.data.tags:
            self.client.set_tag(run.info.run_id, STORE, self._owner)
        return run

    def _created(self, view: RunView, parent: Mapping[str, str]) -> Run:
        made = {"mlflow.user": _user()} | ({STORE: self._owner} if self._owner else {})
        tags = _fitting({**view.tags, **view.key, **parent, **made})
        run = self.client.create_run(self.id, run_name=view.name, tags=tags)
        if view.status != "RUNNING":  # whatever fails before it is logged, it says so
            self.client.set_terminated(run.info.run_id, "KILLED")
        return run

    def update(self, view: RunView, parent: Mapping[str, str], found: Run | None) -> str | None:
        """Log what a run lacks; return its MLflow id, None if it has not started."""
        if found is None and not view.started:
            return None  # MLflow shows runs, not plans
        run = self.usable(found, view, parent)
        run_id = run.info.run_id
        self.log_settings(run, view, _new_epochs(run, view), self._new_tags(run, view, parent))
        for tag, value in view.current_tags.items():
            if value is None and tag in run.data.tags:
                self.client.delete_tag(run_id, tag)
        if view.at_end is not None:
            self._log_at_end(run, view.at_end, complete=_is_complete(run, view))
        if view.status != run.info.status:
            if view.status == "RUNNING":
                self.client.update_run(run_id, status="RUNNING")
            else:
                self.client.set_terminated(run_id, view.status)
        return run_id

    def log_settings(
        self, run: Run, view: RunView, metrics: list[Metric], tags: Mapping[str, str]
    ) -> None:
        """Log metrics, tags, and, unless the run has some, settings, which never change."""
        run_id, params = run.info.run_id, list[Param]()
        if view.params and not run.data.params:
            if view.data is not None:
                self.client.log_inputs(run_id, datasets=_datasets(view.data, view.data_folder))
            params = [Param(key, str(v)[:MAX_PARAM_LENGTH]) for key, v in view.params.items()]
        self._log(run_id, metrics, tags, params)

    def log_summary(self, run_id: str, summary: Summary) -> None:
        """Log a summary to a parent run."""
        self._log(run_id, _metrics(summary.values, step=summary.step), summary.tags)
        for name, text in summary.texts.items():
            self.client.log_text(run_id, text, name)

    def _new_tags(self, run: Run, view: RunView, parent: Mapping[str, str]) -> dict[str, str]:
        """Return the tags that a run lacks or that have changed."""
        known = run.data.tags
        tags = {key: value for key, value in view.tags.items() if key not in known}
        for key, owner in parent.items():
            if known.get(key) != owner and not self._is_active(known.get(key)):
                tags[key] = owner
        for key, current in view.current_tags.items():
            if current is not None and known.get(key) != current:
                tags[key] = current
        for key, value in view.list_tags.items():
            values = [name for name in known.get(key, "").split(", ") if name]
            if value not in values:
                tags[key] = ", ".join([*values, value])
        return tags

    def _is_active(self, run_id: str | None) -> bool:
        """Whether MLflow has a run that is not deleted."""
        if run_id is None:
            return False
        if run_id not in self._active:
            try:
                stage = self.client.get_run(run_id).info.lifecycle_stage
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                stage = None  # permanently deleted
            self._active[run_id] = stage == ACTIVE
        return self._active[run_id]

    def _log_at_end(self, run: Run, at_end: AtEnd, *, complete: bool) -> None:
        """Log artifacts, metrics and network; for a complete run, only what it lacks.

        The network is last: MLflow copies the run's metrics to it, and then ends the run.
        """
        run_id, values = run.info.run_id, at_end.values
        if complete:
            values = {k: v for k, v in values.items() if _metric_name(k) not in run.data.metrics}
        for path, place in () if complete else at_end.artifacts:
            if path.exists():
                self.client.log_artifact(run_id, str(path), place or None)
            else:
                self.notes.append(f"{run.info.run_name} is logged without {path}, which is gone")
        self._log(run_id, _metrics(values, step=0), {} if complete else at_end.tags)
        if at_end.network is None or (run.outputs is not None and run.outputs.model_outputs):
            return
        try:
            network = at_end.network()
        except ForeseenError as error:
            self.notes.append(f"{run.info.run_name} is logged without its network: {error}")
            return
        with variables(**{VARIABLE: self.uri}):  # MLflow writes it, and the next tracker reads it
            mlflow.set_tracking_uri(self.uri)
            with mlflow.start_run(run_id=run.info.run_id):
                mlflow.pytorch.log_model(
                    network,
                    name="network",
                    serialization_format="pickle",
                    pip_requirements=NETWORK_NEEDS,
                )

    def _log(
        self,
        run_id: str,
        metrics: list[Metric],
        tags: Mapping[str, str],
        params: Sequence[Param] = (),
    ) -> None:
        batch = [RunTag(key, value) for key, value in _fitting(tags).items()]
        while metrics or batch or params:
            self.client.log_batch(run_id, metrics[:MAX_BATCH], params, batch)
            metrics, batch, params = metrics[MAX_BATCH:], [], ()


def _user() -> str:
    """Return who MLflow shows as a run's user: the name at its server, else on this machine."""
    try:
        return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def open_client(uri: str, *, answer_within: float = 10.0) -> MlflowClient:
    """Return a client; a SQLite file that does not exist is first created by a single process.

    answer_within: seconds to wait until a server is reached. Raises TrackingError for an impossible
    address, sqlite3.Error for a file that cannot be written to, and what MLflow or a database's
    driver raises.

    MLflow takes seconds to create the tables of a new file. A process killed meanwhile would leave
    a file that MLflow refuses for ever, so it is created under another name.
    """
    check_address(uri)
    if path := sqlite_file(uri):
        _make_whole(path)
        database.check_file(path)
    elif is_database(uri):
        within(answer_within, functools.partial(database.check_server, uri))
    elif uri.lower().startswith("http"):
        database.require_answer(uri, answer_within)
    return MlflowClient(uri)


def check_served(path: Path) -> None:
    """Raise MLflow's error for a database that its server would refuse, as of another version."""
    MlflowClient(sqlite_uri(path)).search_experiments(max_results=1)


def _make_whole(path: Path) -> None:
    if _is_begun(path):
        return
    with local_lock(path.with_name(f"{path.name}.lock")):
        if _is_begun(path):
            return
        for old in path.parent.glob(f"{path.name}.partial*"):
            old.unlink()
        # A new name each time: MLflow keeps its connections to files of failed attempts.
        partial = path.with_name(f"{path.name}.partial{uuid4().hex}")
        partial.touch()  # with the rights that the umask leaves a group; SQLite leaves none
        MlflowClient(sqlite_uri(partial)).search_experiments(max_results=1)  # creates all tables
        partial.replace(path)


def _is_begun(path: Path) -> bool:
    """Whether there is anything at a path but an empty file, as a power cut leaves."""
    return path.exists() and not (path.is_file() and path.stat().st_size == 0)


def _is_deleted(run: Run) -> bool:
    return bool(run.info.lifecycle_stage != ACTIVE)


def _is_complete(run: Run, view: RunView) -> bool:
    """Whether a run has what its end adds."""
    end = view.at_end
    return end is None or (run.info.status == view.status and end.mark in run.data.metrics)


def _lacks(run: Run, view: RunView) -> bool:
    """Whether a run lacks anything that is to be logged only once."""
    return bool(_new_epochs(run, view)) or not _is_complete(run, view)


def _new_epochs(run: Run, view: RunView) -> list[Metric]:
    """Return the metrics of the epochs that a run lacks.

    The epoch's number is last: a run that has it has all metrics of the epoch.
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
        Metric(_metric_name(key), float(value), now, step)
        for key, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def _metric_name(name: str) -> str:
    """Return a name that MLflow accepts: names of classes may have any characters."""
    legal = re.sub(r"[^\w./:\- ]", "_", name)
    parts = [part if part.strip(".") else part.replace(".", "_") for part in legal.split("/")]
    return "/".join(part or "_" for part in parts)[:MAX_KEY_LENGTH]


def _fitting(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with values cut to the length that MLflow accepts."""
    return {
        key: value if len(value) <= MAX_TAG_LENGTH else f"{value[: MAX_TAG_LENGTH - 4]} ..."
        for key, value in tags.items()
    }


def _datasets(data: DataConfig, folder: Path) -> list[DatasetInput]:
    """Return a data set's splits with their fingerprints as MLflow shows them beside a run.

    The fingerprint of the evaluated split also covers the training images. MLflow keeps one use per
    name and digest, so a split that is both is one entry.
    """
    source = json.dumps({"uri": str(folder)})
    is_both = data.eval_split == data.train_split
    uses = {
        data.train_split: (data.train_fingerprint, "training"),
        data.eval_split: (data.fingerprint, "training and evaluation" if is_both else "evaluation"),
    }
    return [
        DatasetInput(
            Dataset(f"{data.name}/{split}", digest, source_type="local", source=source),
            [InputTag("mlflow.data.context", context)],
        )
        for split, (digest, context) in uses.items()
    ]
