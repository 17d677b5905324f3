"""From CAMs to a segmentation network: ids that cover what a stage depends on, and whole chains."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import wsss
from outcomes import ChainFolders, stages_in
from PIL import Image

from sweeps.cli.method.predict import read_network
from sweeps.evidence.image_counts import PREDICTED, load_image_counts
from sweeps.plan.chains.chain import ChainConfig, counts_id
from sweeps.stages.labels import InferCams, WriteLabels
from sweeps.stages.segmentation import Predict, TrainDeepLab
from sweeps.stages.stage import Crew, Place, attempt, complete
from sweeps.store.errors import StoreError
from sweeps.store.store import Folder, Store
from wsss.basics.files import write_json
from wsss.config import RunConfig
from wsss.data.classes import voc_palette
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset
from wsss.evaluation.segmentation_score import score_folder
from wsss.identity import cam_id
from wsss.labels.cam_files import cams_of, read_cams, write_cams
from wsss.labels.refine.refined import LabelJob, label_map
from wsss.overrides import apply_overrides
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig
from wsss.training.process import Process


def chain(labels: dict[str, Any] | None = None, **segmentation: Any) -> ChainConfig:
    return ChainConfig(
        run=RunConfig(),
        labels=apply_overrides(PseudoLabelConfig(), labels or {}),
        segmentation=apply_overrides(DeepLabConfig(), segmentation),
    )


def with_run(settings: dict[str, Any]) -> ChainConfig:
    return chain().model_copy(update={"run": apply_overrides(RunConfig(), settings)})


# Ids: what is done anew when a setting changes

IDS = ("counts_id", "maps_id", "walk_id", "labels_id", "segmentation_id", "prediction_id")


def changed(one: ChainConfig, other: ChainConfig) -> set[str]:
    first, second = ([counts_id(c.run), *(getattr(c, i) for i in IDS[1:])] for c in (one, other))
    return {name for name, a, b in zip(IDS, first, second, strict=True) if a != b}


LABELS = {"labels_id", "segmentation_id", "prediction_id"}
NETWORK = {"segmentation_id", "prediction_id"}
WALKED = {"refinement": "random_walk"}
WALKED_CRF = {"refinement": "random_walk_crf"}


@pytest.mark.parametrize(
    ("one", "other", "anew"),
    [
        (chain(), chain({"refinement": "crf"}), LABELS),
        (chain(WALKED_CRF), chain(WALKED_CRF | {"crf.preset": "psa"}), LABELS),
        (chain(), chain(iterations=7), NETWORK),
        (chain(), chain(test_scales=(1.0,)), {"prediction_id"}),
        # without effect
        (chain(), chain({"crf.preset": "psa", "pamr.iterations": 3}), set()),
        (chain(), chain({"confident_foreground": 0.5}), set()),
        (chain(), chain({"walked_background_score": 0.4}), set()),
        (chain(WALKED), chain(WALKED | {"background_score": 0.4}), set()),
        # and where they have one
        (chain(WALKED), chain(WALKED | {"random_walk.beta": 3.0}), {"walk_id"} | LABELS),
        (chain(), chain({"background_score": 0.4}), LABELS),
        (chain(WALKED), chain(WALKED | {"walked_background_score": 0.4}), LABELS),
        *(
            (chain(), with_run({key: value}), set(IDS))
            for key, value in {
                "train.lr": 0.03,
                "labels.scales": (1.0,),
                "labels.flip": False,
                "labels.resize": "bilinear",
                "labels.upsampling": "direct",
                "labels.precision": "bf16",
            }.items()
        ),
    ],
)
def test_a_setting_changes_the_ids_of_what_depends_on_it_and_no_other(
    one: ChainConfig, other: ChainConfig, anew: set[str]
) -> None:
    assert changed(one, other) == anew


def test_deeplab_settings_without_effect_train_no_network_anew() -> None:
    narrow: dict[str, Any] = {"backbone": "resnet10_narrow", "weights": "none"}
    cases: tuple[tuple[dict[str, Any], dict[str, Any], dict[str, Any]], ...] = (
        # the settings, one that has no effect beside them, and where it has one
        (narrow | {"output_stride": 16}, {"first_block_dilation": "half"}, {"output_stride": 8}),
        ({"weight_decay": 0.0}, {"head_bias_decay": True}, {"weight_decay": 0.1}),
        ({"iterations": 10}, {"poly_power": 2.0}, {"iterations": 11}),
        ({"iterations": 10}, {"lr_step": 99}, {"iterations": 11}),
    )
    for settings, inert, live in cases:
        assert changed(chain(**settings), chain(**settings | inert)) == set()
        there = settings | live
        assert "segmentation_id" in changed(chain(**there), chain(**there | inert))


def test_changed_data_is_predicted_and_scored_again() -> None:
    one = chain().model_copy(update={"fingerprints": (("val", "a"), ("test", "b"))})
    val = one.model_copy(update={"fingerprints": (("val", "c"), ("test", "b"))})
    test = one.model_copy(update={"fingerprints": (("val", "a"), ("test", "d"))})
    assert changed(one, val) == {"prediction_id"}
    assert changed(one, test) == set()
    masks = with_run({"data.fingerprint": "d"})  # that the labels are scored by
    other_split = with_run({"data.eval_split": "val"})
    for scored_by in (masks, other_split):
        assert changed(chain(), scored_by) == {"counts_id", "prediction_id"}
    no_labels = {"labels": None}
    bound, other = (each.model_copy(update=no_labels) for each in (chain(), masks))
    assert "segmentation_id" in changed(bound, other)


def test_ids_of_cams_and_counts_in_stores_stay() -> None:
    assert chain().maps_id == "82cb5fcbb769"
    assert counts_id(RunConfig()) == "c49b762cd927"


# Label maps


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"background_score": 0.15}, [[5, 5, 0], [0, 5, 5]]),
        # behind a random walk, a score of its own counts
        (
            WALKED | {"background_score": 0.9, "walked_background_score": 0.15},
            [[5, 5, 0], [0, 5, 5]],
        ),
        # above .3: foreground; up to .05: background; between: 255
        (
            {"background": "confident", "confident_foreground": 0.3, "confident_background": 0.05},
            [[5, 255, 0], [255, 5, 255]],
        ),
    ],
)
def test_a_background_score_divides_a_map_into_labels(
    settings: dict[str, Any], expected: list[list[int]]
) -> None:
    cams = np.array([[[0.9, 0.2, 0.05], [0.1, 0.31, 0.3]]], np.float32)
    config = apply_overrides(PseudoLabelConfig(), settings)
    found = label_map(np.zeros((2, 3, 3), np.uint8), cams, (4,), config, torch.device("cpu"))
    assert found.tolist() == expected


def test_pamr_computes_on_the_device_of_the_process_and_not_in_others_beside_a_gpu(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[LabelJob] = []
    monkeypatch.setattr("sweeps.stages.labels.write_label", jobs.append)
    meta = torch.device("meta")
    place = Place(Store(tmp_path), drawn, crew=Crew(num_workers=2), rank=Process(device=meta))
    stage = WriteLabels(chain({"refinement": "pamr"}))
    (image_id,) = stage.do(place, stage.image_ids(place)[:1])
    assert [(job.sample.image_id, job.device) for job in jobs] == [(image_id, meta)]
    image, cams = np.zeros((2, 3, 3), np.uint8), np.ones((1, 2, 3), np.float32)
    with pytest.raises(NotImplementedError, match="meta"):  # which holds no numbers
        label_map(image, cams, (4,), jobs[0].config, meta)


def test_cams_come_back_from_their_file_in_half_precision(tmp_path: Path) -> None:
    cams = np.random.default_rng(0).random((2, 7, 5), dtype=np.float32)
    write_cams(tmp_path / "x" / "a.npz", cams, (3, 14))
    found = read_cams(tmp_path / "x" / "a.npz")
    np.testing.assert_allclose(found.cams, cams, atol=2**-11)
    assert found.classes == (3, 14)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.npz"]


def test_cams_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    cams = np.full((1, 2, 2), np.nan, np.float32)
    with pytest.raises(DataError, match=r"a\.npz: not written, as a CAM is NaN .* lower train\.lr"):
        write_cams(tmp_path / "a.npz", cams, (3,))
    assert not list(tmp_path.iterdir())


def test_cams_of_other_classes_or_another_size_are_not_taken(tmp_path: Path) -> None:
    write_cams(tmp_path / "a.npz", np.zeros((1, 2, 3), np.float32), (3,))
    assert cams_of(tmp_path / "a.npz", (3,), (2, 3)).shape == (1, 2, 3)
    with pytest.raises(DataError, match=r"of the classes \[3\], but the image is labelled \[4\]"):
        cams_of(tmp_path / "a.npz", (4,), (2, 3))
    with pytest.raises(DataError, match=r"a\.npz: maps \(1, 2, 3\) of 1 classes"):
        cams_of(tmp_path / "a.npz", (3,), (3, 2))


def test_a_broken_file_of_cams_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=r"a\.npz: not a file of CAMs"):
        read_cams(tmp_path / "a.npz")


# Whole chains on drawn pictures


def run_all(chain: ChainConfig, store: Path, data: Path) -> list[str]:
    """Run a chain; return the stages that did something, in order."""
    return stages_in(complete(Predict(chain), Place(Store(store), data)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, finished_chain: Path) -> Path:
    return Path(shutil.copytree(finished_chain, tmp_path_factory.mktemp("chain") / "store"))


def test_labels_are_palette_pngs_of_the_training_images(
    store: Path, drawn: Path, tiny_chain: ChainConfig
) -> None:
    folder, dataset = ChainFolders(store, tiny_chain).labels / "png", VocDataset(drawn)
    ids = dataset.image_ids("train_aug")
    assert sorted(path.stem for path in folder.iterdir()) == sorted(ids)
    for image_id in ids:
        with Image.open(folder / f"{image_id}.png") as image:
            assert image.mode == "P"
            assert image.size == dataset.image_size(image_id)
            assert image.getpalette() == voc_palette()[: 3 * 256]
            present = {k + 1 for k in dataset.sample(image_id).labels}
            assert set(np.unique(np.array(image)).tolist()) <= {0} | present


def test_metrics_hold_the_score_of_the_written_predictions(
    store: Path, drawn: Path, tiny_chain: ChainConfig
) -> None:
    folder, dataset = ChainFolders(store, tiny_chain).predictions, VocDataset(drawn)
    metrics = json.loads((folder / "done.json").read_text())
    expected = score_folder(folder / "png", dataset, dataset.image_ids("val"))
    assert (metrics["miou"], metrics["iou"]) == (expected.miou, expected.iou)
    image_ids, counts = load_image_counts(Folder(folder), PREDICTED)
    assert list(image_ids) == dataset.image_ids("val")
    assert counts.miou() == pytest.approx(expected.miou)
    assert (folder / "gallery.png").is_file()
    assert metrics["labels_score"]["num_images"] == len(dataset.image_ids("train"))


def test_a_folder_of_somebody_elses_maps_is_refused(
    drawn: Path, tiny_chain: ChainConfig, tmp_path: Path
) -> None:
    stage, out = InferCams(tiny_chain), tmp_path / "out"
    place = Place(Store(tmp_path, named={stage.rel: out}), drawn)
    out.mkdir()
    (out / "a.npz").touch()
    with pytest.raises(StoreError, match=rf"{out}: no stage\.json says what it holds, and a\.npz"):
        next(attempt(stage, place))


def test_every_result_says_what_it_was_made_from(store: Path, tiny_chain: ChainConfig) -> None:
    chain, made_from = tiny_chain, {}
    for path in store.rglob("done.json"):
        result, rel = json.loads(path.read_text()), path.parent.relative_to(store).as_posix()
        assert rel.endswith(f"/{result['id']}")
        made_from[rel] = result["made_from"]
    walked = f"{chain.walk_id}/maps"
    assert made_from == {
        f"cams/{cam_id(chain.run)}": {},
        f"maps/{chain.maps_id}": {"cams": cam_id(chain.run)},
        f"walks/{chain.walk_id}": {"maps": chain.maps_id},
        f"walks/{walked}": {"maps": chain.maps_id, "walks": chain.walk_id},
        f"labels/{chain.labels_id}": {"walks": walked},
        f"segmentations/{chain.segmentation_id}": {"labels": chain.labels_id},
        f"predictions/{chain.prediction_id}": {"segmentations": chain.segmentation_id},
    }


def test_what_is_missing_is_done_and_nothing_else(
    store: Path, drawn: Path, tiny_chain: ChainConfig
) -> None:
    folders = ChainFolders(store, tiny_chain)
    before = {p: p.stat().st_mtime_ns for p in (folders.labels / "png").iterdir()}
    lost = sorted(before)[0]
    content = lost.read_bytes()
    lost.unlink()
    assert run_all(tiny_chain, store, drawn) == []  # it is finished, and needs no labels any more
    records = complete(WriteLabels(tiny_chain), Place(Store(store), drawn))
    found = [(record.stage.title, record.progress) for record in records]
    assert found == [("write labels", 0.0), ("write labels", 1.0)]
    assert lost.read_bytes() == content
    kept = {p: p.stat().st_mtime_ns for p in before if p != lost}
    assert kept == {p: t for p, t in before.items() if p != lost}


def test_a_damaged_pseudo_label_is_to_be_made_again(
    store: Path, drawn: Path, tiny_chain: ChainConfig
) -> None:
    network = tiny_chain.segmentation.model_copy(update={"lr": 0.002})
    stage = TrainDeepLab(tiny_chain.model_copy(update={"segmentation": network}))
    label = sorted((ChainFolders(store, tiny_chain).labels / "png").iterdir())[0]
    whole = label.read_bytes()
    label.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{label}: .*; delete it and give the same command again"):
        list(complete(stage, Place(Store(store), drawn)))
    label.unlink()
    titles = {record.stage.title for record in complete(stage, Place(Store(store), drawn))}
    assert titles == {"write labels", "train DeepLab"}
    assert label.read_bytes() == whole


def test_the_supervised_bound_trains_on_the_masks_alone(
    store: Path, drawn: Path, tiny_chain: ChainConfig, tmp_path: Path
) -> None:
    bound = tiny_chain.model_copy(update={"labels": None})
    own = Path(shutil.copytree(drawn, tmp_path / "own"))  # without SBD's folder
    shutil.rmtree(own / "SegmentationClass")
    (own / "SegmentationClassAug").rename(own / "SegmentationClass")
    assert run_all(bound, store, own) == ["train DeepLab", "predict"]
    metrics = json.loads((ChainFolders(store, bound).predictions / "done.json").read_text())
    assert metrics["labels"] == "true masks (supervised bound)"
    assert metrics["labels_score"] is None


def test_a_trained_network_segments_a_picture_from_the_command_line(
    store: Path, drawn: Path, tiny_chain: ChainConfig, tmp_path: Path
) -> None:
    network = ChainFolders(store, tiny_chain).segmentation
    picture = sorted((drawn / "JPEGImages").glob("*.jpg"))[0]
    words = ["predict", picture, "--network", network, "--out", tmp_path / "out"]
    done = wsss(*words)
    assert done.exit_code == 0, done.output
    with Image.open(picture) as image, Image.open(tmp_path / "out" / f"{picture.stem}.png") as mask:
        assert mask.size == image.size
        assert mask.mode == "P"


def test_a_network_from_before_its_dilation_was_a_setting_is_read_as_it_was_built(
    tmp_path: Path,
) -> None:
    settings = DeepLabConfig(first_block_dilation="full").model_dump(mode="json")
    for expected in ("full", "half"):
        write_json(tmp_path / "config.json", {"segmentation": settings, "classes": ["cat"]})
        assert read_network(tmp_path / "config.json")[0].first_block_dilation == expected
        settings.pop("first_block_dilation", None)


def test_predicting_without_a_network_is_explained(drawn: Path, tmp_path: Path) -> None:
    picture = sorted((drawn / "JPEGImages").glob("*.jpg"))[0]
    words = ("predict", picture, "--network", tmp_path)
    assert (done := wsss(*words)).exit_code == 2
    assert "config.json: missing; give a folder" in " ".join(done.output.split())
    write_json(tmp_path / "config.json", {"network": {}, "train": {}})  # a CAM network's
    assert (done := wsss(*words)).exit_code == 2
    assert "not what this version of `sweeps headline` writes" in " ".join(done.output.split())
