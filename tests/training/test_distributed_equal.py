"""Two processes which share each batch train what one process trains.

Both are real: gloo on the CPU, started by torch.multiprocessing. They run once for all tests and
write down what they came to.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from sweeps.stages.stage import Conduct, Place
from sweeps.stages.trial import run_group
from sweeps.store.store import Store
from wsss.config import RunConfig
from wsss.data.voc import Sample, VocDataset
from wsss.identity import cam_id, run_id
from wsss.networks.cam_net import CamNet
from wsss.networks.deeplab import build_deeplab
from wsss.overrides import apply_overrides
from wsss.presets import TINY_DEEPLAB
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.diagnosis.learning import PriorLimits
from wsss.training.process import Process
from wsss.training.segmentation import segmentation_training

WORLD_SIZE, K = 2, 20
DEEPLAB = TINY_DEEPLAB.model_copy(
    update={
        "crop_size": 48,
        "batch_size": 4,
        "iterations": 5,
        "scale_jitter": (0.4, 0.7),
        "batch_norm": "frozen",
        "lr": 0.01,
    }
)
TRAININGS = pytest.mark.parametrize(("kind", "rel"), [("trial", 1e-4), ("deeplab", 1e-3)])
"""Of CAMs and of a segmentation network, and how near the numbers of their records are."""


def deeplab(samples: list[Sample], data: Path, process: Process, folder: Path) -> dict[str, Any]:
    """Weights and records of a whole training of a segmentation network on its masks."""
    model, masks = build_deeplab(DEEPLAB, K), data / "SegmentationClassAug"
    labels = [masks / f"{sample.image_id}.png" for sample in samples]
    training = segmentation_training(
        model, DEEPLAB, samples, labels, process=process, checkpoints=CheckpointFolder(folder)
    )
    records = [epoch.to_json() for epoch in training.epochs()]
    return {"weights": model.state_dict(), "records": records}


def at_the_prior(config: RunConfig, place: Place) -> list[dict[str, float]]:
    """Records of a training that learns nothing: its rate is too small."""
    stuck = apply_overrides(config, {"train.lr": 1e-12})
    records = list(run_group([stuck], replace(place, conduct=Conduct(limits=PriorLimits(5, 6)))))
    place.process.barrier()
    failure = place.store.run(run_id(stuck)).failure()
    assert failure["kind"] == "not learning"
    assert "after 6 iterations" in failure["message"]
    return records


def trial(config: RunConfig, place: Place) -> dict[str, Any]:
    """What a sweep's trial leaves in the store: weights, records of epochs, score, ranks."""
    for _ in run_group([config], place):
        pass
    place.process.barrier()
    cam, metrics = place.store.cam(cam_id(config)), place.store.run(run_id(config)).result()
    model = CamNet(config.network, K)
    CheckpointFolder(cam.path / "checkpoints").restore(model)
    return {
        "weights": model.state_dict(),
        "records": [dict(record) for record in cam.epochs()],
        "miou": metrics["miou_fixed"],
        "processes": metrics["environment"]["processes"],
    }


def work(rank: int, world_size: int, config: RunConfig, data: str, folder: str) -> None:
    """Write what one rank comes to, and what it was warned of."""
    torch.set_num_threads(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", "The image decoding and encoding capabilities of Torch")
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy")  # if MLflow is loaded
        result = run_all(rank, world_size, config, Path(data), Path(folder))
    result["warnings"] = [str(warning.message) for warning in caught]
    torch.save(result, Path(folder) / f"rank{rank}.pt")


def run_all(
    rank: int, world_size: int, config: RunConfig, data: Path, root: Path
) -> dict[str, Any]:
    """Everything that the tests look at, in one process group."""
    process = Process(rank, world_size)
    if world_size > 1:
        rendezvous = (root / "rendezvous").as_uri()
        dist.init_process_group("gloo", rendezvous, rank=rank, world_size=world_size)
    samples = VocDataset(data).samples("train_aug")
    place = Place(Store(root / "store"), data, rank=process)
    result: dict[str, Any] = {"trial": trial(config, place)}
    process.barrier()
    result["again"] = list(run_group([config], place))
    result["deeplab"] = deeplab(samples, data, process, root / "deeplab")
    result["stuck"] = at_the_prior(config, place)
    if world_size > 1:
        dist.destroy_process_group()
    return result


@pytest.fixture(scope="module")
def config(small: RunConfig) -> RunConfig:
    # Batch statistics are per rank in any data-parallel training; frozen ones give equality.
    return apply_overrides(
        small,
        {
            "network.batch_norm": "frozen",
            "train.epochs": 2,
            "train.lr": 0.01,
            "views.enhanced": True,
            "views.decreased": True,
            "network.spatial_attention": True,
        },
    )


@pytest.fixture(scope="module")
def alone(
    config: RunConfig, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("alone")
    work(0, 1, config, str(drawn), str(folder))
    return torch.load(folder / "rank0.pt", weights_only=True)


@pytest.fixture(scope="module")
def ranks(
    config: RunConfig, drawn: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("together")
    multiprocessing.spawn(
        work, (WORLD_SIZE, config, str(drawn), str(folder)), nprocs=WORLD_SIZE, join=True
    )
    return [torch.load(folder / f"rank{r}.pt", weights_only=True) for r in range(WORLD_SIZE)]


@TRAININGS
def test_two_epochs_end_at_the_weights_and_records_of_one_process(
    alone: dict[str, Any], ranks: list[dict[str, Any]], kind: str, rel: float
) -> None:
    whole, timed = alone[kind], {"seconds", "images_per_second"}
    for rank in ranks:
        assert rank[kind]["weights"].keys() == whole["weights"].keys()
        for name, weight in whole["weights"].items():
            torch.testing.assert_close(rank[kind]["weights"][name], weight, rtol=1e-4, atol=1e-5)
            assert torch.equal(rank[kind]["weights"][name], ranks[0][kind]["weights"][name])
        assert len(rank[kind]["records"]) == len(whole["records"]) == 2
        for record, expected in zip(rank[kind]["records"], whole["records"], strict=True):
            assert record.keys() == expected.keys()
            for key in record.keys() - timed:
                assert record[key] == pytest.approx(expected[key], rel=rel), key


def test_a_finished_trial_is_found_finished_by_every_rank(ranks: list[dict[str, Any]]) -> None:
    assert [rank["again"] for rank in ranks] == [[], []]


def test_a_trial_of_two_ranks_leaves_the_score_of_one(
    alone: dict[str, Any], ranks: list[dict[str, Any]]
) -> None:
    one, (two, other) = alone["trial"], (rank["trial"] for rank in ranks)
    assert two["records"] == other["records"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["miou"] == other["miou"] == pytest.approx(one["miou"], abs=0.5)


def test_two_ranks_at_the_label_prior_warn_and_end_together(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["stuck"] for rank in ranks)
    assert first[1:] == second[1:]  # an epoch's seconds are each rank's own
    assert ["after 5 iterations" in record.get("warning", "") for record in first] == [
        False,
        True,
        False,
    ]
    assert first[-1]["failed"].startswith("not learning: ")


def test_nothing_warns(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    assert [rank["warnings"] for rank in (alone, *ranks)] == [[], [], []]
