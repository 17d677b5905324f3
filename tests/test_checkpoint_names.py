"""Names of checkpoints between epochs and within them."""

from pathlib import Path

from wsss.training.checkpoint_names import checkpoint_name, epochs_of


def test_a_checkpoint_is_named_by_epochs_and_within_one_by_iterations_too() -> None:
    assert checkpoint_name(3) == "epoch_0003.pt"
    assert checkpoint_name(3, 123) == "epoch_0003_0000123.pt"
    assert checkpoint_name(0, 1) == "epoch_0000_0000001.pt"


def test_names_sort_in_the_order_of_progress() -> None:
    progress = [(0, 5), (0, 40), (1, None), (1, 99), (1, 100), (2, None), (10, None), (10, 1000)]
    names = [checkpoint_name(epoch, iteration) for epoch, iteration in progress]
    assert sorted(names) == names
    paths = [Path("cams/c/checkpoints") / name for name in names]
    assert sorted(paths) == paths


def test_the_finished_epochs_are_read_from_a_name_or_a_path() -> None:
    assert epochs_of("epoch_0003.pt") == epochs_of("epoch_0003_0000123.pt") == 3
    assert epochs_of(Path("a_7/epoch_0012_0000500.pt")) == 12
