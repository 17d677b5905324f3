"""The address of a job server, and what is wrong with it; loads none of Ray."""

import re

from wsss.basics.errors import ForeseenError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where `ray dashboard cluster.mine.yaml` puts this end of its tunnel."""
ADDRESS = re.compile(r"https?://([^\s/:@]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^\s#?]*)?")


class JobError(ForeseenError, RuntimeError):
    """The job server refused; the message names what was asked and the remedy."""


class UnreachableError(JobError):
    """No answer, for now: the server, the tunnel or the network is away."""


def check_form(address: str) -> None:
    """Raise JobError unless a job server can have this address."""
    if not ADDRESS.fullmatch(address):
        raise JobError(
            f"--address {address}: the address of a job server is http://HOST:PORT, e.g. "
            f"{DEFAULT_ADDRESS}, where `ray dashboard cluster.mine.yaml` opens a tunnel to it"
        )
