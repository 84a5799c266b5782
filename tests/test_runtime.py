"""What every computing stage starts with."""

import subprocess
import sys

from tests.small import ROOT

FLUSHES = """
import torch
from generative.compute.runtime import ComputeConfig, start

start(ComputeConfig(accelerator="cpu", devices=1, precision="32-true", threads=2, portable=False))
small = torch.full((1_000_000,), 1e-30)  # enough elements for both threads
print((small * 1e-12).count_nonzero().item())
"""


def test_every_thread_takes_numbers_too_small_for_float32_as_zero() -> None:
    done = subprocess.run([sys.executable, "-c", FLUSHES], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
