"""Hosts that stop answering: the head is told of, once; a trial on another one has not failed."""

import socket
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.exceptions import ActorDiedError, ActorUnavailableError

from sweeps.run.ray.start import watched_head
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


def test_a_head_that_nobody_listens_for_any_more_is_lost_once() -> None:
    said: list[str] = []
    lost = Event()

    def tell(address: str) -> None:
        said.append(address)
        lost.set()

    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with watched_head(tell, address, between=0.2, limit=0.6):
            assert not lost.wait(1)
            head.close()
            assert lost.wait(30)
    assert said == [address]
