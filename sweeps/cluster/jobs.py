"""Submits sweeps to a cluster as Ray jobs, finds them again and stops them."""

import hashlib
import re
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from ray.job_submission import JobDetails, JobStatus

from sweeps.cluster.connection import Connection, JobError
from sweeps.cluster.packaging import Package, make_package
from sweeps.plan.trials import make_plan
from sweeps.run.resources import HEAD_NODE
from sweeps.tables.studies import TABLES
from wsss.data.drawn import DRAWN, draw_voc
from wsss.overrides import ConfigError, apply_overrides, parse_assignments
from wsss.recipes import named_config, preset_of
from wsss.weights import NAMES

KIND, SWEEP, TOOL = "wsss", "sweep", "tool"
"""Metadata key and values that tell our jobs from others on the cluster."""
SAME = "wsss-sweep"
"""Metadata key of the digest of what makes two submissions the same sweep."""
STOP_WAIT_S = 120
"""Time for a stopped sweep to checkpoint before Ray kills it; Ray's own default is 3 s."""
STORE_ON_HEAD = "$HOME/wsss-results"
"""Store of a job where neither --store nor the cluster's WSSS_STORE names one."""
ENVIRONMENT = {
    # A sweep takes SIGINT for "checkpoint and stop"; Ray sends SIGTERM unless told otherwise.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
}


@dataclass(frozen=True)
class Request:
    """What to run on the cluster; paths are the cluster's."""

    tables: tuple[str, ...]
    preset: str
    data: str = "drawn"
    weights: str | None = None
    settings: tuple[str, ...] = ()
    store: str | None = None
    """Absolute path or URL; None: what the cluster's WSSS_STORE says."""
    more: tuple[str, ...] = field(default=(), compare=False)
    """Further options of `sweeps run`: seeds, GPUs, workers; not part of a sweep's identity."""
    probe: int | None = None
    """Steps of a probe, which is no sweep and never taken for one."""

    def check(self) -> None:
        """Raise ConfigError for what the cluster would refuse only after the upload."""
        unknown = [name for name in self.tables if name not in TABLES]
        if unknown or not self.tables:
            raise ConfigError(f"no table {', '.join(unknown)}; there are: {', '.join(TABLES)}")
        base = apply_overrides(named_config(self.preset), parse_assignments(list(self.settings)))
        make_plan([TABLES[name] for name in self.tables], base, 1)
        for option, value, words in (
            ("--data", self.data, set(DRAWN)),
            ("--weights", self.weights, {None, *NAMES}),
            ("--store", self.store, {None}),
        ):
            if value not in words and not _is_on_cluster(value or ""):
                raise ConfigError(
                    f"{option} {value}: give an absolute path, the same on every node of the "
                    "cluster, or for the store a URL; a relative path means the job's own folder, "
                    "which goes when the cluster does"
                )

    def digest(self) -> str:
        """Return equal text for equal sweeps: tables, settings, data and store."""
        known = (sorted(self.tables), self.preset, self.data, self.weights, sorted(self.settings))
        probe = () if self.probe is None else (self.probe,)
        return hashlib.sha256(repr((*known, self.store, *probe)).encode()).hexdigest()[:16]

    def arguments(self) -> list[str]:
        """Return module and arguments of the command on the head."""
        preset = preset_of(self.preset)
        words = ["sweeps", "run", *self.tables, "--preset", preset, "--data", self.data]
        if recipe := self.preset.removeprefix(preset).removeprefix("-"):
            words += ["--recipe", recipe]
        words += ["--weights", self.weights] if self.weights else []
        words += [word for setting in self.settings for word in ("--set", setting)]
        words += [] if self.probe is None else ["--probe", str(self.probe)]
        return [*words, *self.more, "--address", "auto"]


@dataclass(frozen=True)
class Submitted:
    """A job, and whether it was there already."""

    job_id: str
    package: Package | None
    """What was uploaded; None if the job was there already."""
    command: str = ""
    """The entry point of the job that was there already."""


def submit(
    connection: Connection, request: Request, *, root: Path, job_id: str | None, python: str
) -> Submitted:
    """Start a sweep on the cluster, or find the job that runs it already.

    root: the project; job_id: None derives one from tables, preset and time; python: the
    interpreter on the head. Raises ConfigError, PackagingError or JobError.
    """
    request.check()
    connection.check_version()
    jobs = our_jobs(connection)
    for job in jobs:
        same = (job.metadata or {}).get(SAME) == request.digest() and not job.status.is_terminal()
        if same or (job_id is not None and job.submission_id == job_id):
            return Submitted(job.submission_id, None, job.entrypoint)
    chosen = job_id or _new_id(request)
    extra = _drawn_files(root, request.data) if request.data in DRAWN else {}
    metadata = {KIND: SWEEP, SAME: request.digest()}
    command = entry_point(request.arguments(), store=request.store, python=python)
    package = start(connection, command, root, chosen, metadata, extra)
    return Submitted(chosen, package)


