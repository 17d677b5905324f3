"""The commands that use a cluster from a laptop: submit, attach, logs, stop, jobs, fetch."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli.options import default_preset, say, with_options_of, words_of
from sweeps.cli.sweep import checked_tables, run
from wsss.commands import command
from wsss.errors import explained

if TYPE_CHECKING:
    from sweeps.cluster.job_server import JobServer
    from sweeps.cluster.jobs import Request

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
DETACHED = 130
"""Exit code after Ctrl-C while following; the job goes on."""

Address = Annotated[
    str, typer.Option(envvar="WSSS_ADDRESS", help="job server, where `ray dashboard` tunnels to")
]
JobId = Annotated[str | None, typer.Argument(help="default: the sweep submitted last")]
WorkingDir = Annotated[Path, typer.Option("--working-dir", help="the project's folder")]
Python = Annotated[
    str, typer.Option(envvar="WSSS_CLUSTER_PYTHON", help="Python interpreter on the head")
]
Following = Annotated[bool, typer.Option("--follow/--no-follow", help="print the log to its end")]
ClusterStore = Annotated[
    str | None,
    typer.Option(
        "--store", help="the cluster's store: absolute path or s3://...; default: WSSS_STORE there"
    ),
]


@with_options_of(run)
def submit(
    ctx: typer.Context,
    data: Annotated[
        str, typer.Option(help="absolute path on every node; `drawn` travels with the code")
    ] = "drawn",
    weights: Annotated[
        str | None,
        typer.Option(help="imagenet_v1 | imagenet_v2 | none | absolute path on every node"),
    ] = None,
    store: ClusterStore = None,
    address: Address = DEFAULT_ADDRESS,
    job_id: Annotated[str | None, typer.Option("--id", help="name of the job")] = None,
    follow: Following = True,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
    **given: Any,
) -> None:
    """Run tables on a cluster, and print the log. Ctrl-C or a lost connection leaves it running.

    The project's files go along, up to 100 MiB; what the .gitignore at its root names stays here,
    and so does what looks like a secret (.env, keys, tokens). The exit code is the sweep's. Give
    the same command again to attach to a running sweep or to resume an ended one.
    """
    with explained():
        from sweeps.cluster.jobs import submit

        root, given = working_dir.absolute(), given | {"data": data, "weights": weights}
        request = _request(ctx, given, store, root)
        request.check()
        server = _connect(address)
        done = submit(server, request, root=root, job_id=job_id, python=python)
        if done.running:
            say(f"{done.job_id} is there already, attaching to it; it runs: {done.running}")
        else:
            say(f"submitted {done.job_id}")
        if follow:
            raise typer.Exit(_follow(server, done.job_id, tail=None))
        say(f"follow it with: {_command('attach', server, done.job_id)}")


def _request(ctx: typer.Context, given: dict[str, Any], store: str | None, root: Path) -> "Request":
    """Return what to run of the options of `sweeps run`. Raises ConfigError."""
    from sweeps.cluster.jobs import Request, in_project
    from sweeps.tables.table import Table
    from wsss.recipes import with_recipe

    chosen = checked_tables(given)
    files = [in_project(root, path) for path in given["table_files"] or ()]
    return Request(
        words=tuple(words_of(ctx.command, given | {"table_files": files})),
        tables=tuple(each for each in chosen if isinstance(each, str)),
        own_tables=tuple(each for each in chosen if isinstance(each, Table)),
        files=tuple(files),
        preset=with_recipe(given["preset"] or default_preset(given["data"]), given["recipe"]),
        data=given["data"],
        weights=given["weights"],
        settings=tuple(given["settings"] or ()),
        store=store,
        probe=given["probe"],
    )


def attach(
    job_id: JobId = None,
    address: Address = DEFAULT_ADDRESS,
    tail: Annotated[
        int | None, typer.Option(min=0, help="begin with the last lines; default: all of the log")
    ] = None,
) -> None:
    """Follow a job's log to its end; the exit code is the job's."""
    with explained():
        from sweeps.cluster.jobs import find_job

        server = _connect(address)
        found = find_job(server, job_id).submission_id
        raise typer.Exit(_follow(server, found, tail=tail))


def logs(
    job_id: JobId = None,
    address: Address = DEFAULT_ADDRESS,
    tail: Annotated[int | None, typer.Option(min=0, help="only the last lines")] = None,
) -> None:
    """Print a job's log as far as it is, and end."""
    with explained():
        from sweeps.cluster.jobs import find_job

        server = _connect(address)
        text = server.log(find_job(server, job_id).submission_id)
        lines = text.splitlines(keepends=True)
        sys.stdout.write("".join(lines if tail is None else lines[len(lines) - tail :]))


