"""A wrong setting is an error that names the key and what is allowed."""

from typing import Any

import pytest

from generative.compute.settings import ComputeConfig
from generative.errors import PipelineError, SettingError
from generative.families.cgan import Config as CganConfig
from generative.families.vae import Config as VaeConfig

TRAINING: dict[str, Any] = {
    "seed": 3,
    "epochs": 4,
    "batch_size": 50,
    "learning_rate": 0.002,
    "decay": "none",
    "latent_dim": 5,
    "channels": 0,
    "hidden": [40, 30],
    "activation": "relu",
    "sine_frequency": 0.0,
    "decoder_variance": 0.25,
}
SAMPLING: dict[str, Any] = {"refine_steps": 0, "mixture_components": 0}
VAE: dict[str, Any] = {"family": "vae", "training": TRAINING, "sampling": SAMPLING}


def test_good_values_are_kept() -> None:
    config = VaeConfig.parse(VAE, where="models.vae").training
    assert (config.seed, config.epochs, config.batch_size, config.hidden) == (3, 4, 50, [40, 30])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"latent_dimension": 3},
            ["unknown key 'models.vae.training.latent_dimension'", "allowed in 'models.vae.training'", "latent_dim"],
        ),
        ({"epochs": 0}, ["'models.vae.training.epochs'", "0", "greater than or equal to 1"]),
        ({"epochs": "20"}, ["'models.vae.training.epochs'", "'20'", "valid integer"]),
        ({"epochs": True}, ["'models.vae.training.epochs'", "True", "valid integer"]),
        ({"learning_rate": float("nan")}, ["'models.vae.training.learning_rate'"]),
        ({"learning_rate": -1.0}, ["'models.vae.training.learning_rate'", "greater than or equal to"]),
        ({"hidden": [512, 0]}, ["'models.vae.training.hidden.1'", "greater than or equal to 1"]),
        ({"seed": -1}, ["'models.vae.training.seed'"]),
        ({"decoder_variance": "learned"}, ["'models.vae.training.decoder_variance", "calibrated"]),
    ],
)
def test_bad_values_name_the_key(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PipelineError) as caught:
        VaeConfig.parse(VAE | {"training": TRAINING | change}, where="models.vae")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampling": {"refine_steps": 0}}, ["'models.vae.sampling.mixture_components' is missing"]),
        ({"sampling": SAMPLING | {"epochs": 3}}, ["unknown key 'models.vae.sampling.epochs'", "refine_steps"]),
        ({"sampling": 3}, ["'models.vae.sampling' is 3, but must be a block", "mixture_components, refine_steps"]),
        ({"training": TRAINING | {"batch_size": 1}}, ["'models.vae.training.batch_size' is 1", "equal to 2"]),
        ({"epochs": 3}, ["unknown key 'models.vae.epochs'; allowed in 'models.vae': family, sampling, sweeps"]),
    ],
)
def test_bad_parts_name_the_key(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingError) as caught:
        VaeConfig.parse(VAE | change, where="models.vae")
    for word in words:
        assert word in str(caught.value)


def test_part_without_settings_can_be_left_out() -> None:
    block = {"family": "cgan", "training": {"loss": "cosine"}}
    with pytest.raises(SettingError) as caught:
        CganConfig.parse(block, where="models.cgan")
    assert "sampling" not in str(caught.value)


def test_missing_key_is_named() -> None:
    with pytest.raises(PipelineError, match=r"'compute\.threads' is missing"):
        ComputeConfig.parse({"accelerator": "cpu", "precision": "32-true"}, where="compute")


def test_choices_are_listed() -> None:
    with pytest.raises(PipelineError, match=r"least_squares.*logistic.*hinge"):
        CganConfig.parse({"family": "cgan", "training": {"loss": "cosine"}}, where="models.cgan")


def test_block_must_be_a_mapping() -> None:
    with pytest.raises(PipelineError, match=r"'models\.vae' is 3"):
        VaeConfig.parse(3, where="models.vae")


def test_config_cannot_be_changed() -> None:
    config = VaeConfig.parse(VAE, where="models.vae").training
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 4  # type: ignore[misc]
