"""Checks of one machine and of reports made up by hand; test_jobs_cluster.py has the cluster's."""

import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import sweeps
from made_up.bucket_server import BUCKET

from sweeps.cluster.doctor import nodes
from sweeps.cluster.doctor.check import Check, from_json, to_json
from sweeps.cluster.doctor.machine import (
    Service,
    check_data,
    check_job_server,
    check_mlflow,
    check_ports,
    check_store,
    check_token,
    check_versions,
    installed,
    listening,
    locked_versions,
)
from sweeps.cluster.doctor.nodes import NodeReport, check_report, quick_fingerprint, same, try_store


@contextmanager
def server(status: int) -> Iterator[int]:
    """An HTTP server on loopback that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        yield listener.server_port
        listener.shutdown()


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_a_missing_and_another_version_are_named(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    numpy = installed("numpy")
    lock.write_text(f"# comment\nnumpy=={numpy}\ntorch==0.0.1\nno-such-thing==1\n")
    locked = locked_versions(lock)
    assert locked == {"numpy": numpy, "torch": "0.0.1", "no-such-thing": "1"}
    python, packages = check_versions(locked)
    assert python.found == ".".join(map(str, sys.version_info[:3]))
    assert packages.state == "problem"
    assert "torch" in packages.found
    assert "numpy" not in packages.found


@pytest.mark.usefixtures("port", "mirror")
def test_of_a_folder_the_disk_is_looked_at_but_not_of_a_bucket(tmp_path: Path) -> None:
    assert set(states(check_store(str(tmp_path / "s")))) == {"store", "disk"}
    assert states(check_store(f"s3://{BUCKET}/doctor")) == {"store": "ok"}
    assert states(check_store("s3://elsewhere/doctor")) == {"store": "problem"}


def test_a_token_that_others_can_read_is_a_problem_and_never_shown(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-words")
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    token.chmod(0o644)
    checks = check_token(env)
    assert states(checks) == {"authentication": "ok", "token file": "problem"}
    assert "secret-words" not in to_json(checks)
    token.chmod(0o600)
    assert states(check_token(env))["token file"] == "ok"
    token.unlink()
    assert states(check_token(env))["token file"] == "problem"
    assert states(check_token({"RAY_AUTH_TOKEN_PATH": str(token)})) == {"authentication": "warning"}


def test_a_data_set_is_named_by_its_fingerprint_and_a_missing_one_is_a_problem(
    drawn: Path, tmp_path: Path
) -> None:
    found = check_data(drawn, ["train", "train_aug"])
    assert found.state == "ok"
    assert "train 10, train_aug 16" in found.found
    assert check_data(tmp_path, ["train"]).state == "problem"
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "classes.txt").write_text("background\n")
    assert "remove the line" in check_data(tmp_path, ["train"]).found


def test_listening_ports_are_found_with_their_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as other:
            found = listening()
            assert found[port] == {"127.0.0.1"}
            assert other.getsockname()[1] not in found


def test_loopback_is_fine_and_an_open_port_without_token_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gcs = (Service("GCS", 6379),)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert states(check_ports({6379: {"127.0.0.1", "::1"}}, gcs)) == {"GCS": "ok"}
    assert states(check_ports({6379: {"127.0.0.1", "0.0.0.0"}}, gcs)) == {"GCS": "problem"}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert states(check_ports({6379: {"0.0.0.0"}}, gcs)) == {"GCS": "ok"}
    assert check_ports({}, gcs) == []
    assert states(check_ports(None, gcs)) == {"open ports": "warning"}


ASKED: dict[str, tuple[Callable[[int], list[Check]], dict[int, str]]] = {
    "dashboard": (
        lambda port: check_ports({port: {"0.0.0.0"}}, (Service("dashboard", port, "/"),)),
        {200: "problem", 401: "ok", 403: "ok"},
    ),
    "job server": (
        lambda port: [check_job_server(f"http://127.0.0.1:{port}")],
        {200: "warning", 401: "ok", 403: "ok", 500: "problem"},
    ),
    "MLflow": (
        lambda port: [check_mlflow(f"http://me:word@127.0.0.1:{port}")],
        {200: "ok", 401: "ok", 404: "warning", 503: "warning"},
    ),
}
"""Server -> how it is checked, and the state by what a stranger's request gets."""


@pytest.mark.parametrize("name", ASKED)
def test_a_server_is_asked_as_a_stranger_and_its_password_not_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.cluster.doctor.machine.own_address", lambda: "127.0.0.1")
    check, expected = ASKED[name]
    for status, state in expected.items():
        with server(status) as port:
            (found,) = check(port)
        assert (found.name, found.state) == (name, state)
        assert "word" not in found.found.replace("password", "")
    (silent,) = check(9)
    assert silent.state != "ok"
    assert "answer" in silent.found


def test_an_address_that_mlflow_does_not_take_is_said() -> None:
    check = check_mlflow("localhost:5000")
    assert check.state == "warning"
    assert check.remedy.startswith("set MLFLOW_TRACKING_URI to http://HOST:PORT")


def report(**change: Any) -> NodeReport:
    same: dict[str, Any] = {
        "versions": {"torch": "2"},
        "data": "",
        "weights": "",
        "free_bytes": 100 * 2**30,
        "gpus": 0,
        "clock": 10.0,
        "lost": "",
    }
    return NodeReport(**(same | change))


