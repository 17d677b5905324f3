"""Files between a mirror and a bucket: only whole ones are believed, and none is copied twice."""

import hashlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from made_up.bucket_server import BUCKET, FaultyProxy, client, faulty_proxy

from sweeps.store.errors import AlteredError, StoreError
from sweeps.store.remote.bucket import Times
from sweeps.store.remote.mirror import Remote
from sweeps.store.rooms import ROOMS, Room
from sweeps.store.store import Store, open_store, write_json

QUICK = Times(retry_delays=(0.01,) * 4)


@pytest.fixture
def proxy(port: int) -> Iterator[FaultyProxy]:
    with faulty_proxy(port) as proxy:
        yield proxy


@pytest.fixture
def url(port: int, request: pytest.FixtureRequest) -> str:
    digest = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    return f"s3://{BUCKET}/{digest}"


@pytest.fixture
def here(url: str, tmp_path: Path) -> Remote:
    return Remote(url, tmp_path / "here", QUICK)


@pytest.fixture
def there(url: str, tmp_path: Path) -> Remote:
    return Remote(url, tmp_path / "there", QUICK)


def write(remote: Remote, rel: str, content: bytes) -> Path:
    path = remote.mirror / rel
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def objects(port: int, remote: Remote) -> dict[str, bytes]:
    s3, found = client(port), {}
    for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=remote.prefix).get("Contents", []):
        body = s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        found[item["Key"].removeprefix(remote.prefix)] = body
    return found


def files(remote: Remote) -> list[Path]:
    return [path for path in remote.mirror.rglob("*") if path.is_file()]


def test_a_folder_comes_back_on_another_machine_without_what_is_local(
    port: int, here: Remote, there: Remote
) -> None:
    contents = {"runs/a/counts.npz": bytes(range(256)) * 9, "runs/a/done.json": b"{}"}
    for rel, content in contents.items():
        write(here, rel, content)
    for name in ("x.lock", ".driver.json", "a.partial12", "epoch_0001.broken", ".probe"):
        write(here, f"runs/a/{name}", b"local")
    write(here, "runs/ab/done.json", b"another folder")
    assert sorted(here.push_folder("runs/a")) == sorted(contents)
    assert objects(port, here) == contents
    there.pull_folder("runs/a")
    assert {rel: (there.mirror / rel).read_bytes() for rel in contents} == contents
    before, after = (r.mirror / "runs/a/done.json" for r in (here, there))
    assert after.stat().st_mtime == pytest.approx(before.stat().st_mtime, abs=0.001)


def test_each_file_goes_by_one_request_and_only_if_it_is_new_and_the_marker_last(
    here: Remote, there: Remote, proxy: FaultyProxy
) -> None:
    def asked(move: Callable[[str], list[str]]) -> tuple[list[str], list[str]]:
        proxy.seen.clear()
        moved = move("runs/a")
        return moved, [method for method, _ in proxy.seen]

    names = [f"runs/a/{name}" for name in ("a.json", "counts.npz", "z.png", "done.json")]
    for rel in names:
        write(here, rel, rel.encode())
    assert asked(here.push_folder) == (names, ["LIST"] + ["PUT"] * 4)
    assert asked(there.pull_folder) == (names, ["LIST"] + ["GET"] * 4)
    for move in (here.push_folder, here.pull_folder, there.push_folder, there.pull_folder):
        assert asked(move) == ([], ["LIST"])
    write(here, names[1], b"others")
    proxy.faults = [("PUT", "encrypt")]  # its ETag says nothing of its content
    assert asked(here.push_folder) == (names[1:2], ["LIST", "PUT", "HEAD"])
    assert there.pull_folder("runs/a") == names[1:2]
    assert (there.mirror / names[1]).read_bytes() == b"others"


