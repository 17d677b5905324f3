"""Names and files that mean harm: refused with file and remedy, or shown as the text they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished import finished_sweep
from fuzzing import ESCAPE, refusal
from PIL import Image
from typer.testing import CliRunner

from sweeps.cli.method import app
from sweeps.plan.sweep import data_name, load_sweep, save_sweep
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, write_json
from wsss.basics.printable import web_address
from wsss.config import RunConfig
from wsss.data.classes import ClassListError, read_class_list
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset
from wsss.labels.cam_files import CamFile, require_fitting
from wsss.overrides import ConfigError, apply_overrides


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of one picture, `a`, and no annotation."""
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(tmp_path / "voc/JPEGImages/a.jpg")
    Image.new("L", (3, 2), 1).save(tmp_path / "voc/SegmentationClass/a.png")
    (tmp_path / "voc/ImageSets/Segmentation/train.txt").write_text("a\n")
    return tmp_path / "voc"


# Data sets


@pytest.mark.parametrize("split", ["../../secret", "/etc/passwd", "a\x00b", "x" * 300, "", ESCAPE])
def test_the_name_of_a_split_cannot_lead_out_of_its_folder(root: Path, split: str) -> None:
    (root / "secret.txt").write_text("secret\n")  # would be read as ImageSets/.../../../secret.txt
    message = refusal(lambda: VocDataset(root).image_ids(split), DataError)
    assert "is no valid name of a split" in message
    for key in (
        "data.train_split",
        "data.eval_split",
        "data.name",
        "data.fingerprint",
        "data.train_fingerprint",
    ):
        refusal(lambda key=key: apply_overrides(RunConfig(), {key: split}), ConfigError)


def test_a_long_split_with_an_id_twice_is_refused_without_delay(root: Path) -> None:
    ids = [f"i{n}" for n in range(200_000)]  # counting each id in the list took hours
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join([*ids, "i199999"]))
    message = refusal(lambda: VocDataset(root).image_ids("train"), DataError)
    assert "i199999 is listed twice" in message


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ('<!DOCTYPE a [<!ENTITY x "cat">]><a><object><name>&x;</name></object></a>', "DOCTYPE"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>', "DOCTYPE"),
        ("<a><object><name>" + "x" * 900_000 + "</name></object></a>", "unknown class"),
        (f"<a><object><name>cat{ESCAPE[1:4]}</name></object></a>", "unknown class"),
        ("<a>" * 300_000 + "</a>" * 300_000, "no class present"),
        ("<a>" + " " * (5 << 20) + "</a>", "over 4,194,304 bytes"),
    ],
)
def test_xml_that_grows_or_fetches_is_refused_by_file(root: Path, xml: str, reason: str) -> None:
    path = root / "Annotations/a.xml"
    path.write_text(xml)
    message = refusal(lambda: VocDataset(root).sample("a"), DataError)
    assert message.startswith(f"{path}: ")
    assert reason in message


def test_senseless_coordinates_change_no_label(root: Path) -> None:
    box = f"<bndbox><xmin>-{'9' * 4000}</xmin><ymax>1e999</ymax></bndbox>"
    xml = f"<a><size><width>{'9' * 99}</width></size><object><name>cat</name>{box}</object></a>"
    (root / "Annotations/a.xml").write_text(xml)
    assert VocDataset(root).sample("a").labels == (7,)  # cat is VOC's eighth class


