"""An archive of a sweep, checked: what is right, and what each kind of change is found by."""

import errno
import hashlib
import json
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from commands import sweeps
from made_up.finished import fill

from sweeps.archive.manifest import FILE
from sweeps.archive.write import export_sweep
from sweeps.plan.chains.chain import counts_id
from sweeps.plan.sweep import BaseOptions, Sweep, make_sweep
from sweeps.store.store import Store, write_config
from wsss.data.drawn.folder import draw_voc


@pytest.fixture(scope="module")
def sweep(drawn: Path) -> Sweep:
    return make_sweep(["VI"], BaseOptions("tiny", drawn), 2)[0]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> Path:
    """Table VI of two seeds."""
    folder = tmp_path_factory.mktemp("lab")
    qualities = {t.run_id: 0.5 + 0.02 * at for at, t in enumerate(sweep.plan.trials)}
    store, first = Store(folder / "results"), sweep.plan.trials[0]
    fill(store, sweep, lambda t: qualities[t.run_id], num_images=6)
    write_config(store.cam(first.cam_id).path / "config.json", first.config)
    export_sweep(sweep, store, folder / "a.zip", checkpoints=False)
    return folder / "a.zip"


def verify(path: Path, *words: str) -> tuple[int, str]:
    done = sweeps("verify", path, *words)
    return done.exit_code, done.output


def found(output: str) -> dict[str, str]:
    """What was checked -> ok, wrong or open."""
    return {what: kind for kind, what in re.findall(r"^(ok|wrong|open) +(.*?):", output, re.M)}


Changes = dict[str, tuple[bytes, bytes]]
"""Path in the archive -> what is there, and what stands there instead."""


def changed(
    path: Path, out: Path, changes: Changes, *, is_forged: bool = True, **said: str
) -> Path:
    """Copy an archive. is_forged: its manifest has the digests of the changes; said: it says so."""
    with ZipFile(path) as old, ZipFile(out, "w") as new:
        known = json.loads(old.read(FILE)) | said
        for name in known["files"]:
            content = old.read(name)
            before, after = changes.get(name, (b"", b""))
            assert before in content
            content = content.replace(before, after) if before else content
            new.writestr(name, content)
            if is_forged:
                known["files"][name] = hashlib.sha256(content).hexdigest()
        new.writestr(FILE, json.dumps(known))
    return out


def test_a_whole_archive_is_right_and_what_cannot_be_told_is_said(
    archive: Path, drawn: Path
) -> None:
    code, said = verify(archive, "--data", str(drawn))
    assert code == 0, said
    kinds = found(said)
    assert {what for what, kind in kinds.items() if kind == "ok"} == {
        re.search(r"\d+ files", said)[0],
        "ids",
        "figures",
        "tables",
        "data",  # type: ignore[index]
    }
    assert "only training again can show" in said
    assert "not signed" in said


def test_other_data_are_recognised(archive: Path, tmp_path: Path) -> None:
    other = draw_voc(tmp_path / "voc", num_train=9, num_extra=6, num_val=3)
    code, said = verify(archive, "--data", str(other))
    assert (code, found(said)["data"]) == (1, "wrong")


@pytest.mark.parametrize(
    ("wrong", "changes"),
    [
        ("figures", {"runs/{run}/done.json": (b'"miou_fixed": ', b'"miou_fixed": 1.5, "x": ')}),
        (
            "ids",
            {
                "runs/{run}/config.json": (b'"lr": 0', b'"lr": 1'),
                "cams/{cam}/config.json": (b'"epochs": ', b'"epochs": 1'),
            },
        ),
        ("ids", {"runs/{run}/config.json": (b'"lr": ', b'"lr": 9')}),
        ("ids", {"sweeps/{sweep}/sweep.json": (b'"seeds": 2', b'"seeds": 1')}),
        (
            "tables",
            {
                "report/report.csv": (b",fixed,", b",fixed,1"),
                "trials.csv": (b"finis", b"fam"),
                "report/table.tex": (b"&", b"& 1"),
                "report/report.html": (b"</td>", b"1</td>"),
                "report/report.txt": (b"annot", b"an"),
                "report/report.md": (b"annot", b"an"),
                "report/report.tex": (b"annot", b"an"),
            },
        ),
    ],
)
def test_a_forged_file_contradicts_the_others(
    archive: Path, sweep: Sweep, tmp_path: Path, wrong: str, changes: Changes
) -> None:
    ids = {"run": sweep.plan.trials[0].run_id, "cam": sweep.plan.trials[0].cam_id}
    named = {name.format(**ids, sweep=sweep.name): each for name, each in changes.items()}
    for name, change in named.items():
        code, said = verify(changed(archive, tmp_path / "b.zip", {name: change}))
        assert (code, found(said)[wrong]) == (1, "wrong"), said
        told = {"figures": "miou_fixed", "ids": "/".join(name.split("/")[:2]), "tables": name}
        assert told[wrong] in said or name.endswith("sweep.json"), said


