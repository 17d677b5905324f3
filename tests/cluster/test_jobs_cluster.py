"""A laptop's commands against a real head with token authentication."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_for

from sweeps.store.code_version import commit as commit_here

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

FAKE = """
import json, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
if len(sys.argv) > 1 and sys.argv[1] == "run":
    print("arguments", json.dumps(sys.argv[1:]), flush=True)
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(".") for name in names)
    print("files", json.dumps(sorted(paths)), os.environ["WSSS_COMMIT"], flush=True)
    try:
        while not os.path.exists("GATE"):  # a busy machine submits slowly
            time.sleep(0.1)
        for i in range(NUM):
            print("line", i, flush=True)
            open("GATE.open", "w").close()
            time.sleep(0.2)
    except KeyboardInterrupt:
        time.sleep(4)  # longer than Ray waits unless told otherwise
        print("checkpoint written", flush=True)
        sys.exit(130)
    sys.exit(7)
"""
HERE = Path(__file__).parents[2]


def free_ports(count: int) -> list[int]:
    """Ports below the range that the kernel gives out, and outside Ray's worker range."""
    found: list[int] = []
    start = 20000 + secrets.randbelow(8000)
    for port in range(start, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a laptop beside a running head; the head has no CPUs, as in a cluster."""
    folder = Path("/tmp") / f"wj{secrets.token_hex(3)}"  # Ray's socket paths must be short
    folder.mkdir()
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    ports = free_ports(9)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "WSSS_STORE"))}
    environment = clean | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    names = (
        "port",
        "dashboard-port",
        "ray-client-server-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "metrics-export-port",
        "node-manager-port",
        "object-manager-port",
        "runtime-env-agent-port",
    )
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        "--num-cpus=0",
        "--dashboard-host=127.0.0.1",
        f"--temp-dir={folder}",
        "--disable-usage-stats",
        "--min-worker-port=33000",
        "--max-worker-port=33999",
        *(f"--{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{ports[1]}"
    laptop = environment | {
        "WSSS_ADDRESS": address,
        "WSSS_CLUSTER_PYTHON": sys.executable,
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1",
    }
    try:
        deadline = time.monotonic() + 120
        while (
            not is_open(ports[1]) or "no sweep was submitted" not in sweeps(laptop, "logs").stderr
        ):
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline, (folder / "head.log").read_text()
            time.sleep(0.5)
        yield laptop
    finally:
        process.send_signal(signal.SIGTERM)  # ends all that it started
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def is_open(port: int) -> bool:
    """Whether somebody listens: asking a whole command in vain takes seconds."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def sweeps(laptop: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweeps", *words],
        env=laptop,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def fake_project(folder: Path, num_lines: int) -> Path:
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / "__init__.py").touch()
    (folder / "sweeps" / "__main__.py").write_text(
        FAKE.replace("NUM", str(num_lines)).replace("GATE", f"{folder}/go")
    )
    (folder / ".gitignore").write_text("/data/\n*.log\n")
    for name in (".env", "run.log", "notes.txt"):
        (folder / name).write_text("text")
    return folder


def submit(
    laptop: dict[str, str], project: Path, *words: str, data: str = "/data"
) -> subprocess.CompletedProcess[str]:
    common = ["--data", data, "--preset", "tiny", "--working-dir", str(project)]
    return sweeps(laptop, "submit", *words, *common)


def test_a_stopped_job_has_time_to_checkpoint_and_says_how_to_resume(
    head: dict[str, str], tmp_path: Path
) -> None:
    project = fake_project(tmp_path / "p", 3000)
    (project / "go").touch()
    assert submit(head, project, "V", "--no-follow", "--id", "two").returncode == 0
    wait_for((project / "go.open").exists, seconds=60)
    stopped = sweeps(head, "stop", "two")
    assert stopped.returncode == 0
    assert " -m sweeps submit V --preset tiny --data /data --address" in stopped.stderr
    assert sweeps(head, "logs", "two", "--tail", "1").stdout == "checkpoint written\n"
    assert "STOPPED exit 130" in sweeps(head, "jobs").stdout


def test_the_project_goes_along_and_a_fetch_asks_for_the_store_and_for_the_cluster_file(
    head: dict[str, str], tmp_path: Path
) -> None:
    project = fake_project(tmp_path / "p", 1)
    (project / "go").touch()
    done = submit(
        head, project, "V", "--id", "three", "--store", "/shared/some store", data="drawn"
    )
    assert done.returncode == 7, done.stderr
    assert "line 0\n" in done.stdout
    again = sweeps(head, "attach", "three")
    assert (again.returncode, again.stdout) == (7, done.stdout)
    line = next(line for line in done.stdout.splitlines() if line.startswith("files "))
    names, _, commit = line.removeprefix("files ").rpartition(" ")
    came = set(json.loads(names))
    # Drawn data, and neither secrets nor ignored files.
    assert {name for name in came if "/data/" not in name and "__pycache__" not in name} == {
        "./.gitignore",
        "./go",
        "./notes.txt",
        "./sweeps/__init__.py",
        "./sweeps/__main__.py",
    }
    assert "./data/drawn/ImageSets/Segmentation/train.txt" in came
    assert commit == commit_here()
    fetched = sweeps(head, "fetch", "--to", str(tmp_path / "here"), "--cluster", "no.yaml")
    assert fetched.returncode == 2
    assert "/shared/some store: by `ray rsync-down no.yaml`" in fetched.stderr
    assert "give the file of `ray up` with --cluster" in fetched.stderr


def test_a_project_that_is_too_large_is_refused_and_its_large_files_are_named(
    head: dict[str, str], tmp_path: Path
) -> None:
    project = fake_project(tmp_path / "p", 1)
    with (project / "big.bin").open("wb") as file:
        file.truncate(101 * 2**20)
    done = submit(head, project, "V", "--no-follow")
    assert done.returncode == 2
    assert "larger than the 100 MiB" in done.stderr
    assert "big.bin is very large" in done.stderr


def test_a_wrong_and_a_missing_token_are_refused_and_not_printed(head: dict[str, str]) -> None:
    without = {k: v for k, v in head.items() if k != "RAY_AUTH_TOKEN_PATH"}
    wrong = "f" * 64
    for laptop in (
        without | {"RAY_AUTH_TOKEN": wrong},
        without | {"RAY_AUTH_MODE": "disabled"},
        head | {"RAY_AUTH_TOKEN_PATH": "/no/token"},
    ):
        done = sweeps(laptop, "jobs")
        assert done.returncode == 2
        assert "token is not the cluster's, or none is sent; export RAY_AUTH_MODE" in done.stderr
        assert wrong not in done.stdout + done.stderr
