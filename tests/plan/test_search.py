"""What a search draws, what it judges by, and that judging does not disturb the training."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import sweeps
from made_up.planned import KEY, SEARCH
from made_up.planned import search_trial as trial

from sweeps.plan.search import (
    DEFAULT_SPACE,
    History,
    Range,
    Search,
    SearchTrial,
    best_trials,
    make_search,
    parse_space,
    ranking,
    split_halves,
)
from sweeps.plan.sweep import BaseOptions
from sweeps.report.search import search_document, write_search
from sweeps.run.subjects.search import Closing, Draws
from sweeps.stages.stage import Place
from sweeps.stages.trial import search_trial
from sweeps.store.errors import StoreError
from sweeps.store.failures import ErrorNote
from sweeps.store.store import Store
from sweeps.tables.studies import F3
from wsss.config import RunConfig
from wsss.data.errors import DataError
from wsss.data.voc import VocDataset
from wsss.evaluation.confusion import ThresholdCounts, mean_iou, threshold_index
from wsss.evaluation.counting import collected, count_each
from wsss.identity import cam_id, run_id
from wsss.labels.infer import infer_cams
from wsss.overrides import ConfigError, apply_overrides
from wsss.presets import TINY
from wsss.training.cam import build_cam_net, train_cam
from wsss.training.checkpoint import CheckpointFolder
from wsss.training.process import Process


@pytest.fixture(scope="module")
def full(small: RunConfig) -> RunConfig:
    """The small configuration with the full module and both views."""
    return apply_overrides(small, F3)


Task = tuple[RunConfig, str, Place]


def task_of(config: RunConfig, data: Path, store: Path, objective: str = "best") -> Task:
    return config, objective, Place(Store(store), data, rank=Process())


def planned(data: Path, *words: str, **options: Any) -> Search:
    overrides = {"train.epochs": 9, **options.pop("overrides", {})}
    search, _ = make_search(
        parse_space(words), BaseOptions("tiny", data, settings=overrides), **options
    )
    return search


def test_a_range_is_read_with_its_bounds_and_scale() -> None:
    space = parse_space(["transfer.lambda_s=0.05:2:log", " views.beta_decreased = -150:300 "])
    assert space == (
        Range("transfer.lambda_s", 0.05, 2.0, log=True),
        Range("views.beta_decreased", -150.0, 300.0, log=False),
    )
    assert parse_space([str(r) for r in DEFAULT_SPACE]) == DEFAULT_SPACE
    (fine,) = parse_space(["views.beta_enhanced=0.12345678:1234567"])
    assert parse_space([str(fine)]) == (fine,) == (Range("views.beta_enhanced", 0.123457, 1234570),)


@pytest.mark.parametrize(
    "words",
    [
        *(["transfer.lambda_s"], ["transfer.lambda_s=1"], ["transfer.lambda_s=1:2:3:4"]),
        *(["transfer.lambda_s=1:2:ln"], ["transfer.lambda_s=a:2"], ["transfer.lambda_s=0:inf"]),
        *(["transfer.lambda_s=2:1"], ["transfer.lambda_s=1.0000001:1.0000002"]),
        *(["transfer.lambda_s=0:2:log"], ["train.lr=0.1:1", "train.lr=0.2:1"]),
    ],
)
def test_a_wrong_range_is_refused_with_rule_and_remedy(words: list[str]) -> None:
    rule = "twice; give one range" if len(words) > 1 else "a low below the high, .*; write it as"
    with pytest.raises(ConfigError, match=f"--space .*{rule}"):
        parse_space(words)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("transfer.lamda_s=0:1", "did you mean transfer.lambda_s?"),
        ("train.epochs=1:5", "train.epochs = 1.0: must be a valid integer"),
        ("views.enhanced=0:1", "views.enhanced is not a real number"),
        ("transfer.belongs_score=0.5:1.5", "transfer.belongs_score = 1.5"),
        ("labels.background_score=0.1:0.2", "has no effect on this training"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused_before_data_are_read(
    word: str, named: str
) -> None:
    with pytest.raises(ConfigError, match=f"--space .*{re.escape(named)}"):
        planned(Path("/nowhere"), word)


def test_drawn_values_are_rounded_to_four_digits_within_their_bounds() -> None:
    ranges = Range("a", 0.05, 2.0), Range("b", -150.0, 300.0), Range("c", 0, 1.23456)
    for drawn, rounded in (
        ((0.12345678, -0.00001, 1.23455), [0.1235, -0.00001, 1.23456]),
        ((1, 123.456, 0.5), [1.0, 123.5, 0.5]),
    ):
        assert [r.round(value) for r, value in zip(ranges, drawn, strict=True)] == rounded


def test_the_default_space_holds_the_papers_setting(drawn: Path) -> None:
    search = planned(drawn)
    flat = search.base.flat()
    assert all(r.low <= flat[r.key] <= r.high for r in search.space)
    assert search.base.views.names == ("enhanced", "decreased")
    assert search.base.network.multi_scale_atrous
    assert search.config({}) == search.base


def test_an_image_is_in_the_half_that_its_hash_says() -> None:
    # Parity of the first byte of `printf wsss-search:<id> | sha256sum`: 2f, d4, 90, ff, 6a.
    ids = ["2007_000032", "2007_000033", "2007_000039", "2008_000008", "2011_003276"]
    halves = split_halves(ids)
    assert halves.search == ["2007_000033", "2007_000039", "2011_003276"]
    assert halves.held_out == ["2007_000032", "2008_000008"]
    assert split_halves(ids[1:]).search == halves.search


def test_equal_searches_have_one_name_and_others_another(drawn: Path) -> None:
    first = planned(drawn)
    assert first.name == planned(drawn).name
    others = [
        planned(drawn, rng_seed=1),
        planned(drawn, objective="fixed"),
        planned(drawn, "train.lr=0.1:0.3"),
        planned(drawn, overrides={"train.lr": 0.3}),
    ]
    assert len({first.name, *(other.name for other in others)}) == 5


def test_a_half_without_an_image_is_refused(drawn: Path, tmp_path: Path) -> None:
    data = tmp_path / "voc"
    shutil.copytree(drawn, data)
    kept = VocDataset(data).image_ids("train")[:1]
    (data / "ImageSets/Segmentation/train.txt").write_text(kept[0] + "\n")
    with pytest.raises(ConfigError, match="give more images"):
        planned(data)


Whole = tuple[Path, list[dict[str, float]]]


@pytest.fixture(scope="module")
def whole(drawn: Path, full: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A store with a trial that was not interrupted, and its records."""
    root = tmp_path_factory.mktemp("whole")
    return root, list(search_trial(*task_of(full, drawn, root)))


