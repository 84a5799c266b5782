"""Checkpoints of an unfinished training, so that a killed run goes on where it was.

They lie outside the pipeline's outputs and are read only by a run of the same fingerprint (settings,
inputs and code). A lock file keeps a second process from training the same model at the same time.
"""

import hashlib
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import torch

from generative.errors import PipelineError
from generative.io.files import write_bytes


class Checkpoints:
    """The newest checkpoint of one training in `folder`, for one `fingerprint`."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.fingerprint}.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            PipelineError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise PipelineError(
                f"'{self.folder.name}' is being trained by another process, perhaps left over from an interrupted "
                f"run: end that process (`fuser {lock.lock_file}` tells its number) and run again; the "
                f"training goes on after its last finished epoch."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state` (tensors, numbers, strings, lists, dicts), atomically."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        digest = hashlib.sha256(buffer.getvalue()).digest()
        write_bytes(self._path, digest + buffer.getvalue())

    def load(self) -> dict[str, Any] | None:
        """The checkpoint of this fingerprint, or None; a damaged one counts as none and is removed."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            self._path.unlink()
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        return state

    def clear(self) -> None:
        """Remove every checkpoint of this training."""
        shutil.rmtree(self.folder, ignore_errors=True)
