"""A wrong setting is an error that names the key and what is allowed."""

from typing import Any

import pytest

from generative.errors import PipelineError
from generative.families.cgan import Config as CganConfig
from generative.families.vae import Config as VaeConfig
from generative.runtime import ComputeConfig

VAE: dict[str, Any] = {
    "family": "vae",
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
    "refine_steps": 0,
    "decoder_variance": 0.25,
    "mixture_components": 0,
}


def test_good_values_are_kept() -> None:
    config = VaeConfig.parse(VAE, where="models.vae")
    assert (config.seed, config.epochs, config.batch_size, config.hidden) == (3, 4, 50, [40, 30])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent_dimension": 3}, ["unknown key 'models.vae.latent_dimension'", "latent_dim"]),
        ({"epochs": 0}, ["'models.vae.epochs'", "0", "greater than or equal to 1"]),
        ({"epochs": "20"}, ["'models.vae.epochs'", "'20'", "valid integer"]),
        ({"epochs": True}, ["'models.vae.epochs'", "True", "valid integer"]),
        ({"learning_rate": float("nan")}, ["'models.vae.learning_rate'"]),
        ({"learning_rate": -1.0}, ["'models.vae.learning_rate'", "greater than 0"]),
        ({"hidden": [512, 0]}, ["'models.vae.hidden.1'", "greater than or equal to 1"]),
        ({"seed": -1}, ["'models.vae.seed'"]),
        ({"decoder_variance": "learned"}, ["'models.vae.decoder_variance", "calibrated"]),
    ],
)
def test_bad_values_name_the_key(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PipelineError) as caught:
        VaeConfig.parse(VAE | change, where="models.vae")
    for word in words:
        assert word in str(caught.value)


def test_missing_key_is_named() -> None:
    with pytest.raises(PipelineError, match=r"'compute\.threads' is missing"):
        ComputeConfig.parse({"accelerator": "cpu", "precision": "32-true"}, where="compute")


def test_choices_are_listed() -> None:
    with pytest.raises(PipelineError, match=r"least_squares.*logistic"):
        CganConfig.parse({"loss": "hinge"}, where="models.cgan")


def test_block_must_be_a_mapping() -> None:
    with pytest.raises(PipelineError, match=r"'models\.vae' is 3"):
        VaeConfig.parse(3, where="models.vae")


def test_config_cannot_be_changed() -> None:
    config = VaeConfig.parse(VAE, where="models.vae")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 4  # type: ignore[misc]
