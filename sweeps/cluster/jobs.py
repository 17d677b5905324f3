"""Submits sweeps to a cluster as Ray jobs, finds them again and stops them."""

import hashlib
import json
import re
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath

from ray.job_submission import JobDetails

from sweeps.cluster.follow import exit_code
from sweeps.cluster.job_address import JobError
from sweeps.cluster.job_server import JobServer
from sweeps.plan.sweep import settled_tables
from sweeps.plan.trials import make_plan
from sweeps.run.ray.resources import HEAD_NODE
from sweeps.store.code_version import COMMIT, commit
from sweeps.tables.own import definition
from sweeps.tables.table import Table
from wsss.basics.environment import variables
from wsss.data.drawn.folder import DRAWN, draw_voc
from wsss.overrides import ConfigError, parse_assignments
from wsss.weights import NAMES

SAME = "wsss-sweep"
"""Metadata key of a sweep's digest, equal for two submissions of the same sweep."""
WORDS = "wsss-words"
"""Metadata key of the words with which the sweep was submitted."""
STOP_WAIT_S = 120
"""Time for a stopped sweep to checkpoint before Ray kills it; Ray's own default is 3 s."""
TOOL_LIMIT_S = 600.0
"""Time limit of a short command on the head."""
STORE_LIMIT_S = 30.0
"""Time limit for a new job to name its store."""
STORE_ON_HEAD = "$HOME/wsss-results"
"""Store of a job if neither --store nor the cluster's WSSS_STORE is set."""
ENVIRONMENT = {
    # SIGINT makes a sweep save a checkpoint and stop; Ray's default is SIGTERM.
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
}
SECRETS = (".env", ".env.*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "auth_token", "*.tfstate")
"""Files that must not be uploaded, even if git does not ignore them."""
LEFT_OUT = (".git", ".venv", "venv", "__pycache__", *SECRETS)
TOO_LARGE = "status code 413"
"""In the job server's answer to an upload that is too large."""
STORE_LINE = "[sweeps] store "
"""Start of the first line of a job's own log, which names its store."""
RAYS_LINE = "Running entrypoint for job"
"""Start of the last of Ray's own lines in a job's log."""


@dataclass
class Request:
    """A sweep to run on the cluster; paths are the cluster's. It is planned when it is made.

    Raises ConfigError for what the cluster would otherwise refuse after the upload.
    """

    tables: Sequence[str | Table]
    preset: str
    """With its recipe."""
    words: Sequence[str] = ()
    """Words of `sweeps run`, without --store and --address."""
    settings: Sequence[str] = ()
    data: str = "drawn"
    weights: str | None = None
    store: str | None = None
    """Absolute path or URL; None: the cluster's WSSS_STORE."""
    probe: int | None = None
    files: Sequence[str] = ()
    """Paths of own tables within the project."""
    name: str = field(init=False)
    """Tables and preset."""
    digest: str = field(init=False)
    """Equal for equal tables, settings, data and store."""

    def __post_init__(self) -> None:
        named = self.weights if self.weights in NAMES else None  # a file is read on the cluster
        asked = parse_assignments(list(self.settings))
        planned, settled = settled_tables(self.tables, self.preset, asked, named)
        plan = make_plan(planned, settled.config, 1)
        for option, value, known in (
            ("--data", self.data, set(DRAWN)),
            ("--weights", self.weights, {None, *NAMES}),
            ("--store", self.store, {None}),
        ):
            if value not in known:
                require_on_cluster(option, value or "")
        runs = [trial.run_id for trial in plan.trials]
        parts = json.dumps(list(map(definition, planned))), runs
        text = repr((*parts, self.data, self.weights, self.store, self.probe))
        self.name = "-".join([*(table.name for table in planned), self.preset])
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]


def require_on_cluster(option: str, path: str) -> None:
    """Raise ConfigError for a path that does not mean the same on every node."""
    is_store = option == "--store"
    if not (PurePosixPath(path).is_absolute() or (is_store and "://" in path)):
        raise ConfigError(
            f"{option} {path}: give an absolute path, the same on every node of the cluster"
            f"{', or s3://bucket/prefix' if is_store else ''}; a relative path is in the job's own "
            "folder, which is lost with the cluster"
        )


