"""How many trials fit a cluster: against packing by trial and error, and on Ray itself."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

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


def packed(machines: list[Machine], asked: Resources) -> int:
    """Return the most trials, by trying each place for each worker, in tenths of CPU and GPU."""
    cpu, gpu = round(asked.cpus * 10), round(asked.gpus * 10)
    rooms = [
        (round(machine.cpus * 10), (10,) * int(machine.gpus))
        for machine in machines
        for _ in range(machine.count)
    ]

    def most(state: tuple[tuple[int, tuple[int, ...]], ...], seen: dict[Any, int]) -> int:
        """Return how many more workers fit."""
        if state not in seen:
            seen[state] = max((1 + most(after, seen) for after in places(state)), default=0)
        return seen[state]

    def places(state: tuple[tuple[int, tuple[int, ...]], ...]) -> Any:
        for index, (cpus, gpus) in enumerate(state):
            if cpus < cpu:
                continue
            for left in gpu_places(gpus):
                after = (cpus - cpu, tuple(sorted(left)))
                yield tuple(sorted([*state[:index], after, *state[index + 1 :]]))

    def gpu_places(gpus: tuple[int, ...]) -> Any:
        if gpu < 10:  # a part of one GPU, whichever has room
            if not gpu:
                yield gpus
            for index, free in enumerate(gpus):
                if gpu and free >= gpu:
                    yield (*gpus[:index], free - gpu, *gpus[index + 1 :])
            return
        whole = [index for index, free in enumerate(gpus) if free == 10]
        for taken in itertools.combinations(whole, gpu // 10):
            yield tuple(0 if index in taken else free for index, free in enumerate(gpus))

    return most(tuple(sorted(rooms)), {}) // asked.processes


machine_strategy = st.builds(Machine, st.integers(0, 4), st.integers(0, 2), st.integers(1, 2))
asked_strategy = st.builds(
    asking,
    st.integers(1, 4),
    st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0]),
    st.sampled_from([0.0, 0.3, 0.4, 0.5, 0.6, 1.0, 2.0]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(machine_strategy, max_size=2), asked_strategy)
def test_as_many_trials_fit_as_trying_all_places_finds(
    machines: list[Machine], asked: Resources
) -> None:
    assert trials_at_once(machines, asked) == packed(machines, asked)


def test_thirds_of_a_gpu_fill_it() -> None:
    assert trials_at_once(TWO_TWO_ONE, asking(1, 1.0, 1 / 3)) == 11  # 4 + 4 by the CPUs, 3


def test_what_cannot_fit_is_refused_with_numbers_and_remedy() -> None:
    for machines, asked, said in (
        (TWO_TWO_ONE, asking(6, 1.0, 1.0), "6 workers of 1 CPU and 1 GPU.* this machine has"),
        (TWO_TWO_ONE, asking(6, 1.0, 1.0), "5 such workers fit: lower --workers, or"),
        (TWO_TWO_ONE, asking(1, 5.0, 1.0), "0 such workers fit: .* --cpus"),
        ([Machine(8, 0)], joining(1, 1.0, 1.0), "the cluster has .*without --gpus, CPUs"),
        (TWO_TWO_ONE, asking(1, 1.0, 1.5), "--gpus 1.5: .* such as 0.5"),
        (TWO_TWO_ONE, asking(1, 1.0, 1e-5), "--gpus 1e-05: .* at least 0.0001"),
    ):
        with pytest.raises(CapacityError, match=said):
            number_at_once(machines, asked)
    assert issubclass(CapacityError, StoreError)


def test_the_limit_of_a_person_only_lowers_the_number() -> None:
    assert number_at_once(TWO_TWO_ONE, asking(1, 1.0, 1.0, max_concurrent=3)) == 3
    assert number_at_once(TWO_TWO_ONE, asking(1, 1.0, 1.0, max_concurrent=30)) == 5


HEAD = Machine(0, 0, 1, is_head=True)


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
    found = read_limits(config)
    assert found is not None
    machines, most = found
    assert most == config["max_workers"]
    assert [machine.count for machine in machines] == [
        config["available_node_types"][name]["max_workers"]
        for name in config["available_node_types"]
        if name != config["head_node_type"]
    ]
    assert all(machine.gpus > 0 for machine in machines)


def test_types_without_resources_are_no_limits() -> None:
    config = {"max_workers": 3, "available_node_types": {"a": {"resources": {}}}}
    assert read_limits(config) is None


def test_the_head_holds_all_drivers_and_as_many_cleaners_of_ray_train() -> None:
    most = trials_at_once([Machine(10_000, 10_000)], asking(1, 1.0, 1.0))
    assert 400 < most < 0.5 / DRIVER_SHARE


def test_a_driver_takes_nothing_that_a_worker_needs() -> None:
    assert Resources(workers=2, gpus=0.5).of_a_trial() == {HEAD_NODE: 0.001}
    assert Resources(workers=0, cpus=2, gpus=0.5).of_a_trial() == {"cpu": 2, "gpu": 0.5}
    assert Resources(workers=0).processes == 1
