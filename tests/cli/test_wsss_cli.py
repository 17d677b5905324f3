"""The `wsss` command: its stages one after the other, and one line for whatever goes wrong."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import options, wsss
from PIL import Image

from sweeps.stages.stage import Place
from sweeps.stages.trial import run_trial
from sweeps.store.store import Store
from wsss.basics.printable import command
from wsss.config import RunConfig
from wsss.data.check import check_data
from wsss.data.voc import VocDataset
from wsss.identity import run_id
from wsss.labels.cam_files import read_cams, write_cams
from wsss.overrides import apply_overrides


def succeed(*words: str | Path) -> str:
    result = wsss(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(*words: str | Path, lines: int = 1) -> str:
    """Run a command that must end with exit code 2 and so many lines of `error: ...`."""
    result = wsss(*words)
    told = result.stderr.splitlines()
    assert result.exit_code == 2, f"{result.exception!r}\n{result.output}"
    assert len(told) == lines, result.stderr
    assert all(line.startswith("error: ") for line in told)
    return result.stderr


@pytest.fixture(scope="module")
def slow(small: RunConfig) -> RunConfig:
    """A rate at which the CAMs of so short a training are not empty."""
    return apply_overrides(small, {"train.lr": 0.01})


@pytest.fixture(scope="module")
def settings_file(slow: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = slow.model_dump(mode="json")
    path = tmp_path_factory.mktemp("settings") / "small.yaml"
    path.write_text(yaml.safe_dump({name: tree[name] for name in ("network", "train", "labels")}))
    return path


@pytest.fixture(scope="module")
def trained(
    drawn: Path, settings_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A folder in which a training was started and ended, and what it printed."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    command = ("train-cam", "--run", folder, "--data", drawn, "--preset", "tiny")
    return folder, succeed(*command, "--config", settings_file)


@pytest.fixture(scope="module")
def evaluated(trained: tuple[Path, str]) -> tuple[str, str]:
    """What infer and evaluate print for it."""
    inferred = succeed("infer", "--run", trained[0])
    return inferred, succeed("evaluate", "--run", trained[0])


@pytest.fixture
def run(trained: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the training to change."""
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


# Data


def test_draw_writes_a_data_set_that_check_finds_whole(tmp_path: Path) -> None:
    root = tmp_path / "voc"
    options = ("--train", "2", "--extra", "1", "--val", "1")
    assert f"{root}: 4 images" in succeed("data", "draw", root, *options)
    found = succeed("data", "check", root)
    assert "no problem found" in found
    row = next(line for line in found.splitlines() if "labels from masks" in line)
    assert re.findall(r"\d+", row) == ["0", "1", "0", "0"]  # train, train_aug, trainval, val
    row = next(line for line in found.splitlines() if " images " in line)
    assert re.findall(r"\d+", row) == ["2", "3", "3", "1"]
    assert str(root) in fail("data", "draw", root, "--train", "3")


def test_check_says_as_json_what_it_prints_and_names_every_broken_file(
    drawn: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(drawn, tmp_path / "a[b]c"))  # no markup of the terminal library
    (root / "JPEGImages/\x1b[2J\n.jpg").write_bytes(b"")
    first = VocDataset(root).image_ids("val")[0]  # which may have no class, also in trainval
    (root / f"Annotations/{first}.xml").write_text("<annotation/>")
    for path in root.glob(f"SegmentationClass*/{first}.png"):
        path.unlink()
    told = succeed("data", "check", root, "--split", "val", "--split", "train")
    report = check_data(VocDataset(root), ["val", "train"], scored=["train"], may_be_empty=["val"])
    assert told.startswith(f"{root}  [{report.fingerprint}]\n")
    assert "note: JPEGImages: 1 image (\\x1b[2J\\n) in no split" in told
    found = json.loads(succeed("data", "check", "--data", root, "--json"))
    assert (found["num_images"]["val"], found["problems"]) == (3, [])
    assert found["num_masks"]["val"] == 2
    scored = ("--split", "val", "--scored", "val")
    assert f"{first}.png: no mask here" in fail("data", "check", root, *scored, lines=2)
    (root / "JPEGImages/drawn_000001.jpg").unlink()
    (root / "Annotations/drawn_000002.xml").write_text("<a>")
    told = fail("data", "check", root, "--split", "train", lines=2)
    assert "drawn_000001.jpg: missing" in told
    assert "drawn_000002.xml: not well-formed" in told
    result = wsss("data", "check", root, "--split", "train", "--json")
    assert (result.exit_code, len(json.loads(result.stdout)["problems"])) == (2, 2)