def start(
    connection: Connection,
    command: str,
    root: Path,
    job_id: str,
    metadata: dict[str, str],
    extra: dict[str, Path] | None = None,
) -> Package:
    """Upload the project unless the cluster has it, and start a command in it on the head."""
    with tempfile.TemporaryDirectory(prefix="wsss-package-") as folder:
        package = make_package(root, Path(folder) / "project.zip", extra)
        try:
            connection.submit_job(
                entrypoint=command,
                submission_id=job_id,
                runtime_env={"working_dir": str(package.path), "env_vars": ENVIRONMENT},
                entrypoint_resources={HEAD_NODE: 0.001},  # the head has no CPUs for work
                metadata=metadata,
            )
        except JobError:
            raise
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1]
            raise JobError(f"{connection.address}: the job was refused: {last}") from None
    return package


def entry_point(arguments: Sequence[str], *, store: str | None, python: str) -> str:
    """Return the shell command of a job, of a module and its arguments.

    `exec`, so that signals reach Python at once and the exit code is Python's.
    """
    chosen = shlex.quote(store) if store else f'"${{WSSS_STORE:-{STORE_ON_HEAD}}}"'
    words = shlex.join([python, "-m", *arguments])
    return f'export WSSS_STORE={chosen}; echo "[sweeps] store $WSSS_STORE"; exec {words}'


def our_jobs(connection: Connection, kind: str = SWEEP) -> list[JobDetails]:
    """Return the sweeps that were submitted to this cluster, the newest first."""
    jobs = [j for j in connection.list_jobs() if (j.metadata or {}).get(KIND) == kind]
    return sorted(jobs, key=lambda job: -(job.start_time or 0))


def find_job(connection: Connection, job_id: str | None) -> JobDetails:
    """Return a job by its id, by default the sweep submitted last. Raises JobError if none."""
    if job_id is not None:
        return connection.job(job_id)
    jobs = our_jobs(connection)
    if not jobs:
        raise JobError(f"{connection.address}: no sweep was submitted here; see `sweeps submit`")
    return jobs[0]


def stop_and_wait(connection: Connection, job_id: str, *, every: float = 1.0) -> JobDetails:
    """Ask a job to checkpoint and stop; return it as it ended.

    Ray sends SIGINT to the driver and kills it STOP_WAIT_S later. Raises JobError if the job is
    still there long after.
    """
    connection.stop_job(job_id)
    deadline = time.monotonic() + STOP_WAIT_S + 30
    while not (job := connection.job(job_id)).status.is_terminal():
        if time.monotonic() > deadline:
            raise JobError(
                f"{job_id}: still {job.status} {STOP_WAIT_S + 30} s after it was asked to stop; "
                f"see `sweeps logs {job_id}`, and `ray status` on the head"
            )
        time.sleep(every)
    return job


def sweep_command(job: JobDetails) -> str:
    """Return the `sweeps run ...` that a job runs, without the shell around it."""
    return job.entrypoint.rpartition(" -m ")[2]


def resume_command(job: JobDetails, address: str) -> str:
    """Return the `sweeps submit ...` that goes on where a job ended."""
    words = shlex.split(sweep_command(job))[2:]
    words = words[:-2] if words[-2:] == ["--address", "auto"] else words
    store = re.match(r"export WSSS_STORE=(.*?); echo ", job.entrypoint)
    chosen = shlex.split(store.group(1)) if store else []
    if chosen and "$" not in chosen[0]:
        words += ["--store", chosen[0]]
    return shlex.join(["sweeps", "submit", *words, "--address", address])


def when(job: JobDetails) -> str:
    """Return the local time at which a job was started."""
    return datetime.fromtimestamp((job.start_time or 0) / 1000).strftime("%Y-%m-%d %H:%M:%S")


def is_running(job: JobDetails) -> bool:
    """Whether a job waits or runs."""
    return job.status in (JobStatus.PENDING, JobStatus.RUNNING)


def _new_id(request: Request) -> str:
    tables = re.sub(r"[^A-Za-z0-9-]+", "-", "-".join(request.tables))[:60]
    return f"sweep-{tables}-{request.preset}-{datetime.now():%Y%m%d-%H%M%S}"


def _is_on_cluster(value: str) -> bool:
    return PurePosixPath(value).is_absolute() or "://" in value


def _drawn_files(root: Path, name: str) -> dict[str, Path]:
    """Draw the small data set, which travels with the code: so every node has it."""
    folder = draw_voc(root / "data" / name, kind=DRAWN[name])
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path for path in files}
