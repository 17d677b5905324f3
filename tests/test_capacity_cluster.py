"""Capacity on Ray itself: three nodes with 2, 2 and 1 logical GPUs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from targets import Piece, Pieces

from sweeps.run.dispatch import Dispatch
from sweeps.run.resources import CapacityError, Resources, concurrency
from sweeps.run.tune import Round, run_trials
from sweeps.store.store import Store

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(240),
    # Ray's own sockets, left to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Three nodes, of which the first is the head."""
    sizes = [(2, 2), (2, 2), (1, 1)]
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": sizes[0][0], "num_gpus": sizes[0][1]}
    )
    for cpus, gpus in sizes[1:]:
        cluster.add_node(num_cpus=cpus, num_gpus=gpus)
    ray.init(cluster.address, logging_level="ERROR", log_to_driver=False)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "fits"),
    [(2, 1.0, 1.0, 2), (0, 1.0, 2.0, 2), (1, 0.3, 0.6, 5), (3, 0.5, 0.5, 3), (5, 1.0, 0.0, 1)],
)
def test_the_nodes_of_a_cluster_are_counted(
    address: str, workers: int, cpus: float, gpus: float, fits: int
) -> None:
    resources = Resources(address=address, workers=workers, cpus=cpus, gpus=gpus)
    assert concurrency(resources) == fits


def test_a_trial_larger_than_the_cluster_is_refused(address: str) -> None:
    with pytest.raises(CapacityError, match="5 such workers fit"):
        concurrency(Resources(address=address, workers=6, gpus=1.0))


def two_workers() -> Callable[[dict[str, Any]], None]:
    """Return a trial which holds two whole GPUs for a moment, as a Ray Train run does.

    It notes from when to when. Within a function, so that it is sent to the nodes as it is.
    """

    @ray.remote(num_cpus=1, num_gpus=1)
    def work() -> None:
        time.sleep(0.5)

    def trial(space: dict[str, Any]) -> None:
        group = placement_group([{"CPU": 1, "GPU": 1}] * 2, strategy="PACK")
        ray.get(group.ready(), timeout=60)
        begun = time.time()
        places = [
            PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            for index in range(2)
        ]
        ray.get([work.options(scheduling_strategy=place).remote() for place in places], timeout=60)
        span = f"{begun} {time.time()}"
        remove_placement_group(group)
        (Path(space["folder"]) / str(space["number"])).write_text(span)
        tune.report({"epoch": 1.0})

    return trial


def run(resources: Resources, folder: Path, num_trials: int, shut: Any) -> int:
    """Run trials as a sweep does; return how many were given to Tune."""
    spans = folder / "spans"
    spans.mkdir()
    source = Pieces(folder, [f"{number}" for number in range(num_trials)])
    end: Any = SimpleNamespace(
        reason=lambda: "enough" if shut() else None, is_due=lambda at_work, epochs: False
    )
    dispatch = Dispatch[Piece](source, [], end, print)
    each = Round[Piece](
        "pairs", source, two_workers(),
        lambda piece: {"number": piece.run_id, "folder": str(spans)},
    )  # fmt: skip
    run_trials(each, dispatch, Store(folder), resources, concurrency(resources))
    assert not dispatch.breaks
    return num_trials - len(source.waiting)


def spans_in(folder: Path) -> list[tuple[float, float]]:
    lines = [path.read_text().split() for path in (folder / "spans").iterdir()]
    return [(float(begun), float(ended)) for begun, ended in lines]


def test_trials_of_two_workers_end_as_many_at_once_as_fit_and_none_after_the_gate_is_shut(
    address: str, tmp_path: Path
) -> None:
    def shut() -> bool:
        return len(list((tmp_path / "spans").iterdir())) >= 3

    started = run(Resources(address=address, workers=2, gpus=1.0), tmp_path, 7, shut)
    spans = spans_in(tmp_path)
    assert 3 <= started == len(spans) <= 4  # the fourth was at work when the third ended
    overlaps = [sum(b <= begun < e for b, e in spans) for begun, _ in spans]
    assert max(overlaps) == 2  # on 5 GPUs: a third would have waited for its second worker
