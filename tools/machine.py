"""What a result was computed with: made_on.json, in git, beside the dvc.lock of each pipeline.

`make repro` and `make zoo` write it when they have made results that are not those of the last commit. It is no output
of DVC: results that are equal to the byte are equal, wherever they come from.
"""

import hashlib
import json
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from generative.io.files import write_json, write_text
from stages.common.params import Params, read_params
from stages.common.paths import Pipeline
from tools.staleness import GATES

_INSTRUCTIONS = {"avx512f": "AVX-512", "avx2": "AVX2"}  # by flag, the widest first
_LIBRARIES = ("torch", "numpy")


def processor() -> str:
    """What the processor calls itself."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> str:
    """The widest vector instructions that the processor has, of those that torch has code for."""
    flags = _cpuinfo("flags").split()
    return next((name for flag, name in _INSTRUCTIONS.items() if flag in flags), platform.machine())


def _cpuinfo(key: str) -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def note_machine(here: Pipeline) -> None:
    """Write made_on.json for the results of `here`, unless it, or that of HEAD, is about these already."""
    results = fingerprint(here.definition.with_suffix(".lock").read_text(encoding="utf-8"))
    if made_on(_read(here), results):
        return
    committed = committed_text(record(here))
    if made_on(committed, results):
        write_text(record(here), committed or "")
    else:
        write_json(record(here), {"results": results, **this_machine(read_params(here))})


def this_machine(params: Params) -> dict[str, Any]:
    """What decides the last bits of a result here."""
    compute = params.compute
    return {
        "processor": processor(),
        "instructions": instructions(),
        "portable": compute.portable,
        "accelerator": compute.accelerator,
        "threads": compute.threads,
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
    }


def made_on(text: str | None, results: str) -> dict[str, Any]:
    """What the text of a made_on.json says, if it is about `results`; else, or if it is damaged, empty."""
    with suppress(ValueError):
        found = json.loads(text or "{}")
        if isinstance(found, dict) and found.get("results") == results:
            return found
    return {}


def fingerprint(lock: str) -> str:
    """A hash of what was computed, weights and what comes of them, in the text of a dvc.lock; not of what is drawn."""
    computed = {path: md5 for path, md5 in outputs(lock).items() if {"models", "data"} & {*Path(path).parts}}
    return hashlib.sha256(repr(sorted(computed.items())).encode()).hexdigest()[:12]


def outputs(lock: str) -> dict[str, str]:
    """The hash of every output in the text of a dvc.lock, by path, without those that hold no result."""
    stages = (YAML(typ="safe").load(lock) or {}).get("stages", {})
    return {
        out["path"]: str(out.get("md5"))
        for name, stage in stages.items()
        if name not in GATES
        for out in stage.get("outs", [])
    }


def committed_text(path: Path) -> str | None:
    """A file as HEAD has it; None if it has none, or if there is no git, repository or commit."""
    try:
        shown = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return None if shown.returncode else shown.stdout.decode()


def _read(here: Pipeline) -> str:
    return record(here).read_text(encoding="utf-8") if record(here).exists() else ""


def record(here: Pipeline) -> Path:
    """Where it stands what made the results of a pipeline."""
    return here.folder / "made_on.json"
