"""The connection to a cluster's job server, with errors that say what to do."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from wsss.errors import ForeseenError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where `ray dashboard cluster.yaml` puts this end of its tunnel."""
TIMEOUT_S = 30.0
"""Longest silence of the server; Ray's own client waits for ever, also for a dead tunnel."""


class JobError(ForeseenError, RuntimeError):
    """The job server refused; the message names what was asked and the remedy."""


class UnreachableError(JobError):
    """No answer, for now: the server, the tunnel or the network is away."""


class JobGoneError(JobError):
    """The cluster knows no such job."""


class Connection(JobSubmissionClient):  # type: ignore[misc]  # ray is untyped
    """Ray's client of the job server with time limits and explained errors."""

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise JobError(
                f"--address {address}: the address of a job server begins with http://, e.g. "
                f"{DEFAULT_ADDRESS}, where `ray dashboard cluster.yaml` opens a tunnel to it"
            )
        self.address = address.rstrip("/")
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            with _without_ray_addresses():
                super().__init__(self.address)
        except AuthenticationError as error:  # a token file that is named but not there
            raise JobError(_token_trouble(self.address, str(error))) from None
        except ConnectionError as error:
            raise UnreachableError(_no_server(self.address, error)) from None
        except (requests.RequestException, ValueError, KeyError) as error:
            raise JobError(
                f"{self.address}: something answers, but it is no Ray job server ({error}); give "
                "the address of the dashboard, by default on port 8265"
            ) from None

    def job(self, job_id: str) -> JobDetails:
        """Return what the cluster knows of a job. Raises JobGoneError if that is nothing."""
        try:
            return self.get_job_info(job_id)
        except RuntimeError as error:
            if "status code 404" not in str(error):
                raise
            raise JobGoneError(
                f"{job_id}: {self.address} knows no such job (`sweeps jobs` lists those it has); "
                "if the cluster was started anew, submit the sweep again: it goes on from what is "
                "in the store"
            ) from None

    def check_version(self) -> None:
        """Raise JobError if the cluster runs another Ray than this machine."""
        theirs = self._server_ray_version
        if theirs != ray.__version__:
            raise JobError(
                f"{self.address} runs Ray {theirs}, this machine {ray.__version__}; install the "
                "versions of requirements.lock on both (`make setup`)"
            )

    def _do_request(self, method: str, endpoint: str, **more: Any) -> Any:
        """Send one request. The only way in which Ray's client talks to the server."""
        more.setdefault("timeout", TIMEOUT_S)
        try:
            return super()._do_request(method, endpoint, **more)
        except AuthenticationError as error:
            raise JobError(_token_trouble(self.address, str(error))) from None
        except (requests.ConnectionError, requests.Timeout) as error:
            raise UnreachableError(_no_server(self.address, error)) from None

    def download(self, endpoint: str, parameters: dict[str, str]) -> Iterator[bytes]:
        """Yield the bytes of an answer in pieces. Raises UnreachableError or JobError."""
        try:
            with requests.get(
                f"{self.address}{endpoint}",
                params=parameters,
                headers=self._headers,
                cookies=self._cookies,
                timeout=TIMEOUT_S,
                stream=True,
            ) as answer:
                if answer.status_code != 200:
                    raise JobError(
                        f"{self.address}{endpoint}: answered {answer.status_code}: "
                        f"{answer.text[:300]}"
                    )
                yield from answer.iter_content(2**20)
        except requests.RequestException as error:
            raise UnreachableError(_no_server(self.address, error)) from None


@contextmanager
def _without_ray_addresses() -> Iterator[None]:
    """Hide variables that Ray's client would prefer to the address which it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _no_server(address: str, error: Exception) -> str:
    return (
        f"{address}: no answer ({type(error).__name__}); open the tunnel with `ray dashboard "
        "cluster.yaml` and leave it open, or name another --address; `ray status` on the head says "
        "whether Ray runs there"
    )


def _token_trouble(address: str, message: str) -> str:
    """Explain a refused token without repeating anything of it."""
    where = "RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if "Forbidden" in message:
        return (
            f"{address}: this machine's token is not the cluster's; copy the token file with which "
            f"the cluster was started (Ray takes the first of {where})"
        )
    if "cannot be opened or is empty" in message:
        return f"{address}: the token file is missing or empty (Ray takes the first of {where})"
    if mode != "token":
        return (
            f"{address}: the cluster wants a token and RAY_AUTH_MODE is {mode or 'not set'} here; "
            f"export RAY_AUTH_MODE=token; the token is the first of {where}"
        )
    return f"{address}: the cluster wants a token and there is none here (first of {where})"
