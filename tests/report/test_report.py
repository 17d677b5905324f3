"""A sweep's report: its numbers against plain loops over the store, and what every format says."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import sweeps
from made_up.finished import fill, finish, finished_sweep
from numpy.typing import NDArray
from scipy.stats import studentized_range, t, ttest_1samp

from sweeps.evidence.common_seeds import CommonSeeds, Noise
from sweeps.evidence.images import ImageCounts, percentiles, resample_counts, resampled_mious
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.document import Format, Grid, shown
from sweeps.report.formats.write import FORMATS
from sweeps.report.live.render import render_tables
from sweeps.report.tables.answer import answer
from sweeps.report.tables.closing import closing
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.findings import findings, table_summary
from sweeps.report.tables.model import Report, TableReport, build_report
from sweeps.report.tables.pictures import COLUMNS as GALLERY_COLUMNS
from sweeps.report.tables.pictures import compare_classes, gallery, table_figures
from sweeps.report.tables.results import Measure
from sweeps.report.words import probability
from sweeps.store.store import Store, write_json
from sweeps.tables.own import read_tables
from sweeps.tables.studies import TABLES
from wsss.evaluation.confusion import ThresholdCounts
from wsss.evaluation.figures import COLUMNS as DRAWN_COLUMNS
from wsss.overrides import ConfigError, apply_overrides
from wsss.recipes import RECIPES

SHARES = {"III[no,no]": 0.5, "III[yes,no]": 0.52, "III[yes,yes]": 0.6}


def share(trial: Trial) -> float | None:
    """Quality of a made-up trial: by configuration and seed; III[no,yes] never ran."""
    noise = np.random.default_rng(trial.config.rng_seed).normal(0, 0.01)
    known = SHARES.get(trial.cells[0])
    return None if known is None else float(known + noise)


def same(trial: Trial) -> float:
    return 0.5


def drawn_shares() -> Callable[[Trial], float]:
    rng = np.random.default_rng(0)
    return lambda trial: rng.uniform(0.5, 0.7)


def made(
    folder: Path, table: str, seeds: int, quality: Callable[[Trial], float | None], **more: Any
) -> TableReport:
    """A report's only table, from trials of these qualities."""
    store, sweep = Store(folder), finished_sweep((table,), seeds)
    fill(store, sweep, quality, **more)
    return build_report(sweep, store).tables[0]


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return finished_sweep(("III",), 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> Store:
    """III with one configuration missing, and one failed trial among the missing."""
    store = Store(tmp_path_factory.mktemp("store"))
    fill(store, sweep, share, gallery=True)
    failed = next(t for t in sweep.plan.trials if t.cells[0] == "III[no,yes]")
    store.run(failed.run_id).fail("diverged", "the loss became NaN <b>", "trace")
    return store


@pytest.fixture(scope="module")
def report(store: Store, sweep: Sweep) -> Report:
    return build_report(sweep, store)


@pytest.fixture(scope="module")
def table(report: Report) -> TableReport:
    return report.tables[0]


@pytest.fixture(scope="module")
def outputs(report: Report) -> dict[str, str]:
    document = sweep_document(report)
    return {name: render(document) for name, render in FORMATS.items()}


def stored_mious(store: Store, sweep: Sweep, reference: str) -> dict[int, float]:
    """Read the fixed mIoU of a cell's trials straight from the files."""
    found = {}
    for trial in sweep.plan.cell_trials[reference]:
        path = store.root / "runs" / trial.run_id / "done.json"
        if path.exists():
            found[trial.config.rng_seed] = json.loads(path.read_text())["miou_fixed"]
    return found


def stored_counts(store: Store, trial: Trial) -> ImageCounts:
    """Count each image at the fixed score."""
    path = store.root / "counts" / counts_id(trial.config) / "counts.npz"
    return ImageCounts(*ThresholdCounts.load(path).per_image(0.15))


def csv_lines(text: str) -> dict[str, dict[str, str]]:
    return {line["cell"]: line for line in csv.DictReader(io.StringIO(text))}


# Numbers


def test_csv_holds_mean_sd_and_differences_of_the_stored_results(
    store: Store, sweep: Sweep, outputs: dict[str, str]
) -> None:
    lines = csv_lines(outputs["csv"])
    baseline = stored_mious(store, sweep, "III[no,no]")
    for reference in ("III[no,no]", "III[yes,no]", "III[yes,yes]"):
        values, line = stored_mious(store, sweep, reference), lines[reference]
        assert float(line["mean_miou"]) == pytest.approx(np.mean(list(values.values())))
        assert float(line["sd_over_seeds"]) == pytest.approx(np.std(list(values.values()), ddof=1))
        assert (line["seeds"], line["planned_seeds"]) == ("3", "3")
        if reference != "III[no,no]":
            differences = [values[seed] - baseline[seed] for seed in (0, 1, 2)]
            assert float(line["difference"]) == pytest.approx(np.mean(differences))
            assert float(line["difference_sd"]) == pytest.approx(np.std(differences, ddof=1))
    printed = {reference: cell.paper for reference, cell in TABLES["III"].cells()}
    assert {r: float(line["paper_miou"]) for r, line in lines.items()} == printed
    assert float(lines["III[yes,yes]"]["paper_difference"]) == pytest.approx(50.86 - 49.12)
    assert lines["III[no,yes]"]["mean_miou"] == ""


def test_a_table_can_have_a_baseline_for_each_column(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("recipes",), 2)
    # With this base, the default's cells are those of the recipe irn.
    sweep = replace(sweep, base=apply_overrides(sweep.base, RECIPES["irn"]))

    def quality(trial: Trial) -> float:
        return 0.4 + 0.3 * ("literal" in trial.cells[0]) + 0.1 * ("[yes,yes" in trial.cells[0])

    fill(store, sweep, quality, gallery=True)
    document = sweep_document(build_report(sweep, store))
    lines, page = csv_lines(FORMATS["csv"](document)), FORMATS["html"](document)
    for recipe in TABLES["recipes"].columns:
        base, best = (f"recipes[{labels},{recipe}]" for labels in ("no,no", "yes,yes"))
        assert (lines[base]["verdict"], lines[best]["baseline"]) == ("baseline", base)
        ours, theirs = stored_mious(store, sweep, best), stored_mious(store, sweep, base)
        differences = [ours[seed] - theirs[seed] for seed in (0, 1)]
        assert float(lines[best]["difference"]) == pytest.approx(np.mean(differences))
    assert lines["recipes[yes,yes,default]"]["paper_difference"] == "1.74"
    assert lines["recipes[yes,yes,literal]"]["paper_difference"] == ""
    assert "of 3 differences" in page
    assert "IoU per class: recipes[yes,yes,literal] against recipes[no,no,literal]" in page
    assert "Baseline: recipes[no,no,literal], seed 0" in page
    assert "Differences to the baseline, recipes[no,no] of the same recipe" in page


def test_the_interval_over_images_is_that_of_the_stored_counts_at_the_fixed_score(
    store: Store, sweep: Sweep, table: TableReport
) -> None:
    ours, theirs = (
        resampled_mious(
            [stored_counts(store, trial) for trial in sweep.plan.cell_trials[reference]],
            resample_counts(30),
        ).mean(0)
        for reference in ("III[yes,yes]", "III[no,no]")
    )
    found = table.cells["III[yes,yes]"].over_images[0]
    assert found == pytest.approx(percentiles(ours - theirs), abs=0.4 * np.std(ours - theirs))
    assert table.cells["III[yes,yes]"].over_images[1] == 1.0  # by five points


def test_the_probability_of_a_better_mean_is_that_of_the_t_distribution(
    table: TableReport, store: Store, sweep: Sweep
) -> None:
    base, ours = (stored_mious(store, sweep, f"III[{name}]") for name in ("no,no", "yes,no"))
    differences = np.array([ours[seed] - base[seed] for seed in (0, 1, 2)])
    expected = ttest_1samp(differences, 0, alternative="less").pvalue
    assert table.cells["III[yes,no]"].evidence.differences.above == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "< 1 %"), (0.01, "1 %"), (0.964, "96 %"), (0.99, "99 %"), (1.0, "> 99 %")],
)
def test_no_probability_is_shown_as_certain(value: float | None, shown: str) -> None:
    assert probability(value) == shown


