"""Any text or bytes: readers give a value or their own error with the file's name, ids hold."""

import io
import json
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing import damaged, fuzz
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from sweeps.plan.chains.chain import ChainConfig
from sweeps.plan.search import check_space, parse_space
from sweeps.plan.sweep import data_name, load_sweep
from sweeps.report.formats.csv_file import safe
from sweeps.report.formats.latex import escape as latex_escape
from sweeps.report.formats.markdown import escape as markdown_escape
from sweeps.store.errors import StoreError
from sweeps.store.store import Store
from wsss.basics.printable import printable
from wsss.config import RunConfig
from wsss.data.errors import DataError
from wsss.data.prepare.archives import ArchiveError, extract
from wsss.data.prepare.sbd import read_id_list
from wsss.identity import cam_id, config_id, run_id
from wsss.overrides import ConfigError, apply_overrides, parse_assignments, read_config_file
from wsss.segmentation_config import DeepLabConfig, PseudoLabelConfig

ANY_TEXT = st.text(max_size=60)
YAML_LIKE = st.lists(
    st.sampled_from(
        [
            *("[", "]", "{", "}", ":", ",", "-", "~", "'", '"', "\n", " ", "|", "?", "%", "x"),
            *("&a", "*a", "!!", "<<", "0x", "int", "bool", "timestamp", "1e9", "2001-99-99"),
            *("!!set", "!!omap"),
        ]
    ),
    max_size=12,
).map("".join)
ID = re.compile(r"[0-9a-f]{12}")


def own_refusal(call: Callable[[], object], *kinds: type[Exception]) -> str:
    """Return the message of an error of the given kinds, "" for none; any other comes through."""
    try:
        call()
    except kinds as error:
        message = str(error)
    else:
        return ""
    assert message == printable(message)
    return message


# Ids

SHARE = st.integers(0, 100).map(lambda n: n / 100)
OVERRIDES: dict[str, st.SearchStrategy[Any]] = {
    "network.channel_attention": st.booleans(),
    "network.context_association": st.booleans(),
    "network.affinity": st.sampled_from(["relu_row_sum", "softmax"]),
    "views.enhanced": st.booleans(),
    "views.decreased": st.booleans(),
    "views.alpha_enhanced": st.sampled_from([1, 1.0, 1.5, 2]),
    "views.beta_decreased": st.sampled_from([-150, 0, -0.0, 150.0]),
    "transfer.lambda_s": st.sampled_from([0, 0.0, -0.0, 0.5, 1, 1.0]),
    "transfer.lambda_bs": st.sampled_from([0, 0.5, 1]),
    "transfer.similarity_pairs": st.sampled_from(["eq5", "prose"]),
    "train.lr": st.sampled_from([1, 0.1, 0.01]),
    "train.epochs": st.integers(1, 9),
    "labels.background_score": SHARE,
    "labels.scales": st.sampled_from([[1], [1.0], [0.5, 2]]),
    "rng_seed": st.integers(0, 2**31 - 1),
    "data.name": ANY_TEXT.map(lambda t: data_name(Path(t))),
}
CONFIGS = st.fixed_dictionaries({}, optional=OVERRIDES).map(
    lambda chosen: apply_overrides(RunConfig(), chosen)
)


def shuffled(tree: Any, rng: random.Random) -> Any:
    """The same JSON with keys in another order and whole floats written as integers."""
    if isinstance(tree, dict):
        keys = rng.sample(list(tree), len(tree))
        return {key: shuffled(tree[key], rng) for key in keys}
    if isinstance(tree, list):
        return [shuffled(item, rng) for item in tree]
    return int(tree) if isinstance(tree, float) and tree.is_integer() else tree


@fuzz
@given(CONFIGS, st.integers(0, 99))
def test_ids_survive_json_in_any_order_and_spelling(config: RunConfig, seed: int) -> None:
    tree = shuffled(json.loads(config.model_dump_json()), random.Random(seed))
    again = RunConfig.model_validate(json.loads(json.dumps(tree)))
    for name in (run_id, cam_id, config_id):
        assert name(again) == name(config)
        assert ID.fullmatch(name(config))


@fuzz
@given(CONFIGS, SHARE)
def test_what_has_an_effect_changes_ids_and_what_has_none_does_not(
    config: RunConfig, share: float
) -> None:
    trained = apply_overrides(config, {"train.weight_decay": (1 + share) / 4})
    assert cam_id(trained) != cam_id(config)
    scored = apply_overrides(config, {"labels.flip": not config.labels.flip})
    assert cam_id(scored) == cam_id(config)
    assert run_id(scored) != run_id(config)
    plain = {"views.enhanced": False, "views.decreased": False}
    idle = {
        "transfer.lambda_s": 2 + share,
        "transfer.belongs_score": share,
        "views.padding": "after",
    }
    assert run_id(apply_overrides(config, plain | idle)) == run_id(apply_overrides(config, plain))
    used = apply_overrides(config, {"views.enhanced": True})
    assert cam_id(apply_overrides(used, {"transfer.lambda_s": 2 + share})) != cam_id(used)


