"""Fetching the four Fashion-MNIST files from the first source that has the right bytes.

A source is one of
- `https://...` or `http://...`: a folder with the gzipped IDX files under their official names;
- `apt:PACKAGE`: a Debian package that contains them, fetched into a private folder without root;
- a folder on this machine, with the files gzipped or not.

Every file is checked by the SHA-256 of its decompressed bytes, so that it does not matter how a source
compressed it, and no wrong byte passes.
"""

import gzip
import hashlib
import logging
import shutil
import socket
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError, NameResolutionError

from generative.errors import PipelineError
from generative.io.files import write_bytes

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

Fetch = Callable[[str], bytes]

_CHUNK = 1 << 16  # bytes
_LARGEST_FILE = 60_000_000  # bytes: more than any of the four, decompressed
_LOWEST_RATE = 2_000  # bytes a second, over as many seconds as may pass without one
_TRY_AGAIN = (429, 500, 502, 503, 504)  # answers that may be others in a moment
_LONGEST_WAIT = 30.0  # seconds, whatever a server asks for


class NoSourceError(PipelineError):
    """No source has a file with the right bytes."""


def fetch_all(sources: Sequence[str], folder: Path, *, timeout: float, retries: int) -> dict[str, str]:
    """Write the four decompressed IDX files into `folder`, each from the first source that has it right.

    Args:
        sources: tried in order; a source that fails is not asked again.
        folder: where the files go; each appears whole or not at all.
        timeout: seconds without a byte after which an HTTP source counts as failed.
        retries: how often an HTTP download is tried again.

    Returns:
        The source that each file came from.

    Raises:
        NoSourceError: no source gave a file; the message tells each attempt.
    """
    failures: dict[str, str] = {}
    origin: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-") as name:
        scratch = Path(name)
        for source in sources:
            missing = [file for file in SHA256 if file not in origin]
            if not missing:
                break
            try:
                fetch = _open_source(source, scratch, timeout=timeout, retries=retries)
                for file in missing:
                    content = _decompressed(file, fetch(file))
                    _check(file, content)
                    write_bytes(folder / file, content)
                    origin[file] = source
            except _SourceError as error:
                failures[source] = str(error)
    missing = [file for file in SHA256 if file not in origin]
    if missing:
        raise NoSourceError(_explain(missing, failures))
    return origin


def _decompressed(file: str, content: bytes) -> bytes:
    try:
        return decompressed(content)
    except _SourceError as error:
        raise _SourceError(f"{file}: {error}") from None


def decompressed(content: bytes) -> bytes:
    """`content` itself, or what it holds if it is gzip."""
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise _SourceError(f"broken gzip file ({error})") from None


class _SourceError(Exception):
    pass


