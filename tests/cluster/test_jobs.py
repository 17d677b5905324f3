"""What needs no cluster: requests, commands, exit codes, following a log, fetching results."""

import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from made_up.bucket_server import BUCKET, client
from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus

from sweeps.cli.service import cluster as commands
from sweeps.cluster.fetch import Fetched, fetch_by_rsync, fetch_from_bucket
from sweeps.cluster.follow import exit_code, follow
from sweeps.cluster.job_address import JobError, UnreachableError
from sweeps.cluster.job_server import JobServer, RefusedError
from sweeps.cluster.jobs import Request, entry_point, excludes, printed, store_of, submit
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, open_store
from sweeps.tables.own import grid_table


def digest(**asked: Any) -> str:
    return Request(**({"tables": ("V",), "preset": "tiny"} | asked)).digest


def job(status: str = "RUNNING", code: int | None = None) -> Any:
    """A sweep that was submitted as `one`."""
    return SimpleNamespace(
        submission_id="one",
        status=JobStatus(status),
        driver_exit_code=code,
        metadata={"wsss-sweep": "0"},
        start_time=0,
        entrypoint="",
    )


def test_same_tables_settings_data_and_store_are_the_same_sweep_whatever_the_machine() -> None:
    both = {"tables": ("V", "VI")}
    one = digest(words=("--gpus", "1"), **both)
    assert one == digest(words=("--gpus", "2"), tables=("VI", "lambdas"))
    grids = [grid_table({"transfer.lambda_s": [value, 1.0]}, {}) for value in (0.1, 0.2)]
    others = {
        digest(settings=("train.lr=1",), **both),
        digest(settings=("views.beta_enhanced=9",), **both),  # which the base does not have
        digest(probe=50, **both),  # else it would attach to its probe
        digest(data="/data", **both),
        digest(weights="/w.pt", preset="short", **both),
        digest(store="/store", **both),
        digest(store="s3://bucket/store", **both),
        *(digest(tables=(grid,)) for grid in grids),
    }
    assert len(others - {one}) == 9


def test_the_shell_sees_one_word_per_argument() -> None:
    command = entry_point(["sweeps", "run", "V; echo no"], store="/a b/$(no)", python="echo")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "[sweeps] store /a b/$(no)\n-m sweeps run V; echo no\n"


@pytest.mark.parametrize("ignored", ["notes", "/notes/", "notes/mine/*", "*.yaml", "!x\nnotes/m*"])
def test_a_table_of_an_ignored_folder_goes_along_and_nothing_beside_it(
    tmp_path: Path, ignored: str
) -> None:
    root, package = tmp_path / "project", tmp_path / "project.zip"
    (root / "notes/mine").mkdir(parents=True)
    for name in ("a.yaml", "b.yaml", "c d[1].yaml"):
        (root / "notes/mine" / name).write_text("name: x")
    (root / "code.py").touch()
    (root / ".gitignore").write_text(f"# é\n{ignored}\n", encoding="latin-1")
    also = ["notes/mine/a.yaml", "notes/mine/c d[1].yaml"]
    create_package(str(root), package, excludes=excludes(root, also), include_gitignore=False)
    with ZipFile(package) as sent:
        names = {name for name in sent.namelist() if not name.endswith("/")}
    assert names == {".gitignore", "code.py", *also}


def test_the_name_of_an_ended_job_is_refused(tmp_path: Path) -> None:
    cluster = Cluster(jobs=[job("STOPPED")])
    with pytest.raises(JobError, match=r"one: .* has ended \(STOPPED\).*another --id"):
        submit(cluster, Request(["V"], "tiny"), root=tmp_path, job_id="one", python="python")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 7, 7),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 130),
    ],
)
def test_an_exit_code_is_the_commands(status: str, code: int | None, expected: int) -> None:
    assert exit_code(job(status, code)) == expected


def test_rays_own_lines_are_no_output_of_a_command_and_one_names_the_store() -> None:
    log = "env is set up\nRunning entrypoint for job x: y\n[sweeps] store /s t\nmine\n"
    assert printed(log) == "mine\n"
    assert store_of(Cluster(whole=log), job("SUCCEEDED")) == "/s t"
    with pytest.raises(JobError, match="--store"):
        store_of(Cluster(whole="mine\n"), job("SUCCEEDED"))


def test_a_new_job_is_given_time_to_name_its_store() -> None:
    cluster = Cluster(whole="")
    threading.Timer(0.3, lambda: setattr(cluster, "whole", "[sweeps] store /s\n")).start()
    assert store_of(cluster, job("PENDING")) == "/s"


