"""What README and docs name exists: commands, options, targets, settings, tests, files."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import sweeps.cli
import sweeps.cli.method
from wsss.config import RunConfig
from wsss.data.drawn.folder import DRAWN, draw_voc
from wsss.overrides import apply_overrides
from wsss.recipes import RECIPES

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
PROGRAMS = {
    "sweeps": typer.main.get_command(sweeps.cli.app),
    "wsss": typer.main.get_command(sweeps.cli.method.app),
}
MAKEFILE = (REPO / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE))


def code(page: Path) -> Iterator[str]:
    """Yield what a page shows as code: lines of its blocks, continued ones joined, and spans."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    block = re.compile(r"^```.*?^```$|^(?: {4}[^\n]*\n)+", re.MULTILINE | re.DOTALL)
    for found in block.findall(text):
        yield from (line.strip() for line in found.splitlines())
    yield from re.findall(r"`([^`]+)`", block.sub("", text).replace("\n", " "))


def commands(page: Path, program: str) -> Iterator[list[str]]:
    """Yield the words of each call of a program that a page shows, comments left out."""
    for line in code(page):
        for part in re.split(r"&&|\|(?= )|;", re.sub(r"\s#.*", "", line)):
            words = part.split()
            if words[:1] == [program] and len(words) > 1:
                yield words


def problems(words: list[str]) -> Iterator[str]:
    """Say which command or option of a call does not exist."""
    command: Any = PROGRAMS[words[0]]
    for word in words[1:]:
        option = word.split("=")[0].strip("[],.")
        if hasattr(command, "commands") and not option.startswith("-"):
            if option not in command.commands:
                yield f"{' '.join(words)}: no command {option}"
                return
            command = command.commands[option]
        elif option.startswith("--"):
            known = {name for parameter in command.params for name in parameter.opts}
            known |= {name for parameter in command.params for name in parameter.secondary_opts}
            if option not in known | {"--help"}:
                yield f"{' '.join(words)}: no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_on_a_page_exists(page: Path) -> None:
    calls = [words for program in PROGRAMS for words in commands(page, program)]
    assert [problem for words in calls for problem in problems(words)] == []
    assert all(shlex.split(" ".join(words)) for words in calls)  # a shell can split them


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_of_what_needs_words_or_data_has_an_example_that_exists(program: str) -> None:
    whole: Any = PROGRAMS[program]
    given = dict(whole.commands)
    if data := given.pop("data", None):
        given |= {f"data {name}": command for name, command in data.commands.items()}
    for name, command in given.items():
        lines = (command.help or "").splitlines()
        examples = [each.split() for each in lines if each.strip().startswith(f"{program} {name} ")]
        assert [problem for words in examples for problem in problems(words)] == []
        takes = command.params
        if any(each.required or "--data" in each.opts for each in takes):
            assert examples, name