def _check(file: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() == SHA256[file]:
        return
    if content.lstrip()[:1] == b"<":
        raise _SourceError(f"{file}: got a web page instead of the file")
    raise _SourceError(f"{file}: wrong checksum ({len(content):,} bytes after decompression)")


def _explain(missing: list[str], failures: dict[str, str]) -> str:
    tried = "".join(f"\n  {source}: {reason}" for source, reason in failures.items()) or "\n  (no source is set)"
    return f"Fashion-MNIST could not be fetched ({', '.join(missing)} missing). Tried:{tried}"


def _open_source(source: str, scratch: Path, *, timeout: float, retries: int) -> Fetch:
    """A function that returns the bytes of a file of `source`, still compressed or not."""
    if source.startswith(("http://", "https://")):
        return _http(source, scratch, timeout=timeout, retries=retries)
    if source.startswith("apt:"):
        return _folder(_unpack_debian_package(source.removeprefix("apt:"), scratch / "apt"))
    return _folder(Path(source).expanduser())


def _http(source: str, scratch: Path, *, timeout: float, retries: int) -> Fetch:
    pooch.get_logger().setLevel(logging.WARNING)
    cache = Path(tempfile.mkdtemp(dir=scratch))

    def fetch(file: str) -> bytes:
        url = f"{source.rstrip('/')}/{file}.gz"
        last = ""
        for attempt in range(1 + retries):
            try:
                downloader = _Downloader(timeout)
                return Path(pooch.retrieve(url, None, fname=file, path=cache, downloader=downloader)).read_bytes()
            except requests.HTTPError as error:
                last = f"the server answered {error.response.status_code}"
                if error.response.status_code not in _TRY_AGAIN:
                    break
                if attempt < retries:
                    time.sleep(min(_seconds_to_wait(error.response), _LONGEST_WAIT))
            except (requests.exceptions.SSLError, requests.exceptions.ProxyError, _SourceError) as error:
                last = _reason(error, timeout)  # it will not be better in a second
                break
            except (requests.RequestException, HTTPError, OSError, ValueError) as error:
                last = _reason(error, timeout)
        raise _SourceError(f"{file}: {last}")

    return fetch


class _Downloader:
    """Writes what a server sends into a file, unless it sends too little or too much."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def __call__(self, url: str, path: str, _: Any) -> None:
        with requests.get(url, stream=True, timeout=self.timeout) as response, Path(path).open("wb") as file:
            response.raise_for_status()
            length = int(response.headers.get("Content-Length", 0))
            bar = tqdm(total=length or None, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[1], disable=None)
            since, received = time.monotonic(), 0  # of the current window of `timeout` seconds
            with bar:
                while content := response.raw.read1(_CHUNK, decode_content=True):
                    file.write(content)
                    bar.update(len(content))
                    received += len(content)
                    if file.tell() > _LARGEST_FILE:
                        raise _SourceError(f"the server sends more than {_LARGEST_FILE:,} bytes")
                    if (passed := time.monotonic() - since) > self.timeout:
                        if received < _LOWEST_RATE * passed:
                            raise _SourceError(f"the server sends less than {_LOWEST_RATE:,} bytes a second")
                        since, received = time.monotonic(), 0
            if file.tell() < length:
                raise requests.exceptions.ChunkedEncodingError


def _seconds_to_wait(response: requests.Response) -> float:
    """What a server asks for, or a second."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 1.0


def _reason(error: Exception, timeout: float) -> str:
    """Why a download failed, and the way out where there is one."""
    causes = list(_causes(error))
    if isinstance(error, requests.exceptions.SSLError):
        return (
            "its certificate is not trusted (REQUESTS_CA_BUNDLE=/path/to/certificates.pem names those that you trust)"
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let this through (HTTP_PROXY, HTTPS_PROXY and NO_PROXY say which is used)"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"no answer for {timeout:g} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in str(error):
        return "the connection broke before the end"
    if any(isinstance(cause, socket.gaierror | NameResolutionError) for cause in causes):
        return "its name is unknown here: is there a network?"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "the connection was refused"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error) if isinstance(error, _SourceError) else f"{type(error).__name__}: {error}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and all that led to it."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]


def _folder(folder: Path) -> Fetch:
    if not folder.is_dir():
        raise _SourceError(f"no such folder: {folder.absolute()}")

    def fetch(file: str) -> bytes:
        """The right one among the files of this name in the folder and its subfolders, else the last one."""
        content = None
        for path in sorted(folder.rglob(f"{file}*")):
            if path.is_file() and path.name in (file, f"{file}.gz"):
                try:
                    content = path.read_bytes()
                    _check(file, decompressed(content))
                    break
                except OSError as error:
                    raise _SourceError(f"{file}: {error.strerror}") from None
                except _SourceError:
                    continue
        if content is None:
            raise _SourceError(f"{file}: not in {folder}")
        return content

    return fetch


def _unpack_debian_package(package: str, folder: Path) -> Path:
    """Download `package` with apt's own configuration but private state, and unpack it; needs no root."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise _SourceError("this is no Debian or Ubuntu system (no apt-get)")
    for name in ("lists/partial", "cache/archives/partial", "content"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = [
        f"-oDir::State::Lists={folder}/lists",
        f"-oDir::Cache={folder}/cache",
        "-oDebug::NoLocking=1",
        "-oAPT::Sandbox::User=",
        "-oAcquire::Languages=none",
        "-oAPT::Update::Post-Invoke-Success::=",
        "-oAPT::Update::Post-Invoke::=",
        "-qq",
    ]
    _run(["apt-get", *options, "update"], folder)
    _run(["apt-get", *options, "download", package], folder)
    archives = sorted(folder.glob("*.deb"))
    if not archives:
        raise _SourceError("apt-get downloaded nothing")
    _run(["dpkg-deb", "-x", str(archives[0]), str(folder / "content")], folder)
    return folder / "content"


_APT_TIMEOUT = 600  # seconds; apt has time-outs of its own, this is the last resort


def _run(command: list[str], folder: Path) -> None:
    name = " ".join(word for word in command if not word.startswith("-o"))
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=_APT_TIMEOUT)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise _SourceError(f"`{name}` failed: {last}") from None
    except subprocess.TimeoutExpired:
        raise _SourceError(f"`{name}` took longer than {_APT_TIMEOUT} seconds") from None
