"""What a message tells one to do works when it is done to the letter."""

import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import SHRUNK, options, program, sweeps
from made_up.finished import fill, finished_sweep, tiny_sweep
from torchvision.models import mobilenet_v2

from sweeps.plan.run_command import run_command
from sweeps.plan.sweep import BaseOptions, make_sweep
from sweeps.store.store import Store
from wsss.basics.printable import command, own_command, own_words
from wsss.overrides import parse_assignments

SMALL = {name: value for name, value in SHRUNK.items() if name != "train.batch_size"}


def give(line: str) -> str:
    """Give a printed command, which must succeed; return what it prints."""
    words = shlex.split(line)
    assert words[:2] == [sys.executable, "-m"], "as this process was not started by a program"
    result = program(*words[2:])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: str | Path) -> str:
    """Return what a command of `sweeps` or `wsss` says that must be refused."""
    result = program(*words)
    assert result.exit_code == 2, result.output
    return result.stderr


@pytest.fixture
def address() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def wrong_weights(path: Path) -> Path:
    torch.save({"features.weight": torch.zeros(1)}, path)
    return path


@pytest.mark.parametrize(
    ("program", "words"), [("sweeps", ("settings", "train.lr")), ("wsss", ("plan", "V"))]
)
def test_a_command_of_the_other_program_is_named_as_it_works(
    program: str, words: tuple[str, ...]
) -> None:
    give(refused(program, *words).partition("; give: ")[2])


def test_a_printed_program_is_a_word_if_the_shell_finds_it_else_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sweeps", "wsss"):
        (tmp_path / "a b").mkdir(exist_ok=True)
        (tmp_path / "a b" / name).touch(mode=0o755)
    started = tmp_path / "a b" / "sweeps"
    monkeypatch.setattr(sys, "argv", [str(started), "run", "V", "--store", "my st"])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert command("wsss", "infer", "--run", "x") == f"'{tmp_path}/a b/wsss' infer --run x"
    assert own_command() == f"'{started}' run V --store 'my st'"
    monkeypatch.setenv("PATH", f"{tmp_path / 'a b'}:/usr/bin")
    assert command("wsss", "infer") == "wsss infer"
    assert own_command("--retry-failed") == "sweeps run V --store 'my st' --retry-failed"
    (tmp_path / "other").mkdir()
    shutil.copy(started, tmp_path / "other" / "sweeps")
    monkeypatch.setenv("PATH", f"{tmp_path / 'other'}:/usr/bin")
    assert own_words()[0] == str(started), "another one is found first"


@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("/x/wsss/__main__.py", [sys.executable, "-m", "wsss"]),
        ("/x/chaos_driver.py", [sys.executable, "/x/chaos_driver.py"]),
    ],
)
def test_a_module_or_script_is_started_again_as_it_was(
    path: str, start: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [path, "a"])
    assert own_words() == [*start, "a"]
    assert command("sweeps", "plan") == shlex.join([sys.executable, "-m", "sweeps", "plan"])


@pytest.mark.parametrize(
    ("preset", "seeds", "settings"),
    [
        ("tiny", 1, ()),
        ("short-irn", 3, ("labels.scales=[0.5, 1]", "train.clip_norm=null", "train.lr=0.03")),
    ],
)
def test_a_failed_sweep_is_run_again_by_the_command_that_its_status_prints(
    drawn: Path, tmp_path: Path, preset: str, seeds: int, settings: tuple[str, ...]
) -> None:
    weights = str(tmp_path / "my weights.pt") if preset != "tiny" else None
    if weights:
        torch.save(mobilenet_v2().state_dict(), weights)
    base = BaseOptions(preset, drawn, weights, parse_assignments(list(settings)))
    sweep, _ = make_sweep(["V", "modules"], base, seeds)
    store = Store(tmp_path / "st")
    fill(store, sweep, lambda trial: None)
    store.run(sweep.plan.trials[0].run_id).fail("died", "no memory", "")
    status = sweeps("status", "--store", store.root, COLUMNS="999")
    (line,) = re.findall("run them again with: (.*)", status.stdout)
    assert line == run_command(sweep, store, "--retry-failed")
    planned = line.replace(" run ", " plan ", 1).replace(" --retry-failed", " --json")
    assert f'"sweep": "{sweep.name}"' in give(planned)


