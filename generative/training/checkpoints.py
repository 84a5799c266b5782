"""Checkpoints of an unfinished training, so that a killed run goes on where it was.

They lie outside the pipeline's outputs and are read only by a run of the same fingerprint (settings,
inputs and code). A lease keeps a second process from training the same model at the same time, on this machine or on
another one that has the same folder.
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
from generative.io.leases import DURATION, HeldError, held


class Checkpoints:
    """The newest checkpoint of one training in `folder`, for one `fingerprint`."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self._lease: filelock.SoftFileLease | None = None

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
        try:
            with held(self.folder.with_suffix(".lock")) as self._lease:
                yield
        except HeldError as holder:
            raise PipelineError(
                f"'{self.folder.name}' is being trained by another process, {holder}, perhaps left over from an "
                "interrupted run: end that process and run again; the training goes on after its last finished epoch."
            ) from None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state` (tensors, numbers, strings, lists, dicts), atomically.

        Raises:
            PipelineError: this process was taken for dead, and another one has the folder.
        """
        if self._lease and (lost := self._lease.compromise):
            raise PipelineError(
                f"'{self.folder.name}' was silent for {DURATION:.0f} seconds, on a machine or disk that stood still "
                f"({lost.reason}), so that another process may train it by now: run again."
            )
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
