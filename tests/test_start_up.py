"""The commands start fast: what each of them imports."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import sweeps.cli
import sweeps.cli.method
from sweeps.plan.sweep import make_sweep, save_sweep
from sweeps.store.code_version import code_version
from sweeps.store.store import Store
from wsss.data.drawn import draw_voc

REPO = Path(__file__).parents[1]
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


def at_the_end(shown: str, code: str, *words: str, folder: Path = REPO) -> Any:
    """The value of an expression in a new interpreter when some code has ended."""
    code = (
        f"import atexit, json, sys\nsys.path.insert(0, {str(REPO)!r})\n"
        f"atexit.register(lambda: print('', json.dumps({shown}), sep='\\n'))\n{code}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_by(name: str, *words: str, folder: Path = REPO) -> set[str]:
    """The modules that a command has imported when it ends."""
    code = f"from {APPS[name].__name__} import app\napp()"
    return set(at_the_end("sorted(sys.modules)", code, *words, folder=folder))


@pytest.mark.parametrize("name", APPS)
def test_the_help_has_a_line_per_command_below_the_headings(name: str) -> None:
    app = APPS[name].app
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--help"], prog_name=name)
    assert result.exit_code == 0
    for panel, commands in APPS[name].PANELS.items():
        assert panel in result.output
        for command in commands:
            word = command.__name__.replace("_", "-")
            line = " ".join((command.__doc__ or "").split("\n\n")[0].split())
            assert f" {word} " in result.output
            assert line in result.output


@pytest.mark.parametrize("name", APPS)
def test_the_help_of_each_command_has_all_its_words_on_a_narrow_terminal(name: str) -> None:
    program, runner = get_command(APPS[name].app), CliRunner(env={"COLUMNS": "80"})
    for word, command in getattr(program, "commands", {}).items():
        output = runner.invoke(APPS[name].app, [word, "--help"]).output
        shown = " ".join(output.replace("│", " ").split())
        texts = [inspect.getdoc(command.callback), *(each.help for each in command.params)]
        for text in filter(None, texts):
            assert " ".join(text.replace("\\[", "[").split()) in shown, word


@pytest.mark.parametrize("name", APPS)
def test_a_misspelt_command_is_refused_and_the_right_one_named(name: str) -> None:
    word = {"sweeps": "plna", "wsss": "infre"}[name]
    result = CliRunner().invoke(APPS[name].app, [word])
    assert result.exit_code == 2
    assert {"sweeps": "plan", "wsss": "infer"}[name] in result.output


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


@pytest.mark.parametrize("words", [("--help",), ("plan", "--help"), ("submit", "--help")])
def test_the_help_imports_nothing_for_the_work(words: tuple[str, ...]) -> None:
    loaded = run_by("sweeps", *words)
    assert {"sweeps.cli.headline", "typer"} <= loaded
    # Typer itself asks pydantic about the types of a command's options, where it is installed.
    assert not loaded & (SLOW if words == ("--help",) else SLOW - {"pydantic"})
    assert "wsss.config" not in loaded


def test_the_help_of_the_method_imports_nothing_for_the_work() -> None:
    loaded = run_by("wsss", "--help")
    assert {"sweeps.cli.stages", "typer"} <= loaded
    assert not loaded & SLOW


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with drawn data, checked before, and a sweep of which nothing is done."""
    folder = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WSSS_CACHE", str(folder / "cache"))
        patched.delenv("WSSS_STORE", raising=False)
        sweep, _ = make_sweep(
            ["V"], preset="tiny", data=draw_voc(folder / "data/drawn"), weights=None, num_seeds=1,
            overrides={},
        )  # fmt: skip
        save_sweep(Store(folder / "results"), sweep)
        yield folder


@pytest.mark.parametrize("words", SHORT)
def test_a_command_that_only_reads_loads_what_it_needs_and_no_more(
    planned: Path, words: tuple[str, ...]
) -> None:
    loaded = run_by("sweeps", *words, folder=planned)
    assert {"sweeps.store.store", "sweeps.plan.sweep", "wsss.config", "rich.console"} <= loaded
    installed = {name for name in packages_distributions() if not name.startswith("_")}
    assert {name.split(".")[0] for name in loaded} & installed <= NEEDED | {*APPS}
    assert not loaded & {"sweeps.store.remote", "sweeps.store.bucket", "sweeps.store.lease"}
    of_data = {name for name in loaded if name.startswith("wsss.data.")}
    lists = {f"wsss.data.{name}" for name in ("classes", "files", "voc", "check", "drawn")}
    assert of_data == (lists if words[0] == "plan" else set())


@pytest.mark.parametrize("words", [*SHORT, ("sync", "--help")])
def test_only_a_command_that_only_reads_leaves_its_modules_to_the_system(
    planned: Path, words: tuple[str, ...]
) -> None:
    code = "import gc\nfrom sweeps.cli import app\napp()"
    frozen = at_the_end("gc.get_freeze_count()", code, *words, folder=planned)
    assert frozen > 10_000 if words in SHORT else frozen < 1_000
