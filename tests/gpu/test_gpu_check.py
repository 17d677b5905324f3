"""The check of a GPU, tried on the CPU against itself: its page, its verdicts, its promises."""

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import wsss
from made_up.voc_tree import voc_tree
from torchvision.models import mobilenet_v2

from sweeps.plan.trials import make_plan
from sweeps.tables.studies import F0, F3, TABLES
from wsss.data.loading.batches import CropDataset, Loader
from wsss.gpu_check import __main__ as command
from wsss.gpu_check.bench import Bench, InferenceSpeed, LoadingSpeed, StepSpeed
from wsss.gpu_check.page import WIDTH, Section, render
from wsss.gpu_check.sections import equality, speed
from wsss.gpu_check.sections.equality import (
    DISTINCT,
    Case,
    Difference,
    Results,
    all_cases,
    check_equality,
    compare,
    furthest,
    one_step,
)
from wsss.gpu_check.sections.real_training import (
    Resumed,
    Trained,
    judge_resumed,
    judge_training,
    train_for_real,
)
from wsss.gpu_check.sections.speed import (
    CANNOT_RUN,
    NUM_SEEDS,
    TRAININGS,
    hours_of_tables,
    judge_loading,
    loading_rate,
    measure_inference,
    measure_loading,
    project,
)
from wsss.gpu_check.trainings import CELLS, PARTS, cam_case, read_weights
from wsss.overrides import apply_overrides
from wsss.presets import DEEPLAB_PRESETS, LABEL_PRESETS, PAPER, PRESETS, TINY
from wsss.training.loop import NoMemoryError
from wsss.weights import file_digest

REPO = Path(__file__).parents[2]
CPU = torch.device("cpu")
SMALL = apply_overrides(TINY, {"train.crop_size": 48, "train.batch_size": 2})
SMALLEST = ("tiny", "DeepLab tiny", "CAMs of tiny", "affinity network tiny")


def new_section() -> Section:
    """A section that has all the time."""
    return Section("name", "A title", 1, lambda *_: None)


def bench_of(out: Path, *words: str) -> Bench:
    """What is checked on the CPU."""
    given = command.parser().parse_args(["--device=cpu", "--small", f"--out={out}", *words])
    return command.bench_for(given)


def bench_with(*, small: bool = False, **speeds: Any) -> Bench:
    """What is checked, by default at full size, with these speeds and without pictures."""
    nothing: Any = None
    found = Bench(CPU, Path(), small, "paper", 8.0, {}, "pictures", *[nothing] * 3)
    return replace(found, **speeds)


def written(out: Path) -> tuple[dict[str, Any], str]:
    return json.loads((out / "gpu_check.json").read_text()), (out / "gpu_check.txt").read_text()


