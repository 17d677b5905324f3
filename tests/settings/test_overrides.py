"""What is asked for by words and files of settings is done or refused, and who wins."""

import json
import math
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import ESCAPE, refusal

from wsss.config import RunConfig, Settings
from wsss.overrides import ConfigError, apply_overrides, parse_assignments, read_config_file, settle
from wsss.presets import PRESETS, TINY
from wsss.segmentation_config import PseudoLabelConfig
from wsss.weights import file_digest


def refused(settings: Settings, overrides: Mapping[str, Any]) -> str:
    """Return why these settings cannot be replaced so."""
    return refusal(lambda: apply_overrides(settings, overrides), ConfigError)


# Settings by their names


def test_overrides_replace_the_named_settings_and_no_other() -> None:
    asked = {"train.lr": 0.02, "rng_seed": 7, "views.enhanced": True}
    assert apply_overrides(RunConfig(), asked).flat() == RunConfig().flat() | asked
    assert RunConfig().train.lr == 0.1


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("transfer.lamda_s", "did you mean transfer.lambda_s?"),
        ("transfer.lambda_b", "did you mean transfer.lambda_bs?"),
        ("network.chanel_attention", "did you mean network.channel_attention?"),
        ("seed", "did you mean rng_seed?"),
        ("lr", "did you mean train.lr?"),
        ("train", "known: " + ", ".join(k for k in RunConfig().flat() if k.startswith("train."))),
        (
            "xyz",
            "known: data.*, network.*, views.*, transfer.*, train.*, labels.*, rng_seed, repeat",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_ones(key: str, told: str) -> None:
    assert refused(RunConfig(), {key: 1}) == f"unknown setting {key!r}; {told}"


def test_assignments_of_the_command_line_are_yaml_values() -> None:
    words = ["train.lr=0.02", "views.enhanced=true", "labels.scales=[0.5, 1]", "a = b=c"]
    expected = {"train.lr": 0.02, "views.enhanced": True, "labels.scales": [0.5, 1], "a": "b=c"}
    assert parse_assignments(words) == expected


# What a refusal tells one to give is taken


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("Train.LR=0.1", r"did you mean (?P<key>[\w.]+)\?"),
        ("train.lr", r"write it as (?P<word>\S+)"),
        ("network.weights=imagenet", r"give imagenet_v1 .*, (?P<value>imagenet_v2) "),
        ("network.pixel_correlation=false", r"must be '(?P<value>\w+)'"),
    ],
)
def test_a_setting_is_taken_once_it_is_given_as_told(word: str, told: str) -> None:
    said = refusal(lambda: apply_overrides(RunConfig(), parse_assignments([word])), ConfigError)
    found = re.search(told, said)
    assert found
    key, _, value = word.partition("=")
    parts = {"key": key, "value": value} | found.groupdict()
    better = parts.get("word", f"{parts['key']}={parts['value']}")
    apply_overrides(RunConfig(), parse_assignments([better]))


# Who wins


@pytest.mark.parametrize(
    ("ending", "form"), [("yaml", yaml.safe_dump), ("json", partial(json.dumps, indent="\t"))]
)
@pytest.mark.parametrize(
    ("key", "of_file", "of_line"),
    [("network.weights", "imagenet_v2", "none"), ("train.lr", 0.5, 0.25), ("rng_seed", 3, 4)],
)
def test_the_more_specific_wins(
    key: str, of_file: Any, of_line: Any, ending: str, form: Any, tmp_path: Path
) -> None:
    file, start = tmp_path / f"run.{ending}", PRESETS["short"]
    section, _, name = key.rpartition(".")
    file.write_text(form({section: {name: of_file}} if section else {name: of_file}))

    def chosen(overrides: Mapping[str, Any], **more: Any) -> Any:
        return settle(start, overrides, **more).config.flat()[key]

    assert chosen({}) == start.flat()[key]
    assert chosen({}, file=file) == of_file
    assert chosen({key: of_line}, file=file) == of_line
    if key == "network.weights":
        assert chosen({}, weights=of_line, file=file) == of_line
        assert chosen({key: of_line}, weights=of_line, file=file) == of_line


def test_the_option_and_the_setting_of_weights_have_to_agree(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"weights")
    given_twice = {"network.weights": file_digest(file)}
    assert settle(TINY, given_twice, weights=str(file)).weights_file == file
    with pytest.raises(ConfigError, match=r"network\.weights=none and --weights .* contradict"):
        settle(TINY, {"network.weights": "none"}, weights=str(file))


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("010", 10), ("1e-3", 0.001), ("-.5", -0.5), (".inf", math.inf), ("true", True)),
        *(("1:30", "1:30"), ("0x10", "0x10"), ("1_0", "1_0"), ("off", "off"), ("no", "no")),
        *(("", None), ("2001-01-01", "2001-01-01"), ("[1, off, 010]", [1, "off", 10])),
    ],
)
def test_a_word_is_the_number_that_it_looks_like_or_no_number(word: str, value: Any) -> None:
    # By YAML 1.1, 010 is 8, 1:30 is 90, 1e-3 is a word, and off is false.
    assert parse_assignments([f"x={word}"]) == {"x": value}