class Cluster(JobServer):
    """A job server that answers with these logs or errors; with the last, the job has ended."""

    def __init__(
        self, *answers: str | Exception, whole: str = "", jobs: Sequence[Any] = ()
    ) -> None:
        self.address = "http://head"
        self.answers, self.whole, self.known = list(answers), whole, list(jobs)

    def jobs(self) -> list[Any]:
        return self.known

    def job(self, job_id: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.whole = answer
        return job("RUNNING" if self.answers else "FAILED", 7)

    def log(self, job_id: str) -> str:
        return self.whole


AWAY = UnreachableError("no answer")


def test_a_log_that_grows_is_printed_once_by_whole_lines_over_a_lost_connection(
    capsys: pytest.CaptureFixture[str],
) -> None:
    starting = RefusedError("http://head", "500 Internal Server Error")
    cluster = Cluster("one\nt", AWAY, starting, "one\ntwo\nth", "one\ntwo\nthree\nend")
    assert follow(cluster, "job", poll_s=0.01) == 7
    out, said = capsys.readouterr()
    assert out == "one\ntwo\nthree\nend"
    assert said.splitlines() == [
        "connection lost (UnreachableError); the job continues, reconnecting",
        "connected to http://head again",
    ]


def test_a_log_is_followed_from_its_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert follow(Cluster("one\ntwo\n", "one\ntwo\nthree\n"), "job", tail=1, poll_s=0.01) == 7
    assert capsys.readouterr().out == "two\nthree\n"


def test_a_log_is_printed_once_and_with_a_closed_output_nowhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Cluster(whole="one\n", jobs=[job()])
    monkeypatch.setattr(commands, "connect", lambda address: cluster)
    commands.logs()
    assert capsys.readouterr().out == "one\n"
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it then
    commands.logs()


def test_a_job_that_the_cluster_forgot_is_no_longer_followed() -> None:
    with pytest.raises(JobError, match="no such job"):
        follow(Cluster("one\n", AWAY, JobError("knows no such job")), "job", poll_s=0.01)


def test_a_closed_port_is_explained() -> None:
    with pytest.raises(UnreachableError, match="ray dashboard"):
        JobServer("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("404 Not Found\r\n\r\nno", "Version check returned 404"),
        ("200 OK\r\n\r\n<html>", "Expecting value"),
        ("200 OK\r\n\r\n[]", "list indices"),
        ("200 OK\r\n\r\n{}", "ray_version"),
        ('200 OK\r\n\r\n{"ray_version": "1.0"}', "Ray version 1.0 is running"),
        ("500 Oops\r\n\r\nno", "500 Server Error: Oops"),
    ],
)
def test_another_server_than_a_job_server_is_told_by_its_answer(answer: str, said: str) -> None:
    def reply() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.0 {answer}".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(RefusedError, match=rf"not as a Ray job server \(.*{said}.*8265"):
            JobServer(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(UnreachableError, match="TimeoutError"),
    ):
        JobServer(f"http://127.0.0.1:{silent.getsockname()[1]}", limit=0.2)


FILES = {
    "cams/c/epochs/0001.json": '{"epoch": 1}',
    "cams/c/checkpoints/epoch_0001.pt": "weights",
    "cams/c/done.json": "{}",
    "runs/a/done.json": '{"from": "cluster"}',
    "runs/b/done.json": '{"from": "cluster"}',
    "sweeps/n/sweep.json": "{}",
    "sweeps/own/sweep.json": "{}",
    "headline/own/headline.json": "{}",
}
HERE = {
    "runs/a/done.json": '{"from": "here"}',
    "sweeps/own/sweep.json": "here",
    "ray/own/state": "",
    "headline/own/headline.json": "here",
    "headline/own/.run-here": "",
}
"""What is there before: a finished run, and a sweep and a headline that were run there."""


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.fixture
def bucket(port: int, mirror: Path) -> str:
    """The URL of a store with FILES, which another machine's mirror has uploaded."""
    store = open_store(f"s3://{BUCKET}/fetched")
    write(store.root, FILES)
    for folder in ("cams", "runs", "sweeps", "headline"):
        store.folder(folder).push()
    return store.address


def check_fetched(target: Path, fetched: Fetched) -> None:
    """All is here but weights; run a, a sweep and a headline are as they were here before."""
    assert Store(target).run("a").result() == {"from": "here"}
    assert Store(target).run("b").result() == {"from": "cluster"}
    assert Store(target).cam("c").epochs() == [{"epoch": 1}]
    assert set(Store(target).sweep_names()) == {"n", "own"}
    assert (target / "sweeps/own/sweep.json").read_text() == "here"
    assert (target / "headline/own/headline.json").read_text() == "here"
    assert not (target / "cams/c/checkpoints").exists()
    # epochs/0001.json, done.json, run b, sweep n; run a, the other sweep, the headline were here
    assert (fetched.num_files, fetched.num_kept) == (4, 3)
    came = FILES.keys() - HERE.keys() - {"cams/c/checkpoints/epoch_0001.pt"}
    assert fetched.num_bytes == sum(len(FILES[name]) for name in came)


def test_a_bucket_is_fetched_without_weights_unless_asked_and_finished_results_stay(
    port: int, bucket: str, tmp_path: Path
) -> None:
    target = tmp_path / "here"
    write(target, HERE)
    check_fetched(target, fetch_from_bucket(bucket, target, checkpoints=False))
    client(port).put_object(Bucket=BUCKET, Key="fetched/leases/x", Body=b"no result")
    assert fetch_from_bucket(bucket, target, checkpoints=False).num_files == 0
    fetch_from_bucket(bucket, target, checkpoints=True)
    assert (target / "cams/c/checkpoints/epoch_0001.pt").read_text() == "weights"
    assert fetch_from_bucket(bucket, target, checkpoints=True).num_files == 0
    with pytest.raises(StoreError, match="name the sweep's own store with --store"):
        fetch_from_bucket(f"{bucket}/elsewhere", tmp_path / "none", checkpoints=False)
    assert not (tmp_path / "none").exists()


RSYNC_DOWN = """\
#!/usr/bin/env python
import fnmatch, shutil, sys, yaml
word, cluster, source, target = sys.argv[1:]
assert word == "rsync-down"
config = yaml.safe_load(open(cluster))
assert config["cluster_name"] == "mine", "no such cluster"
shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(
    *(pattern.lstrip("/") for pattern in config["rsync_exclude"])))
"""
"""Stands for `ray rsync-down` where there is neither SSH nor rsync: copies on this machine."""


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    ray = tmp_path / "ray"
    ray.write_text(RSYNC_DOWN.replace("/usr/bin/env python", sys.executable))
    ray.chmod(ray.stat().st_mode | stat.S_IXUSR)
    path = tmp_path / "cluster.mine.yaml"
    path.write_text(yaml.safe_dump({"cluster_name": "mine", "rsync_exclude": ["x"]}))
    return path


def copied(store: str, target: Path, cluster: Path, *, checkpoints: bool = False) -> Fetched:
    """Fetch a store from the head, by the `ray` beside a cluster's file."""
    ray = cluster.with_name("ray")
    return fetch_by_rsync(store, target, cluster, checkpoints=checkpoints, ray=ray)


def test_a_folder_on_the_head_is_fetched_without_weights_and_finished_results_stay(
    cluster_file: Path, tmp_path: Path
) -> None:
    there, target = tmp_path / "there", tmp_path / "here"
    notes = (
        "ray/state",
        "mlflow.db",
        "sweeps/n/driver.lock",
        "runs/b/x.json.partial7",
        ".synced/x",
    )
    write(there, FILES | dict.fromkeys(notes, "no"))
    write(target, {**HERE, ".fetch/store/x": "of a killed call"})
    fetched = copied(str(there), target, cluster_file)
    check_fetched(target, fetched)
    assert {path.name for path in target.iterdir()} == {
        *("cams", "headline", "ray", "runs", "sweeps"),
        "..fetch.lock",
    }
    for store, where in ((there, "there"), (target, "here")):
        write(store, {f"{room}/x/done.json": where for room in ("labels", "segmentations")})
    copied(str(there), target, cluster_file)
    assert {path.read_text() for path in target.glob("*/x/done.json")} == {"here"}
    copied(str(there), target, cluster_file, checkpoints=True)
    assert (target / "cams/c/checkpoints/epoch_0001.pt").read_text() == "weights"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cluster_name: mine", r"(?s)rsync-down.*No such file or directory: '/there/'"),
        *(
            (c, "mine.yaml: not a cluster conf.* --cluster")
            for c in ("- no\n", "a: [", "", "a: 2001-99-99")
        ),
        (None, "give the file of `ray up` with --cluster"),
    ],
)
def test_why_a_folder_on_the_head_cannot_be_fetched_is_said(
    cluster_file: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    cluster_file.unlink() if content is None else cluster_file.write_text(content)
    with pytest.raises(JobError, match=said):
        copied("/there", tmp_path / "here", cluster_file)