def test_judging_a_training_leaves_it_as_it_would_be_without(
    drawn: Path, full: RunConfig, whole: Whole
) -> None:
    dataset = VocDataset(drawn)
    samples, num_classes = dataset.samples("train_aug"), len(dataset.classes)
    plain = build_cam_net(full, samples, num_classes)
    records = list(train_cam(plain, full, samples))
    cam = Store(whole[0]).cam(cam_id(full))
    assert [record["epoch"] for record in whole[1]] == [1, 2, 3]
    assert [e["step_losses"] for e in cam.epochs()] == [record.step_losses for record in records]
    assert len({loss for record in records for loss in record.step_losses}) > 6
    restored = build_cam_net(full, samples, num_classes)
    assert CheckpointFolder(cam.checkpoints).restore(restored).epoch == 3
    for name, value in plain.state_dict().items():
        assert torch.equal(value, restored.state_dict()[name]), name
    trained = cam.result()
    assert trained["epochs"] == 3


def test_an_interrupted_trial_goes_on_and_a_finished_one_is_only_judged(
    drawn: Path, full: RunConfig, whole: Whole, tmp_path: Path
) -> None:
    task = task_of(full, drawn, tmp_path)
    begun = search_trial(*task)
    seen = [next(begun), next(begun)]
    begun.close()
    seen += list(search_trial(*task))
    # The checkpoint of the epoch that was just reported is written with the next: it is repeated.
    assert [record["epoch"] for record in seen] == [1, 2, 2, 3]
    assert [*seen[:2], seen[3]] == whole[1]
    assert list(search_trial(*task)) == whole[1][-1:]


