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
    Denoiser,
    guide,
    loss_weight,
    noise_levels,
    solve,
    to_intensities,
    to_model,
)
from generative.networks.mixture_denoiser import MixtureDenoiser, cluster
from generative.training.diffusion import DiffusionSampling, Guide, denoising_error
from generative.training.muon import Muon, orthogonalise
from tests.small import build, disturb, small_config

SAMPLING: dict[str, Any] = {"guided_from": 0.2, "guided_to": 20.0, "noise_excess": 1.0}


def gaussian_images(count: int, seed: int) -> torch.Tensor:
    """Vectors (N, 784) of a Gaussian with a mean and three directions of its own."""
    rng = make_rng(seed)
    directions = torch.linalg.qr(torch.randn(NUM_PIXELS, 3, generator=make_rng(99)))[0]
    spread = torch.tensor([9.0, 6.0, 3.0])
    weights = spread * torch.randn(count, 3, generator=rng)
    return 0.5 + weights @ directions.T + 0.2 * torch.randn(count, NUM_PIXELS, generator=rng)


def fitted(components: int = 1, rank: int = 3, classes: int = 1) -> MixtureDenoiser:
    mixture = MixtureDenoiser(classes * components, rank)
    images = gaussian_images(4000, 0)
    mixture.fit(images, cluster(images, torch.arange(len(images)) % classes, components, 0))
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
        mixture = MixtureDenoiser(4, 3)
        images = torch.randn(400, NUM_PIXELS) * torch.linspace(2, 0.1, NUM_PIXELS) + torch.randn(400, 1)
        mixture.fit(images, cluster(images, torch.arange(400) % 2, 2, 0))
        x, told = 3 * torch.randn(5, 1, 28, 28), [(0, 1), (2, 3), (0, 1, 2, 3), (1, 2, 3), (0,)]
        sigma = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0])
        prior = torch.stack(
            [
                torch.where(torch.isin(torch.arange(4), torch.tensor(row)), mixture.log_weights, -torch.inf)
                for row in told
            ]
        )
        found = mixture(x, sigma, prior).flatten(1).double()
        identity = torch.eye(NUM_PIXELS, dtype=torch.float64)
        for row, allowed in enumerate(told):
            means, logits = [], []
            for place in allowed:
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

    def test_clusters_are_of_one_class_each_and_the_same_for_the_same_seed(self) -> None:
        images, labels = gaussian_images(600, 3), torch.arange(600) % 3
        members = cluster(images, labels, 4, 0)
        assert torch.equal(members // 4, labels)
        assert len(members.unique()) == 12
        assert torch.equal(members, cluster(images, labels, 4, 0))

    def test_what_has_no_image_weighs_nothing_and_changes_nothing(self) -> None:
        images = gaussian_images(3, 0)
        mixture, without = MixtureDenoiser(5, 2), MixtureDenoiser(3, 2)
        members = cluster(images, torch.zeros(3, dtype=torch.int64), 5, 0)
        assert sorted(members.tolist()) == [0, 1, 2]
        for one in (mixture, without):
            one.fit(images, members)
        assert mixture.log_weights.exp().tolist() == pytest.approx([1 / 3] * 3 + [0] * 2, abs=1e-6)
        x, sigma = torch.randn(2, 1, 28, 28, generator=make_rng(1)), torch.tensor([0.1, 50.0])
        found, wanted = (one(x, sigma, one.log_weights.expand(2, -1)) for one in (mixture, without))
        assert torch.allclose(found, wanted, atol=1e-4)
        nothing = torch.tensor([-torch.inf] * 3 + [0.0] * 2).log_softmax(0)
        assert torch.isfinite(mixture(x, sigma, nothing.expand(2, -1))).all()

    def test_a_gaussian_without_images_is_composed_of_its_parts(self) -> None:
        """Two parts of two values each; the fourth combination is the one that no image is of."""
        rng = make_rng(5)
        worth = 3 * torch.randn(4, NUM_PIXELS, generator=rng)
        parts = torch.tensor([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1]])
        direction = torch.linalg.qr(torch.randn(NUM_PIXELS, 1, generator=rng))[0].T
        members = torch.arange(3000) % 3
        noise = 0.1 * torch.randn(3000, NUM_PIXELS, generator=rng)
        images = (parts.float() @ worth)[members] + 4 * torch.randn(3000, 1, generator=rng) * direction + noise
        mixture = MixtureDenoiser(4, 1)
        mixture.fit(images, members, parts)
        apart = mixture.means[3] - parts[3].float() @ worth
        assert float(apart.square().mean().sqrt()) < 0.05
        assert abs(float((mixture.directions[3] * direction).sum())) > 0.99
        assert float(mixture.variances[3]) == pytest.approx(16, rel=0.1)
        assert float(mixture.rests[3]) == pytest.approx(0.01, rel=0.1)
        assert float(mixture.log_weights[3].exp()) < 1e-20


