"""Initial weights from a file: whatever wraps them, all of them, or refused by name."""

import pickle
import re
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from fuzzing import Malicious, saved
from safetensors.torch import save_file
from small_networks import network
from torch import nn
from torchvision import models

from wsss.networks import backbone as backbones
from wsss.networks.backbone import Backbone, build_backbone, published_state
from wsss.weights import IMAGENET_FILES, WeightsError, file_digest


def initial(name: str, path: Path, digest: str | None = None) -> Backbone:
    return build_backbone(network(backbone=name, weights=digest or file_digest(path)), path)


def refusal(name: str, path: Path, digest: str | None = None) -> str:
    with pytest.raises(WeightsError) as caught:
        initial(name, path, digest)
    return str(caught.value)


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPPED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "backbone.encoder.": lambda state: prefixed(state, "backbone.encoder."),
    "state_dict": lambda state: {"state_dict": state, "epoch": 5},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(())}}}},
    "no classifier": lambda s: {k: v for k, v in s.items() if not k.startswith("classifier.")},
    "module. in state_dict, a head beside": lambda state: {
        "state_dict": prefixed(state, "module.") | {"head.weight": torch.zeros(2, 3)}
    },
}


def same_start(path: Path, bare: Path) -> bool:
    """Whether two files give a MobileNetV2 the same weights."""
    first, second = (initial("mobilenet_v2", each).state_dict() for each in (path, bare))
    return all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_weights_are_found_however_they_are_wrapped(
    wrapping: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    path, bare = tmp_path / "weights.pth", weights["mobilenet_v2"]
    torch.save(WRAPPED[wrapping](torch.load(bare, weights_only=True)), path)
    assert same_start(path, bare)


def test_weights_are_read_from_safetensors(weights: dict[str, Path], tmp_path: Path) -> None:
    path, bare = tmp_path / "weights.pth", weights["mobilenet_v2"]
    save_file(prefixed(torch.load(bare, weights_only=True), "model."), path)
    assert same_start(path, bare)
    path.write_bytes(path.read_bytes()[:-9])
    assert "get the file again" in refusal("mobilenet_v2", path)


KEY = "features.3.conv.0.0.weight"
UNFIT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "two": (lambda s: {"a": s, "b": s}, "holds 2 networks that fit mobilenet_v2: 'a', 'b'; save"),
    "none": (
        lambda s: {"epoch": 3, "args": "x"},
        "no weights of mobilenet_v2: .* no tensor; choose the b",
    ),
    "a tensor is missing": (
        lambda s: {k: s[k] for k in s if k != KEY},
        f"1 of 260 .*{KEY} is missing",
    ),
    "another shape": (
        lambda s: {"net": prefixed(s | {KEY: torch.ones(7, 1)}, "module.")},
        f"1 of 260 tensors do not fit, first {KEY} is 7x1, expected .*"
        r"the file holds 314 tensors: net / module\.features",
    ),
    **{
        str(value): (
            lambda s, value=value: s | {KEY: torch.full(s[KEY].shape, value)},
            f"1 of 260 .*{KEY} holds other than finite floating-point numbers",
        )
        for value in (float("nan"), float("inf"), 1)
    },
    "without data": (lambda s: s | {KEY: s[KEY].to("meta")}, f"{KEY} holds no plain numbers"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_weights_that_do_not_fit_are_refused_with_what_the_file_holds(
    kind: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    (change, told), path = UNFIT[kind], tmp_path / "weights.pth"
    torch.save(change(torch.load(weights["mobilenet_v2"], weights_only=True)), path)
    message = refusal("mobilenet_v2", path)
    assert message.startswith(f"{path}: ")
    assert re.search(told, message)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "it begins with b''"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "git-lfs"),
        (b"\n<!DOCTYPE html><html></html>", "<!DOCTYPE html>"),
        (b"hello\n", "hello"),
        (b"PK\x03\x04 not a zip", "get the file again"),
        (pickle.dumps({"model": 1}), "save it with torch.save"),
        (saved(nn.Linear(1, 1)), "needs code to be run: torch.nn.modules.linear.Linear"),
        *((saved(value), "") for value in (3, [1.0], torch.zeros(2), {"conv1.weight": 3})),
    ],
)
def test_what_lies_in_place_of_weights_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    message = refusal("mobilenet_v2", path)
    assert message.startswith(f"{path}: ")
    assert named in message


