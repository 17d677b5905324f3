"""How descriptions of runs get into MLflow, beside the work, whatever the server does."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import pytest
from made_up.finished import finish, finished_sweep
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow_file import MlflowRun, mlflow_runs
from torch import nn
from waiting import wait_for

from sweeps.plan.sweep import save_sweep
from sweeps.report.formats.html import html
from sweeps.report.mlflow_pages import PAGES_FILE
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.model import build_report
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, write_json
from sweeps.track import tracker as tracking
from sweeps.track.address import tracking_uri
from sweeps.track.database import local_folder
from sweeps.track.runs.sweep import SweepRuns
from sweeps.track.thread import TrackingThread
from sweeps.track.tracker import Tracker, open_client
from sweeps.track.view import RUN_ID, AtEnd, RunView, Summary, Tracked
from wsss.basics.errors import ForeseenError
from wsss.config import DataConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own

OPEN = "import sys; from sweeps.track.tracker import open_client; open_client(sys.argv[1])"
AT_WORK = RunView(
    id="a",
    key={"id": "a"},
    name="run a",
    tags={"owner": "first"},
    params={"lr": 0.1, "long": "x" * 900},
    data=DataConfig(name="drawn", fingerprint="0123", train_fingerprint="45"),
    data_folder=Path("/pictures"),
    epochs={1: {"loss": 3.0, "nan": float("nan"), "none": None}, 2: {"loss": 2.0}},
)


def ended(values: Mapping[str, float] = MappingProxyType({"miou": 50.0}), **more: Any) -> RunView:
    """The same run at its end."""
    return replace(AT_WORK, status="FINISHED", at_end=AtEnd("miou", values, **more))


class Made(Tracked):
    """A subject whose runs a test chooses."""

    kind, experiment, note = "search", "made", "Runs of a test."
    role, id_tag, shown = "trial", "id", ("miou",)

    def __init__(self, *runs: RunView, name: str = "parent") -> None:
        self.name = name
        self.runs = {run.id: run for run in runs}
        self.said: Summary | None = None

    def parent(self) -> RunView:
        key, params = {"parent": self.name}, {"seed": 7}
        return RunView(self.name, key, self.name, status="KILLED", params=params)

    def children(
        self, wanted: Collection[str] | None, running: Collection[str]
    ) -> Iterator[RunView]:
        yield from (self.runs[name] for name in (self.runs if wanted is None else wanted))

    @property
    def size(self) -> int:
        return len(self.runs)

    def left(self) -> list[str | None]:
        return [None for run in self.runs.values() if run.status != "FINISHED"]

    def progress(self) -> Summary | None:
        return self.said

    def closing(self) -> Summary:
        return Summary({"best": 5.0}, tags={"closed": "yes"}, texts={"table.txt": "| 5 |"})


@pytest.fixture
def store(mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    return Store(tmp_path)


def sync(store: Store, *runs: RunView, name: str = "parent", running: str = "") -> Tracker:
    """As another process would do it."""
    tracker = Tracker(store, made := Made(*runs, name=name))
    assert tracker.sync(made.runs, running), tracker.problem
    return tracker


def logged(store: Store, **tags: str) -> list[MlflowRun]:
    """The runs with these tags."""
    runs = mlflow_runs(store.root / "mlflow.db")
    return [run for run in runs if tags.items() <= run.tags.items()]


def the_run(store: Store, **tags: str) -> MlflowRun:
    (run,) = logged(store, **(tags or {"id": "a"}))
    return run


def artifacts(run: MlflowRun) -> set[str]:
    root = local_folder(run.artifact_uri)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_run_is_made_once_under_its_parent_with_settings_and_data(store: Store) -> None:
    sync(store, AT_WORK)
    sync(store, AT_WORK)
    run, parent = the_run(store), the_run(store, parent="parent")
    assert run.status == "RUNNING"
    assert run.tags["mlflow.runName"] == "run a"
    assert run.tags["mlflow.parentRunId"] == parent.id
    assert run.params == {"lr": "0.1", "long": "x" * 500}
    assert parent.params == {"seed": "7"}
    client = MlflowClient(tracking_uri(store))
    assert {
        (shown.dataset.name, shown.dataset.digest, shown.tags[0].value)
        for shown in client.get_run(run.id).inputs.dataset_inputs
    } == {("drawn/train_aug", "45", "training"), ("drawn/train", "0123", "evaluation")}
    experiment = client.get_experiment_by_name("made")
    assert experiment.artifact_location == f"file://{store.root}/mlartifacts"
    assert experiment.tags["mlflow.note.content"] == "Runs of a test."
    shown = json.loads(experiment.tags["mlflow.sharedViewState.table"])["selectedColumns"]
    assert {"metrics.`miou`", "tags.`wsss.cells`", "tags.`wsss.sweep`"} <= {*shown}
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_epochs_are_logged_once_and_what_is_no_number_never(store: Store) -> None:
    sync(store, AT_WORK)
    sync(store, replace(AT_WORK, epochs={**AT_WORK.epochs, 3: {"loss": 1.0}}))
    assert the_run(store).metrics == {
        "loss": [(1, 3.0), (2, 2.0), (3, 1.0)],
        "train/epoch": [(1, 1.0), (2, 2.0), (3, 3.0)],
    }


def test_more_epochs_than_a_request_takes_are_all_logged(store: Store) -> None:
    values = {f"m{number}": 1.0 for number in range(19)}
    sync(store, replace(AT_WORK, epochs=dict.fromkeys(range(1, 101), values)))
    assert {len(logged) for logged in the_run(store).metrics.values()} == {100}


def test_what_has_not_started_gets_no_run(store: Store) -> None:
    sync(store, replace(AT_WORK, started=False))
    assert logged(store, id="a") == []


def delete_for_good(client: MlflowClient, run_id: str) -> None:
    """As the UI and then `mlflow gc` do it."""
    client.delete_run(run_id)
    client._tracking_client.store._hard_delete_run(run_id)


def test_what_was_deleted_in_the_ui_is_restored_and_what_is_gone_made_anew(store: Store) -> None:
    tracker, before = sync(store, AT_WORK), the_run(store)
    client, parent = MlflowClient(tracker.uri), before.tags["mlflow.parentRunId"]
    client.delete_run(parent)
    client.delete_experiment(client.get_run(parent).info.experiment_id)
    assert sync(store, AT_WORK).notes == ["restored the experiment made, which had been deleted"]
    assert the_run(store, parent="parent").id == parent
    client.delete_run(before.id)
    assert tracker.sync(["a"], ()), tracker.problem
    assert tracker.notes == ["restored the run run a, which had been deleted"]
    assert the_run(store).id == before.id
    delete_for_good(client, parent)
    sync(store, AT_WORK)
    again = the_run(store, parent="parent").id
    assert the_run(store).tags["mlflow.parentRunId"] == again != parent
    delete_for_good(client, before.id)
    assert not tracker.sync(["a"], ())
    assert "has been deleted; run the same command again" in tracker.problem
    assert tracker.sync(["a"], ()), tracker.problem
    assert the_run(store).id != before.id


@pytest.fixture
def done(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    """A run with a file among its artifacts."""
    file = tmp_path_factory.mktemp("made") / "metrics.json"
    file.write_text("{}")
    return ended(artifacts=((file, ""),))


@pytest.mark.parametrize("put", [shutil.move, shutil.copytree])
def test_a_store_that_was_moved_or_copied_keeps_its_artifacts_with_it(
    store: Store,
    done: RunView,
    tmp_path_factory: pytest.TempPathFactory,
    put: Callable[[Path, Path], object],
) -> None:
    sync(store, done)
    new = Store(tmp_path_factory.mktemp("elsewhere") / "new with #")
    put(store.root, new.root)
    before = sorted(store.root.rglob("*"))
    tracker = sync(new, done, replace(done, id="b", key={"id": "b"}))
    assert tracker.finish()
    assert len(tracker.notes) == 1
    for run in (the_run(new, id=name) for name in "ab"):
        assert artifacts(run) == {"metrics.json"}
        assert run.artifact_uri.startswith(f"{new.artifact_location}/")
    assert sorted(store.root.rglob("*")) == before


def test_a_store_reached_by_a_link_stays_as_it_is(store: Store, done: RunView) -> None:
    sync(store, done)
    link = store.root / "link"
    link.symlink_to(store.root)
    assert sync(Store(link), done).notes == []
    assert the_run(store).metrics["miou"] == [(0, 50.0)]


def test_stores_that_share_a_server_change_no_run_of_each_other(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ben")
    sync(store, AT_WORK)  # in the store's own file, so without a store's tag: anybody's
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(store))
    others = [Store(tmp_path / name) for name in ("second", "third")]
    for other, miou in zip(others, (50.0, 60.0), strict=True):
        assert Tracker(other, Made(ended({"miou": miou}))).finish()
    assert Tracker(others[0], Made(replace(AT_WORK, status="FAILED"))).finish()
    shown = {run.status: run for run in logged(store, id="a")}
    assert shown["FAILED"].metrics["miou"] == [(0, 50.0)]
    assert shown["FINISHED"].metrics["miou"] == [(0, 60.0)]
    assert shown["FINISHED"].tags["mlflow.user"] == "ben"
    assert len(logged(store, id="a")) == len(logged(store, parent="parent")) == 2


def test_a_store_finds_its_runs_behind_any_number_of_equal_ones_of_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PAGE", 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(store))
    stores = [Store(tmp_path / name) for name in ("first", "second", "third")]
    for each in (*stores, *stores):
        assert Tracker(each, Made(ended())).finish()
    assert len(logged(store, id="a")) == len(logged(store, parent="parent")) == 3


def test_what_mlflow_has_in_full_is_not_asked_for_run_by_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [replace(ended(), id=f"{n}", key={"id": f"{n}"}) for n in range(3)]
    runs += [replace(AT_WORK, id="3", key={"id": "3"}, status="FAILED")]
    assert Tracker(store, Made(*runs)).finish()
    asked = list[str]()

    def counted(works: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **more: asked.append(works.__name__) or works(*given, **more)

    for name in ("get_run", "search_runs", "log_batch", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
    assert Tracker(store, Made(*runs)).finish()
    assert asked == ["search_runs", "search_runs", "log_batch", "set_terminated"]
    again = replace(runs[3], epochs={**AT_WORK.epochs, 3: {"loss": 1.0}}, status="KILLED")
    assert Tracker(store, Made(*runs[:3], again)).finish()
    assert the_run(store, id="3").metrics["loss"] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert the_run(store, id="0").metrics["miou"] == [(0, 50.0)]


def test_names_and_texts_that_mlflow_does_not_take_are_made_fit(store: Store) -> None:
    done = ended({"miou": 1.0, "iou/cat & (dog)": 2.0, "iou/../x": 3.0, "iou/": 4.0})
    for _ in range(2):
        sync(store, replace(done, tags={"cells": "x" * 9000}))
    run = the_run(store)
    assert run.tags["cells"] == "x" * 4996 + " ..."
    assert {"iou/cat _ _dog_", "iou/__/x", "iou/_"} < run.metrics.keys()
    assert run.metrics["iou/_"] == [(0, 4.0)]


def test_a_warning_comes_and_goes_and_other_tags_stay_with_the_first_owner(store: Store) -> None:
    warned = replace(AT_WORK, current_tags={"warning": "at the prior"})
    sync(store, warned)
    assert the_run(store).tags["warning"] == "at the prior"
    sync(store, replace(warned, current_tags={"warning": "dead maps"}, tags={"owner": "second"}))
    assert the_run(store).tags["warning"] == "dead maps"
    assert the_run(store).tags["owner"] == "first"
    sync(store, replace(AT_WORK, current_tags={"warning": None}))
    assert "warning" not in the_run(store).tags


def test_a_shared_run_lists_its_owners_and_stays_under_the_first(store: Store) -> None:
    for name in ("one", "two", "two"):
        sync(store, replace(AT_WORK, list_tags={"owners": name}), name=name)
    run, first = the_run(store), the_run(store, parent="one")
    assert run.tags["owners"] == "one, two"
    assert run.tags["mlflow.parentRunId"] == first.id


def test_an_outcome_is_logged_once_and_what_an_older_version_left_out_is_added(
    store: Store,
) -> None:
    file = store.root / "metrics.json"
    file.write_text("{}")
    gone = store.root / "gone.png"
    more = {"tags": {"code": "1.2"}, "artifacts": ((gone, ""), (file, ""), (file, "checkpoint"))}
    for notes in ([f"run a is logged without {gone}, which is gone"], []):
        assert sync(store, ended(**more)).notes == notes
    sync(store, ended({"miou": 51.0, "auc": 40.0}, **more))
    run = the_run(store)
    assert run.status == "FINISHED"
    assert run.tags["code"] == "1.2"
    assert (run.metrics["miou"], run.metrics["auc"]) == ([(0, 50.0)], [(0, 40.0)])
    assert artifacts(run) == {"checkpoint/metrics.json", "metrics.json"}


def test_a_run_that_is_tried_again_runs_and_gets_its_new_at_end(store: Store) -> None:
    sync(store, ended({"miou": 50.0}))
    sync(store, AT_WORK)
    assert the_run(store).status == "RUNNING"
    sync(store, ended({"miou": 60.0}))
    assert the_run(store).metrics["miou"] == [(0, 50.0), (0, 60.0)]


def lose() -> nn.Module:
    raise ForeseenError("it cannot be read")


@pytest.mark.parametrize("chosen", [None, ""])
def test_a_network_goes_to_the_trackers_server_and_leaves_the_environment(
    store: Store, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    """MLflow writes its default address into the environment, where the next tracker reads it."""
    if chosen is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", chosen)
    given: list[Any] = []

    def log_model(network: nn.Module, **options: Any) -> None:
        assert f"torch=={version('torch')}" in options["pip_requirements"]
        given.append((network, tracking.mlflow.get_tracking_uri(), options["name"]))

    monkeypatch.setattr(tracking.mlflow, "pytorch", SimpleNamespace(log_model=log_model))
    network, uri = nn.Linear(1, 1), tracking_uri(store)
    assert sync(store, ended(network=lose)).notes == [
        "run a is logged without its network: it cannot be read"
    ]
    sync(store, ended(network=lambda: network))
    assert given == [(network, uri, "network")]
    assert os.environ.get("MLFLOW_TRACKING_URI") == chosen
    assert the_run(store).last("miou") == 50


def test_the_parent_runs_while_its_children_do_and_says_at_the_end_what_came_out(
    store: Store,
) -> None:
    subject = Made(AT_WORK)
    tracker = Tracker(store, subject)
    for best in (1.0, 1.0, 2.0):
        subject.said = Summary({"so_far": best}, step=int(best))
        assert tracker.sync(["a"], {"a"})
    assert the_run(store, parent="parent").status == "RUNNING"
    subject.runs["a"] = replace(AT_WORK, status="FINISHED")
    assert tracker.finish()
    parent = the_run(store, parent="parent")
    assert parent.status == "FINISHED"
    assert parent.tags["closed"] == "yes"
    assert parent.metrics["so_far"] == [(1, 1.0), (2, 2.0)]
    assert parent.metrics["best"] == [(0, 5.0)]
    assert artifacts(parent) == {"table.txt"}


@pytest.mark.parametrize("status", [None, "RUNNING", "FINISHED"])
def test_a_report_leaves_the_status_as_it_was(store: Store, status: str | None) -> None:
    """None: MLflow has no such run yet, so what it holds was not finished under its eyes."""
    if status is not None:
        tracker = sync(store, running="a")
    if status == "FINISHED":
        assert tracker.finish()
    page = store.root / "report.html"
    page.touch()
    os.mkfifo(pipe := page.with_name("pipe"))
    assert Tracker(store, Made()).log_report([page, pipe], Summary({"verdicts/reproduced": 3}))
    parent = the_run(store, parent="parent")
    assert parent.last("verdicts/reproduced") == 3
    assert parent.status == (status or "KILLED")
    assert artifacts(parent) - {"table.txt"} == {"report/report.html"}


@pytest.mark.parametrize(
    ("step", "calls"),
    [
        ("create_run", 0),
        ("create_run", 1),
        ("log_inputs", 0),
        ("log_artifact", 1),
        *(("log_batch", calls) for calls in range(4)),
    ],
)
def test_a_server_that_goes_away_at_any_point_is_caught_up_by_the_next_sync(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, calls: int
) -> None:
    file = store.root / "metrics.json"
    file.touch()
    tracker = Tracker(store, Made(ended(artifacts=((file, ""), (file, "again")))))
    works, left = getattr(MlflowClient, step), [calls]

    def once_more(*arguments: Any, **options: Any) -> Any:
        if not left[0]:
            raise ConnectionError("refused\nby the server")
        left[0] -= 1
        return works(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, once_more)
        assert not tracker.finish()
        assert tracker.problem.startswith("the server does not answer; ")
    assert tracker.finish()
    assert tracker.problem == ""
    run = the_run(store)
    assert (run.status, len(run.params)) == ("FINISHED", 2)
    inputs = MlflowClient(tracker.uri).get_run(run.id).inputs
    assert len(inputs.dataset_inputs) == 2
    assert run.metrics["loss"] == [(1, 3.0), (2, 2.0)]
    assert run.metrics["miou"] == [(0, 50.0)]
    assert artifacts(run) == {"again/metrics.json", "metrics.json"}
    assert the_run(store, parent="parent").params == {"seed": "7"}


def test_a_server_chooses_where_artifacts_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://192.0.2.1:5000")
    asked: list[Any] = []
    server = SimpleNamespace(
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name, folder, tags: asked.append(folder),
    )
    monkeypatch.setattr(tracking, "MlflowClient", lambda uri: server)
    Tracker(Store(tmp_path), Made()).finish()
    assert asked == [None]


def test_a_database_is_made_whole_after_tries_that_were_killed_or_failed_for_the_group_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 100 kB, MLflow would find some of its tables and refuse to make the others."""
    uri, make = f"sqlite:///{tmp_path / 'mlflow.db'}", MlflowClient.search_experiments
    with subprocess.Popen([sys.executable, "-c", OPEN, uri], stderr=subprocess.DEVNULL) as process:
        while _size(tmp_path) < 100_000:
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)

    def fill_the_disk(client: MlflowClient, **how: Any) -> None:
        make(client, **how)
        raise OSError(errno.ENOSPC, "No space left on device")

    before = os.umask(0o002)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "search_experiments", fill_the_disk)
            with pytest.raises(OSError, match="No space"):
                open_client(uri)
        assert not (tmp_path / "mlflow.db").exists()
        (tmp_path / "mlflow.db").touch()  # as after a power cut
        client = open_client(uri)
    finally:
        os.umask(before)
    run = client.create_run("0")
    assert open_client(uri).get_run(run.info.run_id).info.status == "RUNNING"
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o777 == 0o664
    assert not list(tmp_path.glob("*.partial*"))


