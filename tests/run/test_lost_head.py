"""A head of Ray that no longer answers is told of, once."""

import socket
from threading import Event

from sweeps.run.ray.head import watched_head


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
