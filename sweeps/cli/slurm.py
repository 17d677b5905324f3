"""The command slurm: a sweep as a job of a SLURM cluster."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeps.cli.options import with_options_of, words_of
from sweeps.cli.sweep import checked_tables, planned, run
from wsss.commands import command
from wsss.errors import explained


@with_options_of(run)
def slurm(
    ctx: typer.Context,
    nodes: Annotated[int, typer.Option(min=1, help="nodes to ask for")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each node")] = 0,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="CPUs of each node; default: 4, or 4 a GPU")
    ] = None,
    hours: Annotated[
        float, typer.Option(min=0.5, help="time limit; the job goes back into the queue before it")
    ] = 24.0,
    partition: Annotated[str | None, typer.Option(help="default: SLURM's own")] = None,
    account: Annotated[str | None, typer.Option(help="who pays for it, where SLURM asks")] = None,
    out: Annotated[Path, typer.Option(help="the job script")] = Path("wsss.sbatch"),
    **given: Any,
) -> None:
    """Write a job script that runs tables on a SLURM cluster; `sbatch FILE` submits it.

    The job starts Ray on its nodes, runs the sweep, lets the trials write a checkpoint before the
    time limit, goes back into the queue, and goes on from the store. All nodes must see the
    project's folder, the data and the store. The other options are those of `sweeps run`; what it
    would refuse is refused here.

        sweeps slurm V --nodes 2 --gpus-per-node 4 --hours 24 --partition gpu \\
            --preset paper --data /data/VOC2012 --gpus 1 --store /shared/results
    """
    with explained():
        from sweeps.cluster.slurm import Allocation, check_fits, sbatch_script, write_job
        from sweeps.run.resources import Resources

        cpus = cpus_per_node or 4 * max(1, gpus_per_node)
        wanted = Allocation(nodes, gpus_per_node, cpus, hours, partition, account)
        _check(given)
        asked = Resources(None, given["workers"], given["cpus"], given["gpus"])
        check_fits(wanted, asked.demand)
        write_job(out, sbatch_script(wanted, ["run", *words_of(ctx.command, given)]))
        print(f"{out}: submit it in this folder with: sbatch {shlex.quote(str(out))}")
        follow = command("sweeps", "status", "--store", given["store"], "--watch")
        print(f"then follow it with: squeue --me, and {follow}")


def _check(given: dict[str, Any]) -> None:
    """Raise what `sweeps run` would raise for these values of its options."""
    from wsss.overrides import ConfigError

    if given["address"]:
        raise ConfigError("--address: the job starts a Ray of its own; leave it out")
    tables = checked_tables(given)
    names = ("preset", "recipe", "data", "weights", "seeds", "settings")
    planned(tables, *(given[name] for name in names), recheck=given["recheck"])