def test_networks_with_equal_counts_are_better_with_a_probability_of_a_half(tmp_path: Path) -> None:
    cells = made(tmp_path, "III", 2, same).cells
    assert cells["III[yes,yes]"].evidence.differences.above == 0.5
    assert cells["III[yes,yes]"].over_images[1] == 0.5


def test_a_page_shows_baseline_best_and_the_papers_best_on_the_same_images(
    table: TableReport, outputs: dict[str, str]
) -> None:
    _, pictures, left_out = gallery(table)
    titles = [picture.title for picture in pictures.pictures]
    assert titles[1].startswith("Baseline: III[no,no], seed 0: mIoU ")
    assert titles[2].startswith(
        "Best measured beside the baseline and the paper's best: III[yes,yes]"
    )
    assert left_out.text.startswith("Not shown: III[yes,no]; their pictures are in runs/<id>/")
    assert '<div class="wide row">' in outputs["html"]
    assert GALLERY_COLUMNS == DRAWN_COLUMNS


def test_the_best_cell_is_not_shown_beside_the_baseline_if_it_scored_other_images(
    tmp_path: Path,
) -> None:
    def quality(trial: Trial) -> float:
        return 0.4 + 0.3 * (trial.config.data.eval_split == "train_aug")

    _, pictures, _ = gallery(made(tmp_path, "readings", 1, quality, gallery=True))
    about = [picture.title for picture in pictures.pictures]
    assert [title.partition(",")[0] for title in about] == [
        "Images and their masks",
        "Baseline and the paper's best: readings[default]",
    ]


