"""Follows a job's log to its end, across lost connections, and returns the job's exit code.

The whole log is asked for again and again: each request has a time limit, while a stream that was
cut by a laptop's sleep looks open for ever.
"""

import sys
import time
from collections import deque

from ray.job_submission import JobDetails, JobStatus

from sweeps.cluster.job_address import UnreachableError
from sweeps.cluster.job_server import JobServer, RefusedError

POLL_S = 2.0
"""Pause between two requests, if they are answered soon."""
IDLE_SHARE = 9
"""The pause is at least this many times an answer's time, so that a long log does not fill a line.
"""
GIVE_UP_S = 6 * 3600.0
"""After this long without any answer, stop trying to reconnect; the job continues regardless."""
STOPPED = 130
"""Exit code of a job that a person stopped, the same as for an interrupted sweep."""


def exit_code(job: JobDetails) -> int:
    """Return the exit code of an ended job's command; 128 + n if signal n ended it.

    1 if the command never started.
    """
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return STOPPED
    code = 1 if job.driver_exit_code is None else int(job.driver_exit_code)
    return 128 - code if code < 0 else code


def last_lines(log: str, number: int) -> str:
    """Return the last lines of a log."""
    return "".join(deque(log.splitlines(keepends=True), number))


def follow(
    server: JobServer, job_id: str, *, tail: int | None = None, poll_s: float = POLL_S
) -> int:
    """Print a job's log, whole lines only, until the job ends; return its exit code.

    tail: lines of the log so far to start with; None: all. Raises JobError if the cluster no
    longer knows the job, and the server's error after GIVE_UP_S.
    """
    seen: int | None = None
    lost_at: float | None = None
    while True:
        asked_at = time.monotonic()
        try:
            job, log = _look(server, job_id)
        except (UnreachableError, RefusedError) as error:  # a starting head answers with errors
            if lost_at is None:
                lost_at = asked_at
                _say(f"connection lost ({type(error).__name__}); the job continues, reconnecting")
            if asked_at - lost_at > GIVE_UP_S:
                raise
        else:
            if lost_at is not None:
                lost_at = None
                _say(f"connected to {server.address} again")
            if seen is None:
                seen = 0 if tail is None else len(log) - len(last_lines(log, tail))
            ended = job.status.is_terminal()
            end = len(log) if ended else log.rfind("\n") + 1
            print(log[seen:end], end="", flush=True)
            seen = max(seen, end)
            if ended:
                if job.status == JobStatus.FAILED and job.driver_exit_code is None:
                    _say(f"{job_id}: {job.message}")
                return exit_code(job)
        time.sleep(max(poll_s, IDLE_SHARE * (time.monotonic() - asked_at)))


def _look(server: JobServer, job_id: str) -> tuple[JobDetails, str]:
    """Return a job and its log, whole if the job has ended; "" if it was lost with its node."""
    job = server.job(job_id)
    try:
        return job, server.log(job_id)
    except RefusedError:
        if not job.status.is_terminal():
            raise
        return job, ""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