def _size(folder: Path) -> int:
    found = 0
    for path in folder.glob("mlflow.db.partial*"):
        with suppress(FileNotFoundError):  # SQLite's journals come and go
            found += path.stat().st_size
    return found


def test_only_who_marked_the_parent_as_running_ends_it_after_an_error(store: Store) -> None:
    tracker, other = sync(store, AT_WORK, running="a"), Tracker(store, Made(AT_WORK))
    other.abandon()
    assert the_run(store, parent="parent").status == "RUNNING"
    tracker.abandon()
    assert the_run(store, parent="parent").status == "KILLED"


@pytest.mark.parametrize("broken", ["children", "closing"])
def test_a_record_that_is_damaged_while_children_run_leaves_no_parent_running(
    store: Store, broken: str
) -> None:
    def damaged(*given: object) -> Any:
        raise StoreError("epochs/0001.json: not JSON")

    tracker = sync(store, AT_WORK, running="a")
    setattr(tracker.subject, broken, damaged)
    assert not tracker.finish()
    assert tracker.problem == "epochs/0001.json: not JSON"
    assert the_run(store, parent="parent").status == "KILLED"


def test_a_child_that_mlflow_refuses_leaves_no_parent_running(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **options: Any) -> Any:
        raise MlflowException("a value that this server does not take")

    tracker = sync(store, AT_WORK, running="a")
    tracker.subject = Made(ended())
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", refuse)
        tracker.abandon()
    assert "a value that this server does not take" in tracker.problem
    assert the_run(store, parent="parent").status == "KILLED"


