"""The commands start fast: each imports what it needs, and shows the help of any Typer app."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import sweeps.cli
import wsss.cli
from sweeps.plan.sweep import make_sweep, save_sweep
from sweeps.store.store import Store
from wsss.data.drawn import draw_voc
from wsss.lazy_cli import Lazy, Unloaded, lazy_app

REPO = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "ray", "mlflow", "matplotlib", "scipy", "optuna", "boto3"}
APPS = {"sweeps": sweeps.cli, "wsss": wsss.cli}
SHORT = [("plan", "V"), ("status",), ("table",)]
"""Commands that only read, which a person waits for."""
NEEDED = {
    *("typer", "annotated_doc", "shellingham", "rich", "typing_extensions"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
}
"""The installed packages which those may load: Pillow, PyYAML or filelock would take long."""
COMMANDS = [(name, command) for name, module in APPS.items() for command in module.COMMANDS]


def ordinary(name: str) -> typer.Typer:
    """The same app as Typer's documentation makes it: every command imported and registered."""
    app = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
        help=APPS[name].app.info.help,
    )  # fmt: skip
    for command, lazy in APPS[name].COMMANDS.items():
        found = resolve_name(lazy.place)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=command)
        else:
            app.command(command)(found)
    return app


def answer(app: typer.Typer, name: str, *words: str) -> tuple[int, str]:
    """What an app prints, on both streams, and its exit code."""
    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, words, prog_name=name)
    return result.exit_code, result.output


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


def loaded_by(code: str, *words: str, folder: Path = REPO) -> set[str]:
    """The modules that a new interpreter has imported at the end of some code."""
    return set(at_the_end("sorted(sys.modules)", code, *words, folder=folder))


def run_by(name: str, *words: str, folder: Path = REPO) -> set[str]:
    """The modules that a command has imported when it ends."""
    return loaded_by(f"from {name}.cli import app\napp()", *words, folder=folder)


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize("words", [("--help",), (), ("plna",), ("infre",), ("--hlep",)])
def test_a_group_answers_as_an_ordinary_app_does(name: str, words: tuple[str, ...]) -> None:
    expected = answer(ordinary(name), name, *words)
    assert answer(APPS[name].app, name, *words) == expected
    assert len(expected[1]) > 100


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_a_command_answers_as_in_an_ordinary_app(name: str, command: str) -> None:
    for words in (["--help"], ["--no-such-option"]):
        expected = answer(ordinary(name), name, command, *words)
        assert answer(APPS[name].app, name, command, *words) == expected
        assert f"{name} {command}" in expected[1]


def test_the_commands_of_a_group_in_a_group_are_there() -> None:
    code, text = answer(wsss.cli.app, "wsss", "data", "check", "--help")
    assert code == 0
    assert "folder in VOC layout" in text
    code, text = answer(wsss.cli.app, "wsss", "data", "chekc")
    assert code == 2
    assert "No such command 'chekc'. Did you mean 'check'?" in text


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_a_line_of_the_help_is_the_first_paragraph_of_the_commands_own(
    name: str, command: str
) -> None:
    lazy = APPS[name].COMMANDS[command]
    found = resolve_name(lazy.place)
    text = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert lazy.help == " ".join(text.split("\n\n")[0].split())


@pytest.mark.parametrize("name", APPS)
def test_shells_complete_commands_and_options_as_of_an_ordinary_app(name: str) -> None:
    def completions(app: typer.Typer) -> list[tuple[str, str | None]]:
        group: Any = get_command(app)
        with group.make_context(name, [], resilient_parsing=True) as context:
            found = [
                item for start in ("", "s", "--") for item in group.shell_complete(context, start)
            ]
            for word in APPS[name].COMMANDS:
                _, command, _ = group.resolve_command(context, [word])
                with command.make_context(word, [], parent=context, resilient_parsing=True) as own:
                    found += command.shell_complete(own, "--")
        return [(item.value, item.help) for item in found]

    expected = completions(ordinary(name))
    assert completions(APPS[name].app) == expected
    assert len(expected) > 2 * len(APPS[name].COMMANDS)