def test_classes_are_compared_as_the_stored_counts_have_them(
    table: TableReport, store: Store, sweep: Sweep, outputs: dict[str, str]
) -> None:
    grid = next(b for b in shown(compare_classes(table), Format.html) if isinstance(b, Grid))
    assert [column.name for column in grid.columns[:2]] == ["III[no,no]", "III[yes,yes]"]
    ious = []
    for trial in sweep.plan.cell_trials["III[yes,yes]"]:
        counts = stored_counts(store, trial)
        ious.append(100 * counts.intersection.sum(0) / counts.union.sum(0))
    ours = [float(str(row.entries[1])) for row in grid.groups[0].rows]
    assert ours == pytest.approx(np.mean(ious, axis=0), abs=0.006)
    for name in ("html", "md"):
        assert "IoU per class: III" in outputs[name].replace("\\", "")
        assert "In no scored image" not in outputs[name]


def test_classes_of_other_images_are_not_compared(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 1)
    fill(store, sweep, lambda trial: share(trial) if trial.cells[0] != "III[yes,yes]" else None)
    (best,) = sweep.plan.cell_trials["III[yes,yes]"]
    finish(store, best, 0.6, num_images=20)
    (table,) = build_report(sweep, store).tables
    assert table.cells["III[yes,yes]"].image_interval is not None
    assert compare_classes(table) == ()


def test_another_measure_reports_other_figures(store: Store, sweep: Sweep) -> None:
    best = build_report(sweep, store, measure=Measure.best)
    metrics = store.run(sweep.plan.cell_trials["III[yes,yes]"][0].run_id).result()
    cell = best.tables[0].cells["III[yes,yes]"]
    assert cell.values[0] == metrics["miou_best"]
    assert cell.seconds == 3 * (60 + 12)  # training and inference of three seeds
    text = FORMATS["md"](sweep_document(best))
    assert "chosen with the pixel ground truth that scores it" in text


