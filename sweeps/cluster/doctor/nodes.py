"""Checks of all nodes of a cluster, by a task pinned to each: versions, data, store, clocks."""

import hashlib
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.cluster.doctor.check import Check, State
from sweeps.cluster.doctor.machine import check_disk, installed
from wsss.basics.files import cache_folder
from wsss.basics.printable import counted
from wsss.data.classes import CLASS_LIST
from wsss.data.voc import ENDINGS, files_of

NODE_TIMEOUT_S = 180.0
MAX_SKEW_S = 2.0
"""Records and logs of a sweep hold the times of whatever node wrote them."""
SAMPLE_EVERY = 50


class NodeReport(NamedTuple):
    """What one node says of itself."""

    versions: dict[str, str]
    data: str
    weights: str
    """Quick fingerprints, or why there is none."""
    free_bytes: int
    gpus: int
    """GPUs that torch sees."""
    clock: float
    lost: str
    """What the node cannot do with the store; "" if it is shared."""


def quick_fingerprint(root: Path) -> str:
    """Digest names and sizes of all files that the layout has, the lists, and every 50th file.

    Of a file, as of weights, it is the size.

    Tells copies of a data set apart in seconds. Not the fingerprint of results, which reads every
    file. Returns "missing" if there is nothing at `root`.
    """
    if root.is_file():
        return f"{root.stat().st_size} bytes"
    found = {folder: files_of(root, folder).values() for folder in ENDINGS}
    layout = (f"{folder}/{name}" for folder in found for same in found[folder] for name in same)
    files = sorted(path for name in (CLASS_LIST, *layout) if (path := root / name).is_file())
    if not files:
        return "missing"
    digest = hashlib.sha256()
    for i, path in enumerate(files):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        if i % SAMPLE_EVERY == 0 or path.suffix == ".txt":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def check_nodes(locked: dict[str, str], data: str, weights: str, store: str) -> list[Check]:
    """Ask every node of the connected cluster, and name what differs or fails.

    Run after `ray.init`. locked: packages whose versions should be equal; data, weights, store:
    absolute paths on all nodes, "" to leave out.
    """
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    names = {node_id: _name(node) for node_id, node in nodes.items()}
    asked = Path(store) / f".doctor-{uuid.uuid4().hex}" / "asked" if store else None
    if asked:
        with suppress(OSError):  # then no node can read it
            asked.parent.mkdir(parents=True, exist_ok=True)
            asked.touch()
    sent = time.time()
    answers = ask_each(list(nodes), sorted(locked), data, weights, asked)
    received = time.time()
    checks = [Check("nodes", "ok", f"{len(nodes)} alive: {', '.join(sorted(names.values()))}")]
    reports: dict[str, NodeReport] = {}
    for node_id, answer in answers.items():
        if isinstance(answer, str):
            remedy = "see `ray status`, and whether the project's environment is on the node"
            checks.append(Check("node", "problem", answer, remedy, names[node_id]))
        else:
            reports[node_id] = answer
    own = {name: installed(name) for name in locked}
    for node_id, report in reports.items():
        logical = int(nodes[node_id]["Resources"].get("GPU", 0))
        checks += check_report(report, own, logical, names[node_id], sent, received)
    if data:
        checks.append(same("data", {names[i]: report.data for i, report in reports.items()}))
    if weights:
        checks.append(same("weights", {names[i]: report.weights for i, report in reports.items()}))
    if asked:
        checks.append(_check_store(asked, reports, names))
    return checks


def check_report(
    report: NodeReport, own: dict[str, str], logical: int, name: str, sent: float, received: float
) -> list[Check]:
    """Check one node's report; its clock was read between `sent` and `received` of this one's."""
    other = [
        f"{p} {report.versions[p]}, here {own[p]}" for p in own if report.versions[p] != own[p]
    ]
    remedy = "install requirements.lock on the node, and restart its Ray"
    text = "; ".join(other) or f"{len(own)} packages as here"
    checks = [Check("packages", "problem" if other else "ok", text, remedy, name)]
    checks.append(check_disk(report.free_bytes, node=name))
    text = f"Ray counts {logical}, torch sees {report.gpus}"
    state: State = "warning" if report.gpus > logical else "ok"
    remedy = "start Ray with --num-gpus"
    if logical > report.gpus:
        remedy = "start Ray on the node with the GPUs it has, or install a torch build for them"
        state = "problem"
    checks.append(Check("GPUs", state, text, remedy, name))
    skew = max(sent - report.clock, report.clock - received, 0.0)
    late = skew > MAX_SKEW_S
    remedy = "keep the node's clock with chrony or systemd-timesyncd"
    text = f"{skew:.1f} s beyond the round trip"
    checks.append(Check("clock", "problem" if late else "ok", text, remedy, name))
    return checks


