"""How many trials fit a cluster, and what is said where none does."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.run.ray.resources import (
    DRIVER_SHARE,
    HEAD_NODE,
    CapacityError,
    Machine,
    Resources,
    number_at_once,
    read_limits,
    trials_at_once,
)
from sweeps.store.errors import StoreError


def asking(workers: int, cpus: float, gpus: float, **more: Any) -> Resources:
    return Resources(workers=workers, cpus=cpus, gpus=gpus, **more)


def joining(workers: int, cpus: float, gpus: float, **more: Any) -> Resources:
    return asking(workers, cpus, gpus, address="head:6379", **more)


TWO_TWO_ONE = [Machine(4, 2), Machine(4, 2), Machine(4, 1)]
HEAD = Machine(0, 0, 1, is_head=True)


@pytest.mark.parametrize(
    ("machines", "asked", "fit"),
    [
        (TWO_TWO_ONE, asking(1, 1.0, 1.0), 5),  # by the GPUs
        (TWO_TWO_ONE, asking(2, 1.0, 1.0), 2),  # its workers may be on two machines
        (TWO_TWO_ONE, asking(1, 1.0, 2.0), 2),  # but no worker is
        (TWO_TWO_ONE, asking(1, 2.5, 1.0), 3),  # by the CPUs
        (TWO_TWO_ONE, asking(1, 1.0, 1 / 3), 11),  # thirds fill a GPU: 4 + 4 by the CPUs, 3
        (TWO_TWO_ONE, asking(1, 0.4, 0.3), 15),  # three on each GPU: no part is of two GPUs
        (TWO_TWO_ONE, asking(1, 0.1, 0.6), 5),
        (TWO_TWO_ONE, asking(3, 0.7, 0.0), 5),  # 5 workers on each machine
        ([Machine(3, 1, 2)], asking(1, 1.0, 0.5), 4),  # two such machines
        ([Machine(0.3, 0)], asking(1, 0.1, 0.0), 3),  # as Ray counts, not as floats do
        ([HEAD], asking(1, 1.0, 0.0), 0),
    ],
)
def test_workers_are_counted_whole_on_whole_machines(
    machines: list[Machine], asked: Resources, fit: int
) -> None:
    assert trials_at_once(machines, asked) == fit


@pytest.mark.parametrize(
    ("machines", "asked", "said"),
    [
        (TWO_TWO_ONE, asking(6, 1.0, 1.0), "6 workers of 1 CPU and 1 GPU.* this machine has"),
        (TWO_TWO_ONE, asking(6, 1.0, 1.0), "5 such workers fit: lower --workers, or"),
        (TWO_TWO_ONE, asking(1, 5.0, 1.0), "0 such workers fit: .* --cpus"),
        ([Machine(8, 0)], joining(1, 1.0, 1.0), "the cluster has .*without --gpus, CPUs"),
        (TWO_TWO_ONE, asking(1, 1.0, 1.5), "--gpus 1.5: .* such as 0.5"),
        (TWO_TWO_ONE, asking(1, 1.0, 1e-5), "--gpus 1e-05: .* at least 0.0001"),
    ],
)
def test_what_cannot_fit_is_refused_with_numbers_and_remedy(
    machines: list[Machine], asked: Resources, said: str
) -> None:
    with pytest.raises(CapacityError, match=said):
        number_at_once(machines, asked)
    assert issubclass(CapacityError, StoreError)


def test_the_limit_of_a_person_only_lowers_the_number() -> None:
    assert number_at_once(TWO_TWO_ONE, asking(1, 1.0, 1.0, max_concurrent=3)) == 3
    assert number_at_once(TWO_TWO_ONE, asking(1, 1.0, 1.0, max_concurrent=30)) == 5


def test_a_cluster_that_grows_from_nothing_is_counted_fully_grown() -> None:
    limits = [Machine(8, 4, 3), Machine(8, 1, 5)], 4  # four machines in all: 4 + 4 + 4 + 1 GPUs
    assert number_at_once([HEAD], joining(2, 1.0, 1.0), limits) == 6
    with pytest.raises(CapacityError, match=r"fully grown.*13 such workers fit"):
        number_at_once([HEAD], joining(14, 1.0, 1.0), limits)


def test_a_cluster_without_machines_and_limits_needs_a_number() -> None:
    with pytest.raises(CapacityError, match="--max-concurrent"):
        number_at_once([HEAD], joining(2, 1.0, 1.0))
    assert number_at_once([HEAD], joining(2, 1.0, 1.0, max_concurrent=7)) == 7
    with pytest.raises(CapacityError, match="1 such workers fit"):  # it is no head without machines
        number_at_once([HEAD, Machine(4, 1)], joining(2, 1.0, 1.0, max_concurrent=7))


def test_the_limits_of_the_cluster_in_this_checkout_are_read() -> None:
    path = Path(__file__).parents[3] / "cluster.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    machines, most = read_limits(config) or ([], 0)
    assert most == config["max_workers"]
    types = config["available_node_types"]
    workers = [types[name] for name in types if name != config["head_node_type"]]
    assert [machine.count for machine in machines] == [each["max_workers"] for each in workers]
    assert all(machine.gpus > 0 for machine in machines)
    without = {"max_workers": 3, "available_node_types": {"a": {"resources": {}}}}
    assert read_limits(without) is None


def test_the_head_holds_all_drivers_and_as_many_cleaners_of_ray_train() -> None:
    most = trials_at_once([Machine(10_000, 10_000)], asking(1, 1.0, 1.0))
    assert 400 < most < 0.5 / DRIVER_SHARE


def test_a_driver_takes_nothing_that_a_worker_needs() -> None:
    assert Resources(workers=2, gpus=0.5).of_a_trial() == {HEAD_NODE: 0.001}
    assert Resources(workers=0, cpus=2, gpus=0.5).of_a_trial() == {"cpu": 2, "gpu": 0.5}
    assert Resources(workers=0).processes == 1