def test_one_scored_image_has_no_held_out_score_and_nothing_is_missing(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 1)
    fill(store, sweep, same, num_images=1)
    text = FORMATS["txt"](sweep_document(build_report(sweep, store)))
    assert "Level or shape" in text
    assert "missing" not in text
    with pytest.raises(ConfigError, match="in one half; score more images"):
        build_report(sweep, store, measure=Measure.held_out)


def test_cells_scored_at_several_fixed_scores_say_so_and_their_training_counts_once(
    tmp_path: Path,
) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("background-score",), 1)
    fill(store, sweep, same, num_images=2)
    built = build_report(sweep, store)
    costs = dict(item.split(": ") for item in closing(built)["Costs"].items)
    # Three trainings and inferences of 60 + 12 s, each scored eight times.
    assert costs["trials"] == "24 of 24 finished"
    assert (costs["cpu time, all trials"], costs["mean per trial"]) == ("4 min", "9 s")
    scores = "at the fixed background score of each cell, 0.05 to 0.5"
    for text in (FORMATS["txt"](sweep_document(built)), render_tables(sweep, store)):
        assert scores in " ".join(text.split())


# The answer


def test_a_clear_difference_of_the_papers_sign_is_a_trend_and_not_a_reproduction(
    table: TableReport,
) -> None:
    evidence = table.cells["III[yes,yes]"].evidence
    assert evidence.differences.mean > 5  # the paper's is 1.74
    assert evidence.verdict.word == "trend only"
    strip = answer(table)
    assert strip.question == "Does Table III hold on this data and at this scale?"
    assert strip.answer == ("In part: 2 of 2 differences same sign here. 1 cell failed.")
    assert strip.command.endswith("--seeds 3 --retry-failed")


def test_with_one_seed_nothing_is_resolvable_and_the_report_says_so(store: Store) -> None:
    (single,) = build_report(finished_sweep(("III",), 1), store).tables
    assert {c.verdict.word for c in single.cells.values() if c.verdict} == {"not resolvable"}
    assert any(said.startswith("Seed noise is unknown") for said in findings(single))
    assert answer(single).answer == "Cannot tell: one seed per cell. 1 cell failed."


def test_the_answer_tells_failed_from_missing_cells(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("VI",), 1)
    for trial in sweep.plan.trials[:3]:
        store.run(trial.run_id).fail("hung", "", "")
    report = build_report(sweep, store)
    said = answer(report.tables[0]).answer
    assert said == "Cannot tell: nothing measured yet. 1 cell missing. 3 cells failed."
    assert "Differences to the baseline" not in FORMATS["html"](sweep_document(report))


def test_a_table_of_one_cell_has_nothing_to_compare_it_with(tmp_path: Path) -> None:
    said = answer(made(tmp_path, "calibrate", 1, same)).answer
    assert said == "Cannot tell: it has one cell, and nothing to compare it with."


def test_data_with_other_classes_is_marked_and_weighed_against_nothing(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 3)
    fill(store, sweep, share)
    for path in store.root.glob("runs/*/done.json"):
        done = json.loads(path.read_text().replace("tvmonitor", "screen"))
        write_json(path, done | {"miou_held_out": done["miou_best"] + 1})
    report = build_report(sweep, store)
    (table,) = report.tables
    assert answer(table).question == "Does any cell of Table III differ from III[no,no]?"
    assert not any(cell.verdict for cell in table.cells.values())
    document = sweep_document(report)
    page, text = FORMATS["html"](document), FORMATS["txt"](document)
    assert text.count("OTHER DATA: other classes than VOC's") == 1
    assert "SMALL SCALE" not in page + text
    assert '<td class="right faint">49.12</td>' in page
    assert "printed in the paper" not in page
    assert "paper 49.12" not in page
    assert "neither confirm nor refute" in text
    assert "Held-out can be above best, as here" in " ".join(text.split())
    tables = render_tables(sweep, store)
    assert "VOC 49.12" in tables
    assert "VOC: the paper's number" in " ".join(tables.split())


def test_the_legend_names_no_printed_number_where_no_cell_has_one(tmp_path: Path) -> None:
    assert "paper:" not in render_tables(finished_sweep(("controls-summed",), 1), Store(tmp_path))
    assert "paper:" in render_tables(finished_sweep(("III",), 1), Store(tmp_path))


