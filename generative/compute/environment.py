"""What libraries read from the environment when a process starts: how threads wait, what memory is kept, which bytes.

libgomp, malloc, oneDNN, MKL, OpenBLAS and NumPy read these variables before or while they are loaded, so that setting
them later in the same process changes nothing: `restart_with` starts it anew, which takes a few hundredths of a second
before torch is imported.
"""

import os
import sys
from collections.abc import Mapping

# The user's own values win.
QUIET = {
    "OMP_WAIT_POLICY": "passive",  # threads that wait for each other sleep: a busy neighbour costs its share alone
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),  # bytes; below this a block comes from the heap. What older glibc allows
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),  # bytes of freed memory that are kept, not given back and faulted in again
    "MALLOC_TOP_PAD_": str(1 << 28),  # bytes that the heap grows by
}
# Part of the result, so the user's own values do not count. The same instructions on every x86-64 with AVX2.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",  # MKL's only mode that promises the same bytes on other makers' processors
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def process_environment(current: Mapping[str, str], *, portable: bool) -> dict[str, str]:
    """`current` with what a computing process needs; `portable` as in `generative.compute.settings.ComputeConfig`."""
    return {**QUIET, **current, **(PORTABLE if portable else {})}


def restart_with(environment: Mapping[str, str]) -> None:
    """Start this process anew, same arguments and same process id, unless it has `environment` already."""
    if dict(os.environ) != dict(environment):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(environment))  # noqa: S606
