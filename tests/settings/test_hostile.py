"""Names and files that mean harm: refused with file and remedy, or shown as the text they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import wsss
from fuzzing import ESCAPE, refusal
from made_up.finished import finished_sweep

from sweeps.plan.sweep import data_name, load_sweep, save_sweep
from sweeps.store.errors import StoreError
from sweeps.store.store import Store, write_json
from wsss.config import RunConfig
from wsss.data.errors import DataError
from wsss.labels.cam_files import CamFile, require_fitting
from wsss.overrides import ConfigError, apply_overrides


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a\x00b", "x" * 300, "", ESCAPE])
def test_no_setting_takes_a_name_that_leads_out_of_its_folder(name: str) -> None:
    for key in ("train_split", "eval_split", "name", "fingerprint", "train_fingerprint"):
        refusal(lambda key=key: apply_overrides(RunConfig(), {f"data.{key}": name}), ConfigError)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/data/VOC2012", "VOC2012"),
        ("/data/VOC2012/JPEGImages/..", "VOC2012"),
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
        {"tables": [ESCAPE]},
        {"tables": [3]},
        {"seeds": 10**30},
        {"base": {"data": {"name": "../x"}}},
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
        '{"segmentation": 3, "classes": ["cat"]}',
        "[" * 100_000,
        '{"segmentation": {}}',
        '{"segmentation": {}, "classes": ["\\u001b[2J"]}',
        '{"segmentation": {"lr": -1}, "classes": ["cat"]}',
    ],
)
def test_a_network_folder_from_outside_is_refused_by_its_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    ran = wsss("predict", "x.jpg", "--network", tmp_path)
    assert ran.exit_code == 2
    assert f"error: {tmp_path / 'config.json'}: " in ran.output
    assert "\x1b" not in ran.output


@pytest.mark.parametrize(
    ("value", "classes", "size", "fault"),
    [
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