# Train, infer, evaluate


def test_training_prints_a_line_per_epoch_and_what_comes_next(
    trained: tuple[Path, str], drawn: Path
) -> None:
    folder, printed = trained
    lines = printed.splitlines()
    epochs = ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    assert [line.split(" loss ")[0] for line in lines[:-1]] == epochs
    assert lines[-1] == f"{folder}: trained; next: {command('wsss', 'infer', '--run', folder)}"
    saved = json.loads((folder / "run.json").read_text())
    assert (saved["data"], saved["config"]["train"]["epochs"]) == (str(drawn), 3)
    state = torch.load(folder / "checkpoints" / "epoch_0003.pt", weights_only=True)
    assert state["position"][:2] == [3, 12]


@pytest.mark.parametrize("masks", [(), ("drawn_000001",)])
def test_labels_with_few_masks_or_none_are_enough_to_train_on(
    drawn: Path, settings_file: Path, tmp_path: Path, masks: tuple[str, ...]
) -> None:
    root, run = Path(shutil.copytree(drawn, tmp_path / "own")), tmp_path / "run"
    for path in root.glob("SegmentationClass*/*.png"):
        if path.stem not in masks:
            path.unlink()
    lists = root / "ImageSets/Segmentation"
    shutil.copyfile(lists / "train.txt", lists / "train_aug.txt")
    (lists / "masked.txt").write_text("".join(f"{image_id}\n" for image_id in masks))
    scored = ("--scored", "masked") if masks else ()
    assert "no problem found" in succeed("data", "check", root, "--split", "train", *scored)
    options = ("--preset", "tiny", "--config", settings_file, "--set", "train.epochs=1")
    succeed("train-cam", "--run", run, "--data", root, *options)
    assert f"next: {command('wsss', 'pseudo-label')}" in succeed("infer", "--run", run)
    assert "10 label maps" in (told := succeed("pseudo-label", "--run", run))
    assert "not scored, as not all images of the split train have a mask" in told
    assert "no mask here" in fail("evaluate", "--run", run)
    if masks:
        assert "1 image of" in succeed("evaluate", "--run", run, "--split", "masked")


def test_cam_files_hold_the_present_classes_in_the_size_of_the_image_and_can_be_looked_at(
    trained: tuple[Path, str], evaluated: tuple[str, str], drawn: Path, tmp_path: Path
) -> None:
    folder = trained[0] / "cams"
    assert "CAMs of 10 images (10 new)" in evaluated[0]
    samples = VocDataset(drawn).samples("train")
    assert sorted(path.stem for path in folder.glob("*.npz")) == [s.image_id for s in samples]
    for sample in samples:
        with np.load(folder / f"{sample.image_id}.npz", allow_pickle=False) as file:
            classes, cams = file["classes"], file["cams"]
        with Image.open(sample.image_path) as image:
            assert cams.shape == (len(sample.labels), image.height, image.width)
        assert tuple(classes) == sample.labels
        assert 0 <= cams.min() <= cams.max() <= 1
    page = (Path(__file__).parents[2] / "docs" / "using.md").read_text(encoding="utf-8")
    look = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1]
    names = {"runs/b0/cams/2007_000032.npz": folder / f"{samples[0].image_id}.npz"}
    names["/data/VOC2012/JPEGImages/2007_000032.jpg"] = samples[0].image_path
    for name, path in names.items():
        look = look.replace(name, str(path))
    exec(look.replace("cam.png", str(tmp_path / "cam.png")), {})
    assert (tmp_path / "cam.png").stat().st_size > 1000
    told = succeed("infer", "--run", trained[0])
    assert told.startswith(f"{folder}: CAMs of 10 images (0 new)\n"), "no line without a bar"


def test_evaluate_gives_the_figures_of_a_trial_of_the_same_settings(
    trained: tuple[Path, str],
    evaluated: tuple[str, str],
    slow: RunConfig,
    drawn: Path,
    tmp_path: Path,
) -> None:
    # CAM files are float16: a pixel within 2**-11 of a threshold may fall on its other side.
    list(run_trial(slow, Place(Store(tmp_path), drawn)))
    expected = Store(tmp_path).run(run_id(slow)).result()
    fixed, best, auc = (float(v) for v in re.findall(r"mIoU ([\d.]+) %", evaluated[1]))
    assert fixed == pytest.approx(expected["miou_fixed"], abs=0.15)
    assert best == pytest.approx(expected["miou_best"], abs=0.15)
    assert auc == pytest.approx(
        np.mean([v for t, v in expected["curve"] if 0.05 <= t <= 0.8]), abs=0.3
    )
    assert "at the fixed background score 0.15" in evaluated[1]
    assert "(chosen with pixel ground truth)" in evaluated[1]
    rows = dict(re.findall(r"^  (\w+) +([\d.]+)$", evaluated[1], re.MULTILINE))
    occurring = {
        name: iou
        for name, iou in zip(
            ["background", *expected["classes"]], expected["iou_fixed"], strict=True
        )
        if iou is not None
    }
    assert rows.keys() == occurring.keys()
    for name, iou in occurring.items():
        assert float(rows[name]) == pytest.approx(iou, abs=0.5)


