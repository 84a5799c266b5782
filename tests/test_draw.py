"""`make draw`: samples of a prompt from a released model, and one sentence about what cannot be drawn."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from generative.data.splits import Split, to_uint8
from generative.errors import PipelineError, SettingError
from generative.loading import load_model
from generative.releasing import save_model
from stages.common.paths import ZOO
from tests.small import CLASSES, PARAMS, ROOT, ZOO_PARAMS, build, disturb, make_blobs, shrunk, small_config
from tools.draw import in_rows


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text model that was hardly trained, and one that follows no prompts."""
    folder = tmp_path_factory.mktemp("draw")
    (folder / "zoo").mkdir()
    blocks = {name: shrunk(ZOO_PARAMS["models"][name]) for name in ("gan", "text_diffusion")}
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (folder / "zoo/params.yaml").write_text(yaml.safe_dump(ZOO_PARAMS | {"models": blocks}))
    for name in blocks:
        config = small_config(blocks[name]["family"])
        model, _, _ = build(config)
        disturb(model)
        model.eval().prepare_sampling(config.sampling, Split(*_some()))
        save_model(folder / ZOO.released(name), model, config, name=name, dataset="blobs", classes=CLASSES)
    return folder


def _some() -> tuple[torch.Tensor, torch.Tensor]:
    blobs = make_blobs()
    return blobs.images[:100], blobs.labels[:100]


def draw(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.draw", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_samples_are_drawn_shown_and_written(workspace: Path) -> None:
    result = draw(workspace, "--prompt=A light, wide bag!", "--count=12", "--seed=3")
    assert result.returncode == 0, result.stderr
    assert "12 samples of text_diffusion: drawn/a_light_wide_bag.png" in result.stdout
    images = np.load(workspace / "drawn/a_light_wide_bag.npy", allow_pickle=False)
    assert (images.shape, images.dtype) == ((12, 28, 28), np.uint8)
    with Image.open(workspace / "drawn/a_light_wide_bag.png") as picture:
        assert picture.width > 500
    model = load_model(workspace / ZOO.released("text_diffusion"))
    again = to_uint8(model.draw(["A light, wide bag!"] * 12, seed=3))[:, 0].numpy()
    assert np.abs(images.astype(int) - again).max() <= 1  # this process is not set up as the tool's is


def test_other_words_and_seeds_give_other_images(workspace: Path) -> None:
    model = load_model(workspace / ZOO.released("text_diffusion"))
    first = model.draw(["a bag", "a dark dress"], seed=0)
    assert torch.equal(first, model.draw(["a bag", "a dark dress"], seed=0))
    assert not torch.equal(first, model.draw(["a bag", "a dark dress"], seed=1))
    assert not torch.equal(first[1], model.draw(["a bag", "a light coat"], seed=0)[1])
    assert torch.equal(model.draw("a bag", seed=2), model.draw(["a bag"], seed=2))
    assert model.draw([]).shape == (0, 1, 28, 28)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (9, 1), (10, 1), (15, 2), (100, 10)])
def test_every_sample_is_shown(count: int, rows: int) -> None:
    images = torch.full((count, 1, 28, 28), 7, dtype=torch.uint8)
    shown = in_rows(images)
    assert len(shown) == rows
    assert int((shown == 7).all((2, 3, 4)).sum()) == count


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt=a purple bag"], "unknown words in the prompt 'a purple bag': purple. Known ones: ankle"),
        (["--prompt=..."], "the prompt is empty"),
        (["--prompt=a bag", "--name=gan"], "'gan' is no model that follows prompts; there are: text_diffusion."),
        (["--prompt=a bag", "--count=0"], "COUNT is 0, but must be from 1 to 10,000."),
        (["--prompt=a bag", "--seed=-1"], "SEED is -1"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(workspace: Path, arguments: list[str], words: str) -> None:
    result = draw(workspace, *arguments)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_model_without_prompts_says_so(workspace: Path) -> None:
    model = load_model(workspace / ZOO.released("gan"))
    with pytest.raises(PipelineError, match=r"gan follows no prompts\."):
        model.draw(["a bag"])
    with pytest.raises(SettingError, match="unknown words"):
        load_model(workspace / ZOO.released("text_diffusion")).draw(["a hat"])
