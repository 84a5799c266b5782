"""The networks of the adversarial families, and what their discriminators look at."""

from typing import Any

import pytest
import torch

from generative.compute.runtime import make_rng
from generative.data.splits import Split, to_unit
from generative.errors import PipelineError
from generative.networks.convolutional import DetailView, Discriminator, Generator, discriminator_layers
from generative.training.adversarial import frozen, r1_penalty
from generative.training.convolutional import lazy_r1, round_to_grey_levels
from tests.small import build, small_config


def test_rounded_images_are_grey_levels_and_pass_gradients_on(rng: torch.Generator) -> None:
    images = torch.rand(2, 1, 28, 28, generator=rng).requires_grad_(True)
    rounded = round_to_grey_levels(images)
    torch.testing.assert_close(255 * rounded, (255 * rounded).round())
    assert (rounded - images).abs().max() <= 0.5 / 255 + 1e-6
    (3 * rounded).sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, torch.full_like(images, 3.0))


def test_detail_view_enlarges_faint_grain_and_overlooks_plain_cloth(rng: torch.Generator) -> None:
    plain = torch.full((1, 1, 28, 28), 0.4)
    faint = plain + 5 / 255 * torch.randn(1, 1, 28, 28, generator=rng)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # outside the image is black
    grey_plain, detail_plain = DetailView()(plain)[inner].unbind(1)
    grey_faint, detail_faint = DetailView()(faint)[inner].unbind(1)
    torch.testing.assert_close(detail_plain, torch.zeros_like(detail_plain), atol=1e-5, rtol=0)
    assert detail_faint.std() > 4 * (grey_faint - grey_plain).std()
    assert detail_faint.abs().max() < 1


def test_discriminator_keeps_what_it_sees(rng: torch.Generator) -> None:
    """Features vary about as much as pixels do, so that the first steps of the training already learn."""
    x = torch.rand(64, 1, 28, 28, generator=rng)
    spread = discriminator_layers(16)(x).std(0).mean()
    assert 0.2 < spread < 5
    assert Discriminator(16)(x).shape == (64,)


def test_generator_reaches_black_and_white() -> None:
    generator: Any = Generator(4, 8, num_classes=0)
    last = generator.blocks[-1].layer[-1]
    for bias, grey in ((-6.0, 0.0), (6.0, 1.0)):
        torch.nn.init.constant_(last.bias, bias)
        torch.nn.init.zeros_(last.weight)
        assert (generator(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)) == grey).all()


def test_noise_modulates_the_normalisations(rng: torch.Generator) -> None:
    """Without its direct way in, noise still changes the image: self-modulation."""
    generator: Any = Generator(4, 8, num_classes=10).eval()
    torch.nn.init.zeros_(generator.project.weight)
    z, y = torch.randn(2, 4, generator=rng), torch.zeros(2, dtype=torch.int64)
    first, second = generator(z, y)
    torch.testing.assert_close(first, second)
    for block in generator.blocks:
        torch.nn.init.normal_(block.normalise.of_noise.weight, generator=rng)
    first, second = generator(z, y)
    assert (first - second).abs().max() > 0.01


def test_frozen_networks_pass_gradients_on_and_collect_none(rng: torch.Generator) -> None:
    discriminator = Discriminator(4)
    x = torch.rand(2, 1, 28, 28, generator=rng).requires_grad_(True)
    with frozen(discriminator):
        discriminator(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(value.grad is None for value in discriminator.parameters())
    with pytest.raises(KeyError), frozen(discriminator):
        raise KeyError
    assert all(value.requires_grad for value in discriminator.parameters())


def test_lazy_penalty_is_the_penalty_on_average(rng: torch.Generator) -> None:
    config = small_config("gan", r1_weight=0.3, r1_interval=4).training
    discriminator, x = Discriminator(4), torch.rand(3, 1, 28, 28, generator=rng)
    penalties = [lazy_r1(config, step, discriminator, x) for step in range(8)]
    assert [bool(penalty) for penalty in penalties] == 2 * [True, False, False, False]
    mean = sum(torch.as_tensor(penalty).item() for penalty in penalties) / 8
    assert mean == pytest.approx(0.3 * r1_penalty(discriminator, x).item(), rel=1e-4)


class _Brightness(torch.nn.Module):
    """A discriminator that takes what is bright for real, and that no optimizer knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * (x.mean((1, 2, 3)) - 0.5)


def test_verdict_changes_what_is_decoded(rng: torch.Generator) -> None:
    """Where the discriminator likes bright images, reconstructions become brighter than what they are of."""
    x = torch.rand(40, 1, 28, 28, generator=rng) * 0.4
    brightness = []
    for weight in (1e-6, 100.0):
        model, objective, _ = build(small_config("vae_gan", adversarial_weight=weight, decay="none"))
        objective.discriminator = objective.raw_discriminator = _Brightness()
        for _ in range(40):
            objective.step(x, torch.zeros(40, dtype=torch.int64), rng)
        brightness.append(model.eval()(x, torch.zeros(40, 2))[0].mean().item())
    assert brightness[0] == pytest.approx(x.mean().item(), abs=0.1)
    assert brightness[1] > brightness[0] + 0.2


def test_decoder_is_measured_on_posterior_samples_at_the_end(blobs: Split) -> None:
    model, objective, _ = build(small_config("vae_gan"))
    first = model.decoder.blocks[0].normalise.normalise
    first.running_mean.fill_(7)
    objective.finish(blobs)
    z = model.draw_latents(to_unit(blobs.images), make_rng(model.config.seed))
    expected = model.decoder.project(z).view(len(z), -1, 7, 7).mean((0, 2, 3))
    torch.testing.assert_close(first.running_mean, expected.detach(), rtol=1e-4, atol=1e-5)
    assert not model.decoder.training


def test_variance_beside_a_discriminator_is_a_number() -> None:
    with pytest.raises(PipelineError, match="calibrated variance would grow with the error"):
        small_config("vae_gan", decoder_variance="calibrated")
