"""A sweep's report: its numbers against plain loops over the store, and what every format says."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import sweeps
from made_up.finished import fill, finish, finished_sweep
from numpy.typing import NDArray
from scipy.stats import studentized_range, t

from sweeps.evidence.images import ImageCounts, percentiles, resample_counts, resampled_mious
from sweeps.evidence.seeds import seed_differences
from sweeps.evidence.verdict import Word, judge
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import Sweep, save_sweep
from sweeps.plan.trials import Trial
from sweeps.report.document import Facts, Format, Grid, Pictures, Text, shown
from sweeps.report.formats.write import FORMATS, as_text
from sweeps.report.live.render import render_tables
from sweeps.report.tables.build import build_report
from sweeps.report.tables.document import sweep_document
from sweeps.report.tables.findings import table_summary
from sweeps.report.tables.legend import legend
from sweeps.report.tables.model import Measure, Report
from sweeps.report.tables.pictures.gallery import COLUMNS as GALLERY_COLUMNS
from sweeps.store.store import Store
from sweeps.tables.own import read_tables
from sweeps.tables.studies import TABLES
from wsss.evaluation.confusion import ThresholdCounts
from wsss.evaluation.figures import COLUMNS as DRAWN_COLUMNS
from wsss.overrides import ConfigError, apply_overrides
from wsss.recipes import RECIPES

SHARES = {"III[no,no]": 0.5, "III[yes,no]": 0.52, "III[no,yes]": 0.5, "III[yes,yes]": 0.6}


def share(trial: Trial) -> float | None:
    """Quality of a made-up trial: by configuration, plus noise of the seed."""
    if trial.cells[0] == "III[no,yes]":
        return None  # never ran
    noise = np.random.default_rng(trial.config.rng_seed).normal(0, 0.01)
    return float(SHARES[trial.cells[0]] + noise)


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


def stored_counts(store: Store, trial: Trial) -> ThresholdCounts:
    return ThresholdCounts.load(store.root / "counts" / counts_id(trial.config) / "counts.npz")


def csv_lines(text: str) -> dict[str, dict[str, str]]:
    return {line["cell"]: line for line in csv.DictReader(io.StringIO(text))}


# Figures


def test_csv_holds_mean_sd_and_differences_of_the_stored_results(
    store: Store, sweep: Sweep, outputs: dict[str, str]
) -> None:
    lines = csv_lines(outputs["csv"])
    baseline = stored_mious(store, sweep, "III[no,no]")
    for reference in ("III[no,no]", "III[yes,no]", "III[yes,yes]"):
        values = stored_mious(store, sweep, reference)
        line = lines[reference]
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


def test_a_table_can_have_a_baseline_for_each_column(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("recipes",), 2)
    # With this base, the default's cells are those of the recipe irn.
    sweep = replace(sweep, base=apply_overrides(sweep.base, RECIPES["irn"]))

    def quality(trial: Trial) -> float:
        return 0.4 + 0.3 * ("literal" in trial.cells[0]) + 0.1 * ("[yes,yes" in trial.cells[0])

    fill(store, sweep, quality, gallery=True)
    report = build_report(sweep, store)
    lines = csv_lines(FORMATS["csv"](sweep_document(report)))
    for recipe in TABLES["recipes"].columns:
        base, best = (f"recipes[{labels},{recipe}]" for labels in ("no,no", "yes,yes"))
        assert (lines[base]["verdict"], lines[best]["baseline"]) == ("baseline", base)
        ours, theirs = stored_mious(store, sweep, best), stored_mious(store, sweep, base)
        differences = [ours[seed] - theirs[seed] for seed in (0, 1)]
        assert float(lines[best]["difference"]) == pytest.approx(np.mean(differences))
    assert lines["recipes[yes,yes,default]"]["paper_difference"] == "1.74"
    assert lines["recipes[yes,yes,literal]"]["paper_difference"] == ""
    found = report.tables[0]
    assert "of 3 differences" in found.answer.answer
    page = FORMATS["html"](sweep_document(report))
    assert "IoU per class: recipes[yes,yes,literal] against recipes[no,no,literal]" in page
    assert "Baseline: recipes[no,no,literal], seed 0" in page
    assert "Differences to the baseline, recipes[no,no] of the same recipe" in page


def test_the_interval_over_images_is_that_of_the_stored_counts_at_the_fixed_score(
    store: Store, sweep: Sweep, report: Report
) -> None:
    drawn = resample_counts(30)
    ours, theirs = (
        resampled_mious(
            [
                ImageCounts.from_confusions(stored_counts(store, trial).image_confusions(0.15))
                for trial in sweep.plan.cell_trials[reference]
            ],
            drawn,
        ).mean(0)
        for reference in ("III[yes,yes]", "III[no,no]")
    )
    found = report.tables[0].cells["III[yes,yes]"].image_difference
    spread = np.std(ours - theirs)
    assert found == pytest.approx(percentiles(ours - theirs), abs=0.4 * spread)


def test_a_clear_difference_of_the_papers_sign_is_a_trend_and_not_a_reproduction(
    report: Report,
) -> None:
    evidence = report.tables[0].cells["III[yes,yes]"].evidence
    assert evidence is not None
    assert evidence.verdict is not None
    assert evidence.differences.mean is not None
    assert evidence.differences.mean > 5  # the paper's is 1.74
    assert evidence.verdict.word == "trend only"
    strip = report.tables[0].answer
    assert strip.question == "Does Table III hold on this data and at this scale?"
    assert strip.answer == ("In part: 2 of 2 differences same sign here. 1 cell failed.")
    assert strip.command.endswith("--seeds 3 --retry-failed")


def test_with_one_seed_nothing_is_resolvable_and_the_report_says_so(
    store: Store, sweep: Sweep
) -> None:
    single = finished_sweep(("III",), 1)
    table = build_report(single, store).tables[0]
    words = {c.evidence.verdict.word for c in table.cells.values() if c.evidence}  # type: ignore[union-attr]
    assert words == {"not resolvable"}
    assert any("Seed noise is unknown" in line for line in table.findings)
    assert table.answer.answer == "Cannot tell: one seed per cell. 1 cell failed."


def test_the_answer_tells_failed_from_missing_cells_and_a_table_of_one_cell_has_no_other(
    tmp_path: Path,
) -> None:
    def answer(table: str) -> str:
        return build_report(finished_sweep((table,), 1), store).tables[0].answer.answer

    store = Store(tmp_path)
    for trial in finished_sweep(("VI",), 1).plan.trials[:3]:
        store.run(trial.run_id).fail("hung", "", "")
    assert answer("VI") == "Cannot tell: nothing measured yet. 1 cell missing. 3 cells failed."
    nothing = sweep_document(build_report(finished_sweep(("VI",), 1), store))
    assert "Differences to the baseline" not in FORMATS["html"](nothing)
    store, single = Store(tmp_path / "one"), finished_sweep(("calibrate",), 1)
    fill(store, single, lambda trial: 0.5)
    assert answer("calibrate") == "Cannot tell: it has one cell, and nothing to compare it with."
    costs = dict(dict(build_report(single, store).closing)["Costs"].rows)
    assert costs["configurations"] == "1 distinct behind 1 cell"


def test_the_chance_that_a_cell_is_better_is_its_share_of_plain_resamples(
    report: Report, store: Store, sweep: Sweep
) -> None:
    cell = report.tables[0].cells["III[yes,yes]"]
    assert (cell.better_over_seeds, cell.better_over_images) == (1.0, 1.0)  # by five points
    base, ours = (stored_mious(store, sweep, f"III[{name}]") for name in ("no,no", "yes,no"))
    differences = np.array([ours[seed] - base[seed] for seed in (0, 1, 2)])
    drawn = np.array(np.meshgrid(*[[0, 1, 2]] * 3)).reshape(3, -1)  # all 27, equally likely
    expected = float((differences[drawn].mean(0) > 0).mean())
    found = report.tables[0].cells["III[yes,no]"].better_over_seeds
    assert found == pytest.approx(expected, abs=0.03)


def test_a_page_shows_baseline_best_and_the_papers_best_on_the_same_images(
    report: Report, outputs: dict[str, str]
) -> None:
    _, pictures, left_out = report.tables[0].gallery
    assert isinstance(pictures, Pictures)
    assert isinstance(left_out, Text)
    titles = [picture.title for picture in pictures.pictures]
    assert titles[1].startswith("Baseline: III[no,no], seed 0: mIoU ")
    assert titles[2].startswith("Best measured and the paper's best: III[yes,yes], seed 0: mIoU ")
    assert left_out.text.startswith("Not shown: III[yes,no]; their pictures are in runs/<id>/")
    assert '<div class="wide row">' in outputs["html"]


def test_columns_of_a_gallery_are_where_the_trainings_draw_them() -> None:
    assert GALLERY_COLUMNS == DRAWN_COLUMNS


def test_classes_are_compared_as_the_stored_counts_have_them(
    report: Report, store: Store, sweep: Sweep, outputs: dict[str, str]
) -> None:
    grid = next(b for b in shown(report.tables[0].classes, Format.html) if isinstance(b, Grid))
    assert [column.name for column in grid.columns[:2]] == ["III[no,no]", "III[yes,yes]"]
    ious = []
    for trial in sweep.plan.cell_trials["III[yes,yes]"]:
        total = stored_counts(store, trial).image_confusions(0.15).sum(0)
        ious.append(100 * np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total)))
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
    assert table.classes == ()


def test_data_with_other_classes_is_marked_and_weighed_against_nothing(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 3)
    fill(store, sweep, share)
    for path in store.root.glob("runs/*/done.json"):
        done = json.loads(path.read_text().replace("tvmonitor", "screen"))
        path.write_text(json.dumps(done | {"miou_held_out": done["miou_best"] + 1}))
    found = build_report(sweep, store)
    (table,) = found.tables
    assert table.answer.question == "Does any cell of Table III differ from III[no,no]?"
    assert not any(c.evidence.verdict for c in table.cells.values() if c.evidence)
    document = sweep_document(found)
    page, text = FORMATS["html"](document), FORMATS["txt"](document)
    assert text.count("OTHER DATA: other classes than VOC's") == 1
    assert "SMALL SCALE" not in page + text
    assert '<td class="right faint">49.12</td>' in page
    assert "printed in the paper" not in page
    assert "paper 49.12" not in page
    assert "neither confirm nor refute" in text
    assert "Held-out can be above best, as here" in " ".join(text.split())
    assert "VOC 49.12" in render_tables(sweep, store)


def test_another_measure_reports_other_figures(store: Store, sweep: Sweep) -> None:
    best = build_report(sweep, store, measure=Measure.best)
    trial = sweep.plan.cell_trials["III[yes,yes]"][0]
    metrics = store.run(trial.run_id).metrics()
    assert metrics is not None
    cell = best.tables[0].cells["III[yes,yes]"]
    assert cell.values[0] == metrics["miou_best"]
    assert cell.seconds == 3 * (60 + 12)  # training and inference of three seeds
    assert "chosen with the pixel ground truth that scores it" in FORMATS["md"](
        sweep_document(best)
    )


def test_one_scored_image_has_no_held_out_score_and_nothing_is_missing(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 1)
    fill(store, sweep, lambda trial: 0.5, num_images=1)
    text = FORMATS["txt"](sweep_document(build_report(sweep, store)))
    assert "mIoU by choice of the threshold" in text or "Level or shape" in text
    assert "missing" not in text
    with pytest.raises(ConfigError, match="in one half; score more images"):
        build_report(sweep, store, measure=Measure.held_out)


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Noise floor: B0 repeats exactly, F3 does not; B0 spreads less over seeds."""
    store, sweep = Store(tmp_path_factory.mktemp("floor")), finished_sweep(("noise-floor",), 3)

    def quality(trial: Trial) -> float:
        is_f3 = bool(trial.config.views.names)
        spread = (0.03 if is_f3 else 0.002) * (trial.config.rng_seed - 1)
        return 0.5 + spread + (0.01 * trial.config.repeat if is_f3 else 0)

    fill(store, sweep, quality)
    return build_report(sweep, store)


