"""The commands start fast: what each of them imports."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import sweeps.cli
import sweeps.cli.method
from sweeps.__main__ import start
from sweeps.cli.options import EXECUTION, LIMITS
from sweeps.plan.sweep import BaseOptions, make_sweep, save_sweep
from sweeps.store.code_version import code_version
from sweeps.store.store import Store
from wsss.data.drawn.folder import draw_voc

REPO = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "ray", "mlflow", "matplotlib", "scipy", "optuna", "boto3"}
SLOW = {*HEAVY, "numpy", "PIL", "pydantic", "yaml", "filelock"}
APPS = {"sweeps": sweeps.cli, "wsss": sweeps.cli.method}
SHORT = [("plan", "V"), ("status",), ("table",)]
"""Commands that only read, which a person waits for."""
NEEDED = {
    *("typer", "annotated_doc", "shellingham", "rich", "typing_extensions"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
}
"""The installed packages which those may load: Pillow, PyYAML or filelock would take long."""


class Ended(NamedTuple):
    """What a command leaves in its process."""

    modules: set[str]
    """Names of those that it has imported."""
    num_frozen: int
    """Objects that it leaves to the system instead of taking them apart."""


def run_by(name: str, *words: str, folder: Path = REPO, code: int = 0) -> Ended:
    """Run a command in a new interpreter."""
    program = (
        f"import atexit, gc, json, sys\nsys.path.insert(0, {str(REPO)!r})\n"
        "atexit.register(lambda: "
        "print('', json.dumps([sorted(sys.modules), gc.get_freeze_count()]), sep='\\n'))\n"
        f"from {APPS[name].__name__} import app\napp()"
    )
    start = [sys.executable, "-c", program]
    done = subprocess.run([*start, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    modules, num_frozen = json.loads(done.stdout.splitlines()[-1])
    return Ended(set(modules), num_frozen)


@pytest.mark.parametrize("name", APPS)
def test_the_help_has_a_line_per_command_below_the_headings(name: str) -> None:
    app = APPS[name].app
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--help"], prog_name=name)
    assert result.exit_code == 0
    for panel, commands in APPS[name].PANELS.items():
        assert panel in result.output
        for command in commands:
            word = command.__name__.removesuffix("_").replace("_", "-")
            line = " ".join((command.__doc__ or "").split("\n\n")[0].split())
            assert f" {word} " in result.output
            assert line in result.output


@pytest.mark.parametrize("name", APPS)
def test_the_help_of_each_command_has_all_its_words_and_options_on_a_narrow_terminal(
    name: str,
) -> None:
    program, runner = get_command(APPS[name].app), CliRunner(env={"COLUMNS": "80"})
    commands = dict(getattr(program, "commands", {}))
    data = commands.pop("data", None)
    commands |= {f"data {word}": command for word, command in data.commands.items()} if data else {}
    for words, command in commands.items():
        result = runner.invoke(APPS[name].app, [*words.split(), "--help"])
        assert result.exit_code == 0
        of_python = re.compile(r"<(?:bool|list|str|int|Path)\b|Usage.*(?:\{|\[\[?)[a-z_]")
        assert of_python.findall(result.output) == []
        shown = " ".join(result.output.replace("│", " ").split())
        texts = [inspect.getdoc(command.callback), *(each.help for each in command.params)]
        for text in filter(None, texts):
            assert " ".join(text.replace("\\[", "[").split()) in shown, words
        options = [option for each in command.params for option in each.opts]
        assert [option for option in options if option[:2] == "--" and option not in shown] == []
        headings = re.findall(f"─ (Options|{EXECUTION}|{LIMITS}) ─", result.output)
        assert headings == sorted(headings, key=["Options", EXECUTION, LIMITS].index), words
        often, seldom = (result.output.find(f"--{word} ") for word in ("cpus", "loader-workers"))
        assert often < seldom or seldom < 0, words


@pytest.mark.parametrize("name", APPS)
def test_a_program_says_its_version_and_commit_and_takes_a_short_word_for_help(name: str) -> None:
    app, runner = APPS[name].app, CliRunner()
    said = runner.invoke(app, ["--version"], prog_name=name)
    assert (said.exit_code, said.output) == (0, f"{name} {code_version()}\n")
    command = {"sweeps": ["plan"], "wsss": ["data", "check"]}[name]
    for words in ([], command):
        short, long = (runner.invoke(app, [*words, option]) for option in ("-h", "--help"))
        assert (short.exit_code, short.output) == (0, long.output)


def test_a_shell_completes_commands() -> None:
    asked = {"_SWEEPS_COMPLETE": "complete_bash", "COMP_WORDS": "sweeps re", "COMP_CWORD": "1"}
    assert CliRunner(env=asked).invoke(sweeps.cli.app, prog_name="sweeps").output == "report\n"


@pytest.mark.parametrize(
    "line", ["sweeps --help", "sweeps plan --help", "sweeps submit --help", "wsss --help"]
)
def test_the_help_imports_nothing_for_the_work(line: str) -> None:
    loaded, num_frozen = run_by(*line.split())
    assert num_frozen < 1_000
    assert {"sweeps.cli.options", "typer"} <= loaded
    # Typer itself asks pydantic about the types of a command's options, where it is installed.
    assert not loaded & (SLOW - {"pydantic"} if line.count(" ") > 1 else SLOW)
    assert "wsss.config" not in loaded


def test_a_folder_of_no_network_is_refused_before_torch_is_loaded() -> None:
    refused = run_by("wsss", "predict", "a.jpg", "--network", "/nowhere", code=2)
    assert "torch" not in refused.modules


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with drawn data, checked before, and a sweep of which nothing is done."""
    folder = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WSSS_CACHE", str(folder / "cache"))
        patched.delenv("WSSS_STORE", raising=False)
        sweep, _ = make_sweep(["V"], BaseOptions("tiny", draw_voc(folder / "data/drawn")))
        save_sweep(Store(folder / "results"), sweep)
        yield folder


