"""Ray is started on this machine, or a cluster is joined; with a remedy where neither can be.

`ray.init` itself waits for minutes where no cluster is, says little of the reason, and leaves
threads behind. So `check_cluster` lets a process of its own try it first, which is ended when it
takes too long. Commands call it before they read data or plan, which may take minutes.
"""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.run.stopping import as_ctrl_c, handled, held_back
from sweeps.store.errors import StoreError
from wsss.errors import ForeseenError
from wsss.training.execution import let_children_keep_memory
from wsss.waiting import within

if TYPE_CHECKING:  # it checks addresses here
    from sweeps.run.ray.resources import Resources


class CapacityError(StoreError):
    """A trial asks for what the cluster can never give it."""


class ClusterError(ForeseenError):
    """A Ray cluster that cannot be joined."""


@contextmanager
def running_ray(resources: "Resources") -> Iterator[None]:
    """Join or start Ray, and leave or end it. Signals wait until either is done.

    Raises as `start_ray` does.
    """
    import ray

    try:
        with held_back():
            start_ray(resources)
        with as_ctrl_c():  # instead of Ray's own handler
            yield
    finally:
        with held_back():
            ray.shutdown()


def start_ray(resources: "Resources") -> None:
    """Join the cluster at resources.address, which was checked, or start Ray on this machine.

    Raises ClusterError if the cluster has gone since, CapacityError for GPUs on a machine where
    torch finds none, StoreError if there is no folder for its sockets or the machine is too busy
    for Ray to start.
    """
    import ray

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if resources.address is not None:
        _join(resources.address, quiet)
        return
    let_children_keep_memory()
    prepare_machine()
    # A bare ray.init() may join somebody else's cluster. The dashboard is only for Train's cleaner.
    num_gpus = _gpus_here(resources.gpus) if resources.gpus else None
    # A terminal that closes sends SIGHUP to Ray's processes too, which still have work to end.
    with handled([signal.SIGHUP], signal.SIG_IGN):
        started(
            lambda: ray.init(
                "local",
                num_cpus=_cpus_here(),
                num_gpus=num_gpus,
                include_dashboard=not resources.inline,
                **quiet,
            ),
            end=ray.shutdown,
        )


def _cpus_here(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Return how many CPUs this process may use if those are not all; None: Ray counts them.

    Ray knows the quota of a container, but no set of CPUs, as SLURM, taskset and
    `docker --cpuset-cpus` give: it would run a trial on each CPU of the whole machine. quota: of
    cgroups v2, `150000 100000` for 1.5 CPUs or `max 100000`.
    """
    count = len(os.sched_getaffinity(0))
    if count == os.cpu_count():
        return None
    words = quota.read_text(encoding="ascii").split() if quota.is_file() else []
    if len(words) == 2 and words[0].isdecimal():
        count = min(count, int(words[0]) // int(words[1]))
    return max(1, count)


def _gpus_here(asked: float) -> int:
    """Return how many GPUs torch can use on this machine; refuse if there are none."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    built = torch.version.cuda or torch.version.hip
    hint = "see `nvidia-smi` and CUDA_VISIBLE_DEVICES" if built else "it is built without CUDA"
    raise CapacityError(
        f"--gpus {asked:g}: torch {torch.__version__} finds no GPU on this machine ({hint}); leave "
        "out --gpus (GPUS=0 with make) to train on its CPUs, or name a Ray cluster that has GPUs "
        "with --address"
    )


# On this machine


STARTS = 3
"""Attempts to start Ray, which gives a part of itself 15 seconds that no setting lengthens (Ray's
issue 65983): too few on a machine with much other work."""
TOO_SLOW = ("timed out during startup", "Failed to start GCS")
"""What Ray's bare exceptions then say, one of them."""
TOKEN = secrets.token_hex(32)
"""One for the life of the process: Ray reads it once, and a second start with another would end in
"Failed to start GCS"."""

MAX_BYTES = 40
"""A socket's path may have 107 bytes. Ray appends up to 67, as in
/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store."""
REMEDY = (
    f"set RAY_TMPDIR to a folder that you may write to, whose path has at most {MAX_BYTES} bytes"
)
SHORT = "/tmp"


def prepare_machine() -> None:
    """Let Ray keep its sockets where paths are short, and write no token into the home.

    For this process and those that it starts. Raises StoreError if there is no short folder in
    which Ray can write.
    """
    # Ray writes a token that it lacks into ~/.ray, which may be read-only. With it there, every
    # `ray start` of this user would ask for that token.
    os.environ.setdefault("RAY_AUTH_TOKEN", TOKEN)
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name) or SHORT
    if _is_long(folder):
        if name == "RAY_TMPDIR" or not os.access(SHORT, os.W_OK | os.X_OK):
            raise StoreError(f"{name}={folder}: too long for Ray's sockets; {REMEDY}")
        os.environ["RAY_TMPDIR"] = folder = SHORT
    _require_writable(Path(folder), name)
    if _is_long(os.environ.get("TMPDIR") or SHORT):
        os.environ["TMPDIR"] = folder