@pytest.mark.parametrize("name", APPS)
def test_the_help_of_a_group_imports_no_command_and_none_of_its_packages(name: str) -> None:
    loaded = run_by(name, "--help")
    assert {f"{name}.cli", "wsss.lazy_cli", "typer"} <= loaded
    ours = {module for module in loaded if module.split(".")[0] in APPS}
    assert ours <= {"sweeps", "sweeps.cli", "wsss", "wsss.cli", "wsss.lazy_cli"}
    assert not loaded & {*HEAVY, "numpy", "PIL", "pydantic", "yaml", "filelock"}


@pytest.mark.parametrize(
    ("name", "command"), [("sweeps", "plan"), ("sweeps", "submit"), ("wsss", "infer")]
)
def test_the_help_of_a_command_imports_nothing_for_its_work(name: str, command: str) -> None:
    loaded = run_by(name, command, "--help")
    assert APPS[name].COMMANDS[command].place.split(":")[0] in loaded
    # pydantic is not ours to leave out: Typer reads options' types by it where it is installed
    assert not loaded & {*HEAVY, "numpy", "PIL", "yaml", "filelock"}
    assert "wsss.config" not in loaded


def test_the_modules_of_all_commands_import_no_heavy_package() -> None:
    places = [
        lazy.place.split(":")[0] for module in APPS.values() for lazy in module.COMMANDS.values()
    ]
    loaded = loaded_by("\n".join(f"import {place}" for place in places))
    assert set(places) <= loaded
    assert not loaded & HEAVY


def test_a_plan_on_drawn_data_imports_no_heavy_package(tmp_path: Path) -> None:
    draw_voc(tmp_path / "data/drawn")
    loaded = run_by("sweeps", "plan", "V", folder=tmp_path)
    assert {"sweeps.report.live.plan_view", "pydantic"} <= loaded
    assert not loaded & HEAVY


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with drawn data, checked before, and a sweep of which nothing is done."""
    folder = tmp_path_factory.mktemp("planned")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("WSSS_CACHE", str(folder / "cache"))
        for name in ("WSSS_STORE", "PYDANTIC_DISABLE_PLUGINS"):
            patched.delenv(name, raising=False)
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
    lists = {f"wsss.data.{name}" for name in ("classes", "lists", "check", "check_cache", "drawn")}
    assert of_data == (lists if words[0] == "plan" else set())


@pytest.mark.parametrize("words", SHORT)
def test_a_command_that_only_reads_opens_no_metadata_of_installed_packages(
    planned: Path, words: tuple[str, ...]
) -> None:
    def opened(code: str) -> list[str]:
        code = (
            "opened = []\n"
            "def note(event, given):\n"
            "    if event == 'open':\n"
            "        opened.append(str(given[0]))\n"
            f"sys.addaudithook(note)\n{code}"
        )
        found = at_the_end(
            "[n for n in opened if n.endswith('entry_points.txt')]", code, *words, folder=planned
        )
        assert isinstance(found, list)
        return found

    assert opened("from sweeps.cli import app\napp()") == []
    assert opened("import wsss.config") != []  # pydantic looks for plugins, unless told not to


@pytest.mark.parametrize("words", [*SHORT, ("sync", "--help")])
def test_only_a_command_that_only_reads_leaves_its_modules_to_the_system(
    planned: Path, words: tuple[str, ...]
) -> None:
    code = "import gc\nfrom sweeps.cli import app\napp()"
    frozen = at_the_end("gc.get_freeze_count()", code, *words, folder=planned)
    assert frozen > 10_000 if words in SHORT else frozen < 1_000


def test_a_place_that_is_not_there_fails_only_when_its_command_is_chosen() -> None:
    app = lazy_app(
        "two", {"here": Lazy("os.path:exists", "Is"), "gone": Lazy("no.such:one", "No.")}
    )
    assert answer(app, "two", "--help")[0] == 0
    group: Any = get_command(app)
    assert all(isinstance(command, Unloaded) for command in group.commands.values())
    with pytest.raises(ModuleNotFoundError, match="No module named 'no'"):
        group.commands["gone"].load()
