"""Fetching the four IDX files of a data set from the first source that has the right bytes.

A source is one of
- `https://...` or `http://...`: a folder with the gzipped IDX files under the names that MNIST gave them;
- `apt:PACKAGE`: a Debian package that contains them, fetched into a private folder without root;
- a folder on this machine, with the files gzipped or not.

Every file is checked by the SHA-256 of its decompressed bytes, so that it does not matter how a source
compressed it, and no wrong byte passes.
"""

import gzip
import hashlib
import io
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from generative.errors import PipelineError
from generative.io.download import DownloadError, download
from generative.io.files import write_bytes

FILES = (  # as MNIST calls them, and every data set that was made to take its place
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

Fetch = Callable[[str], bytes]

_LARGEST_FILE = 500_000_000  # bytes, decompressed: 600,000 images


class NoSourceError(PipelineError):
    """No source has a file with the right bytes."""


def fetch_all(
    sources: Sequence[str], wanted: Mapping[str, str], folder: Path, *, timeout: float, retries: int
) -> dict[str, str]:
    """Write decompressed IDX files into `folder`, each from the first source that has it right.

    Args:
        sources: tried in order; a source that fails is not asked again.
        wanted: by the name of each file, the SHA-256 of its decompressed bytes.
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
    with tempfile.TemporaryDirectory(prefix="idx-files-") as name:
        scratch = Path(name)
        for source in sources:
            missing = [file for file in wanted if file not in origin]
            if not missing:
                break
            try:
                fetch = _open_source(source, wanted, scratch, timeout=timeout, retries=retries)
                for file in missing:
                    content = _decompressed(file, fetch(file))
                    _check(file, content, wanted[file])
                    write_bytes(folder / file, content)
                    origin[file] = source
            except _SourceError as error:
                failures[source] = str(error)
    missing = [file for file in wanted if file not in origin]
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
        with gzip.open(io.BytesIO(content)) as file:
            found = file.read(_LARGEST_FILE + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise _SourceError(f"broken gzip file ({error})") from None
    if len(found) > _LARGEST_FILE:
        raise _SourceError(f"more than {_LARGEST_FILE:,} bytes after decompression")
    return found


class _SourceError(Exception):
    pass


def _check(file: str, content: bytes, wanted: str) -> None:
    if hashlib.sha256(content).hexdigest() == wanted:
        return
    if content.lstrip()[:1] == b"<":
        raise _SourceError(f"{file}: got a web page instead of the file")
    raise _SourceError(f"{file}: wrong checksum ({len(content):,} bytes after decompression)")


def _explain(missing: list[str], failures: dict[str, str]) -> str:
    tried = "".join(f"\n  {source}: {reason}" for source, reason in failures.items()) or "\n  (no source is set)"
    return f"the data could not be fetched ({', '.join(missing)} missing). Tried:{tried}"


def _open_source(source: str, wanted: Mapping[str, str], scratch: Path, *, timeout: float, retries: int) -> Fetch:
    """A function that returns the bytes of a file of `source`, still compressed or not."""
    if source.startswith(("http://", "https://")):
        return _http(source, scratch, timeout=timeout, retries=retries)
    if source.startswith("apt:"):
        return _folder(_unpack_debian_package(source.removeprefix("apt:"), scratch / "apt"), wanted)
    try:
        return _folder(Path(source).expanduser(), wanted)
    except (RuntimeError, ValueError, OSError) as error:  # nobody's home, a name that no folder can have
        raise _SourceError(f"no folder: {error}") from None


def _http(source: str, scratch: Path, *, timeout: float, retries: int) -> Fetch:
    cache = Path(tempfile.mkdtemp(dir=scratch))

    def fetch(file: str) -> bytes:
        path = cache / f"{file}.gz"
        try:
            download(f"{source.rstrip('/')}/{file}.gz", path, largest=_LARGEST_FILE, timeout=timeout, retries=retries)
        except DownloadError as error:
            raise _SourceError(f"{file}: {error}") from None
        return path.read_bytes()

    return fetch


def _folder(folder: Path, wanted: Mapping[str, str]) -> Fetch:
    if not folder.is_dir():
        raise _SourceError(f"no such folder: {folder.absolute()}")

    def fetch(file: str) -> bytes:
        """The right one among the files of this name in the folder and its subfolders, else the last one."""
        content = None
        for path in sorted(folder.rglob(f"{file}*")):
            if path.is_file() and path.name in (file, f"{file}.gz"):
                try:
                    content = path.read_bytes()
                    _check(file, decompressed(content), wanted[file])
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