def test_a_class_list_that_cannot_be_read_is_refused_and_not_taken_for_none(root: Path) -> None:
    path = root / "classes.txt"
    path.symlink_to(root / "nowhere")
    assert refusal(lambda: read_class_list(root), ClassListError).startswith(f"{path}: No such")
    path.unlink()
    path.mkdir()
    assert refusal(lambda: read_class_list(root), ClassListError).startswith(f"{path}: Is a dir")
    path.rmdir()
    path.symlink_to("/dev/zero")
    assert "socket or device" in refusal(lambda: read_class_list(root), ClassListError)
    path.unlink()
    path.write_bytes(b"a" * (2**20 + 1))
    assert "over 1,048,576 bytes" in refusal(lambda: read_class_list(root), ClassListError)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/data/VOC2012", "VOC2012"),
        ("/data/../..", "data"),
        ("/", "data"),
        ("/x/.hidden", "hidden"),
        ("/x/<script>alert(1)</script>", "script"),
        ("/x/=cmd()", "cmd"),
        ("/x/-rf", "rf"),
        ("/x/a|b\nc" + ESCAPE, "a-b-c-2J-0-owned"),
        ("/x/" + "y" * 200, "y" * 80),
        ("/x/日本", "data"),
    ],
)
def test_any_folder_gives_a_name_that_the_configuration_takes(folder: str, name: str) -> None:
    assert data_name(Path(folder)) == name
    assert apply_overrides(RunConfig(), {"data.name": name}).data.name == name


# Sweeps and networks


@pytest.mark.parametrize("name", ["../x", "/etc", ESCAPE, "x" * 300, "a\x00b"])
def test_a_sweep_that_is_not_in_the_store_is_refused(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / "x" / "sweep.json", {"secret": 1})
    (tmp_path / "store/sweeps").mkdir(parents=True)
    message = refusal(lambda: load_sweep(Store(tmp_path / "store"), name), StoreError)
    assert "there are: none" in message


@pytest.mark.parametrize(
    "change",
    [
        {"tables": ["../x"]},
        {"tables": [ESCAPE]},
        {"tables": []},
        {"tables": 3},
        {"seeds": "9"},
        {"seeds": 0},
        {"base": {"data": {"name": "../x"}}},
        {"base": 3},
        {"data": None},
    ],
)
def test_an_altered_description_of_a_sweep_is_refused_by_file(
    change: dict[str, object], tmp_path: Path
) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("V",), 1)
    save_sweep(store, sweep)
    path = store.sweep(sweep.name) / "sweep.json"
    assert load_sweep(store) == sweep
    write_json(path, json.loads(path.read_text()) | change)
    assert refusal(lambda: load_sweep(store), StoreError).startswith(f"{path}: not what")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"segmentation": 3, "classes": ["cat"]}',
        "[" * 100_000,
        '{"segmentation": {}}',
        '{"segmentation": {}, "classes": ["\\u001b[2J"]}',
        '{"segmentation": {}, "classes": "cat"}',
        '{"segmentation": {"lr": -1}, "classes": ["cat"]}',
        "\x00",
    ],
)
def test_a_network_folder_from_outside_is_refused_by_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    ran = CliRunner().invoke(app, ["predict", "x.jpg", "--network", str(tmp_path)])
    assert ran.exit_code == 2
    assert f"error: {tmp_path / 'config.json'}: " in ran.output
    assert "\x1b" not in ran.output


# Links


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("http://h:5000/#/runs/1", "http://h:5000/#/runs/1"),
        ("https://h", "https://h"),
        ("javascript:alert(1)", "#"),
        ("data:text/html,x", "#"),
        ("http://h/a b", "#"),
        ("", "#"),
        ('http://h/">', "http://h/%22%3E"),
    ],
)
def test_only_web_addresses_become_links(url: str, link: str) -> None:
    assert web_address(url) == link


@pytest.mark.parametrize(
    ("value", "classes", "size", "fault"),
    [
        (0.5, (3,), (2, 3), "of 1 classes"),
        (0.5, (3, 3), (2, 2), "expected different ones"),
        (0.5, (-1, 3), (2, 2), "0..19"),
        (0.5, (3, 20), (2, 2), "0..19"),
        (float("nan"), (1, 2), (2, 2), "between 0 and 1"),
        (1.5, (1, 2), (2, 2), "between 0 and 1"),
    ],
)
def test_cams_from_outside_that_do_not_fit_are_refused_by_file(
    value: float, classes: tuple[int, ...], size: tuple[int, int], fault: str
) -> None:
    maps = np.full((2, 2, 2), value, np.float32)
    path = Path("cams/a.npz")
    message = refusal(lambda: require_fitting(CamFile(path, maps, classes), size, 20), DataError)
    assert message.startswith("cams/a.npz: ")
    assert fault in message
