"""How a sweep starts or joins Ray, and which initial weights it tries before that."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ray._private.runtime_env.context import RuntimeEnvContext
from ray.core.generated.common_pb2 import Language

from sweeps.run.driver import download_weights
from sweeps.run.ray import start as starting
from sweeps.run.ray.address import ClusterError, Limits, check_cluster, join, refusal
from sweeps.run.ray.resources import CapacityError, Resources
from sweeps.run.ray.start import started
from sweeps.store.errors import StoreError
from wsss.config import NetworkConfig
from wsss.networks import backbone
from wsss.training.execution import SWITCH_VARIABLE

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What ray.init was given."""
    found: Calls = []
    monkeypatch.setattr("ray.init", lambda *words, **options: found.append((words, options)))
    monkeypatch.setenv(SWITCH_VARIABLE, "0")
    return found


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No RAY_ADDRESS of whoever runs the tests."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_ray_here_has_the_gpus_that_torch_can_use_if_gpus_are_asked_for(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for gpus in (0.5, 0.0):
        starting.start_ray(Resources(gpus=gpus))
    starting.start_ray(Resources(gpus=1.0, address="192.0.2.1:6379"))  # joined, and told of none
    assert [words for words, _ in calls] == [("local",), ("local",), ("192.0.2.1:6379",)]
    assert [options.get("num_gpus") for _, options in calls] == [3, None, None]


def test_ray_here_has_the_cpus_that_this_process_may_use(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for cpus in (16, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, n=cpus: set(range(n)))
        starting.start_ray(Resources())
    assert [options["num_cpus"] for _, options in calls] == [None, 3]
    quota = tmp_path / "cpu.max"
    for text, count in (("max 100000", 3), ("150000 100000", 1), ("50000 100000", 1), ("", 3)):
        quota.write_text(f"{text}\n")
        assert starting._cpus_here(quota) == count
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    starting.start_ray(Resources())
    assert calls[-1][1]["num_cpus"] is None


def test_workers_of_ray_start_where_the_path_to_python_has_spaces_and_quotes(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / """it's a "checkout" of $mine é""" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    for path in ("/usr/bin/python3", str(python)):
        monkeypatch.setattr(sys, "executable", path)
        starting.start_ray(Resources())
    (_, usual), (_, odd) = calls
    assert usual["runtime_env"] is None

    def run(program: str, args: list[str]) -> None:
        assert subprocess.check_output(args, text=True) == "a worker\n"

    monkeypatch.setattr(os, "execvp", run)
    context = RuntimeEnvContext(**odd["runtime_env"])
    context.exec_worker(["-c", "print('a worker')"], Language.PYTHON)


@pytest.mark.parametrize(("built", "hint"), [("13.0", "see `nvidia-smi`"), (None, "without CUDA")])
def test_gpus_are_refused_where_torch_finds_none_before_ray_is_started(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, built: str | None, hint: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(CapacityError, match=rf"--gpus 0\.5: torch .* no GPU .*{hint}.*--address"):
        starting.start_ray(Resources(gpus=0.5))
    assert calls == []


@pytest.mark.parametrize("slow", [0, 2, 3])
def test_a_ray_that_is_too_slow_for_itself_is_started_again_and_then_explained(
    slow: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = iter([Exception("The current node timed out during startup.")] * slow)
    ended: list[None] = []

    def start() -> None:
        if error := next(said, None):
            raise error

    if slow < 3:
        started(start, lambda: ended.append(None))
    else:
        with pytest.raises(StoreError, match="too busy; give the same command again"):
            started(start, lambda: ended.append(None))
    assert len(ended) == slow
    assert capsys.readouterr().err.count("too slow to start") == slow
    with pytest.raises(ValueError, match="no such thing"):
        started(lambda: int("no such thing"), lambda: pytest.fail("nothing to end"))


def test_a_cluster_that_dies_between_the_check_and_the_start_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Exception] = [ConnectionError("Failed to connect to GCS within 60 seconds")]

    def init(*_: Any, **__: Any) -> None:
        if said:
            raise said.pop()
        time.sleep(20)

    monkeypatch.setattr("ray.init", init)
    found = Resources(address="192.0.2.1:6379")
    with pytest.raises(ClusterError, match=r"192\.0\.2\.1:6379: no Ray .*ConnectionError: Failed"):
        starting.start_ray(found)
    with pytest.raises(ClusterError, match=r"does not answer any more; .*`--address auto`"):
        join("192.0.2.1:6379", {}, Limits(join=1))


@pytest.mark.parametrize(
    "address",
    [
        *("http://127.0.0.1:8265", "ray://10.0.0.1:10001", "ray:/10.0.0.1", "head", "local", ""),
        *("head:port", "head:70000", "user@head"),
    ],
)
def test_what_cannot_be_a_cluster_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with pytest.raises(ClusterError, match=rf"^--address {address}: no address .*HOST:PORT"):
        Resources(address=address)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=rf"RAY_ADDRESS {address}: no address .*unset"):
            Resources(address="auto")


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:6379", "head.lab:6379", "[::1]:6379"])
def test_an_address_that_a_cluster_can_have_is_taken(address: str) -> None:
    assert Resources(address=address).address == address


def test_a_port_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for host in ("127.0.0.1", "head..lab", "a" * 64):
        with pytest.raises(ClusterError, match=rf"^--address {host}:{port}: nothing listens"):
            check_cluster(f"{host}:{port}")


def test_a_host_whose_name_nobody_looks_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *where, **how: time.sleep(2))
    with pytest.raises(ClusterError, match=r"head\.lab:6379: nothing listens there \(no answer\)"):
        check_cluster("head.lab:6379", Limits(host=0.1))


def test_a_server_that_is_no_cluster_is_given_up() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ClusterError, match="no Ray cluster answers there; "),
    ):
        check_cluster(f"127.0.0.1:{silent.getsockname()[1]}", Limits(join=1))


REFUSALS = {
    "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\n"
    "This process on node 192.0.2.2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n": (
        "has Ray 2.9.0 and Python 3.10.1, this environment Ray 2.60.0 and Python 3.11.7; `make"
    ),
    "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: missing or incorrect": (
        "token is not the cluster's, or none is sent; export RAY_AUTH_MODE=token"
    ),
    "Traceback\nOSError: no more files": (
        "no Ray cluster answers there; Ray says: OSError: no more files; .*--address auto"
    ),
}
"""What Ray prints -> what is said of it."""


@pytest.mark.parametrize("said", REFUSALS)
def test_why_a_cluster_cannot_be_joined_is_said_with_a_remedy(said: str) -> None:
    (line,) = refusal("--address auto", said).splitlines()
    assert re.match(f"--address auto: .*{REFUSALS[said]}", line)


def test_each_kind_of_named_weights_is_loaded_once_and_no_file_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[str, str]] = []

    def build(network: NetworkConfig) -> None:
        tried.append((network.backbone, network.weights))

    monkeypatch.setattr(backbone, "build_backbone", build)
    networks = [
        NetworkConfig(backbone=name, weights=weights)
        for name in ("resnet18", "resnet50")
        for weights in ("none", "imagenet_v1", "imagenet_v1", f"sha256:{'0' * 64}")
    ]
    download_weights(networks)
    assert tried == [("resnet18", "imagenet_v1"), ("resnet50", "imagenet_v1")]
