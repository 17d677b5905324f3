"""Clusters: the commands submit, attach, logs, stop, jobs and fetch, slurm, and doctor."""

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeps.cli import options
from sweeps.cli.service.sweep import checked_tables, planned_sweep, run
from sweeps.cluster.job_address import DEFAULT_ADDRESS
from wsss.basics.printable import command, counted

if TYPE_CHECKING:
    from sweeps.cluster.job_server import JobServer

DETACHED = 130
"""Exit code after Ctrl-C while following; the job continues."""

Address = Annotated[
    str, typer.Option(envvar="WSSS_ADDRESS", help="job server, where `ray dashboard` tunnels to")
]
JobId = Annotated[
    str | None, typer.Argument(help="default: the sweep submitted last", metavar="JOB")
]
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


@options.with_options_of(run)
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

    sweeps submit V --preset paper --data /data/VOC2012 --gpus 1

    The project's files are uploaded, up to 100 MiB, except those in the .gitignore at its root and
    those that look like secrets (.env, keys, tokens). The exit code is the sweep's. Run the same
    command again to attach to a running sweep or to resume an ended one.
    """
    from sweeps.cluster.jobs import Request, in_project, submit

    root, given = working_dir.absolute(), given | {"data": data, "weights": weights}
    tables = checked_tables(given)
    files = [in_project(root, path) for path in given["table_files"] or ()]
    words = options.words_of(ctx.command, given | {"table_files": files})
    preset, settings = options.call(options.preset_named, given), given["settings"] or ()
    probe = given["probe"]
    request = Request(tables, preset, words, settings, data, weights, store, probe, files)
    server = connect(address)
    found, running = submit(server, request, root=root, job_id=job_id, python=python)
    if running:
        options.say(f"{found} exists already, attaching to it; it runs: {running}")
    else:
        options.say(f"submitted {found}")
    if follow:
        raise typer.Exit(_follow(server, found, tail=None))
    options.say(f"follow it with: {server.command('attach', found)}")


def attach(
    job_id: JobId = None,
    address: Address = DEFAULT_ADDRESS,
    tail: Annotated[
        int | None, typer.Option(min=0, help="start with the last N lines; default: the whole log")
    ] = None,
) -> None:
    """Follow a job's log to its end; the exit code is the job's."""
    server = connect(address)
    from sweeps.cluster.jobs import find_job

    found = find_job(server, job_id).submission_id
    raise typer.Exit(_follow(server, found, tail=tail))


def logs(
    job_id: JobId = None,
    address: Address = DEFAULT_ADDRESS,
    tail: Annotated[int | None, typer.Option(min=0, help="only the last N lines")] = None,
) -> None:
    """Print a job's log so far."""
    server = connect(address)
    from sweeps.cluster.follow import last_lines
    from sweeps.cluster.jobs import find_job

    text = server.log(find_job(server, job_id).submission_id)
    print(text if tail is None else last_lines(text, tail), end="")


def stop(job_id: JobId = None, address: Address = DEFAULT_ADDRESS) -> None:
    """Ask a sweep to save a checkpoint and stop, wait for it, and print how to resume it."""
    server = connect(address)
    from sweeps.cluster.jobs import find_job, stop_and_wait, words_of

    job = find_job(server, job_id)
    if not job.status.is_terminal():
        options.say(f"{job.submission_id}: asked to save a checkpoint and stop")
        job = stop_and_wait(server, job.submission_id)
    again = server.command("submit", *shlex.split(words_of(job)))
    options.say(f"{job.submission_id}: {job.status}; resume with: {again}")


def jobs(address: Address = DEFAULT_ADDRESS) -> None:
    """List the sweeps that were submitted to a cluster, the newest first."""
    server = connect(address)
    from sweeps.cluster.follow import exit_code
    from sweeps.cluster.jobs import our_jobs, words_of

    for job in our_jobs(server):
        ended = f" exit {exit_code(job)}" if job.status.is_terminal() else ""
        when = datetime.fromtimestamp((job.start_time or 0) / 1000)
        state = f"{when:%Y-%m-%d %H:%M:%S}  {job.status}{ended}"
        print(f"{job.submission_id}  {state}  sweeps run {words_of(job)}")


