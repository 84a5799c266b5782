"""The loop: it repeats bit for bit, resumes where it was killed, and stops when a loss explodes."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode

from generative.compute.runtime import make_rng
from generative.data.splits import Split, to_unit
from generative.errors import PipelineError
from generative.extractors import classifier
from generative.training import loop
from generative.training.checkpoints import Checkpoints
from generative.training.loop import History, fit
from tests.small import FAMILIES, PARAMS, ROOT, build, small_config, train


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", FAMILIES)
def test_same_seed_same_bits_other_seed_other_weights(name: str, blobs: Split, tmp_path: Path) -> None:
    config = small_config(name)
    first, history = train(config, blobs, tmp_path / "a")
    second, again = train(config, blobs, tmp_path / "b")
    other, _ = train(small_config(name, seed=6), blobs, tmp_path / "c")
    assert same_weights(first, second)
    assert history == again
    assert not same_weights(first, other)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_killed_training_ends_in_the_same_bits(name: str, killed_after: int, blobs: Split, tmp_path: Path) -> None:
    config = small_config(name, epochs=4)
    whole, history = train(config, blobs, tmp_path / "whole")

    def kill(rows: History) -> None:
        if len(rows) == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, blobs, tmp_path / "killed", on_epoch=kill)
    rows_seen: list[int] = []
    resumed, resumed_history = train(
        config, blobs, tmp_path / "killed", on_epoch=lambda rows: rows_seen.append(len(rows))
    )
    assert rows_seen[0] == killed_after  # it did go on, not start anew
    assert same_weights(whole, resumed)
    assert history == resumed_history


def test_loss_falls(blobs: Split, tmp_path: Path) -> None:
    _, history = train(small_config("autoencoder", epochs=8), blobs, tmp_path)
    assert history[-1]["train_squared_error"] < 0.7 * history[0]["train_squared_error"]
    assert [row["epoch"] for row in history] == list(range(1, 9))


@pytest.mark.parametrize("batch_size", [7, 150, 1000])
def test_validation_is_the_mean_over_the_split(
    batch_size: int, blobs: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_VALIDATION_BATCH", batch_size)
    model, history = train(small_config("autoencoder", epochs=1), blobs, tmp_path)
    x = to_unit(blobs.images)
    with torch.no_grad():
        expected = 1000 * float((model(x) - x).square().mean())
    assert history[0]["validation_mse_x1000"] == pytest.approx(expected, rel=1e-5)


def test_network_that_draws_from_the_global_random_state_resumes_too(blobs: Split, tmp_path: Path) -> None:
    """The extractor's dropout does."""
    values = PARAMS["extractors"]["classifier"] | {"epochs": 3, "batch_size": 40, "channels": 4}
    config = classifier.Config.parse(values, where="classifier")
    assert config.dropout > 0

    def run(folder: Path, on_epoch: Callable[[History], None]) -> classifier.Model:
        torch.manual_seed(config.seed)
        fabric, extractor = Fabric(accelerator="cpu", devices=1), classifier.Model(config, 10)
        objective = classifier.Objective(extractor, config, fabric, 30)
        settings: dict[str, Any] = {"name": "extractor", "epochs": 3, "batch_size": 40, "seed": 0, "fabric": fabric}
        fit(extractor, objective, blobs, blobs, checkpoints=Checkpoints(folder, "x"), on_epoch=on_epoch, **settings)
        return extractor

    def go_on(_: History) -> None:
        pass

    def kill(_: History) -> None:
        raise KeyboardInterrupt

    whole = run(tmp_path / "whole", go_on)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", kill)
    assert same_weights(whole, run(tmp_path / "killed", go_on))


@pytest.mark.parametrize(("name", "rate"), [("autoencoder", 1e30), ("vae", 1e4), ("cgan", 1e30)])
def test_diverging_loss_stops_the_training(name: str, rate: float, blobs: Split, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=rf"{name}: \w+ diverged in epoch"):
        train(small_config(name, learning_rate=rate), blobs, tmp_path)


