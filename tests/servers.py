"""Real servers on loopback, each for one remote that DVC can push to or pull from; they stop with the block."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import yaml

HOST = "127.0.0.1"
USER, PASSWORD = "reader", "right-secret"


@dataclass
class Server:
    """A running server: its address for `dvc remote add`, its credentials, and the folder that it serves."""

    url: str
    folder: Path  # where objects lie under `url`
    port: int
    command: list[str]
    settings: dict[str, str] = field(default_factory=dict)  # of the remote
    wrong: dict[str, str] = field(default_factory=dict)  # settings with wrong credentials
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until its port answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            assert self.process.poll() is None, f"{self.command[0]} ended: {self.process.returncode}"
            time.sleep(0.05)
        raise AssertionError(f"{self.command[0]} does not answer")

    def kill(self) -> None:
        """End the process at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def program(name: str) -> str:
    """The path of a program that came with a Python package."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed"
    return found


def s3(folder: Path) -> Server:
    """`rclone serve s3`, with an access key."""
    port = free_port()
    (folder / "bucket").mkdir()
    command = [program("rclone"), "serve", "s3", "--addr", f"{HOST}:{port}", "--auth-key", f"{USER},{PASSWORD}"]
    settings = {"endpointurl": f"http://{HOST}:{port}", "access_key_id": USER, "secret_access_key": PASSWORD}
    return Server(
        "s3://bucket/store",
        folder / "bucket" / "store",
        port,
        [*command, "--config", os.devnull, str(folder)],
        settings,
        {"secret_access_key": "wrong-secret"},
    )


def ssh(folder: Path) -> Server:
    """`rclone serve sftp`, with a key pair made for it."""
    port = free_port()
    keys = folder.parent / f"{folder.name}-keys"
    keys.mkdir()
    for name in ("right", "wrong", "host"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(keys / name))
        key.write_public_key(str(keys / f"{name}.pub"))
        (keys / name).chmod(0o600)
    (keys / "authorized").write_bytes((keys / "right.pub").read_bytes())
    command = [program("rclone"), "serve", "sftp", "--addr", f"{HOST}:{port}", "--config", os.devnull]
    command += ["--key", str(keys / "host"), "--authorized-keys", str(keys / "authorized"), str(folder)]
    settings = {"keyfile": str(keys / "right"), "allow_agent": "false"}
    return Server(
        f"ssh://{USER}@{HOST}:{port}/store", folder / "store", port, command, settings, {"keyfile": str(keys / "wrong")}
    )


def webdav(folder: Path) -> Server:
    """WsgiDAV, with a password."""
    port = free_port()
    (folder / "store").mkdir()  # WebDAV makes no folders above the one asked for
    config = folder.parent / f"{folder.name}.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "host": HOST,
                "port": port,
                "provider_mapping": {"/": str(folder)},
                "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
                "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
                "logging": {"enable": False},
            }
        )
    )
    command = [program("wsgidav"), "--config", str(config), "--server", "cheroot", "--quiet"]
    settings = {"user": USER, "password": PASSWORD}
    return Server(
        f"webdav://{HOST}:{port}/store", folder / "store", port, command, settings, {"password": "wrong-secret"}
    )


def http(folder: Path) -> Server:
    """Python's own server: read-only, open to everyone."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", HOST, "--directory", str(folder), str(port)]
    return Server(f"http://{HOST}:{port}/store", folder / "store", port, command)


SERVERS = {"s3": s3, "ssh": ssh, "webdav": webdav, "http": http}


@contextmanager
def serving(protocol: str, folder: Path) -> Iterator[Server]:
    """Serve `folder`, which is made, over `protocol`."""
    folder.mkdir(parents=True)
    server = SERVERS[protocol](folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def tapped(server: Server, limit: int, action: Callable[[], None]) -> Iterator[Server]:
    """The same server behind a wire that calls `action` once, when `limit` bytes have passed in both directions."""
    listener = socket.create_server((HOST, 0))
    port = int(listener.getsockname()[1])
    passed, lock = [0], threading.Lock()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                target.sendall(chunk)
                with lock:
                    before, passed[0] = passed[0], passed[0] + len(chunk)
                    if before < limit <= passed[0]:
                        action()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                try:
                    far = socket.create_connection((HOST, server.port))
                except OSError:  # the server is gone
                    near.close()
                    continue
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield replace(server, url=server.url.replace(f":{server.port}", f":{port}"), port=port)
    finally:
        listener.close()
