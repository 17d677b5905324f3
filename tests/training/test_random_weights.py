"""Initial weights depend on their seed alone, whatever another thread does at that moment."""

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from torch import nn

from wsss.networks.deeplab import build_deeplab
from wsss.presets import TINY, TINY_DEEPLAB
from wsss.segmentation_config import RandomWalkConfig
from wsss.training.affinity import build_affinity_net
from wsss.training.cam import build_cam_net
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.segmentation import build_optimizer, load_trained

K = 3
BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "CAM network": lambda seed: build_cam_net(TINY.model_copy(update={"rng_seed": seed}), [], K),
    "affinity network": lambda seed: build_affinity_net(
        TINY.network, RandomWalkConfig(rng_seed=seed)
    ),
    "DeepLab": lambda seed: build_deeplab(TINY_DEEPLAB.model_copy(update={"rng_seed": seed}), K),
}


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFolder:
    folder, model = CheckpointFolder(tmp_path), build_deeplab(TINY_DEEPLAB, K)
    position = Position(1, TINY_DEEPLAB.iterations)
    folder.save(position, model, build_optimizer(model, TINY_DEEPLAB))
    return folder


@pytest.mark.parametrize("name", BUILDERS)
def test_a_network_drawn_while_a_trained_one_is_loaded_is_that_of_its_seed(
    name: str, checkpoints: CheckpointFolder
) -> None:
    build, is_drawn, loaded = BUILDERS[name], Event(), []

    def load() -> None:  # as MLflow's thread does, again and again
        while not is_drawn.is_set():
            loaded.append(load_trained(checkpoints, TINY_DEEPLAB, K))

    thread = Thread(target=load)
    thread.start()
    try:
        found = [build(1).state_dict() for _ in range(8)]
    finally:
        is_drawn.set()
        thread.join()
    assert loaded
    for seed in (1, 2):
        expected = build(seed).state_dict()
        equal = [all(torch.equal(x, state[key]) for key, x in expected.items()) for state in found]
        assert equal == [seed == 1] * 8


def test_loading_a_network_leaves_the_random_stream_of_a_training_where_it_is(
    checkpoints: CheckpointFolder,
) -> None:
    model = build_deeplab(TINY_DEEPLAB, K)
    torch.rand(1)  # the checkpoint's state is the one before
    before = torch.get_rng_state()
    assert checkpoints.restore(model) == Position(1, TINY_DEEPLAB.iterations)
    assert torch.equal(torch.get_rng_state(), before)
