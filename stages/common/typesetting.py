"""Typesetting with Typst: a template and what it is given become a PDF."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typst

from generative.errors import PipelineError


def first_that_fits(template: Path, contexts: Iterable[dict[str, Any]], *, name: str) -> bytes:
    """The PDF of `template` with the first of `contexts` that it does not refuse; the same bytes for the same files.

    Args:
        template: refuses, by a panic, what does not fit its pages.
        contexts: what it is given, as JSON.
        name: of the document, for the error.

    Raises:
        PipelineError: all are refused, a figure is missing, or the template is wrong.
    """
    reason = ""
    for context in contexts:
        try:
            pdf = typst.compile(
                str(template),
                root=".",
                ignore_system_fonts=True,
                sys_inputs={"context": json.dumps(context, sort_keys=True)},
                timestamp=0,
            )
        except typst.TypstError as error:
            reason = error.message
            continue
        assert isinstance(pdf, bytes)
        return pdf
    raise PipelineError(f"the {name} cannot be typeset: {reason}.")
