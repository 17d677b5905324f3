"""Access to a cluster's job server, with time limits and errors that say what to do."""

import logging
from collections.abc import Callable
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from sweeps.cluster.job_address import JobError, UnreachableError, check_form
from sweeps.run.ray.address import token_trouble
from wsss.basics.environment import variables
from wsss.basics.printable import command
from wsss.basics.waiting import Answer, within

TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Ray's loggers that report every step of a submission."""


class RefusedError(JobError):
    """Something answers, but not as a job server should. said: its whole answer."""

    def __init__(self, address: str, said: str) -> None:
        self.said = said.strip(" .\n") or "an empty answer"
        super().__init__(
            f"{address}: answers, but not as a Ray job server ({self.last_line[:200]}); give the "
            "address of the cluster's dashboard, by default on port 8265"
        )

    @property
    def last_line(self) -> str:
        """The error message at the end of an answer that may be a traceback."""
        return self.said.splitlines()[-1]


class JobServer:
    """A cluster's job server.

    limit: seconds to wait for an answer; with the start of this program, a failure takes half a
    minute. Every method raises UnreachableError if there is no answer, RefusedError if the answer
    is an error or makes no sense.
    """

    def __init__(self, address: str, limit: float = 15.0) -> None:
        check_form(address)
        self.address, self.limit = address.rstrip("/"), limit
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        # Ray's client would prefer these variables to the given address.
        with variables(RAY_ADDRESS=None, RAY_API_SERVER_ADDRESS=None):
            self._client = self._ask(lambda: JobSubmissionClient(self.address))

    def command(self, name: str, *words: str) -> str:
        """Return a `sweeps` command about this server, as one gives it."""
        return command("sweeps", name, *words, "--address", self.address)

    def jobs(self) -> list[JobDetails]:
        """Return all jobs, ours or not."""
        return list(self._ask(self._client.list_jobs))

    def job(self, job_id: str) -> JobDetails:
        """Return a job's details. Raises JobError if the cluster does not know the job."""
        try:
            return self._ask(lambda: self._client.get_job_info(job_id))
        except RefusedError as error:
            if "status code 404" not in error.said:
                raise
            raise JobError(
                f"{job_id}: {self.address} knows no such job "
                f"(`{self.command('jobs')}` lists those it has); "
                "if the cluster was started again, submit the sweep again: it resumes from the "
                "store"
            ) from None

    def log(self, job_id: str) -> str:
        """Return a job's log so far. Raises RefusedError if its node is gone."""
        return str(self._ask(lambda: self._client.get_job_logs(job_id)))

    def stop(self, job_id: str) -> None:
        """Ask a job to stop."""
        self._ask(lambda: self._client.stop_job(job_id))

    def start(self, job_id: str, command: str, **more: Any) -> None:
        """Start a shell command on the head as a job. more: as JobSubmissionClient takes it.

        Raises JobError if the server refuses.
        """
        try:
            self._ask(
                lambda: self._client.submit_job(entrypoint=command, submission_id=job_id, **more),
                limited=False,  # an upload may be slow
            )
        except RefusedError as error:
            raise JobError(f"{self.address}: the job was refused: {error.last_line}") from None

    def _ask(self, question: Callable[[], Answer], *, limited: bool = True) -> Answer:
        """Return an answer of Ray's client, which might wait for ever on a dead connection."""
        try:
            return within(self.limit if limited else None, question)
        except AuthenticationError:
            raise JobError(token_trouble(self.address)) from None
        except (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError) as error:
            raise UnreachableError(
                f"{self.address}: no answer ({type(error).__name__}); open the tunnel with `ray "
                "dashboard cluster.mine.yaml` and leave it open, or name another --address; `ray "
                "status` on the head says whether Ray runs there"
            ) from None
        except (
            requests.RequestException,
            RuntimeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise RefusedError(self.address, str(error)) from None
