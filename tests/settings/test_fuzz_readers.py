"""Any text or bytes: readers give a value or their own error with the file's name."""

import io
import random
import re
import tarfile
from pathlib import Path

import yaml
from fuzzing import damaged, fuzz, value_or_refusal
from hypothesis import example, given
from hypothesis import strategies as st
from rich.progress import Progress

from sweeps.report.formats.csv_file import safe
from sweeps.report.formats.latex import escape as latex_escape
from sweeps.report.formats.markdown import escape as markdown_escape
from wsss.basics.printable import printable
from wsss.config import RunConfig
from wsss.data.errors import DataError
from wsss.data.prepare.archives import extract
from wsss.overrides import ConfigError, apply_overrides, read_config_file
from wsss.presets import TINY

ANY_TEXT = st.text(max_size=60)
WHOLE = yaml.safe_dump(TINY.model_dump(mode="json", include={"train", "labels"})).encode()
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


# Settings


@fuzz
@given(
    st.binary(max_size=60)
    | (ANY_TEXT | YAML_LIKE).map(lambda t: t.encode(errors="replace"))
    | st.integers(0, 2**32).map(lambda seed: damaged(WHOLE, seed))
)
def test_any_configuration_file_is_read_or_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    _, refusal = value_or_refusal(lambda: read_config_file(path), ConfigError)
    assert not refusal or refusal.startswith(f"{path}: ")
    value_or_refusal(lambda: apply_overrides(RunConfig(), read_config_file(path)), ConfigError)


# Files


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
            _, refusal = value_or_refusal(
                lambda a=archive, f=folder, p=progress: extract(
                    a, f, re.compile(r"(?s)\W*(\w{1,50}).*"), progress=p
                ),
                DataError,
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
        r"\{\}|\$\\lambda_\{b?s\}\$|\\[{}$&#%_]|\$\\pm\$|\{[\[\]*]\}",
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