def test_a_repeated_seed_tells_whether_the_noise_is_the_seeds(floor: Report) -> None:
    lines = floor.tables[0].findings
    assert any(line.startswith("B0: training seed 0 again gives the same mIoU") for line in lines)
    moved = next(line for line in lines if line.startswith("F3: training seed 0 again moves"))
    cells = floor.tables[0].cells
    again, once = cells["noise-floor[F3,seed 0 again]"], cells["noise-floor[F3,every seed]"]
    assert f"{again.values[0] - once.values[0]:+.2f}" in moved


def test_spreads_of_configurations_are_told_apart_and_resolution_is_that_of_all_seeds(
    floor: Report,
) -> None:
    lines = floor.tables[0].findings
    cells = floor.tables[0].cells
    spreads = [
        np.std(list(cells[f"noise-floor[{name},every seed]"].values.values()), ddof=1)
        for name in ("B0", "F3")
    ]
    pooled = np.sqrt(np.mean(np.square(spreads)))
    text = next(line for line in lines if line.startswith("Seed noise"))
    assert f"SD of {pooled:.2f} over seeds" in text
    assert f"own SDs are {spreads[0]:.2f} to {spreads[1]:.2f}" in text
    assert any("3 seeds resolve" in line for line in lines)


def test_a_table_whose_cells_want_different_seeds_gets_no_analysis_of_variance(
    floor: Report,
) -> None:
    told = " ".join(floor.tables[0].findings)
    assert "Of the variance" not in told
    assert "Highest here" not in told


