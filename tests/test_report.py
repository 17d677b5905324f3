"""The report: its figures against plain loops over the store, and its five outputs."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from finished import fill, finished_sweep
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from sweeps.cli.report import report as report_command
from sweeps.plan.sweep import Sweep
from sweeps.plan.trials import Trial
from sweeps.report.build import build_report
from sweeps.report.csv_file import csv_text
from sweeps.report.html import html
from sweeps.report.latex import escape as latex_escape
from sweeps.report.latex import latex
from sweeps.report.markdown import markdown
from sweeps.report.model import Measure, Report
from sweeps.report.terminal import print_report
from sweeps.report.write import write_report
from sweeps.store.failures import write_failure
from sweeps.store.store import Store
from sweeps.tables.studies import TABLES
from sweeps.tables.table import Cell, Row, Table
from wsss.evaluation.confusion import ThresholdCounts

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
    write_failure(store.run(failed.run_id).path, "diverged", "the loss became NaN <b>", "trace")
    return store


@pytest.fixture(scope="module")
def report(store: Store, sweep: Sweep) -> Report:
    return build_report(sweep, store)


@pytest.fixture(scope="module")
def outputs(report: Report) -> dict[str, str]:
    console = Console(file=io.StringIO(), width=110, color_system=None)
    print_report(console, report)
    assert isinstance(console.file, io.StringIO)
    return {
        "txt": console.file.getvalue(), "md": markdown(report), "tex": latex(report),
        "csv": csv_text(report), "html": html(report),
    }  # fmt: skip


def stored_mious(store: Store, sweep: Sweep, reference: str) -> dict[int, float]:
    """Read the fixed mIoU of a cell's trials straight from the files."""
    found = {}
    for trial in sweep.plan.cell_trials[reference]:
        path = store.root / "runs" / trial.run_id / "done.json"
        if path.exists():
            found[trial.config.rng_seed] = json.loads(path.read_text())["miou_fixed"]
    return found


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


def test_the_interval_over_images_agrees_with_a_plain_bootstrap_loop(
    store: Store, sweep: Sweep, report: Report
) -> None:
    by_run = []
    for reference in ("III[yes,yes]", "III[no,no]"):
        confusions = []
        for trial in sweep.plan.cell_trials[reference]:
            counts = ThresholdCounts.load(store.run(trial.run_id).path / "counts.npz")
            confusions.append(counts.image_confusions(0.15))
        by_run.append(confusions)
    rng = np.random.default_rng(5)
    differences = []
    for _ in range(600):
        drawn = rng.integers(30, size=30)
        means = []
        for confusions in by_run:
            mious = []
            for confusion in confusions:
                total = confusion[drawn].sum(0)
                union = total.sum(0) + total.sum(1) - np.diag(total)
                present = union > 0
                mious.append(100 * np.mean(np.diag(total)[present] / union[present]))
            means.append(np.mean(mious))
        differences.append(means[0] - means[1])
    low, high = np.percentile(differences, [2.5, 97.5])
    found = report.tables[0].cells["III[yes,yes]"].image_difference
    assert found is not None
    spread = np.std(differences)
    assert found[0] == pytest.approx(low, abs=0.4 * spread)
    assert found[1] == pytest.approx(high, abs=0.4 * spread)


def test_a_clear_difference_of_the_papers_sign_is_a_trend_and_not_a_reproduction(
    report: Report,
) -> None:
    evidence = report.tables[0].cells["III[yes,yes]"].evidence
    assert evidence is not None
    assert evidence.verdict is not None
    assert evidence.differences.mean is not None
    assert evidence.differences.mean > 5  # the paper's is 1.74
    assert evidence.verdict.word == "trend only"
    assert report.tables[0].headline.startswith("At this small scale, of")


