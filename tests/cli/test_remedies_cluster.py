"""What a job server refuses is taken once it is given as told."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import program
from ray.job_submission import JobStatus

from sweeps.cluster import job_server
from sweeps.cluster.jobs import find_job, in_project
from wsss.basics.errors import ForeseenError


def told(call: Callable[[], object], pattern: str) -> list[str]:
    """Return what the groups of a pattern find in the error that a call ends with."""
    with pytest.raises(ForeseenError) as caught:
        call()
    found = re.search(pattern, str(caught.value))
    assert found, str(caught.value)
    return list(found.groups())


class Client:
    """Stands for Ray's client of a job server that knows no job, until one is submitted."""

    def __init__(self, address: str) -> None:
        self.jobs: list[Any] = []

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def get_job_info(self, job_id: str) -> Any:
        for job in self.jobs:
            if job.submission_id == job_id:
                return job
        raise RuntimeError("Request failed with status code 404")

    def get_job_logs(self, job_id: str) -> str:
        return "[sweeps] store /results\n"

    def submit_job(self, *, entrypoint: str, submission_id: str, **more: Any) -> None:
        self.jobs.append(
            SimpleNamespace(
                submission_id=submission_id,
                entrypoint=entrypoint,
                metadata=more["metadata"],
                status=JobStatus.SUCCEEDED,
                start_time=1,
            )
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, and a job server at every address that can be one."""
    client = Client("")
    monkeypatch.setattr(job_server, "JobSubmissionClient", lambda address: client)
    (tmp_path / "project/sweeps").mkdir(parents=True)
    (tmp_path / "project/sweeps/__main__.py").touch()
    return tmp_path / "project"


def test_an_address_of_a_job_server_is_taken_as_told(project: Path) -> None:
    hosts = ("auto", "head", "head:8265", "ray://head:10001")
    for wrong in (*hosts, "http://", "http://h:x", "http://h:8265/#/jobs"):
        (address,) = told(lambda wrong=wrong: job_server.JobServer(wrong), r"e\.g\. (\S+),")  # type: ignore[misc]
        assert job_server.JobServer(address).jobs() == []


def test_a_job_is_found_once_it_is_submitted_and_asked_for_as_told(project: Path) -> None:
    def give(line: str, *more: str) -> Any:
        return program(*shlex.split(line)[2:], *more)  # after `python -m`

    server = job_server.JobServer("http://head:8265")
    (submit,) = told(lambda: find_job(server, None), "submit one, e.g.: (.*)")
    outside = give(submit, "--no-follow", "--working-dir", str(project.parent))
    assert outside.exit_code == 2
    assert "name it with --working-dir" in outside.stderr
    where = ("--no-follow", "--store", "/a b", "--working-dir", str(project))
    done = give(submit, *where)
    assert done.exit_code == 0, done.output
    (attach,) = re.findall("follow it with: (.*)", done.stderr)
    job_id = shlex.split(attach)[4]
    assert find_job(server, None).submission_id == job_id
    (job,) = server.jobs()
    job.status = JobStatus.RUNNING
    attached = give(submit, "--seeds", "2", *where)
    assert f"{job_id} exists already, attaching to it" in attached.stderr
    job.status = JobStatus.SUCCEEDED
    (listing,) = told(lambda: server.job("gone"), r"\(`(.*)` lists those it has\)")
    assert job_id in give(listing).stdout
    (resume,) = re.findall(
        "resume with: (.*)",
        give(f"python -m sweeps stop {shlex.join(['--address', server.address])}").stderr,
    )
    again = give(resume, "--no-follow", "--working-dir", str(project))
    assert again.exit_code == 0, again.output
    first, second = (job.entrypoint for job in server.jobs())
    assert first == second


def test_a_table_goes_to_a_cluster_once_it_lies_as_told(project: Path) -> None:
    table = project.parent / "mine.yaml"
    table.write_text("name: mine")
    told(lambda: in_project(project, table), "copy it there")
    assert in_project(project, table.rename(project / "mine.yaml")) == "mine.yaml"
