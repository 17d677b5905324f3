"""A trial whose host stops answering has not failed; one whose process dies on a live host has."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.util import get_node_ip_address

from sweeps.events import _lost_its_node

SILENT = ActorUnavailableError("RpcError: Socket closed rpc_code: 14", None)


def ended(folder: Path, error: Exception, node_ip: str | None) -> SimpleNamespace:
    """A trial of Tune as it is when its process has ended; node_ip: where it last reported from."""
    file = folder / "error.pkl"
    file.write_bytes(cloudpickle.dumps(error))
    last = {"node_ip": node_ip} if node_ip else {}
    return SimpleNamespace(pickled_error_file=str(file), last_result=last)


def test_a_process_on_another_host_that_stops_answering_has_lost_its_node(tmp_path: Path) -> None:
    assert _lost_its_node(ended(tmp_path, SILENT, "192.0.2.77"))


def test_a_process_on_this_host_that_stops_answering_has_died(tmp_path: Path) -> None:
    assert not _lost_its_node(ended(tmp_path, SILENT, get_node_ip_address()))


@pytest.mark.parametrize(("num_nodes", "lost"), [(1, False), (2, True)])
def test_before_its_first_report_a_silent_process_may_be_on_any_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_nodes: int, lost: bool
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{}] * num_nodes)
    assert _lost_its_node(ended(tmp_path, SILENT, None)) == lost


def test_a_process_that_dies_on_another_host_counts_as_a_failure(tmp_path: Path) -> None:
    assert not _lost_its_node(ended(tmp_path, ActorDiedError(), "192.0.2.77"))