class TestTarget:
    def test_untrained_denoiser_is_the_best_one_for_gaussian_data(self, gaussian: MixtureDenoiser) -> None:
        torch.manual_seed(0)
        denoiser = Denoiser((8, 16), 16).eval()
        images = gaussian_images(3, 5).view(3, 1, 28, 28)
        sigma = torch.tensor([0.1, 1.0, 10.0])
        known = gaussian(images, sigma, torch.zeros(3, 1))
        for condition in (torch.randn(3, 16), None):
            assert torch.equal(denoiser(images, sigma, known, condition), known)

    def test_loss_of_the_best_denoiser_is_its_posterior_variance(self, gaussian: MixtureDenoiser) -> None:
        """For N(m, S), E |x - D(x + sigma n)|^2 = tr(S sigma^2 / (S + sigma^2))."""
        clean = to_model(to_intensities(gaussian_images(2000, 6))).view(-1, 1, 28, 28)
        mixture = MixtureDenoiser(1, 64)
        mixture.fit(clean.flatten(1), torch.zeros(len(clean), dtype=torch.int64))
        values = torch.linalg.eigvalsh(torch.cov(clean.flatten(1).T.double(), correction=0))
        for level in (0.3, 1.0, 5.0):
            sigma = torch.full((len(clean),), level)
            noisy = clean + level * torch.randn(clean.shape, generator=make_rng(1))
            best = mixture(noisy, sigma, torch.zeros(len(clean), 1))
            posterior = float((values * level**2 / (values + level**2)).sum()) / NUM_PIXELS
            wanted = posterior * float(loss_weight(torch.tensor(level)))
            assert float(denoising_error(best, clean, sigma)) == pytest.approx(wanted, rel=0.1)
            assert float(denoising_error(best + 0.3, clean, sigma)) > wanted * 1.1

    def test_training_adds_the_noise_that_it_is_given(self, model: Any) -> None:
        """Before any training both networks say what the mixture says of the noisy images."""
        grey = torch.randint(0, 256, (8, 1, 28, 28), generator=make_rng(1), dtype=torch.uint8)
        sigma, noise = torch.linspace(0.1, 9, 8), torch.randn(8, 1, 28, 28, generator=make_rng(2))
        labels = torch.arange(8)
        means, guiding = model(grey, sigma, noise, labels)
        x = to_model(to_unit(grey)) + sigma.view(-1, 1, 1, 1) * noise
        assert torch.allclose(means, model.mixture(x, sigma, model.condition(labels).prior), atol=1e-5)
        prior = model.mixture.log_weights.expand(2, -1)
        assert torch.allclose(guiding, model.mixture(x[::4], sigma[::4], prior), atol=1e-5)

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
            assert levels[0] == LARGEST
            assert levels[-1] == 0
            assert all(first > second for first, second in pairwise(levels))