def test_with_one_seed_nothing_is_resolvable_and_the_report_says_so(
    store: Store, sweep: Sweep
) -> None:
    single = finished_sweep(("III",), 1)
    table = build_report(single, store).tables[0]
    words = {c.evidence.verdict.word for c in table.cells.values() if c.evidence}  # type: ignore[union-attr]
    assert words == {"not resolvable"}
    assert any("Seed noise is unknown" in line for line in table.findings)


def test_another_measure_reports_other_figures(store: Store, sweep: Sweep) -> None:
    best = build_report(sweep, store, measure=Measure.best)
    trial = sweep.plan.cell_trials["III[yes,yes]"][0]
    metrics = store.run(trial.run_id).metrics()
    assert metrics is not None
    assert best.tables[0].cells["III[yes,yes]"].values[0] == metrics["miou_best"]
    assert "saw the pixel ground truth that scores it" in markdown(best)


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
    assert not any("ANOVA" in line or "Best here" in line for line in floor.tables[0].findings)


# What every output must say


def test_missing_and_failed_cells_are_shown_in_every_output(outputs: dict[str, str]) -> None:
    for name, text in outputs.items():
        assert "diverged" in text, name
    assert csv_lines(outputs["csv"])["III[no,yes]"]["mean_miou"] == ""


def test_every_output_says_data_images_backbone_epochs_and_seeds(outputs: dict[str, str]) -> None:
    for name in ("txt", "md", "tex", "html"):
        plain = re.sub(r"[\\{}]", "", " ".join(outputs[name].split()))
        for part in (
            "data made-up", "160 images trained", "30 scored", "backbone resnet10_narrow",
            "8 epochs", "seeds 0-2",
        ):  # fmt: skip
            assert part in plain, (name, part)
    line = csv_lines(outputs["csv"])["III[no,no]"]
    assert (line["data"], line["backbone"]) == ("made-up 0123456789abcdef", "resnet10_narrow")
    assert (line["train_images"], line["eval_images"], line["epochs"]) == ("160", "30", "8")


def test_small_scale_is_marked_in_every_output(outputs: dict[str, str]) -> None:
    for name in ("txt", "md", "tex", "html"):
        assert "SMALL SCALE" in outputs[name], name
        assert "neither confirm nor refute" in " ".join(outputs[name].split()), name
    assert {line["small_scale"] for line in csv_lines(outputs["csv"]).values()} == {"yes"}


def test_the_papers_numbers_are_labelled_as_the_papers(outputs: dict[str, str]) -> None:
    for name in ("txt", "md", "tex"):
        assert "as printed by Qin et al." in " ".join(outputs[name].split()), name
    assert "paper 50.86" in outputs["html"]


def test_the_papers_own_inconsistencies_are_notes(store: Store) -> None:
    built = build_report(finished_sweep(("III", "V"), 1), store)
    texts = [note.text for note in built.paper_notes]
    assert any("0.08" in text for text in texts)
    assert all(set(note.tables) & {"III", "V"} for note in built.paper_notes)


# HTML, LaTeX, Markdown, CSV