def test_the_legend_calls_a_sure_sign_a_trend_whatever_the_size(floor: Report) -> None:
    differences = seed_differences({0: 9.0, 1: 9.1}, {0: 0.0, 1: 0.0})
    sure = judge(differences, paper=0.68, margin=0.5, holm_p=0.01, outside_p=0.01)
    assert "lies outside" in sure.reason
    assert sure.word is Word.TREND_ONLY
    told = " ".join(paragraph.text for paragraph in legend(floor))
    assert "Trend only: it only has that sign, even if its size is shown to be another" in told


# What a table shows, in one sentence

V, III = TABLES["V"], TABLES["III"]


def noise(*shape: int, sd: float = 1.0) -> NDArray[np.float64]:
    return 40 + np.random.default_rng(0).normal(0, sd, shape)


def test_noise_alone_tells_no_lambda_from_another() -> None:
    values = noise(3, 4, 4)
    text = table_summary(V, values, (1.0, 32), [])
    span = np.ptp(values.mean(0))
    assert f"span {span:.2f} mIoU over 3 seeds, {span:.1f} SD of one training" in text
    assert text.endswith("no lambda_s or lambda_bs can be told from another here.")


def test_a_factor_with_an_effect_matters_and_the_other_does_not() -> None:
    values = noise(3, 4, 4, sd=0.3)
    values += np.array([0, 1, 2, 3])[:, None]  # by lambda_s, the rows
    text = table_summary(V, values, (0.3, 32), [])
    assert "lambda_s matters (Holm p < .001)" in text
    assert "lambda_bs" not in text