def same(what: str, found: dict[str, str]) -> Check:
    """Compare the nodes' quick fingerprints of data or weights; name -> fingerprint."""
    groups: dict[str, list[str]] = {}
    for name, fingerprint in sorted(found.items()):
        groups.setdefault(fingerprint, []).append(name)
    if len(groups) == 1 and "missing" not in groups:
        return Check(f"{what} on nodes", "ok", f"equal on {counted(len(found), 'node')}")
    text = "; ".join(f"{f} on {', '.join(names)}" for f, names in groups.items())
    return Check(
        f"{what} on nodes", "problem", text, f"copy the same {what} to the same path on each"
    )


def _check_store(asked: Path, reports: dict[str, NodeReport], names: dict[str, str]) -> Check:
    """Check that each node sees this one's file, and this one each node's; remove the files."""
    lost = []
    for node_id, report in reports.items():
        if report.lost:
            lost.append(f"{names[node_id]} cannot {report.lost}")
        elif not _appears(asked.with_name(f"{asked.name}-{node_id}")):
            lost.append(f"what {names[node_id]} wrote cannot be read here")
    store = asked.parent.parent
    shutil.rmtree(asked.parent, ignore_errors=True)
    text = "; ".join(lost) or "each node reads and writes this machine's folder"
    remedy = "give a folder on a shared file system, mounted at the same path, or an s3:// URL"
    return Check("store on nodes", "problem" if lost else "ok", f"{store}: {text}", remedy)


def ask_each(node_ids: list[str], *arguments: Any) -> dict[str, NodeReport | str]:
    """Return each node's report, or why there is none."""
    task = ray.remote(report_of)
    waiting = {
        node_id: task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(node_id, *arguments)
        for node_id in node_ids
    }
    answers = dict[str, NodeReport | str]()
    deadline = time.monotonic() + NODE_TIMEOUT_S
    for node_id, reference in waiting.items():
        try:
            answers[node_id] = ray.get(reference, timeout=max(1, deadline - time.monotonic()))
        except GetTimeoutError:
            answers[node_id] = f"no answer in {NODE_TIMEOUT_S:.0f} s"
        except RayError as error:
            answers[node_id] = str(error).strip().splitlines()[-1]
    return answers


def report_of(
    node_id: str, packages: list[str], data: str, weights: str, asked: Path | None
) -> NodeReport:
    """Return what this node says of itself; asked: as of `try_store`, None: no store is checked."""
    import torch

    lost = try_store(asked, node_id) if asked else ""
    mirrors = asked.parent if asked and not lost else cache_folder() or Path("/")
    folder = next(path for path in (mirrors, *mirrors.parents) if path.exists())
    return NodeReport(
        versions={name: installed(name) for name in packages},
        data=quick_fingerprint(Path(data)) if data else "",
        weights=quick_fingerprint(Path(weights)) if weights else "",
        free_bytes=shutil.disk_usage(folder).free,
        gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
        clock=time.time(),
        lost=lost,
    )


def try_store(asked: Path, node_id: str) -> str:
    """Write a file beside the one that the asking machine wrote; return what cannot be done."""
    if not _appears(asked):
        return "read what was written here"
    try:
        asked.with_name(f"{asked.name}-{node_id}").touch()
    except OSError as error:
        return f"write ({error.strerror})"
    return ""


def _appears(path: Path) -> bool:
    """Whether a file is seen within 5 s: NFS clients remember that it was not there."""
    deadline = time.monotonic() + 5
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    return path.exists()


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} {node['NodeID'][:6]}"
