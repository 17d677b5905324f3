"""What needs no cluster: packing, requests, exit codes, archives of results."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from sweeps.cluster import packaging
from sweeps.cluster.connection import Connection, JobError, UnreachableError
from sweeps.cluster.export import pack
from sweeps.cluster.fetch import unpack
from sweeps.cluster.follow import Follower, exit_code
from sweeps.cluster.jobs import Request, entry_point, resume_command, sweep_command
from sweeps.cluster.packaging import PackagingError, make_package, project_files
from sweeps.cluster.tool import printed
from wsss.overrides import ConfigError


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name in ("sweeps/__main__.py", "notes.txt", "data/picture.jpg", "a/.venv/x.py", ".env"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("/data/\n*.log\n")
    (root / "sweeps" / "run.log").write_text("ignored")
    return root


def test_without_git_the_plain_patterns_of_gitignore_decide(project: Path) -> None:
    assert project_files(project) == [".env", ".gitignore", "notes.txt", "sweeps/__main__.py"]


def test_in_a_checkout_untracked_files_go_along_and_ignored_ones_do_not(project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    subprocess.run(["git", "add", "notes.txt"], cwd=project, check=True)
    assert project_files(project) == [".env", ".gitignore", "notes.txt", "sweeps/__main__.py"]


def test_a_package_holds_project_and_extra_files_but_no_secrets(project: Path) -> None:
    extra = {"data/drawn/x.txt": project / "notes.txt"}
    package = make_package(project, project.parent / "p.zip", extra)
    with zipfile.ZipFile(package.path) as archive:
        names = [n for n in archive.namelist() if ".dist-info/" not in n]
        assert names == [".gitignore", "data/drawn/x.txt", "notes.txt", "sweeps/__main__.py"]
        assert archive.read("data/drawn/x.txt") == b"notes.txt"
    assert package.left_out == (".env",)


def test_equal_files_give_equal_packages_whatever_their_dates(project: Path) -> None:
    first = make_package(project, project.parent / "p.zip").path.read_bytes()
    (project / "notes.txt").touch()
    assert make_package(project, project.parent / "q.zip").path.read_bytes() == first
    (project / "notes.txt").write_text("changed")
    assert make_package(project, project.parent / "q.zip").path.read_bytes() != first


def test_a_project_over_the_limit_is_refused_naming_the_largest_files(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "MAX_BYTES", 2**20)
    (project / "big.bin").write_bytes(bytes(2**20))
    with pytest.raises(PackagingError, match=r"1\.0 MiB  big\.bin"):
        make_package(project, project.parent / "p.zip")


def test_a_link_out_of_the_project_is_refused(project: Path) -> None:
    (project.parent / "outside.txt").write_text("x")
    (project / "link.txt").symlink_to(project.parent / "outside.txt")
    with pytest.raises(PackagingError, match=r"link\.txt: a link to .*outside\.txt"):
        make_package(project, project.parent / "p.zip")


def test_a_folder_without_the_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="working-dir"):
        make_package(tmp_path, tmp_path / "p.zip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": ("VII",)}, "no table VII"),
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"settings": ("train.epoch=3",)}, "did you mean train.epochs"),
        ({"data": "data/voc"}, "--data data/voc: give an absolute path"),
        ({"weights": "w.pt"}, "--weights w.pt: give an absolute path"),
        ({"store": "results"}, "--store results: give an absolute path"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused_here(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Request(**{"tables": ("V",), "preset": "tiny", **change}).check()


def test_urls_and_absolute_paths_are_the_clusters() -> None:
    Request(("V",), "short", "/data/voc", "/w.pt", (), "s3://bucket/results").check()


def test_same_tables_settings_data_and_store_are_the_same_sweep_whatever_the_machine() -> None:
    one = Request(("V", "VI"), "tiny", more=("--gpus", "1"))
    assert one.digest() == Request(("VI", "V"), "tiny", more=("--gpus", "2")).digest()
    assert one.digest() != Request(("V", "VI"), "tiny", settings=("train.lr=1",)).digest()
    probe = Request(("V", "VI"), "tiny", probe=50)
    assert one.digest() != probe.digest(), "else a sweep would attach to its probe"
    assert probe.arguments()[-4:] == ["--probe", "50", "--address", "auto"]


def test_the_shell_sees_one_word_per_argument() -> None:
    command = entry_point(["sweeps", "run", "V; echo no"], store="/a b/$(no)", python="echo")
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "[sweeps] store /a b/$(no)\n-m sweeps run V; echo no\n"


def test_resuming_gives_the_same_sweep_to_submit() -> None:
    request = Request(("V",), "tiny", settings=("train.lr=0.1",), store="/a b")
    command = entry_point(request.arguments(), store=request.store, python="python")
    job: Any = SimpleNamespace(entrypoint=command)
    assert sweep_command(job).startswith("sweeps run V --preset tiny")
    assert resume_command(job, "http://h:1") == (
        "sweeps submit V --preset tiny --data drawn --set train.lr=0.1 --store '/a b' "
        "--address http://h:1"
    )


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 7, 7), ("FAILED", -9, 137), ("FAILED", None, 1),
     ("STOPPED", None, 130)],
)  # fmt: skip
def test_an_exit_code_is_the_commands(status: str, code: int | None, expected: int) -> None:
    job: Any = SimpleNamespace(status=JobStatus(status), driver_exit_code=code)
    assert exit_code(job) == expected


def test_a_log_sent_again_from_its_beginning_is_printed_once() -> None:
    parts: list[str] = []
    nowhere: Any = None
    follower = Follower(nowhere, "job", write=parts.append)
    for start, text in (
        (0, "one\nt"),
        (5, "wo\n"),
        (0, "one\ntwo\nth"),
        (10, "ree\n"),
        (0, "one\n"),
    ):
        follower._print_from(start, text)
    assert "".join(parts) == "one\ntwo\nthree\n"


def test_rays_own_lines_are_no_output_of_a_command() -> None:
    log = "env is set up\n[sweeps] store /s\nRunning entrypoint for job x: y\nmine\n"
    assert printed(log) == "mine\n"


def test_an_address_without_http_and_a_closed_port_are_explained() -> None:
    with pytest.raises(JobError, match="begins with http://"):
        Connection("127.0.0.1:8265")
    with pytest.raises(UnreachableError, match="ray dashboard"):
        Connection("http://127.0.0.1:9")


def write(store: Path, **files: str) -> Path:
    for name, content in files.items():
        path = store / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return store


def test_results_are_packed_without_weights_locks_and_databases(tmp_path: Path) -> None:
    store = write(
        tmp_path / "s", runs__a__metrics_json="1", cams__c__checkpoints__w="2", ray__x="3",
        sweeps__n__driver="4",
    )  # fmt: skip
    for name in ("mlflow.db", "sweeps/n/driver.lock", "runs/a/x.json.partial7"):
        (store / name).write_text("no")
    assert pack(store, tmp_path / "a.tar.gz", checkpoints=False) == 2
    assert pack(store, tmp_path / "b.tar.gz", checkpoints=True) == 3
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert tar.getnames() == ["runs/a/done.json", "sweeps/n/driver"]


def test_unpacking_keeps_finished_results_and_replaces_unfinished_ones(tmp_path: Path) -> None:
    store = write(
        tmp_path / "s", runs__a__metrics_json="theirs", runs__b__metrics_json="theirs",
        cams__c__epochs="theirs",
    )  # fmt: skip
    pack(store, tmp_path / "a.tar.gz", checkpoints=False)
    local = write(tmp_path / "l", runs__a__metrics_json="ours", cams__c__epochs="ours")
    fetched = unpack(tmp_path / "a.tar.gz", local)
    assert (fetched.num_files, fetched.num_kept) == (2, 1)
    assert (local / "runs/a/done.json").read_text() == "ours"
    assert (local / "runs/b/done.json").read_text() == "theirs"
    assert (local / "cams/c/epochs").read_text() == "theirs"


def test_an_archive_that_leads_out_of_the_store_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("../outside")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(tmp_path / "a.tar.gz", tmp_path / "l")
    assert not (tmp_path / "outside").exists()