def test_the_search_never_reads_a_mask_of_the_held_out_half(
    drawn: Path, full: RunConfig, tmp_path: Path
) -> None:
    data = tmp_path / "voc"
    shutil.copytree(drawn, data)
    halves = split_halves(VocDataset(data).image_ids("train"))
    for image_id in halves.held_out:
        assert (data / "Annotations" / f"{image_id}.xml").exists()  # labels need no mask
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (data / folder / f"{image_id}.png").unlink(missing_ok=True)
    task = task_of(apply_overrides(full, {"train.epochs": 1}), data, tmp_path / "store")
    assert len(list(search_trial(*task))) == 1
    with pytest.raises(DataError, match=r"\.png: no mask"):
        list(search_trial(*task, held_out=True))


def test_objective_and_held_out_score_are_those_of_the_halves(
    drawn: Path, full: RunConfig, tmp_path: Path
) -> None:
    config = apply_overrides(full, {"train.epochs": 1})
    found = {
        objective: next(
            iter(search_trial(*task_of(config, drawn, tmp_path, objective), held_out=True))
        )
        for objective in ("best", "fixed")
    }
    dataset = VocDataset(drawn)
    samples = dataset.samples("train_aug")
    model = build_cam_net(config, samples, len(dataset.classes))
    CheckpointFolder(Store(tmp_path).cam(cam_id(config)).checkpoints).restore(model)
    halves = split_halves(dataset.image_ids("train"))

    def counts(ids: list[str]) -> ThresholdCounts:
        samples = [dataset.sample(image_id) for image_id in ids]
        cams = infer_cams(model, samples, config.labels, device=torch.device("cpu"))
        return collected(count_each(cams, dataset, config.labels), dataset, config.labels)

    def miou(counted: ThresholdCounts, threshold: float) -> float:
        at = threshold_index(counted.thresholds, threshold)
        return 100 * float(mean_iou(counted.confusions()[at]))

    searched, held_out = map(counts, halves)
    best = max(np.arange(5, 81) / 100, key=lambda threshold: miou(searched, threshold))
    for objective, at in (("best", best), ("fixed", 0.15)):
        record = found[objective]
        assert record["threshold"] == pytest.approx(at)
        assert record["objective"] == pytest.approx(miou(searched, at))
        assert record["held_out"] == pytest.approx(miou(held_out, at))


def test_a_finished_trial_ranks_before_a_stopped_one_with_a_higher_score() -> None:
    trials = [
        trial(0, "stopped", 60.0, 65.0),  # an epoch more than trial 4
        trial(1, "finished", 20.0, 30.0),
        trial(2, "diverged", 50.0),
        trial(3, "finished", 50.0, 40.0),
        trial(4, "stopped", 70.0),
        trial(5, "running"),
    ]
    assert [t.number for t in ranking(trials)] == [3, 1, 0, 4, 2]
    assert [t.number for t in best_trials(trials, 3)] == [3, 1]
    assert trials[2].objective == 0.0


def test_history_is_kept_as_written_and_refused_when_damaged(store: Store) -> None:
    history = History(SEARCH, store)
    assert history.trials() == []
    trials = [trial(0, "finished", 20.0, 30.0), trial(1, "running", 10.0)]
    for each in reversed(trials):
        history.save(each)
    assert history.trials() == trials
    assert history.missing(3) == 2
    row = {"objective": 30.0, "threshold": 0.3, "held_out": 29.0}
    history.add_held_out(trials[0].cam_id, row | {"pid": 1})
    assert history.held_out() == {trials[0].cam_id: row}
    assert history.missing_held_out() == {cam_id(SEARCH.base): {}}
    trial_1 = history.folder / "trials" / "0001.json"
    whole = trial_1.read_text()
    for broken in ('{"number": 0', '{"number": 0, "other": 1}', whole.replace("10.0", "-1.0")):
        trial_1.write_text(broken)
        with pytest.raises(StoreError, match=r"0001\.json: .*delete the file to draw another"):
            history.trials()
    shutil.copy(trial_1.with_name("0000.json"), trial_1)
    with pytest.raises(StoreError, match=r"0001\.json: holds no record .*delete the file to draw"):
        history.trials()