def in_project(root: Path, path: Path) -> str:
    """Return a file's path within the project, the only files that the cluster gets.

    Raises ConfigError for a file elsewhere.
    """
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        raise ConfigError(
            f"{path}: not in {root}, and only files in it are uploaded; copy it there"
        ) from None


def submit(
    server: JobServer, request: Request, *, root: Path, job_id: str | None, python: str
) -> tuple[str, str]:
    """Start a sweep on the cluster, or find the job that already runs it.

    Returns the job's id, and its command if it exists already, else "".
    root: the project; job_id: None makes one from tables, preset and time; python: the interpreter
    on the head. Raises JobError.
    """
    for job in our_jobs(server):
        ended, named = job.status.is_terminal(), job.submission_id == job_id
        if ended and named:
            raise JobError(
                f"{job_id}: a job of this name has ended ({job.status}), and Ray takes a name only "
                "once; give another --id, or none"
            )
        if named or (not ended and (job.metadata or {}).get(SAME) == request.digest):
            return job.submission_id, job.entrypoint
    title = re.sub(r"[^A-Za-z0-9-]+", "-", request.name)[:70]
    chosen = job_id or f"sweep-{title}-{datetime.now():%Y%m%d-%H%M%S}"
    also = list(request.files)
    if request.data in DRAWN:  # uploaded with the code, so that every node has it
        drawn = draw_voc(root / "data" / request.data, kind=DRAWN[request.data])
        also.append(drawn.relative_to(root).as_posix())
    command = entry_point(
        ["sweeps", "run", *request.words, "--address", "auto"], store=request.store, python=python
    )
    words = shlex.join([*request.words, *(("--store", request.store) if request.store else ())])
    about = {SAME: request.digest, WORDS: words}
    start(server, chosen, command, root, metadata=about, also=also)
    return chosen, ""


def start(
    server: JobServer,
    job_id: str,
    command: str,
    root: Path,
    *,
    metadata: dict[str, str] | None = None,
    also: Sequence[str] = (),
) -> None:
    """Upload the project unless the cluster has it, and start a command in it on the head.

    also: paths in the project to upload even if git ignores them. Raises JobError.
    """
    if not (root / "sweeps" / "__main__.py").is_file():
        raise JobError(
            f"{root}: no sweeps/__main__.py here; run the command in the project's folder, or "
            "name it with --working-dir"
        )
    environment = {
        "working_dir": str(root),
        "excludes": excludes(root, also),
        "env_vars": ENVIRONMENT | {COMMIT: commit()},
    }
    # Ray itself would leave out what .gitignore names, including `also`.
    ours = {
        "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1",
        "RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES": "",
    }
    with variables(**ours):
        try:
            server.start(
                job_id,
                command,
                runtime_env=environment,
                entrypoint_resources={HEAD_NODE: 0.001},  # the head has no CPUs for work
                metadata=metadata,
            )
        except JobError as error:
            if TOO_LARGE not in str(error):
                raise
            raise JobError(
                f"{root}: the project is larger than the 100 MiB that a job server takes; add what "
                "is not code to .gitignore (Ray names files over 10 MiB above); data belongs on "
                "the cluster's own storage"
            ) from None


def excludes(root: Path, also: Sequence[str]) -> list[str]:
    """Return what is not uploaded, as .gitignore patterns, except the paths `also`."""
    from pathspec import PathSpec

    ignore = root / ".gitignore"
    text = ignore.read_bytes() if ignore.exists() else b""
    lines = text.decode("utf-8-sig", errors="replace").splitlines()  # Git reads any bytes
    patterns = [*lines, *LEFT_OUT]
    for path in also:
        # An excluded folder is not searched, so include it, and exclude what else is in it.
        for folder in reversed(PurePosixPath(path).parents[:-1]):
            if PathSpec.from_lines("gitignore", patterns).match_file(folder):
                patterns += [f"!/{_literal(folder)}", f"/{_literal(folder)}/*"]
        patterns += [f"!/{_literal(path)}", f"!/{_literal(path)}/**"]
    return patterns


