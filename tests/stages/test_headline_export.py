"""A split without masks, predicted for VOC's server: whole, resumable, in VOC's colours."""

import shutil
import tarfile
from pathlib import Path

import pytest
from made_up.planned import planned_headline
from outcomes import ChainFolders
from PIL import Image

from sweeps.plan.chains.chain import ChainConfig
from sweeps.stages.export import check_exportable, export_of, read_export
from sweeps.stages.stage import Place, complete
from sweeps.store.store import Store, write_json
from wsss.config import RunConfig
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset
from wsss.evaluation.segmentation_score import score_folder
from wsss.networks.deeplab import build_deeplab
from wsss.overrides import apply_overrides
from wsss.presets import TINY_DEEPLAB
from wsss.segmentation_config import PseudoLabelConfig
from wsss.training.checkpoint import CheckpointFolder, Position
from wsss.training.segmentation import build_optimizer

SETTINGS = {"test_scales": [0.5], "test_flip": False}
CHAIN = ChainConfig(
    run=RunConfig(),
    labels=PseudoLabelConfig(),
    segmentation=apply_overrides(TINY_DEEPLAB, SETTINGS),
)


@pytest.fixture(scope="module")
def data(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn tree with a split `test` whose images have neither mask nor annotation."""
    root = tmp_path_factory.mktemp("export") / "voc"
    shutil.copytree(drawn, root)
    ids = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    for image_id in ids:
        for name in ("SegmentationClass", "SegmentationClassAug"):
            (root / name / f"{image_id}.png").unlink()
        (root / "Annotations" / f"{image_id}.xml").unlink()
    (root / "ImageSets/Segmentation/test.txt").write_text("\n".join(ids))
    return root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose chain has a network of random weights."""
    model = build_deeplab(CHAIN.segmentation, 20)
    folder = ChainFolders(tmp_path, CHAIN).segmentation / "checkpoints"
    optimizer = build_optimizer(model, CHAIN.segmentation)
    path = CheckpointFolder(folder).save(
        Position(1, CHAIN.segmentation.iterations), model, optimizer
    )
    write_json(folder.parent / "done.json", {"checkpoint": path.name})
    return Store(tmp_path)


def export(store: Store, data: Path, split: str) -> list[float]:
    """Export a split; return how far it was after each image that was predicted."""
    records = complete(export_of(CHAIN, split), Place(store, data))
    return [record.progress for record in records if record.progress]


def pngs(store: Store, split: str) -> Path:
    return store.folder(export_of(CHAIN, split).images_rel).path


def test_a_split_without_masks_becomes_a_checked_archive(data: Path, store: Store) -> None:
    assert export(store, data, "test") == [1 / 3, 2 / 3, 1]
    found = read_export(store, CHAIN, "test")
    assert (found.num_images, found.miou) == (3, None)
    with tarfile.open(found.tar) as archive:
        names = archive.getnames()
        first = archive.extractfile(names[0])
        with Image.open(first) as image:
            assert image.mode == "P"
            assert image.getpalette("RGB")[3:6] == [128, 0, 0]  # aeroplane, in VOC's colours
    ids = VocDataset(data).image_ids("test")
    assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{i}.png" for i in sorted(ids)]
    with Image.open(found.tar.with_name("gallery.png")) as gallery:
        assert gallery.width == round(2 * 2.1 * 80)  # image and prediction, no ground truth


@pytest.mark.parametrize(
    ("sources", "exporting"),
    [(("none", "random_walk", "masks"), ["test", "test", None]), (("masks",), ["test"])],
)
def test_networks_from_image_labels_export_and_the_bound_only_if_it_is_alone(
    sources: tuple[str, ...], exporting: list[str | None]
) -> None:
    headline = planned_headline(*sources, export="test")
    assert [headline.exported_by(chain) for chain in headline.chains] == exporting
    assert not any(map(planned_headline(*sources).exported_by, headline.chains))


def test_an_interrupted_export_predicts_only_what_is_missing(data: Path, store: Store) -> None:
    steps = complete(export_of(CHAIN, "test"), Place(store, data))
    assert [next(steps).progress for _ in range(2)] == [0, 1 / 3]
    steps.close()  # type: ignore[attr-defined]
    (done,) = pngs(store, "test").glob("*.png")
    before = done.stat().st_mtime_ns
    assert read_export(store, CHAIN, "test") is None
    assert export(store, data, "test") == [1 / 2, 1]
    assert done.stat().st_mtime_ns == before
    assert export(store, data, "test") == []


def test_an_archive_that_is_damaged_or_lost_is_packed_again(data: Path, store: Store) -> None:
    export(store, data, "test")
    stage, place = export_of(CHAIN, "test"), Place(store, data)
    path = read_export(store, CHAIN, "test").tar
    whole = path.read_bytes()
    middle = whole.index(b"IDAT") + 8
    for damaged in (b"", whole[:-11_000], whole[:middle] + b"\0\1" + whole[middle + 2 :], None):
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        assert not stage.is_done(place)
        assert export(store, data, "test") == []  # nothing is predicted again
        assert path.read_bytes() == whole
    assert stage.is_done(place)


def test_a_split_with_masks_is_scored_too(data: Path, store: Store) -> None:
    export(store, data, "train")
    found, dataset = read_export(store, CHAIN, "train"), VocDataset(data)
    expected = score_folder(pngs(store, "train"), dataset, dataset.image_ids("train"))
    assert found.miou == expected.miou


def test_other_classes_and_missing_images_are_refused_before_training(
    data: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(data, tmp_path / "copy")
    digest = check_exportable(VocDataset(root), "test")
    with pytest.raises(DataError, match="no such split"):
        check_exportable(VocDataset(root), "trial")
    image = next((root / "JPEGImages").glob(f"{VocDataset(root).image_ids('test')[0]}*"))
    image.write_bytes(image.read_bytes() + b"\0")
    assert check_exportable(VocDataset(root), "test") != digest
    image.unlink()
    with pytest.raises(DataError, match="missing; add the file"):
        check_exportable(VocDataset(root), "test")
    (root / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="leave --export out"):
        check_exportable(VocDataset(root), "test")
