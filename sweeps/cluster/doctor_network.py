"""Checks of what listens and who is answered: dashboard, job API, GCS, Ray Client, MLflow."""

import ipaddress
import os
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests

from sweeps.cluster.doctor import Check

TIMEOUT_S = 5.0
JOBS_PATH = "/api/jobs/"
MLFLOW_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"


class Service(NamedTuple):
    """A port with a known meaning, and a path that tells whether it answers strangers."""

    name: str
    port: int
    path: str = ""
    """HTTP path to ask without token; "" if it is no HTTP."""


SERVICES = (
    Service("dashboard and job API", 8265, JOBS_PATH),
    Service("MLflow", 5000, MLFLOW_PATH),
    Service("Ray GCS", 6379),
    Service("Ray Client", 10001),
)


def listening(tables: tuple[str, ...] = ("/proc/net/tcp", "/proc/net/tcp6")) -> dict[int, set[str]]:
    """Return port -> local addresses that listen for TCP here; none without /proc."""
    found: dict[int, set[str]] = {}
    for table in map(Path, tables):
        if not table.exists():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == "0A":
                host, _, port = local.partition(":")
                found.setdefault(int(port, 16), set()).add(_address(host))
    return found


def check_ports(
    open_ports: dict[int, set[str]], services: tuple[Service, ...] = SERVICES
) -> list[Check]:
    """Check each service that listens here: on loopback only, or else refusing strangers."""
    checks = []
    for service in services:
        public = {a for a in open_ports.get(service.port, set()) if not _is_loopback(a)}
        if not public:
            if service.port in open_ports:
                text = f"port {service.port}: loopback only"
                checks.append(Check(service.name, "ok", text))
            continue
        checks.append(_check_public(service, sorted(public)[0]))
    return checks


def _check_public(service: Service, address: str) -> Check:
    text = f"port {service.port} is open on {address}"
    if not service.path:
        if os.environ.get("RAY_AUTH_MODE") == "token":
            return Check(service.name, "ok", f"{text}; token authentication is on")
        remedy = "start Ray with RAY_AUTH_MODE=token everywhere, or close the port"
        return Check(service.name, "problem", f"{text} without token authentication", remedy)
    wild = ipaddress.ip_address(address).is_unspecified
    host = _own_address() if wild else f"[{address}]" if ":" in address else address
    status = _ask(f"http://{host}:{service.port}{service.path}")
    if status is None:
        return Check(service.name, "warning", f"{text}, and does not answer", "close the port")
    if status < 400:
        remedy = "listen on 127.0.0.1, and require a token (Ray) or a password (MLflow)"
        return Check(service.name, "problem", f"{text} and answers anybody", remedy)
    return Check(service.name, "ok", f"{text}; strangers get {status}")


def check_job_server(address: str) -> list[Check]:
    """Check that the job server answers, and whether it would answer without a token."""
    status = _ask(f"{address}{JOBS_PATH}")
    if status is None:
        remedy = "open the tunnel with `ray dashboard cluster.yaml`, or name another --address"
        return [Check("job server", "problem", f"{address}: no answer", remedy)]
    if status in (401, 403):
        return [Check("job server", "ok", f"{address}: answers, wants a token")]
    if status >= 400:
        text = f"{address}: answers {status}"
        return [Check("job server", "problem", text, "give the dashboard's address")]
    near = _is_loopback(urlsplit(address).hostname or "")
    text = f"{address}: answers without a token"
    remedy = "start Ray with RAY_AUTH_MODE=token; whoever reaches this port can run commands there"
    return [Check("job server", "warning" if near else "problem", text, remedy)]


def check_mlflow(uri: str) -> Check:
    """Check that the tracking server answers, and whether it does so without a password."""
    if not uri.startswith("http"):
        return Check("MLflow", "ok", uri or "a SQLite file in the store")
    parts = urlsplit(uri)
    # The address may hold a password, which is not for the screen.
    host = parts.hostname or ""
    shown = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
    status = _ask(f"{shown}{MLFLOW_PATH}")
    if status is None or status >= 500:
        text = f"{shown}: " + ("no answer" if status is None else f"answers {status}")
        remedy = "sweeps go on without it; `sweeps sync` logs later what it missed"
        return Check("MLflow", "warning", text, remedy)
    if status in (401, 403):
        return Check("MLflow", "ok", f"{shown}: answers, refuses strangers ({status})")
    if status >= 400:
        return Check("MLflow", "warning", f"{shown}: answers {status}", "is this an MLflow server?")
    if not _is_loopback(host):
        remedy = "start it with `--app-name basic-auth`, on a private address"
        return Check("MLflow", "warning", f"{shown}: answers without a password", remedy)
    return Check("MLflow", "ok", f"{shown}: answers, on loopback")


def _ask(url: str) -> int | None:
    """Return the status of a request without token or password; None if nobody answers."""
    session = requests.Session()
    session.trust_env = False  # no proxy, and no password from ~/.netrc
    try:
        with session, session.get(url, timeout=TIMEOUT_S, stream=True) as answer:
            return answer.status_code
    except requests.RequestException:
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _address(hexadecimal: str) -> str:
    """Decode an address of /proc/net: 32-bit words in the machine's order."""
    raw = bytes.fromhex(hexadecimal)
    words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
    return str(ipaddress.ip_address(b"".join(words)))


def _own_address() -> str:
    """Return an address of this machine that others use."""
    try:
        found = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
    return found