# Refusals


def test_a_damaged_run_file_is_refused_with_a_remedy_that_works(
    run: Path, drawn: Path, settings_file: Path
) -> None:
    saved = json.loads((run / "run.json").read_text())
    lacking = {key: value for key, value in saved.items() if key != "trained_on"}
    for content, what in (
        *(("", "not JSON"), ("[1]", "must be names"), (json.dumps(lacking), "(trained_on: ")),
        (json.dumps(lacking | {"trained_on": [], "classes": "cat"}), "(classes: "),
        (json.dumps(saved | {"config": {"train": {"lr": -1}}}), "(config.train.lr: "),
    ):
        (run / "run.json").write_text(content)
        told = fail("infer", "--run", run)
        assert what in told
        assert "; delete it, and run the command that trained it again: " in told
        assert f"{command('wsss', 'train-cam', '--run', run)} --data FOLDER and its" in told
    (run / "run.json").unlink()
    succeed(
        "train-cam", "--run", run, "--data", drawn, "--preset", "tiny", "--config", settings_file
    )
    assert "CAMs of 10 images" in succeed("infer", "--run", run)


def test_a_training_that_does_not_learn_is_warned_of_and_ended_as_the_options_say(
    drawn: Path, settings_file: Path, tmp_path: Path
) -> None:
    where = ("--run", tmp_path / "run", "--data", drawn, "--preset", "tiny")
    stuck = ("--config", settings_file, "--set", "train.lr=1e-12")
    limits = ("--prior-warns-after", 1, "--prior-fails-after", 6)
    ended = wsss("train-cam", *where, *stuck, *limits)
    assert "warning: not clearly below the label prior after 1 iterations" in ended.stdout
    assert ended.exit_code == 2
    assert "after 6 iterations" in ended.stderr


# Pseudo-labels


WALK = {
    "epochs": 1,
    "batch_size": 4,
    "crop_size": 64,
    "min_long_side": 64,
    "max_long_side": 96,
    "log_steps": 2,
}


def labels_in(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (folder / "png").iterdir()}


def test_pseudo_labels_are_written_and_scored_and_not_mixed_with_those_of_other_settings(
    run: Path, drawn: Path
) -> None:
    told = succeed("pseudo-label", "--run", run, "--workers", 0)
    written, dataset = labels_in(run / "pseudo_labels" / "none"), VocDataset(drawn)
    assert sorted(written) == sorted(dataset.image_ids("train_aug"))
    assert re.search(r"none: mIoU \d+\.\d\d % on 10 images", told)
    told = fail("pseudo-label", "--run", run, "--set", "background_score=0.4")
    assert "holds labels with other settings" in told
    assert "choose another folder" in told


def test_a_refinement_is_scored_before_and_after_on_the_same_cams(run: Path) -> None:
    words = ("pseudo-label", "--run", run, "--refinement", "random_walk", "--workers", 0)
    words += tuple(options({f"random_walk.{key}": value for key, value in WALK.items()}))
    told = succeed(*words)
    assert re.search(r"none: mIoU .*\nrandom_walk: mIoU ", told)
    cams = {path: path.stat().st_mtime_ns for path in (run / "cams").glob("*.npz")}
    assert len(cams) == 16
    lost = sorted((run / "pseudo_labels" / "random_walk" / "png").iterdir())[3]
    content = lost.read_bytes()
    lost.unlink()
    succeed(*words)
    assert lost.read_bytes() == content
    assert cams == {path: path.stat().st_mtime_ns for path in (run / "cams").glob("*.npz")}


