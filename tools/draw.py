"""`make draw PROMPT="a light wide bag"`: draw samples of a prompt with a model that follows prompts.

drawn/PROMPT.npy has them, uint8 (COUNT, 28, 28), drawn/PROMPT.png shows the first hundred at most. The model is the
first one that follows prompts, or NAME; it is pulled if it is not here.
"""

import argparse
import os
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generative.capabilities.prompting import FollowsPrompts
from generative.compute.environment import process_environment, restart_with
from generative.compute.runtime import start
from generative.data.splits import to_uint8
from generative.errors import PipelineError
from generative.figures import images as pictures
from generative.figures.style import save_figure
from generative.io.files import atomic_path
from generative.loading import load_model
from stages.common.models import read_model
from stages.common.params import read_params, wants_portable_bytes
from stages.common.paths import Pipeline
from stages.common.published import FiguresConfig
from tools.entry import run_tool
from tools.fetch import fetch_missing
from tools.pipelines import homes_of_models

FOLDER = Path("drawn")
_IN_A_ROW, _SHOWN = 10, 100
_LONGEST = 80  # characters of a file name


def main(arguments: list[str]) -> int:
    """Draw the samples and write them; returns the exit code."""
    restart_with(process_environment(os.environ, portable=wants_portable_bytes()))
    parser = argparse.ArgumentParser(prog="make draw", description=__doc__)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--count", type=int, default=2 * _IN_A_ROW)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args(arguments)
    if not 1 <= wanted.count <= 10_000:
        raise PipelineError(f"COUNT is {wanted.count}, but must be from 1 to 10,000.")
    if not 0 <= wanted.seed < 2**32:
        raise PipelineError(f"SEED is {wanted.seed}, but must be from 0 to {2**32 - 1}.")
    name, here = find_model(wanted.name)
    params = read_params(here)
    device = start(params.compute)
    path = here.released(name)
    fetch_missing([path], f"make model NAME={name}")
    images = to_uint8(load_model(path, device).draw([wanted.prompt] * wanted.count, wanted.seed)).cpu()
    figure = pictures.strip(in_rows(images[:_SHOWN]), (), (), f"{name}: {wanted.prompt}", light_on_black=True)
    stem = FOLDER / file_name(wanted.prompt)
    save_figure(figure, stem.with_suffix(".png"), params.block("figures", FiguresConfig).dpi)
    with atomic_path(stem.with_suffix(".npy")) as part, part.open("wb") as file:
        np.save(file, images[:, 0].numpy(), allow_pickle=False)
    print(f"{wanted.count} samples of {name}: {stem}.png, {stem}.npy")
    return 0


def find_model(name: str) -> tuple[str, Pipeline]:
    """The model `name`, or the first that follows prompts, and its pipeline.

    Raises:
        PipelineError: there is none.
    """
    following = {
        model: here
        for model, here in homes_of_models().items()
        if issubclass(read_model(read_params(here), model)[1].Model, FollowsPrompts)
    }
    if not following:
        raise PipelineError("no model of params.yaml or zoo/params.yaml follows prompts.")
    chosen = name or next(iter(following))
    if chosen not in following:
        raise PipelineError(f"{chosen!r} is no model that follows prompts; there are: {', '.join(following)}.")
    return chosen, following[chosen]


def in_rows(images: Tensor) -> Tensor:
    """Images uint8 (N, 1, 28, 28) in rows (R, C, 1, 28, 28), the last one filled up with black."""
    columns = min(_IN_A_ROW, len(images))
    missing = -len(images) % columns
    filled = torch.cat([images, torch.zeros(missing, *images.shape[1:], dtype=images.dtype)])
    return filled.view(-1, columns, *images.shape[1:])


def file_name(prompt: str) -> str:
    """A prompt as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "_", prompt.lower()).strip("_")[:_LONGEST] or "prompt"


if __name__ == "__main__":
    run_tool(main, sys.argv[1:])
