"""Trials on one logical GPU of Ray, behind which there is no device: where their parts run.

And how workers on GPUs talk to each other.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.tune.integration.ray_train import TuneReportCallback
from targets import Piece, Pieces

from sweeps.run.dispatch import Dispatch
from sweeps.run.ray_train import Workers, fit
from sweeps.run.resources import HEAD_NODE, CapacityError, Resources, concurrency
from sweeps.run.signals import Interrupts
from sweeps.run.stopping import OrderlyEnd
from sweeps.run.tune import Round, run_trials
from sweeps.store.store import Store
from wsss.training.process import Process

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # Ray Train's own imports
    # Ray's own sockets, left to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _one_gpu() -> Iterator[None]:
    """Ray on this machine, as a sweep starts it, told of a GPU and of CPUs for two workers."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
        ray.init(
            "local", num_cpus=2, num_gpus=1, include_dashboard=True, logging_level="ERROR",
            log_to_driver=False,
        )  # fmt: skip
        yield
        ray.shutdown()


def on_cluster(gpus: float, **more: Any) -> Resources:
    return Resources(address="auto", gpus=gpus, **more)


def test_trials_on_gpus_have_a_train_worker_and_are_counted_by_its_gpus() -> None:
    assert on_cluster(1.0).num_workers == 1
    assert concurrency(on_cluster(1.0)) == concurrency(on_cluster(1.0, workers=0)) == 1
    assert concurrency(on_cluster(0.5)) == 2
    assert concurrency(on_cluster(0.25, cpus=0.5)) == 4
    assert concurrency(on_cluster(0.25)) == 2  # by the CPUs
    with pytest.raises(CapacityError, match="1 such workers fit: give at most --workers 1"):
        concurrency(on_cluster(1.0, workers=2))


def noting_trial() -> Callable[[dict[str, Any]], None]:
    """Return a trial of one Train worker, which waits until `at_once` of them have begun.

    Trial and worker note what they hold.

    Within a function, so that it is sent to Ray's processes as it is.
    """

    def note(folder: str, name: str, **facts: Any) -> None:
        held = ray.get_runtime_context().get_assigned_resources()
        (Path(folder) / f"{name}.json").write_text(json.dumps({"held": held} | facts))

    def work(space: dict[str, Any], process: Process) -> Iterator[dict[str, float]]:
        begun, folder = time.time(), Path(space["folder"])
        (folder / f"{space['number']}.begun").touch()
        while len(list(folder.glob("*.begun"))) < space["at_once"]:
            assert time.time() < begun + 90, "the others have not begun"
            time.sleep(0.1)
        time.sleep(0.5)
        note(
            space["folder"], f"worker{space['number']}", begun=begun, ended=time.time(),
            backend=dist.get_backend(), device=process.device.type,
        )  # fmt: skip
        yield {"epoch": 1.0}  # Tune kills a trial that reports `done`, in the middle of its end

    def trial(space: dict[str, Any]) -> None:
        note(space["folder"], f"driver{space['number']}")
        fit(
            work, space, Workers(1, space["gpus"], 1.0), name=f"trial{space['number']}",
            storage=Path(space["folder"]), callbacks=[TuneReportCallback()],
        )  # fmt: skip

    return trial


def test_two_trials_on_one_gpu_are_at_work_at_once_and_only_their_workers_hold_it(
    tmp_path: Path,
) -> None:
    resources, numbers, store = on_cluster(0.5), range(2), Store(tmp_path)
    source = Pieces(tmp_path, [f"{number}" for number in numbers])
    dispatch = Dispatch[Piece](source, [], OrderlyEnd(store, Interrupts(), None, print), print)
    space = {"folder": str(tmp_path), "gpus": resources.gpus, "at_once": len(numbers)}
    each = Round[Piece](
        "trials", source, noting_trial(), lambda piece: {"number": piece.run_id, **space}
    )
    run_trials(each, dispatch, store, resources, concurrency(resources))
    assert not dispatch.breaks
    workers, drivers = (
        [json.loads((tmp_path / f"{kind}{number}.json").read_text()) for number in numbers]
        for kind in ("worker", "driver")
    )
    assert all(driver["held"] == {HEAD_NODE: 0.001} for driver in drivers)
    assert all(worker["held"] == {"CPU": 1.0, "GPU": 0.5} for worker in workers)
    assert {(worker["backend"], worker["device"]) for worker in workers} == {("gloo", "cpu")}
    one, other = workers
    assert max(one["begun"], other["begun"]) < min(one["ended"], other["ended"])


@pytest.mark.parametrize(
    ("gpus", "see_a_device", "backend"),
    [
        (1.0, [True, True], "nccl"),
        (1.0, [True, False], "gloo"),
        (0.5, [True, True], "gloo"),
        (0.0, [False, False], "gloo"),
    ],
)
def test_workers_talk_by_nccl_only_where_each_of_them_sees_a_whole_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: float, see_a_device: list[bool],
    backend: str,
) -> None:  # fmt: skip
    started: list[str] = []

    def on_start(self: Any, group: Any, config: Any) -> None:
        started.append(config.backend)

    class Trainer:
        """Starts the process group as Ray Train does, of made-up workers."""

        def __init__(self, loop: Any, *, torch_config: Any, **others: Any) -> None:
            self.config = torch_config

        def fit(self) -> None:
            group = SimpleNamespace(execute=lambda function: see_a_device)
            self.config.backend_cls().on_start(group, self.config)

    monkeypatch.setattr(TorchConfig().backend_cls, "on_start", on_start)
    monkeypatch.setattr("ray.train.torch.TorchTrainer", Trainer)
    fit(noting_trial, None, Workers(2, gpus), name="talk", storage=tmp_path)
    assert started == [backend]
