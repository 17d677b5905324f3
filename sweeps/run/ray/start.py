"""Ray is started on this machine, or a cluster is joined; its head is watched from then on."""

import gc
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from sweeps.run.ray.address import join
from sweeps.run.ray.resources import CapacityError, Resources
from sweeps.run.signals import as_ctrl_c, handled, held_back
from sweeps.store.errors import StoreError
from wsss.training.execution import let_children_keep_memory, usable_cpus


@contextmanager
def running_ray(resources: Resources) -> Iterator[None]:
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
            # Ray ends a process in which its references are collected afterwards, by any thread.
            gc.collect()
            ray.shutdown()


def start_ray(resources: Resources) -> None:
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
        join(resources.address, quiet)
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
                runtime_env=_python_for_workers(),
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
    count = usable_cpus()
    if count == os.cpu_count():
        return None
    words = quota.read_text(encoding="ascii").split() if quota.is_file() else []
    if len(words) == 2 and words[0].isdecimal():
        count = min(count, int(words[0]) // int(words[1]))
    return max(1, count)


def _python_for_workers() -> dict[str, str] | None:
    """Return how workers call Python if a shell would split the path of ours; None: as Ray does.

    Ray gives the path to bash as it is: with a space in it, no worker ever started.
    """
    word = shlex.quote(sys.executable)
    return None if word == sys.executable else {"py_executable": word}


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
    for each in ("RAY_TMPDIR", "TMPDIR"):
        # A relative one, or an empty one, would be another folder for each of Ray's processes.
        if value := os.environ.pop(each, ""):
            os.environ[each] = str(Path(value).absolute())
    temporary = os.environ.get("TMPDIR", SHORT)
    if _is_long(temporary):
        os.environ.setdefault("RAY_TMPDIR", SHORT)
        os.environ["TMPDIR"] = os.environ["RAY_TMPDIR"]
    _require_usable(Path(os.environ.get("RAY_TMPDIR", temporary)))


def _is_long(folder: str | Path) -> bool:
    return len(os.fsencode(folder)) > MAX_BYTES


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


def _require_usable(folder: Path) -> None:
    """Raise StoreError unless Ray can keep its sockets in a folder, which is made."""
    if _is_long(folder):
        raise StoreError(f"{folder}: too long for Ray's sockets; {REMEDY}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}; {REMEDY}") from None
    rays = folder / "ray"  # Ray's own, perhaps of another user
    written = rays if rays.is_dir() else folder
    if not os.access(written, os.W_OK | os.X_OK):
        raise StoreError(f"{written}: not writable for Ray's sockets; {REMEDY}")


@contextmanager
def watched_head(
    on_lost: Callable[[str], object],
    address: str = "",
    *,
    between: float = 5.0,
    limit: float = 20.0,
) -> Iterator[None]:
    """Call a function once, in a thread, when nothing has listened at the head for some time.

    Ray cannot go on without its head: a minute after the loss it ends every process that uses it,
    with a line that says nothing of the sweep. So a person is told before.

    on_lost: is given the address. address: HOST:PORT; default: that of the cluster in use.
    between: seconds from one look to the next, and the longest wait for its answer. limit: seconds
    without an answer until the head counts as lost, within the minute after which Ray ends all.
    """
    if not address:
        import ray

        address = ray.get_runtime_context().gcs_address
    host, _, port = address.rpartition(":")
    ended = Event()

    def watch() -> None:
        silent = 0.0
        while silent < limit:
            if ended.wait(between):
                return
            try:
                socket.create_connection((host.strip("[]"), int(port)), between).close()
                silent = 0.0
            except OSError:
                silent += between
        on_lost(address)

    thread = Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(between)
