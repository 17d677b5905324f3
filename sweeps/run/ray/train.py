"""Ray Train around a training loop, and a worker's end when its Ray node dies.

A loop is a function (item, Process) -> iterator of flat metrics. `fit` runs it on N workers of a
cluster, `torch.distributed` set up by Ray, and reports every record of rank 0.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sweeps.run.ray.ending import AskedToEnd
from sweeps.run.ray.resources import Resources
from sweeps.stages.stage import EndedEarlyError
from sweeps.store.errors import comes_again
from wsss.basics.errors import ForeseenError
from wsss.training.execution import keep_freed_memory
from wsss.training.process import Process

Loop = Callable[[Any, Process], Iterator[dict[str, Any]]]

CHECK_SECONDS = 2.0
"""Between two looks at whether the raylet lives."""
ROOM_SECONDS = "15"
"""Ray Train's time limit to get room for its workers; after it, it is started again."""
NO_ROOM, NOT_STARTED = "WorkerGroupStartupTimeoutError", "WorkerGroupStartupFailedError"
"""Ray Train's errors, which it does not export, if nodes have no room for the workers, and if one
of them dies at its start."""


def fit(
    loop: Loop,
    item: Any,
    resources: Resources,
    *,
    folder: Path,
    callbacks: Sequence[Any] = (),
    max_failures: int = 3,
) -> None:
    """Run `loop(item, process)` on every worker, until it ends everywhere.

    folder: Ray Train's own, the same whenever the same training is started again. Checkpoints are
    the loop's business: after a failure it is called anew and continues from its own. Waits for
    room, as long as the driver does not ask for the end; then raises EndedEarlyError. Raises a
    foreseen error of a worker, at once if it would come again, and Ray's TrainingFailedError when
    the workers fail more often than `max_failures`.
    """
    import ray.train
    from ray.train.torch import TorchTrainer

    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", ROOM_SECONDS)
    each = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"loop": loop, "item": item},
        torch_config=_torch_config(whole_gpus=resources.gpus >= 1),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.num_workers, use_gpu=resources.gpus > 0, resources_per_worker=each
        ),
        run_config=ray.train.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            callbacks=[_ends_at_once(), *callbacks],
            failure_config=ray.train.FailureConfig(
                max_failures=max_failures, controller_failure_limit=0
            ),
        ),
    )
    is_ending, not_started = AskedToEnd(), 0
    while True:
        try:
            trainer.fit()
            return
        except ray.train.ControllerError as error:
            kind = type(error.controller_failure).__name__
            not_started += kind == NOT_STARTED
            if kind not in (NO_ROOM, NOT_STARTED) or not_started > max_failures:
                raise _foreseen([error.controller_failure]) or error from None
        except ray.train.WorkerGroupError as error:
            raise _foreseen(error.worker_failures.values()) or error from None
        if is_ending():
            raise EndedEarlyError


def _foreseen(errors: Iterable[BaseException]) -> ForeseenError | None:
    return next((error for error in errors if isinstance(error, ForeseenError)), None)


def _ends_at_once() -> Any:
    """Return a Ray Train callback that ends a training whose error would come again.

    Ray restarts the workers after any error of theirs, and ends after one of a callback.
    """
    from ray.train import UserCallback

    class EndsAtOnce(UserCallback):  # type: ignore[misc]  # ray is untyped
        def after_exception(
            self, run_context: Any, worker_exceptions: dict[int, Exception]
        ) -> None:
            for error in filter(comes_again, worker_exceptions.values()):
                raise error

    return EndsAtOnce()


def _torch_config(*, whole_gpus: bool) -> Any:
    """Return how Ray sets up torch.distributed: by nccl where each worker sees a GPU of its own.

    Else by gloo: on CPUs, for ranks that share a GPU (which nccl refuses), and behind a logical GPU
    without a device. The workers are asked, as the process that starts them may see no GPU.
    """
    from ray.train.torch import TorchConfig

    class ByDevice(TorchConfig().backend_cls):  # type: ignore[misc]  # ray is untyped
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            on_gpus = whole_gpus and all(worker_group.execute(torch.cuda.is_available))
            chosen = replace(backend_config, backend="nccl" if on_gpus else "gloo")
            super().on_start(worker_group, chosen)

    class Config(TorchConfig):  # type: ignore[misc]
        backend_cls = ByDevice

    return Config()


def _worker(config: dict[str, Any]) -> None:
    """Run the loop in one Ray Train worker."""
    import ray.train
    from ray.train.torch import get_device

    end_with_raylet()
    context = ray.train.get_context()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = get_device()
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    process = Process(context.get_world_rank(), context.get_world_size(), device)
    for record in config["loop"](config["item"], process):
        ray.train.report(record)


def end_with_raylet() -> bool:
    """Let this Ray worker end when its raylet is dead; return whether that is watched.

    Ray looks for this itself, but takes a raylet whose exit nobody has collected for alive, as in
    containers whose first process collects none. Its trials would wait for ever to report, and
    keep their training locked and their GPU occupied. A process whose parent is no raylet is left
    alone.
    """
    parent = os.getppid()
    if os.environ.get("RAY_RAYLET_PID") != str(parent):
        return False
    name = "end-with-raylet"
    if not any(thread.name == name for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent,), name=name, daemon=True).start()
    return True


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # a dead parent's children are given another one at once
        time.sleep(CHECK_SECONDS)
    os._exit(1)  # threads of Ray wait for the raylet, so no orderly end would come