def test_two_trackers_that_look_at_the_same_time_make_one_experiment_and_each_run_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, looked, log = threading.Barrier(2, timeout=20), set[int](), MlflowClient.log_batch
    by_name = MlflowClient.get_experiment_by_name

    def look_together(*given: Any) -> Any:
        found, me = by_name(*given), threading.get_ident()
        if me not in looked:
            looked.add(me)
            at_once.wait()
        return found

    def log_together(*given: Any, **more: Any) -> None:
        try:
            at_once.wait(0.5)
        except threading.BrokenBarrierError:  # as it should be: one waits for the other
            at_once.reset()
        log(*given, **more)

    trackers = [Tracker(store, Made(AT_WORK)) for _ in range(2)]
    open_client(trackers[0].uri)  # once, as imports of MLflow lock each other
    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", look_together)
    monkeypatch.setattr(MlflowClient, "log_batch", log_together)
    with ThreadPool(2) as pool:
        pool.map(lambda tracker: tracker.sync(["a"], ()), trackers)
    monkeypatch.undo()
    assert [each.problem for each in trackers] == ["", ""]
    assert len(logged(store, parent="parent")) == 1
    assert the_run(store).metrics["loss"] == [(1, 3.0), (2, 2.0)]


# The thread


class SlowTracker:
    """Takes part in the first synchronisation only when it is let."""

    address = "nowhere"

    def __init__(self, problem: str = "", *, answers: bool = True, waits: bool = False) -> None:
        self.problem, self.answers, self.is_abandoned = problem, answers, False
        self.entered, self.go = threading.Event(), threading.Event()
        self.synced: list[str] = []
        self.running: set[str] = set()
        if not waits:
            self.go.set()

    def check(self) -> bool:
        return self.answers

    def sync(self, children: Collection[str], running: Collection[str]) -> bool:
        self.entered.set()
        assert self.go.wait(30)
        self.synced += children
        self.running = set(running)
        return not self.problem

    def abandon(self) -> None:
        self.is_abandoned = True