def test_what_a_seed_adds_to_all_cells_hides_no_effect() -> None:
    values = noise(3, 4, 1, sd=0.1) + np.array([0, 10, 20])[:, None, None]
    values[:, 3] += 2
    assert "differ by more than seeds do" in table_summary(III, values, (10.0, 8), [])


def test_a_table_of_one_column_speaks_of_cells_and_contradicts_no_verdict() -> None:
    values = noise(3, 4, 1)
    text = table_summary(III, values, (1.0, 8), [])
    assert text.endswith("no cell can be told from another here.")
    text = table_summary(III, values, (1.0, 8), ["III[yes,yes]"])
    assert text.endswith("within noise as a whole, but III[yes,yes] differs from the baseline.")


def test_what_seeds_add_to_all_cells_is_known_from_as_many_values_as_there_are_seeds(
    tmp_path: Path,
) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("V",), 3)
    rng = np.random.default_rng(0)
    fill(
        store,
        sweep,
        lambda trial: 0.5 + 0.05 * trial.config.rng_seed + rng.normal(0, 0.001),
        num_images=4,
    )
    table = build_report(sweep, store).tables[0]
    values = np.array([list(cell.values.values()) for cell in table.cells.values()])  # [16, 3]
    sd = np.sqrt(values.var(1, ddof=1).mean())
    left = np.sqrt((values - values.mean(0)).var(1, ddof=1).sum() / 15)
    told = next(line for line in table.findings if line.startswith("The paper's 16 numbers"))
    own, shared = (float(found) for found in re.findall(r"up to (\d+\.\d+)", told))
    # Two degrees of freedom, not the 32 of sixteen cells with seeds of their own.
    assert own == pytest.approx(studentized_range.isf(0.05, 16, 2) * sd, rel=0.01)
    assert shared == pytest.approx(studentized_range.isf(0.05, 16, 30) * left, abs=0.01)
    caption = next(figure.caption for figure in table.figures if "Map" in figure.title)
    band = t.isf(0.025, 30) * left * np.sqrt(2 / 3)
    assert f"cells within {band:.2f} points of the best" in caption
    # The paper's differences are below .1: equal cells reproduce them all.
    said = "15 of 15 differences in agreement here (15 at most 0.5 in the paper, sign not checked)."
    assert table.answer.answer == f"Yes: {said}"