# What the statistics say


def test_a_noise_floor_tells_its_spreads_and_whether_the_noise_is_the_seeds(tmp_path: Path) -> None:
    def quality(trial: Trial) -> float:
        """B0 repeats exactly, F3 does not; B0 spreads less over seeds."""
        is_f3 = bool(trial.config.views.names)
        spread = (0.03 if is_f3 else 0.002) * (trial.config.rng_seed - 1)
        return 0.5 + spread + (0.01 * trial.config.repeat if is_f3 else 0)

    floor = made(tmp_path, "noise-floor", 3, quality)
    told = "\n".join(findings(floor))
    assert "\nB0: training seed 0 again gives the same mIoU" in told
    again, once = (
        floor.cells[f"noise-floor[F3,{column}]"].values[0] for column in floor.table.columns[::-1]
    )
    assert f"\nF3: training seed 0 again moves mIoU by {again - once:+.2f}" in told
    spreads = [
        np.std(floor.cells[f"noise-floor[{name},every seed]"].scores, ddof=1)
        for name in ("B0", "F3")
    ]
    assert f"SD of {np.sqrt(np.mean(np.square(spreads))):.2f} over seeds" in told
    assert f"own SDs are {spreads[0]:.2f} to {spreads[1]:.2f}" in told
    assert "3 seeds resolve" in told
    assert "span" not in told  # cells want different seeds
    assert "Highest here" not in told


def noise(*shape: int, sd: float = 1.0) -> NDArray[np.float64]:
    return 40 + np.random.default_rng(0).normal(0, sd, shape)


V_NOISE, V_LAMBDA_S = noise(3, 4, 4), noise(3, 4, 4, sd=0.3) + np.array([0, 1, 2, 3])[:, None]
SEEDS_APART = noise(3, 4, 1, sd=0.1) + np.array([0, 10, 20])[:, None, None]
SEEDS_APART[:, 3] += 2


@pytest.mark.parametrize(
    ("name", "values", "sd", "differing", "said"),
    [
        ("V", V_NOISE, 1.0, [], "no lambda_s or lambda_bs can be told from another here."),
        ("V", V_LAMBDA_S, 0.3, [], "(95 %): lambda_s matters (Holm p .014)."),
        ("V", np.full((2, 4, 4), 40.0), 0.0, [], "can be told from another here."),
        # What a seed adds to all cells hides no effect.
        ("III", SEEDS_APART, 10.0, ["III[yes,yes]"], "the cells differ by more than seeds do."),
        ("III", noise(3, 4, 1), 1.0, [], "no cell can be told from another here."),
        (
            "III",
            noise(3, 4, 1),
            1.0,
            ["III[yes,yes]"],
            "within noise as a whole, but III[yes,yes] differs from the baseline.",
        ),
    ],
)
def test_a_table_in_one_sentence(
    name: str, values: NDArray[np.float64], sd: float, differing: list[str], said: str
) -> None:
    found = table_summary(CommonSeeds(TABLES[name], values), Noise(sd, 32), differing)
    span = np.ptp(values.mean(0))
    in_sds = f", {span / sd:.1f} SD of one training" if sd else ""
    start = f"cells span {span:.2f} mIoU over {len(values)} seeds{in_sds}; without any effect"
    assert start in found
    assert found.endswith(said)


