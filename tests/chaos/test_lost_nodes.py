"""Machines that go away: a Ray cluster of several nodes on this host loses some of them."""

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chaos_sweeps import command, in_mid_training, run, started
from invariants import assert_nothing_lost

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.cluster,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),  # of Ray's own process handling
]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs, so that trials run on the other nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def larger(words: list[str]) -> list[str]:
    """Let trials outlast their nodes."""
    return [word.replace("train.crop_size=64", "train.crop_size=384") for word in words]


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the larger sweep, which nothing disturbed."""
    store = tmp_path_factory.mktemp("alone") / "store"
    done = run(larger(command(pictures, store)))
    assert done.returncode == 0, done.stdout + done.stderr
    return store


def test_a_trial_whose_node_is_taken_away_again_and_again_has_not_failed(
    cluster: Any, pictures: Path, alone: Path, tmp_path: Path
) -> None:
    """Three nodes are lost under one trial, more than the restarts it has for failures."""
    store = tmp_path / "store"
    node = cluster.add_node(num_cpus=1)
    words = larger(command(pictures, store, "--address", cluster.address))
    with started(words, tmp_path / "log") as driver:
        for epoch in (1, 2, 3):
            driver.until(in_mid_training(store, epoch), "a checkpoint")
            following = cluster.add_node(num_cpus=1) if epoch > 1 else None
            cluster.remove_node(node, allow_graceful=False)
            node = following or cluster.add_node(num_cpus=1)
        assert driver.wait(200) == 0, driver.output()
    assert driver.output().count("its node was lost") >= 2
    assert "restart 1 of" not in driver.output()
    assert_nothing_lost(store, alone)


def test_killed_raylets_of_several_nodes_at_once_lose_nothing(
    cluster: Any, pictures: Path, alone: Path, tmp_path: Path
) -> None:
    """The raylets stay zombies: nobody waits."""
    store = tmp_path / "store"
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    words = larger(command(pictures, store, "--address", cluster.address, "--max-concurrent", "2"))
    with started(words, tmp_path / "log") as driver:
        driver.until(in_mid_training(store, 1), "a checkpoint")
        for node in nodes:
            os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        cluster.add_node(num_cpus=1)
        assert driver.wait(200) == 0, driver.output()
    assert "its node was lost" in driver.output()
    assert_nothing_lost(store, alone)


def test_a_lost_head_ends_the_sweep_with_the_command_that_resumes_on_another_cluster(
    pictures: Path, alone: Path, tmp_path: Path
) -> None:
    """The driver is on another machine than the head, or it would be lost with it."""
    from ray.cluster_utils import Cluster

    store = tmp_path / "store"
    lost = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        lost.add_node(num_cpus=1)
        address = lost.address
        words = larger(command(pictures, store, "--address", address))
        with started(words, tmp_path / "log") as driver:
            driver.until(in_mid_training(store, 1), "a checkpoint")
            for name in ("gcs_server", "raylet"):
                os.kill(lost.head_node.all_processes[name][0].process.pid, signal.SIGKILL)
            assert driver.wait(200) == 1
    finally:
        lost.shutdown()
    assert f"Ray's head at {address} does not answer any more" in driver.output()
    assert shlex.join(words[1:]) in driver.output()
    other = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        again = run([word.replace(address, other.address) for word in words])
    finally:
        other.shutdown()
    assert again.returncode == 0, again.stdout + again.stderr
    assert_nothing_lost(store, alone)
