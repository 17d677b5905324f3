"""A sweep as one SLURM job: its script, and the wait until Ray runs on all of its nodes.

`cluster/slurm.sbatch` is the job. `sbatch_script` fills in the allocation and the `sweeps` command.
The job itself calls `python -m sweeps.cluster.slurm ADDRESS NODES`.
"""

import math
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.store.errors import StoreError
from wsss.basics.files import refuse_pipe, whole_or_absent
from wsss.basics.printable import counted

JOB = Path(__file__).parents[2] / "cluster" / "slurm.sbatch"
MARK = "# sbatch this file"
START_SECONDS = 300
"""Time limit for Ray to run on all nodes: starting from a slow shared folder takes minutes."""
LOOK_SECONDS = 60
"""Time limit of one check."""
COUNT = (
    "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False); "
    "print(sum(node['Alive'] for node in ray.nodes()))"
)


@dataclass(frozen=True)
class Allocation:
    """What to ask SLURM for."""

    nodes: int
    gpus_per_node: int
    cpus_per_node: int
    hours: float
    partition: str | None = None
    account: str | None = None

    def lines(self) -> list[str]:
        """Return it as lines of a job script."""
        minutes = math.ceil(self.hours * 60)
        wishes = {
            "nodes": self.nodes,
            "time": f"{minutes // 60}:{minutes % 60:02}:00",
            "cpus-per-task": self.cpus_per_node,
            "gpus-per-node": self.gpus_per_node,
            "partition": self.partition,
            "account": self.account,
        }
        return [f"#SBATCH --{name}={value}" for name, value in wishes.items() if value]


def sbatch_script(allocation: Allocation, words: Sequence[str]) -> str:
    """Return the job script for an allocation and the words of a `sweeps` command.

    Raises StoreError for the name of a partition or account that would end its line.
    """
    for name in (allocation.partition, allocation.account):
        if name is not None and not re.fullmatch(r"[\w.,@+-]+", name):
            raise StoreError(f"{name!r} is not the name of a SLURM partition or account")
    lines = JOB.read_text(encoding="utf-8").splitlines()
    start = lines.index("#SBATCH --job-name=wsss-sweeps")
    kept = [line for line in lines[start:] if not re.match(r"#SBATCH --(nodes|time)=", line)]
    end = kept.index("set -uo pipefail") + 1
    about = f"{MARK} in the project's folder. It runs: sweeps {shlex.join(words)}"
    job = [lines[0], about, kept[0], *allocation.lines(), *kept[1:end]]
    return "\n".join([*job, f"set -- {shlex.join(words)}", *kept[end:], ""])


def write_job(path: Path, script: str) -> None:
    """Write a job script. Raises StoreError if the file exists and is something else."""
    refuse_pipe(path, StoreError)
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise StoreError(
            f"{path}: exists, and is not a job of `sweeps slurm`; name another file with --out"
        )
    with whole_or_absent(path) as partial:
        partial.write_text(script, encoding="utf-8")


def wait_for_nodes(address: str, number: int) -> None:
    """Wait until Ray runs on this many nodes. Raises StoreError after START_SECONDS.

    Each check is a process of its own: Ray ends a process that connects too early.
    """
    until, alive = time.monotonic() + START_SECONDS, 0
    while time.monotonic() < until:
        command = [sys.executable, "-c", COUNT, address]
        try:
            look = subprocess.run(
                command, capture_output=True, text=True, timeout=LOOK_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            continue
        alive = int(look.stdout.split()[-1]) if look.returncode == 0 else 0
        if alive >= number:
            print(f"Ray runs on {alive} of {counted(number, 'node')}", flush=True)
            return
        time.sleep(2)
    raise StoreError(
        f"after {START_SECONDS} s Ray runs on {alive} of {counted(number, 'node')}; see "
        "slurm-*-ray.log beside the job's log, and whether the nodes reach each other"
    )


if __name__ == "__main__":
    from wsss.basics.errors import explained

    with explained():
        wait_for_nodes(sys.argv[1], int(sys.argv[2]))