def test_what_seeds_add_to_all_cells_is_known_from_as_many_values_as_there_are_seeds(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    table = made(
        tmp_path,
        "V",
        3,
        lambda trial: 0.5 + 0.05 * trial.config.rng_seed + rng.normal(0, 0.001),
        num_images=4,
    )
    values = np.array([cell.scores for cell in table.cells.values()])  # [16, 3]
    sd = np.sqrt(values.var(1, ddof=1).mean())
    left = np.sqrt((values - values.mean(0)).var(1, ddof=1).sum() / 15)
    told = next(line for line in findings(table) if line.startswith("The paper's 16 numbers"))
    own, shared = (float(found) for found in re.findall(r"up to (\d+\.\d+)", told))
    # Two degrees of freedom, not the 32 of sixteen cells with seeds of their own.
    assert own == pytest.approx(studentized_range.isf(0.05, 16, 2) * sd, rel=0.01)
    assert shared == pytest.approx(studentized_range.isf(0.05, 16, 30) * left, abs=0.01)
    caption = next(figure.caption for figure in table_figures(table) if "Map" in figure.title)
    band = studentized_range.isf(0.05, 16, 30) * left / np.sqrt(3)
    assert f"cells within {band:.2f} points of the best" in caption
    # Sixteen equal cells of this noise never span as little as the paper's .08.
    assert studentized_range.ppf(0.05, 16, 30) * left > 0.08
    assert told.endswith(
        "would be larger by noise alone (95 %), so they vary less than those here."
    )
    # The paper's differences are below .1: equal cells reproduce them all.
    said = "15 of 15 differences in agreement here"
    unsigned = "(in the paper 15 are at most 0.5: sign not checked)."
    assert answer(table).answer == f"Yes: {said} {unsigned}"


def test_two_parts_together_are_compared_with_the_sum_of_what_each_gains_alone(
    table: TableReport, tmp_path: Path
) -> None:
    complete = made(tmp_path, "III", 3, drawn_shares(), num_images=4)
    none, first, second, both = (cell.scores for cell in complete.cells.values())
    beyond = [b + n - f - s for n, f, s, b in zip(none, first, second, both, strict=True)]
    low, high = t.interval(0.95, 2, np.mean(beyond), np.std(beyond, ddof=1) / np.sqrt(3))
    told = next(line for line in findings(complete) if line.startswith("M_e and M_d together"))
    assert f"gain {np.mean(beyond):+.2f} beyond" in told
    assert told.endswith(f"95 % over 3 seeds [{low:+.2f}, {high:+.2f}]; the paper +0.64.")
    assert "together" not in " ".join(findings(table))  # lacks a cell


def test_cells_with_the_same_trials_are_one_cell_to_the_statistics(tmp_path: Path) -> None:
    table = made(
        tmp_path,
        "eq2-readings",
        2,
        lambda trial: 0.7 if "eq2-readings[default]" in trial.cells else 0.5,
        num_images=4,
    )
    found = " ".join(findings(table))
    assert found.startswith("The 8 different cells span")
    assert "Highest here: eq2-readings[default], " in found
    assert re.search(r"Within 0\.\d\d of it, as far as [^:]*: 0 of the other 7\.", found)


def test_what_is_said_of_the_seeds_that_all_cells_have_says_so_where_some_have_more(
    tmp_path: Path,
) -> None:
    def quality(trial: Trial) -> float | None:
        return None if trial.name == "V[0.1,0.1] seed 2" else 0.5

    span, *_, highest = findings(made(tmp_path, "V", 3, quality, num_images=4))
    assert "mIoU over the 2 seeds that all cells have" in span
    assert highest.startswith("Highest here over the 2 seeds that all cells have: V[")


# Formats


def test_every_format_says_on_what_data_at_which_scale_and_whose_numbers_are_the_papers(
    outputs: dict[str, str],
) -> None:
    for name in ("txt", "md", "tex", "html"):
        plain = re.sub(r"[\\{}]", "", " ".join(outputs[name].split()))
        for part in (
            "data made-up",
            "160 images trained",
            "30 scored",
            "backbone resnet10_narrow",
            "8 epochs",
            "seeds 0-2",
            "SMALL SCALE",
            "neither confirm nor refute",
            "as printed by Qin et al.",
            "diverged",
        ):
            assert part in plain, (name, part)
    assert "paper 50.86" in outputs["html"]
    line = csv_lines(outputs["csv"])["III[no,no]"]
    assert (line["data"], line["backbone"]) == ("made-up 0123456789abcdef", "resnet10_narrow")
    assert (line["train_images"], line["eval_images"], line["epochs"]) == ("160", "30", "8")
    assert line["small_scale"] == "yes"


def test_a_terminal_shows_the_answer_first_and_leaves_what_is_no_result_to_the_page(
    outputs: dict[str, str],
) -> None:
    assert outputs["txt"].splitlines()[1].startswith("Does Table III hold on this data")
    assert outputs["txt"].count("Does Table III hold") == 1
    for words in ("Eq. 2 (III-B) read literally", "made-up, fingerprint"):
        assert [words in outputs[name] for name in ("txt", "md", "html")] == [False, True, True]


def test_a_terminal_shows_the_provenance_if_the_trials_differ_in_it(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("VI",), 1)
    fill(store, sweep, same, num_images=2)
    first, *_ = store.root.glob("runs/*/done.json")
    first.write_text(first.read_text().replace('"1.2.3"', '"1.2.4"'))
    text = FORMATS["txt"](sweep_document(build_report(sweep, store)))
    assert "code_version: MIXED: 1.2.3 (3 trials), 1.2.4 (1 trial)" in text


def test_the_page_loads_nothing_and_runs_nothing(outputs: dict[str, str]) -> None:
    page = outputs["html"]
    assert "<script" not in page
    loads = re.findall(r'<(?!a )[^>]*\s(?:src|srcset|data|href)="([^"]*)"', page)
    images = {address.partition(",")[0] for address in loads}
    assert images == {"data:image/jpeg;base64", "data:image/svg+xml;base64"}
    assert not re.search(r"url\(\s*['\"]?https?:|@import", page)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'<a [^>]*href="#([^"]*)"', page)) <= set(ids)


