"""With `compute.portable`, another maker's processor without AVX-512 computes the same bytes: `make portable`."""

import os
import shutil
import subprocess
import sys

import pytest

from generative.compute.environment import process_environment
from tests.small import ROOT

EMULATOR = shutil.which("qemu-x86_64")
PROCESSOR = "EPYC"  # AVX2; calls itself AMD
FEWEST_HASHES = 40


def hashes(*command: str) -> dict[str, str]:
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.portable_bytes"],
        cwd=ROOT,
        env=process_environment(os.environ, portable=True),  # a process that starts anew would leave the emulator
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines())


@pytest.mark.emulated
@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.timeout(5400)
def test_an_emulated_processor_computes_the_same_bytes() -> None:
    assert EMULATOR is not None
    here, there = hashes(), hashes(EMULATOR, "-cpu", PROCESSOR)
    assert len(here) >= FEWEST_HASHES
    assert {name: (here[name], there.get(name)) for name in here if here[name] != there.get(name)} == {}