def test_another_file_than_the_configurations_is_refused_before_it_is_read(
    weights: dict[str, Path],
) -> None:
    digest, path = file_digest(weights["mobilenet_v2"]), weights["resnet18"]
    message = refusal("mobilenet_v2", path, digest)
    assert message.startswith(f"{path}: its SHA-256 is not {digest[:19]}")
    assert "give the file that the run was planned with" in message


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_never_runs(save: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    state = {"conv1.weight": Malicious(marker)}
    if save == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    message = refusal("resnet18", path)
    assert message.startswith(f"{path}: not a plain state dict")
    assert not marker.exists()
    if save == "pickle":
        pickle.loads(path.read_bytes())
        assert marker.exists(), "the attack itself works, so that the test can fail"


def test_missing_weights_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    with pytest.raises(WeightsError, match=r"sha256:0+\.\.\. need their file; give --weights"):
        build_backbone(network(backbone="resnet18", weights=digest))
    with pytest.raises(WeightsError, match=r"absent\.pth: No such file"):
        build_backbone(network(backbone="resnet18", weights=digest), tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match=r"resnet18 has no weights imagenet_v2; .*imagenet_v1"):
        build_backbone(network(backbone="resnet18", weights="imagenet_v2"))
    with pytest.raises(
        WeightsError, match=r"resnet10_narrow has no .* imagenet_v1; there are: none"
    ):
        build_backbone(network(weights="imagenet_v1"))


def test_the_names_of_imagenet_weights_are_the_files_that_torchvision_has_under_them() -> None:
    for (name, weights), file_name in IMAGENET_FILES.items():
        published = models.get_model_weights(name)[f"IMAGENET1K_{weights[-2:].upper()}"]
        assert published.url == backbones.PUBLISHED + file_name


@pytest.mark.parametrize("fault", [URLError("no route"), RuntimeError("invalid hash value")])
def test_weights_that_cannot_be_downloaded_or_are_altered_are_refused_with_a_remedy(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def fail(url: str, **options: Any) -> None:
        assert options["check_hash"]
        raise fault

    monkeypatch.setattr(backbones, "load_state_dict_from_url", fail)
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth: .*; give a downloaded copy"):
        build_backbone(network(backbone="resnet18", weights="imagenet_v1"))


@pytest.mark.parametrize("kind", ["empty", "of other weights"])
def test_a_damaged_download_of_before_is_refused_by_name(
    kind: str, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"" if kind == "empty" else weights["resnet18"].read_bytes())
    told = rf"{path}: its SHA-256 does not begin with f37072fd, .*; delete it"
    with pytest.raises(WeightsError, match=told):
        build_backbone(network(backbone="resnet18", weights="imagenet_v1"))


def test_a_download_of_before_needs_no_network(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = file_digest(weights["resnet18"]).removeprefix("sha256:")[:8]
    monkeypatch.setitem(IMAGENET_FILES, ("resnet18", "imagenet_v1"), f"resnet18-{digits}.pth")
    monkeypatch.setattr("torch.hub.download_url_to_file", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / f"hub/checkpoints/resnet18-{digits}.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(weights["resnet18"].read_bytes())
    found = published_state(network(backbone="resnet18", weights="imagenet_v1"))
    expected = torch.load(path, weights_only=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_server_of_weights_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it may know other proxies already
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(backbones, "ANSWER_LIMIT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(WeightsError, match=r"timed out.*; give a downl"):
            published_state(network(backbone="resnet18", weights="imagenet_v1"))
    assert socket.getdefaulttimeout() is None
