"""The headline's report, from known figures: which stand where, and what is said of them."""

import base64
import csv
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up.bucket_server import BUCKET
from made_up.finished import tiny_sweep
from made_up.planned import planned_headline
from outcomes import ChainFolders
from PIL import Image

from sweeps.evidence.image_counts import PREDICTED, save_image_counts
from sweeps.evidence.images import ImageCounts, resample_counts
from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.chains.headline import Headline
from sweeps.plan.scale import Scale
from sweeps.report.document import Document, Picture
from sweeps.report.formats.csv_file import records_text
from sweeps.report.formats.html import html
from sweeps.report.formats.latex import latex
from sweeps.report.formats.markdown import markdown
from sweeps.report.headline.document import headline_document
from sweeps.report.headline.results import Results, answer, findings, read_results
from sweeps.run.ray.resources import Resources
from sweeps.run.subjects.headline import DrivenHeadline
from sweeps.stages.stage import Conduct
from sweeps.store.remote.mirror import Remote
from sweeps.store.rooms import RUN_HERE
from sweeps.store.store import Store, write_json
from wsss.data.classes import VOC_CLASSES
from wsss.data.pictures.mask import write_label_png
from wsss.data.voc import VocDataset
from wsss.identity import run_id
from wsss.overrides import parse_assignments

NAMES = ("background", *VOC_CLASSES)
MIOUS = {"none": 40.25, "pamr": 43.5, "masks": 60.0}
LABELS = {"none": 45.0, "pamr": 47.75, "masks": None}


def planned(data: Path, *sources: str) -> Headline:
    return planned_headline(*sources, sweep=tiny_sweep(data, "III"), chosen_by_masks=True)


def finish(store: Store, data: Path, chain: ChainConfig, miou: float, labels: float | None) -> None:
    """Leave what a finished chain leaves; class k has IoU k, and person does not occur."""
    folder, dataset = ChainFolders(store.root, chain).predictions, VocDataset(data)
    for image_id in dataset.image_ids("val"):
        mask = dataset.mask(image_id)
        write_label_png(folder / "png" / f"{image_id}.png", np.where(mask == 255, 0, mask))
    write_json(
        folder / "done.json",
        {
            "miou": miou,
            "iou": {n: None if n == "person" else float(k) for k, n in enumerate(NAMES)},
            "pixel_accuracy": 80.0,
            "eval_images": 3,
            "train_images": 16,
            "train_seconds": 1.0,
            "labels_score": {"miou": labels, "pixel_accuracy": 70.0, "num_images": 10}
            if labels
            else None,
            "environment": {"torch": "1"},
        },
    )


Made = tuple[Headline, Store]


@pytest.fixture(scope="module")
def made(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    store = Store(tmp_path_factory.mktemp("store"))
    headline = planned(drawn, *MIOUS)
    for chain, name in zip(headline.chains, MIOUS, strict=True):
        finish(store, drawn, chain, MIOUS[name], LABELS[name])
    return headline, store


@pytest.fixture(scope="module")
def results(made: Made) -> Results:
    return read_results(*made)


@pytest.fixture(scope="module")
def document(made: Made) -> Document:
    return headline_document(*made)


def test_the_strip_answers_the_title_and_its_command_plans_the_next_training(
    drawn: Path, made: Made, results: Results, store: Store
) -> None:
    found = answer(results, made[1])
    assert found.question == "Does the paper's headline hold on this data and at this scale?"
    start = "Cannot tell: the network on CAM + PAMR reaches 43.50 mIoU on val with one seed"
    assert found.answer.startswith(f"{start}, the best of 2 networks there; ")
    full = answer(replace(results, scale=Scale((), other_classes=False)), made[1])
    assert "-23.80 from the paper's 67.3, which has no spread" in full.answer
    none_yet = answer(read_results(planned(drawn, "none", "masks"), store), store)
    assert none_yet.answer.endswith("image labels is finished. 2 networks missing.")
    words = shlex.split(found.command)
    words = words[words.index("headline") + 1 :]
    assert words[:5] == ["none", "pamr", "masks", "--cell", "best"]
    asked = parse_assignments(
        [word for at, word in enumerate(words) if words[at - 1] == "--set-segmentation"]
    )
    assert asked == {"rng_seed": 1}
    assert words[-4:-1] == ["--eval-split", "val", "--store"]


def test_the_strip_has_the_spread_of_the_seeds_in_the_store_and_asks_for_the_next(
    drawn: Path, store: Store, port: int, tmp_path: Path
) -> None:
    headline = planned(drawn, "none")
    (chain,) = headline.chains
    for seed, miou in enumerate((40.0, 42.0)):
        network = chain.segmentation.model_copy(update={"rng_seed": seed})
        other = chain.model_copy(update={"segmentation": network})
        finish(store, drawn, other, miou, None)
    found = answer(read_results(headline, store), store)
    assert "CAM reaches 41.00 ± 1.41 mIoU on val over 2 seeds" in found.answer
    assert "--set-segmentation rng_seed=2" in found.command
    here, there = (Remote(f"s3://{BUCKET}/x", path) for path in (store.root, tmp_path / "there"))
    here.push_folder("predictions")
    elsewhere = DrivenHeadline(headline, Store(there.mirror, there), Conduct(), 0)
    elsewhere.prepare(Resources())
    assert answer(read_results(headline, elsewhere.store), store).answer == found.answer
    elsewhere.write_down()
    assert (elsewhere.folder / RUN_HERE).exists()  # for `sweeps fetch`
    written = markdown(headline_document(headline, elsewhere.store))
    assert f"- store: {there.url}" in written


def records(document: Document) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(records_text(document.records))))


