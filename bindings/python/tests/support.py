"""What the tests stand on: a library that says what it is told, and a server on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Union
from unittest import mock

from arctos import _library

FOLDER = Path(__file__).resolve().parent
PACKAGE = FOLDER.parent / "arctos"

TASK: dict[str, Any] = {
    "business_id": 15,
    "out_task_num": "T-1",
    "task_type": "normal",
    "task_notify": False,
    "task_time": "1703141398",
    "branch_code": 943,
    "room_type": "normal",
    "video": True,
}

SUCCESS = '{"status":1,"message":"success","info":{"task_num":"202312210000001"}}'


Answer = Union[str, "Callable[[str], str]"]


def build_fake(folder: str, abi: int = 1) -> str:
    """Builds the fake library into a folder, and gives its path."""
    path = os.path.join(folder, f"libfake{abi}.so")
    source = str(FOLDER / "fake_library.c")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", f"-DABI={abi}", source, "-o", path], check=True)
    return path


@contextlib.contextmanager
def using(library: _library.Library) -> Iterator[None]:
    """Makes the package use a library."""
    with mock.patch.object(_library, "_loaded", library):
        yield


class Server:
    """Takes connections on loopback, reads one request of each, and answers with one text, or with what a
    function makes of the request's body.

    With ``silent`` it answers nothing, and keeps the connections until it is closed. The first ``busy`` requests are
    answered with HTTP 429, and the first ``resets`` ones by a reset of their connection.
    """

    def __init__(self, answer: Answer = SUCCESS, silent: bool = False, busy: int = 0, resets: int = 0) -> None:
        self.requests: list[bytes] = []
        self._busy = busy
        self._resets = resets
        self._arrived = threading.Semaphore(0)
        self._answer = None if silent else answer
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def wait(self) -> None:
        """Waits until one more request has come."""
        if not self._arrived.acquire(timeout=60):
            raise TimeoutError("no request came")

    def body(self) -> str:
        """The body of the last request."""
        return self.bodies()[-1]

    def bodies(self) -> list[str]:
        """The bodies of all requests."""
        return [request.split(b"\r\n\r\n", 1)[1].decode() for request in self.requests]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        # Closing a listener does not wake a thread in accept(); shutting it down does.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._kept:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.requests.append(_read_request(connection))
            if self._answer is None:
                self._kept.append(connection)
            elif len(self.requests) <= self._resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            else:
                status = "429 Busy" if len(self.requests) <= self._busy else "200 OK"
                answer = (self._answer if isinstance(self._answer, str) else self._answer(self.body())).encode()
                head = f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
                with connection:
                    connection.sendall(head.encode() + answer)
            self._arrived.release()


def _read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        request += _some(connection)
    head, body = request.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", 0)):
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise EOFError("the request is cut off")
    return data
