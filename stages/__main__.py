"""`python -m stages [--pipeline FOLDER] STAGE [NAME]`: the one way in to every stage, whoever starts it.

The process is first given the environment that a computing process needs. A stage's errors that a user can mend are
one sentence, not a traceback.
"""

import os
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import NoReturn

from generative.compute.environment import process_environment, restart_with
from stages.common.code_files import check_code
from stages.common.params import wants_portable_bytes
from stages.common.paths import PIPELINES, ROOT
from stages.common.problems import fail, run

_FOLDER = Path(__file__).parent


def main(arguments: list[str]) -> NoReturn:
    """Run the stage that the first of `arguments` names, with the others."""
    restart_with(process_environment(os.environ, portable=wants_portable_bytes()))
    here = ROOT
    if arguments[:1] == ["--pipeline"]:
        folder, arguments = arguments[1:2], arguments[2:]
        if not folder or folder[0] not in PIPELINES:
            fail(f"which pipeline? --pipeline takes one of {', '.join(filter(None, PIPELINES))}.", 2)
        here = PIPELINES[folder[0]]
    if not arguments or arguments[0] not in available_stages():
        asked = f"'{arguments[0]}' is no stage" if arguments else "which stage?"
        fail(
            f"{asked}: usage: python -m stages [--pipeline FOLDER] STAGE [NAME], STAGE one of "
            f"{', '.join(available_stages())}.",
            2,
        )
    stage, *rest = arguments
    function = import_module(f"stages.{stage}").main
    try:
        signature(function).bind(here, *rest)
    except TypeError as error:
        fail(f"stage '{stage}': {error}.", 2)

    def work() -> None:
        check_code(here, stage, *rest)
        function(here, *rest)

    run(work)


def available_stages() -> list[str]:
    """Names of the modules beside this one; none of them is imported."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


if __name__ == "__main__":
    main(sys.argv[1:])