# What is wrong


@pytest.mark.parametrize(
    ("settings", "wrong", "told"),
    [
        (TINY, {"labels.scales": [math.nan]}, r"labels\.scales\.0 = nan: must be a finite .*\]"),
        (
            TINY,
            {"train.min_long_side": 200},
            "train: min_long_side 200 is above max_long_side 160; swap them",
        ),
        (
            PseudoLabelConfig(),
            {"random_walk.confident_background": 0.6},
            "random_walk: .* is above .*; swap them",
        ),
        (TINY, {"labels.threshold_range": [0.8, 0.1]}, r"labels\.threshold_range = .* starts .*"),
    ],
)
def test_a_wrong_value_is_named_once_and_without_all_others(
    settings: Settings, wrong: dict[str, Any], told: str
) -> None:
    assert re.fullmatch(told, refused(settings, wrong))


def test_a_key_given_twice_on_the_command_line_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set gives 'train\.lr' twice; give it once"):
        parse_assignments(["train.lr=1", "train.lr =2"])
    with pytest.raises(ConfigError, match="'a' is given twice"):
        parse_assignments(["x={a: 1, a: 2}"])


def test_what_is_wrong_in_a_file_is_refused_by_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("train: {lr: -1, epochs: 0}")
    with pytest.raises(ConfigError) as caught:
        settle(TINY, {"train.momentum": "legacy"}, file=path)
    lines = [line.split(" = ")[0] for line in str(caught.value).splitlines()]
    assert lines == [f"{path}: train.epochs", f"{path}: train.lr"]
    path.write_text("train: {min_long_side: 500}")  # above TINY's max, which the line raises
    assert settle(TINY, {"train.max_long_side": 600}, file=path).config.train.min_long_side == 500


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.yaml", None, "No such file .*put a readable file there"),
        ("a.yaml", "- 1\n", "expected sections"),
        ("a.yaml", "", "expected sections"),
        ("a.yaml", "train:\n", "unknown setting 'train'"),
        ("a.yaml", "rng_seed:\n", "rng_seed = None: must be a valid integer"),
        ("a.yaml", "train:\n\tlr: 0.1\n", r"'\\t' that cannot start any token, line 2; write"),
        ("a.yaml", "# " + "x" * (1 << 20), "over 1,048,576 bytes"),
        ("a.yaml", "train: {lr: 1, lr: 2}", "'lr' is given twice; give it once"),
        ("a.yaml", "train: {lr: 1}\ntrain.lr: 1", "'train.lr' is given twice; give it once"),
        ("a.json", '{"rng_seed": 1, "rng_seed": 2}', "'rng_seed' is given twice; give it once"),
        ("a.toml", "train: {lr: 0.02}", "not TOML: "),
        ("a.toml", "[train]\nlr = 1\nlr = 2", "not TOML: Cannot overwrite a value"),
        ("a.toml", f"a = {'[' * 100_000}", "not TOML: "),
        ("a.toml", f"a = 0x{'f' * 5000}", "not TOML: "),
        ("a.toml", "[train]\nlr = 2001-02-03", "train.lr = "),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(
    name: str, content: str | None, told: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    said = refusal(lambda: settle(TINY, {}, file=path), ConfigError)
    assert said.startswith(f"{path}: ")
    assert re.search(told, said)


def test_a_toml_file_is_read_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "settings.TOML"
    file.write_text("\ufefftrain.lr = 0.07\n[labels]\nscales = [0.5, 1.0]\n", encoding="utf-8")
    settled = settle(TINY, {}, file=file).config
    assert (settled.train.lr, settled.labels.scales) == (0.07, (0.5, 1.0))
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ConfigError, match=r"a pipe, .*put a file there"):
        read_config_file(file)


@pytest.mark.parametrize(
    "value",
    [
        *("!!bool x", "!!int x", "!!int 0x10", "!!float x", "!!timestamp x", "!!binary x"),
        "!!float " + ":".join("1" * 200),
        *("9" * 5000, "[" * 5000, "&a [*a]", "{[1]: 2}", "\ud800", "[1" + ESCAPE),
        "!!python/object/apply:os.system [id]",
    ],
)
def test_a_value_that_yaml_stumbles_over_is_refused(value: str, tmp_path: Path) -> None:
    message = refusal(lambda: parse_assignments([f"train.lr={value}"]), ConfigError)
    assert "is not a YAML value" in message
    path = tmp_path / "run.yaml"
    path.write_text(f"train: {value}\n", encoding="utf-8", errors="surrogatepass")
    kind = "UTF-8 text" if value == "\ud800" else "YAML"
    assert refusal(lambda: read_config_file(path), ConfigError).startswith(f"{path}: not {kind}")


def test_yaml_whose_aliases_stand_for_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines))
    assert "aliases such as *x are refused" in refusal(lambda: read_config_file(path), ConfigError)


@pytest.mark.parametrize("key", ["train.lr.x", "", ".", "train.__class__", ESCAPE, "../x"])
def test_a_key_reaches_settings_and_nothing_else(key: str) -> None:
    assert "unknown setting" in refused(RunConfig(), {key: {}})