def thread_of(
    tracker: SlowTracker, warn: Callable[[str], None] = print, **more: float
) -> TrackingThread:
    return TrackingThread(cast(Tracker, tracker), warn, **more)


NAMES = [f"trial {number}" for number in range(40)]


def test_every_trial_is_logged_while_the_sweep_goes_on_and_once_if_its_notices_pile_up() -> None:
    tracker = SlowTracker(waits=True)
    with thread_of(tracker) as thread:
        thread.notice(NAMES[0], running=True)
        assert tracker.entered.wait(30)  # it is at work on the first one
        for name in (*NAMES, *NAMES):
            thread.notice(name, running=True)
        tracker.go.set()
        wait_for(lambda: len(tracker.synced) > len(NAMES))
        assert tracker.synced == [NAMES[0], *NAMES]
        thread.notice(NAMES[0], running=False)
        wait_for(lambda: tracker.running == set(NAMES[1:]))
    assert not tracker.is_abandoned


def test_a_thread_far_behind_is_waited_for_and_writes_nothing_after_the_sweep_has_ended() -> None:
    """Else it and the last synchronisation would both create the runs of the same trials."""
    tracker, told = SlowTracker(waits=True), list[str]()
    with thread_of(tracker, told.append, say_after=0.1) as thread:
        thread.notice(NAMES[0], running=True)
        assert tracker.entered.wait(30)  # it is at work on the first one
        for name in NAMES:
            thread.notice(name, running=True)
        threading.Timer(0.5, tracker.go.set).start()
    assert not thread.thread.is_alive()
    assert tracker.synced == [NAMES[0]]
    assert told == ["waiting for tracking at nowhere, at most 10 minutes"]