class Page(HTMLParser):
    """Collects tags, and addresses that the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "srcset", "data") or (key == "href" and tag == "link"):
                self.loads.append(value or "")
            if key == "href" and tag == "a":
                self.links.append(value or "")


def test_the_page_loads_nothing_and_runs_nothing(outputs: dict[str, str]) -> None:
    page = Page(outputs["html"])
    assert "script" not in page.tags
    assert "svg" in page.tags
    assert page.loads
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.loads)
    assert not re.search(r"url\(\s*['\"]?https?:|@import", outputs["html"])
    assert len(page.ids) == len(set(page.ids))
    assert all(link[1:] in page.ids for link in page.links if link.startswith("#"))


HOSTILE = "=cmd() <script>alert(1)</script> \\input{/etc/passwd} $x_1$ | `b` & 100%"


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Report:
    table = Table(
        "=1+1<i>", HOSTILE, (HOSTILE,), "mIoU", ("mIoU",),
        (Row(("=first",), (Cell({}, None),)), Row((HOSTILE,), (Cell({"train.lr": 0.3}, None),))),
        notes=(HOSTILE,),
    )  # fmt: skip
    monkeypatch.setitem(TABLES, table.name, table)
    store, sweep = Store(tmp_path), finished_sweep((table.name,), 2)
    fill(store, sweep, lambda trial: 0.5)
    return build_report(sweep, store)


def test_hostile_names_are_escaped_in_every_output(hostile: Report) -> None:
    page = html(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert r"\input" not in latex(hostile)
    assert r"\textbackslash{}input" in latex(hostile)
    assert "<script" not in markdown(hostile).replace("\\<script", "")
    for line in csv.reader(io.StringIO(csv_text(hostile))):
        for value in line:
            assert not value.startswith(("=", "@", "\t"))


def test_no_cell_of_a_markdown_table_breaks_its_row(hostile: Report) -> None:
    section = markdown(hostile).split("\n## ")[1]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(rows) == 8  # two tables of a header, a rule and two cells
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert bars == [14] * 4 + [7] * 4  # 13 columns of evidence, 6 of measures


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & 5 % {x}", r"a\_b \& 5 \% \{x\}"),
        (r"\input{f}", r"\textbackslash{}input\{f\}"),
        ("[1, 2] ± 3", r"{[}1, 2{]} $\pm$ 3"),
        ("x^2 ~ <y>", r"x\textasciicircum{}2 \textasciitilde{} \textless{}y\textgreater{}"),
        ("snowman ☃ é", "snowman ? é"),
    ],
)
def test_latex_escapes_what_would_be_a_command(text: str, expected: str) -> None:
    assert latex_escape(text) == expected


def test_latex_has_the_papers_layout_and_balanced_environments(outputs: dict[str, str]) -> None:
    text = outputs["tex"]
    assert re.findall(r"\\begin\{(\w+)\}", text).count("table") == 1
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(
        re.findall(r"\\end\{(\w+)\}", text)
    )
    unescaped = re.sub(r"\\[{}]", "", text)
    assert unescaped.count("{") == unescaped.count("}")
    assert r"$M_e$ & $M_d$ & paper & measured" in text
    assert r"\checkmark & \checkmark & 50.86" in text


# Writing and the command


def test_all_five_files_are_written_and_nothing_else(report: Report, tmp_path: Path) -> None:
    written = write_report(report, tmp_path / "out")
    names = {"report.html", "report.md", "report.tex", "report.csv", "report.txt"}
    assert {path.name for path in written} == names
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def run_command(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(report_command)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


def test_the_command_reports_the_last_sweep_and_names_the_files(store: Store) -> None:
    code, output = run_command("--store", str(store.root), "--no-log")
    assert code == 0
    assert "Tables III: do they hold?" in output
    assert [*(store.root / "sweeps").glob("*/report/report.html")]


def test_the_command_reports_other_tables_of_the_same_settings(store: Store) -> None:
    code, output = run_command(
        "IV", "III", "--store", str(store.root), "--no-log", "--out", str(store.root / "both")
    )
    assert code == 0
    assert "Tables III, IV: do they hold?" in output
    lines = csv_lines((store.root / "both" / "report.csv").read_text())
    assert lines["IV[yes,yes,yes]"]["mean_miou"] == lines["III[no,no]"]["mean_miou"] != ""
    assert lines["IV[no,no,no]"]["mean_miou"] == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["IX"], "no table IX; there are: III"),
        (["--measure", "nicest"], "no measure 'nicest'; there are: fixed"),
        (["--sweep", "other"], "no sweep other"),
    ],
)
def test_wrong_requests_are_explained(store: Store, arguments: list[str], expected: str) -> None:
    code, output = run_command(*arguments, "--store", str(store.root), "--no-log")
    assert code == 2
    assert expected in output