def test_the_report_draws_what_the_settings_of_finished_trials_do(
    drawn: Path, store: Store
) -> None:
    search = planned(drawn, "transfer.lambda_s=0.1:1")
    history = History(search, store)
    for number in range(6):
        share = 0.1 * (number + 1)
        history.save(trial(number, "finished", 20.0 + number, settings={KEY: share}))
    history.save(trial(6, "stopped", 50.0, settings={KEY: 0.9}))
    page = write_search(search, store)
    base, *rows = csv.DictReader(page.with_suffix(".csv").read_text().splitlines())
    page = page.read_text()
    assert "rank correlation over 6 finished trials" in page
    assert page.count("data:image/svg+xml") == 1
    assert (base["trial"], base["status"], float(base[KEY])) == ("base", "missing", 0.5)
    assert [row["status"] for row in rows] == ["finished"] * 6 + ["stopped"]
    assert [float(row["search_half_miou"]) for row in rows[:2]] == [20.0, 21.0]
    assert "the held-out half is not scored yet" in page
    assert "the settings of the preset and of --set" in page


@pytest.mark.parametrize("training_seed", [0, 7])
def test_the_answer_weighs_the_best_draw_and_its_command_plans_it_beside_the_base(
    training_seed: int, drawn: Path, store: Store
) -> None:
    search = planned(drawn, "transfer.lambda_s=0.1:1")
    base = apply_overrides(search.base, {"rng_seed": training_seed})
    search = search.model_copy(update={"base": base})
    history = History(search, store)
    draws = {KEY: 0.25}, {KEY: 0.75}
    for number, settings in enumerate(draws):
        best = cam_id(search.config(settings))
        known = trial(number, "finished", 20.0 + number, settings=settings)
        history.save(replace(known, cam_id=best))
    for cam, held_out in ((best, 22.5), (cam_id(search.base), 21.25)):
        history.add_held_out(cam, {"objective": 20.0, "threshold": 0.3, "held_out": held_out})
    write_search(search, store)
    row, *_ = search_document(search, store).records.rows
    assert row[:5] == ("base", "finished", search.base.train.epochs, 20.0, 21.25)
    answer = search_document(search, store).head[0]
    assert "trial 1 is the best on the search half with 21.00" in answer.answer
    assert "it has 22.50, +1.25 from the base's 21.25" in answer.answer
    words = answer.command[answer.command.index("--table") :]
    plan = sweeps("plan", *shlex.split(words), "--json")
    assert plan.exit_code == 0, plan.output
    trials = json.loads(plan.stdout)["trials"]
    assert [t["seed"] for t in trials] == [0, 0, 1, 1, 2, 2]
    as_table = {"labels.scales": TINY.labels.scales, "labels.flip": TINY.labels.flip}
    for found, cell, settings in zip(trials, ("base", "trial 1"), ({}, draws[1]), strict=False):
        config = apply_overrides(base, settings | as_table | {"rng_seed": 0})
        assert (found["cells"], found["run_id"]) == ([f"best-draw[{cell}]"], run_id(config))


# What is drawn and stopped


def value(settings: dict[str, float], epoch: int) -> float:
    """What a made-up training of these settings comes to."""
    far = abs(settings["transfer.lambda_s"] - 0.5) + abs(settings["views.alpha_enhanced"] - 1.3)
    return 60 - 20 * far + epoch