def stop(job_id: JobId = None, address: Address = DEFAULT_ADDRESS) -> None:
    """Ask a sweep to checkpoint and stop, wait until it has, and say how to resume it."""
    with explained():
        from sweeps.cluster.jobs import find_job, is_running, resume_command, stop_and_wait

        server = _connect(address)
        job = find_job(server, job_id)
        if is_running(job):
            say(f"{job.submission_id}: asked to checkpoint and stop")
            job = stop_and_wait(server, job.submission_id)
        say(f"{job.submission_id}: {job.status}; go on with: {resume_command(job, address)}")


def jobs(address: Address = DEFAULT_ADDRESS) -> None:
    """List the sweeps that were submitted to a cluster, the newest first."""
    with explained():
        from sweeps.cluster.follow import exit_code
        from sweeps.cluster.jobs import our_jobs, sweep_command, when

        server = _connect(address)
        for job in our_jobs(server):
            ended = f" exit {exit_code(job)}" if job.status.is_terminal() else ""
            print(f"{job.submission_id}  {when(job)}  {job.status}{ended}  {sweep_command(job)}")


def fetch(
    store: ClusterStore = None,
    to: Annotated[
        Path, typer.Option("--to", help="local store; finished results in it stay as they are")
    ] = Path("results"),
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="also networks' weights, which are large")
    ] = False,
    cluster: Annotated[
        Path, typer.Option(help="the file given to `ray up`, for a store that is no bucket")
    ] = Path("cluster.mine.yaml"),
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Copy a cluster's results here, for `sweeps table`, `report` and `status`.

    Results in s3://... come from the bucket, which this machine has to reach with its own keys;
    those in a folder on the head come by `ray rsync-down`. Without --store, the job server is asked
    for the store of the sweep that was submitted last.
    """
    with explained():
        from sweeps.cluster.fetch import fetch_by_rsync, fetch_from_bucket
        from sweeps.cluster.jobs import find_job, store_of
        from wsss.printable import counted

        if store is None:
            server = _connect(address)
            store = store_of(server, find_job(server, None))
        if "://" in store:
            say(f"{store}: from the bucket")
            done = fetch_from_bucket(store, to, checkpoints=checkpoints)
        else:
            say(f"{store}: by `ray rsync-down {cluster}`")
            done = fetch_by_rsync(store, to, cluster, checkpoints=checkpoints)
        kept = f"; {done.num_kept} were here already" if done.num_kept else ""
        say(f"{to}: {counted(done.num_files, 'file')}, {done.num_bytes / 2**20:.1f} MiB{kept}")


def _connect(address: str) -> "JobServer":
    from sweeps.cluster.job_server import JobServer

    return JobServer(address)


def _follow(server: "JobServer", job_id: str, *, tail: int | None) -> int:
    """Print a job's log to its end; return its exit code, or DETACHED after Ctrl-C."""
    from sweeps.cluster.follow import Follower

    follower = Follower(server, job_id)
    try:
        if tail is not None:
            follower.skip_to_tail(tail)
        code = follower.run()
    except KeyboardInterrupt:
        say(
            f"\n{job_id} goes on; follow it with: {_command('attach', server, job_id)}; end it "
            f"with: {_command('stop', server, job_id)}"
        )
        return DETACHED
    say(f"{job_id} ended with exit code {code}")
    return code


def _command(name: str, server: "JobServer", job_id: str) -> str:
    return command("sweeps", name, job_id, "--address", server.address)