def _literal(path: str | PurePosixPath) -> str:
    """Return the .gitignore pattern of this very path."""
    return re.sub(r"([][!*#?\\])", r"\\\1", str(path))


def entry_point(arguments: Sequence[str], *, store: str | None, python: str) -> str:
    """Return the shell command of a job. arguments: a module and its arguments.

    It uses `exec`, so that signals reach Python at once and the exit code is Python's.
    """
    chosen = shlex.quote(store) if store else f'"${{WSSS_STORE:-{STORE_ON_HEAD}}}"'
    words = shlex.join([python, "-m", *arguments])
    return f'export WSSS_STORE={chosen}; echo "{STORE_LINE}$WSSS_STORE"; exec {words}'


def our_jobs(server: JobServer) -> list[JobDetails]:
    """Return the sweeps submitted to this cluster, the newest first."""
    jobs = [job for job in server.jobs() if SAME in (job.metadata or {})]
    return sorted(jobs, key=lambda job: -(job.start_time or 0))


def find_job(server: JobServer, job_id: str | None) -> JobDetails:
    """Return a job by its id, by default the sweep submitted last. Raises JobError if none."""
    if job_id is not None:
        return server.job(job_id)
    jobs = our_jobs(server)
    if not jobs:
        submit = server.command("submit", "V")
        raise JobError(f"{server.address}: no sweep was submitted here; submit one, e.g.: {submit}")
    return jobs[0]


def stop_and_wait(server: JobServer, job_id: str) -> JobDetails:
    """Ask a job to save a checkpoint and stop; return the ended job.

    Ray sends SIGINT to the driver and kills it STOP_WAIT_S later. Raises JobError if the job still
    runs long after that.
    """
    server.stop(job_id)
    remedy = f"see `{server.command('logs', job_id)}`, and `ray status` on the head"
    return _ended(server, job_id, STOP_WAIT_S + 30, f"after it was asked to stop; {remedy}")


def _ended(server: JobServer, job_id: str, limit: float, words: str) -> JobDetails:
    """Wait until a job has ended. Raises JobError, with these words, after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not (job := server.job(job_id)).status.is_terminal():
        if time.monotonic() > deadline:
            raise JobError(f"{job_id}: still {job.status} {limit:.0f} s {words}")
        time.sleep(0.5)
    return job


def run_tool(
    server: JobServer, arguments: Sequence[str], *, root: Path, store: str | None, python: str
) -> tuple[int, str]:
    """Run a module with arguments on the head to its end. Raises JobError after TOOL_LIMIT_S.

    Returns its exit code, and what it printed, without Ray's own lines.
    """
    job_id = f"tool-{arguments[1]}-{secrets.token_hex(6)}"
    command = entry_point(arguments, store=store, python=python)
    start(server, job_id, command, root)
    words = f"after it was submitted; `{server.command('logs', job_id)}` shows its progress"
    job = _ended(server, job_id, TOOL_LIMIT_S, words)
    return exit_code(job), printed(server.log(job_id))


def printed(log: str) -> str:
    """Return a job's log without the lines that Ray and the entry point write first."""
    lines = log.splitlines(keepends=True)
    starts = [i for i, line in enumerate(lines) if line.startswith((STORE_LINE, RAYS_LINE))]
    return "".join(lines[starts[-1] + 1 :] if starts else lines)


def store_of(server: JobServer, job: JobDetails) -> str:
    """Return the store of a sweep on the cluster: folder or URL. Raises JobError if unknown.

    A new job gets STORE_LIMIT_S to log it.
    """
    until = time.monotonic() + (0.0 if job.status.is_terminal() else STORE_LIMIT_S)
    while True:
        for line in server.log(job.submission_id).splitlines():
            if line.startswith(STORE_LINE):
                return line.removeprefix(STORE_LINE)
        if time.monotonic() >= until:
            raise JobError(f"{job.submission_id}: its log names no store; name it with --store")
        time.sleep(0.5)


def words_of(job: JobDetails) -> str:
    """Return the words of the `sweeps run` or `sweeps submit` of a job, as a shell takes them."""
    return (job.metadata or {}).get(WORDS, "")
