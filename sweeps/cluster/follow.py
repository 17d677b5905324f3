"""Follows a job's log to its end, across lost connections, and returns the job's exit code."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
from ray.job_submission import JobDetails, JobStatus

from sweeps.cluster.job_address import JobError, UnreachableError
from sweeps.cluster.job_server import JobServer, RefusedError

LONGEST_DELAY_S = 30.0
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
    lines = log.splitlines(keepends=True)
    return "".join(lines[max(0, len(lines) - number) :])


class Follower:
    """Prints each part of a job's log once.

    silence: seconds without a line of the log after which to check that the server still answers:
    the connection of a laptop that slept looks open but is dead. first_delay: seconds before it
    reconnects; each failure doubles them.
    """

    def __init__(
        self,
        server: JobServer,
        job_id: str,
        *,
        write: Callable[[str], None] | None = None,
        say: Callable[[str], None] | None = None,
        silence: float = 40.0,
        first_delay: float = 1.0,
    ) -> None:
        self.server, self.job_id = server, job_id
        self.silence, self.first_delay = silence, first_delay
        self.write = write or _write
        self.say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self.seen = 0
        """Characters of the log, from its start, that are printed or skipped."""
        self.lost_at: float | None = None

    def skip_to_tail(self, num_lines: int) -> None:
        """Print the last lines of the log so far, and continue from there."""
        log = self.server.log(self.job_id)
        self.seen = len(log)
        self.write(last_lines(log, num_lines))

    def run(self) -> int:
        """Print the log until the job ends; return the job's exit code.

        Raises JobGoneError if the cluster no longer knows the job, and the server's error after
        GIVE_UP_S.
        """
        job = self._follow()
        self._print_from(0, self._whole_log())
        if job.status == JobStatus.FAILED and job.driver_exit_code is None:
            self.say(f"{self.job_id}: {job.message}")
        return exit_code(job)

    def _follow(self) -> JobDetails:
        delay = self.first_delay
        while True:
            before = self.seen
            try:
                reason = asyncio.run(self._stream())
                if job := self._ended():
                    return job
            except (UnreachableError, RefusedError):  # a starting head answers with errors
                reason = "no answer"
                if self.lost_at and time.monotonic() - self.lost_at > GIVE_UP_S:
                    raise
            if self.seen > before or self.lost_at is None:
                self.lost_at, delay = time.monotonic(), self.first_delay
                self.say(f"connection lost ({reason}); the job continues, reconnecting")
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY_S)

    async def _stream(self) -> str:
        """Print the log's lines as they come, until the connection ends; return why it did."""
        received, begun = 0, ""
        try:
            async for text in self._parts():
                if self.lost_at is not None:
                    self.lost_at = None
                    self.say(f"connected to {self.server.address} again")
                begun += text  # may end within a line
                end = begun.rfind("\n") + 1
                self._print_from(received, begun[:end])
                received, begun = received + end, begun[end:]
        except JobError:
            raise
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # the last is Ray's own
            return type(error).__name__
        return "closed"

    async def _parts(self) -> AsyncIterator[str]:
        """Yield the log's parts; raise UnreachableError if the server has silently gone."""
        tail = self.server.tail(self.job_id)

        async def next_part() -> str | None:
            return await anext(tail, None)

        waiting = asyncio.ensure_future(next_part())
        while True:
            if not (await asyncio.wait({waiting}, timeout=self.silence))[0]:
                self.server.job(self.job_id)
            elif (part := waiting.result()) is None:
                return
            else:
                yield part
                waiting = asyncio.ensure_future(next_part())

    def _ended(self) -> JobDetails | None:
        """Return the job if it has ended, which may be a moment after its log."""
        job = self.server.job(self.job_id)
        if not job.status.is_terminal():
            time.sleep(self.first_delay)
            job = self.server.job(self.job_id)
        return job if job.status.is_terminal() else None

    def _print_from(self, start: int, text: str) -> None:
        """Print the new part of `text`, which starts at character `start` of the log."""
        if new := text[max(0, self.seen - start) :]:
            self.write(new)
        self.seen = max(self.seen, start + len(text))

    def _whole_log(self) -> str:
        """Return the ended job's log; "" if it is lost with its node."""
        try:
            return self.server.log(self.job_id)
        except RefusedError:
            return ""


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
