"""Runs a short command of this project on the head of a cluster and returns what it printed."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ray.job_submission import JobDetails

from sweeps.cluster.connection import Connection, JobError
from sweeps.cluster.follow import exit_code
from sweeps.cluster.jobs import KIND, TOOL, entry_point, start

ENTRY_LINE = "Running entrypoint for job"


class ToolResult(NamedTuple):
    """How a short command on the head ended."""

    exit_code: int
    text: str
    """What it printed, without Ray's own lines."""


def start_tool(
    connection: Connection, arguments: Sequence[str], *, root: Path, store: str | None, python: str
) -> str:
    """Start a module with arguments on the head, with a store; return the job's id."""
    job_id = f"tool-{arguments[0].rpartition('.')[2]}-{secrets.token_hex(6)}"
    command = entry_point(arguments, store=store, python=python)
    start(connection, command, root, job_id, {KIND: TOOL})
    return job_id


def run_tool(
    connection: Connection, arguments: Sequence[str], *, root: Path, store: str | None, python: str
) -> ToolResult:
    """Run a module with arguments on the head to its end."""
    job_id = start_tool(connection, arguments, root=root, store=store, python=python)
    job = wait_for(connection, job_id)
    return ToolResult(exit_code(job), printed(connection.get_job_logs(job_id)))


def wait_for(
    connection: Connection, job_id: str, *, line: str = "", limit_s: float = 600.0
) -> JobDetails:
    """Wait until a job has ended, or printed a line that begins with `line`."""
    deadline = time.monotonic() + limit_s
    while not (job := connection.job(job_id)).status.is_terminal():
        if line and any(s.startswith(line) for s in connection.get_job_logs(job_id).splitlines()):
            return connection.job(job_id)
        if time.monotonic() > deadline:
            raise JobError(
                f"{job_id}: no answer from the head in {limit_s:.0f} s; `sweeps logs {job_id}` "
                "shows how far it is"
            )
        time.sleep(0.5)
    return job


def printed(log: str) -> str:
    """Return a job's log without what Ray and the entry point wrote before the command."""
    lines = log.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if line.startswith(("[sweeps] store", ENTRY_LINE))]
    return "".join(lines[starts[-1] + 1 :] if starts else lines)