class TestGuidance:
    def test_weight_one_is_no_guidance(self, model: Any) -> None:
        disturb(model)
        labels = torch.tensor([0, 3, 7])
        never = DiffusionSampling(guidance=5.0, guided_from=30.0, guided_to=31.0, evaluations=6, noise_excess=1.0)
        one = DiffusionSampling(guidance=1.0, **SAMPLING, evaluations=6)
        assert torch.equal(model.draw_images(labels, one, make_rng(0)), model.draw_images(labels, never, make_rng(0)))
        more = DiffusionSampling(guidance=3.0, **SAMPLING, evaluations=9)
        assert not torch.equal(
            model.draw_images(labels, one, make_rng(0)), model.draw_images(labels, more, make_rng(0))
        )

    def test_weight_zero_does_not_read_the_label_where_it_acts(self, model: Any) -> None:
        disturb(model)
        none = DiffusionSampling(guidance=0.0, guided_from=0.1, guided_to=30.0, evaluations=12, noise_excess=1.0)
        labels = torch.tensor([1, 8])
        guided = []
        for step in model.steps(labels, none, make_rng(0)):
            sigma = torch.full((2,), step.sigma)
            guided.append(torch.allclose(step.mean, model.denoise_untold(step.x, sigma), atol=1e-4))
            assert guided[-1] == (0.1 <= step.sigma <= 30)
        assert any(guided)
        assert not all(guided)  # at the largest noise the label is read

    def test_guide_is_linear_in_the_weight(self) -> None:
        mean, guiding = torch.tensor([3.0]), torch.tensor([1.0])
        assert [float(guide(mean, guiding, weight)) for weight in (0, 1, 2)] == [1, 3, 5]

    @pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
    @pytest.mark.parametrize("evaluations", [1, 2, 3, 10, 57, 100])
    def test_evaluations_are_counted(self, model: Any, guidance: float, evaluations: int) -> None:
        model.sampling = DiffusionSampling(guidance=guidance, **SAMPLING, evaluations=evaluations)
        counted: dict[str, int] = {"denoiser": 0, "guide": 0}

        def count(name: str) -> Any:
            def add(_: Any, given: Any) -> None:
                counted[name] += len(given[0])

            return add

        for name in counted:
            getattr(model, name).register_forward_pre_hook(count(name))
        model.sample(torch.tensor([4]), make_rng(0))
        assert counted["denoiser"] == model.nfe == evaluations
        assert counted["guide"] == sum(guidance != 1 and 0.2 <= sigma <= 20 for sigma in noise_levels(evaluations)[:-1])

    def test_guidance_acts_between_its_levels(self) -> None:
        one = Guide(2.0, 0.2, 20.0, lambda x, _: x)
        assert [one.acts_at(sigma) for sigma in (0.1, 0.2, 5.0, 20.0, 21.0)] == [False, True, True, True, False]
        assert not Guide(1.0, 0.2, 20.0, lambda x, _: x).acts_at(5.0)

    def test_levels_out_of_order_are_named(self) -> None:
        with pytest.raises(ValueError, match="guided_from must be at most guided_to, 1"):
            DiffusionSampling(guidance=2.0, guided_from=2.0, guided_to=1.0, evaluations=5, noise_excess=1.0)


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
    assert float(model.mixture.means.abs().sum()) > 0

    def error() -> float:
        x, y = to_unit(split.images[:200]), split.labels[:200]
        with torch.no_grad():
            sigma = torch.logspace(-1, 1, 200)
            means, _ = model(split.images[:200], sigma, torch.randn(x.shape, generator=make_rng(1)), y)
            return float(denoising_error(means, to_model(x), sigma))

    before, fitted_means = error(), model.mixture.means.clone()
    for _ in range(12):
        for x, y in batches:
            objective.step(x, y, rng)
        batches = objective.batches(split, 40, rng, rank=0, world_size=1)
    assert torch.equal(model.mixture.means, fitted_means)
    assert error() < 0.85 * before
