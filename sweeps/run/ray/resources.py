"""What trials may use of a machine or a cluster, and how many run at once.

Trials are counted in whole workers on whole machines. A trial of several workers gets all of them
or none (Ray reserves its placement group as a whole), and its driver takes no worker's resources.
So if only as many trials start as fit, all of them can finish. A worker is never split over two
machines, nor a part of a GPU over two GPUs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from sweeps.run.ray.address import check_address, check_cluster
from sweeps.store.errors import StoreError
from wsss.basics.printable import counted
from wsss.training.execution import Execution

HEAD_NODE = "node:__internal_head__"
"""Ray's resource that only the head node has; its amount is 1.0."""

DRIVER_SHARE = 0.001
"""What a trial's driver takes of HEAD_NODE."""

MAX_DRIVERS = 450
"""Less than half of the 1,000 shares of HEAD_NODE: each driver's Ray Train has a cleaner that takes
another share and that the workers wait for; jobs take one each, too."""

RAY_STEPS = 10_000
"""Ray counts resources in units of 1 / 10,000."""

BOOTSTRAP_CONFIG = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts the cluster's configuration on the head node."""


class CapacityError(StoreError):
    """A trial asks for what the cluster can never give it."""


@dataclass(frozen=True)
class Machine:
    """A number of equal machines."""

    cpus: float
    gpus: float
    count: int = 1
    is_head: bool = False


@dataclass(frozen=True)
class Resources:
    """What a sweep may use. Nothing here changes a result beyond rounding.

    Raises ClusterError for an address that no cluster can have.
    """

    address: str | None = None
    """Ray cluster to join, `auto` or HOST:PORT; None starts one on this machine for the sweep."""
    workers: int | None = None
    """Ray Train workers per trial that were asked for; None: `num_workers` decides."""
    cpus: float = 1.0
    """CPUs per trial, or per worker."""
    gpus: float = 0.0
    """GPUs per trial, or per worker; may be a fraction."""
    max_concurrent: int | None = None
    """Trials at a time; None: as many as fit."""
    execution: Execution = field(default_factory=Execution)
    """How each process trains; __post_init__ sets its share of a GPU."""

    def __post_init__(self) -> None:
        if self.address is not None:
            check_address(self.address)
        share = min(1.0, self.gpus) or 1.0
        object.__setattr__(self, "execution", replace(self.execution, gpu_share=share))

    @property
    def num_workers(self) -> int:
        """Ray Train workers per trial, by default 1 on GPUs.

        0 trains inside the Tune trial, which is cheapest for small trainings on CPUs.
        """
        return int(self.gpus > 0) if self.workers is None else self.workers

    @property
    def first_words(self) -> str:
        """Shown while Ray starts."""
        return f"joining Ray at {self.address}" if self.address else "starting Ray on this machine"

    @property
    def inline(self) -> bool:
        """Whether a trial trains in its own Tune process."""
        return self.num_workers == 0

    @property
    def processes(self) -> int:
        """Processes that train a trial together: its workers, or its own alone."""
        return max(1, self.num_workers)

    def require_cluster(self) -> None:
        """Raise ClusterError if a cluster is to be joined and none can be."""
        if self.address is not None:
            check_cluster(self.address)

    def of_a_trial(self) -> dict[str, float]:
        """Return what Tune reserves for a trial's own process.

        With Train workers it only waits for them. If it held a CPU, trials could take what their
        own workers need, and wait for ever.
        """
        if self.inline:
            return {"cpu": self.cpus, "gpu": self.gpus}
        return {HEAD_NODE: DRIVER_SHARE}


def concurrency(resources: Resources) -> int:
    """Return how many trials to run at once, so that workers never wait for each other.

    Raises CapacityError if not even one can ever run.
    """
    return number_at_once(machines_now(), resources, limits_here() if resources.address else None)