def test_two_parts_together_are_compared_with_the_sum_of_each_alone(
    store: Store, sweep: Sweep, tmp_path: Path
) -> None:
    complete, rng = Store(tmp_path), np.random.default_rng(0)
    fill(complete, sweep, lambda trial: rng.uniform(0.5, 0.7), num_images=4)
    table = build_report(sweep, complete).tables[0]
    none, first, second, both = (list(cell.values.values()) for cell in table.cells.values())
    beyond = [b + n - f - s for n, f, s, b in zip(none, first, second, both, strict=True)]
    low, high = t.interval(0.95, 2, np.mean(beyond), np.std(beyond, ddof=1) / np.sqrt(3))
    told = next(line for line in table.findings if line.startswith("M_e and M_d together"))
    assert f"gain {np.mean(beyond):+.2f} beyond" in told
    assert told.endswith(f"95 % over 3 seeds [{low:+.2f}, {high:+.2f}]; the paper +0.64.")
    assert "together" not in " ".join(build_report(sweep, store).tables[0].findings)  # lacks a cell


def test_cells_with_the_same_trials_are_one_cell_to_the_statistics(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("eq2-readings",), 2)
    shared = {t.run_id for t in sweep.plan.cell_trials["eq2-readings[default]"]}
    fill(store, sweep, lambda t: 0.7 if t.run_id in shared else 0.5, num_images=4)
    found = " ".join(build_report(sweep, store).tables[0].findings)
    assert found.startswith("The 8 different cells span")
    assert "Highest here: eq2-readings[default], " in found
    assert "in 100 % of resamples of seeds (2 seeds have only 3 different ones) and 100 %" in found


def test_what_is_said_of_the_seeds_that_all_cells_have_says_so_where_some_have_more(
    tmp_path: Path,
) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("V",), 3)
    lacking = sweep.plan.cell_trials["V[0.1,0.1]"][2]
    fill(store, sweep, lambda t: None if t is lacking else 0.5, num_images=4)
    table = build_report(sweep, store).tables[0]
    span, *_, factors, highest = table.findings
    assert "mIoU over the 2 seeds that all cells have, " in span
    assert factors.startswith("Of the variance over the 2 seeds that all cells have, ")
    assert highest.startswith("Highest here over the 2 seeds that all cells have: V[")


def test_equal_results_have_no_span_in_sds() -> None:
    text = table_summary(V, np.full((2, 4, 4), 40.0), (0.0, 16), [])
    assert text.startswith("The 16 cells span 0.00 mIoU over 2 seeds; without")
    assert text.endswith("can be told from another here.")


def test_cells_scored_at_several_fixed_scores_say_so_and_their_training_counts_once(
    tmp_path: Path,
) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("background-score",), 1)
    fill(store, sweep, lambda trial: 0.5, num_images=2)
    built = build_report(sweep, store)
    costs = dict(dict(built.closing)["Costs"].rows)
    # Three trainings and inferences of 60 + 12 s, each scored eight times.
    assert costs["trials"] == "24 of 24 finished"
    assert (costs["cpu time, all trials"], costs["mean per trial"]) == ("4 min", "9 s")
    scores = "at the fixed background score of each cell, 0.05 to 0.5"
    for text in (FORMATS["txt"](sweep_document(built)), render_tables(sweep, store)):
        assert scores in " ".join(text.split())


