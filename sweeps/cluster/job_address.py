"""The address of a job server, looked at before Ray's client of it, whose import takes seconds."""

import re

from wsss.basics.errors import ForeseenError
from wsss.basics.waiting import within

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where `ray dashboard cluster.yaml` puts this end of its tunnel."""
ADDRESS = re.compile(r"https?://([^\s/:@]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^\s#?]*)?")
ANSWER_LIMIT_S = 10.0
"""Longest wait for a connection and the first bytes of an answer, and for the host's name."""


class JobError(ForeseenError, RuntimeError):
    """The job server refused; the message names what was asked and the remedy."""


class UnreachableError(JobError):
    """No answer, for now: the server, the tunnel or the network is away."""


def check_form(address: str) -> None:
    """Raise JobError unless a job server can have this address."""
    if not ADDRESS.fullmatch(address):
        raise JobError(
            f"--address {address}: the address of a job server is http://HOST:PORT, e.g. "
            f"{DEFAULT_ADDRESS}, where `ray dashboard cluster.yaml` opens a tunnel to it"
        )


def check_answers(address: str, *, line_limit: float = 5.0) -> None:
    """Raise UnreachableError unless something answers there, JobError for what is no address.

    line_limit: seconds to wait for a connection, and for the first bytes of an answer.
    """
    check_form(address)
    import requests

    def ask() -> None:
        url = f"{address.rstrip('/')}/api/version"
        requests.get(url, timeout=line_limit, stream=True, allow_redirects=False).close()

    try:
        within(ANSWER_LIMIT_S, ask)
    except (requests.RequestException, TimeoutError) as error:
        raise UnreachableError(no_server(address, error)) from None


def no_server(address: str, error: Exception) -> str:
    """Explain why a job server is not reached."""
    return (
        f"{address}: no answer ({type(error).__name__}); open the tunnel with `ray dashboard "
        "cluster.yaml` and leave it open, or name another --address; `ray status` on the head says "
        "whether Ray runs there"
    )
