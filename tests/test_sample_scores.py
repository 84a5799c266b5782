"""Scores of sample sets against closed forms and other implementations."""

import math

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch_fidelity import metric_kid, metric_prc
from torchmetrics.image.kid import poly_mmd

from generative.data.splits import Split, to_unit
from generative.scores.classification import classification_accuracy
from generative.scores.diversity import mean_distance
from generative.scores.extrapolation import can_extrapolate, extrapolated_frechet_distance
from generative.scores.frechet import frechet_distance, frechet_score, statistics
from generative.scores.kernel import kernel_distance, unbiased_mmd
from generative.scores.likelihood import active_units, importance_weighted_bound, tightened_bound
from generative.scores.linear_algebra import eigenvalues, eigenvectors, product
from generative.scores.manifold import Overlap, nearest_squares, neighbour_radii, overlap
from generative.scores.memorisation import memorisation, nearest_neighbours
from generative.scores.pca import pca_error
from generative.scores.score import Score, average_score, mean_score, ratio_score


class TestKernelDistance:
    def test_agrees_with_torchmetrics_on_the_same_features(self, rng: torch.Generator) -> None:
        a, b = torch.randn(60, 8, generator=rng).double(), 1.2 * torch.randn(60, 8, generator=rng).double() + 0.3
        assert float(unbiased_mmd(a, b)) == pytest.approx(float(poly_mmd(a, b)))

    def test_agrees_with_torch_fidelity_on_the_same_features(self, rng: torch.Generator) -> None:
        a, b = torch.randn(60, 8, generator=rng).double(), 1.2 * torch.randn(60, 8, generator=rng).double() + 0.3
        kernels = (
            metric_kid.kernel_poly(x.numpy(), y.numpy(), kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1)
            for x, y in ((a, a), (a, b), (b, b))
        )
        assert float(unbiased_mmd(a, b)) == pytest.approx(float(metric_kid.mmd2(*kernels)))

    def test_is_unbiased(self, rng: torch.Generator) -> None:
        pool = torch.randn(20_000, 4, generator=rng)
        small, large = (
            kernel_distance(pool[:10_000], pool[10_000:] + 0.5, subset_size=size, seed=0) for size in (50, 500)
        )
        assert small.value == pytest.approx(large.value, abs=4 * math.hypot(small.error, large.error))

    @pytest.mark.parametrize("shift", [0.0, 0.5])
    def test_error_is_the_spread_over_new_draws(self, shift: float, rng: torch.Generator) -> None:
        draws = []
        for _ in range(150):
            a, b = torch.randn(2, 400, 4, generator=rng)
            draws.append(kernel_distance(a + shift, b, subset_size=20, seed=0))
        spread = float(torch.tensor([draw.value for draw in draws]).std())
        assert sum(draw.error for draw in draws) / len(draws) == pytest.approx(spread, rel=0.2)

    def test_same_distribution_is_at_distance_zero(self, rng: torch.Generator) -> None:
        pool = torch.randn(4000, 4, generator=rng)
        result = kernel_distance(pool[:2000], pool[2000:], subset_size=200, seed=0)
        assert abs(result.value) < 4 * result.error

    def test_seed_decides(self, rng: torch.Generator) -> None:
        a, b = torch.randn(2, 300, 4, generator=rng)
        first, again, other = (kernel_distance(a, b, subset_size=50, seed=s) for s in (1, 1, 2))
        assert first == again
        assert first != other


class TestLinearAlgebra:
    def test_agrees_with_torch(self, rng: torch.Generator) -> None:
        a, b = torch.randn(2, 40, 30, generator=rng, dtype=torch.float64)
        torch.testing.assert_close(product(a, b.T), a @ b.T)
        matrix = a.T @ a
        values, vectors = eigenvectors(matrix)
        torch.testing.assert_close(values, torch.linalg.eigvalsh(matrix))
        torch.testing.assert_close(eigenvalues(matrix), values)
        torch.testing.assert_close((vectors * values) @ vectors.T, matrix)

    def test_what_rounding_hides_is_zero(self, rng: torch.Generator) -> None:
        a = torch.randn(50, 3, generator=rng, dtype=torch.float64) @ torch.randn(3, 20, generator=rng).double()
        values = eigenvalues(a.T @ a)
        assert values[:17].tolist() == [0] * 17
        assert float(values[17:].min()) > 1

    def test_the_threads_of_the_process_do_not_count(self, rng: torch.Generator) -> None:
        a = torch.randn(700, 300, generator=rng, dtype=torch.float64)
        with threadpool_limits(2):
            two = product(a, a.T)
        with threadpool_limits(1):
            assert torch.equal(two, product(a, a.T))


