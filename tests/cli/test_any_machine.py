"""Both programs on machines that are set up otherwise than ours: home, user, paths, terminal."""

import errno
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import SHRUNK, options, sweeps
from made_up.finished import fill, finished_sweep
from made_up.machines import Machine, environment, stranger

from sweeps.cli.program import reach_local_servers
from sweeps.run.ray.start import MAX_BYTES, prepare_machine
from sweeps.store.errors import StoreError
from sweeps.store.store import Store
from wsss.basics.errors import explained
from wsss.basics.files import (
    NO_HOME,
    PathError,
    cache_folder,
    expanded,
    whole_or_absent,
    write_json,
)
from wsss.data.building import temporary


@pytest.fixture(scope="module")
def container(drawn: Path) -> Iterator[Machine]:
    """A stranger without a home, an ASCII terminal of no width; all folders are somebody else's."""
    folder = Path(tempfile.mkdtemp())  # not below pytest's, which is closed to others
    shutil.copytree(drawn, folder / "voc")
    store = _with_a_sweep(folder / "store")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    changes = environment(PYTHONIOENCODING="ascii", COLUMNS="0", LINES="0")
    yield Machine(folder, store, folder / "voc", changes, "ascii", stranger())
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def odd(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Every unusual character in all paths, of which some begin with ~; a Latin-1 terminal.

    Variables of a notebook and of a test runner.
    """
    home = tmp_path_factory.mktemp("it's odd #?%41&=é")
    shutil.copytree(drawn, home / "voc é")
    _with_a_sweep(home / "my store")
    changes = {"HOME": str(home), "PYTHONIOENCODING": "latin-1", "TMPDIR": str(home)}
    changes |= {"MPLBACKEND": "module://of_a_notebook", "PYTHONWARNINGS": "error"}
    paths = (home, Path("~/my store"), Path("~/voc é"))
    return Machine(*paths, environment(**changes), "latin-1")


def _with_a_sweep(root: Path) -> Path:
    store, sweep = Store(root), finished_sweep(("calibrate",), 1)
    fill(store, sweep, lambda trial: 0.5, gallery=True)
    for trial in sweep.plan.trials:  # MLflow gets it; any file will do
        shutil.copy(
            store.run(trial.run_id).path / "cam_gallery.png",
            store.run(trial.run_id).path / "threshold_curve.png",
        )
    return root


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("status",), "1 finished of 1 trial"),
        (("table",), "Table calibrate"),
        (("ledger",), "its ledger has no attempts yet"),
    ],
)
def test_looking_works_in_another_users_store(
    container: Machine, words: tuple[str, ...], part: str
) -> None:
    printed = container.text("sweeps", *words, "--store", container.store)
    assert part in " ".join(printed.split())


@pytest.mark.parametrize("name", ["container", "odd"])
def test_data_are_checked_and_planned_with_on_any_machine(
    request: pytest.FixtureRequest, name: str
) -> None:
    machine: Machine = request.getfixturevalue(name)
    where = ("--data", machine.data, "--preset", "tiny", "--store", machine.store)
    assert "16 trials to run" in " ".join(machine.text("sweeps", "plan", "V", *where).split())
    assert "no problem found" in machine.text("wsss", "data", "check", machine.data)


def test_in_another_users_store_a_report_is_printed_and_writing_is_refused_by_name(
    container: Machine,
) -> None:
    report = container.run("sweeps", "report", "--store", container.store)
    assert report.returncode == 0
    assert b"+-" in report.stdout, "the sign is not in ASCII"
    assert b"name another folder with --out" in report.stderr
    for words in (("sync",), ("run", "calibrate", "--data", container.data, "--preset", "tiny")):
        said = container.refusal("sweeps", *words, "--store", container.store)
        assert f"{container.store}: not writable" in said
    out = container.folder / "mine"
    refused = container.run("sweeps", "report", "--store", container.store, "--out", out)
    assert refused.returncode == 2
    assert str(out).encode() in refused.stderr
    train = ("wsss", "train-cam", "--data", container.data, "--preset", "tiny", "--run")
    assert f"{out}: cannot be written" in container.refusal(*train, out)
    assert "no home folder is known" in container.refusal(*train, "~/run")


def test_a_network_is_trained_and_a_sweep_is_reported_and_logged_in_odd_paths(odd: Machine) -> None:
    words = ("--data", odd.data, "--preset", "tiny", *options(SHRUNK))
    assert "trained; next: " in odd.text("wsss", "train-cam", "--run=~/a run", *words)
    assert (odd.folder / "a run" / "done.json").is_file()
    odd.text("sweeps", "report", "--store", odd.store, "--no-log", "--out=~/out é")
    assert (odd.folder / "out é" / "report.html").is_file()
    assert "is up to date" in odd.text("sweeps", "sync", "--store", odd.store)
    assert (odd.folder / "my store" / "mlflow.db").is_file()
    assert not list(odd.folder.glob("~*"))


def test_a_home_is_that_of_the_user_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert expanded("~/x y") == "/home/me/x y"
    assert expanded("a/~/x") == "a/~/x"
    assert cache_folder() == Path("/home/me/.cache")
    monkeypatch.setenv("HOME", NO_HOME)
    assert cache_folder() is None
    for path in ("~", "~/x", "~nobody-of-that-name/x"):
        with pytest.raises(PathError, match=r"write the folder in full, or \./~"):
            expanded(path)


def test_a_store_named_by_the_environment_may_begin_with_a_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WSSS_STORE", "~/none")
    assert f"{tmp_path / 'none'}: no sweep" in sweeps("status").stderr


@pytest.mark.parametrize("known", ["", "example.org"])
def test_what_is_for_this_machine_does_not_go_to_a_proxy(
    monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", known)
    monkeypatch.setenv("NO_PROXY", known)
    reach_local_servers()
    reach_local_servers()
    hosts = ([known] if known else []) + ["localhost", "127.0.0.1", "::1"]
    assert os.environ["no_proxy"].split(",") == os.environ["NO_PROXY"].split(",") == hosts


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, no folder named for Ray, and no token."""
    for name in ("RAY_TMPDIR", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_ray_gets_a_short_folder_and_a_token_of_its_own(
    monkeypatch: pytest.MonkeyPatch, short: Path
) -> None:
    longest = f"{short}/{'x' * (MAX_BYTES - len(str(short)) - 1)}"
    monkeypatch.setenv("TMPDIR", longest)
    prepare_machine()
    assert "RAY_TMPDIR" not in os.environ
    assert len(token := os.environ["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.delenv("RAY_AUTH_TOKEN")  # as if a start came after another's end
    monkeypatch.setenv("TMPDIR", f"{longest}x")
    prepare_machine()
    assert (os.environ["RAY_TMPDIR"], os.environ["TMPDIR"]) == ("/tmp", "/tmp")
    assert os.environ["RAY_AUTH_TOKEN"] == token  # Ray has read it, and reads it once
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    monkeypatch.setenv("TMPDIR", "/" + "x" * 100)
    prepare_machine()
    assert (os.environ["RAY_TMPDIR"], os.environ["TMPDIR"]) == (str(short), str(short))
    monkeypatch.setenv("RAY_TMPDIR", "")
    monkeypatch.setenv("TMPDIR", "here")
    monkeypatch.chdir(short)
    prepare_machine()
    assert "RAY_TMPDIR" not in os.environ
    assert os.environ["TMPDIR"] == str(short / "here")


RUNTIME = """
import os
from sweeps.cli.program import have_a_home, use_ray_as_tested
have_a_home()
use_ray_as_tested()
from ray._private.worker import _maybe_modify_runtime_env
from ray.train import UserCallback  # only the newer Ray Train has it
print(_maybe_modify_runtime_env({}, False), os.environ.get("TUNE_RESULT_DIR"))
"""


def test_ray_is_used_as_tested_under_uv_and_with_variables_of_other_projects(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").write_text(shlex.join([sys.executable, "-c", RUNTIME]) + "\nexit\n")
    words, bash = ["uv", "run"], shutil.which("bash")  # Ray looks for such a process
    others = environment(RAY_TRAIN_V2_ENABLED="0", TUNE_RESULT_DIR="/old")
    done = subprocess.run(
        words, executable=bash, cwd=tmp_path, env=others, capture_output=True, check=True
    )
    assert done.stdout.decode().split() == ["{}", "None"]


def test_a_folder_in_which_ray_cannot_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, short: Path
) -> None:
    def told(folder: object) -> str:
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        with pytest.raises(StoreError, match="set RAY_TMPDIR to a folder") as error:
            prepare_machine()
        return str(error.value)

    assert "too long" in told("/" + "x" * MAX_BYTES)
    (short / "file").touch()
    assert "File exists" in told(short / "file")
    assert "Not a directory" in told(short / "file/below")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != short)
    assert "not writable" in told(short)
    (short / "ray").mkdir()
    prepare_machine()
    monkeypatch.setattr(os, "access", lambda path, _mode: path != short / "ray")
    assert "/ray: not writable" in told(short)


def test_a_deleted_current_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = sweeps("status", "--store", "here")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: the current folder was deleted")


def test_a_folder_in_the_place_of_a_file_to_write_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(SystemExit), explained():
        write_json(tmp_path / "run.json", {})
    told = f"error: {tmp_path}/run.json: a folder in the place of a file; delete or rename it\n"
    assert capsys.readouterr().err == told


def test_a_full_disk_is_one_line_and_a_failing_one_is_not_foreseen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # the last one by `ulimit -f`
        with pytest.raises(SystemExit) as end, explained():
            raise OSError(number, os.strerror(number))
        assert end.value.code == 2
        assert capsys.readouterr().err == (
            f"error: the disk that is written to: {os.strerror(number)}; free space or raise the "
            "limit, and give the same command again\n"
        )
    for at_work in (whole_or_absent(tmp_path / "a.json"), temporary(tmp_path / ".part")):
        with pytest.raises(SystemExit), explained(), at_work:
            raise OSError(errno.ENOSPC, "No space left on device")
    said = capsys.readouterr().err
    assert f"error: {tmp_path}/a.json: No space" in said
    assert f"error: {tmp_path}: No space" in said
    with pytest.raises(SystemExit), explained(), whole_or_absent(tmp_path / "a.json") as partial:
        raise OSError(errno.EACCES, "Permission denied", str(partial))
    assert f"error: {tmp_path}/a.json: Permission" in capsys.readouterr().err
    with pytest.raises(SystemExit), explained():
        raise OSError(errno.ENOSPC, "No space left on device", "/source/a.jpg", None, "/copy/a.jpg")
    assert capsys.readouterr().err.startswith("error: /copy/a.jpg: No space left")
    with pytest.raises(OSError, match="Input/output"), explained():
        raise OSError(errno.EIO, "Input/output error", "/some/file")
