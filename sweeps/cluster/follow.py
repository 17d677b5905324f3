"""Follows a job's log to its end, across lost connections, and returns the job's exit code."""

import asyncio
import sys
import time
from collections.abc import Callable

import aiohttp
from ray.job_submission import JobDetails, JobStatus

from sweeps.cluster.connection import Connection, UnreachableError

HEARTBEAT_S = 40.0
"""Pings on the open connection: a laptop that slept notices a dead one. Busy heads answer late."""
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0
GIVE_UP_S = 6 * 3600.0
"""Reconnecting ends after so long without any answer; the job goes on regardless."""
STOPPED = 130
"""Exit code of a job which a person stopped, the same as of an interrupted sweep."""


def exit_code(job: JobDetails) -> int:
    """Return the exit code of an ended job's command; 128 + n if signal n ended it.

    Ray tells it since driver_exit_code; a job whose command never started counts as 1.
    """
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return STOPPED
    code = 1 if job.driver_exit_code is None else int(job.driver_exit_code)
    return 128 - code if code < 0 else code


class Follower:
    """Prints each part of a job's log once."""

    def __init__(
        self,
        connection: Connection,
        job_id: str,
        *,
        write: Callable[[str], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.connection, self.job_id = connection, job_id
        self.write = write or _write
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self.seen = 0
        """Characters of the log, from its beginning, that need no printing any more."""
        self.lost_at: float | None = None

    def skip_to_tail(self, num_lines: int) -> None:
        """Print the last lines of the present log, and go on from there."""
        log = self.connection.get_job_logs(self.job_id)
        self.seen = len(log)
        lines = log.splitlines(keepends=True)
        self.write("".join(lines[-num_lines:] if num_lines else []))

    def run(self) -> int:
        """Print the log until the job ends; return the job's exit code.

        Raises JobGoneError if the cluster forgot the job, UnreachableError after GIVE_UP_S.
        """
        job = self._follow()
        self._print_from(0, self._whole_log())
        if job.status == JobStatus.FAILED and job.driver_exit_code is None:
            self.say(f"{self.job_id}: {job.message}")
        return exit_code(job)

    def _follow(self) -> JobDetails:
        delay = FIRST_DELAY_S
        while True:
            before = self.seen
            try:
                asyncio.run(self._stream())
                job = self.connection.job(self.job_id)
                if not job.status.is_terminal():
                    time.sleep(FIRST_DELAY_S)  # the log may end a moment before the job
                    job = self.connection.job(self.job_id)
                if job.status.is_terminal():
                    return job
                self.say("connection lost (closed); the job goes on, trying again")
                self.lost_at, delay = None, FIRST_DELAY_S
            except (UnreachableError, aiohttp.ClientError, OSError) as error:
                if self.seen > before or self.lost_at is None:
                    self.lost_at, delay = time.monotonic(), FIRST_DELAY_S
                    self.say(
                        f"connection lost ({type(error).__name__}); the job goes on, trying again"
                    )
                elif time.monotonic() - self.lost_at > GIVE_UP_S:
                    raise
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)

    async def _stream(self) -> None:
        """Read the log from its beginning as it grows, until the server closes the connection."""
        client = self.connection
        url = f"{client.address}/api/jobs/{self.job_id}/logs/tail"
        received = 0
        async with (
            aiohttp.ClientSession(cookies=client._cookies, headers=client._headers) as session,
            session.ws_connect(
                url, heartbeat=HEARTBEAT_S, max_msg_size=0, ssl=client._ssl_context or True
            ) as socket,
        ):
            if self.lost_at is not None:
                self.lost_at = None
                self.say(f"connected to {client.address} again")
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._print_from(received, message.data)
                    received += len(message.data)
                elif message.type == aiohttp.WSMsgType.ERROR:
                    raise aiohttp.ClientConnectionError(str(socket.exception()))

    def _print_from(self, start: int, text: str) -> None:
        """Print what of `text`, which begins `start` characters into the log, is new."""
        if new := text[max(0, self.seen - start) :]:
            self.write(new)
        self.seen = max(self.seen, start + len(text))

    def _whole_log(self) -> str:
        """Return the ended job's log; "" if its node is gone and has taken it along."""
        try:
            return str(self.connection.get_job_logs(self.job_id))
        except RuntimeError:
            return ""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
