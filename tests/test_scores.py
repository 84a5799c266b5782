"""Scores against closed forms and against other implementations."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch_fidelity import metric_fid
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from generative.data.splits import Split, to_unit
from generative.scores.frechet import Statistics, frechet_distance, statistics
from generative.scores.reconstruction import reconstruction_scores
from stages.common.scoring import class_means
from stages.evaluate import path_summary, reconstruction_summary
from tests.small import CLASSES


def random_covariance(dim: int, rng: torch.Generator) -> Tensor:
    factor = torch.randn(dim, dim, generator=rng, dtype=torch.float64)
    return factor @ factor.T


class TestFrechetDistance:
    def test_equal_gaussians_are_at_distance_zero(self, rng: torch.Generator) -> None:
        a = Statistics(torch.randn(6, generator=rng, dtype=torch.float64), random_covariance(6, rng))
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)

    def test_closed_form_in_one_dimension(self) -> None:
        a, b = (
            Statistics(torch.tensor([m], dtype=torch.float64), torch.tensor([[s**2]], dtype=torch.float64))
            for m, s in ((1.0, 2.0), (4.0, 0.5))
        )
        assert frechet_distance(a, b) == pytest.approx((1 - 4) ** 2 + (2 - 0.5) ** 2)

    def test_closed_form_for_commuting_covariances(self, rng: torch.Generator) -> None:
        basis, _ = torch.linalg.qr(torch.randn(5, 5, generator=rng, dtype=torch.float64))
        first, second = torch.rand(2, 5, generator=rng, dtype=torch.float64)
        mean = torch.zeros(5, dtype=torch.float64)
        a, b = (Statistics(mean, basis @ torch.diag(values) @ basis.T) for values in (first, second))
        expected = float((first.sqrt() - second.sqrt()).square().sum())
        assert frechet_distance(a, b) == pytest.approx(expected)

    def test_symmetric_and_invariant_to_rotation(self, rng: torch.Generator) -> None:
        x, y = torch.randn(300, 4, generator=rng).double(), 2 * torch.rand(200, 4, generator=rng).double()
        basis, _ = torch.linalg.qr(torch.randn(4, 4, generator=rng, dtype=torch.float64))
        distance = frechet_distance(statistics(x), statistics(y))
        assert frechet_distance(statistics(y), statistics(x)) == pytest.approx(distance)
        assert frechet_distance(statistics(x @ basis), statistics(y @ basis)) == pytest.approx(distance)

    def test_singular_covariance(self) -> None:
        x = torch.arange(20.0).view(10, 2) @ torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])  # rank 1
        assert frechet_distance(statistics(x), statistics(x + 1)) == pytest.approx(3.0)

    def test_agrees_with_torchmetrics_on_the_same_features(self, rng: torch.Generator) -> None:
        real, fake = torch.randn(500, 16, generator=rng), torch.randn(400, 16, generator=rng) * 1.3 + 0.2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            metric = FrechetInceptionDistance(
                feature=_Identity(),
                normalize=True,
                input_img_size=(16,),  # type: ignore[arg-type]
            )
        metric.set_dtype(torch.float64)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        ours = frechet_distance(statistics(fake), statistics(real))
        assert ours == pytest.approx(float(metric.compute()), rel=1e-4)

    def test_agrees_with_torch_fidelity_on_the_same_features(self, rng: torch.Generator) -> None:
        real, fake = torch.randn(500, 16, generator=rng), torch.randn(400, 16, generator=rng) * 1.3 + 0.2
        theirs = metric_fid.fid_statistics_to_metric(
            *(metric_fid.fid_features_to_statistics(features.double()) for features in (fake, real)), False
        )
        assert frechet_distance(statistics(fake), statistics(real)) == pytest.approx(next(iter(theirs.values())))

    def test_statistics_are_mean_and_unbiased_covariance(self) -> None:
        features = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 0.0]])
        mean, covariance = statistics(features)
        assert mean.tolist() == [2.0, 2.0]
        torch.testing.assert_close(covariance, torch.tensor([[4.0, -1.0], [-1.0, 7.0]], dtype=torch.float64))


class _Identity(nn.Module):
    """Features as they come: lets torchmetrics compare feature vectors."""

    num_features = 16

    def forward(self, x: Tensor) -> Tensor:
        return x


class TestReconstruction:
    def test_perfect_copies(self, blobs: Split) -> None:
        result = reconstruction_scores(blobs.images, blobs.images)
        assert float(result.mse.max()) == 0
        torch.testing.assert_close(result.ssim, torch.ones(len(blobs), dtype=torch.float64))
        assert float(result.psnr.min()) == pytest.approx(58.9, abs=0.1)
        assert bool((result.bce >= result.bce_floor - 1e-9).all())
        assert float((result.bce - result.bce_floor).max()) < 2  # half a grey level costs next to nothing

    def test_closed_form_for_constant_images(self) -> None:
        images = torch.full((2, 1, 28, 28), 51, dtype=torch.uint8)  # 0.2
        guesses = torch.full((2, 1, 28, 28), 102, dtype=torch.uint8)  # 0.4
        result = reconstruction_scores(images, guesses)
        assert result.mse.tolist() == pytest.approx([0.04] * 2)
        assert result.psnr.tolist() == pytest.approx([-10 * math.log10(0.04)] * 2)
        assert result.bce.tolist() == pytest.approx([-784 * (0.2 * math.log(0.4) + 0.8 * math.log(0.6))] * 2)
        assert result.bce_floor.tolist() == pytest.approx([-784 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8))] * 2)

    def test_no_reconstruction_beats_the_floor(self, blobs: Split, rng: torch.Generator) -> None:
        noise = torch.randint(256, blobs.images.shape, generator=rng, dtype=torch.uint8)
        result = reconstruction_scores(blobs.images, noise)
        assert bool((result.bce > result.bce_floor).all())
        assert bool(torch.isfinite(torch.stack(list(result))).all())

    def test_more_noise_is_worse_in_every_score(self, blobs: Split, rng: torch.Generator) -> None:
        noise = torch.randn(blobs.images.shape, generator=rng)
        means = []
        for strength in (0.05, 0.1, 0.2):
            noisy = ((to_unit(blobs.images) + strength * noise).clamp(0, 1) * 255).to(torch.uint8)
            means.append(torch.stack([score.mean() for score in reconstruction_scores(blobs.images, noisy)]))
        mse, bce, floor, psnr, ssim = torch.stack(means).T
        assert bool((mse.diff() > 0).all() and (bce.diff() > 0).all())
        assert bool((psnr.diff() < 0).all() and (ssim.diff() < 0).all())
        assert bool((floor == floor[0]).all())

    def test_structural_similarity_agrees_with_torchmetrics(self, blobs: Split, rng: torch.Generator) -> None:
        noisy = (to_unit(blobs.images) + 0.1 * torch.randn(blobs.images.shape, generator=rng)).clamp(0, 1)
        others = (noisy * 255).to(torch.uint8)
        ours = reconstruction_scores(blobs.images, others).ssim
        theirs = structural_similarity_index_measure(
            to_unit(others).double(), to_unit(blobs.images).double(), data_range=1.0, reduction="none"
        )
        torch.testing.assert_close(ours, theirs)

    def test_summary_is_the_mean_over_classes(self, blobs: Split) -> None:
        shifted = blobs.images.roll(1, dims=3)
        summary, per_class = reconstruction_summary(blobs, shifted, CLASSES)
        for key, value in summary.items():
            assert value.value == pytest.approx(sum(per_class[key].values()) / 10)  # classes are equally frequent


def test_class_means_average_over_each_class() -> None:
    labels = torch.arange(200) % 10
    means = class_means((labels != 3).double(), labels, CLASSES)
    assert means["Dress"] == 0
    assert means["Coat"] == 1


def test_path_summary_counts_points_that_keep_an_end_class() -> None:
    seen = torch.tensor([[3, 3, 5], [3, 3, 3], [1, 7, 2], [1, 9, 9]])
    ends = torch.tensor([[3, 3], [3, 3], [1, 2], [1, 2]])
    summary = path_summary(seen, ends)
    assert summary["path_within_kept"].value == pytest.approx(5 / 6)
    assert summary["path_between_kept"].value == pytest.approx(3 / 6)