@pytest.mark.parametrize("fault", ["refuse", "cut", "swallow"])
def test_an_upload_is_tried_again_and_one_that_never_succeeds_is_named_and_made_up_for_later(
    port: int,
    here: Remote,
    there: Remote,
    proxy: FaultyProxy,
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(here, "runs/a/done.json", b"0123456789")
    proxy.faults = [("PUT", fault)] * 5
    assert len(QUICK.retry_delays) == len(Times().retry_delays)
    assert 30 <= sum(Times().retry_delays) < 40
    with pytest.raises(StoreError) as caught:
        here.push_folder("runs/a")
    assert f"cannot upload {here.url}/runs/a/done.json, tried 5 times" in str(caught.value)
    assert "give the same command again when the object store answers" in str(caught.value)
    assert "max retries" not in str(caught.value)  # boto3's, which are none
    if fault == "swallow":  # the server holds a half, which nobody believes
        assert objects(port, here) == {"runs/a/done.json": b"01234"}
        with pytest.raises(AlteredError, match="altered or cut"):
            there.pull_folder("runs/a")
        assert files(there) == []
    else:
        assert objects(port, here) == {}
    caplog.clear()
    proxy.faults = [("PUT", fault)] * 3
    with caplog.at_level(logging.WARNING):
        assert here.push_folder("runs/a") == ["runs/a/done.json"]
    assert not proxy.faults
    assert objects(port, here) == {"runs/a/done.json": b"0123456789"}
    assert sum("next try in" in record.message for record in caplog.records) == 3


def test_a_download_that_is_cut_is_tried_again_and_never_half_there(
    here: Remote, there: Remote, proxy: FaultyProxy
) -> None:
    content = bytes(range(256)) * 4000
    write(here, "runs/a/counts.npz", content)
    here.push_folder("runs/a")
    proxy.faults = [("GET", "cut_answer")] * 5
    with pytest.raises(StoreError, match=r"cannot download s3://.*tried 5 times"):
        there.pull_folder("runs/a")
    assert files(there) == []
    proxy.faults = [("GET", "cut_answer"), ("GET", "refuse")]
    assert there.pull_folder("runs/a") == ["runs/a/counts.npz"]
    assert (there.mirror / "runs/a/counts.npz").read_bytes() == content


def test_a_file_that_another_process_deletes_before_it_goes_up_is_left_out(
    port: int, here: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = write(here, "runs/a/failure.json", b"{}")
    write(here, "runs/a/config.json", b"{}")
    put = here.bucket.put_file

    def deleted(key: str, path: Path) -> str:
        failure.unlink(missing_ok=True)
        return put(key, path)

    monkeypatch.setattr(here.bucket, "put_file", deleted)
    assert here.push_folder("runs/a") == ["runs/a/config.json"]
    assert set(objects(port, here)) == {"runs/a/config.json"}


def test_of_an_object_that_is_deleted_after_half_of_it_has_come_nothing_stays(
    port: int, here: Remote, there: Remote, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "runs/a/counts.npz", bytes(range(256)) * 4000)
    here.push_folder("runs/a")
    key = here.key("runs/a/counts.npz")
    monkeypatch.setattr(time, "sleep", lambda _: client(port).delete_object(Bucket=BUCKET, Key=key))
    proxy.faults = [("GET", "cut_answer")]
    assert there.pull_folder("runs/a") == []
    assert not proxy.faults
    assert files(there) == []


@pytest.mark.parametrize(
    ("content", "is_ours"), [(b'{"miou": 99}', True), (b"", True), (b'{"miou": 12}', False)]
)
def test_an_object_that_was_altered_or_not_uploaded_by_us_is_refused_with_url_and_remedy(
    port: int, here: Remote, there: Remote, content: bytes, *, is_ours: bool
) -> None:
    write(here, "runs/a/done.json", b'{"miou": 12}')
    here.push_folder("runs/a")
    s3, key = client(port), here.key("runs/a/done.json")
    metadata = s3.head_object(Bucket=BUCKET, Key=key)["Metadata"] if is_ours else {}
    s3.put_object(Bucket=BUCKET, Key=key, Body=content, Metadata=metadata)
    told = "/runs/a/done.json: altered or cut, or not uploaded .*; delete the object to do"
    with pytest.raises(AlteredError, match=f"^{here.url}{told}"):
        there.pull_folder("runs/a")
    assert files(there) == []


def test_what_changed_here_alone_is_kept_and_what_changed_there_alone_comes(
    here: Remote, there: Remote
) -> None:
    for name in ("ours.json", "theirs.json", "both.json"):
        write(here, f"sweeps/s/{name}", b"first")
    here.push_folder("sweeps/s")
    there.pull_folder("sweeps/s")
    write(here, "sweeps/s/ours.json", b"changed here")
    write(here, "sweeps/s/both.json", b"changed here")
    write(there, "sweeps/s/theirs.json", b"changed there")
    write(there, "sweeps/s/both.json", b"changed there")
    there.push_folder("sweeps/s")
    assert sorted(here.pull_folder("sweeps/s")) == ["sweeps/s/both.json", "sweeps/s/theirs.json"]
    assert (here.mirror / "sweeps/s/ours.json").read_bytes() == b"changed here"
    assert (here.mirror / "sweeps/s/theirs.json").read_bytes() == b"changed there"
    assert (here.mirror / "sweeps/s/both.json").read_bytes() == b"changed there"
    assert here.push_folder("sweeps/s") == ["sweeps/s/ours.json"]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_of_a_folder_that_is_removed_the_file_that_marks_it_goes_first(
    here: Remote, proxy: FaultyProxy, room: Room
) -> None:
    for name in ("a.json", room.mark, "z.json"):
        write(here, f"{room.name}/x/{name}", b"{}")
    here.push_folder(f"{room.name}/x")
    proxy.seen.clear()
    Store(here.mirror, here).remove(f"{room.name}/x")
    deleted = [path.rpartition("/")[2] for method, path in proxy.seen if method == "DELETE"]
    assert deleted == [room.mark, "a.json", "z.json"]
    assert not (here.mirror / room.name / "x").exists()


@pytest.mark.parametrize(
    ("variables", "name", "told"),
    [
        ({}, "nowhere-at-all", "cannot list s3://nowhere-at-all/x/.*; create the bucket"),
        ({"AWS_ACCESS_KEY_ID": ""}, BUCKET, "check the credentials"),
        (
            {"AWS_ENDPOINT_URL": "minio:9000"},
            BUCKET,
            "AWS_ENDPOINT_URL=minio:9000: no .* http://HOST:PORT",
        ),
    ],
)
def test_a_bucket_that_cannot_be_right_is_refused_at_once_with_the_remedy(
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    name: str,
    told: str,
) -> None:
    for key, value in ({"AWS_EC2_METADATA_DISABLED": "true"} | variables).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(StoreError, match=told):
        Store(tmp_path, Remote(f"s3://{name}/x", tmp_path)).check_writable()
    assert len(proxy.seen) <= 1


@pytest.mark.timeout(30)
def test_a_command_s_first_question_to_a_server_that_is_away_has_fewer_tries(
    port: int, here: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(here.mirror, here).check_writable()
    assert objects(port, here) == {}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    times = Times(retry_delays=(0.01, 0.01, 1000.0), first_answer=500.0)
    store = Store(here.mirror, Remote(here.url, here.mirror, times))
    for ask in (store.remote.require_answer, store.check_writable):
        with pytest.raises(StoreError, match=r"tried 3 times: .*127\.0\.0\.1:9.*nothing is lost"):
            ask()


@pytest.mark.timeout(30)
def test_a_command_s_first_question_to_a_server_that_is_silent_ends_before_any_other_would(
    here: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Remote(here.url, here.mirror, Times(first_answer=0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StoreError, match=r"cannot list .*, tried 1 time: no answer in time"):
            remote.require_answer()


def test_one_setting_says_where_everything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WSSS_MIRROR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    local = open_store(str(tmp_path / "results"))
    assert (local.root, local.remote.url) == (tmp_path / "results", None)
    assert local.artifact_location == f"file://{tmp_path}/results/mlartifacts"
    url = "s3://bucket/some/prefix"
    store, digest = open_store(f"{url}/"), hashlib.sha256(url.encode()).hexdigest()[:16]
    assert store.root == tmp_path / ".cache" / "wsss" / digest
    assert store.artifact_location == f"{url}/mlartifacts"
    assert store.remote.key("runs/a") == "some/prefix/runs/a"
    assert Remote("s3://bucket", tmp_path).key("runs/a") == "runs/a"
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    store = open_store(url)
    assert store.root == store.remote.mirror == Path("caches/wsss", digest).absolute()
    monkeypatch.setenv("WSSS_MIRROR", str(tmp_path / "mirror"))
    assert open_store(url).root == tmp_path / "mirror"


def test_a_mirror_belongs_to_one_store(mirror: Path) -> None:
    store = open_store("s3://bucket/x")
    store.remote.machine()
    with pytest.raises(StoreError, match="mirror of s3://bucket/x; set WSSS_MIRROR to another"):
        open_store("s3://bucket/other").pull_results()
    (mirror / ".machine").write_bytes(b"")
    with pytest.raises(StoreError, match=r"\.machine: damaged; delete it"):
        store.remote.machine()


@pytest.mark.parametrize(
    ("address", "variable", "told"),
    [
        *(
            (wrong, "WSSS_MIRROR=", "not an object store; write s3://bucket/prefix")
            for wrong in ("gs://bucket/x", "s3:///x", Path("s3://bucket/x"))
        ),
        ("s3://bucket/x", f"WSSS_MIRROR={__file__}", r"not writable .* folder with WSSS_MIRROR"),
        ("s3://bucket/x", "HOME=/nonexistent", r"no home folder .* a folder with WSSS_MIRROR"),
    ],
)
def test_a_store_that_cannot_be_opened_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, address: str | Path, variable: str, told: str
) -> None:
    for name in ("WSSS_MIRROR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(StoreError, match=told):
        open_store(address).check_writable()


def finish_run(store: Store, run_id: str, figures: dict[str, Any]) -> None:
    write_json(store.run(run_id).path / "config.json", {"id": run_id})
    write_json(store.run(run_id).path / "done.json", figures)


def test_another_machine_reads_results_without_checkpoints(here: Remote, there: Remote) -> None:
    ours, theirs = Store(here.mirror, here), Store(there.mirror, there)
    finish_run(ours, "r", {"miou_fixed": 12.5})
    ours.cam("c").add_epoch({"epoch": 1, "loss": 0.5})
    write(here, "cams/c/checkpoints/epoch_0001.pt", b"large")
    write_json(ours.sweep("s") / "sweep.json", {"name": "s"})
    here.push_folder("cams/c")
    ours.push_results(["r"])
    ours.folder("sweeps/s").push()
    theirs.pull_results()
    assert theirs.run("r").result() == {"miou_fixed": 12.5}
    assert theirs.cam("c").epochs() == [{"epoch": 1, "loss": 0.5}]
    assert theirs.sweep_names() == ["s"]
    assert not theirs.cam("c").checkpoints.exists()


def test_what_was_finished_here_and_never_uploaded_goes_up_when_it_is_asked_for(
    port: int, here: Remote
) -> None:
    store = Store(here.mirror, here)
    finish_run(store, "r", {"miou_fixed": 12.5})
    assert store.run("r").is_finished()
    assert sorted(objects(port, here)) == ["runs/r/config.json", "runs/r/done.json"]


def test_a_failure_that_is_cleared_does_not_come_back(
    port: int, here: Remote, there: Remote
) -> None:
    ours, theirs = Store(here.mirror, here), Store(there.mirror, there)
    write_json(theirs.run("r").path / "failure.json", {"kind": "diverged"})
    theirs.run("r").push()
    ours.pull_results()
    assert ours.run("r").failure() == {"kind": "diverged"}
    ours.run("r").clear_failure()
    ours.pull_results()
    assert ours.run("r").failure() is None
    # Cleared by another machine, whose run has come out well:
    write_json(ours.run("r").path / "failure.json", {"kind": "diverged"})
    ours.run("r").push()
    (theirs.run("r").path / "failure.json").unlink()
    finish_run(theirs, "r", {})
    theirs.push_results(["r", "not run yet"])
    assert sorted(objects(port, here)) == ["runs/r/config.json", "runs/r/done.json"]
    ours.pull_results()
    theirs.remove("runs/r")
    finish_run(ours, "other", {})
    ours.push_results(["other"])  # those of its sweep, and not what was removed elsewhere
    assert sorted(objects(port, here)) == ["runs/other/config.json", "runs/other/done.json"]


@pytest.mark.parametrize(
    ("folder", "lock"),
    [("cams/c", "stage.lock"), ("sweeps/s", "driver.lock"), ("searches/s", "driver.lock")],
)
def test_what_a_process_here_works_at_is_left_alone(
    here: Remote, there: Remote, folder: str, lock: str
) -> None:
    write(there, f"{folder}/record.json", b"from there")
    there.push_folder(folder)
    write(here, f"{folder}/record.json", b"from here")
    with FileLock(here.mirror / folder / lock):
        assert here.pull_results() == []
    assert (here.mirror / folder / "record.json").read_bytes() == b"from here"
    assert here.pull_results() == [f"{folder}/record.json"]  # what is left of a killed process
    assert (here.mirror / folder / "record.json").read_bytes() == b"from there"
