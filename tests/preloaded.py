"""Stages and `dvc` in processes that have their libraries loaded already, for the tests that run whole pipelines.

A test run starts some thousand processes, most of which need seconds to import torch, Fabric or DVC and fractions of
one for their work. `preloaded` starts a process that imports the libraries once, none of the project, and puts
commands `python` and `dvc` in front of PATH. `python -m stages ...` and `dvc repro ...` then become forks
of that process: same working directory, environment, arguments, streams, signals and exit code. Everything else, and
what sets variables that the libraries read when they are loaded, is started as ever.
"""

import atexit
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "torch",
    "torchvision.utils",
    "lightning_fabric",
    "dvc.cli",
    "dvc.commands.repro",
    "dvc.repo.reproduce",
    "dvc_data.index",
    "efficientnet_lite_pytorch",
    "pandas",
    "matplotlib.pyplot",
    "safetensors.torch",
    "pydantic",
    "ruamel.yaml",
    "scipy.stats",
    "sklearn.mixture",
    "torchmetrics",
    "typst",
)
COMMANDS = "PRELOADED_COMMANDS"  # the variable that names the folder of the commands
_STARTING = 120.0  # seconds
_ENDING = 20.0
_LOADED = (
    "PYTHON",
    "OMP_",
    "MKL_",
    "ONEDNN_",
    "ATEN_",
    "OPENBLAS_",
    "NPY_",
    "MALLOC_",
    "CUDA_",
    "LANG",
    "LC_",
    "TZ",
)
_FIRST_LINE = 120  # characters of an interpreter that a script can name
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLIENT = r"""#!{python} -IS
import json, os, signal, socket, struct, sys

NAME = {name!r}


def run_as_ever():
    if NAME == "python":
        os.execv({python!r}, [{python!r}, *sys.argv[1:]])
    os.execv({python!r}, [{python!r}, "-c", "import sys; from dvc.cli import main; sys.exit(main())", *sys.argv[1:]])


def portable():
    try:
        with open("params.yaml") as file:
            return "portable: false" not in file.read()
    except OSError:
        return True


def fits():
    given, quick = json.loads({given!r}), json.loads({quick!r})
    if any(os.environ.get(key, value if portable() else None) != value for key, value in quick.items()):
        return False
    own = [key for key in os.environ if key.startswith({loaded!r}) and key != "PYTHONPATH" and key not in quick]
    return all(os.environ[key] == given.get(key) for key in own)


wanted = "repro" in sys.argv[1:3] if NAME == "dvc" else sys.argv[1:3] == ["-m", "stages"]
if not wanted or not fits():
    run_as_ever()
connection = socket.socket(socket.AF_UNIX)


def hand_on(number, _):
    try:
        connection.sendall(bytes([number]))
    except OSError:
        pass


try:
    connection.connect({address!r})
    umask = os.umask(0)
    os.umask(umask)
    content = json.dumps([NAME, sys.argv[1:], os.getcwd(), dict(os.environ), umask]).encode()
    socket.send_fds(connection, [struct.pack("I", len(content))], [0, 1, 2])
    connection.sendall(content)
except OSError:
    run_as_ever()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, hand_on)
answer = b""
while part := connection.recv(64):
    answer += part
code = int(answer or b"1")
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


@contextmanager
def preloaded(**variables: str) -> Iterator[dict[str, str]]:
    """The environment in which `python` and `dvc` are quick, for a server that was started with `variables` too.

    It is the present environment where there can be no such server: the tests are slower then.
    """
    environment = os.environ | variables
    with tempfile.TemporaryDirectory() as folder, ExitStack() as clean:
        fits_a_first_line = len(f"#!{sys.executable} -IS") <= _FIRST_LINE and " " not in sys.executable
        if fits_a_first_line and _start(Path(folder) / "server", environment, clean):
            commands = str(Path(folder) / "server" / "bin")
            environment |= {COMMANDS: commands, "PATH": os.pathsep.join([commands, os.environ["PATH"]])}
        yield environment


def _start(folder: Path, environment: dict[str, str], clean: ExitStack) -> bool:
    """Start a server that ends with `clean`, or with this process; whether it is ready."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # an interrupted test run ends it by the end of its input, after what it started
    )

    def end() -> None:
        try:
            process.communicate(timeout=_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()

    clean.callback(end)
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _STARTING)
    return bool(ready) and process.stdout.read(1) == b"+"


def serve(folder: Path, quick: dict[str, str]) -> None:
    """Import the libraries, write the commands, and fork until the process that started this one has ended.

    `quick` are variables that every fork has, whoever asks for it.
    """
    given = dict(os.environ)
    here = Path(__file__).resolve()
    sys.path = [path for path in sys.path if Path(path).resolve() not in here.parents]  # without the project
    for name in [name for name in sys.modules if name.split(".")[0] == "generative"]:
        del sys.modules[name]
    for library in LIBRARIES:
        with suppress(ImportError):
            import_module(library)
    address = str(folder / "socket")
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "dvc"):
        path = folder / "bin" / name
        texts = {"given": json.dumps(given), "quick": json.dumps(quick), "address": address, "loaded": _LOADED}
        path.write_text(CLIENT.format(python=sys.executable, name=name, **texts))
        path.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    os.close(os.pidfd_open(os.getpid()))  # attendants need it
    os.write(1, b"+")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the attendants
    waiting: list[Any] = [listener, 0]
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if 0 in ready and not os.read(0, 1):
            return
        if listener in ready:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                attend(connection, quick)
            connection.close()


def attend(connection: socket.socket, quick: dict[str, str]) -> NoReturn:
    """Fork once more for one command, hand on signals and the exit code, and end it if who asked for it is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, 4, 3)
    content = b""
    while len(content) < struct.unpack("I", header)[0]:
        if not (part := connection.recv(1 << 16)):
            os._exit(1)  # who asked is gone
        content += part
    child = os.fork()
    if not child:
        connection.close()
        work(json.loads(content), streams, quick)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    waiting: list[Any] = [connection, ended]
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if ended in ready:
            _, status = os.waitpid(child, 0)
            with suppress(OSError):
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)
        if not (numbers := connection.recv(16)):
            _signal(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os._exit(0)
        for number in numbers:
            _signal(child, number)


def _signal(child: int, number: int) -> None:
    """To the child and to all that it has started."""
    try:
        os.killpg(child, number)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(child, number)


def work(request: Any, streams: list[int], quick: dict[str, str]) -> NoReturn:
    """Become the process that was asked for."""
    name, arguments, folder, environment, umask = request
    os.setsid()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(stream, mode, buffering=1) for stream, mode in enumerate("rww"))
    os.chdir(folder)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(quick | environment if name == "python" else environment)
    code = 0
    try:
        if name == "python":
            sys.orig_argv = [sys.executable, *arguments]
            sys.argv = [sys.executable, *arguments[2:]]
            sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
            runpy.run_module("stages", run_name="__main__", alter_sys=True)
        else:
            sys.argv = [name, *arguments]
            code = import_module("dvc.cli").main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from generative.compute.environment import PORTABLE, QUIET

    variables = {key: os.environ.get(key, value) for key, value in QUIET.items()} | PORTABLE
    os.environ.update(variables)  # before the libraries look at them
    serve(Path(sys.argv[1]), variables)
