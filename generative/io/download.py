"""Fetching a file over HTTP from servers that may be slow, busy, broken, or something else than they should be."""

import logging
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooch
import requests
from requests import exceptions as wrong
from tqdm import tqdm
from urllib3.exceptions import HTTPError, NameResolutionError

from generative.errors import PipelineError

_CHUNK = 1 << 16  # bytes
_LOWEST_RATE = 2_000  # bytes a second, over as many seconds as may pass without one
_TRY_AGAIN = (429, 500, 502, 503, 504)  # answers that may be others in a moment
_LONGEST_WAIT = 30.0  # seconds, whatever a server asks for


class DownloadError(PipelineError):
    """A file cannot be fetched; the message says why, without naming it."""


def download(url: str, path: Path, *, largest: int, timeout: float, retries: int) -> None:
    """Fetch `url` into the file `path`, which appears whole or not at all; a bar in a terminal shows how far it is.

    Args:
        url: http:// or https://.
        path: its folder is made where it is missing.
        largest: bytes that the file may have.
        timeout: seconds without an answer, or without a byte to speak of, after which the server counts as failed.
        retries: how often a download that broke is tried again.

    Raises:
        DownloadError: it cannot be had.
    """
    pooch.get_logger().setLevel(logging.WARNING)
    path.unlink(missing_ok=True)
    last = ""
    for attempt in range(1 + retries):
        try:
            pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=_Downloader(largest, timeout))
        except requests.HTTPError as error:
            last = f"the server answered {error.response.status_code}"
            if error.response.status_code not in _TRY_AGAIN:
                break
            if attempt < retries:
                time.sleep(min(_seconds_to_wait(error.response), _LONGEST_WAIT))
        except (wrong.SSLError, wrong.ProxyError, wrong.TooManyRedirects, wrong.InvalidSchema, DownloadError) as error:
            last = _reason(error, timeout)  # it will not be better in a second
            break
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            last = _reason(error, timeout)
        else:
            return
    raise DownloadError(last)


class _Downloader:
    """Writes what a server sends into a file, unless it sends too little or too much."""

    def __init__(self, largest: int, timeout: float) -> None:
        self.largest = largest
        self.timeout = timeout

    def __call__(self, url: str, path: str, _: Any) -> None:
        with _answer(url, self.timeout) as response, Path(path).open("wb") as file:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            length = int(announced) if announced.isdigit() else 0  # of what is sent, which may be compressed once more
            total = None if "Content-Encoding" in response.headers else length or None
            bar = tqdm(total=total, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[1], disable=None)
            since, received = time.monotonic(), 0  # of the current window of `timeout` seconds
            with bar:
                while content := response.raw.read1(_CHUNK, decode_content=True):
                    file.write(content)
                    bar.update(len(content))
                    received += len(content)
                    if file.tell() > self.largest:
                        raise DownloadError(f"the server sends more than {self.largest:,} bytes")
                    if (passed := time.monotonic() - since) > self.timeout:
                        if received < _LOWEST_RATE * passed:
                            raise DownloadError(f"the server sends less than {_LOWEST_RATE:,} bytes a second")
                        since, received = time.monotonic(), 0
            if response.raw.tell() < length:
                raise wrong.ChunkedEncodingError


def _answer(url: str, timeout: float) -> requests.Response:
    """What the server answers, as soon as its headers are there; they may not trickle in for ever.

    Raises:
        requests.RequestException, OSError, ValueError: there is no answer, or none in time.
    """
    answers: queue.Queue[requests.Response | Exception] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(requests.get(url, stream=True, timeout=timeout))
        except Exception as error:  # raised again in the thread that waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * timeout)
    except queue.Empty:
        raise requests.Timeout from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _seconds_to_wait(response: requests.Response) -> float:
    """What a server asks for, or a second."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 1.0


def _reason(error: Exception, timeout: float) -> str:
    """Why a download failed, and the way out where there is one."""
    causes = list(_causes(error))
    if isinstance(error, DownloadError):
        return str(error)
    if isinstance(error, wrong.SSLError):
        return (
            "its certificate is not trusted (REQUESTS_CA_BUNDLE=/path/to/certificates.pem names those that you trust)"
        )
    if isinstance(error, wrong.ProxyError):
        return "the proxy does not let this through (HTTP_PROXY, HTTPS_PROXY and NO_PROXY say which is used)"
    if isinstance(error, wrong.TooManyRedirects):
        return "the server sends from one address to the next, without end"
    if isinstance(error, wrong.InvalidSchema):
        return "the server sends to an address that is not http:// or https://"
    if isinstance(error, requests.Timeout) or "timed out" in str(error).lower():
        return f"no answer for {timeout:g} seconds"
    if isinstance(error, wrong.ChunkedEncodingError) or "IncompleteRead" in str(error):
        return "the connection broke before the end"
    if any(isinstance(cause, socket.gaierror | NameResolutionError) for cause in causes):
        return "its name is unknown here: is there a network?"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "the connection was refused"
    if isinstance(error, requests.ConnectionError):
        return "no connection, or no answer in HTTP"
    if isinstance(error, wrong.ContentDecodingError) or "decode" in type(error).__name__.lower():
        return "what the server sends is not compressed as it says"
    if isinstance(error, wrong.InvalidURL | wrong.MissingSchema):
        return "it is no address"
    return f"{type(error).__name__}: {error}"


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
