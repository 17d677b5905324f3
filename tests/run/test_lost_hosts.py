"""A trial whose host stops answering has not failed; one whose process dies on a live host has."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError

from sweeps.run.ray.tune import error_of, lost_its_node

SILENT = ActorUnavailableError("RpcError: Socket closed rpc_code: 14", None)


def ended(folder: Path, error: Exception) -> SimpleNamespace:
    """A trial of Tune as it is when its process has ended."""
    file = folder / "error.pkl"
    file.write_bytes(cloudpickle.dumps(error))
    return SimpleNamespace(pickled_error_file=str(file))


@pytest.mark.parametrize(("num_nodes", "lost"), [(1, False), (2, True)])
def test_a_process_that_stops_answering_has_lost_its_node_if_there_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_nodes: int, lost: bool
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{}] * num_nodes)
    assert lost_its_node(error_of(ended(tmp_path, SILENT))) == lost


def test_a_process_that_dies_on_a_live_host_counts_as_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{}] * 2)
    assert not lost_its_node(error_of(ended(tmp_path, ActorDiedError())))