class MadeUpSearch:
    """Plays the driver of a search whose trainings are made up; may be killed at any report."""

    def __init__(self, search: Search, root: Path, samples: int) -> None:
        self.search, self.store, self.samples = search, Store(root), samples
        self.history = History(search, self.store)
        self.draws = self.started()

    def started(self) -> Draws:
        return Draws(self.search, self.store, self.samples, lambda trial: None)

    def run(self, killed: frozenset[int] = frozenset()) -> list[SearchTrial]:
        """Run one trial after the other; at these reports the driver is killed and starts anew."""
        reports = 0
        while isinstance(found := self.draws.next(), SearchTrial):
            # After a kill, the epoch that was reported last is trained and reported again.
            for epoch in range(max(1, found.last_epoch), self.search.base.train.epochs + 1):
                reports += 1
                is_over = self.draws.reported(found, record_of(found.settings, epoch))
                if reports in killed:
                    self.draws = self.started()
                if is_over or reports in killed:
                    break
        return self.history.trials()


def record_of(settings: dict[str, float], epoch: int) -> dict[str, float]:
    return {"epoch": float(epoch), "objective": value(settings, epoch), "threshold": 0.3}


@pytest.fixture(scope="module")
def two_ranges(drawn: Path) -> Search:
    """A search over two settings; 9 epochs, so the rungs are at 2, which is 20 %, and at 6."""
    return planned(drawn, "transfer.lambda_s=0.05:2:log", "views.alpha_enhanced=1:2")


def test_a_search_killed_again_and_again_draws_and_stops_as_one_that_never_was(
    two_ranges: Search, tmp_path: Path
) -> None:
    whole = MadeUpSearch(two_ranges, tmp_path / "whole", 16).run()
    kills = frozenset({1, 3, 9, 20, 21, 33, 47, 60})
    assert MadeUpSearch(two_ranges, tmp_path / "broken", 16).run(kills) == whole
    assert {known.status for known in whole} == {"finished", "stopped"}
    assert {known.last_epoch for known in whole if known.status == "stopped"} == {2, 6}
    assert len({tuple(known.settings.values()) for known in whole}) == 16


def test_a_larger_search_goes_on_where_the_smaller_one_ended(
    two_ranges: Search, tmp_path: Path
) -> None:
    whole = MadeUpSearch(two_ranges, tmp_path / "whole", 8).run()
    smaller = MadeUpSearch(two_ranges, tmp_path / "extended", 5)
    assert smaller.run() == whole[:5]
    best = max(whole[:5], key=lambda known: (known.status == "finished", known.objective))
    assert smaller.draws.ended(best).why == (
        f"finished after epoch 9; {best.objective:.2f} %; 5 of 5 trials ended; "
        f"best so far {best.objective:.2f} % ({best.name})"
    )
    extended = MadeUpSearch(two_ranges, tmp_path / "extended", 8)
    assert extended.run() == whole
    assert isinstance(extended.started().next(), Closing)
    (extended.history.folder / "trials" / "0001.json").unlink()  # it was damaged
    again = MadeUpSearch(two_ranges, tmp_path / "extended", 8).run()
    assert [known.number for known in again] == list(range(8))
    assert again[1].settings == whole[1].settings


def test_draws_are_seeded_and_do_not_depend_on_what_else_is_at_work_at_first(
    two_ranges: Search, drawn: Path, tmp_path: Path
) -> None:
    def first(search: Search, name: str) -> list[dict[str, float]]:
        draws = MadeUpSearch(search, tmp_path / name, 3).draws
        return [found.settings for _ in range(3) if (found := draws.next())]

    here, again = first(two_ranges, "a"), first(two_ranges, "b")
    assert here == again
    assert len({tuple(settings.values()) for settings in here}) == 3
    ranges = [str(r) for r in two_ranges.space]
    assert not [s for s in first(planned(drawn, *ranges, rng_seed=1), "c") if s in here]