def test_the_pages_show_commands_at_all() -> None:
    shown = {tuple(words[:2]) for page in PAGES for words in commands(page, "sweeps")}
    assert {("sweeps", "report"), ("sweeps", "status"), ("sweeps", "attach")} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_and_variable_on_a_page_exists(page: Path) -> None:
    for words in commands(page, "make"):
        for word in words[1:]:
            name, given, _ = word.partition("=")
            if given and re.fullmatch("[A-Z_]+", name):
                assert name in VARIABLES, words
        target = words[1].strip(".,`")
        if re.fullmatch("[a-z-]+", target):
            assert target in TARGETS, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_on_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link
    for name in re.findall(r"`((?:wsss|sweeps|tests|benchmarks|cluster)/[\w/.-]+)`", text):
        assert (REPO / name).exists(), name
    for name in re.findall(r"`(test_\w+\.py)`", text):
        assert list((REPO / "tests").rglob(name)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_on_a_page_exists(page: Path) -> None:
    known = {
        f"{group}.{name}"
        for group, field in RunConfig.model_fields.items()
        for name in getattr(field.annotation, "model_fields", {})
    }
    groups = {name.split(".")[0] for name in known}
    for line in code(page):
        for group, name in re.findall(r"(?<![\w./-])([a-z]+)\.([a-z_]+)(?=[ =,;]|$)", line):
            if group in groups and name not in ("py", "json", "md"):
                assert f"{group}.{name}" in known, line


def test_every_option_that_make_passes_exists() -> None:
    """Of the recipes' own text; a variable's value is a person's."""
    options = set(re.findall(r"(?<=[ (,])--[a-z][a-z-]+", MAKEFILE))
    known = {
        name
        for program in PROGRAMS.values()
        for command in getattr(program, "commands", {}).values()
        for parameter in command.params
        for name in parameter.opts
    }
    assert {"--data", "--seeds"} <= known
    foreign = {
        *("--quiet", "--upgrade", "--requirement", "--no-deps", "--editable"),
        *("--dist", "--no-loadscope-reorder", "--check", "--four", "--large"),
    }
    assert options - foreign <= known


def test_a_moved_or_copied_checkout_gets_its_own_environment(tmp_path: Path) -> None:
    """The programs in a copied .venv would run the code of the original."""
    stamp = tmp_path / ".venv" / ".installed"
    stamp.parent.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(REPO / name, tmp_path)

    def shown(made_in: object, *words: str) -> str:
        stamp.write_text(f"{made_in}\n", encoding="utf-8")
        dry = ["make", "-n", "setup", *words]
        return subprocess.run(dry, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "Nothing to be done" in shown(tmp_path)
    assert "Nothing to be done" in shown("")  # as older versions left it
    assert "rm -rf .venv\n" in (moved := shown("/elsewhere"))
    assert moved.index("rm -rf") < moved.index("--editable") < moved.index(f"echo '{tmp_path}' >")
    shared = shown("/elsewhere", f"VENV={stamp.parent}")
    assert "--editable" in shared
    assert "rm -rf" not in shared


def test_make_takes_the_pythons_of_the_locked_packages_and_makes_a_half_made_environment_again(
    tmp_path: Path,
) -> None:
    """Debian without python3-venv leaves an environment that has Python, but no pip."""
    python, half_made = tmp_path / "python", tmp_path / "env" / "bin" / "python"
    python.write_text(
        f"""#!/bin/sh
[ "$1" = -c ] && exec {shlex.quote(sys.executable)} -c "import sys; sys.version_info = $VERSION; $2"
echo "asked for: $* in $TMPDIR"
[ "$2" = pip ]
""",
        encoding="utf-8",
    )
    python.chmod(0o755)
    half_made.parent.mkdir(parents=True)
    shutil.copy(python, half_made)

    def said(version: str) -> str:
        words = ["make", "setup", f"PYTHON={python}", f"VENV={tmp_path / 'env'}"]
        made = {"PATH": os.environ["PATH"], "TMPDIR": "/tmp", "VERSION": version}
        return subprocess.run(words, cwd=REPO, env=made, stdout=subprocess.PIPE, text=True).stdout

    project = (REPO / "pyproject.toml").read_text(encoding="utf-8")
    ((lowest, above),) = re.findall(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project)
    pythons = f"Python 3.{lowest} to 3.{int(above) - 1}"
    for name in ("README.md", "docs/cluster.md", "cluster.onprem.yaml"):
        assert pythons in (REPO / name).read_text(encoding="utf-8")
    for version in (f"(3, {int(lowest) - 1}, 9)", f"(3, {above}, 0)"):
        assert f"{python} is not {pythons}" in said(version)
    for version in (f"(3, {lowest}, 0)", f"(3, {int(above) - 1}, 9)"):
        assert f"asked for: -m venv {tmp_path / 'env'} in /tmp\n" in said(version)
    shutil.copy(python, half_made.with_name("pip"))
    printed = said(f"(3, {lowest}, 0)")
    assert "venv {tmp_path" not in printed
    assert f"--requirement requirements.lock in {tmp_path / 'env'}\n" in printed, "not in memory"


def test_make_names_a_variable_that_it_does_not_have() -> None:
    def said(*words: str) -> str:
        dry = ["make", "-n", "help", *words]
        return subprocess.run(dry, cwd=REPO, capture_output=True, text=True, check=True).stderr

    assert "SEED is none of the variables here" in said("SEED=3", "SEEDS=3")
    assert said(*(f"{name}=x" for name in VARIABLES), "WSSS_STORE=x") == ""


def test_make_takes_the_store_that_the_programs_take() -> None:
    def shown(*words: str, **variables: str) -> str:
        dry = ["make", "-n", "VENV=env", "-o", "env/.installed", *words]
        made = {"PATH": os.environ["PATH"], **variables}
        done = subprocess.run(dry, cwd=REPO, env=made, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert "--store 'results'" in shown("plan")
    assert "--store '/lab/a b'" in shown("plan", WSSS_STORE="/lab/a b")
    assert "--store 'mine'" in shown("plan", "STORE=mine", WSSS_STORE="/lab")
    cluster = "ADDRESS=http://head:8265"
    assert "--store" not in shown("sweep-lambdas", cluster, WSSS_STORE="/lab")  # it has its own
    assert "--store 's3://b/p'" in shown("sweep-lambdas", cluster, "STORE=s3://b/p")
    for target in ("plan", "table", "report", "mlflow"):
        assert "this reads STORE here" in shown(target, cluster)


def test_make_leaves_no_drawn_data_set_out() -> None:
    assert f"DRAWN := {' '.join(DRAWN)}\n" in MAKEFILE


def test_each_variable_of_make_is_explained() -> None:
    page = (REPO / "docs" / "using.md").read_text(encoding="utf-8")
    named = set(" ".join(re.findall(r'@echo "  ([A-Z_ ]+)[;"]', MAKEFILE)).split())
    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+) \|", page, re.MULTILINE)
    assert {"DATA", "EXPORT"} <= named <= VARIABLES <= set(re.findall("[A-Z_]+", str(rows)))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_page_on_commands_names_all_of_them(program: str) -> None:
    page = (REPO / "docs" / "using.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z-]+)`", page[page.index("## Commands") :]))
    named |= {"data"} if "`data check`" in page else set()
    assert getattr(PROGRAMS[program], "commands", {}).keys() <= named


def test_the_recipes_on_the_pages_are_those_that_exist() -> None:
    page = (REPO / "docs" / "using.md").read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `RECIPE`"))
    assert set(re.findall(r"`(\w+)`", row)) - {"RECIPE"} == set(RECIPES)


def test_the_stage_on_the_page_runs_and_its_id_covers_how_it_infers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    draw_voc(tmp_path / "data/drawn", num_train=8, num_extra=0, num_val=2)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec("".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), names)
    stage, config = names["LargeCams"], names["config"]
    assert len(list(Path("results", stage(config).rel).glob("*.npz"))) == 8
    unflipped = apply_overrides(config, {"labels.flip": False})
    assert stage(unflipped).id() != stage(config).id()


def test_the_table_on_the_page_is_the_projects_own() -> None:
    page = (REPO / "docs" / "tables.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert entry in (REPO / "sweeps/tables/studies.py").read_text(encoding="utf-8")
