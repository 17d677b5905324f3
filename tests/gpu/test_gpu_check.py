"""The check of a GPU, tried on the CPU against itself: its page, its verdicts, its promises."""

import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from sweeps.cli.method import app
from sweeps.plan.trials import make_plan
from sweeps.tables.studies import F0, F3, TABLES
from wsss.gpu_check import __main__ as command
from wsss.gpu_check import equality, page, speed
from wsss.gpu_check.equality import Difference, all_cases, cam_cells, compare_steps
from wsss.gpu_check.page import Deadline, Options, Section
from wsss.gpu_check.real_training import Resumed, Trained, judge_resumed, judge_training
from wsss.gpu_check.speed import (
    InferenceSpeed,
    Speeds,
    StepSpeed,
    judge_loading,
    judge_steps,
    project,
    waits_of,
)
from wsss.gpu_check.subjects import CELLS, PARTS, Weights, cam_subject, read_weights
from wsss.overrides import apply_overrides
from wsss.presets import PAPER, PRESETS, TINY

REPO = Path(__file__).parents[2]
CPU = torch.device("cpu")
SMALL = apply_overrides(TINY, {"train.crop_size": 48, "train.batch_size": 2})


def new_section() -> Section:
    """A section that has a minute."""
    return Section(Deadline(60))


