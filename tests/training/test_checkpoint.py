"""Checkpoints: whole or absent, never run as code, and the one before if the newest is broken."""

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import Malicious, saved
from torch import nn

from wsss.training.checkpoint import CheckpointFolder, OtherNetworkError, Position
from wsss.training.checkpoint_names import checkpoint_name, epochs_of


def make(value: float = 0.0) -> tuple[nn.Linear, torch.optim.SGD]:
    """A model of one weight `value`, and an optimiser whose momentum is at 10 times that."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD([{"params": model.parameters(), "base_lr": 0.5}], 0.5, 0.9)
    model.weight.grad = torch.full((1, 1), 10 * value)
    optimizer.step()
    with torch.no_grad():
        model.weight.fill_(value)
    return model, optimizer


def save_epochs(folder: CheckpointFolder, *epochs: int) -> None:
    for epoch in epochs:
        folder.save(Position(epoch, 7 * epoch), *make(float(epoch)))


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.folder.iterdir())


def speed(model: nn.Linear, optimizer: torch.optim.SGD) -> float:
    return float(optimizer.state[model.weight]["momentum_buffer"])


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints")


def test_weights_optimiser_position_and_random_state_come_back(folder: CheckpointFolder) -> None:
    torch.manual_seed(5)
    save_epochs(folder, 4)
    expected = torch.rand(3)
    torch.manual_seed(6)
    model, optimizer = make()
    assert folder.restore(model, optimizer) == Position(4, 28)
    assert model.weight.item() == 4.0
    assert speed(model, optimizer) == 40.0
    assert optimizer.param_groups[0]["base_lr"] == 0.5
    assert torch.equal(torch.rand(3), expected)


def test_a_process_killed_while_writing_leaves_the_old_checkpoints(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_epochs(folder, 1, 2)
    child = os.fork()
    if child == 0:  # pragma: no cover - dies inside torch.save, as by SIGKILL

        def die(state: Any, file: Any) -> None:
            file.write(b"half of it")
            file.flush()
            os._exit(9)

        torch.save = die
        save_epochs(folder, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert folder.restore(make()[0]) == Position(2, 14)
    assert len(names(folder)) == 3
    save_epochs(folder, 3)
    assert folder.restore(make()[0]) == Position(3, 21)
    assert names(folder) == ["epoch_0002.pt", "epoch_0003.pt"], "and nothing of the killed one"


def without(content: bytes, part: str) -> bytes:
    """As a checkpoint of another version of the code."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    return saved({name: value for name, value in state.items() if name != part})


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "zeros": lambda whole: b"\0" * len(whole),
    "other content": lambda whole: saved({"something": torch.zeros(1)}),
    "no optimiser": lambda whole: without(whole, "optimizer"),
    "no random state": lambda whole: without(whole, "torch_rng"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_leaves_no_trace_but_a_warning_and_the_one_before_or_none_is_taken(
    folder: CheckpointFolder, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save_epochs(folder, 1, 2)
    path = folder.folder / "epoch_0002.pt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    model, optimizer = make()
    with caplog.at_level(logging.WARNING):
        assert folder.restore(model, optimizer) == Position(1, 7)
    assert (model.weight.item(), speed(model, optimizer)) == (1.0, 10.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert "falling back to the one before" in caplog.text
    assert names(folder) == ["epoch_0001.pt", "epoch_0002.broken"]
    (path,) = folder.paths()
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    model, optimizer = make(3.0)
    assert folder.restore(model, optimizer) == Position(0, 0)
    assert (model.weight.item(), speed(model, optimizer)) == (3.0, 30.0)


def test_a_whole_checkpoint_of_another_network_is_refused_and_kept(
    folder: CheckpointFolder,
) -> None:
    folder.save(Position(1, 7), nn.Linear(1, 1), make()[1])
    with pytest.raises(OtherNetworkError, match=r"bias is \(1,\), and absent by its settings"):
        folder.restore(*make(3.0))
    assert names(folder) == ["epoch_0001.pt"]


def test_a_checkpoint_says_of_which_training_it_is(tmp_path: Path) -> None:
    one, other = (CheckpointFolder(tmp_path, owner=f"cams/{name}") for name in ("a", "b"))
    save_epochs(one, 1)
    assert one.restore(*make()) == Position(1, 7)
    with pytest.raises(OtherNetworkError, match=r"of another training \(cams/a, not cams/b\)"):
        other.restore(*make())
    assert CheckpointFolder(tmp_path).restore(*make()) == Position(1, 7)
    save_epochs(CheckpointFolder(tmp_path), 2)  # one from before checkpoints said it
    assert other.restore(*make()) == Position(2, 14)


def test_a_rank_which_finds_the_broken_file_already_renamed_falls_back_too(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every rank restores at the same time: another one may have renamed the file meanwhile.
    save_epochs(folder, 1, 2)
    broken = folder.folder / "epoch_0002.pt"
    broken.write_bytes(b"broken")
    load = torch.load

    def load_late(path: Path, **options: Any) -> Any:
        if path == broken:
            broken.rename(broken.with_suffix(".broken"))
        return load(path, **options)

    monkeypatch.setattr(torch, "load", load_late)
    assert folder.restore(make()[0]) == Position(1, 7)


def test_a_single_altered_bit_is_noticed(folder: CheckpointFolder) -> None:
    # torch.load alone would give the altered weights without a word.
    save_epochs(folder, 1, 2)
    path = folder.folder / "epoch_0002.pt"
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(2.0).tobytes())] ^= 1  # in the weight
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["model"]["weight"] != 2.0
    model, optimizer = make()
    assert folder.restore(model, optimizer) == Position(1, 7)
    assert model.weight.item() == 1.0


def test_each_whole_checkpoint_is_handed_on_once(tmp_path: Path) -> None:
    told: list[tuple[str, Position]] = []

    def look(path: Path) -> None:
        told.append((path.name, CheckpointFolder(path.parent).restore(make()[0])))

    folder = CheckpointFolder(tmp_path, after_save=look)
    save_epochs(folder, 1, 2, 3)
    assert told == [
        ("epoch_0001.pt", Position(1, 7)),
        ("epoch_0002.pt", Position(2, 14)),
        ("epoch_0003.pt", Position(3, 21)),
    ]
    assert names(folder) == ["epoch_0002.pt", "epoch_0003.pt"]


def test_a_malicious_checkpoint_is_not_run(folder: CheckpointFolder, tmp_path: Path) -> None:
    save_epochs(folder, 1, 2)
    path, harm = folder.folder / "epoch_0002.pt", tmp_path / "harm"
    state = torch.load(path, weights_only=True) | {"extra": Malicious(harm)}
    torch.save(state, path)
    torch.load(path, weights_only=False)
    assert harm.exists()  # it would do harm
    harm.unlink()
    assert folder.restore(*make()) == Position(1, 7)
    assert not harm.exists()


# Names


def test_names_sort_in_the_order_of_progress() -> None:
    progress = [(0, 5), (0, 40), (1, None), (1, 99), (1, 100), (2, None), (10, None), (10, 1000)]
    names = [checkpoint_name(epoch, iteration) for epoch, iteration in progress]
    assert sorted(names) == names
    paths = [Path("cams/c/checkpoints") / name for name in names]
    assert sorted(paths) == paths


def test_somebodys_copy_of_a_checkpoint_is_none(tmp_path: Path) -> None:
    for name in ("epoch_0002 (copy).pt", "epoch_0002_old.pt", "._epoch_0002.pt", "epoch_0001.pt"):
        (tmp_path / name).touch()
    assert [path.name for path in CheckpointFolder(tmp_path).paths()] == ["epoch_0001.pt"]


def test_the_finished_epochs_are_read_from_a_name_or_a_path() -> None:
    assert epochs_of("epoch_0003.pt") == epochs_of("epoch_0003_0000123.pt") == 3
    assert epochs_of(Path("a_7/epoch_0012_0000500.pt")) == 12