def test_a_refused_start_leaves_no_sweep_and_what_is_said_then_starts_one(
    drawn: Path, tmp_path: Path
) -> None:
    store, words = tmp_path / "st", ("--data", drawn, "--preset", "tiny")
    fill(Store(store), finished_sweep(("calibrate",), 1), lambda trial: 0.5)
    weights = wrong_weights(tmp_path / "w.pt")
    told = refused("sweeps", "run", "V", *words, "--weights", weights, "--store", store)
    assert "w.pt: no weights of resnet10_narrow" in told
    assert "calibrate" in sweeps("status", "--store", store).stdout
    none = refused("sweeps", "status", "--store", tmp_path / "none")
    (line,) = re.findall("e.g. with: (.*)", none)
    assert line == command("sweeps", "run", "V", "--store", tmp_path / "none")


def test_a_failed_trial_that_is_not_tried_again_is_not_done(
    drawn: Path, tmp_path: Path, mlflow_database: Path
) -> None:
    store, sweep = Store(tmp_path / "st"), tiny_sweep(drawn, "VI")
    fill(store, sweep, lambda trial: 0.5)
    shutil.copy(mlflow_database, store.root)
    run = store.run(sweep.plan.trials[0].run_id)
    (run.path / "done.json").unlink()
    run.fail("diverged", "loss is not finite", "trace")
    words = ("--data", drawn, "--preset", "tiny", "--store", store.root)
    done = sweeps("run", "VI", *words)
    assert done.exit_code == 1, done.output
    assert "3 of 4 trials done, 1 failed, 0 to run" in done.stdout


def test_where_nothing_is_left_to_run_no_cluster_is_needed(
    drawn: Path, tmp_path: Path, address: str, mlflow_database: Path
) -> None:
    words = ["run", "VI", "--data", str(drawn), "--preset", "tiny", "--store", str(tmp_path / "st")]
    joining = [*words, "--address", address]
    fill(Store(tmp_path / "st"), tiny_sweep(drawn, "VI"), lambda trial: 0.5)
    shutil.copy(mlflow_database, tmp_path / "st")
    done = sweeps(*joining)
    assert done.exit_code == 0, done.output
    assert "4 of 4 trials done, 0 to run" in done.stdout
    assert "Table VI" in done.stdout
    assert "nothing listens" in refused("sweeps", *joining, "--probe", "10")
    assert "nothing listens" in refused("sweeps", *joining, "--seeds", "2")


@pytest.mark.parametrize("words", [("run", "V"), ("search",), ("headline", "none"), ("calibrate",)])
def test_a_dead_cluster_is_told_before_torch_is_loaded_and_nothing_is_in_the_store(
    words: tuple[str, ...], drawn: Path, tmp_path: Path, address: str
) -> None:
    code = "import atexit, sys\natexit.register(lambda: print('torch' in sys.modules))\n"
    code += "from sweeps.cli import app\napp()"
    common = ["--data", drawn, "--preset", "tiny", "--store", tmp_path, "--address", address]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, *map(str, common)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "nothing listens" in done.stderr
    assert done.stdout == "False\n"
    assert "no sweep, search or headline yet" in sweeps("list", "--store", tmp_path).stdout


def test_each_command_names_the_one_it_needs_and_a_refused_training_leaves_its_folder_to_the_next(
    drawn: Path, tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    (start,) = re.findall("first with: (.*) --data FOLDER", refused("wsss", "infer", "--run", run))
    asked = ("--data", str(drawn), "--preset", "tiny", *options(SMALL))
    words = ("train-cam", "--run", run, *asked)
    refused("wsss", *words, "--weights", wrong_weights(tmp_path / "w.pt"))
    told = refused("wsss", *words, "--set", "train.batch_size=64")
    (remedy,) = re.findall(r"lower --set (train\.batch_size) to 16 or less", told)
    line = f"{start} {shlex.join(asked)} --set {remedy}=16"
    (infer,) = re.findall("trained; next: (.*)", give(line))
    missing = refused("wsss", "evaluate", "--run", run)
    assert f"missing; write it with: {infer} --split train\n" in missing
    (evaluate,) = re.findall("CAMs of 10 images \\(10 new\\)\nnext: (.*)", give(infer))
    (label,) = re.findall("next: (.*)", give(evaluate))
    assert "16 label maps" in give(label)
    before = (run / "run.json").read_bytes()
    assert "other settings; choose another --run" in refused("wsss", *words, "--set", "rng_seed=3")
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize("line", ["sweeps --help", "sweeps plan --help", "wsss --help"])
def test_help_on_a_full_disk_is_one_line(line: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", *line.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch("error: .*: No space left on device; free space .*\n", done.stderr)
