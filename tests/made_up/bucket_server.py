"""An object store on loopback for tests, and a proxy before it which refuses and cuts."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "results"


@contextmanager
def moto_server() -> Iterator[int]:
    """Run an empty object store with one bucket; give its port. Points AWS_ENDPOINT_URL at it.

    MLflow keeps a client for minutes, and by the address in its own variable alone: without it, the
    second server of a process would get no artifacts.
    """
    settings = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        addresses = ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")
        settings |= dict.fromkeys(addresses, f"http://127.0.0.1:{port}")
        with patch.dict(os.environ, settings):
            client(port).create_bucket(Bucket=BUCKET)
            yield port
    finally:
        server.stop()


@cache
def client(port: int) -> Any:
    """Return a plain client, to look at the bucket independently of our code."""
    return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1")


def keys(port: int, prefix: str) -> dict[str, str]:
    """Return the objects below a prefix: name within it -> ETag."""
    found = client(port).list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", [])
    return {item["Key"][len(prefix) + 1 :]: item["ETag"] for item in found}


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on, but for those for which `faults` has an entry.

    faults: (method, fault) each for the next request with that method: `refuse` answers 503; `cut`
    reads half an upload and hangs up; `swallow` passes half an upload on as if it were all of it;
    `cut_answer` hangs up in the middle of a download; `mute` does what is asked and hangs up;
    `encrypt` answers with an ETag that is not the MD5 of the content.
    seen: (method, path) of each request. The method of a request for a list is LIST.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.faults: list[tuple[str, str]] = []
        self.seen: list[tuple[str, str]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that hang up."""

    def next_fault(self, method: str) -> str | None:
        """Take the next fault, if it is for this method."""
        if self.faults and self.faults[0][0] == method:
            return self.faults.pop(0)[1]
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def serve(self) -> None:
        method = "LIST" if "list-type" in self.path else self.command
        fault = self.server.next_fault(method)
        self.server.seen.append((method, self.path))
        length = int(self.headers.get("Content-Length", 0))
        if fault == "cut":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if fault == "refuse":
            self.send_response(503, "Slow Down")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "swallow":
            body = body[: length // 2]
        connection = HTTPConnection("127.0.0.1", self.server.target)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("expect", "host")}
        headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == "mute":
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == "etag" and fault == "encrypt":
                value = '"of-what-is-stored"'
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None and self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "cut_answer":
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def faulty_proxy(port: int) -> Iterator[FaultyProxy]:
    """Run the proxy, and point AWS_ENDPOINT_URL at it."""
    proxy = FaultyProxy(port)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        with patch.dict(os.environ, {"AWS_ENDPOINT_URL": address}):
            yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
