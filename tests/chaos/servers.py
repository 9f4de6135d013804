"""A Redis, an engine and a way to Redis of our own, which can be away and come back.

All of them are on loopback, in folders of their own, gone when closed.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Self

import redis

from tests.waiting import until
from worker.sandbox.config import SandboxConfig

ROOT = Path(__file__).resolve().parents[2]


class RedisServer:
    """A Redis that can be away, and comes back on the same port with the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _lasting_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, decode_responses=True)

    def start(self) -> None:
        """Start it and wait until it has read its data and answers."""
        config = str(ROOT / "ops" / "redis.conf")
        command = ["redis-server", config, "--port", str(self.port), "--dir", str(self._folder)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers, what="the start of Redis")

    def kill(self) -> None:
        """End it at once, as the kernel does when memory runs out."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as its operator would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
            self._process.wait(30)
            self.client.connection_pool.disconnect()

    def _answers(self) -> bool:
        with contextlib.suppress(redis.ConnectionError):  # while it reads its data, too
            return bool(self.client.ping())
        return False

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it for good."""
        self.stop()
        self.client.close()


class Engine:
    """A container engine of its own that has the executor image. It takes root and the dockerd program."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/docker.sock"  # keep it short: the path of a socket has 107 characters at most
        folders = ["--pidfile", f"{folder}/pid", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        # In namespaces of its own: it would take the bridge of the engine beside it down, and leave its mounts behind.
        self._command = ["unshare", "--net", "--mount", "dockerd", "--host", self.url, *folders]
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def possible() -> bool:
        """Whether this machine lets us have one."""
        return os.geteuid() == 0 and shutil.which("dockerd") is not None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ask = ["docker", "--host", self.url, "version"]
        until(lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0, what="the engine's start")

    def load_image(self) -> None:
        """Copy the executor image from the engine that is there."""
        copy = f"docker save {SandboxConfig().image} | docker --host {self.url} load"
        subprocess.run(["sh", "-c", copy], check=True, stdout=subprocess.DEVNULL, timeout=120)

    def stop(self) -> None:
        """End it, and with it all its containers."""
        if self._process:
            self._process.terminate()
            self._process.wait(60)

    def __enter__(self) -> Self:
        """Start it and give it the image."""
        self.start()
        self.load_image()
        return self

    def __exit__(self, *_: object) -> None:
        """End it for good."""
        self.stop()


class Proxy:
    """Stands between a worker and Redis, and can cut its connections, or fall silent without closing anything."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._silent: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._forward)
        self._thread.start()
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def fall_silent(self) -> None:
        """Forward nothing any more for the connections there are; new ones work."""
        pairs, self._pairs = self._pairs, {}
        self._silent += pairs

    def cut(self) -> None:
        """Cut the connections there are; new ones work."""
        self.fall_silent()
        for one in self._silent:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        self._over.set()
        self._thread.join()
        for one in [self._listener, *self._pairs, *self._silent]:
            one.close()

    def _forward(self) -> None:
        while not self._over.is_set():
            for one in select.select([self._listener, *self._pairs], [], [], 0.05)[0]:
                if one is self._listener:
                    near, far = one.accept()[0], socket.create_connection(self._target)
                    self._pairs |= {near: far, far: near}
                elif other := self._pairs.get(one):
                    self._pass_on(one, other)

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        try:
            data = one.recv(65536)
            other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (one, other):
                self._pairs.pop(end, None)
                end.close()


def _lasting_port() -> int:
    """Return a port to come back to: below those that the kernel gives to clients, one of which might take it."""
    for port in random.SystemRandom().sample(range(12_000, 32_000), 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    msg = "no free port"
    raise RuntimeError(msg)
