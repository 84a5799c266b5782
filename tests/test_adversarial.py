"""Losses, penalties and layers of the adversarial families, each against a value of its own."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from generative.compute.runtime import make_rng
from generative.data.splits import Split, balanced_labels, to_unit
from generative.errors import SettingError
from generative.family import load_family
from generative.networks.attention import SelfAttention
from generative.networks.convolutional import ConditionalBatchNorm, discriminator_layers
from generative.training.adversarial import (
    consistency_term,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    orthogonal_penalty,
)
from tests.small import build, small_config


def test_hinge_loss_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    assert float(discriminator_loss(real, fake, "hinge")) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1) / 2)
    assert float(generator_loss(fake, "hinge")) == pytest.approx(1.5)


def test_gradient_penalty_of_a_linear_critic_is_exact(rng: torch.Generator) -> None:
    direction = torch.randn(1, 28, 28, generator=rng)
    x, x_fake = torch.rand(2, 6, 1, 28, 28, generator=rng)
    found = gradient_penalty(
        lambda images: (direction * images).sum((1, 2, 3)), x, x_fake, torch.rand(6, generator=rng)
    )
    assert float(found) == pytest.approx((float(direction.norm()) - 1) ** 2, rel=1e-5)


def test_gradient_penalty_lies_between_the_images(rng: torch.Generator) -> None:
    """Of |x|^2 / 2 the gradient is x itself: the penalty is that of the mixture's own norm."""
    x, x_fake = torch.rand(2, 4, 1, 28, 28, generator=rng)
    share = torch.tensor([0.0, 0.25, 0.5, 1.0])
    mixed = share.view(-1, 1, 1, 1) * x + (1 - share.view(-1, 1, 1, 1)) * x_fake
    found = gradient_penalty(lambda images: images.square().sum((1, 2, 3)) / 2, x, x_fake, share)
    expected = (mixed.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(found, expected)


def test_gradient_penalty_can_be_that_of_a_view(rng: torch.Generator) -> None:
    """The slope of a sum is 1 for each number that is summed, whatever the view did to the image."""
    x, x_fake = torch.rand(2, 4, 1, 28, 28, generator=rng)
    found = gradient_penalty(
        lambda view: view.flatten(1).sum(1),
        x,
        x_fake,
        torch.rand(4, generator=rng),
        lambda images: 7 * images[..., :8, :8],
    )
    assert float(found) == pytest.approx((8 - 1) ** 2, rel=1e-5)


def test_consistency_term_by_hand() -> None:
    judged, again = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    features, features_again = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    found = consistency_term(judged, again, features, features_again)
    assert float(found) == pytest.approx((1 + 4) / 2 + 0.1 * (1 + 1 + 4) / 4)


def test_orthogonal_penalty_against_the_formula(rng: torch.Generator) -> None:
    wide, kernel = torch.randn(3, 5, generator=rng), torch.randn(2, 3, 3, 3, generator=rng)
    expected = torch.zeros(())
    for matrix in (wide, kernel.flatten(1)):
        products = matrix @ matrix.T
        expected = expected + (products * (1 - torch.eye(len(products)))).norm() ** 2
    torch.testing.assert_close(orthogonal_penalty([wide, kernel]), expected)
    basis = torch.linalg.qr(torch.randn(5, 3, generator=rng))[0]
    assert float(orthogonal_penalty([3 * basis, 2 * basis.T])) == pytest.approx(0, abs=1e-9)


def test_spectral_norm_is_the_largest_singular_value(rng: torch.Generator) -> None:
    family = load_family("biggan", where="test")
    discriminator = family.Discriminator(8, 10, norm=2.0)
    x, y = torch.rand(10, 1, 28, 28, generator=rng), balanced_labels(10, 10)
    for _ in range(200):  # each makes a step of the power iteration
        discriminator(x, y)
    discriminator.eval()
    wrapped = [module for module in discriminator.modules() if nn.utils.parametrize.is_parametrized(module)]
    assert len(wrapped) == 9  # three layers, both verdicts, four of the attention
    largest = [float(torch.linalg.svdvals(module.weight.detach().flatten(1))[0]) for module in wrapped]
    assert sorted(largest) == pytest.approx(6 * [1] + 3 * [2], abs=0.03)
    plain = [layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(plain) == 9  # none was forgotten


def test_conditional_normalisation_of_equal_conditions_is_the_plain_one(rng: torch.Generator) -> None:
    layer = ConditionalBatchNorm(3, 4)
    h = torch.randn(8, 3, 5, 5, generator=rng)
    torch.testing.assert_close(layer(h, torch.randn(8, 4, generator=rng)), nn.BatchNorm2d(3)(h))  # as it starts
    nn.init.normal_(layer.modulate.weight, generator=rng)
    condition = torch.randn(1, 4, generator=rng)
    scale, shift = (condition @ layer.modulate.weight.T).squeeze(0).chunk(2)
    plain = nn.functional.batch_norm(h, None, None, 1 + scale, shift, training=True)
    torch.testing.assert_close(layer(h, condition.expand(8, 4)), plain)
    other = layer(h, torch.cat([condition.expand(7, 4), -condition]))
    torch.testing.assert_close(other[:7], plain[:7])
    assert not torch.allclose(other[7], plain[7])


def test_attention_starts_as_nothing_and_is_that_of_the_formula(rng: torch.Generator) -> None:
    layer = SelfAttention(16)
    h = torch.randn(2, 16, 3, 3, generator=rng)
    assert torch.equal(layer(h), h)
    nn.init.constant_(layer.strength, 0.7)

    def product(convolution: Any, places: Tensor) -> Tensor:
        weight: Tensor = convolution[0].weight[:, :, 0, 0]
        return places @ weight.T

    places = h.flatten(2).transpose(1, 2)  # (B, H W, C)
    query, key, value = (product(part, places) for part in (layer.query, layer.key, layer.value))
    found = nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    expected = h + 0.7 * product(layer.out, found).transpose(1, 2).view_as(h)
    torch.testing.assert_close(layer(h), expected)


def test_dropout_stands_behind_every_activation_and_changes_nothing_else() -> None:
    torch.manual_seed(0)
    plain = discriminator_layers(8)
    torch.manual_seed(0)
    dropping = discriminator_layers(8, dropout=0.3)
    kinds = [type(layer) for layer in dropping]
    assert [kinds[place + 1] for place, kind in enumerate(kinds) if kind is nn.LeakyReLU] == 3 * [nn.Dropout]
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(dropping.eval()(x), plain(x))
    assert not torch.equal(dropping.train()(x), plain(x))


class TestWassersteinGAN:
    @pytest.mark.parametrize(
        ("training", "words"),
        [({"clip": 0.0, "penalty_weight": 0.0}, "clip or penalty_weight"), ({"dropout": 0.0}, "needs a dropout")],
    )
    def test_a_critic_without_bound_is_refused(self, training: dict[str, float], words: str) -> None:
        block = {"consistency_weight": 1.0, "penalty_weight": 1.0, "dropout": 0.2} | training
        with pytest.raises(SettingError, match=words):
            small_config("wgan", **block)

    def test_every_weight_of_a_term_moves_the_critic(self, blobs: Split) -> None:
        """And the scalars are those of the functions, of the same images and the same random numbers."""
        ends = {}
        for off in ("", "penalty_weight", "consistency_weight"):
            weights = {"clip": 0.1, "penalty_weight": 1.0, "consistency_weight": 1.0, "dropout": 0.2} | (
                {off: 0.0} if off else {}
            )
            model, objective, _ = build(small_config("wgan", **weights))
            torch.manual_seed(1)
            scalars = objective.step(to_unit(blobs.images[:40]), blobs.labels[:40], make_rng(1))
            assert ("penalty" in scalars) == (off != "penalty_weight")
            assert ("consistency" in scalars) == (off != "consistency_weight")
            assert all(float(scalars[key]) > 0 for key in ("penalty", "consistency") if key in scalars)
            ends[off] = model.critic.features[1].weight.detach().clone()
        assert not torch.equal(ends[""], ends["penalty_weight"])
        assert not torch.equal(ends[""], ends["consistency_weight"])

    def test_penalty_brings_the_slope_to_one(self, blobs: Split) -> None:
        config = small_config("wgan", clip=0.0, penalty_weight=10.0, learning_rate=0.01)
        _, objective, _ = build(config)
        x, y = to_unit(blobs.images[:40]), blobs.labels[:40]
        found = [float(objective.step(x, y, make_rng(step))["penalty"]) for step in range(60)]
        assert sum(found[-5:]) < 0.3 * sum(found[:5])

    def test_consistency_term_brings_judgements_together(self, blobs: Split) -> None:
        x, y = to_unit(blobs.images[:40]), blobs.labels[:40]
        ends = {}
        for weight in (0.0, 50.0):
            block = {"clip": 0.3, "consistency_weight": weight, "dropout": 0.3}
            model, objective, _ = build(small_config("wgan", **block))
            torch.manual_seed(0)
            for step in range(30):
                objective.step(x, y, make_rng(step))
            model.critic.train()
            judged = torch.stack([model.critic(x)[0].detach() for _ in range(20)])
            ends[weight] = float(judged.std(0).mean())
        assert ends[50.0] < 0.5 * ends[0.0]

    def test_clipped_weights_stay_inside(self, blobs: Split) -> None:
        model, objective, _ = build(small_config("wgan", clip=0.02, penalty_weight=0.0))
        for _ in range(3):
            objective.step(to_unit(blobs.images[:40]), blobs.labels[:40], make_rng(1))
        largest = [float(weight.detach().abs().max()) for weight in model.critic.parameters()]
        assert max(largest) == pytest.approx(0.02)

    def test_generator_waits_for_its_turn(self, blobs: Split) -> None:
        _, objective, _ = build(small_config("wgan", critic_steps=3))
        x, y = to_unit(blobs.images[:40]), blobs.labels[:40]
        assert ["loss_g" in objective.step(x, y, make_rng(1)) for _ in range(6)] == 2 * [False, False, True]

    def test_gradient_norms_are_those_of_a_known_critic(self, blobs: Split) -> None:
        model, _, _ = build(small_config("wgan"))
        model.eval()

        model.critic.of_view = lambda view: 0.05 * view.flatten(1).sum(1)
        with torch.inference_mode():
            found = model.diagnose(Split(blobs.images[:40], blobs.labels[:40]), make_rng(1))
        assert found["gradient_shares"].numbers[:, 0].tolist() == pytest.approx(2 * [0.05 * 1568**0.5], rel=1e-5)
        assert found["gradient_shares"].numbers[:, 2].tolist() == [1.0, 1.0]
        curves = found["gradient_norms"]
        for density in curves.y.values():
            assert float(curves.x[density.argmax()]) == pytest.approx(math.log10(1.98), abs=0.03)
            assert float(torch.trapezoid(density, curves.x)) == pytest.approx(1, abs=0.01)

    def test_estimate_is_the_difference_of_mean_judgements(self, blobs: Split) -> None:
        model, objective, _ = build(small_config("wgan"))
        model.eval()
        x, y = to_unit(blobs.images[:40]), blobs.labels[:40]
        with torch.no_grad():
            found = objective.validate(x, y, make_rng(1))
            x_fake = objective.draw(y, make_rng(1))
            expected = model.critic(x)[0].mean() - model.critic(x_fake)[0].mean()
        torch.testing.assert_close(found["critic_estimate"], expected)


class TestBigGAN:
    def test_noise_is_truncated_and_normal_inside(self) -> None:
        model, _, _ = build(small_config("biggan", latent_dim=20))
        family = load_family("biggan", where="test")
        model.sampling = family.Sampling(truncation=0.5)
        z = model.noise(2000, make_rng(1))
        assert float(z.abs().max()) <= 0.5
        inside = torch.distributions.Normal(0, 1)
        edges = torch.linspace(-0.5, 0.5, 6)
        expected = inside.cdf(edges).diff() / (2 * inside.cdf(torch.tensor(0.5)) - 1)
        torch.testing.assert_close(torch.histogram(z.flatten(), edges).hist / z.numel(), expected, atol=0.01, rtol=0)

    def test_normalisations_follow_the_truncation_and_come_back(self, blobs: Split) -> None:
        model, _, _ = build(small_config("biggan"))
        model.eval()
        family = load_family("biggan", where="test")
        wide, narrow = family.Sampling(truncation=3.0), family.Sampling(truncation=0.3)
        model.prepare_sampling(wide, blobs)
        kept, images = model.fitted(), model.sample(balanced_labels(10, 10), make_rng(1))
        model.prepare_sampling(narrow, blobs)
        assert {name for name, _ in model.generator.named_buffers()} == set(kept)
        assert any(not torch.equal(value, kept[key]) for key, value in model.fitted().items())
        model.restore_sampling(wide, kept)
        assert torch.equal(model.sample(balanced_labels(10, 10), make_rng(1)), images)

    def test_every_part_of_the_noise_counts(self, rng: torch.Generator, blobs: Split) -> None:
        model, objective, _ = build(small_config("biggan"))
        for _ in range(3):
            objective.step(to_unit(blobs.images[:40]), blobs.labels[:40], make_rng(1))
        model.eval()
        z, y = torch.randn(2, 10, generator=rng), torch.zeros(2, dtype=torch.int64)
        images = model.generator(z, y)
        for part in range(5):
            other = z.clone()
            other[:, 2 * part : 2 * part + 2] = 0
            assert not torch.allclose(model.generator(other, y), images)

    def test_parts_of_the_noise_are_equal(self) -> None:
        with pytest.raises(SettingError, match="multiple of 5"):
            small_config("biggan", latent_dim=12)