@settings(fuzz, max_examples=40)
@given(
    CONFIGS,
    st.sampled_from(["none", "crf", "pamr", "random_walk", "random_walk_crf"]),
    st.integers(0, 99),
)
def test_ids_of_a_chain_hold_likewise(config: RunConfig, refinement: str, seed: int) -> None:
    labels = apply_overrides(PseudoLabelConfig(), {"refinement": refinement})
    chain = ChainConfig(run=config, labels=labels, segmentation=DeepLabConfig())
    tree = shuffled(json.loads(chain.model_dump_json()), random.Random(seed))
    again = ChainConfig.model_validate(json.loads(json.dumps(tree)))
    names = ("maps_id", "walk_id", "labels_id", "segmentation_id", "prediction_id")
    assert [getattr(again, name) for name in names] == [getattr(chain, name) for name in names]
    assert all(ID.fullmatch(getattr(chain, name)) for name in names)
    network = apply_overrides(DeepLabConfig(), {"iterations": 7})
    other = chain.model_copy(update={"segmentation": network})
    assert other.labels_id == chain.labels_id
    assert other.segmentation_id != chain.segmentation_id
    idle = "pamr.iterations" if refinement != "pamr" else "crf.iterations"
    unused = chain.model_copy(update={"labels": apply_overrides(labels, {idle: 77})})
    assert unused.prediction_id == chain.prediction_id


# Settings


@fuzz
@given(st.lists(ANY_TEXT | YAML_LIKE | YAML_LIKE.map("train.lr={}".format), max_size=3))
def test_any_words_are_settings_or_refused(words: list[str]) -> None:
    def use() -> None:
        overrides = parse_assignments(words)
        own_refusal(lambda: apply_overrides(PseudoLabelConfig(), overrides), ConfigError)
        apply_overrides(RunConfig(), overrides)

    own_refusal(use, ConfigError)


@fuzz
@given(st.binary(max_size=60) | (ANY_TEXT | YAML_LIKE).map(lambda t: t.encode(errors="replace")))
def test_any_configuration_file_is_read_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    refusal = own_refusal(lambda: read_config_file(path), ConfigError)
    assert not refusal or refusal.startswith(f"{path}: ")
    own_refusal(lambda: apply_overrides(RunConfig(), read_config_file(path)), ConfigError)


@fuzz
@given(st.lists(ANY_TEXT | st.from_regex(r"[a-z._]*=[-0-9.e]*:[-0-9.e]*(:log)?"), max_size=3))
def test_any_space_is_searched_or_refused(words: list[str]) -> None:
    def use() -> None:
        check_space(parse_space(words), RunConfig())

    refusal = own_refusal(use, ConfigError)
    assert not refusal or "--space" in refusal


# Files


@fuzz
@given(st.binary(max_size=60) | ANY_TEXT.map(lambda t: t.encode(errors="replace")))
def test_any_list_of_sbd_is_read_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    refusal = own_refusal(lambda: read_id_list(path), DataError)
    assert not refusal or refusal.startswith("train.txt: ")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


SAVED_KEYS = (
    *("tables", "preset", "base", "seeds", "data"),
    *("weights_file", "train_images", "eval_images"),
)


@fuzz
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(SAVED_KEYS, JSON)) | JSON)
def test_any_description_of_a_sweep_is_read_or_refused_by_name(tmp_path: Path, saved: Any) -> None:
    path = tmp_path / "sweeps" / "s" / "sweep.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(saved))
    refusal = own_refusal(lambda: load_sweep(Store(tmp_path)), StoreError)
    assert str(path) in refusal  # none of these has all that it needs


def test_damaged_archives_are_unpacked_or_refused_by_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for index in range(3):
            member = tarfile.TarInfo(f"data/{index}-ä.txt")  # ä needs an extended header
            member.size, member.pax_headers = 5, {"mtime": "1.5", "comment": "c"}
            tar.addfile(member, io.BytesIO(b"abcde"))
    whole, refused = buffer.getvalue().rstrip(b"\0") + bytes(1024), 0
    rng = random.Random(0)
    for seed in range(400):
        archive, folder = tmp_path / f"{seed}.tar", tmp_path / f"{seed}"
        content = bytearray(damaged(whole, seed))
        if len(content) > 512:  # headers whose sum is right, so that their numbers are believed
            block = rng.randrange(len(content) // 512) * 512
            content[block + 124 + rng.randrange(12)] = rng.choice(b"\x80\xff 7")
            content[block + 148 : block + 156] = b" " * 8
            total = sum(content[block : block + 512])
            content[block + 148 : block + 156] = b"%06o\0 " % total
        archive.write_bytes(content)
        folder.mkdir()
        with Progress(disable=True) as progress:
            refusal = own_refusal(
                lambda a=archive, f=folder, p=progress: extract(
                    a, f, re.compile(r"(?s)\W*(\w{1,50}).*"), progress=p
                ),
                ArchiveError,
            )
        assert not refusal or str(archive) in refusal
        refused += bool(refusal)
    assert refused > 100


# What is written


@fuzz
@given(ANY_TEXT | st.text(alphabet="\\{}$&#%_^~<>|[]*\"'`=+-@\r\n\t\x1b\x85 a", max_size=20))
@example("\\input{/etc/passwd}")
@example("\r=cmd()")
@example("lambda_s x lambda_bs")
def test_any_text_is_text_in_every_format(text: str) -> None:
    tex = latex_escape(text)
    rest = re.sub(
        r"\\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar)"
        r"\{\}|\$\\lambda_(?:s|\{bs\})\$|\\[{}$&#%_]|\$\\pm\$|\{[\[\]*]\}",
        "",
        tex,
    )
    assert not set(rest) & set("\\{}$&#%^~*[]"), tex
    assert not re.search(r"(?<!\\)[`*_{}\[\]<>|#~$]", markdown_escape(text).replace("\\\\", ""))
    cell = str(safe(text))
    assert not cell.startswith(("=", "+", "-", "@"))
    shown = printable(text)
    for written in (tex, markdown_escape(text), cell, shown):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", written)
    assert printable(shown) == shown
