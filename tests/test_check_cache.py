"""A data set that was found whole is not read again until a file of it changes."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from wsss.data import check as checking
from wsss.data.check import DataReport, cache_folder, check_data, check_data_once
from wsss.data.voc import DataError, VocDataset

SPLITS = ["train", "train_aug"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checks"


@pytest.fixture
def copy(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "voc"))


@pytest.fixture
def full_checks(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The splits of each check that reads all files."""
    seen: list[list[str]] = []

    def counted(dataset: VocDataset, splits: list[str]) -> DataReport:
        seen.append(splits)
        return check_data(dataset, splits)

    monkeypatch.setattr(checking, "check_data", counted)
    return seen


def test_a_second_check_reads_nothing_and_reports_the_same(
    copy: Path, full_checks: list[list[str]]
) -> None:
    first = check_data_once(VocDataset(copy), SPLITS)
    second = check_data_once(VocDataset(copy), SPLITS)
    assert full_checks == [SPLITS]
    assert first == second == check_data(VocDataset(copy), SPLITS)


def test_other_splits_are_checked_on_their_own(copy: Path, full_checks: list[list[str]]) -> None:
    check_data_once(VocDataset(copy), SPLITS)
    report = check_data_once(VocDataset(copy), ["val"])
    assert full_checks == [SPLITS, ["val"]]
    assert report.num_images == {"val": 3}


def change(root: Path, what: str) -> None:
    lists = root / "ImageSets/Segmentation"
    if what == "mask of equal size, later":
        path = root / "SegmentationClass/drawn_000003.png"
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif what == "longer image":
        path = root / "JPEGImages/drawn_000001.jpg"
        stat = path.stat()
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif what == "XML gone":
        (root / "Annotations/drawn_000002.xml").unlink()
    elif what == "XML added":
        source = root / "Annotations/drawn_000002.xml"
        ids = (lists / "train_aug.txt").read_text().split()
        new = next(i for i in ids if not (root / f"Annotations/{i}.xml").exists())
        shutil.copy(source, root / f"Annotations/{new}.xml")
    elif what == "split shorter":
        (lists / "train.txt").write_text("\n".join((lists / "train.txt").read_text().split()[:-1]))
    else:
        names = list(VocDataset(root).classes)
        (root / "classes.txt").write_text("\n".join(["spaceship", *names[1:]]))


@pytest.mark.parametrize(
    "what",
    ["mask of equal size, later", "longer image", "XML gone", "XML added", "split shorter",
     "class list"],
)  # fmt: skip
def test_any_change_of_a_file_is_seen(copy: Path, full_checks: list[list[str]], what: str) -> None:
    check_data_once(VocDataset(copy), SPLITS)
    change(copy, what)
    report = check_data_once(VocDataset(copy), SPLITS)
    assert len(full_checks) == 2
    assert report == check_data(VocDataset(copy), SPLITS)


def test_a_file_outside_the_splits_changes_nothing(
    copy: Path, full_checks: list[list[str]]
) -> None:
    check_data_once(VocDataset(copy), ["train"])
    (copy / "JPEGImages/new.jpg").write_bytes(b"")
    check_data_once(VocDataset(copy), ["train"])
    assert len(full_checks) == 1


def test_recheck_reads_all_again(copy: Path, full_checks: list[list[str]]) -> None:
    check_data_once(VocDataset(copy), SPLITS)
    path = copy / "SegmentationClass/drawn_000003.png"
    with Image.open(path) as image:
        image.load()
    stat, content = path.stat(), path.read_bytes()
    path.write_bytes(b"x" * len(content))  # what a hit cannot see: equal size and time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert check_data_once(VocDataset(copy), SPLITS).problems == []
    with pytest.raises(DataError, match="drawn_000003"):
        check_data_once(VocDataset(copy), SPLITS, recheck=True).raise_if_broken()
    assert len(full_checks) == 2


def test_a_broken_data_set_is_never_remembered(
    copy: Path, full_checks: list[list[str]], cache: Path
) -> None:
    (copy / "JPEGImages/drawn_000000.jpg").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="drawn_000000"):
            check_data_once(VocDataset(copy), SPLITS).raise_if_broken()
    with pytest.raises(DataError, match="no such split"):
        check_data_once(VocDataset(copy), ["nosuch"]).raise_if_broken()
    assert len(full_checks) == 3
    assert not cache.exists()


def test_files_that_change_while_they_are_read_are_not_remembered(
    copy: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def slow(dataset: VocDataset, splits: list[str]) -> DataReport:
        report = check_data(dataset, splits)
        change(copy, "longer image")
        return report

    monkeypatch.setattr(checking, "check_data", slow)
    check_data_once(VocDataset(copy), SPLITS)
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}'])
def test_a_damaged_entry_is_as_good_as_none(
    copy: Path, full_checks: list[list[str]], cache: Path, content: str
) -> None:
    check_data_once(VocDataset(copy), SPLITS)
    (entry,) = cache.iterdir()
    entry.write_text(content)
    check_data_once(VocDataset(copy), SPLITS)
    assert len(full_checks) == 2
    assert json.loads(entry.read_text())["version"] == checking.VERSION


def test_a_cache_that_cannot_be_written_costs_only_time(
    copy: Path, full_checks: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert check_data_once(VocDataset(copy), SPLITS).problems == []
    assert len(full_checks) == 2


def test_nothing_is_written_into_the_data_folder(copy: Path, cache: Path) -> None:
    before = sorted(copy.rglob("*"))
    check_data_once(VocDataset(copy), SPLITS)
    assert sorted(copy.rglob("*")) == before
    assert len(list(cache.iterdir())) == 1


def test_the_cache_lies_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == tmp_path / "cache" / "checks"
    monkeypatch.delenv("WSSS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "wsss-sweeps" / "checks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "wsss-sweeps" / "checks"
