"""How a sweep starts or joins Ray, and which initial weights it tries before that."""

from typing import Any

import pytest
import torch

from sweeps.run import resources as run
from sweeps.run.driver import download_weights
from sweeps.run.resources import CapacityError, Resources
from wsss.config import NetworkConfig
from wsss.networks import backbone

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What ray.init was given."""
    found: Calls = []
    monkeypatch.setattr("ray.init", lambda *words, **options: found.append((words, options)))
    monkeypatch.setattr(run, "let_children_keep_memory", lambda: None)
    return found


def test_ray_here_has_the_gpus_that_torch_can_use_if_gpus_are_asked_for(
    calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for gpus in (0.5, 0.0):
        run.start_ray(Resources(gpus=gpus))
    assert [words for words, _ in calls] == [("local",)] * 2
    assert [options["num_gpus"] for _, options in calls] == [3, None]


@pytest.mark.parametrize(("built", "hint"), [("13.0", "see `nvidia-smi`"), (None, "without CUDA")])
def test_gpus_are_refused_where_torch_finds_none_before_ray_is_started(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, built: str | None, hint: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(CapacityError, match=rf"--gpus 0\.5: torch .* no GPU .*{hint}.*--address"):
        run.start_ray(Resources(gpus=0.5))
    assert calls == []


def test_a_named_cluster_is_joined_and_told_of_no_gpus(calls: Calls) -> None:
    run.start_ray(Resources(gpus=1.0, address="192.0.2.1:6379"))
    ((words, options),) = calls
    assert words == ("192.0.2.1:6379",)
    assert "num_gpus" not in options


def test_each_kind_of_named_weights_is_loaded_once_and_no_file_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[str, str]] = []

    def build(network: NetworkConfig) -> None:
        tried.append((network.backbone, network.weights))

    monkeypatch.setattr(backbone, "build_backbone", build)
    networks = [
        NetworkConfig(backbone=name, weights=weights)
        for name in ("resnet18", "resnet50")
        for weights in ("none", "imagenet_v1", "imagenet_v1", f"sha256:{'0' * 64}")
    ]
    download_weights(networks)
    assert tried == [("resnet18", "imagenet_v1"), ("resnet50", "imagenet_v1")]