def driven_wrong(tracker: SlowTracker) -> None:
    """A driver that starts a trial and then meets an error of its own."""
    with thread_of(tracker) as thread:
        thread.notice(NAMES[0], running=True)
        wait_for(lambda: bool(tracker.synced))
        raise ZeroDivisionError


def test_runs_are_ended_after_an_error_of_the_driver() -> None:
    with pytest.raises(ZeroDivisionError):
        driven_wrong(tracker := SlowTracker())
    assert tracker.is_abandoned


def test_a_server_that_fails_is_left_alone_for_a_while_and_told_of_once() -> None:
    tracker, told = SlowTracker("no route; wait"), list[str]()
    with thread_of(tracker, told.append) as thread:
        thread.notice(NAMES[0], running=True)
        wait_for(lambda: bool(told))
        thread.notice(NAMES[1], running=True)
        wait_for(lambda: thread.running == set(NAMES[:2]) and not thread.pending)
        assert tracker.synced == [NAMES[0]]
        thread.retry_at = 0.0  # the while is over
        thread.notice(NAMES[2], running=True)
        wait_for(lambda: NAMES[2] in tracker.synced)
    assert tracker.synced == [NAMES[0], NAMES[2]]
    assert tracker.running == set(NAMES[:3])
    assert told == [
        "tracking at nowhere fails: no route; wait; the work continues, and all results are in the "
        "store"
    ]