def test_a_dense_crf_that_cannot_be_imported_is_refused_before_the_random_walk(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    copy = Path(shutil.copytree(run, tmp_path / "b0", ignore=shutil.ignore_patterns("random_walk")))
    told = fail("pseudo-label", "--run", copy, "--refinement", "random_walk_crf")
    assert "-m pip install pydensecrf2" in told
    assert not (copy / "random_walk").exists()


def test_confident_labels_hold_unlabelled_pixels(run: Path, tmp_path: Path) -> None:
    sure = {"background": "confident", "confident_foreground": 0.6, "confident_background": 0.2}
    words = ("--run", run, "--workers", 0, "--out", tmp_path / "sure")
    told = succeed("pseudo-label", *words, *options(sure))
    assert "not scored, as `confident` labels leave pixels out" in told
    values = set()
    for path in (tmp_path / "sure" / "png").iterdir():
        with Image.open(path) as image:
            values |= set(np.unique(np.array(image)).tolist())
    assert {0} < values - {255}
    assert 255 in values


# A result knows what it was made from


@pytest.fixture
def voc(run: Path, drawn: Path, tmp_path: Path) -> Path:
    """A copy of the data set to change, on which the training says that it was trained."""
    root = Path(shutil.copytree(drawn, tmp_path / drawn.name))
    saved = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(saved | {"data": str(root)}))
    return root


