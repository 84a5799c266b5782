"""A trained model from one file: it draws and encodes what the pipeline drew and encoded, and says what it cannot."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from generative.compute.environment import process_environment
from generative.errors import FileDamagedError, FileMissingError, PipelineError, SettingError
from generative.io.tensors import load_metadata, load_tensors, save_tensors
from generative.loading import load_model
from stages.common.paths import ROOT
from tests.small import CLASSES, PARAMS

MODELS = list(PARAMS["models"])


_COMPARE = """
import sys
import torch
from generative.compute.runtime import start
from generative.data.splits import load_split, to_uint8
from generative.io.tensors import load_tensors
from generative.loading import load_model
from stages.common.params import read_params
from stages.common.paths import ROOT, TEST

params = read_params()
start(params.compute)
name, few = sys.argv[1], slice(params.raw("generate")["batch_size"])  # as many as the pipeline takes at a time
model, made = load_model(ROOT.released(name)), load_tensors(ROOT.generated(name))
print(model.name, model.dataset, *model.classes, sep="|")
samples = model.sample(len(made["samples"]), seed=params.raw("generate")["seed"])
assert torch.equal(to_uint8(samples), made["samples"])
if "latents" in made:
    latents = model.encode(load_split(TEST).images[few])
    assert torch.equal(latents, made["latents"][few])
    assert torch.equal(to_uint8(model.decode(latents)), made["reconstructions"][few])
if "log_likelihood" in made:
    found = model.log_likelihood(load_split(TEST).images[few], seed=params.raw("generate")["seed"])
    assert torch.equal(found, made["log_likelihood"][few])
"""


@pytest.mark.parametrize("name", MODELS)
def test_draws_and_encodes_as_the_pipeline_does(name: str, scratch: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _COMPARE, name],
        cwd=scratch,
        env=process_environment(os.environ, portable=True),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().split("|") == [name, "Fashion-MNIST", *CLASSES]


def test_classes_are_asked_for_by_name_or_number(scratch: Path) -> None:
    model = load_model(scratch / ROOT.released("cgan"))
    by_name = model.sample(["Trouser", "Bag"], seed=3)
    assert torch.equal(by_name, model.sample([1, 8], seed=3))
    assert torch.equal(by_name, model.sample(torch.tensor([1, 8]), seed=3))
    assert not torch.equal(by_name, model.sample([1, 8], seed=4))
    assert by_name.shape == (2, 1, 28, 28)


def test_what_a_model_cannot_do_is_one_sentence(scratch: Path) -> None:
    model, encoder = (load_model(scratch / ROOT.released(name)) for name in ("cgan", "vae"))
    with pytest.raises(PipelineError, match=r"there is no class 'Hat'; there are: T-shirt/top, Trouser"):
        model.sample(["Hat"])
    with pytest.raises(PipelineError, match=r"cgan draws samples of the classes .* not of 10"):
        model.sample([10])
    with pytest.raises(PipelineError, match=r"cgan has no encoder"):
        model.encode(torch.zeros(1, 1, 28, 28))
    with pytest.raises(PipelineError, match=r"cgan has no likelihood"):
        model.log_likelihood(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    with pytest.raises(PipelineError, match=r"images must be uint8 \(N, 1, 28, 28\), not torch.float32"):
        encoder.log_likelihood(torch.zeros(1, 1, 28, 28))
    with pytest.raises(PipelineError, match=r"images must be \(N, 1, 28, 28\), not \(1, 28, 28\)"):
        encoder.encode(torch.zeros(1, 28, 28))
    with pytest.raises(PipelineError, match=r"uint8, or floats in \[0, 1\]"):
        encoder.encode(torch.full((1, 1, 28, 28), 255.0))


def test_other_files_are_refused(scratch: Path, tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"none\.safetensors"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(FileDamagedError, match=r"reads those in models/released/"):
        load_model(scratch / ROOT.model("vae"))
    path = scratch / ROOT.released("vae")
    words, tensors = load_metadata(path), load_tensors(path)
    changes: list[tuple[dict[str, Any], set[str], type[PipelineError], str]] = [
        ({"format": 99}, set(), FileDamagedError, "is of format 99"),
        ({"settings": words["settings"] | {"family": "unheard_of"}}, set(), SettingError, "unheard_of"),
        ({"settings": words["settings"] | {"colour": "red"}}, set(), SettingError, "colour"),
        ({}, {"fitted.means"}, FileDamagedError, "what sampling was fitted to"),
        ({}, {"weights.variance"}, FileDamagedError, "variance"),
    ]
    for change, lost, error, word in changes:
        changed = tmp_path / "changed.safetensors"
        save_tensors(changed, {key: part for key, part in tensors.items() if key not in lost}, words | change)
        with pytest.raises(error, match=word):
            load_model(changed)


def test_dvc_get_fetches_a_model_from_another_folder(scratch: Path, tmp_path: Path) -> None:
    target = tmp_path / "vae.safetensors"
    command = ["dvc", "get", "--quiet", str(scratch), str(ROOT.released("vae")), "-o", str(target)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert load_model(target).encode(torch.zeros(2, 1, 28, 28)).shape == (2, 2)
