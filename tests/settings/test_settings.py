"""What is asked for is done or refused: who wins, what is in range, what fits table and data."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from commands import program
from fuzzing import refusal

from sweeps.cluster.jobs import Request
from sweeps.plan.search import make_search, parse_space
from sweeps.plan.sweep import BaseOptions, make_sweep
from wsss.config import RunConfig, Settings
from wsss.identity import idle, run_id
from wsss.overrides import ConfigError, apply_overrides, parse_assignments
from wsss.presets import PRESETS, TINY
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig
from wsss.weights import WeightsError

MODELS = (RunConfig(), PseudoLabelConfig(), DeepLabConfig())


# Ranges


def wrong_values(key: str, usual: Any) -> list[Any]:
    """Return values that a setting must not take; of a list, for its first item."""
    parts = usual if isinstance(usual, list) else [1.0 if key.endswith("clip_norm") else usual]
    if any(isinstance(part, bool | str | None) for part in parts):
        return [{"no": "value"}]
    wrong: list[Any] = [True, "x", math.nan, math.inf, 1e12, -1e12, 10**12, -(10**12)]
    wrong += [1.5] if isinstance(parts[0], int) else []
    if isinstance(usual, list):
        return [[], *([value, *usual[1:]] for value in wrong), usual * 100]
    return wrong


@pytest.mark.parametrize("start", MODELS, ids=lambda model: type(model).__name__)
def test_a_wrong_value_is_refused_by_name_and_the_default_that_is_told_is_taken(
    start: Settings,
) -> None:
    for key, usual in start.flat().items():
        for value in wrong_values(key, usual):
            told = refusal(lambda k=key, v=value: apply_overrides(start, {k: v}), ConfigError)
            assert told.startswith(key), value
            (default,) = set(re.findall(": .*; the default is (.*)", told))
            again = apply_overrides(start, parse_assignments([f"{key}={default}"]))
            assert again.flat()[key] == usual


# What a table, a search or a data set leaves open


@pytest.mark.parametrize(
    ("table", "asked", "named"),
    [
        ("III", {"views.enhanced": False}, "table III varies it, III[yes,no] has True"),
        ("V", {"transfer.lambda_s": 0.5}, "table V varies it, V[0.1,0.1] has 0.1"),
        (
            "VI",
            {"rng_seed": 3},
            "the seeds of a table are 0, 1, ...; give their number with --seeds",
        ),
        ("VI", {"data.name": "other"}, "data.name = 'other': that of"),
        ("VI", {"data.fingerprint": "0" * 16}, "data.fingerprint = "),
        ("VI", {"train.batch_size": 64}, "16 training images are fewer than one batch of 64"),
        ("VI", {"network.weights": "imagenet_v1"}, "resnet10_narrow has no weights imagenet_v1"),
        ("VI", {"network.weights": "sha256:" + "0" * 64}, "need their file; give --weights FILE"),
    ],
)
def test_what_a_sweep_cannot_do_is_refused_while_it_is_planned(
    drawn: Path, table: str, asked: dict[str, Any], named: str
) -> None:
    with pytest.raises((ConfigError, WeightsError, ValueError)) as caught:
        make_sweep([table], BaseOptions("tiny", drawn, settings={"train.batch_size": 4} | asked))
    assert named in str(caught.value)


def test_what_a_table_sets_to_the_same_value_may_be_asked_for(drawn: Path) -> None:
    asked = {"train.batch_size": 4, "network.channel_attention": True}
    sweep, _ = make_sweep(["III"], BaseOptions("tiny", drawn, settings=asked))
    assert len(sweep.plan.configs) == 4
    with pytest.raises(ConfigError, match="table VI varies it"):
        Request(["VI"], "tiny", settings=["network.channel_attention=true"])


def test_what_a_search_draws_cannot_be_set(tmp_path: Path) -> None:
    asked = BaseOptions("tiny", tmp_path, settings={"transfer.lambda_s": 0.2})
    with pytest.raises(ConfigError, match=r"transfer\.lambda_s is drawn, and --set"):
        make_search(parse_space([]), asked)


def test_settings_without_effect_are_known() -> None:
    start = apply_overrides(TINY, {"views.enhanced": True, "network.feature_map": "plain"})
    without = ["network.se_ratio", "network.affinity", "network.fpn_channels"]
    without += ["views.beta_decreased", "transfer.similarity_pairs"]
    live = ["views.alpha_enhanced", "transfer.lambda_s", "train.lr", "labels.scales"]
    live += ["train.clip_norm", "rng_seed", "data.train_split", "labels.flip"]
    assert idle(start, [*without, *live], run_id) == without
    # Also with the default, which would be taken for "not given".
    default = apply_overrides(TINY, {"network.atrous_channels": 256})
    assert idle(default, ["network.atrous_channels"], run_id) == ["network.atrous_channels"]
    huge = apply_overrides(default, {"train.lr": 10})
    assert idle(huge, ["train.lr"], run_id) == []


# wsss settings


def test_every_setting_is_explained_with_a_range_and_the_values_of_all_presets() -> None:
    said = {line["name"]: line for line in json.loads(shown("--json"))}
    assert list(said) == list(RunConfig().flat())
    for name, line in said.items():
        assert line["default"] == RunConfig().flat()[name]
        assert line["presets"] == {p: config.flat()[name] for p, config in PRESETS.items()}
        assert line["range"]
    assert said["transfer.lambda_s"]["range"] == "number from 0 to 1,000,000"
    assert said["transfer.lambda_s"]["recipes"] == {"seam": 1.0, "puzzle_cam": 4.0}
    assert said["transfer.empty_maps"]["range"] == "skip | compare"
    assert said["transfer.empty_maps"]["is_open"]
    assert said["train.clip_norm"]["range"] == "number above 0 to 1,000,000 | null"
    assert said["labels.scales"]["range"] == "list of 1 to 32: number from 0.01 to 16"


def test_a_setting_is_found_by_its_section_and_by_its_name_alone() -> None:
    section = [line["name"] for line in json.loads(shown("transfer", "--json"))]
    assert section == [name for name in RunConfig().flat() if name.startswith("transfer.")]
    one = shown("lambda_s")
    assert one == shown("transfer.lambda_s")
    assert "weight of L_s in Eq. 7" in one
    assert "recipe puzzle_cam 4.0" in one
    both = [line["name"] for line in json.loads(shown("resize", "--json"))]
    assert both == ["train.resize", "labels.resize"]
    assert "unknown setting 'transfer.lambda'; did you mean transfer.lambda_s?" in shown(
        "transfer.lambda", code=2
    )


def shown(*words: str, code: int = 0) -> str:
    result = program("wsss", "settings", *words, COLUMNS="200")
    assert result.exit_code == code
    return result.output