class TestFrechetError:
    @pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 0.6), (0.1, 1.1)])
    def test_is_the_spread_over_new_draws(self, shift: float, scale: float, rng: torch.Generator) -> None:
        draws = [
            frechet_score(scale * torch.randn(400, 3, generator=rng) + shift, torch.randn(600, 3, generator=rng))
            for _ in range(200)
        ]
        spread = float(torch.tensor([draw.value for draw in draws]).std())
        assert sum(draw.error for draw in draws) / len(draws) == pytest.approx(spread, rel=0.2)

    def test_does_not_vanish_where_both_are_alike(self, rng: torch.Generator) -> None:
        draws = [frechet_score(*torch.randn(2, 1000, 32, generator=rng)) for _ in range(100)]
        spread = float(torch.tensor([draw.value for draw in draws]).std())
        assert 0.7 * spread < sum(draw.error for draw in draws) / len(draws) < 2 * spread

    def test_agrees_with_a_bootstrap(self, rng: torch.Generator) -> None:
        a, b = 1.3 * torch.randn(500, 8, generator=rng) + 0.2, torch.randn(400, 8, generator=rng)
        values = []
        for _ in range(200):
            drawn = [x[torch.randint(len(x), (len(x),), generator=rng)] for x in (a, b)]
            values.append(frechet_distance(*map(statistics, drawn)))
        assert frechet_score(a, b).error == pytest.approx(float(torch.tensor(values).std()), rel=0.2)

    def test_value_is_the_distance(self, rng: torch.Generator) -> None:
        a, b = torch.randn(300, 8, generator=rng) @ torch.randn(8, 8, generator=rng), torch.randn(400, 8, generator=rng)
        score = frechet_score(a, b)
        assert score.value == pytest.approx(frechet_distance(statistics(a), statistics(b)))
        assert score == pytest.approx(frechet_score(b, a))

    def test_samples_that_are_all_the_same(self, rng: torch.Generator) -> None:
        one, real = torch.ones(100, 5), torch.randn(400, 5, generator=rng)
        score = frechet_score(one, real)
        closed_form = (one[0] - real.mean(0)).square().sum() + torch.cov(real.T).trace()
        spread = [frechet_score(one, torch.randn(400, 5, generator=rng)).value for _ in range(200)]
        assert score.value == pytest.approx(float(closed_form))
        assert score.error == pytest.approx(float(torch.tensor(spread).std()), rel=0.3)
        assert frechet_score(one, one) == pytest.approx((0, 0), abs=1e-12)


class TestDiversity:
    def test_closed_form(self) -> None:
        assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])).value == pytest.approx(10 / 3)

    def test_error_is_the_spread_over_new_draws(self, rng: torch.Generator) -> None:
        draws = [mean_distance(torch.randn(200, 3, generator=rng)) for _ in range(100)]
        spread = torch.tensor([draw.value for draw in draws]).std()
        assert draws[0].error == pytest.approx(float(spread), rel=0.3)

    def test_equal_images_have_none(self) -> None:
        assert mean_distance(torch.full((5, 3), 0.3)) == (0, 0)


