"""A trial whose host stops answering has not failed; one whose process dies on a live host has."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError

from sweeps.run.ray.tune import error_of, lost_its_node

SILENT = ActorUnavailableError("RpcError: Socket closed rpc_code: 14", None)


@pytest.mark.parametrize(
    ("error", "num_nodes", "lost"),
    [(SILENT, 1, False), (SILENT, 2, True), (ActorDiedError(), 2, False)],
)
def test_a_process_that_stops_answering_has_lost_its_node_if_there_are_others(
    error: Exception, num_nodes: int, lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.nodes", lambda: [{}] * num_nodes)
    file = tmp_path / "error.pkl"
    file.write_bytes(cloudpickle.dumps(error))
    assert lost_its_node(error_of(SimpleNamespace(pickled_error_file=str(file)))) == lost