def line_of(text: str, name: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return line


def test_every_printed_row_stands_beside_the_measured_ones(document: Document) -> None:
    table_i = [row for row in records(document) if row["table"] == "I"]
    printed = [row for row in table_i if row["origin"] == "printed by the paper"]
    assert len(printed) == 2 * 21
    assert {"SEAM", "DSRG", "Ru et al.", "Ours"} <= {row["method"] for row in printed}
    assert [row["percent"] for row in printed if row["method"] == "Ours"] == ["67.3", "67.5"]
    measured = {row["method"]: row["percent"] for row in table_i if row not in printed}
    assert measured == {
        "CAM": "40.25",
        "CAM + PAMR": "43.5",
        "true masks (supervised bound)": "60.0",
    }


def test_classes_stand_beside_the_papers_in_the_same_order(document: Document) -> None:
    text = markdown(document)
    papers = ["55.4", "62.6", "69.1", "70.0", "79.8", "81.3"]
    assert re.findall(r"[\d.]+", line_of(text, "sheep")) == papers + ["17.0"] * 3
    assert line_of(text, "person").count("–") == 3


def test_on_other_classes_than_vocs_nothing_of_the_paper_is_shown(
    drawn: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(drawn, tmp_path / "other")
    (data / "classes.txt").write_text("\n".join([*VOC_CLASSES[:-1], "screen"]))
    document = headline_document(planned(data, "none"), Store(tmp_path / "store"))
    text = markdown(document)
    assert "screen" in text
    for word in ("AdvErasing", "67.3", "50.86", "server only", "headline hold"):
        assert word not in text
    assert {row["origin"] for row in records(document)} == {"measured here"}


def test_labels_are_compared_with_the_cams_as_they_are(
    results: Results, document: Document
) -> None:
    assert [(row.name, row.miou, row.gain) for row in results.labels] == [
        ("CAM", 45.0, None),
        ("CAM + PAMR", 47.75, 2.75),
    ]
    assert "| paper, III\\[yes,yes\\] (printed by the paper) | 50.86 |" in markdown(document)


def test_without_plain_cams_labels_are_compared_with_the_cams_own_run(
    drawn: Path, store: Store
) -> None:
    headline = planned(drawn, "pamr", "crf")
    for chain, miou in zip(headline.chains, (47.0, 44.0), strict=True):
        finish(store, drawn, chain, 40.0, miou)
    assert [row.gain for row in read_results(headline, store).labels] == [None, None]
    own = {"curve": [[0.1, 40.0], [0.15, 45.0]], "data": {"eval_images": 10}}
    write_json(store.run(run_id(headline.chains[0].run)).path / "done.json", own)
    assert [(row.name, row.gain) for row in read_results(headline, store).labels] == [
        ("CAM", None),
        ("CAM + PAMR", 2.0),
        ("CAM + dense CRF", -1.0),
    ]


def test_findings_weigh_refinement_and_bound(results: Results) -> None:
    text = " ".join(findings(results))
    assert "CAM + PAMR reaches 43.50 mIoU on 3 images" in text
    assert "+3.25 points on val, +2.75 for its labels" in text
    assert "reach 72 % of it" in text  # 43.5 / 60 = .725


def test_intervals_over_images_are_of_the_same_images_for_all_networks(
    drawn: Path, store: Store
) -> None:
    headline, rng = planned(drawn, *MIOUS), np.random.default_rng(0)
    names, mious = [f"image{n}" for n in range(40)], {}
    for chain, (source, miou) in zip(headline.chains, MIOUS.items(), strict=True):
        finish(store, drawn, chain, miou, LABELS[source])
        if source == "masks":
            continue  # an earlier version did not count by image
        inside = rng.integers(40, 60, (40, 21)) + (20 if source == "pamr" else 0)
        counts = ImageCounts(inside, np.full((40, 21), 100))
        save_image_counts(ChainFolders(store.root, chain).predictions, names, {PREDICTED: counts})
        mious[source] = resample_counts(40) @ inside.mean(1) / 40  # unions are equal
    table = markdown(headline_document(headline, store)).replace("\\", "")
    low, high = np.quantile(mious["pamr"], (0.025, 0.975))
    assert f"| 43.50 | [{low:.2f}, {high:.2f}] |" in table
    assert "| 60.00 | – |" in table
    low, high = np.quantile(mious["pamr"] - mious["none"], (0.025, 0.975))
    text = " ".join(findings(read_results(headline, store)))
    assert f"+3.25 points on val (95 % over images [{low:+.2f}, {high:+.2f}]), +2.75" in text


def test_a_network_that_learnt_nothing_is_compared_with_nothing(drawn: Path, store: Store) -> None:
    headline = planned(drawn, "none", "masks")
    for chain in headline.chains:
        finish(store, drawn, chain, 10.0, None)
        path = ChainFolders(store.root, chain).predictions / "done.json"
        iou = {name: 70.0 if name == "background" else 0.0 for name in NAMES}
        write_json(path, json.loads(path.read_text()) | {"iou": iou})
    (one, two) = findings(read_results(headline, store))
    assert "finds only the background (10.00 mIoU)" in one
    assert "true masks" in two


def test_each_row_says_what_it_saw_of_pixel_masks(results: Results) -> None:
    saw = {row.source: row.saw for row in results.networks}
    assert saw["pamr"] == "scoring, and the choice of the CAM configuration on training images"
    assert saw["masks"] == "training and scoring"


def test_scale_and_its_mark_stand_under_every_table(document: Document) -> None:
    page = html(document)
    assert page.count("SMALL SCALE: 16 training images instead of 10,582") == 4
    assert page.count("300 iterations, batch 8, crop 97, seed 0") == 3
    assert "DeepLab on resnet10_narrow instead of resnet50" in page
    assert latex(document).count("Small scale.") == 3


def pictures_in(document: Document) -> list[Picture]:
    return [
        block for part in document.sections for block in part.blocks if isinstance(block, Picture)
    ]


def test_the_gallery_has_a_column_per_network_behind_image_and_truth(document: Document) -> None:
    (gallery,) = pictures_in(document)
    data = base64.b64decode(gallery.image.split(",")[1])
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    assert width == round(5 * 2.1 * 110)
    assert height > 3 * 1.75 * 110  # three images of val, and a legend
    assert "CAM; CAM + PAMR; true masks" in gallery.caption


def test_a_chain_that_is_not_finished_is_missing_and_not_zero(drawn: Path, store: Store) -> None:
    headline = planned(drawn, "none", "masks")
    document = headline_document(headline, store)
    text = markdown(document)
    assert "| CAM | measured here | missing |" in text
    assert "–" not in line_of(text, "sheep")  # which means that no image shows the class
    assert findings(read_results(headline, store)) == ()
    assert pictures_in(document) == []