@pytest.mark.parametrize("name", ["autoencoder", "diffusion", "text_diffusion", "vae"])
def test_two_processes_give_the_loss_curve_of_one(name: str, tmp_path: Path) -> None:
    """But for a network that sees every fourth image of each process's share, and the sum that its loss is part of."""
    histories = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        command = [sys.executable, "-m", "tests.several_devices", name, str(devices), str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=120)
        histories.append(json.loads((folder / "history.json").read_text()))
    one, two = histories
    assert len(one) == len(two) == 3
    guided = any(key.endswith("_loss_guide") for key in one[0])
    for row, other in zip(one, two, strict=True):
        assert row.keys() == other.keys()
        same = {key for key in row if not (guided and key.endswith(("_loss", "_loss_guide")))}
        assert {key: other[key] for key in same} == pytest.approx({key: row[key] for key in same}, rel=1e-3)
        assert len(same) >= 3
        assert all(math.isfinite(other[key]) for key in row.keys() - same)


@pytest.mark.parametrize("name", ["biggan", "cgan", "mlp_cgan", "vae_gan", "wgan"])
def test_adversarial_families_train_in_two_processes(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.several_devices", name, "2", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    history = json.loads((tmp_path / "history.json").read_text())
    assert all(math.isfinite(value) for row in history for value in row.values())


def test_killed_training_in_two_processes_goes_on_with_the_random_state_of_each(tmp_path: Path) -> None:
    """`mlp_cgan` drops out neurons, in each process others."""

    def start(folder: Path) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.several_devices", "mlp_cgan", "2", str(folder), "40"]
        return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True)

    def finish(process: subprocess.Popen[str]) -> str:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return printed

    finish(start(tmp_path / "whole"))
    process = start(tmp_path / "killed")
    while not list((tmp_path / "killed").glob("checkpoints/*.pt")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "history.json").exists()
    assert "goes on after epoch" in finish(start(tmp_path / "killed"))
    whole, killed = ((tmp_path / name / "history.json").read_text() for name in ("whole", "killed"))
    assert whole == killed


def test_batch_that_cannot_be_shared_evenly_is_refused(blobs: Split, tmp_path: Path) -> None:
    class TwoDevices(Fabric):
        world_size = 2

    with pytest.raises(PipelineError, match="batch_size 41 is not a multiple of the 2 devices"):
        train(small_config("vae", batch_size=41), blobs, tmp_path, fabric=TwoDevices(accelerator="cpu", devices=1))


class _NoWaiting(TorchDispatchMode):
    """Refuses every operation that makes the host wait for a device."""

    waiting = (torch.ops.aten._local_scalar_dense, torch.ops.aten.equal, torch.ops.aten.nonzero)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in self.waiting, f"{func} reads a value from the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FAMILIES)
def test_no_step_waits_for_the_device(name: str, blobs: Split) -> None:
    _, objective, _ = build(small_config(name))
    rng = make_rng(0)
    drawn = list(objective.batches(blobs, 40, rng, rank=0, world_size=1))
    with _NoWaiting():
        for x, y in drawn:
            objective.step(x, y, rng)


def test_batch_larger_than_the_split_is_refused(blobs: Split, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="batch_size 401 is larger than the training split"):
        train(small_config("vae", batch_size=401), blobs, tmp_path)