class TestClassificationAccuracy:
    def test_learns_from_right_labels_and_not_from_shuffled_ones(self, blobs: Split, rng: torch.Generator) -> None:
        shuffled = Split(blobs.images, blobs.labels[torch.randperm(len(blobs), generator=rng)])
        assert classification_accuracy(blobs, blobs, seed=0).value > 0.9
        assert classification_accuracy(shuffled, blobs, seed=0).value < 0.5

    def test_seed_decides_and_the_global_random_state_is_left_alone(self, blobs: Split) -> None:
        half = Split(blobs.images[:200], blobs.labels[:200])
        noisy = Split(half.images // 40, half.labels)
        before = torch.get_rng_state()
        first, again, other = (classification_accuracy(noisy, blobs, seed=seed) for seed in (0, 0, 1))
        assert first == again
        assert first != other
        assert torch.equal(torch.get_rng_state(), before)


class TestExtrapolation:
    def test_real_images_come_to_be_at_distance_zero(self, rng: torch.Generator) -> None:
        dim = 32
        draws = [torch.randn(2, 1500, dim, generator=rng) for _ in range(8)]
        plain = [frechet_distance(statistics(a), statistics(b)) for a, b in draws]
        values = torch.tensor([extrapolated_frechet_distance(a, b, seed=0).value for a, b in draws])
        assert min(plain) > 0.03
        assert abs(float(values.mean())) < 0.1 * min(plain)

    def test_removes_the_bias_of_few_images(self, rng: torch.Generator) -> None:
        dim, shift = 32, 0.1
        draws = [torch.randn(2, 1500, dim, generator=rng) for _ in range(8)]
        values = torch.tensor([extrapolated_frechet_distance(a + shift, b, seed=0).value for a, b in draws])
        plain = torch.tensor([frechet_distance(statistics(a + shift), statistics(b)) for a, b in draws])
        assert float(values.mean()) == pytest.approx(dim * shift**2, abs=3 * float(values.std()) / 8**0.5)
        assert float(plain.mean()) > 1.1 * dim * shift**2

    def test_seed_decides(self, rng: torch.Generator) -> None:
        a, b = torch.randn(500, 4, generator=rng), torch.randn(600, 4, generator=rng)
        first, again, other = (extrapolated_frechet_distance(a, b, seed=s) for s in (1, 1, 2))
        assert first == again
        assert first != other

    def test_error_holds_the_spread_over_divisions(self, rng: torch.Generator) -> None:
        a, b = torch.randn(2, 300, 48, generator=rng)
        results = [extrapolated_frechet_distance(a, b, seed=seed) for seed in range(60)]
        spread = float(torch.tensor([result.value for result in results]).std())
        assert 0.5 * spread < sum(result.error for result in results) / 60 < 4 * spread

    def test_sets_of_different_sizes_count_whole(self, rng: torch.Generator) -> None:
        a, b = torch.randn(900, 8, generator=rng), torch.randn(300, 8, generator=rng)
        more = torch.cat([a, 3 + torch.randn(900, 8, generator=rng)])
        less, greater = (extrapolated_frechet_distance(x, b, seed=0).value for x in (a, more))
        assert greater > less + 1

    def test_needs_enough_images_in_each_half(self) -> None:
        assert can_extrapolate(10_000, 1280)
        assert not can_extrapolate(7000, 1280)


def naive_overlap(samples: np.ndarray, real: np.ndarray) -> tuple[float, ...]:
    """The definitions, word by word."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).sum()))

    def radius(points: np.ndarray, index: int, k: int) -> float:
        return sorted(distance(points[index], other) for j, other in enumerate(points) if j != index)[k - 1]

    real_3, real_5 = ([radius(real, i, k) for i in range(len(real))] for k in (3, 5))
    sample_3 = [radius(samples, i, 3) for i in range(len(samples))]
    precise = [any(distance(s, r) <= real_3[i] for i, r in enumerate(real)) for s in samples]
    recalled = [any(distance(s, r) <= sample_3[j] for j, s in enumerate(samples)) for r in real]
    balls = [sum(distance(s, r) <= real_5[i] for i, r in enumerate(real)) for s in samples]
    covered = [any(distance(s, r) <= real_5[i] for s in samples) for i, r in enumerate(real)]
    return tuple(float(np.mean(each)) for each in (precise, recalled, np.array(balls) / 5, covered))


def compare(samples: Tensor, real: Tensor) -> Overlap:
    return overlap(samples, real, neighbour_radii(real))


class TestOverlap:
    def test_agrees_with_the_definitions(self, rng: torch.Generator) -> None:
        real, samples = torch.randn(50, 3, generator=rng), 0.7 * torch.randn(40, 3, generator=rng) + 0.4
        expected = naive_overlap(samples.double().numpy(), real.double().numpy())
        assert [score.value for score in compare(samples, real)] == pytest.approx(expected)
        assert 0 < expected[1] < expected[0] < 1

    def test_agrees_with_torch_fidelity_on_the_same_features(self, rng: torch.Generator) -> None:
        real, samples = torch.randn(300, 6, generator=rng).double(), 0.8 * torch.randn(200, 6, generator=rng).double()
        result = compare(samples, real)
        theirs = metric_prc.calculate_precision_recall_full(samples, real, neighborhood=3)  # generated first
        assert [result.precision.value, result.recall.value] == pytest.approx(theirs)
        assert theirs[0] != pytest.approx(theirs[1])  # the order matters

    def test_same_distribution(self, rng: torch.Generator) -> None:
        pool = torch.randn(4000, 5, generator=rng)
        result = compare(pool[:2000], pool[2000:])
        assert result.density.value == pytest.approx(1, abs=0.05)
        assert result.coverage.value == pytest.approx(1 - 0.5**5, abs=0.03)  # Naeem et al. 2020, section 3.3
        assert min(result.precision.value, result.recall.value) > 0.7

    def test_dropped_mode_costs_recall_and_coverage_not_precision(self, rng: torch.Generator) -> None:
        pool = torch.randn(2000, 5, generator=rng)
        pool[::2] += 20
        whole, half = compare(pool[:1000], pool[1000:]), compare(pool[1:1000:2], pool[1000:])
        assert half.recall.value < 0.6 * whole.recall.value
        assert half.coverage.value < 0.6 * whole.coverage.value
        assert half.precision.value == pytest.approx(whole.precision.value, abs=0.05)

    def test_far_away_samples_share_nothing(self, rng: torch.Generator) -> None:
        real = torch.randn(100, 5, generator=rng)
        assert [score.value for score in compare(real + 100, real)] == [0, 0, 0, 0]

    def test_blocks_do_not_matter(self, rng: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        real, samples = torch.randn(2, 130, 4, generator=rng)
        whole = compare(samples, real)
        monkeypatch.setattr("generative.scores.manifold._BLOCK", 17)
        assert compare(samples, real) == whole

    def test_neighbours_come_in_order(self, rng: torch.Generator) -> None:
        points = torch.randn(30, 4, generator=rng).double()
        squares = nearest_squares(points, points, 4)
        assert float(squares[:, 0].max()) < 1e-12
        assert bool((squares.diff(dim=1) >= 0).all())

    def test_a_feature_on_the_border_lies_inside(self, rng: torch.Generator) -> None:
        points = torch.randn(1000, 8, generator=rng)
        itself = compare(points, points)
        assert itself.density.value == pytest.approx(6 / 5, rel=0.01)  # five neighbours and the feature itself, over 5
        assert [itself.precision.value, itself.recall.value, itself.coverage.value] == [1, 1, 1]


def as_images(values: Tensor) -> Tensor:
    return values.to(torch.uint8).view(-1, 1, 28, 28)


class TestMemorisation:
    def test_finds_the_nearest_image_and_its_distance(self, rng: torch.Generator) -> None:
        images = as_images(torch.randint(256, (40, 784), generator=rng))
        queries = images[[7, 3, 39]].clone()
        queries[1, 0, 0, 0] ^= 64
        found = nearest_neighbours(queries, images)
        assert found.indices.tolist() == [7, 3, 39]
        assert found.distances.tolist() == pytest.approx([0, 64 / 255, 0])

    def test_copies_are_exposed(self, blobs: Split, rng: torch.Generator) -> None:
        noise = torch.randint(0, 60, blobs.images.shape, generator=rng)
        images = (blobs.images.long() + noise).clamp(max=255).to(torch.uint8)
        train, test = images[:200], images[200:]
        honest = nearest_neighbours(test, train).distances
        copied = nearest_neighbours(train[:100], train).distances
        exposed = memorisation(copied, honest)
        assert exposed.copied.value == 1
        assert exposed.neighbour_ratio.value == 0
        same = memorisation(honest, honest)
        assert [same.neighbour_ratio.value, same.copied.value] == pytest.approx([1, 0.01], abs=0.006)


class TestScore:
    def test_ratio_error_is_the_spread_over_new_draws(self, rng: torch.Generator) -> None:
        ratios = [
            ratio_score(
                mean_score(3 + torch.randn(100, generator=rng)), mean_score(2 + 0.5 * torch.randn(50, generator=rng))
            )
            for _ in range(300)
        ]
        spread = torch.tensor([ratio.value for ratio in ratios]).std()
        assert ratios[0].error == pytest.approx(float(spread), rel=0.25)

    def test_average_of_independent_scores(self) -> None:
        assert average_score([Score(1, 3), Score(5, 4)]) == pytest.approx((3, 2.5))


class TestPca:
    def test_equals_what_the_singular_values_leave(self, rng: torch.Generator) -> None:
        images = torch.randint(256, (900, 1, 28, 28), generator=rng).to(torch.uint8)
        x = to_unit(images).double().flatten(1)
        left = torch.linalg.svdvals(x - x.mean(0))[7:].square().sum() / x.numel()
        assert float(pca_error(images, images, 7).mean()) == pytest.approx(float(left), rel=1e-5)

    def test_images_of_low_rank_are_kept(self, rng: torch.Generator) -> None:
        basis = torch.rand(2, 784, generator=rng)
        images = (60 * torch.rand(50, 2, generator=rng) @ basis).to(torch.uint8).view(-1, 1, 28, 28)
        one, two = (float(pca_error(images, images, count).mean()) for count in (1, 2))
        assert two < 1e-5  # rounding to grey levels
        assert one > 10 * two


class TestLikelihood:
    def test_bound_of_equal_weights_is_the_weight(self) -> None:
        bound = importance_weighted_bound(torch.full((3, 8), 700.0))
        assert bound.tolist() == pytest.approx([700] * 3)

    def test_a_part_tightens_the_bound_of_all(self, rng: torch.Generator) -> None:
        level = 50 * torch.randn(5000, generator=rng, dtype=torch.float64)  # differs far more than the gap does
        gap = 3 + 0.1 * torch.randn(5000, generator=rng, dtype=torch.float64)
        whole = mean_score(level + gap)
        part = tightened_bound(level, level[:500], (level + gap)[:500])
        assert part.value == pytest.approx(whole.value, abs=0.05)
        assert part.error == pytest.approx(whole.error, rel=0.01)

    def test_constant_units_are_not_active(self, rng: torch.Generator) -> None:
        means = torch.randn(1000, 4, generator=rng) * torch.tensor([1.0, 0.02, 0.3, 0.0])
        assert active_units(means) == 2
