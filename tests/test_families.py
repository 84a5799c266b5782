"""The contract that every file in generative/families/ fulfils, and what is particular to each."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from generative.capabilities.capability import try_all
from generative.capabilities.encoding import EncodesImages
from generative.capabilities.likelihood import WeighsPosteriorSamples
from generative.capabilities.sampling import DrawsSamples
from generative.capabilities.translation import TranslatesDomains
from generative.compute.runtime import make_rng
from generative.data.images import IMAGE_SHAPE
from generative.data.splits import Split, balanced_labels, to_unit
from generative.families.cgan import Discriminator
from generative.family import available_families, load_family
from generative.io.tensors import load_tensors, load_weights, save_tensors
from generative.networks.mixture import Mixture, fitted_vectors
from generative.scores.likelihood import importance_weighted_bound
from generative.training.adversarial import Loss, discriminator_loss, generator_loss
from generative.training.averaging import MovingAverage, estimate_statistics
from generative.training.loop import preview
from generative.training.variational import gaussian_nll, kl_to_standard_normal
from tests.small import FAMILIES, build, small_config, train


def _bytes_of(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", FAMILIES)
class TestContract:
    def test_file_defines_the_three_classes(self, name: str) -> None:
        family = load_family(name, where="test")
        assert {"Config", "Model", "Objective"} <= set(vars(family))
        assert small_config(name).describe().endswith(".")
        assert small_config(name).sources()
        assert set(family.SMALL) <= {"training", "sampling"}

    def test_step_changes_the_weights_and_reports_scalars(self, name: str, blobs: Split) -> None:
        config = small_config(name)
        model, objective, _ = build(config)
        before = {key: value.clone() for key, value in model.named_parameters()}
        seen: set[str] = set()
        draws = issubclass(type(model), TranslatesDomains)  # outlines, which blobs have none of
        images = (180 * (blobs.images > 100)).to(torch.uint8) if draws else blobs.images
        x, y = next(iter(objective.batches(Split(images, blobs.labels), 40, make_rng(2), rank=0, world_size=1)))
        for _ in range(10):  # not every loss is there at every step, and what starts at zero passes nothing on at first
            losses = objective.step(x, y, make_rng(1))
            assert all(value.dim() == 0 and not value.requires_grad for value in losses.values())
            seen |= set(losses)
        assert set(objective.losses) <= seen
        assert all(objective.losses.values())  # words for an axis
        unconditional = ("condition", "modulate.weight") if draws else ()  # a U-Net's, which stay zero
        kept = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
        assert not [key for key in kept if not key.endswith(unconditional)]

    def test_validation_changes_nothing(self, name: str, blobs: Split) -> None:
        model, objective, _ = build(small_config(name))
        model.eval()
        before = _bytes_of(model.state_dict()), _bytes_of(objective.state_dict())
        with torch.no_grad():
            first = objective.validate(to_unit(blobs.images), blobs.labels, make_rng(1))
            second = objective.validate(to_unit(blobs.images), blobs.labels, make_rng(1))
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert (_bytes_of(model.state_dict()), _bytes_of(objective.state_dict())) == before

    def test_preview_is_images_and_changes_nothing(self, name: str, blobs: Split) -> None:
        model, objective, _ = build(small_config(name))
        before = _bytes_of(model.state_dict()), _bytes_of(objective.state_dict())
        first, again = (preview(model, objective, blobs) for _ in range(2))
        assert all(images.shape == (100, *IMAGE_SHAPE) and images.dtype == torch.uint8 for images in first)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert (_bytes_of(model.state_dict()), _bytes_of(objective.state_dict())) == before

    def test_samples_are_images_and_follow_the_random_state(self, name: str, blobs: Split, tmp_path: Path) -> None:
        if not issubclass(load_family(name, where="test").Model, DrawsSamples):
            return
        model, _ = train(small_config(name, epochs=30), blobs, tmp_path)
        labels = balanced_labels(30, 10)
        with torch.inference_mode():
            x, again, other = (model.sample(labels, make_rng(seed)) for seed in (1, 1, 2))
        assert x.shape == (30, *IMAGE_SHAPE)
        assert 0 <= float(x.min()) <= float(x.max()) <= 1
        assert torch.equal(x, again)
        assert not torch.equal(x, other)
        assert float(x.std(0).mean()) > 1e-4  # not all the same image

    def test_weights_alone_restore_the_model(self, name: str, blobs: Split, tmp_path: Path) -> None:
        config = small_config(name)
        model, _ = train(config, blobs, tmp_path)
        path = tmp_path / "model.safetensors"
        save_tensors(path, dict(model.state_dict()))
        restored = load_family(name, where="test").Model(config.training, 10).eval()
        load_weights(restored, load_tensors(path), path=path)
        restored.prepare_sampling(config.sampling, blobs)
        labels, x = balanced_labels(10, 10), to_unit(blobs.images[:10])
        with torch.inference_mode():
            made, again = (
                network.sample(labels, make_rng(1))
                if isinstance(network, DrawsSamples)
                else torch.cat([network.translate(x, source) for source in (0, 1)])
                for network in (model, restored)
            )
        assert torch.equal(made, again)

    def test_encoders_encode_and_decode(self, name: str, blobs: Split, tmp_path: Path) -> None:
        if not issubclass(load_family(name, where="test").Model, EncodesImages):
            return
        model, _ = train(small_config(name, epochs=80), blobs, tmp_path)
        x = to_unit(blobs.images)
        with torch.inference_mode():
            z = model.encode(x)
            x_hat = model.decode(z)
        assert z.shape[0] == len(x)
        assert x_hat.shape == x.shape
        error, variance = float((x_hat - x).square().mean()), float((x - x.mean(0)).square().mean())
        assert error < 0.8 * variance
        axis = model.grid_axis(7)
        assert axis.shape == (7, 2)
        assert bool((axis.diff(dim=0) > 0).all())

    def test_does_all_that_it_says_it_can_do(self, name: str, blobs: Split) -> None:
        config = small_config(name)
        model, _, _ = build(config)
        model.eval().prepare_sampling(config.sampling, blobs)
        with torch.inference_mode():
            try_all(model, Split(blobs.images[:10], blobs.labels[:10]), make_rng(1))

    def test_bound_is_the_mean_of_the_importance_weights(self, name: str, blobs: Split) -> None:
        model, _, _ = build(small_config(name))
        if not isinstance(model, WeighsPosteriorSamples):
            return
        with torch.inference_mode():
            bound = model.log_likelihood(to_unit(blobs.images), make_rng(1))
            means = model.posterior_means(to_unit(blobs.images))
            weights = model.log_weights(to_unit(blobs.images[:20]), 500, make_rng(1))
        assert bool((bound.parts["loss_kl"] >= 0).all())
        assert len(means) == len(blobs)
        assert weights.shape == (20, 500)
        elbo = bound.nats[:20].mean()
        noise = float(weights.std() / 20**0.5)  # of `elbo`, which has one posterior sample per image
        assert float(weights.mean()) == pytest.approx(float(elbo), abs=4 * noise)
        assert bool((importance_weighted_bound(weights) >= weights.double().mean(1)).all())


def test_families_are_the_files_of_the_folder() -> None:
    folder = Path(__file__).parent.parent / "generative" / "families"
    assert available_families() == sorted(path.stem for path in folder.glob("[a-z]*.py"))


def test_kl_equals_that_of_torch_distributions(rng: torch.Generator) -> None:
    mu, logvar = torch.randn(2, 50, 3, generator=rng, dtype=torch.float64)
    posterior = Independent(Normal(mu, torch.exp(logvar / 2)), 1)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    torch.testing.assert_close(kl_to_standard_normal(mu, logvar), kl_divergence(posterior, prior))


def test_likelihood_equals_that_of_torch_distributions(rng: torch.Generator) -> None:
    x, x_hat = torch.rand(2, 5, *IMAGE_SHAPE, generator=rng, dtype=torch.float64)
    for variance in (0.5, 0.02):
        expected = -Independent(Normal(x_hat, math.sqrt(variance)), 3).log_prob(x)
        torch.testing.assert_close(gaussian_nll(x, x_hat, torch.tensor(variance, dtype=torch.float64)), expected)


def test_variance_one_half_is_the_squared_error_plus_a_constant(rng: torch.Generator) -> None:
    x, x_hat = torch.rand(2, 5, *IMAGE_SHAPE, generator=rng)
    difference = gaussian_nll(x, x_hat, torch.tensor(0.5)) - (x - x_hat).square().flatten(1).sum(1)
    torch.testing.assert_close(difference, torch.full((5,), 392 * math.log(math.pi)))


def test_calibrated_variance_is_the_mean_squared_error(blobs: Split, tmp_path: Path) -> None:
    model, _ = train(small_config("vae", decoder_variance="calibrated"), blobs, tmp_path)
    x = to_unit(blobs.images)
    with torch.inference_mode():
        x_hat = model(x, torch.randn(len(x), 2, generator=make_rng(99)))[0]
        mse = (x - x_hat).square().mean()
        better, worse = (gaussian_nll(x, x_hat, scale * mse).mean() for scale in (1.0, 1.3))
    assert float(model.variance) == pytest.approx(float(mse), rel=0.1)
    assert better < worse


def test_discriminator_loss_is_least_for_right_answers() -> None:
    real, fake = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0])
    assert discriminator_loss(real, fake, "least_squares") == 0
    assert discriminator_loss(fake, real, "least_squares") == 1
    assert discriminator_loss(9 * real, -9 * real, "logistic") < 0.001
    assert discriminator_loss(fake, fake, "logistic") == pytest.approx(2 * math.log(2))


def test_generator_wants_high_logits() -> None:
    low, high = torch.tensor([-1.0]), torch.tensor([1.0])
    losses: tuple[Loss, ...] = ("least_squares", "logistic", "hinge")
    for loss in losses:
        assert generator_loss(high, loss) < generator_loss(low, loss)


def test_generator_and_discriminator_both_see_the_label(blobs: Split, rng: torch.Generator) -> None:
    model, objective, _ = build(small_config("cgan"))
    objective.step(to_unit(blobs.images[:40]), blobs.labels[:40], rng)
    model.eval()
    z = torch.randn(1, model.config.latent_dim, generator=rng).expand(10, -1)
    labels = balanced_labels(10, 10)
    with torch.inference_mode():
        x = model.generator(z, labels)
        logits, scores = Discriminator(model.config, 10)(x[:1].expand(10, -1, -1, -1), labels)
    assert len(torch.unique(x, dim=0)) == 10
    assert len(torch.unique(logits)) == 10
    assert len(torch.unique(scores, dim=0)) == 1  # the class is read from the image alone


def test_mixture_recovers_two_clusters(rng: torch.Generator) -> None:
    z = torch.randn(4000, 2, generator=rng) * torch.tensor([0.5, 0.1]) + torch.tensor([3.0, 0.0])
    z[:1000] = torch.randn(1000, 2, generator=rng) * 0.2 - 4
    density = Mixture.fit(z, 2, seed=3)
    order = density.means[:, 0].argsort()
    torch.testing.assert_close(density.weights[order], torch.tensor([0.25, 0.75]), atol=0.01, rtol=0)
    torch.testing.assert_close(density.means[order], torch.tensor([[-4.0, -4.0], [3.0, 0.0]]), atol=0.05, rtol=0)
    drawn = density.sample(4000, rng)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(z.T), atol=0.5, rtol=0.05)


def test_mixture_fit_is_bitwise_repeatable(rng: torch.Generator) -> None:
    z = torch.randn(3000, 2, generator=rng)
    one, other = (Mixture.fit(z, 6, seed=3) for _ in range(2))
    assert all(torch.equal(value, getattr(other, key)) for key, value in vars(one).items())


def test_mixture_takes_as_many_components_as_there_are_vectors_to_fit() -> None:
    assert [fitted_vectors(count) for count in (30, 20_000, 20_001, 55_000)] == [30, 20_000, 10_001, 18_334]
    z = torch.randn(30, 2, generator=make_rng(1))
    assert Mixture.fit(z, 30, seed=3).sample(5, make_rng(1)).shape == (5, 2)
    with pytest.raises(ValueError, match="31"):
        Mixture.fit(z, 31, seed=3)


def test_moving_average_follows_with_growing_memory() -> None:
    network = nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, decay=0.5)
    values = []
    assert isinstance(average.network, nn.Linear)
    for step, weight in enumerate((1.0, 2.0, 3.0)):
        nn.init.constant_(network.weight, weight)
        average.update(network, step)
        values.append(average.network.weight.item())
    start = float(values[0])
    assert values[1] == pytest.approx(start * 2 / 11 + 2 * 9 / 11)
    assert values[2] == pytest.approx(values[1] * 3 / 12 + 3 * 9 / 12)
    nn.init.constant_(network.weight, 0.0)
    average.update(network, 10**6)
    assert average.network.weight.item() == pytest.approx(values[2] / 2)  # the memory has reached `decay`


def test_importance_weights_reach_the_exact_likelihood_of_a_linear_decoder(rng: torch.Generator) -> None:
    """With x = W z + b + noise, p(x) = N(b, W W^T + s^2 I): probabilistic PCA (Tipping, Bishop 1999)."""
    model, _, _ = build(small_config("vae", decoder_variance=0.05))
    linear = nn.Linear(2, 784)
    nn.init.normal_(linear.weight, std=0.02)
    model.decoder = nn.Sequential(linear, nn.Unflatten(1, IMAGE_SHAPE))
    x = torch.rand(6, *IMAGE_SHAPE, generator=rng)
    with torch.inference_mode():
        bound = importance_weighted_bound(model.log_weights(x, 20_000, rng))
    weight = linear.weight.detach().double()
    covariance = weight @ weight.T + 0.05 * torch.eye(784, dtype=torch.float64)
    exact = MultivariateNormal(linear.bias.detach().double(), covariance).log_prob(x.flatten(1).double())
    torch.testing.assert_close(bound, exact, atol=0.05, rtol=0)


def test_estimated_statistics_are_those_of_all_inputs(rng: torch.Generator) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False))
    inputs = [(3 + torch.randn(500, 3, generator=rng),) for _ in range(4)]
    estimate_statistics(network, inputs)
    assert not network.training
    out = network(torch.cat([x for (x,) in inputs]))
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(4), atol=0.02, rtol=0)
    assert network[1].momentum == 0.1  # as it was
