"""The job of a SLURM cluster: what `sweeps slurm` writes and refuses, and the script's own form."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from commands import sweeps

from sweeps.cluster.slurm import JOB
from wsss.training.execution import Execution


def give(*words: object) -> tuple[int, str]:
    done = sweeps("slurm", *words, COLUMNS="200")
    return done.exit_code, done.output


@pytest.fixture
def job(drawn: Path, tmp_path: Path) -> Path:
    path = tmp_path / "my jobs" / "a job.sbatch"
    asked = ("V", "VI", "--nodes", 3, "--gpus-per-node", 4, "--hours", 1.5, "--partition", "gpu")
    where = ("--out", path, "--data", drawn, "--store", tmp_path / "the store")
    code, said = give(*asked, *where, "--gpus", 1, "--set", "labels.scales=[0.5, 1]")
    assert code == 0, said
    assert f"sbatch '{path}'" in said
    assert f"sweeps status --store '{tmp_path / 'the store'}' --watch" in said
    return path


def test_a_job_asks_slurm_for_what_was_asked_for(job: Path) -> None:
    wishes = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", job.read_text(), re.MULTILINE))
    expected = {
        "nodes": "3",
        "gpus-per-node": "4",
        "cpus-per-task": "16",
        "time": "1:30:00",
        "partition": "gpu",
        "ntasks-per-node": "1",
        "requeue": "",
    }
    assert expected.items() <= wishes.items()
    seconds = int(wishes["signal"].removeprefix("B:USR1@"))
    assert seconds > 60 * Execution().checkpoint_minutes  # else the limit comes first
    numbers = [n for n, line in enumerate(job.read_text().splitlines()) if "#SBATCH" in line]
    first = next(n for n, line in enumerate(job.read_text().splitlines()) if line[:1] not in "#")
    assert max(numbers) < first  # SLURM reads no further


def test_a_job_runs_what_was_asked_for(job: Path, drawn: Path) -> None:
    (line,) = re.findall(r"^set -- (.*)$", job.read_text(), re.MULTILINE)
    words = ["run", "V", "VI", "--data", str(drawn), "--set", "labels.scales=[0.5, 1]"]
    words += ["--gpus", "1.0", "--store", str(job.parents[1] / "the store")]
    assert shlex.split(line) == words


def test_a_job_is_a_script_that_bash_can_read(job: Path) -> None:
    assert subprocess.run(["bash", "-n", job], check=False).returncode == 0


def test_a_file_of_somebody_else_is_left_alone_and_an_own_one_replaced(
    job: Path, drawn: Path, tmp_path: Path
) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    code, output = give("V", "--data", drawn, "--out", other)
    assert (code, other.read_text()) == (2, "mine"), output
    assert give("V", "--data", drawn, "--out", job)[0] == 0
    assert "VI" not in job.read_text()


def test_without_words_the_job_says_what_it_wants(tmp_path: Path) -> None:
    done = subprocess.run(["bash", JOB], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no words for sweeps" in done.stderr


PROGRAMS = {
    "srun": ":",
    "hostname": "echo 10.0.0.1 ",
    "scontrol": '[ "$1" = show ] && echo node0 || { echo "$@" >> scontrol.log; kill -9 "$PPID"; }',
    "python": "{before}",
    "sweeps": "echo began > began; trap 'exit 130' TERM; {during}; "
    "sleep 5 > /dev/null 2>&1 & wait; exit 1",
}
"""SLURM, Ray's start and the sweep as a job sees them. They are the script's children."""


@pytest.mark.parametrize(
    ("before", "during", "begins", "is_requeued"),
    [
        (":", 'kill -USR1 "$PPID"', True, True),
        (":", "exit 130", True, False),  # its budget is spent
        (":", "exit 1", True, False),
        ('kill -USR1 "$PPID"', ":", False, False),  # else it would be so again and again
        ("exit 2", ":", False, False),
    ],
)
def test_a_job_goes_back_into_the_queue_only_when_its_time_is_over_and_the_sweep_came_on(
    before: str, during: str, begins: bool, is_requeued: bool, tmp_path: Path
) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, code in PROGRAMS.items():
        code = code.replace("{before}", before).replace("{during}", during)
        (programs / name).write_text(f"#!/bin/bash\n{code}\n")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node0",
        "SLURM_CPUS_ON_NODE": "2",
    }
    done = subprocess.run(
        ["bash", JOB, "run", "V"],
        cwd=tmp_path,
        env=environment,
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0, done.stdout
    assert (tmp_path / "began").exists() == begins
    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == "requeue 7\n" * is_requeued, done.stderr