def test_a_resumed_search_hands_out_what_was_interrupted_or_given_up_first(
    two_ranges: Search, tmp_path: Path
) -> None:
    made_up = MadeUpSearch(two_ranges, tmp_path, 4)
    found = [known for _ in range(3) if (known := made_up.draws.next())]
    for epoch in range(1, 10):
        made_up.draws.reported(found[0], record_of(found[0].settings, epoch))
    made_up.draws.reported(found[1], record_of(found[1].settings, 1))
    made_up.draws.gave_up(found[2], ErrorNote("AssertionError", "", "", ""))
    known = made_up.history.trials()
    assert [trial.status for trial in known] == ["finished", "running", "error"]
    assert known[2].message == "AssertionError"
    resumed = made_up.started()
    handed = [known for _ in range(4) if (known := resumed.next())]
    assert [known.number for known in handed] == [1, 2, 3]
    assert handed[0].epochs == found[1].epochs
    assert (handed[1].status, handed[1].message) == ("running", "")


@pytest.mark.parametrize(
    ("known", "scores", "stopped"),
    [
        (None, {1: 20.0, 2: 20.0}, False),
        (30.0, {1: 20.0, 2: 20.0}, True),
        (30.0, {1: 20.0}, False),  # before the first rung nobody is
        (30.0, {1: 20.0, 2: 40.0, 6: 29.0}, True),
        (30.0, {1: 20.0, 2: 40.0, 6: 31.0}, False),
        (30.0, {1: 20.0, 2: 40.0, 3: 1.0}, False),  # nor between two of them
    ],
)
def test_a_poor_trial_is_stopped_at_a_rung_by_what_the_history_has(
    two_ranges: Search, tmp_path: Path, known: float | None, scores: dict[int, float], stopped: bool
) -> None:
    """known: what each epoch of a finished trial came to, if there is one."""
    made_up = MadeUpSearch(two_ranges, tmp_path, 5)

    def report(draws: Draws, scores: dict[int, float]) -> tuple[list[bool], str]:
        found = draws.next()
        told = [
            draws.reported(found, record_of(found.settings, epoch) | {"objective": objective})
            for epoch, objective in scores.items()
        ]
        return told, found.status

    if known:
        report(made_up.draws, dict.fromkeys(range(1, 10), known))
    told, status = report(made_up.started(), scores)
    assert told == [False] * (len(told) - 1) + [stopped]
    assert status == ("stopped" if stopped else "running")


def test_a_training_that_diverges_is_worth_nothing_and_counts_as_ended(
    two_ranges: Search, tmp_path: Path
) -> None:
    made_up = MadeUpSearch(two_ranges, tmp_path, 2)
    found = made_up.draws.next()
    failed = {"epoch": 1.0, "objective": 0.0, "failed": "diverged", "message": "lower train.lr"}
    assert not made_up.draws.reported(found, failed)
    assert made_up.draws.ended(found).status == "done"
    assert (found.status, found.objective, found.message) == ("diverged", 0.0, "lower train.lr")
    assert made_up.history.missing(2) == 1
    assert not made_up.draws.reported(found, failed)  # again, as its process died right after
    assert made_up.started().next() is not None


def test_closing_scores_are_those_of_the_best_and_of_the_base_once_all_trials_have_ended(
    two_ranges: Search, tmp_path: Path
) -> None:
    made_up = MadeUpSearch(two_ranges, tmp_path, 3)
    base, *best = [cam_id(two_ranges.base), *(t.cam_id for t in best_trials(made_up.run(), 3))]
    draws = made_up.started()
    found = [target for _ in range(9) if (target := draws.next())]
    assert [target.cam_id for target in found] == [base, *best]
    scored = {"epoch": 9.0, "objective": 60.0, "threshold": 0.3}
    assert draws.ended(found[0]).status == "started"
    assert not draws.reported(found[0], scored | {"held_out": 59.0})
    assert draws.ended(found[0]) == ("done", "59.00 %")
    draws.reported(found[1], {"epoch": 1.0, "failed": "diverged", "message": "lower train.lr"})
    assert draws.ended(found[1]) == ("failed", "diverged: lower train.lr")
    assert [t.cam_id for _ in range(9) if (t := made_up.started().next())][:1] == best[:1]
    larger = MadeUpSearch(two_ranges, tmp_path, 4).draws
    last = larger.next()
    assert isinstance(last, SearchTrial)
    assert larger.next() is None, "the best are not known yet"