def replace_picture(path: Path) -> None:
    """Put another picture in its place, which keeps its size in bytes and its time."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[content.index(b"\xff\xdb") + 6] += 9  # in the table of its frequencies' steps
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced_picture(voc: Path) -> None:
    replace_picture(VocDataset(voc).image_path("drawn_000000"))


def corrected_label(voc: Path) -> None:
    path, names = voc / "Annotations/drawn_000000.xml", VocDataset(voc).classes
    labels = VocDataset(voc).sample("drawn_000000").labels
    old, new = names[labels[0]], next(n for k, n in enumerate(names) if k not in labels)
    path.write_text(path.read_text().replace(f"<name>{old}<", f"<name>{new}<"))


def other_order_of_classes(voc: Path) -> None:
    first, second, *others = VocDataset(voc).classes
    (voc / "classes.txt").write_text("\n".join([second, first, *others]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (replaced_picture, "have changed since"),
        (corrected_label, "(drawn_000000)"),
        (other_order_of_classes, "its classes have changed since"),
    ],
)
def test_what_was_trained_on_and_changed_is_refused_by_every_command(
    run: Path, voc: Path, change: Callable[[Path], None], told: str
) -> None:
    succeed("infer", "--run", run)
    change(voc)
    for name in ("infer", "evaluate", "pseudo-label"):
        assert told in fail(name, "--run", run)


def test_cams_of_a_picture_that_was_replaced_are_made_again(run: Path, voc: Path) -> None:
    words = ("--run", run, "--split", "val")
    succeed("infer", *words)
    first = VocDataset(voc).image_ids("val")[0]
    replace_picture(VocDataset(voc).image_path(first))
    told = fail("evaluate", *words)
    assert f"{first}.npz: made by another network, or before its picture" in told
    assert told.endswith(f"infer again: {command('wsss', 'infer', *words)}\n")
    assert "(1 new)" in succeed("infer", *words)
    assert "(0 new)" in succeed("infer", *words)
    succeed("evaluate", *words)


def test_cams_of_another_network_are_not_taken(run: Path, tmp_path: Path) -> None:
    succeed("infer", "--run", run)
    path = run / "cams" / "drawn_000000.npz"
    content, found = path.read_bytes(), read_cams(path)
    write_cams(path, found.cams, found.classes, source=found.source.replace(" ", "0 "))
    assert "drawn_000000.npz: made by another network" in fail("evaluate", "--run", run)
    by_hand = tmp_path / "by_hand"
    for file in (run / "cams").glob("*.npz"):
        write_cams(by_hand / file.name, read_cams(file).cams, read_cams(file).classes)
    told = succeed("evaluate", "--run", run, "--cams", by_hand)
    assert "\nnote: 10 of these CAM files do not say what they were made from\n" in told
    assert "choose another folder" in fail("infer", "--run", run, "--out", by_hand)
    assert "(1 new)" in succeed("infer", "--run", run)
    assert path.read_bytes() == content


def test_the_checkpoint_of_another_training_is_not_taken(
    run: Path, drawn: Path, settings_file: Path
) -> None:
    other = run.with_name("other")
    train = ("--data", drawn, "--preset", "tiny", "--config", settings_file)
    succeed("train-cam", "--run", other, *train, "--set", "rng_seed=7")
    own = run / "checkpoints" / "epoch_0003.pt"
    shutil.copy(other / "checkpoints" / own.name, own)
    shutil.rmtree(run / "cams", ignore_errors=True)
    told = fail("infer", "--run", run)
    assert f"{own}: of another training (cams/" in told
    own.unlink()  # as the message says
    (again,) = re.findall("finish it with: (.*)", fail("infer", "--run", run))
    assert "epoch 3" in succeed(*shlex.split(again)[3:])
    own.write_bytes(own.read_bytes()[:-9])
    assert f"2 of 3 epochs trained (checkpoints/{own.name} is broken); finish it with: {again}" in (
        fail("infer", "--run", run)
    )
    assert "epoch 3" in succeed(*shlex.split(again)[3:])
    (run / "stage.json").write_text("[]")
    assert "holds cams with other settings ([], not cams/" in fail("infer", "--run", run)


def test_a_damaged_note_of_what_a_folder_holds_is_made_again_as_the_error_says(run: Path) -> None:
    """As a power cut may leave it."""
    infer = ("infer", "--run", run)
    succeed(*infer)
    (run / "done.json").unlink()  # the training has ended, but for this
    (again,) = re.findall("finish it with: (.*)", fail(*infer))
    train = shlex.split(again)[3:]
    for words, note in ((train, run / "stage.json"), (infer, run / "cams/stage.json")):
        held = note.read_bytes()
        note.write_bytes(b"")
        assert f"{note}: not JSON" in (told := fail(*words))
        assert told.endswith("; delete it, and give the same command again\n")
        note.unlink()
        told = succeed(*words)
        assert "epoch" not in told
        assert words == train or "(0 new)" in told
        assert words == infer or note.read_bytes() == held


def test_labels_are_scored_with_the_masks_and_the_split_of_now(run: Path, voc: Path) -> None:
    first = succeed("pseudo-label", "--run", run, "--workers", 0)
    assert "none: not scored, as none of these images is in the split train" in succeed(
        "pseudo-label", "--run", run, "--workers", 0, "--split", "val"
    )
    assert first.splitlines()[-1] in succeed("pseudo-label", "--run", run, "--workers", 0)
    written = labels_in(run / "pseudo_labels/none")
    scored = VocDataset(voc).image_ids("train")
    for image_id in scored:  # masks that agree with every label
        shutil.copy(
            run / f"pseudo_labels/none/png/{image_id}.png", VocDataset(voc).mask_path(image_id)
        )
    told = succeed("pseudo-label", "--run", run, "--workers", 0)
    assert "none: mIoU 100.00 % on 10 images" in told
    assert labels_in(run / "pseudo_labels/none") == written


def test_corrected_masks_train_nothing_again(run: Path, voc: Path, settings_file: Path) -> None:
    train = ("train-cam", "--run", run, "--data", voc, "--preset", "tiny", "--config")
    path = VocDataset(voc).mask_path("drawn_000000")
    with Image.open(path) as image:
        mask, palette = np.array(image), image.getpalette()
    mask[0, 0] = 255
    corrected = Image.fromarray(mask)
    corrected.putpalette(palette or [])
    corrected.save(path)
    told = succeed(*train, settings_file)
    assert "epoch" not in told
    assert f"{run}: trained; next" in told
    succeed("infer", "--run", run)
    replace_picture(VocDataset(voc).image_path("drawn_000000"))
    assert "from before its classes, images or labels changed" in fail(*train, settings_file)


def test_a_data_set_may_lie_elsewhere(run: Path, voc: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(voc, tmp_path / "elsewhere" / voc.name))
    (say,) = re.findall("with the same folder name, by: (.*)", fail("infer", "--run", run))
    succeed(*shlex.split(say.replace("FOLDER", str(moved)))[3:])
    assert "CAMs of 10 images" in succeed("infer", "--run", run)


# Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_command_with_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def work(stage: Any, place: Any) -> None:
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise RuntimeError("unexpected pos 727168") from None  # as torch in mid-checkpoint

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr("sweeps.cli.method.work.complete_shown", work)
    before = signal.getsignal(number)
    result = wsss("infer", "--run", run)
    assert result.exit_code == code
    assert result.stderr.startswith(f"ended by {number.name}: what is finished is kept; run the")
    assert len(result.stderr.splitlines()) == 1
    assert signal.getsignal(number) == before


def test_ctrl_c_in_a_training_waits_for_its_checkpoint_from_which_the_command_resumes(
    drawn: Path, settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("train-cam", "--run", tmp_path / "run", "--data", drawn)
    words = (*run, "--preset", "tiny", "--config", settings_file)

    def press(record: Any, epochs: int) -> None:
        if record.numbers["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("sweeps.cli.method.work.print_epoch", press)
    result = wsss(*words)
    assert result.exit_code == 130, result.output
    assert result.stderr.startswith("ended by SIGINT: what is finished is kept")
    monkeypatch.undo()
    saved = [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    assert saved == ["epoch_0001.pt"]
    assert "epoch 2" in succeed(*words)