def test_a_full_disk_is_named(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ZipFile, "extract", fill)
    code, said = verify(archive)
    assert code == 2
    assert re.match(r"error: /.*/wsss-verify-\w+: No space left on device; free space", said)


def test_a_forged_column_beside_that_of_its_name_is_found(archive: Path, tmp_path: Path) -> None:
    with ZipFile(archive) as whole:
        rows = whole.read("trials.csv")
    forged = rows.replace(b"\n", b"\n99,")
    changes = {"trials.csv": (rows, b"miou_fixed," + forged.removesuffix(b"99,"))}
    code, said = verify(changed(archive, tmp_path / "b.zip", changes))
    assert (code, found(said)["tables"]) == (1, "wrong")
    assert "trials.csv: line 1" in said


@pytest.mark.parametrize(("change", "kind"), [(b"noise", "ok"), (b"1 seed", "wrong")])
def test_of_sentences_of_other_code_only_the_numbers_count(
    archive: Path, tmp_path: Path, change: bytes, kind: str
) -> None:
    reworded = {
        "report/report.csv": (b"measured", b"found"),
        "report/table.tex": (b"over seeds", change),
        "report/report.html": (b"</td>", b"1</td>"),
    }
    code, said = verify(changed(archive, tmp_path / "b.zip", reworded, written_by="0.0.1"))
    assert (code, found(said)["tables"]) == (int(kind == "wrong"), kind), said
    assert found(said)["data"] == "open"
    assert "report.html, .md, .tex, .txt: not compared, as other code, 0.0.1, wrote them" in said


def test_pixels_of_another_training_give_other_figures(
    archive: Path, sweep: Sweep, tmp_path: Path
) -> None:
    names = [f"counts/{counts_id(t.config)}/counts.npz" for t in sweep.plan.trials[:2]]
    with ZipFile(archive) as file:
        pixels, other = map(file.read, names)
    code, said = verify(changed(archive, tmp_path / "b.zip", {names[0]: (pixels, other)}))
    assert (code, found(said)["figures"]) == (1, "wrong")
    assert "miou_fixed" in said


def test_an_altered_file_is_named_and_nothing_else_is_looked_into(
    archive: Path, sweep: Sweep, tmp_path: Path
) -> None:
    altered: Changes = {f"sweeps/{sweep.name}/sweep.json": (b"{", b"[")}
    code, said = verify(changed(archive, tmp_path / "b.zip", altered, is_forged=False))
    assert (code, len(found(said))) == (1, 1)
    assert "sweep.json is altered" in said
    damaged = bytearray(archive.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    first = archive.read_bytes().index(b"PK\x01\x02")  # an entry of the table of contents
    unknown = bytearray(archive.read_bytes())
    unknown[first + 10] ^= 64  # how it is compressed
    for content in (damaged, unknown):
        (tmp_path / "c.zip").write_bytes(content)
        code, said = verify(tmp_path / "c.zip")
        assert (code, "is altered" in said) == (1, True)


def test_a_record_that_cannot_be_right_is_named_by_its_place_in_the_archive(
    archive: Path, sweep: Sweep, tmp_path: Path
) -> None:
    name = f"runs/{sweep.plan.trials[0].run_id}/done.json"
    broken: Changes = {name: (b'"miou_fixed": ', b'"miou_fixed": 9')}
    code, said = verify(changed(archive, tmp_path / "b.zip", broken))
    assert code == 2
    assert f"writes ({name}: miou_fixed: must be less than or equal to 100); verify" in said


def test_what_is_no_archive_is_refused_in_a_line(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:-1000])
    (tmp_path / "text.zip").write_text("mine")
    later = bytearray(archive.read_bytes())
    later[later.rindex(b"PK\x01\x02") + 6] = 200  # the version of zip that it needs
    (tmp_path / "later.zip").write_bytes(later)
    shutil.make_archive(str(tmp_path / "other"), "zip", Path(__file__).parents[1], "chaos")
    with ZipFile(archive) as whole, ZipFile(tmp_path / "out.zip", "w") as file:
        manifest = json.loads(whole.read(FILE)) | {"files": {"../x": "0"}}
        file.writestr(FILE, json.dumps(manifest))
        file.writestr("../x", "out")
    for name in ("cut", "text", "later", "other", "out", "missing"):
        code, said = verify(tmp_path / f"{name}.zip")
        assert (code, said.count("\n")) == (2, 1), said
    assert not (tmp_path.parent / "x").exists()