def is_of_the_smallest(case: Case) -> bool:
    *_, setting = case.name.split(", ")
    return setting == "views.reading=wrap" if "=" in setting else case.name.startswith(SMALLEST)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    """A whole check of the smallest networks."""
    out = tmp_path_factory.mktemp("check")
    bench = bench_of(out, "--minutes=20")
    cases = [case for case in all_cases(bench) if is_of_the_smallest(case)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(equality, "all_cases", lambda _: cases)
        return command.check(bench), *written(out)


# The whole of it


def test_a_cpu_checked_against_itself_passes_and_every_section_is_on_the_page(
    checked: tuple[int, dict[str, Any], str],
) -> None:
    code, numbers, text = checked
    verdicts = Counter(line["verdict"] for lines in numbers["lines"].values() for line in lines)
    assert code == 0
    assert not verdicts["FAIL"]
    sections = command.new_sections()
    assert list(numbers["sections"]) == [section.name for section in sections]
    for number, section in enumerate(sections, start=1):
        assert f"{number}. {section.title}\n" in text
    assert f"{number} of {number} sections" in text
    assert "out of time" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    words = " ".join(text.split())
    assert "made SMALLER: not the speed of that preset" in words
    assert "It is not a result, and cannot be compared" in words


def test_every_figure_that_was_measured_is_there(checked: tuple[int, dict[str, Any], str]) -> None:
    sections = checked[1]["sections"]
    differences = {d["case"]: d["largest"] for d in sections["equality"]["differences"]}
    assert {"tiny F3", "CAMs of tiny F3", "tiny F3, views.reading=wrap"} <= {*differences}
    assert max(differences.values()) < 1e-6
    steps = {(step["cell"], step["precision"]): step for step in sections["speed"]["steps"]}
    assert set(steps) == {(c, p) for c in ("B0", "F0", "F3") for p in ("fp32", "tf32", "bf16")}
    assert all(step["images_per_second"] > 0 for step in steps.values())
    assert [s["workers"] for s in sections["loading"]["loaded"]] == [0, 1, 2]
    assert [s["precision"] for s in sections["inference"]["inferred"]] == ["fp32", "tf32", "bf16"]
    assert [t["cell"] for t in sections["real_training"]["trainings"]] == ["B0", "F3"]
    assert all(0 < t["miou"] < 100 for t in sections["real_training"]["trainings"])
    assert sections["real_training"]["resumed"]["after"] >= 3
    assert sections["real_training"]["resumed"]["change"] == 0
    assert "hours" not in sections["projection"]  # small steps are not taken for the paper's


def test_a_section_that_breaks_is_a_fail_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    sections = [replace(new_section(), name="inference", measure=broken)]
    sections += [replace(new_section(), name="projection", measure=project)]
    monkeypatch.setattr(command, "new_sections", lambda: sections)
    assert command.check(bench_with(out=tmp_path)) == 1
    numbers, text = written(tmp_path)
    assert numbers["lines"]["inference"][0]["verdict"] == "FAIL"
    assert "CUDA error: an illegal memory access" in text
    assert "projection" in numbers["sections"]


# Wrong options


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = refused(capsys, f"--out={tmp_path}")
    assert "sees no GPU" in said
    assert "--device cpu --small" in said


def test_wrong_options_end_with_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save({"layer": torch.zeros(1)}, weights)
    for option, said in {
        "--minutes=nan": "--minutes",
        "--minutes=-1": "--minutes",
        f"--data={tmp_path}": "JPEGImages",
        f"--weights={weights}": "no weights of",
        "--weights=imagenet_v1": "give the file of the weights",
        "--preset=large": "invalid choice",
    }.items():
        assert said in refused(capsys, "--device=cpu", f"--out={tmp_path}", option)


def test_the_command_hands_its_options_over(tmp_path: Path) -> None:
    words = ("--device=cpu", "--small", "--weights=none", f"--data={tmp_path}")
    found = wsss("gpu-check", *words, "--out", tmp_path / "out")
    assert (found.exit_code, "JPEGImages" in found.output) == (2, True)


# It needs no more than it says

ALONE = """
import atexit, sys
atexit.register(lambda: print(*{name.split(".")[0] for name in sys.modules}))
from wsss.gpu_check.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
NOT_NEEDED = {"boto3", "matplotlib", "mlflow", "optuna", "pandas", "psutil", "ray"}
NOT_NEEDED |= {"rich", "scipy", "sqlalchemy", "statsmodels", "sweeps", "typer"}
"""What the rest of the project needs."""


def test_without_time_it_says_so_of_every_part_and_needs_no_more_than_torch_pydantic_and_pyyaml(
    tmp_path: Path,
) -> None:
    words = ["--device=cpu", "--small", "--minutes=0", f"--out={tmp_path}"]
    found = subprocess.run(
        [sys.executable, "-c", ALONE, *words], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    loaded = {*found.stdout.splitlines()[-1].split()}
    assert "torch" in loaded
    assert not loaded & NOT_NEEDED
    numbers, text = written(tmp_path)
    assert "Hours of the paper's tables" in text
    assert numbers["sections"]["equality"]["differences"] == []
    for section in ("equality", "speed", "loading", "inference", "real_training"):
        lines = numbers["lines"][section]
        assert any("not measured: out of time" in line["found"] for line in lines), section
    for name in ("F3 in bf16", "training of B0", "resumed within an epoch"):
        assert name in " ".join(text.split())


# Equality


def test_every_preset_cell_and_reading_is_among_the_cases() -> None:
    names = {case.name for case in all_cases(bench_with(small=True))}
    assert names >= {f"{preset} {cell}" for preset in PRESETS for cell in ("B0", "F0", "F3")}
    assert names >= {f"tiny F3, network.{part}=False" for part in PARTS}
    assert names >= {"DeepLab short", "DeepLab paper", "affinity network short", "CAMs of irn F3"}
    for reading in ("views.reading=wrap", "transfer.belongs=threshold", "network.affinity=softmax"):
        assert f"tiny F3, {reading}" in names
    for presets in (DEEPLAB_PRESETS, LABEL_PRESETS):
        assert all(one in [presets[name] for name in DISTINCT] for one in presets.values())


def test_cells_are_those_of_the_tables() -> None:
    assert CELLS == {"B0": {}, "F0": F0, "F3": F3}


def said_of(monkeypatch: pytest.MonkeyPatch, *cases: Case) -> tuple[list[Difference], Section]:
    """What the section finds and says about these cases."""
    section = new_section()
    monkeypatch.setattr(equality, "all_cases", lambda _: cases)
    check_equality(bench_with(), section)
    return section.numbers["differences"], section


@pytest.mark.parametrize(
    ("result", "factor"), [("gradient of classifier.weight", 1.01), ("optimiser's step", 0.0)]
)
def test_a_wrong_result_is_a_fail_that_names_the_tensor(
    result: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, calls = cam_case(SMALL, {}), []

    def wrong_on_the_device(*arguments: Any) -> Results:
        found = one_step(training, *arguments)
        calls.append(1)
        if len(calls) == 2:  # first the CPU, then the device, then the CPU with rounding
            found[result].mul_(factor)
        return found

    case = Case("tiny B0", training.build, wrong_on_the_device)
    (difference,), section = said_of(monkeypatch, case)
    assert difference.largest == pytest.approx(abs(factor - 1), rel=1e-3)
    assert 0 < difference.rounding < 1e-3
    (line,) = section.lines()
    assert line.verdict == "FAIL"
    assert result in line.found
    assert "  FAIL section 1, tiny B0: differs by " in render("cpu", "done", [section])


def test_a_difference_that_rounding_explains_is_no_fail_and_nan_is_one() -> None:
    one = Difference("case", 5e-3, "gradient of weight", rounding=1e-3)
    assert one.verdict == "LOOK"
    assert replace(one, rounding=1e-4).verdict == "FAIL"
    assert replace(one, largest=9e-4).verdict == "PASS"
    assert replace(one, largest=float("nan")).verdict == "FAIL"


def test_a_result_that_is_not_finite_counts_as_the_largest_difference() -> None:
    expected = {name: torch.ones(1) for name in ("loss", "gradient of weight")}
    found = expected | {"loss": torch.tensor([2.0])}
    assert furthest(found, expected) == (1.0, "loss")
    found["gradient of weight"] = torch.tensor([float("nan")])
    assert furthest(found, expected)[1] == "gradient of weight"


def test_a_gradient_that_is_zero_but_for_rounding_is_compared_with_the_largest() -> None:
    expected = {"gradient of weight": torch.ones(1), "gradient of bias": torch.tensor([1e-9])}
    found = expected | {"gradient of bias": torch.tensor([-1e-9])}
    assert furthest(found, expected)[0] < 1e-5


def test_what_rounding_would_explain_in_a_step_is_a_fail_in_maps() -> None:
    calls = []

    def compute(*_: Any) -> Results:
        calls.append(1)
        return {"maps": torch.tensor([1.0 + 0.002 * len(calls)])}

    case = Case("maps", torch.nn.Identity, compute, is_step=False)
    assert compare(case, CPU).verdict == "FAIL"
    assert compare(case._replace(is_step=True), CPU).verdict == "LOOK"


def test_a_case_that_ends_in_an_error_is_a_fail_and_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Any:
        raise RuntimeError("no kernel image")

    def compute(*_: Any) -> Results:
        return {"maps": torch.ones(1)}

    cases = [Case("first", broken, compute), Case("second", torch.nn.Identity, compute)]
    found, section = said_of(monkeypatch, *cases)
    assert [line.verdict for line in section.lines()] == ["FAIL", "PASS"]
    assert "no kernel image" in section.lines()[0].found
    assert [one.case for one in found] == ["second"]


def test_weights_are_recognised_by_their_backbone(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(mobilenet_v2().state_dict(), path)
    assert read_weights(path) == {"mobilenet_v2": (file_digest(path), path)}


# Speed, loading, resuming, hours


def test_a_step_without_memory_is_a_fail_that_says_what_to_change() -> None:
    def step_speed() -> StepSpeed:
        raise NoMemoryError("16 images do not fit the GPU's memory")

    section = new_section()
    assert section.part("F3 in tf32", step_speed, CANNOT_RUN) is None
    (line,) = section.lines()
    assert (line.verdict, line.found) == ("FAIL", "16 images do not fit the GPU's memory")
    assert "--micro-batch" in line.remedy
    judge_loading(bench_with(), 4, section)
    assert section.skipped == {"what the step needs": "no step, or no loader, was measured"}


@pytest.mark.parametrize(
    ("needed", "default", "expected"),
    [
        (100, 4, ("PASS", "the loader keeps up with this device: yes, with 4 worker(s)")),
        (100, 2, ("LOOK", "the loader keeps up with this device: yes, with 4 worker(s)")),
        (290, 4, ("LOOK", "the loader keeps up with this device: NO")),
    ],
)
def test_the_loader_is_held_against_the_fastest_step(
    needed: int, default: int, expected: tuple[str, str]
) -> None:
    steps = [StepSpeed("B0", "bf16", 16, 16, needed), StepSpeed("F3", "bf16", 16, 16, 9)]
    rates = {0: 40.0, 1: 45.0, 2: 90.0, 4: 170.0, 8: 300.0}
    loaded = [LoadingSpeed(workers, rate) for workers, rate in rates.items()]
    section = new_section()
    judge_loading(bench_with(steps=steps, loaded=loaded), default, section)
    (line,) = section.lines()
    assert (line.verdict, line.what) == expected
    if expected[0] == "LOOK" and needed == 100:
        assert line.remedy == "give --loader-workers 4"


def test_a_data_set_of_few_pictures_and_more_classes_than_vocs_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ("28", "29", "30")
    masks = {label: np.pad(np.full((30, 40), int(label)), 20) for label in ids}
    classes = [f"class {n}" for n in range(1, 31)]
    data = voc_tree(tmp_path, masks, {"train": ids}, classes=classes)
    bench = bench_of(data / "out", f"--data={data}")
    monkeypatch.setattr(speed, "WORKERS", (0,))
    for measure in (measure_loading, measure_inference, train_for_real):
        measure(bench, section := new_section())
        assert "FAIL" not in [line.verdict for line in section.lines()]
    assert [each.workers for each in bench.loaded] == [0]
    assert section.numbers["resumed"].after >= 3
    crops = CropDataset(bench.training, 30, SMALL.train, rng_seed=0)
    assert loading_rate(Loader(crops, 1), 0.2) > 0  # in that time, epoch after epoch


@pytest.mark.parametrize(
    ("resumed", "verdict"),
    [
        (Resumed(after=4, change=0.0, repeat=0.0), "PASS"),
        (Resumed(after=4, change=2e-6, repeat=1e-6), "PASS"),
        (Resumed(after=4, change=2e-6, repeat=0.0), "FAIL"),
        (Resumed(after=0, change=0.0, repeat=0.0), "FAIL"),
    ],
)
def test_a_resumed_training_may_differ_as_equal_ones_do_and_no_more(
    resumed: Resumed, verdict: str
) -> None:
    section = new_section()
    judge_resumed(resumed, section)
    assert [line.verdict for line in section.lines()] == [verdict]


def test_a_training_is_judged_by_its_loss_and_by_the_label_prior() -> None:
    def verdict(first: float, last: float, *, epochs: int = 8, small: bool = False) -> str:
        section = new_section()
        one = Trained("B0", epochs, 10.0, first, last, prior=0.2)
        judge_training(one, section, small=small)
        return section.lines()[0].verdict

    assert verdict(0.6, 0.1) == "PASS"
    assert verdict(0.6, 0.3) == "LOOK"
    assert verdict(0.6, 0.3, small=True) == "INFO"
    assert verdict(0.1, 0.15) == "LOOK"
    assert verdict(0.6, 0.1, epochs=1) == "SKIP"


def test_the_trainings_behind_the_hours_are_those_of_the_plan() -> None:
    plan = make_plan([TABLES[name] for name in ("III", "IV", "V", "VI")], PAPER, 1)
    found = Counter(
        (len(trial.config.views.names), sum(getattr(trial.config.network, part) for part in PARTS))
        for trial in plan.trials
    )
    assert dict(found) == TRAININGS
    assert len({trial.cam_id for trial in plan.trials}) == len(plan.trials)  # each scored once
    train, seeds = PAPER.train, NUM_SEEDS
    assert (train.epochs, train.batch_size, seeds) == (5, 16, 3)


def measured(*, loaded: float = 1600, small: bool = False) -> Bench:
    """A card on which B0 takes .1 s, F0 .2 and F3 .6, and which infers 10 images a second."""
    seconds = {"B0": 0.1, "F0": 0.2, "F3": 0.6}
    return bench_with(
        small=small,
        steps=[StepSpeed(cell, "tf32", 16, 16, 16 / taken) for cell, taken in seconds.items()],
        inferred=[InferenceSpeed("tf32", 8, 10.0, 0.0)],
        loaded=[LoadingSpeed(4, loaded)],
    )


def test_the_hours_of_the_tables_are_those_of_a_calculation_by_hand() -> None:
    found, slow = (hours_of_tables(measured(loaded=rate), "tf32") for rate in (1600, 20))
    steps = 3 * 5 * 661
    training = steps * (1 * 0.1 + 6 * 0.2 + 2 * 0.4 + 16 * 0.6)  # one view less is .2 s less
    assert found.training == pytest.approx(training / 3600)
    assert found.inference == pytest.approx(3 * 25 * 1464 / 10 / 3600)
    assert slow.training == pytest.approx(steps * 25 * 0.8 / 3600)  # .8 s to load a batch
    assert (found.bound_by_loading, slow.bound_by_loading) == (False, True)
    assert hours_of_tables(measured(), "bf16") is None


def test_hours_are_projected_in_what_was_measured_but_not_from_small_steps() -> None:
    full, small = new_section(), new_section()
    project(measured(), full)
    project(measured(small=True), small)
    assert [one.precision for one in full.numbers["hours"]] == ["tf32"]
    assert "hours in bf16" in full.skipped
    assert "hours" not in small.numbers
    assert small.skipped


def test_the_page_ends_a_list_of_skipped_parts_and_names_why() -> None:
    section = replace(new_section(), end=time.monotonic())
    assert all(section.is_late(f"case {n}") for n in range(20))
    (line,) = section.lines()
    assert line.what.endswith("case 11 and 8 more")
    assert line.remedy == "give more --minutes"
