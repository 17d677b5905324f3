"""Checks of one machine: versions, disks, store, token, data, GPUs, and what listens or answers."""

import ipaddress
import os
import platform
import re
import resource
import shutil
import socket
import stat
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from sweeps.cluster.doctor.check import Check, State
from sweeps.store.code_version import code_version, commit_of
from sweeps.store.store import open_store
from sweeps.track.address import without_password
from sweeps.track.faults import TrackingError, check_address
from wsss.basics.errors import ForeseenError
from wsss.basics.files import read_text
from wsss.basics.printable import command, counted
from wsss.config import DataConfig
from wsss.data.check import check_data_once
from wsss.data.voc import VocDataset

GIB = 2**30
LITTLE_DISK, NO_DISK = 20 * GIB, 2 * GIB
"""A tiny sweep takes some 100 MB, a table of resnet50 trainings tens of GB."""
LITTLE_SHM = GIB
"""With less /dev/shm Ray's object store falls back to disk, and batches go through pipes."""
MAX_LOCK_BYTES = 1 << 20
FEW_FILES = 8192
"""Open files per process that Ray asks for."""
MATTERING = ("torch", "torchvision", "ray", "mlflow", "numpy", "pillow", "pydantic", "scipy")
"""Packages whose version may change results or the format of what processes exchange."""
TIMEOUT_S = 5.0
JOBS_PATH = "/api/jobs/"
NO_ANSWER = "no answer"
REFUSALS = (401, 403)
"""Statuses of a server that wants a token or a password."""
MLFLOW_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"


Verdicts = Mapping[str, tuple[State, str]]
"""How a server answers a stranger (silent, open, broken) -> state and remedy; else it is ok."""


class Service(NamedTuple):
    """A port with a known meaning, and a path that tells whether it answers without a token."""

    name: str
    port: int
    path: str = ""
    """Path of a request; "" if the service does not speak HTTP."""


SERVICES = (
    Service("dashboard and job API", 8265, JOBS_PATH),
    Service("MLflow", 5000, MLFLOW_PATH),
    Service("Ray GCS", 6379),
    Service("Ray Client", 10001),
)


def locked_versions(lock: Path) -> dict[str, str]:
    """Read `name==version` lines; names in lower case. Raises ForeseenError for no text."""
    lines = read_text(lock, MAX_LOCK_BYTES, ForeseenError).splitlines()
    matches = (re.match(r"([\w.-]+)==(\S+)", line) for line in lines)
    return {match[1].lower(): match[2] for match in matches if match}


def check_versions(locked: Mapping[str, str]) -> list[Check]:
    """Compare the installed packages with the tested ones, and name Python's version."""
    other = {}
    for name, wanted in locked.items():
        found = installed(name)
        # A build tag such as +cpu or +cu130 is no other release.
        if found.partition("+")[0] != wanted and (found != "missing" or name in MATTERING):
            other[name] = f"{name} {found}, tested {wanted}"
    worst: State = "problem" if other.keys() & {*MATTERING} else "warning"
    words = "; ".join(other.values()) or f"{len(locked)} packages as tested"
    remedy = "`make setup` installs the versions of requirements.lock"
    return [
        Check("python", "ok", platform.python_version()),
        Check("packages", worst if other else "ok", words, remedy),
    ]


def installed(name: str) -> str:
    """Return a package's version, or "missing"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def check_store(address: str) -> list[Check]:
    """Write into the store, a folder or s3://bucket/prefix; look at a folder's free space."""
    try:
        open_store(address).check_writable()
    except ForeseenError as error:
        return [Check.of(error, "store")]
    checks = [Check("store", "ok", f"{address}: written and deleted")]
    if "://" not in address:
        checks.append(check_disk(shutil.disk_usage(address).free, f" at {address}"))
    return checks


def check_disk(free: int, where: str = "", node: str = "") -> Check:
    """Look at the free space of a disk, in bytes. where: the end of the words about it."""
    state: State = "problem" if free < NO_DISK else "warning" if free < LITTLE_DISK else "ok"
    remedy = "make room, or put the store elsewhere with --store"
    return Check("disk", state, f"{free / GIB:.1f} GiB free{where}", remedy, node)


def check_token(environment: Mapping[str, str]) -> list[Check]:
    """Look at Ray's authentication mode and the token file's mode; its content is never read."""
    mode = environment.get("RAY_AUTH_MODE", "")
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    text = f"RAY_AUTH_MODE is {mode or 'not set'}"
    state: State = "ok" if mode == "token" else "warning"
    remedy = "export RAY_AUTH_MODE=token where Ray starts and where you submit from"
    checks = [Check("authentication", state, text, remedy)]
    if path.exists():
        bits = stat.S_IMODE(path.stat().st_mode)
        text, state = f"{path}: mode {bits:o}", "problem" if bits & 0o077 else "ok"
        checks.append(Check("token file", state, text, f"chmod 600 {path}"))
    elif mode == "token" and not environment.get("RAY_AUTH_TOKEN"):
        remedy = "copy the cluster's token file there, mode 600"
        checks.append(Check("token file", "problem", f"{path}: missing", remedy))
    return checks


def check_limits() -> list[Check]:
    """Look at shared memory and at the limit on open files."""
    checks, shm = [], Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free
        remedy = "give the container --shm-size=2g or more"
        state: State = "warning" if free < LITTLE_SHM else "ok"
        checks.append(Check("shared memory", state, f"{free / GIB:.1f} GiB free", remedy))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FEW_FILES
    remedy = f"`ulimit -n {FEW_FILES}` before Ray starts (hard limit {hard})"
    return [*checks, Check("open files", "warning" if few else "ok", f"limit {soft}", remedy)]