# What every output must say


def test_missing_and_failed_cells_are_shown_in_every_output(outputs: dict[str, str]) -> None:
    for name, text in outputs.items():
        assert "diverged" in text, name
    assert csv_lines(outputs["csv"])["III[no,yes]"]["mean_miou"] == ""


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
        ):
            assert part in plain, (name, part)
    assert "paper 50.86" in outputs["html"]
    line = csv_lines(outputs["csv"])["III[no,no]"]
    assert (line["data"], line["backbone"]) == ("made-up 0123456789abcdef", "resnet10_narrow")
    assert (line["train_images"], line["eval_images"], line["epochs"]) == ("160", "30", "8")
    assert line["small_scale"] == "yes"


# Formats


def test_a_terminal_shows_the_answer_first_and_leaves_what_is_no_result_to_the_page(
    report: Report, outputs: dict[str, str]
) -> None:
    assert outputs["txt"].splitlines()[1].startswith("Does Table III hold on this data")
    assert outputs["txt"].count("Does Table III hold") == 1
    for words in ("Eq. 2 (III-B) read literally", "made-up, fingerprint"):
        assert [words in outputs[name] for name in ("txt", "md", "html")] == [False, True, True]
    mixed = Facts(("what", "value"), (("torch", "MIXED: 1 (2 trials), 2 (1 trial)"),))
    other = as_text(sweep_document(replace(report, closing=(("Provenance", mixed),))))
    assert "torch: MIXED" in other


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


def test_the_command_reports_the_last_sweep_in_six_files(store: Store) -> None:
    code, output = reported(store)
    assert code == 0
    assert "Table III: does it hold?" in output
    (folder,) = (store.root / "sweeps").glob("*/report")
    names = {"report.html", "report.md", "report.tex", "report.csv", "report.txt", "table.tex"}
    assert {path.name for path in folder.iterdir()} == names


def test_a_broken_gallery_is_named_with_its_remedy(tmp_path: Path) -> None:
    store, sweep = Store(tmp_path), finished_sweep(("III",), 1)
    fill(store, sweep, share, gallery=True)
    (first,) = sweep.plan.cell_trials["III[no,no]"]
    path = store.run(first.run_id).path / "cam_gallery.png"
    path.write_bytes(path.read_bytes()[:60])
    code, output = reported(store)
    assert code == 2
    assert f"{path}: cannot be decoded; delete {path.parent} and run its table again" in output


def test_the_command_reports_other_tables_of_the_same_settings(store: Store) -> None:
    code, output = reported(store, "IV", "III", "--out", store.root / "both")
    assert code == 0
    assert "Tables III, IV: do they hold?" in output
    lines = csv_lines((store.root / "both" / "report.csv").read_text())
    assert lines["IV[yes,yes,yes]"]["mean_miou"] == lines["III[no,no]"]["mean_miou"] != ""
    assert lines["IV[no,no,no]"]["mean_miou"] == ""


def test_the_command_of_some_own_tables_names_the_file_that_defines_them(tmp_path: Path) -> None:
    store, table = Store(tmp_path), replace(TABLES["VI"], name="mine", baseline="mine[no,no]")
    sweep = replace(finished_sweep(("III",), 1), table_names=("III", "mine"), own_tables=(table,))
    save_sweep(store, sweep)
    code, output = reported(store, "mine")
    assert code == 0
    words = output.split()
    (own,) = read_tables(Path(words[words.index("--table") + 1]))
    assert own == table


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--measure", "nicest"], "'nicest' is not one of 'fixed', "),
        (["--sweep", "other"], "no sweep other"),
        (["--mlflow-url", "mlflow:5000"], "no address; write it as http://HOST:5000"),
        (["--seeds", "9" * 20], "less than or equal to 1000"),
    ],
)
def test_wrong_requests_are_explained(store: Store, arguments: list[str], expected: str) -> None:
    code, output = reported(store, *arguments)
    assert code == 2
    assert expected in output