def test_a_node_without_a_home_is_reported_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in ("/nonexistent", "/no/such/home"):
        monkeypatch.setenv("HOME", home)
        assert nodes.report_of("n1", [], "", "", None).free_bytes > 0


@pytest.mark.parametrize(
    ("change", "gpus", "wrong"),
    [
        ({}, 0, {}),
        ({}, 2, {"GPUs": "problem"}),
        ({"versions": {"torch": "1"}}, 0, {"packages": "problem"}),
        ({"free_bytes": 2**30}, 0, {"disk": "problem"}),
        ({"free_bytes": 10 * 2**30}, 0, {"disk": "warning"}),
        ({"gpus": 1}, 0, {"GPUs": "warning"}),
        ({"clock": 14.0}, 0, {"clock": "problem"}),
        ({"clock": 12.5}, 0, {}),
    ],
)
def test_what_differs_on_a_node_is_found(
    change: dict[str, Any], gpus: int, wrong: dict[str, str]
) -> None:
    checks = check_report(report(**change), {"torch": "2"}, gpus, "n1", sent=9.0, received=11.0)
    assert {c.name: c.state for c in checks if c.state != "ok"} == wrong
    assert {c.node for c in checks} == {"n1"}


@pytest.mark.parametrize(
    "changed",
    [
        "JPEGImages/*.jpg",
        "Annotations/*.xml",
        "SegmentationClass/*.png",
        "ImageSets/Segmentation/*.txt",
        "classes.txt",
    ],
)
def test_any_changed_part_of_a_data_set_changes_the_quick_fingerprint(
    drawn: Path, tmp_path: Path, changed: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(drawn, copy)
    (copy / "JPEGImages/._of_macos.jpg").touch()
    assert quick_fingerprint(copy) == quick_fingerprint(drawn)
    path = [copy / changed, *sorted(copy.glob(changed))][-1]
    with path.open("ab") as file:
        file.write(b"\n")
    assert quick_fingerprint(copy) != quick_fingerprint(drawn)
    assert quick_fingerprint(tmp_path / "none") == "missing"


def test_a_node_writes_beside_the_file_of_the_one_that_asks_if_it_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    monkeypatch.setattr("time.sleep", lambda _: asked.touch())  # as NFS, after a while
    assert try_store(asked, "n1") == ""
    assert (tmp_path / "asked-n1").exists()
    assert try_store(asked, "n" * 300) == "write (File name too long)"
    monkeypatch.setattr("time.monotonic", iter(range(0, 1000, 10)).__next__)
    assert try_store(tmp_path / "unseen", "n1") == "read what was written here"


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"NodeManagerHostname": "a", "Alive": True, "Resources": {}}
    monkeypatch.setattr("ray.nodes", lambda: [{"NodeID": name, **node} for name in ("n1", "n2")])


@pytest.mark.usefixtures("two_nodes")
def test_two_may_check_one_store_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(ids: list[str], *arguments: Any) -> dict[str, Any]:
        monkeypatch.setattr(nodes, "ask_each", lambda *_: {})
        nodes.check_nodes({}, "", "", str(tmp_path))  # the other begins and ends
        return {name: report(lost=try_store(arguments[-1], name)) for name in ids}

    monkeypatch.setattr(nodes, "ask_each", ask)
    assert states(nodes.check_nodes({}, "", "", str(tmp_path)))["store on nodes"] == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("two_nodes")
def test_weights_are_looked_for_on_each_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"1234")

    def ask(ids: list[str], *arguments: Any) -> dict[str, Any]:
        first = nodes.report_of(ids[0], *arguments)
        file.unlink()
        return {ids[0]: first, ids[1]: nodes.report_of(ids[1], *arguments)}

    monkeypatch.setattr(nodes, "ask_each", ask)
    check = nodes.check_nodes({}, "", str(file), "")[-1]
    assert (check.name, check.state) == ("weights on nodes", "problem")
    assert check.found == "4 bytes on a n1; missing on a n2"


def test_nodes_with_other_data_are_named() -> None:
    assert same("data", {"a": "1", "b": "1"}).state == "ok"
    other = same("data", {"a": "1", "b": "2", "c": "1"})
    assert (other.state, other.found) == ("problem", "1 on a, c; 2 on b")
    assert same("data", {"a": "missing", "b": "missing"}).state == "problem"


def test_the_command_prints_json_and_fails_on_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    here = str(tmp_path / "here")
    asked = ("doctor", "--json", "--working-dir", tmp_path)
    common = (*asked, "--store")
    good = sweeps(*common, tmp_path / "s")
    assert "store" in states(from_json(good.stdout))
    environment = {check.name: check for check in from_json(sweeps(*asked, WSSS_STORE=here).stdout)}
    assert environment["store"].found.startswith(here)
    dead = sweeps(*common, tmp_path / "s", "--address", "127.0.0.1:9")
    found = {check.name: check for check in from_json(dead.stdout)}
    assert found.keys() > states(from_json(good.stdout)).keys()
    assert "nothing listens there" in found["cluster"].found
    assert "`ray status` on the head" in found["cluster"].remedy
    assert dead.exit_code == 1
    (tmp_path / "file").write_text("")
    assert sweeps(*common, tmp_path / "file").exit_code == 1
