"""Diffusion: what the denoiser must be for Gaussian data, where it is known, and what the sampler makes of it."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from generative.compute.runtime import make_rng
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split, to_unit
from generative.networks.denoiser import (
    LARGEST,
    Condition,
    Denoiser,
    guide,
    loss_weight,
    noise_levels,
    solve,
    to_intensities,
    to_model,
)
from generative.networks.mixture_denoiser import MixtureDenoiser
from generative.training.diffusion import DiffusionSampling, denoising_error, is_guided
from generative.training.muon import Muon, orthogonalise
from tests.small import build, small_config

SAMPLING: dict[str, Any] = {"guided_from": 0.2, "guided_to": 20.0, "noise_excess": 1.0}


def gaussian_images(count: int, seed: int) -> torch.Tensor:
    """Vectors (N, 784) of a Gaussian with a mean and three directions of its own."""
    rng = make_rng(seed)
    directions = torch.linalg.qr(torch.randn(NUM_PIXELS, 3, generator=make_rng(99)))[0]
    spread = torch.tensor([9.0, 6.0, 3.0])
    weights = spread * torch.randn(count, 3, generator=rng)
    return 0.5 + weights @ directions.T + 0.2 * torch.randn(count, NUM_PIXELS, generator=rng)


def fitted(components: int = 1, rank: int = 3, classes: int = 1) -> MixtureDenoiser:
    mixture = MixtureDenoiser(classes, components, rank)
    images = gaussian_images(4000, 0)
    mixture.fit(images, torch.arange(len(images)) % classes, 0)
    return mixture


@pytest.fixture(scope="module")
def gaussian() -> MixtureDenoiser:
    return fitted()


@pytest.fixture
def model() -> Any:
    config = small_config("diffusion")
    model, _, _ = build(config)
    model.sampling = config.sampling
    return model.eval()


class TestMixtureDenoiser:
    def test_is_the_posterior_mean_of_its_mixture(self) -> None:
        torch.manual_seed(0)
        mixture = MixtureDenoiser(2, 2, 3)
        images = torch.randn(400, NUM_PIXELS) * torch.linspace(2, 0.1, NUM_PIXELS) + torch.randn(400, 1)
        mixture.fit(images, torch.arange(400) % 2, 0)
        x, told = 3 * torch.randn(5, 1, 28, 28), [0, 1, 2, 2, 0]
        sigma = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0])
        found = mixture(x, sigma, mixture.prior_of_label(torch.tensor(told))).flatten(1).double()
        identity = torch.eye(NUM_PIXELS, dtype=torch.float64)
        for row, label in enumerate(told):
            means, logits = [], []
            for place in range(4):
                if label < 2 and mixture.labels[place] != label:
                    continue
                axes = mixture.directions[3 * place : 3 * place + 3].double()
                rest = mixture.rests[place].double()
                own = rest * identity + axes.T @ torch.diag(mixture.variances[place].double() - rest) @ axes
                noisy = own + identity * sigma[row].double() ** 2
                apart = x[row].flatten().double() - mixture.means[place].double()
                solved = torch.linalg.solve(noisy, apart)
                means.append(mixture.means[place].double() + own @ solved)
                logits.append(mixture.log_weights[place] - (apart @ solved + torch.logdet(noisy)) / 2)
            wanted = (torch.stack(logits).softmax(0)[:, None] * torch.stack(means)).sum(0)
            assert torch.allclose(found[row], wanted, atol=1e-3)

    def test_fit_finds_mean_directions_and_variances(self, gaussian: MixtureDenoiser) -> None:
        assert gaussian.means[0].mean() == pytest.approx(0.5, abs=0.05)
        assert gaussian.variances[0].flip(0).sqrt().tolist() == pytest.approx([9, 6, 3], rel=0.1)
        assert float(gaussian.rests[0]) == pytest.approx(0.04, rel=0.05)
        assert torch.allclose(gaussian.directions @ gaussian.directions.T, torch.eye(3), atol=1e-4)

    def test_same_seed_gives_the_same_fit_and_weights_sum_to_one(self) -> None:
        first, second = (fitted(3, 2, 2) for _ in range(2))
        for name, values in first.state_dict().items():
            assert torch.equal(values, second.state_dict()[name]), name
        assert float(first.log_weights.exp().sum()) == pytest.approx(1, abs=1e-5)

    def test_fewer_images_than_components_leave_some_as_they_were(self) -> None:
        mixture = MixtureDenoiser(1, 5, 2)
        mixture.fit(gaussian_images(3, 0), torch.zeros(3, dtype=torch.int64), 0)
        x = torch.zeros(2, 1, 28, 28)
        assert torch.isfinite(mixture(x, torch.tensor([0.1, 50.0]), mixture.prior_of_label(torch.tensor([0, 1])))).all()


class TestTarget:
    def test_untrained_denoiser_is_the_best_one_for_gaussian_data(self, gaussian: MixtureDenoiser) -> None:
        torch.manual_seed(0)
        denoiser = Denoiser((8, 16), 16, gaussian).eval()
        images = gaussian_images(3, 5).view(3, 1, 28, 28)
        sigma = torch.tensor([0.1, 1.0, 10.0])
        condition = Condition(torch.randn(3, 16), torch.zeros(3, 1))
        wanted = gaussian(images, sigma, condition.prior)
        assert torch.equal(denoiser(images, sigma, condition), wanted)

    def test_loss_of_the_best_denoiser_is_its_posterior_variance(self, gaussian: MixtureDenoiser) -> None:
        """For N(m, S), E |x - D(x + sigma n)|^2 = tr(S sigma^2 / (S + sigma^2))."""
        images = to_intensities(gaussian_images(2000, 6)).view(-1, 1, 28, 28)
        seen = to_model(images).flatten(1)
        mixture = MixtureDenoiser(1, 1, 64)
        mixture.fit(seen, torch.zeros(len(seen), dtype=torch.int64), 0)
        values = torch.linalg.eigvalsh(torch.cov(seen.T.double(), correction=0))
        for level in (0.3, 1.0, 5.0):
            sigma = torch.full((len(images),), level)
            noise = torch.randn(images.shape, generator=make_rng(1))

            def best(x: torch.Tensor, s: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
                mean: torch.Tensor = mixture(x, s, told)
                return mean

            found = float(denoising_error(best, images, torch.zeros(len(images), 1), sigma, noise))
            posterior = float((values * level**2 / (values + level**2)).sum()) / NUM_PIXELS
            wanted = posterior * float(loss_weight(torch.tensor(level)))
            assert found == pytest.approx(wanted, rel=0.1)
            worse = denoising_error(
                lambda x, s, told: best(x, s, told) + 0.3, images, torch.zeros(2000, 1), sigma, noise
            )
            assert float(worse) > wanted * 1.1

    def test_intensities_come_back_and_black_is_apart(self) -> None:
        x = torch.tensor([0.0, 1 / 255, 0.5, 1.0])
        assert torch.allclose(to_intensities(to_model(x)), x, atol=1e-6)
        assert float(to_model(x)[1] - to_model(x)[0]) > 0.2
        assert to_intensities(to_model(x)[:1] + 0.2).item() == 0


class TestSampler:
    def test_gives_back_mean_and_covariance_of_gaussian_data(self, gaussian: MixtureDenoiser) -> None:
        count = 3000
        prior = torch.zeros(count, 1)
        start = LARGEST * torch.randn(count, 1, 28, 28, generator=make_rng(3))

        def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
            mean: torch.Tensor = gaussian(x, torch.full((len(x),), sigma), prior)
            return mean

        *_, last = solve(denoise, start, noise_levels(40))
        samples = last.mean.flatten(1)
        assert torch.allclose(samples.mean(0), gaussian.means[0], atol=0.5)
        along = (samples - gaussian.means[0]) @ gaussian.directions.T
        covariance = torch.cov(along.T)
        wanted = torch.diag(gaussian.variances[0])
        assert torch.allclose(covariance, wanted, atol=0.1 * float(wanted.max()))
        others = (samples - gaussian.means[0]) - along @ gaussian.directions
        assert float(others.square().sum(1).mean()) / (NUM_PIXELS - 3) == pytest.approx(0.04, rel=0.1)

    def test_is_of_second_order(self) -> None:
        """The flow of N(0, s^2) is known: x(sigma) grows as sqrt(s^2 + sigma^2)."""
        spread = 0.7

        def error(steps: int) -> float:
            levels = noise_levels(steps)
            x = torch.tensor([levels[0]], dtype=torch.float64)
            *_, last = solve(lambda x, sigma: x * spread**2 / (spread**2 + sigma**2), x, levels)
            end = levels[-2]
            exact = levels[0] * math.sqrt((spread**2 + end**2) / (spread**2 + levels[0] ** 2))
            return abs(float(last.mean) - exact * spread**2 / (spread**2 + end**2))

        errors = [error(steps) for steps in (40, 80, 160, 320)]
        orders = [math.log2(first / second) for first, second in pairwise(errors)]
        assert all(1.7 < order < 2.6 for order in orders), orders

    def test_levels_fall_from_the_largest_to_zero(self) -> None:
        for steps in (1, 2, 7, 100):
            levels = noise_levels(steps)
            assert len(levels) == steps + 1
            assert levels[0] == pytest.approx(LARGEST)
            assert levels[-1] == 0
            assert all(first > second for first, second in pairwise(levels))


class TestGuidance:
    def test_weight_one_is_no_guidance(self, model: Any) -> None:
        _disturb(model)
        labels = torch.tensor([0, 3, 7])
        never = DiffusionSampling(guidance=5.0, guided_from=30.0, guided_to=31.0, evaluations=6, noise_excess=1.0)
        one = DiffusionSampling(guidance=1.0, **SAMPLING, evaluations=6)
        assert torch.equal(model.draw_images(labels, one, make_rng(0)), model.draw_images(labels, never, make_rng(0)))
        more = DiffusionSampling(guidance=3.0, **SAMPLING, evaluations=9)
        assert not torch.equal(
            model.draw_images(labels, one, make_rng(0)), model.draw_images(labels, more, make_rng(0))
        )

    def test_weight_zero_does_not_read_the_label_where_it_acts(self, model: Any) -> None:
        _disturb(model)
        none = DiffusionSampling(guidance=0.0, guided_from=0.1, guided_to=30.0, evaluations=12, noise_excess=1.0)
        labels = torch.tensor([1, 8])
        differing = []
        for step in model.steps(labels, none, make_rng(0)):
            sigma = torch.full((2,), step.sigma)
            untold = model(step.x, sigma, model.untold(2, step.x.device))
            same = torch.allclose(step.mean, untold, atol=1e-4)
            assert same or not is_guided(step.sigma, none)
            differing.append(not same)
        assert any(differing)  # at the largest noise the label is read
        assert not all(differing)

    def test_guide_is_linear_in_the_weight(self) -> None:
        told, untold = torch.tensor([3.0]), torch.tensor([1.0])
        assert [float(guide(told, untold, weight)) for weight in (0, 1, 2)] == [1, 3, 5]

    @pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
    @pytest.mark.parametrize("evaluations", [1, 2, 3, 10, 57, 100])
    def test_evaluations_are_never_exceeded(self, model: Any, guidance: float, evaluations: int) -> None:
        model.sampling = DiffusionSampling(guidance=guidance, **SAMPLING, evaluations=evaluations)
        steps = len(model.levels(model.sampling)) - 1
        assert model.nfe <= evaluations
        assert model.nfe >= evaluations - 2
        if guidance == 1:
            assert steps == evaluations
        counted = []
        model.denoiser.register_forward_pre_hook(lambda _, given: counted.append(len(given[0])))
        model.sample(torch.tensor([4]), make_rng(0))
        assert sum(counted) == model.nfe

    def test_guidance_acts_between_its_levels(self) -> None:
        sampling = DiffusionSampling(guidance=2.0, **SAMPLING, evaluations=5)
        assert [is_guided(sigma, sampling) for sigma in (0.1, 0.2, 5.0, 20.0, 21.0)] == [False, True, True, True, False]


class TestMuon:
    @pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
    def test_orthogonalised_matrices_have_singular_values_near_one(self, shape: tuple[int, int]) -> None:
        found = torch.linalg.svdvals(orthogonalise(torch.randn(*shape, generator=make_rng(0))))
        assert float(found.min()) > 0.6
        assert float(found.max()) < 1.3

    def test_a_step_of_a_matrix_is_as_large_as_its_rate_whatever_the_gradient(self) -> None:
        sizes = []
        for scale in (1e-3, 1e3):
            weight = torch.nn.Parameter(torch.zeros(4, 3, 2, 2))
            weight.grad = scale * torch.randn(4, 3, 2, 2, generator=make_rng(1))
            Muon([weight], [], matrix_rate=0.1, learning_rate=1.0).step()
            sizes.append(float(torch.linalg.matrix_norm(weight.detach().view(4, 12), 2)))
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)
        assert 0.06 < sizes[0] < 0.13

    def test_a_step_of_a_tall_matrix_grows_with_the_square_root_of_its_shape(self) -> None:
        weight = torch.nn.Parameter(torch.zeros(48, 12))
        weight.grad = torch.randn(48, 12, generator=make_rng(1))
        Muon([weight], [], matrix_rate=0.1, learning_rate=1.0).step()
        assert 0.12 < float(torch.linalg.matrix_norm(weight.detach(), 2)) < 0.26

    def test_others_are_updated_as_by_adam(self) -> None:
        mine, theirs = (torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
        ours = Muon([], [mine], matrix_rate=1.0, learning_rate=0.05)
        adam = torch.optim.Adam([theirs], lr=0.05, betas=(0.9, 0.99))
        for step in range(5):
            for weight, optimizer in ((mine, ours), (theirs, adam)):
                weight.grad = torch.tensor([0.3, -1.0, 0.1]) * (step + 1)
                optimizer.step()
        assert torch.allclose(mine, theirs, atol=1e-6)

    def test_state_goes_on_where_it_was_saved(self) -> None:
        def run(stop: int | None) -> torch.Tensor:
            weights = [torch.nn.Parameter(torch.ones(3, 4)), torch.nn.Parameter(torch.ones(5))]
            optimizer = Muon(weights[:1], weights[1:], matrix_rate=0.1, learning_rate=0.1)
            for step in range(6):
                if step == stop:
                    state = optimizer.state_dict()
                    optimizer = Muon(weights[:1], weights[1:], matrix_rate=0.1, learning_rate=0.1)
                    optimizer.load_state_dict(state)
                for weight in weights:
                    weight.grad = torch.randn(weight.shape, generator=make_rng(step))
                optimizer.step()
            return torch.cat([weight.detach().flatten() for weight in weights])

        assert torch.equal(run(None), run(3))


def test_training_fits_the_mixture_and_learns_what_it_lacks() -> None:
    model, objective, _ = build(small_config("diffusion"), 120)
    rng = make_rng(0)
    squares = 255 * torch.randint(0, 2, (400, 1, 7, 7), generator=make_rng(3), dtype=torch.uint8)
    split = Split(squares.repeat_interleave(4, 2).repeat_interleave(4, 3), torch.arange(400) % 10)
    batches = objective.batches(split, 40, rng, rank=0, world_size=1)
    assert float(model.denoiser.mixture.means.abs().sum()) > 0

    def error() -> float:
        x, y = to_unit(split.images[:200]), split.labels[:200]
        with torch.no_grad():
            sigma = torch.logspace(-1, 1, 200)
            return float(denoising_error(model, x, y, sigma, torch.randn(x.shape, generator=make_rng(1))))

    before, fitted_means = error(), model.denoiser.mixture.means.clone()
    for _ in range(12):
        for x, y in batches:
            objective.step(x, y, rng)
        batches = objective.batches(split, 40, rng, rank=0, world_size=1)
    assert torch.equal(model.denoiser.mixture.means, fitted_means)
    assert error() < 0.85 * before


def _disturb(model: Any) -> None:
    """Weights that start at zero get values, so that the condition matters."""
    rng = make_rng(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=rng))