def test_latex_has_one_float_a_table_in_the_papers_layout(outputs: dict[str, str]) -> None:
    assert outputs["tex"].count(r"\begin{table}") == 1
    assert r"$M_e$ & $M_d$ & paper & measured" in outputs["tex"]
    assert r"\checkmark & \checkmark & 50.86" in outputs["tex"]


# The command


def reported(store: Store, *words: object) -> tuple[int, str]:
    result = sweeps("report", *words, "--store", store.root, "--no-log")
    return result.exit_code, " ".join(result.output.split())


def test_the_command_reports_the_last_sweep_and_other_tables_of_its_settings_in_six_files(
    store: Store,
) -> None:
    code, output = reported(store, "IV", "III")
    assert code == 0
    assert "Tables III, IV: do they hold?" in output
    (folder,) = (store.root / "sweeps").glob("*/report")
    lines = csv_lines((folder / "report.csv").read_text())
    assert lines["IV[yes,yes,yes]"]["mean_miou"] == lines["III[no,no]"]["mean_miou"] != ""
    assert lines["IV[no,no,no]"]["mean_miou"] == ""
    names = {"report.html", "report.md", "report.tex", "report.csv", "report.txt", "table.tex"}
    assert {path.name for path in folder.iterdir()} == names
    code, output = reported(store, "--sweep", "other")
    assert (code, "no sweep other" in output) == (2, True)


def test_a_broken_gallery_is_named_with_its_remedy(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 1)
    fill(store, sweep, share, gallery=True)
    (first,) = sweep.plan.cell_trials["III[no,no]"]
    path = store.run(first.run_id).path / "cam_gallery.png"
    path.write_bytes(path.read_bytes()[:60])
    code, output = reported(store)
    assert code == 2
    assert f"{path}: cannot be decoded; delete {path.parent} and run its table again" in output


def test_the_command_of_some_own_tables_names_the_file_that_defines_them(tmp_path: Path) -> None:
    store, table = Store(tmp_path), replace(TABLES["VI"], name="mine", baseline="mine[no,no]")
    sweep = replace(finished_sweep(("III",), 1), table_names=("III", "mine"), own_tables=(table,))
    save_sweep(store, sweep)
    code, output = reported(store, "mine")
    assert code == 0
    words = output.split()
    (own,) = read_tables(Path(words[words.index("--table") + 1]))
    assert own == table
