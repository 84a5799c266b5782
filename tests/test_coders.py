"""Encoders, decoders, the refinement of a latent vector, and the learning rate's schedule."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from generative.data.images import IMAGE_SHAPE
from generative.data.splits import Split, to_unit
from generative.errors import PipelineError
from generative.networks.coders import make_decoder, make_encoder, refine
from generative.training.schedules import make_schedule
from tests.small import build, small_config


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 0, "hidden": []},
        {"channels": 0, "hidden": [32, 16], "sine_frequency": 2.0},
        {"channels": 4, "hidden": []},
        {"channels": 4, "hidden": [32], "sine_frequency": 0.5, "activation": "relu"},
    ],
)
def test_networks_map_images_to_vectors_and_back(changes: dict[str, Any], rng: torch.Generator) -> None:
    config = small_config("autoencoder", latent_dim=3, **({"sine_frequency": 0.0} | changes)).training
    z = make_encoder(config, 5)(torch.rand(7, *IMAGE_SHAPE, generator=rng))
    assert z.shape == (7, 5)
    x_hat = make_decoder(config)(torch.randn(7, 3, generator=rng))
    assert x_hat.shape == (7, *IMAGE_SHAPE)
    assert 0 < float(x_hat.detach().min()) < float(x_hat.detach().max()) < 1
    assert "3" in config.describe_networks()


def test_sines_need_a_hidden_layer() -> None:
    with pytest.raises(PipelineError, match="sine_frequency needs at least one hidden layer"):
        small_config("autoencoder", hidden=[], sine_frequency=1.0)


class TestRefine:
    @staticmethod
    def loss(z: Tensor, x: Tensor) -> Tensor:
        """Least at z = x[:, 0, 0, :2], except for dark images: there, where they are."""
        bright = x.flatten(1).mean(1) > 0.1
        return torch.where(bright, (z - x[:, 0, 0, :2]).square().sum(1), z.square().sum(1).clamp(max=1e-9))

    def test_ends_nearer_and_leaves_what_it_cannot_improve(self, rng: torch.Generator) -> None:
        x = torch.rand(6, *IMAGE_SHAPE, generator=rng)
        x[4:] = 0
        z = x[:, 0, 0, :2] + 0.2
        with torch.inference_mode():
            refined = refine(z, x, self.loss, 20)
        before, after = self.loss(z, x), self.loss(refined, x)
        assert bool((after[:4] < 0.1 * before[:4]).all())
        assert torch.equal(refined[4:], z[4:])

    def test_no_steps_is_the_encoders_answer(self, rng: torch.Generator) -> None:
        x = torch.rand(6, *IMAGE_SHAPE, generator=rng)
        z = torch.zeros(6, 2)
        assert refine(z, x, self.loss, 0) is z

    @pytest.mark.parametrize("name", ["autoencoder", "vae"])
    def test_each_image_is_refined_for_itself(self, name: str, blobs: Split) -> None:
        config = small_config(name, refine_steps=5)
        model, _, _ = build(config)
        model.prepare_sampling(config.sampling, blobs)
        x = to_unit(blobs.images[::40])
        with torch.inference_mode():
            together, alone = model.encode(x), torch.cat([model.encode(image) for image in x.split(1)])
        torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)

    def test_refined_images_are_reconstructed_better(self, blobs: Split) -> None:
        config = small_config("autoencoder", refine_steps=5)
        model, _, _ = build(config)
        model.prepare_sampling(config.sampling, blobs)
        x = to_unit(blobs.images)
        with torch.inference_mode():
            quick, refined = (model.decode(z) for z in (model.encoder(x), model.encode(x)))
        assert (refined - x).square().mean() < (quick - x).square().mean()


def test_linear_schedule_rises_then_falls_to_a_hundredth() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = make_schedule(optimizer, "linear", 200)
    rates = []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 1.97])
    assert all(later <= earlier for earlier, later in pairwise(rates[3:]))
    assert rates[100] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.02)


def test_schedule_can_be_switched_off() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = make_schedule(optimizer, "none", 10)
    for _ in range(10):
        assert optimizer.param_groups[0]["lr"] == 2.0
        optimizer.step()
        schedule.step()
