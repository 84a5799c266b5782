"""Part of `make setup`: puts the packages of a lock file into .venv, and nowhere else. Needs Python alone.

Where packages come from is the user's choice (indexes, proxies, certificates, caches); where they go and what is
installed is not. So uv and pip get of their settings, in files and in the environment, only those that say where from:
an option of place in a settings file would fill, or with uv even empty, a folder of the user's.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

FROM_PIP = {
    "cache-dir",
    "cert",
    "client-cert",
    "default-timeout",
    "extra-index-url",
    "find-links",
    "index-url",
    "keyring-provider",
    "no-cache-dir",
    "no-index",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
}
FROM_UV = {
    "allow-insecure-host",
    "cache-dir",
    "extra-index-url",
    "find-links",
    "http-proxy",
    "https-proxy",
    "index",
    "index-strategy",
    "index-url",
    "keyring-provider",
    "link-mode",
    "native-tls",
    "no-cache",
    "no-index",
    "no-proxy",
    "offline",
    "system-certs",
}
FROM_UV_VARIABLES = {
    *(f"UV_{key.upper().replace('-', '_')}" for key in FROM_UV),
    "UV_DEFAULT_INDEX",
    "UV_HTTP_TIMEOUT",
    "UV_INSECURE_HOST",
}


def main(python: str, lock: str) -> int:
    """Install `lock` for the interpreter `python` of a fresh environment; returns the installer's exit code."""
    if uv := shutil.which("uv"):
        settings = Path(python).parent.parent / "uv.toml"
        settings.write_text(uv_settings(user_files()), encoding="utf-8")
        command = [uv, "--config-file", str(settings), "pip", "install", "--quiet", "--require-hashes"]
        command += ["--python", python, "--requirement", lock]
        environment = uv_environment(os.environ)
    else:
        listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        command += ["--requirement", lock]
        environment = pip_environment(os.environ, listing.stdout)
    return subprocess.run(command, env=environment, check=False).returncode


def pip_environment(given: os._Environ[str] | dict[str, str], listing: str) -> dict[str, str]:
    """The environment for pip: of its settings, as `pip config list` prints them, those that say where from."""
    found: dict[str, str] = {}
    ranks = {"global": 0, "install": 1, ":env:": 2}
    lines = [line.partition("=") for line in listing.splitlines() if "=" in line]
    for key, _, value in sorted(lines, key=lambda line: ranks.get(line[0].rpartition(".")[0], -1)):
        section, _, name = key.rpartition(".")
        if section in ranks and name in FROM_PIP:
            found[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(str(ast.literal_eval(value)).split())
    others = {key: value for key, value in given.items() if not key.startswith("PIP_")}
    return others | found | {"PIP_CONFIG_FILE": os.devnull}


def uv_environment(given: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """The environment for uv: of its variables those that say where from."""
    kept = ("UV_INDEX_", "UV_CONCURRENT_")  # credentials of an index, numbers of downloads at once
    return {
        key: value
        for key, value in given.items()
        if not key.startswith("UV_") or key in FROM_UV_VARIABLES or key.startswith(kept)
    }


def user_files() -> list[Path]:
    """Where uv looks for a user's settings, the weakest first."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME", "/"), ".config"))
    return [Path("/etc/uv/uv.toml"), home / "uv" / "uv.toml"]


def uv_settings(files: list[Path]) -> str:
    """The settings in `files` that say where from, as a file of its own; those of `[pip]` win."""
    kept: dict[str, Any] = {}
    for path in files:
        if path.is_file():
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            for block in (values, values.get("pip", {})):
                kept |= {key: value for key, value in block.items() if key in FROM_UV}
    indexes = kept.pop("index", [])
    lines = [f"{key} = {json.dumps(value)}" for key, value in kept.items()]
    for index in indexes:
        lines += ["[[index]]", *(f"{key} = {json.dumps(value)}" for key, value in index.items())]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