def _is_long(folder: str) -> bool:
    return len(os.fsencode(Path(folder).absolute())) > MAX_BYTES


def started(start: Callable[[], object], end: Callable[[], object]) -> None:
    """Start Ray; where it was too slow for itself, say so, end what it left, start it again.

    Raises StoreError if it is so STARTS times. Any other error is let through.
    """
    for attempt in range(1, STARTS + 1):
        try:
            start()
            return
        except Exception as error:  # Ray raises no kind of its own here
            if not any(words in str(error) for words in TOO_SLOW):
                raise
            print(f"Ray was too slow to start, {attempt} of {STARTS} times", file=sys.stderr)
            end()
    raise StoreError(
        f"Ray was too slow for its own time limit, {STARTS} times: this machine is too busy; give "
        "the same command again when it has less to do, or join a cluster with --address"
    )


def _require_writable(folder: Path, name: str) -> None:
    """Raise StoreError unless Ray can write in a folder, which is made, and in its own one there.

    name: the variable that the folder comes from.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{name}={folder}: {error.strerror}; {REMEDY}") from None
    rays = folder / "ray"
    if rays.is_dir() and not os.access(rays, os.W_OK | os.X_OK):
        raise StoreError(f"{rays}: another user's, and Ray keeps its sockets there; {REMEDY}")
    if not rays.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"{name}={folder}: not writable; {REMEDY}")


# A cluster


CONNECT_LIMIT_S = 4.0
"""Longest wait for one address of a host to accept a connection."""
HOST_LIMIT_S = 8.0
"""Longest wait for a host: for its name, for any of its addresses, and for what it says."""
JOIN_LIMIT_S = 15
"""Longest wait until the cluster is joined; on a busy machine it takes some five seconds."""
LOAD_LIMIT_S = 45
"""Longest wait before that until Ray is imported, which takes two seconds of computing."""
TRY = """
import ray, signal, sys
signal.alarm(int(sys.argv[2]))
ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)
"""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What opens a connection of HTTP/2, in which Ray's GCS speaks: a fixed text and a frame SETTINGS
(RFC 9113, 3.4); the answer begins with such a frame."""
SETTINGS = 4
"""Type of that frame, its fourth byte."""
SOONER = {"RAY_gcs_server_request_timeout_seconds": "10", "RAY_NUM_REDIS_GET_RETRIES": "3"}
"""Ray's variables, so that it names its reason before JOIN_LIMIT_S."""
VARIABLE = "RAY_ADDRESS"
"""Ray takes it for `auto`."""
TLS = "RAY_USE_TLS"
"""At "1", Ray speaks through TLS."""
OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Marks the one process that a submitted job runs."""
HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
TOKEN_PLACES = "RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"


def check_address(address: str) -> None:
    """Raise ClusterError unless this is `auto` or HOST:PORT; connects to nothing.

    Where `auto` means RAY_ADDRESS, that is checked in its place.
    """
    meant, given = _meant(address)
    if meant == "auto":
        return
    match = HOST_AND_PORT.fullmatch(meant)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ClusterError(f"{given}: {_wrong_form(meant)}; {_remedy(given)}")


def check_cluster(address: str) -> None:
    """Raise ClusterError, with its reason and what to do, unless a cluster can be joined."""
    check_address(address)
    meant, given = _meant(address)
    if match := HOST_AND_PORT.fullmatch(meant):
        _check_port(match["host"].strip("[]"), int(match["port"]), given)
    environment = {key: value for key, value in os.environ.items() if key != OF_A_JOB} | SOONER
    command = [sys.executable, "-c", TRY, meant, str(JOIN_LIMIT_S)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOAD_LIMIT_S + JOIN_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"{given}: Ray was not loaded within {LOAD_LIMIT_S} s, so whether a cluster answers "
            "there is not known: this machine is too busy; give the same command again when it has "
            "less to do"
        ) from None
    if done.returncode:
        raise ClusterError(refusal(given, done.stderr.decode(errors="replace")))


def _meant(address: str) -> tuple[str, str]:
    """Return the address that Ray will take, and what to call it in an error."""
    variable = os.environ.get(VARIABLE)
    if address == "auto" and variable:
        return variable, f"--address auto, {VARIABLE} {variable}"
    return address, f"--address {address}"


def _remedy(given: str) -> str:
    if VARIABLE in given:
        return f"unset {VARIABLE}, or set it to HOST:PORT of the cluster's head, e.g. 10.0.0.1:6379"
    return (
        "give `--address auto` on a node of the cluster, or HOST:PORT of its head, e.g. "
        "10.0.0.1:6379; without --address Ray is started on this machine"
    )


def _wrong_form(address: str) -> str:
    if address.startswith(("http://", "https://")):
        return "this is a job server, which only `sweeps submit` and its like take"
    if address.startswith("ray://"):
        return "trials cannot be driven through a Ray Client"
    return "no address of a Ray cluster"


def _check_port(host: str, port: int, given: str) -> None:
    """Raise ClusterError unless something listens there, and speaks as a Ray cluster does."""
    is_connected = False

    def first_bytes() -> bytes:
        nonlocal is_connected
        with socket.create_connection((host, port), timeout=CONNECT_LIMIT_S) as line:
            is_connected = True
            if os.environ.get(TLS) == "1":
                return bytes([0, 0, 0, SETTINGS])  # only Ray knows its certificates
            line.sendall(GREETING)
            return line.recv(4)

    remedy = f"`ray status` on the head says whether Ray runs; {_remedy(given)}"
    try:
        said = within(HOST_LIMIT_S, first_bytes)  # to look up a name has no limit of its own
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        what = "something else than Ray listens" if is_connected else "nothing listens"
        raise ClusterError(f"{given}: {what} there ({why}); {remedy}") from None
    if said[3:] != bytes([SETTINGS]):
        raise ClusterError(f"{given}: something else than Ray listens there; {remedy}")


def _join(address: str, options: dict[str, Any]) -> None:
    """Join a cluster that was checked before. Raises ClusterError if it has gone since.

    Ray itself would wait for minutes. options: of `ray.init`.
    """
    import ray

    _, given = _meant(address)
    try:
        within(JOIN_LIMIT_S, lambda: ray.init(address, **options))
    except TimeoutError:
        raise ClusterError(
            f"{given}: the cluster does not answer any more; `ray status` on the head says whether "
            f"Ray runs; {_remedy(given)}"
        ) from None
    except Exception as error:  # Ray raises many kinds here
        said = "".join(traceback.format_exception(error))
        raise ClusterError(refusal(given, said)) from None


def refusal(given: str, said: str) -> str:
    """Return an error and its remedy from all that Ray has printed; given: the address."""
    if "Version mismatch" in said:
        versions = re.findall(r"^ +(?:Ray|Python): (\S+)", said, flags=re.MULTILINE)[:4]
        there, here = versions[:2], versions[2:]
        return (
            f"{given}: the cluster has Ray {' and Python '.join(there)}, this environment Ray "
            f"{' and Python '.join(here)}; `make setup` installs the versions of "
            "requirements.lock: give it on this machine and on all nodes, and restart Ray"
        )
    if "AuthenticationError" in said:
        return token_trouble(given, said)
    if "No node info found" in said:
        return (
            f"{given}: this machine is no node of the cluster; give the command on its head with "
            "--address auto, or use `sweeps submit` from here"
        )
    if "Could not find any running Ray instance" in said:
        return (
            f"{given}: no Ray cluster runs on this machine; start one with `ray start --head`, "
            "give HOST:PORT of another's head, or leave --address out"
        )
    if given == "--address auto" and (tried := re.search(r"at (?:address )?(\S+:\d+)", said)):
        return (
            f"{given}: Ray's note of the last cluster on this machine names {tried[1]}, where none "
            "answers; start one with `ray start --head`, or give HOST:PORT of another's head"
        )
    last = said.strip().splitlines()[-1:]
    why = f"; Ray says: {last[0]}" if last and "Error: " in last[0] else ""
    return f"{given}: no Ray cluster answers there{why}; {_remedy(given)}"


def token_trouble(address: str, message: str) -> str:
    """Explain a refused token without repeating anything of it; message: Ray's own words."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if "Forbidden" in message:
        return (
            f"{address}: this machine's token is not the cluster's; copy the token file with which "
            f"the cluster was started (Ray takes the first of {TOKEN_PLACES})"
        )
    if "cannot be opened or is empty" in message:
        return (
            f"{address}: the token file is missing or empty (Ray takes the first of {TOKEN_PLACES})"
        )
    if mode != "token":
        return (
            f"{address}: the cluster wants a token and RAY_AUTH_MODE is {mode or 'not set'} here; "
            f"export RAY_AUTH_MODE=token; the token is the first of {TOKEN_PLACES}"
        )
    return (
        f"{address}: the cluster wants its token, and there is none or another one here; copy the "
        f"file with which the cluster was started (Ray takes the first of {TOKEN_PLACES})"
    )