def test_a_fault_that_stays_is_told_before_anything_runs_with_its_remedy() -> None:
    tracker, told = SlowTracker("no scheme; write http://", answers=False), list[str]()
    with thread_of(tracker, told.append):
        wait_for(lambda: bool(told))
    assert told[0].startswith("tracking at nowhere fails: no scheme; write http://; the work")
    assert tracker.synced == []


@pytest.mark.parametrize("where", ["check", "sync"])
def test_an_unexpected_error_of_the_thread_is_told_and_the_end_does_not_wait_for_it(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, told = SlowTracker(), list[str]()

    def broken(*_: object) -> bool:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(tracker, where, broken)
    with thread_of(tracker, told.append) as thread:
        thread.notice(NAMES[0], running=True)
        thread.thread.join(30)
        assert not thread.thread.is_alive()
    (line,) = told
    assert line.startswith("tracking at nowhere has ended (ZeroDivisionError: by nothing); the wor")


def test_a_reports_cells_link_to_their_runs_but_not_in_an_archive_nor_to_a_script(
    store: Store,
) -> None:
    sweep = finished_sweep(("III",), 1)
    save_sweep(store, sweep)
    trial = sweep.plan.trials[0]
    finish(store, trial, 0.5, num_images=2)
    assert Tracker(store, SweepRuns(store, sweep)).finish()
    page = f"/runs/{the_run(store, **{RUN_ID: trial.run_id}).id}"
    here, archived = (
        html(sweep_document(build_report(sweep, store, portable=portable)))
        for portable in (False, True)
    )
    links = re.findall(r'<a href="(http://[^"]*)">seed 0</a>', here)
    assert [link.endswith(page) for link in links] == [True]
    assert page not in archived
    write_json(store.sweep(sweep.name) / PAGES_FILE, {trial.run_id: "javascript:alert(1)"})
    with pytest.raises(StoreError, match=PAGES_FILE):
        sweep_document(build_report(sweep, store))
