"""A Ray cluster is joined, or it is said why none can be, with a remedy.

`ray.init` itself waits for minutes where no cluster is, says little of the reason, and leaves
threads behind. So `check_cluster` lets a process of its own try it first, which is ended when it
takes too long. Commands call it before they read data or plan, which may take minutes.
"""

import os
import re
import socket
import subprocess
import sys
import traceback
from dataclasses import dataclass
from functools import cache
from typing import Any

from wsss.basics.errors import ForeseenError
from wsss.basics.waiting import within

TRY = """
import ray, signal, sys
signal.alarm(int(sys.argv[2]))
ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)
"""
SOONER = {"RAY_gcs_server_request_timeout_seconds": "10", "RAY_NUM_REDIS_GET_RETRIES": "3"}
"""Ray's variables, so that it names its reason before the limit to joining."""
VARIABLE = "RAY_ADDRESS"
"""Ray takes it for `auto`."""
OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Marks the one process that a submitted job runs."""
HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(?P<port>[0-9]{1,5})")
REMEDY = (
    "`ray status` on the head says whether Ray runs; give `--address auto` on a node of the "
    f"cluster (unset {VARIABLE} if it is of another), or HOST:PORT of its head, e.g. "
    "10.0.0.1:6379; without --address Ray is started on this machine"
)


@dataclass(frozen=True)
class Limits:
    """The longest waits for a cluster, in seconds."""

    host: float = 8.0
    """For a host: for its name, and for any of its addresses to accept a connection."""
    load: float = 45.0
    """Until Ray is imported, which takes two seconds of computing."""
    join: int = 15
    """Until the cluster is joined after that; on a busy machine it takes some five seconds."""


LIMITS = Limits()


class ClusterError(ForeseenError):
    """A Ray cluster that cannot be joined."""


def check_address(address: str) -> None:
    """Raise ClusterError unless this is `auto` or HOST:PORT; connects to nothing.

    Where `auto` means RAY_ADDRESS, that is checked in its place.
    """
    meant, given = _meant(address)
    match = HOST_AND_PORT.fullmatch(meant)
    if meant != "auto" and (match is None or not 0 < int(match["port"]) < 65536):
        raise ClusterError(
            f"{given}: no address of a Ray cluster (that of a job server is for `sweeps submit` "
            f"and its like); {REMEDY}"
        )


@cache
def check_cluster(address: str, limits: Limits = LIMITS) -> None:
    """Raise ClusterError, with its reason and what to do, unless a cluster can be joined.

    One that could be joined is not tried again by this process.
    """
    check_address(address)
    meant, given = _meant(address)
    if match := HOST_AND_PORT.fullmatch(meant):
        _check_port(match["host"].strip("[]"), int(match["port"]), given, limits)
    environment = {key: value for key, value in os.environ.items() if key != OF_A_JOB} | SOONER
    command = [sys.executable, "-c", TRY, meant, str(limits.join)]
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.load + limits.join,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"{given}: Ray was not loaded within {limits.load:.0f} s, so whether a cluster answers "
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


def _check_port(host: str, port: int, given: str, limits: Limits) -> None:
    """Raise ClusterError unless something listens there."""
    try:  # to look up a name has no limit of its own
        within(limits.host, lambda: socket.create_connection((host, port), limits.host).close())
    except TimeoutError:
        raise ClusterError(f"{given}: nothing listens there (no answer); {REMEDY}") from None
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        raise ClusterError(f"{given}: nothing listens there ({error}); {REMEDY}") from None


def join(address: str, options: dict[str, Any], limits: Limits = LIMITS) -> None:
    """Join a cluster that was checked before. Raises ClusterError if it has gone since.

    Ray itself would wait for minutes. options: of `ray.init`.
    """
    import ray

    _, given = _meant(address)
    try:
        within(limits.join, lambda: ray.init(address, **options))
    except TimeoutError:
        raise ClusterError(f"{given}: the cluster does not answer any more; {REMEDY}") from None
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
        return token_trouble(given)
    last = said.strip().splitlines()[-1:]
    why = f"; Ray says: {last[0]}" if last and "Error: " in last[0] else ""
    return f"{given}: no Ray cluster answers there{why}; {REMEDY}"


def token_trouble(address: str) -> str:
    """Return what to do about a refused token, of which nothing is repeated."""
    return (
        f"{address}: this machine's token is not the cluster's, or none is sent; export "
        "RAY_AUTH_MODE=token, and copy the token file with which the cluster was started (Ray "
        "takes the first of RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or "
        "~/.ray/auth_token)"
    )