def worker_slots(machine: Machine, asked: Resources) -> int:
    """Return how many of a trial's workers fit on one machine at once."""
    cpu_steps, gpu_steps = round(asked.cpus * RAY_STEPS), round(asked.gpus * RAY_STEPS)
    slots = math.inf
    if cpu_steps:
        slots = round(machine.cpus * RAY_STEPS) // cpu_steps
    if gpu_steps >= RAY_STEPS:
        slots = min(slots, round(machine.gpus * RAY_STEPS) // gpu_steps)
    elif gpu_steps:
        slots = min(slots, int(machine.gpus) * (RAY_STEPS // gpu_steps))
    return MAX_DRIVERS if slots == math.inf else int(slots)


def all_slots(machines: Iterable[Machine], asked: Resources) -> int:
    """Return how many workers fit on the machines together.

    All workers are equal, so the order in which machines are filled does not matter.
    """
    return sum(machine.count * worker_slots(machine, asked) for machine in machines)


def trials_at_once(machines: Iterable[Machine], asked: Resources) -> int:
    """Return how many trials fit on the machines together."""
    return min(MAX_DRIVERS, all_slots(machines, asked) // asked.processes)


def grown(types: Sequence[Machine], max_machines: int, asked: Resources) -> list[Machine]:
    """Return at most `max_machines` machines, and `count` of each type, with the most workers."""
    chosen = []
    for machine in sorted(types, key=lambda machine: -worker_slots(machine, asked)):
        count = min(machine.count, max_machines)
        max_machines -= count
        chosen.append(replace(machine, count=count))
    return chosen


def number_at_once(
    now: Sequence[Machine], asked: Resources, limits: tuple[Sequence[Machine], int] | None = None
) -> int:
    """Return how many trials to run at once, at least 1.

    now: the present machines. limits: of an autoscaling cluster: the types of machines, each with
    its maximal count, and the maximal count of all types together. To a cluster that was joined,
    unknown machines may be added: if it has none yet and no known limits, `max_concurrent` is taken
    as it is; otherwise it only lowers the number.
    Raises CapacityError, with the numbers and the remedy, if no trial can ever run.
    """
    gpus = asked.gpus
    if 0 < gpus < 1 / RAY_STEPS or (gpus > 1 and gpus != int(gpus)):
        raise CapacityError(
            f"--gpus {gpus:g}: give a whole number per worker, or a part of a single GPU, at least "
            f"{1 / RAY_STEPS:g}, such as 0.5"
        )
    joined, max_concurrent = asked.address is not None, asked.max_concurrent
    fits, machines = trials_at_once(now, asked), list(now)
    if limits is not None:
        machines = [m for m in now if m.is_head] + grown(*limits, asked)
        fits = max(fits, trials_at_once(machines, asked))
    elif joined and not any(m.cpus or m.gpus for m in now):
        if max_concurrent is None:
            raise CapacityError(
                "the cluster has no machines for work yet, and it is not known how many may be "
                "added; say how many trials to run at once with --max-concurrent"
            )
        return min(max_concurrent, MAX_DRIVERS)
    if fits < 1:
        cluster = "the cluster, fully grown," if limits is not None else "the cluster"
        raise CapacityError(_refusal(cluster if joined else "this machine", machines, asked))
    return min(fits, max_concurrent or fits)


def _refusal(whole: str, machines: Sequence[Machine], asked: Resources) -> str:
    """Return a message: what was asked for, what `whole` has, and what would fit."""
    have = ", ".join(
        f"{m.count} x ({m.cpus:g} CPU, {m.gpus:g} GPU)" for m in machines if m.cpus or m.gpus
    )
    wants = f"{counted(asked.processes, 'worker')} of {asked.cpus:g} CPU and {asked.gpus:g} GPU"
    return (
        f"a trial needs {wants}, each on one machine; {whole} has "
        f"{have or 'no machines for work'}, where {all_slots(machines, asked)} such workers fit: "
        "lower --workers, or --cpus or --gpus of each (without --gpus, CPUs train)"
    )


def machines_now() -> list[Machine]:
    """Return the machines of the cluster that this process has joined."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(r.get("CPU", 0), r.get("GPU", 0), 1, HEAD_NODE in r) for r in found]


def limits_here() -> tuple[list[Machine], int] | None:
    """Return the limits of this cluster if `ray up` started it and this machine is its head."""
    import ray

    path = BOOTSTRAP_CONFIG.expanduser()
    here = ray.get_runtime_context().get_node_id()
    on_head = any(n["NodeID"] == here and HEAD_NODE in n["Resources"] for n in ray.nodes())
    if not on_head or not path.exists():
        return None
    return read_limits(yaml.safe_load(path.read_text(encoding="utf-8")))


def read_limits(config: Mapping[str, Any]) -> tuple[list[Machine], int] | None:
    """Return the worker types of a `ray up` configuration, and the maximal count of all together.

    None without types, or if the resources of one are not given.
    """
    types, most = config.get("available_node_types"), config.get("max_workers", 2)
    if not types:
        return None
    machines = []
    for name, kind in types.items():
        if name == config.get("head_node_type"):
            continue  # it is running already, and often started with other numbers
        resources = kind.get("resources") or {}
        count = kind.get("max_workers", most)
        if count and "CPU" not in resources:
            return None
        machines.append(Machine(resources.get("CPU", 0), resources.get("GPU", 0), count))
    return machines, most