@pytest.mark.parametrize("words", SHORT)
def test_a_command_that_only_reads_loads_what_it_needs_and_leaves_it_to_the_system(
    planned: Path, words: tuple[str, ...]
) -> None:
    loaded, num_frozen = run_by("sweeps", *words, folder=planned)
    assert num_frozen > 10_000
    assert {"sweeps.store.store", "sweeps.plan.sweep", "wsss.config", "rich.console"} <= loaded
    installed = {name for name in packages_distributions() if not name.startswith("_")}
    assert {name.split(".")[0] for name in loaded} & installed <= NEEDED | {*APPS}
    assert not loaded & {
        "sweeps.store.remote.mirror",
        "sweeps.store.remote.bucket",
        "sweeps.store.remote.lease",
    }
    of_data = {name for name in loaded if name.startswith("wsss.data.")}
    names = ("classes", "errors", "voc", "check", "check_splits", "report", "drawn", "drawn.folder")
    lists = {f"wsss.data.{name}" for name in names}
    assert of_data == (lists if words[0] == "plan" else set())


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("is_import", [False, True])
def test_a_signal_ends_a_program_without_a_traceback_and_cleans_up(
    tmp_path: Path, name: str, *, is_import: bool
) -> None:
    """What is being imported, as a library that makes another error of it, is loaded first."""
    act = f"os.kill(os.getpid(), signal.{name})"
    (tmp_path / "kept").mkdir()
    (tmp_path / "library.py").write_text(f"""
import os, signal

try:
    exec("{act}")  # of code made from text, Python remembers a KeyboardInterrupt
except KeyboardInterrupt:
    raise RuntimeError
""")
    (tmp_path / "killed.py").write_text(f"""
import os, signal, tempfile, time
from sweeps.__main__ import start

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def app(prog_name):
    with tempfile.TemporaryDirectory(dir="kept"):
        {"import library" if is_import else act}
        time.sleep(30)

start("sweeps", "__main__")
""")
    program = [sys.executable, "-m", "killed"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
    assert list((tmp_path / "kept").iterdir()) == []


def test_ctrl_c_while_a_program_is_loaded_ends_it_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted_program.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended:
        start("sweeps", "interrupted_program")
    assert ended.value.code == 130