def check(out: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    """Run the check on the CPU; return its exit code, its numbers and its page."""
    code = command.main(["--device=cpu", "--small", f"--out={out}", *words])
    return code, *written(out)


def shortened(measure: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: measure(*given[:-1], 0.1)


def written(out: Path) -> tuple[dict[str, Any], str]:
    return json.loads((out / "gpu_check.json").read_text()), (out / "gpu_check.txt").read_text()


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    """A whole check of the smallest networks."""
    with pytest.MonkeyPatch.context() as patch:
        for presets in ("PRESETS", "DEEPLAB_PRESETS", "LABEL_PRESETS"):
            patch.setattr(equality, presets, {"tiny": getattr(equality, presets)["tiny"]})
        patch.setattr(equality, "readings", lambda config: [("reading", {"views.reading": "wrap"})])
        for measure in ("measured_step", "loading_rate"):  # their last argument: for how long
            patch.setattr(speed, measure, shortened(getattr(speed, measure)))
        return check(tmp_path_factory.mktemp("check"), "--minutes=20")


# The whole of it


def test_a_cpu_checked_against_itself_passes_and_every_section_is_on_the_page(
    checked: tuple[int, dict[str, Any], str],
) -> None:
    code, numbers, text = checked
    verdicts = Counter(line["verdict"] for lines in numbers["lines"].values() for line in lines)
    assert code == 0
    assert not verdicts["FAIL"]
    assert list(numbers["sections"]) == list(page.TITLES) == list(command.SHARES)
    for number, (title, _) in enumerate(page.TITLES.values(), start=1):
        assert f"{number}. {title}\n" in text
    assert "out of time" not in text
    assert max(map(len, text.splitlines())) <= page.WIDTH


def test_all_differences_of_equal_computations_are_nearly_zero(
    checked: tuple[int, dict[str, Any], str],
) -> None:
    found = checked[1]["sections"]["equality"]["differences"]
    assert {d["case"] for d in found} >= {
        "tiny F3",
        "PAMR",
        "DeepLab tiny",
        "CAMs of tiny F3",
        "affinity network tiny",
        "tiny F3, reading",
    }
    for one in found:
        assert one["loss"] < 1e-6
        if one["tensor"]:
            assert max(one["gradient"], one["update"]) < 1e-5


def test_every_figure_that_was_measured_is_there(checked: tuple[int, dict[str, Any], str]) -> None:
    sections = checked[1]["sections"]
    steps = {(step["cell"], step["precision"]): step for step in sections["speed"]["steps"]}
    assert set(steps) == {(c, p) for c in ("B0", "F0", "F3") for p in ("fp32", "tf32", "bf16")}
    assert all(step["seconds"] > 0 and not step["failure"] for step in steps.values())
    assert set(sections["loading"]["rates"]) == {"0", "1", "2"}
    assert [s["precision"] for s in sections["inference"]["speeds"]] == ["fp32", "tf32", "bf16"]
    assert [t["cell"] for t in sections["real_training"]["trainings"]] == ["B0", "F3"]
    assert all(0 < t["miou"] < 100 for t in sections["real_training"]["trainings"])
    assert sections["real_training"]["resumed"]["after"] >= 3
    assert sections["real_training"]["resumed"]["change"] == 0


def test_what_a_small_check_measures_is_not_taken_for_the_papers(
    checked: tuple[int, dict[str, Any], str],
) -> None:
    _, numbers, text = checked
    words = " ".join(text.split())
    assert "made SMALLER: not the speed of that preset" in words
    assert "It is not a result, and cannot be compared" in words
    assert numbers["sections"]["projection"]["hours"] == {}


def test_a_section_that_breaks_is_a_fail_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setattr(command, "measure_inference", broken)
    code, numbers, text = check(tmp_path, "--minutes=0")
    assert code == 1
    assert numbers["lines"]["inference"][0]["verdict"] == "FAIL"
    assert "CUDA error: an illegal memory access" in text
    assert "projection" in numbers["sections"]


# Wrong options


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_without_a_gpu_it_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refused(capsys, f"--out={tmp_path}")
    assert said.startswith("error: ")
    assert "sees no GPU" in said
    assert "--device cpu --small" in said


def test_wrong_options_end_with_two(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    on_cpu = ("--device=cpu", f"--out={tmp_path}")
    assert "JPEGImages" in refused(capsys, *on_cpu, f"--data={tmp_path}")
    weights = tmp_path / "weights.pt"
    torch.save({"layer": torch.zeros(1)}, weights)
    assert "no weights of" in refused(capsys, *on_cpu, f"--weights={weights}")
    assert "invalid choice" in refused(capsys, *on_cpu, "--preset=large")


def test_the_command_hands_its_options_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(command, "main", lambda words: given.extend(words) or 1)
    found = CliRunner().invoke(app, ["gpu-check", "--device", "cpu", "--small", "--data", "here"])
    assert found.exit_code == 1, found.output
    options = command.parser().parse_args(given)
    assert (options.device, options.small, options.data) == ("cpu", True, Path("here"))
    assert (options.minutes, options.out, options.preset) == (8.0, Path("gpu-check"), None)


# It needs no more than it says

ALONE = """
import sys
from importlib.util import spec_from_loader
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from packaging.requirements import Requirement

def closure(names):
    found, todo = set(), list(names)
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            wanted = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
        todo += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found

allowed = closure(["torch", "torchvision", "numpy", "pillow", "pydantic", "pyyaml"])
of = packages_distributions()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        owners = {owner.lower().replace("_", "-") for owner in of.get(top, ())}
        if top not in ("wsss", *sys.stdlib_module_names) and owners and not owners & allowed:
            return spec_from_loader(name, self)  # torch asks where packages are; none is loaded

    def create_module(self, spec):
        raise ModuleNotFoundError(f"refused: {spec.name}")

    def exec_module(self, module):
        pass

for name in [name for name in sys.modules if name.split(".")[0] == "packaging"]:
    del sys.modules[name]
sys.meta_path.insert(0, Refuse())
try:
    import typer
except ModuleNotFoundError:
    from wsss.gpu_check.__main__ import main
    sys.exit(main(sys.argv[1:]))
"""


def test_without_time_it_says_so_of_every_part_and_needs_no_more_than_torch_pydantic_and_pyyaml(
    tmp_path: Path,
) -> None:
    words = ["--device=cpu", "--small", "--minutes=0", f"--out={tmp_path}"]
    found = subprocess.run(
        [sys.executable, "-c", ALONE, *words], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    numbers, text = written(tmp_path)
    assert "Hours of the paper's tables" in text
    assert numbers["sections"]["equality"]["differences"] == []
    for section in ("equality", "speed", "loading", "inference", "real_training"):
        lines = numbers["lines"][section]
        assert any("not measured: out of time" in line["found"] for line in lines), section
    for name in ("F3 in bf16", "training of B0", "fp32, 1 at once", "resumed within an epoch"):
        assert name in " ".join(text.split())


# Equality


def test_every_preset_part_view_and_reading_is_among_the_cases() -> None:
    names = {name for name, _ in all_cases(Options(CPU, Path(), small=True), Weights())}
    cells = {"B0", "F0", "F3", "both views, no part", "enhanced view", "decreased view", *PARTS}
    assert cells == set(cam_cells())
    assert names >= {f"{preset} {cell}" for preset in PRESETS for cell in cells}
    assert names >= {"DeepLab short", "DeepLab paper", "affinity network short", "CAMs of irn F3"}
    for reading in ("views.reading=wrap", "transfer.belongs=threshold", "network.affinity=softmax"):
        assert f"tiny F3, {reading}" in names


def test_cells_are_those_of_the_tables() -> None:
    assert CELLS == {"B0": {}, "F0": F0, "F3": F3}


def test_a_wrong_gradient_is_a_fail_that_names_the_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = equality.one_step, []

    def wrong_on_the_device(*arguments: Any) -> equality.Taken:
        taken = real(*arguments)
        calls.append(1)
        if len(calls) == 2:  # first the CPU, then the device, then the CPU with rounding
            taken.gradients["classifier.weight"] *= 1.01
        return taken

    monkeypatch.setattr(equality, "one_step", wrong_on_the_device)
    difference, _ = compare_steps("tiny B0", cam_subject(SMALL, Weights()), CPU)
    assert difference.verdict == "FAIL"
    assert difference.gradient == pytest.approx(0.01, rel=1e-3)
    assert 0 < difference.rounding < 1e-3
    section = new_section()
    equality.judge([difference], section)
    (line,) = section.lines()
    assert line.verdict == "FAIL"
    assert "gradient of classifier.weight" in line.found
    text = page.render(Options(CPU, Path()), {"equality": section}, 1.0)
    assert "  FAIL section 2, tiny B0: differs by 1.0e-02" in text


def test_a_step_of_the_optimiser_that_does_not_happen_is_a_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = torch.optim.SGD.step, []

    def only_the_first(self: torch.optim.SGD, *arguments: Any) -> Any:
        calls.append(1)
        return real(self, *arguments) if len(calls) != 2 else None

    monkeypatch.setattr(torch.optim.SGD, "step", only_the_first)
    difference, _ = compare_steps("tiny B0", cam_subject(SMALL, Weights()), CPU)
    assert difference.update == pytest.approx(1)
    assert difference.verdict == "FAIL"


def test_a_difference_that_rounding_explains_is_no_fail_and_nan_is_one() -> None:
    one = Difference("case", 1e-5, 5e-3, "weight", 1e-6, rounding=1e-3)
    assert one.verdict == "LOOK"
    assert replace(one, rounding=1e-4).verdict == "FAIL"
    assert replace(one, gradient=9e-4).verdict == "PASS"
    assert replace(one, loss=float("nan")).verdict == "FAIL"


def test_a_case_that_ends_in_an_error_is_a_fail_and_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> equality.Answer:
        raise RuntimeError("no kernel image")

    cases = [("first", broken), ("second", lambda: (Difference("second", 0.0, 0.0, "w", 0.0), []))]
    monkeypatch.setattr(equality, "all_cases", lambda *_: cases)
    section = new_section()
    found = equality.check_equality(Options(CPU, Path()), Weights(), section)
    assert [d.verdict for d in found] == ["FAIL", "PASS"]
    assert "no kernel image" in next(x.found for x in section.lines() if x.verdict == "FAIL")


def test_weights_are_recognised_by_their_backbone(shared_weights: Path) -> None:
    found = read_weights(shared_weights)
    assert found.backbone == "mobilenet_v2"
    assert found.of("mobilenet_v2") == (found.name, shared_weights)
    assert found.of("resnet50") == ("none", None)


# Speed, loading, resuming, hours


def test_waiting_for_the_gpu_is_found_where_it_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    mode = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda new: mode.__setitem__(0, new))

    def waits() -> None:
        if mode[0] == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        elif mode[0] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    places = waits_of(waits)
    assert all(place.startswith("tests/gpu/test_gpu_check.py:") for place in places)
    assert len(places) == 2
    assert waits_of(lambda: None) == []
    assert mode == ["default"]
    section = new_section()
    judge_steps(Speeds(full_size=True, waits={"F3": places}), section, on_gpu=True)
    (line,) = section.lines()
    assert line.verdict == "LOOK"
    assert places[0] in line.found


def test_a_step_without_memory_is_a_fail_that_says_what_to_change() -> None:
    failed = StepSpeed("F3", "tf32", 16, failure="16 images do not fit the GPU's memory")
    speeds, section = Speeds(full_size=True, steps=[failed]), new_section()
    judge_steps(speeds, section, on_gpu=True)
    (line,) = section.lines()
    assert line.verdict == "FAIL"
    assert "do not fit" in line.found
    assert "--micro-batch" in line.remedy
    judge_loading(speeds, 4, section)
    assert section.skipped == {"what the step needs": "no step was measured"}


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
    steps = [StepSpeed("B0", "bf16", needed, seconds=1.0), StepSpeed("F3", "bf16", 9, seconds=1.0)]
    loaded = {0: 40.0, 1: 45.0, 2: 90.0, 4: 170.0, 8: 300.0}
    section = new_section()
    judge_loading(Speeds(full_size=True, steps=steps, loaded=loaded), default, section)
    (line,) = section.lines()
    assert (line.verdict, line.what) == expected
    if expected[0] == "LOOK" and needed == 100:
        assert line.remedy == "give --loader-workers 4"


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
    def verdict(first: float, last: float, *, small: bool = False) -> str:
        section = new_section()
        one = Trained("B0", 100, 10.0, first, last, prior=0.2)
        judge_training(one, section, small=small, source="pictures")
        return section.lines()[0].verdict

    assert verdict(0.6, 0.1) == "PASS"
    assert verdict(0.6, 0.3) == "LOOK"
    assert verdict(0.6, 0.3, small=True) == "INFO"
    assert verdict(0.1, 0.15) == "LOOK"


def test_the_trainings_behind_the_hours_are_those_of_the_plan() -> None:
    plan = make_plan([TABLES[name] for name in ("III", "IV", "V", "VI")], PAPER, 1)
    found = Counter(
        (len(trial.config.views.names), sum(getattr(trial.config.network, part) for part in PARTS))
        for trial in plan.trials
    )
    assert dict(found) == speed.TRAININGS
    assert len({trial.cam_id for trial in plan.trials}) == len(plan.trials)  # each scored once
    train, seeds = PAPER.train, speed.NUM_SEEDS
    assert (train.epochs, train.batch_size, seeds) == (5, 16, 3)


def measured() -> Speeds:
    """A card on which B0 takes .1 s, F0 .2 and F3 .6, and which infers 10 images a second."""
    steps = [
        StepSpeed(cell, "tf32", 16, 16, seconds)
        for cell, seconds in (("B0", 0.1), ("F0", 0.2), ("F3", 0.6))
    ]
    inferred = [InferenceSpeed("tf32", 8, 10.0, 0.0, 0.0)]
    return Speeds(full_size=True, steps=steps, loaded={4: 1600.0}, inferred=inferred)


def test_the_hours_of_the_tables_are_those_of_a_calculation_by_hand() -> None:
    section = new_section()
    found = project(measured(), section)
    steps = 5 * 661
    training = steps * (1 * 0.1 + 6 * 0.2 + 2 * 0.4 + 16 * 0.6)  # one view less is .2 s less
    assert set(found) == {"tf32"}
    assert found["tf32"].training == pytest.approx(3 * training / 3600)
    assert found["tf32"].inference == pytest.approx(3 * 25 * 1464 / 10 / 3600)
    assert not found["tf32"].bound_by_loading
    assert "hours in bf16" in section.skipped


def test_slow_loading_is_part_of_the_hours() -> None:
    found = project(replace(measured(), loaded={4: 20.0}), new_section())["tf32"]  # .8 s a batch
    assert found.bound_by_loading
    assert found.training == pytest.approx(3 * 5 * 661 * 25 * 0.8 / 3600)


def test_nothing_is_projected_from_small_steps() -> None:
    section = new_section()
    assert project(replace(measured(), full_size=False), section) == {}
    assert section.lines()[0].verdict == "SKIP"


def test_the_page_ends_a_list_of_skipped_parts_and_names_why() -> None:
    section = Section(Deadline(0))
    assert all(section.is_late(f"case {n}") for n in range(20))
    (line,) = section.lines()
    assert line.what.endswith("case 11 and 8 more")
    assert line.remedy == "give more --minutes"
