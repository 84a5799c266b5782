"""Downloads: every bad answer is rejected with its reason, and the next source is asked."""

import gzip
import hashlib
import random
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from generative.data import sources
from generative.errors import PipelineError

FILES = {name: random.Random(name).randbytes(9000) for name in sources.FILES}  # which compression makes no smaller
WANTED = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
TIMEOUT = 0.5

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_LARGEST_FILE", 9_000_000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def send(handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, announced: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if announced is None else announced))
    handler.end_headers()
    handler.wfile.write(body)


def good(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body)


def other_compression(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, gzip.compress(gzip.decompress(body), compresslevel=1, mtime=12345))


def compressed_in_transit(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    content = gzip.compress(body)
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def truncated(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body[: len(body) // 2], announced=len(body))


def truncated_unannounced(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    send(handler, body[: len(body) // 2])


def corrupted(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    content = bytearray(gzip.decompress(body))
    content[100] ^= 1
    send(handler, gzip.compress(bytes(content)))


def flipped_bit(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    broken = bytearray(body)
    broken[len(broken) // 2] ^= 16
    send(handler, bytes(broken))


def web_page(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    send(handler, b"<!DOCTYPE html><html><body>Please log in to the network</body></html>")


def not_found(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    send(handler, b"nothing here", status=404)


def stalled(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[:20])
    handler.wfile.flush()
    threading.Event().wait(6 * TIMEOUT)


def dripping(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    for byte in body[:100]:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        threading.Event().wait(TIMEOUT / 4)


def trickling_headers(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + 200 * b"x":
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        threading.Event().wait(TIMEOUT / 4)


def bomb(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    send(handler, gzip.compress(bytes(sources._LARGEST_FILE + 1), compresslevel=1))


def other_protocol(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.send_response(302)
    handler.send_header("Location", "ftp://127.0.0.1/file")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def round_and_round(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def endless(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(bytes(1 << 20))


def busy_once(status: int) -> Answer:
    """Answers `status` to the first question for each file, and the next one rightly."""
    seen = set()

    def answer(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if handler.path in seen:
            return send(handler, body)
        seen.add(handler.path)
        handler.send_response(status)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", "0")
        return handler.end_headers()

    return answer


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1].removesuffix(".gz")
                answer(self, gzip.compress(FILES[name]))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/fashion/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(urls: list[str], folder: Path) -> dict[str, str]:
    return sources.fetch_all(urls, WANTED, folder, timeout=TIMEOUT, retries=1)


def assert_complete(folder: Path) -> None:
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


@pytest.mark.parametrize("answer", [good, other_compression, compressed_in_transit])
def test_right_bytes_pass_however_they_are_compressed(
    serve: Callable[[Answer], str], tmp_path: Path, answer: Answer
) -> None:
    url = serve(answer)
    assert fetch([url], tmp_path) == dict.fromkeys(FILES, url)
    assert_complete(tmp_path)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (truncated, "the connection broke before the end"),
        (truncated_unannounced, "broken gzip file"),
        (corrupted, "wrong checksum"),
        (flipped_bit, "broken gzip file|wrong checksum"),
        (web_page, "got a web page instead of the file"),
        (not_found, "the server answered 404"),
        (stalled, "no answer for 0.5 seconds"),
        (dripping, "sends less than 2,000 bytes a second"),
        (endless, "sends more than 9,000,000 bytes"),
        (trickling_headers, "no answer for 0.5 seconds"),
        (bomb, "more than 9,000,000 bytes after decompression"),
        (other_protocol, "to an address that is not http"),
        (round_and_round, "from one address to the next"),
    ],
)
def test_bad_answer_is_explained_and_the_next_source_is_asked(
    serve: Callable[[Answer], str], tmp_path: Path, answer: Answer, reason: str
) -> None:
    bad = serve(answer)
    with pytest.raises(PipelineError, match=reason) as caught:
        fetch([bad], tmp_path / "alone")
    assert bad in str(caught.value)
    assert "train-images-idx3-ubyte: " in str(caught.value)
    assert not list(tmp_path.glob("alone/*"))

    fine = serve(good)
    assert set(fetch([bad, fine], tmp_path / "both").values()) == {fine}
    assert_complete(tmp_path / "both")


def test_broken_download_is_tried_again(serve: Callable[[Answer], str], tmp_path: Path) -> None:
    calls: dict[str, int] = {}

    def flaky(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        calls[handler.path] = calls.get(handler.path, 0) + 1
        (truncated if calls[handler.path] == 1 else good)(handler, body)

    fetch([serve(flaky)], tmp_path)
    assert_complete(tmp_path)
    assert set(calls.values()) == {2}


def test_nobody_listens_and_every_attempt_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        fetch(["http://127.0.0.1:9/x", "/no/such/folder", "apt:no-such-package-anywhere"], tmp_path)
    message = str(caught.value)
    assert "http://127.0.0.1:9/x: train-images-idx3-ubyte: the connection was refused" in message
    assert "/no/such/folder: no such folder" in message
    assert "apt:no-such-package-anywhere: " in message


@pytest.mark.parametrize("name", ["~nobody-of-this-name/data", "nul\0byte"])
def test_name_that_no_folder_can_have_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no folder: |no such folder"):
        fetch([name], tmp_path)


@pytest.mark.parametrize("compressed", [True, False])
def test_local_folder(tmp_path: Path, compressed: bool) -> None:
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in FILES.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    fetch([str(folder)], tmp_path / "out")
    assert_complete(tmp_path / "out")


def test_files_of_a_half_good_source_are_kept(serve: Callable[[Answer], str], tmp_path: Path) -> None:
    names = list(FILES)

    def half(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        (good if handler.path.endswith(f"{names[0]}.gz") else corrupted)(handler, body)

    first, second = serve(half), serve(good)
    origin = fetch([first, second], tmp_path)
    assert [origin[name] for name in names] == [first, second, second, second]


@pytest.mark.skipif(not shutil.which("apt-get"), reason="no Debian or Ubuntu system")
def test_debian_package_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"apt-get -qq .*failed: E: "):
        fetch(["apt:no-such-package-anywhere"], tmp_path)


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_is_busy_is_asked_again(serve: Callable[[Answer], str], tmp_path: Path, status: int) -> None:
    fetch([serve(busy_once(status))], tmp_path)
    assert_complete(tmp_path)


def test_refused_connection_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="the connection was refused"):
        fetch(["http://127.0.0.1:9/"], tmp_path)


def test_unknown_name_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="its name is unknown here"):
        fetch(["http://no-such-host.invalid/"], tmp_path)


def test_proxy_that_refuses_is_named(
    serve: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", serve(not_found))
    with pytest.raises(PipelineError, match=r"the proxy does not let this through .*NO_PROXY"):
        fetch(["https://example.invalid/"], tmp_path)


def test_certificate_that_nobody_knows_is_named(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(key.private_bytes(*plain) + pem)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(PipelineError, match=r"its certificate is not trusted \(REQUESTS_CA_BUNDLE="):
            fetch([f"https://127.0.0.1:{server.server_address[1]}/"], tmp_path / "out")
    finally:
        server.shutdown()
        server.server_close()


def test_relative_folder_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PipelineError, match=f"no such folder: {tmp_path}/nowhere"):
        fetch(["nowhere"], tmp_path / "out")
