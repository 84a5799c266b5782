"""The networks of the adversarial families, and what their discriminators look at."""

from typing import Any

import torch

from generative.networks.convolutional import DetailView, Discriminator, Generator, discriminator_layers
from generative.training.convolutional import round_to_grey_levels


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
    spread = discriminator_layers(16, 64)(x).std(0).mean()
    assert 0.2 < spread < 5
    assert Discriminator(16, 64)(x).shape == (64,)


def test_generator_reaches_black_and_white() -> None:
    generator: Any = Generator(4, 8, conditional=False)
    last = generator.blocks[-1].layer[-1]
    for bias, grey in ((-6.0, 0.0), (6.0, 1.0)):
        torch.nn.init.constant_(last.bias, bias)
        torch.nn.init.zeros_(last.weight)
        assert (generator(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64)) == grey).all()


def test_noise_modulates_the_normalisations(rng: torch.Generator) -> None:
    """Without its direct way in, noise still changes the image: self-modulation."""
    generator: Any = Generator(4, 8, conditional=True).eval()
    torch.nn.init.zeros_(generator.project.weight)
    z, y = torch.randn(2, 4, generator=rng), torch.zeros(2, dtype=torch.int64)
    first, second = generator(z, y)
    torch.testing.assert_close(first, second)
    for block in generator.blocks:
        torch.nn.init.normal_(block.normalise.of_noise.weight, generator=rng)
    first, second = generator(z, y)
    assert (first - second).abs().max() > 0.01