class TestCheckpoints:
    state: dict[str, Any] = {"model": {"w": torch.arange(4.0)}, "history": [{"epoch": 1, "loss": 0.5}]}  # noqa: RUF012

    def test_round_trip(self, tmp_path: Path) -> None:
        Checkpoints(tmp_path / "vae", "abc").save(self.state)
        loaded = Checkpoints(tmp_path / "vae", "abc").load()
        assert loaded is not None
        assert torch.equal(loaded["model"]["w"], self.state["model"]["w"])
        assert loaded["history"] == self.state["history"]

    def test_other_fingerprint_finds_nothing(self, tmp_path: Path) -> None:
        Checkpoints(tmp_path / "vae", "abc").save(self.state)
        assert Checkpoints(tmp_path / "vae", "abd").load() is None

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
    def test_damaged_checkpoint_counts_as_none(self, tmp_path: Path, damage: str) -> None:
        checkpoints = Checkpoints(tmp_path / "vae", "abc")
        checkpoints.save(self.state)
        (path,) = (tmp_path / "vae").iterdir()
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(bytes({"truncated": content[:-20], "flipped": content, "empty": b""}[damage]))
        assert checkpoints.load() is None

    def test_second_process_is_refused_and_told_why(self, tmp_path: Path) -> None:
        first, second = (Checkpoints(tmp_path / "vae", "abc") for _ in range(2))
        with first.locked(), pytest.raises(PipelineError, match="'vae' is being trained by another process"):
            second.locked().__enter__()
        with second.locked():
            pass

    def elsewhere(self, folder: Path) -> bytes:
        """The lease of a process on another machine."""
        checkpoints = Checkpoints(folder, "abc")
        with checkpoints.locked():
            return folder.with_suffix(".lock").read_bytes().replace(socket.gethostname().encode(), b"another")

    def test_a_dead_process_is_taken_over_where_names_cannot_be_exchanged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on NFS, where filelock leaves a stale lease in its place."""
        monkeypatch.setattr("filelock._soft.exchange_names", lambda *_: False)
        code = "import os, sys; from pathlib import Path; from generative.training.checkpoints import Checkpoints; "
        code += f"hold = Checkpoints(Path({str(tmp_path / 'vae')!r}), 'abc').locked(); hold.__enter__(); os._exit(0)"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
        assert (tmp_path / "vae.lock").exists()
        with Checkpoints(tmp_path / "vae", "abc").locked():
            pass
        assert not list(tmp_path.glob("vae.lock*"))

    def test_a_dead_process_of_another_machine_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("generative.io.leases.DURATION", 0.5)
        lease = self.elsewhere(tmp_path / "vae")
        (tmp_path / "vae.lock").write_bytes(lease)
        started = time.monotonic()
        with Checkpoints(tmp_path / "vae", "abc").locked():
            assert time.monotonic() - started > 0.4

    def test_a_living_process_of_another_machine_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("generative.io.leases.DURATION", 1.0)
        lease, over = self.elsewhere(tmp_path / "vae"), threading.Event()

        def live() -> None:
            while not over.wait(0.1):
                (tmp_path / "vae.lock").write_bytes(lease)

        (tmp_path / "vae.lock").write_bytes(lease)
        thread = threading.Thread(target=live)
        thread.start()
        try:
            with pytest.raises(
                PipelineError, match=rf"being trained by another process, number {os.getpid()} on another"
            ):
                Checkpoints(tmp_path / "vae", "abc").locked().__enter__()
        finally:
            over.set()
            thread.join()

    def test_who_was_taken_for_dead_saves_nothing_more(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("generative.io.leases.DURATION", 0.3)
        lease = self.elsewhere(tmp_path / "vae")
        checkpoints = Checkpoints(tmp_path / "vae", "abc")
        with checkpoints.locked():
            checkpoints.save(self.state)
            (tmp_path / "vae.lock").unlink()
            (tmp_path / "vae.lock").write_bytes(lease)  # as one that takes over does
            time.sleep(1)
            with pytest.raises(
                PipelineError, match=r"was silent for .* another process may train it by now: run again"
            ):
                checkpoints.save(self.state)

    def test_clear_removes_what_is_there(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "vae", "abc")
        checkpoints.save(self.state)
        checkpoints.clear()
        checkpoints.clear()
        assert checkpoints.load() is None