def check_data(root: Path, splits: list[str]) -> Check:
    """Check a data set from end to end, unless that was done before, and name its fingerprint."""
    scored = DataConfig().eval_split
    try:
        report = check_data_once(VocDataset(root.absolute()), splits, scored=[scored])
        report.raise_if_broken()
    except (ForeseenError, OSError) as error:
        first = str(error).splitlines()[0]
        see = command("wsss", "data", "check", root, "--scored", scored)
        return Check("data", "problem", first, f"see `{see}`")
    counts = ", ".join(f"{split} {count}" for split, count in report.num_images.items())
    return Check("data", "ok", f"{root} [{report.fingerprint}]: {counts}")


def check_weights(path: Path) -> Check:
    """Look whether the file of initial weights is there."""
    if path.is_file():
        return Check("weights", "ok", f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    return Check("weights", "problem", f"{path}: no such file", "give another with --weights")


def check_gpus() -> Check:
    """Say which GPUs torch sees, and whether the driver sees more."""
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = {torch.cuda.get_device_name(i) for i in range(seen)}
    have = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if have > seen and "CUDA_VISIBLE_DEVICES" not in os.environ:
        text = f"the driver knows {counted(have, 'GPU')}, torch sees {seen}"
        return Check("GPUs", "problem", text, "install a torch build for the driver's CUDA")
    return Check("GPUs", "ok", f"{seen} ({', '.join(sorted(names))})" if seen else "none")


def check_checkout() -> Check:
    """Say which code this is, and whether it differs from its commit."""
    known = commit_of(code_version())
    is_changed = known is not None and known[1]
    text = code_version() if known else f"{code_version()}, no git checkout"
    remedy = "commit before a run that others should repeat"
    return Check("code", "warning" if is_changed else "ok", text, remedy)


def listening() -> dict[int, set[str]] | None:
    """Return port -> local addresses that listen for TCP here; None if only root may know."""
    import psutil

    found: dict[int, set[str]] = {}
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN:
            found.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
    return found


def check_ports(
    open_ports: dict[int, set[str]] | None, services: tuple[Service, ...] = SERVICES
) -> list[Check]:
    """Check each service that listens here: on loopback only, or else refusing strangers."""
    if open_ports is None:
        text = "not known: this system tells only root which ports are open"
        return [Check("open ports", "warning", text, "give the command as root")]
    checks = []
    for service in (service for service in services if service.port in open_ports):
        public = sorted(each for each in open_ports[service.port] if not _is_loopback(each))
        loopback = Check(service.name, "ok", f"port {service.port}: loopback only")
        checks.append(_check_public(service, public[0]) if public else loopback)
    return checks


def _check_public(service: Service, address: str) -> Check:
    text = f"port {service.port} is open on {address}"
    if not service.path:
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        remedy = "start Ray with RAY_AUTH_MODE=token everywhere, or close the port"
        state: State = "ok" if mode == "token" else "problem"
        return Check(service.name, state, f"{text}; RAY_AUTH_MODE is {mode}", remedy)
    wild = ipaddress.ip_address(address).is_unspecified
    host = own_address() if wild else f"[{address}]" if ":" in address else address
    verdicts: Verdicts = {
        "silent": ("warning", "close the port"),
        "open": (
            "problem",
            "listen on 127.0.0.1, and require a token (Ray) or a password (MLflow)",
        ),
    }
    url = f"http://{host}:{service.port}{service.path}"
    return _check_server(service.name, text, url, verdicts)


def check_job_server(address: str) -> Check:
    """Check that the job server answers, and whether it would answer without a token."""
    verdicts: Verdicts = {
        "silent": (
            "problem",
            "open the tunnel with `ray dashboard cluster.mine.yaml`, or name another --address",
        ),
        "broken": ("problem", "give the dashboard's address"),
        "open": (
            "warning" if _is_near(address) else "problem",
            "start Ray with RAY_AUTH_MODE=token; whoever reaches this port can run commands there",
        ),
    }
    return _check_server("job server", address, f"{address}{JOBS_PATH}", verdicts)


def check_mlflow(uri: str) -> Check:
    """Check that the tracking server answers, and whether it does so without a password."""
    if not uri:
        return Check("MLflow", "ok", "a SQLite file in the store")
    shown = without_password(uri).rstrip("/")
    try:
        check_address(uri)
    except TrackingError as error:
        what, _, remedy = str(error).partition("; ")
        return Check("MLflow", "warning", f"{shown}: {what}", remedy)
    if not uri.startswith("http"):
        return Check("MLflow", "ok", shown)
    verdicts: Verdicts = {
        "silent": ("warning", "sweeps go on without it; `sweeps sync` logs later what it missed"),
        "broken": ("warning", "is this an MLflow server that works?"),
        "open": (
            "ok" if _is_near(shown) else "warning",
            "start it with `--app-name basic-auth`, on a private address",
        ),
    }
    return _check_server("MLflow", shown, f"{shown}{MLFLOW_PATH}", verdicts)


def _check_server(name: str, where: str, url: str, verdicts: Verdicts) -> Check:
    """Ask a server without token or password, and judge how it answers."""
    session = requests.Session()
    session.trust_env = False  # no proxy, and no password from ~/.netrc
    try:
        with session, session.get(url, timeout=TIMEOUT_S, stream=True) as answer:
            status = answer.status_code
    except requests.RequestException:
        kind, text = "silent", NO_ANSWER
    else:
        kind = "open" if status < 400 else "closed" if status in REFUSALS else "broken"
        text = f"a stranger's request gets {status}"
    state, remedy = verdicts.get(kind, ("ok", ""))
    return Check(name, state, f"{where}: {text}", remedy)


def _is_near(url: str) -> bool:
    return _is_loopback(urlsplit(url).hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def own_address() -> str:
    """Return an address of this machine that others use."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
