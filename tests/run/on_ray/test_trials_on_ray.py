"""Trials and their workers on Ray itself: three nodes with 2, 2 and 1 logical GPUs.

There is no device behind them.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist
from made_up.targets import Piece, Pieces
from ray.cluster_utils import Cluster
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import placement_group, remove_placement_group
from torch import multiprocessing
from two_ranks import train_on_two, unbroken_rank

from sweeps.run.dispatch import Dispatch
from sweeps.run.ray.ending import AskedToEnd
from sweeps.run.ray.resources import HEAD_NODE, Resources, concurrency
from sweeps.run.ray.start import started
from sweeps.run.ray.train import fit
from sweeps.run.ray.tune import Records, TuneRunner
from sweeps.stages.stage import EndedEarlyError
from sweeps.store.errors import StoreError
from wsss.basics.errors import ForeseenError
from wsss.config import RunConfig
from wsss.overrides import apply_overrides
from wsss.training.process import Process

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # Ray Train's own imports
    pytest.mark.filterwarnings("ignore:`use_.* is deprecated:DeprecationWarning"),  # Ray's own
    # Ray's own sockets, left to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Three nodes, of which the first is the head."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        cluster = Cluster()

        def start() -> None:
            for cpus, gpus in ((2, 2), (2, 2), (1, 1)):
                cluster.add_node(num_cpus=cpus, num_gpus=gpus, include_dashboard=False)
            ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)

        started(start, end=cluster.shutdown)
        for name in (__name__, "two_ranks"):  # workers cannot import tests
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])
        handler = signal.getsignal(signal.SIGINT)
        yield cluster.address
        signal.signal(signal.SIGINT, handler)  # Ray Train has put its own there
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "fits"), [(2, 1.0, 1.0, 2), (0, 1.0, 2.0, 2), (1, 0.3, 0.6, 5)]
)
def test_the_nodes_of_a_cluster_are_counted(
    address: str, workers: int, cpus: float, gpus: float, fits: int
) -> None:
    resources = Resources(address=address, workers=workers, cpus=cpus, gpus=gpus)
    assert concurrency(resources) == fits


def note(folder: str, name: str, **facts: Any) -> None:
    held = ray.get_runtime_context().get_assigned_resources()
    (Path(folder) / f"{name}.json").write_text(json.dumps({"held": held} | facts))


def work(space: dict[str, Any], process: Process) -> Iterator[dict[str, float]]:
    """Wait until the other worker has begun; note what this one holds."""
    number, device = int(space["number"]), process.device.type
    note(space["folder"], f"worker{number}", backend=dist.get_backend(), device=device)
    wait_for(Path(space["folder"]) / f"worker{1 - number}.json")
    yield {"epoch": 1.0}  # Tune kills a trial that reports `done`, in the middle of its end


def trial_of_one_worker(space: dict[str, Any], resources: Resources) -> None:
    note(space["folder"], f"driver{space['number']}")
    fit(
        work,
        space,
        resources,
        folder=Path(space["folder"]) / f"trial{space['number']}",
        callbacks=[TuneReportCallback()],
    )


@pytest.fixture
def _one_gpu_left(address: str) -> Iterator[None]:
    """Take all but the smallest node."""
    group = placement_group([{"CPU": 2, "GPU": 2}] * 2, strategy="STRICT_SPREAD")
    assert group.wait(60)
    yield
    remove_placement_group(group)


@pytest.mark.usefixtures("_one_gpu_left")
def test_two_trials_on_one_gpu_are_at_work_at_once_and_only_their_workers_hold_it(
    address: str, tmp_path: Path
) -> None:
    numbers = range(2)
    resources = Resources(address=address, cpus=0.5, gpus=0.5)
    source = Pieces(tmp_path, [f"{number}" for number in numbers])
    dispatch = Dispatch[Piece](source, [], lambda: None, print)
    TuneRunner[Piece](
        source,
        trial_of_one_worker,
        {},
        lambda piece: {"number": piece.run_id, "folder": str(tmp_path)},
        tmp_path / "ray/trials",
        resources,
    ).run(dispatch, len(numbers))
    assert not dispatch.breaks
    workers, drivers = (
        [json.loads((tmp_path / f"{kind}{number}.json").read_text()) for number in numbers]
        for kind in ("worker", "driver")
    )
    assert all(driver["held"] == {HEAD_NODE: 0.001} for driver in drivers)
    assert all(worker["held"] == {"CPU": 0.5, "GPU": 0.5} for worker in workers)
    assert {(worker["backend"], worker["device"]) for worker in workers} == {("gloo", "cpu")}


def run_in_one_process(
    generate: Callable[..., Records],
    address: str,
    folder: Path,
    *,
    at_once: int,
    stopped_at: float = 99.0,
    why_end: Callable[[], str | None] = lambda: None,
) -> None:
    """Run two trials; end each that reports this epoch."""
    source = Pieces(folder, ["0", "1"])
    source.stopped_at = stopped_at
    dispatch = Dispatch[Piece](source, [], why_end, print)
    TuneRunner[Piece](
        source,
        generate,
        {},
        lambda piece: {"number": piece.run_id, "folder": str(folder)},
        folder / "ray/trials",
        Resources(address=address),
    ).run(dispatch, at_once)
    assert not dispatch.breaks


def slow_to_end(space: dict[str, Any], resources: Resources) -> Records:
    """Report three epochs; take long to end, as where a bucket answers slowly."""
    try:
        for epoch in (1.0, 2.0, 3.0):
            yield {"epoch": epoch}
    finally:
        time.sleep(2)
        note(space["folder"], f"ended{space['number']}", last=epoch, pid=os.getpid())


@pytest.mark.parametrize(("stopped_at", "last"), [(2.0, 2.0), (99.0, 3.0)])
def test_a_trial_in_one_process_has_ended_when_tune_has_however_it_ends(
    address: str, tmp_path: Path, stopped_at: float, last: float
) -> None:
    run_in_one_process(slow_to_end, address, tmp_path, at_once=1, stopped_at=stopped_at)
    first, second = (json.loads((tmp_path / f"ended{n}.json").read_text()) for n in range(2))
    assert first["last"] == second["last"] == last
    assert first["pid"] == second["pid"], "another trial is spared a new process"


def stopped_before_the_other(space: dict[str, Any], resources: Resources) -> Records:
    """The first reports the second epoch, once both have begun; the other waits for its end."""
    folder, is_first = Path(space["folder"]), space["number"] == "0"
    try:
        if is_first:
            wait_for(folder / "begun.json")
            yield {"epoch": 2.0}
        note(space["folder"], "begun")
        wait_for(folder / "ended.json")
        yield {"epoch": 1.0}
    finally:
        if is_first:
            note(space["folder"], "ended")


def works_until_asked(space: dict[str, Any], resources: Resources) -> Records:
    """Report nothing, as within a long epoch; once asked to end, save for a while."""
    note(space["folder"], f"begun{space['number']}")
    asked = AskedToEnd()
    while not asked():
        time.sleep(0.1)
    time.sleep(2)
    note(space["folder"], f"ended{space['number']}")
    raise EndedEarlyError("as asked")
    yield {}


def test_a_trial_in_the_middle_of_an_epoch_is_asked_to_end_and_waited_for(
    address: str, tmp_path: Path
) -> None:
    def why_end() -> str | None:
        return "SIGINT" if (tmp_path / "begun0.json").exists() else None

    run_in_one_process(works_until_asked, address, tmp_path, at_once=1, why_end=why_end)
    assert [path.name for path in tmp_path.glob("ended*")] == ["ended0.json"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} has not come"
        time.sleep(0.1)


def test_a_trial_that_is_stopped_ends_while_others_still_run(address: str, tmp_path: Path) -> None:
    run_in_one_process(stopped_before_the_other, address, tmp_path, at_once=2, stopped_at=2.0)


def broken_on_rank_1(space: dict[str, Any], process: Process) -> Iterator[dict[str, float]]:
    """Note the start; rank 1 meets an error, for which the other waits in vain."""
    folder = Path(space["folder"])
    (folder / f"{process.rank}-{time.time()}").touch()
    if process.rank == 1:
        raise space["error"]
    time.sleep(60)
    yield {"epoch": 1.0}


@pytest.mark.usefixtures("address")
@pytest.mark.parametrize(
    ("error", "starts"), [(ForeseenError("a.jpg: broken"), 1), (StoreError("full"), 2)]
)
def test_workers_start_again_after_a_foreseen_error_only_if_it_may_be_mended(
    tmp_path: Path, error: ForeseenError, starts: int
) -> None:
    space = {"folder": str(tmp_path), "error": error}
    with pytest.raises(type(error), match=str(error)):
        fit(
            broken_on_rank_1,
            space,
            Resources(workers=2),
            folder=tmp_path / "ray" / str(starts),
            max_failures=1,
        )
    assert len(list(tmp_path.glob("1-*"))) == starts


@pytest.mark.usefixtures("_one_gpu_left")
def test_workers_wait_for_a_node_until_the_end_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, True])
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    monkeypatch.setattr("sweeps.run.ray.train.AskedToEnd", lambda: lambda: next(asked))
    with pytest.raises(EndedEarlyError):
        fit(work, {}, Resources(workers=1, gpus=2, cpus=2), folder=tmp_path / "waits")
    assert list(asked) == []


@pytest.mark.usefixtures("address")
def test_two_workers_of_ray_train_go_on_within_an_epoch_and_end_at_the_same_bits(
    small: RunConfig, drawn: Path, tmp_path: Path
) -> None:
    both_views = {"views.enhanced": True, "views.decreased": True}
    frozen = {"network.batch_norm": "frozen", "network.spatial_attention": True}
    config = apply_overrides(
        small, both_views | frozen | {"train.lr": 0.01, "train.clip_norm": None}
    )
    folders = [tmp_path / name for name in ("unbroken", "killed")]
    for folder in folders:
        folder.mkdir()
    items = [
        {"config": config, "data": drawn, "folder": folder, "kill": False} for folder in folders
    ]
    multiprocessing.spawn(unbroken_rank, (items[0],), nprocs=2)
    fit(
        train_on_two, items[1] | {"kill": True}, Resources(workers=2), folder=tmp_path / "ray" / "k"
    )
    started = {path.name for path in folders[1].glob("started_0_*")}
    assert len(started) == 2
    assert started <= {f"started_0_{iteration}" for iteration in (0, 5, 6, 7)}
    weights = [torch.load(folder / "weights.pt") for folder in folders]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
    for epoch in (1, 2, 3):
        losses = [(folder / f"losses_{epoch}").read_text() for folder in folders]
        assert losses[0] == losses[1]