def fetch(
    store: ClusterStore = None,
    to: Annotated[
        Path, typer.Option("--to", help="local store; its finished results are kept")
    ] = Path("results"),
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="also the networks, which are large")
    ] = False,
    cluster: Annotated[
        Path, typer.Option(help="the file given to `ray up`, for a store that is not a bucket")
    ] = Path("cluster.mine.yaml"),
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Copy a cluster's results here, for `sweeps table`, `report` and `status`.

    Results in s3://... come from the bucket, for which this machine needs its own keys; those in a
    folder on the head come by `ray rsync-down`. Without --store, the job server is asked for the
    store of the sweep submitted last.
    """
    from sweeps.cluster.fetch import fetch_by_rsync, fetch_from_bucket
    from sweeps.cluster.jobs import find_job, store_of

    if store is None:
        server = connect(address)
        store = store_of(server, find_job(server, None))
    if "://" in store:
        options.say(f"{store}: from the bucket")
        done = fetch_from_bucket(store, to, checkpoints=checkpoints)
    else:
        options.say(f"{store}: by `ray rsync-down {cluster}`")
        done = fetch_by_rsync(store, to, cluster, checkpoints=checkpoints)
    kept = f"; {done.num_kept} were here already" if done.num_kept else ""
    options.say(f"{to}: {counted(done.num_files, 'file')}, {done.num_bytes / 2**20:.1f} MiB{kept}")


def connect(address: str) -> "JobServer":
    """Return the job server at an address. Raises JobError if there is none."""
    from sweeps.cluster.job_server import JobServer

    return JobServer(address)


def _follow(server: "JobServer", job_id: str, *, tail: int | None) -> int:
    """Print a job's log to its end; return its exit code, or DETACHED after Ctrl-C."""
    from sweeps.cluster.follow import follow

    try:
        code = follow(server, job_id, tail=tail)
    except KeyboardInterrupt:
        options.say(
            f"\n{job_id} continues; follow it with: {server.command('attach', job_id)}; stop it "
            f"with: {server.command('stop', job_id)}"
        )
        return DETACHED
    options.say(f"{job_id} ended with exit code {code}")
    return code


@options.with_options_of(run, without=("address",))  # the job starts a Ray of its own
def slurm(
    ctx: typer.Context,
    nodes: Annotated[int, typer.Option(min=1, help="nodes to ask for")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each node")] = 0,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="CPUs of each node; default: 4, or 4 a GPU")
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.5, help="time limit; before it, the job is queued again")
    ] = 24.0,
    partition: Annotated[str | None, typer.Option(help="default: SLURM's own")] = None,
    account: Annotated[str | None, typer.Option(help="SLURM account, if it needs one")] = None,
    out: Annotated[Path, typer.Option(help="the job script")] = Path("wsss.sbatch"),
    **given: Any,
) -> None:
    """Write a job script that runs tables on a SLURM cluster; `sbatch FILE` submits it.

    The job starts Ray on its nodes and runs the sweep. Before the time limit, the trials save a
    checkpoint, and the job is queued again to resume from the store. All nodes must see the
    project's folder, the data and the store. The other options are those of `sweeps run`; what it
    would refuse is refused here.

        sweeps slurm V --nodes 2 --gpus-per-node 4 --hours 24 --partition gpu \\
            --preset paper --data /data/VOC2012 --gpus 1 --store /shared/results
    """
    from sweeps.cluster.slurm import Allocation, sbatch_script, write_job
    from sweeps.run.ray.resources import CapacityError, Machine, Resources, number_at_once
    from wsss.overrides import ConfigError

    cpus = cpus_per_node or 4 * max(1, gpus_per_node)
    wanted = Allocation(nodes, gpus_per_node, cpus, hours, partition, account)
    checked_tables(given)
    options.call(planned_sweep, given)
    # In the job, an address of SLURM's is joined.
    asked = Resources("head:6379", given["workers"], given["cpus"], given["gpus"])
    try:
        number_at_once([Machine(cpus, gpus_per_node, nodes)], asked)
    except CapacityError as error:
        raise ConfigError(f"{error} (--nodes, --gpus-per-node, --cpus-per-node)") from None
    write_job(out, sbatch_script(wanted, ["run", *options.words_of(ctx.command, given)]))
    there = "this folder, which needs the .venv of `make setup`,"
    print(f"{out}: submit it in {there} with: sbatch {shlex.quote(str(out))}")
    follow = command("sweeps", "status", "--store", given["store"], "--watch")
    print(f"then follow it with: squeue --me, and {follow}")


def doctor(
    ctx: typer.Context,
    address: Annotated[
        str | None,
        typer.Option(help="http://... of a job server, or a Ray address: check all its nodes too"),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="WSSS_STORE",
            help="store to check; of a cluster: absolute path; default: results, or WSSS_STORE "
            "there",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="data set to check")] = None,
    weights: Annotated[str | None, typer.Option(help="file of initial weights to check")] = None,
    mlflow: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="tracking server to check")
    ] = "",
    lock: Annotated[Path, typer.Option(help="versions to compare with")] = Path(
        "requirements.lock"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="print the checks as JSON")] = False,
    working_dir: WorkingDir = Path(),
    python: Python = "python",
) -> None:
    """Say what is open, missing, unreachable or mismatched, with a remedy each.

    sweeps doctor --data /data/VOC2012 --store /shared/results

    Without --address: this machine. With it, --store, --data and --weights are the cluster's. The
    exit code is 1 if there is any problem, an unreachable cluster among them.
    """
    from rich.console import Console

    from sweeps.cluster.doctor.check import print_checks, to_json
    from sweeps.cluster.doctor.examine import examine

    if address and address.startswith("http"):
        store = options.store_there(ctx, store)
    root, named = working_dir.absolute(), {"store": store, "data": data, "weights": weights}
    files = {name: value for name, value in named.items() if value}
    checks = examine(address, files, root=root, lock=root / lock, mlflow=mlflow, python=python)
    print(to_json(checks)) if as_json else print_checks(Console(), checks)
    raise typer.Exit(int(any(check.state == "problem" for check in checks)))
