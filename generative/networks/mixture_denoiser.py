"""The best denoiser of a mixture of Gaussians, in closed form: what is known about images before any training.

For x = image + sigma * noise, the mean of the image given x is, of each Gaussian, a linear filter, and of a mixture the
mean of these, weighted by how well each explains x. Trained denoisers come near it at much noise (Wang, Vastola 2024,
"The Unreasonable Effectiveness of Gaussian Score Approximation for Diffusion Models", TMLR).
"""

import math

import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from generative.compute.portable import matmul
from generative.data.images import NUM_PIXELS

SUBSPACE = 256  # leading directions of all images, in which those of the components are sought
_FLOOR = 1e-4  # variance added in every direction: clusters have fewer images than pixels


class MixtureDenoiser(nn.Module):
    """Noisy images (B, 1, 28, 28) to means of the images (B, 1, 28, 28).

    Each Gaussian has its mean, the `rank` directions of largest variance, and one variance in all others.

    Args:
        num_classes: of the images.
        components: of each class.
        rank: directions of each component, at most 256.
    """

    log_weights: Tensor
    labels: Tensor
    means: Tensor
    directions: Tensor
    centres: Tensor
    variances: Tensor
    rests: Tensor

    def __init__(self, num_classes: int, components: int, rank: int) -> None:
        super().__init__()
        count = num_classes * components
        self.num_classes, self.rank = num_classes, rank
        self.register_buffer("log_weights", torch.full((count,), -math.log(count)))
        self.register_buffer("labels", torch.arange(num_classes).repeat_interleave(components))  # of each component
        self.register_buffer("means", torch.zeros(count, NUM_PIXELS))
        self.register_buffer("directions", torch.eye(NUM_PIXELS)[:rank].repeat(count, 1))  # (count * rank, 784)
        self.register_buffer("centres", torch.zeros(count, rank))  # the means along the directions
        self.register_buffer("variances", torch.ones(count, rank))
        self.register_buffer("rests", torch.ones(count))

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Tensor, seed: int) -> None:
        """Fit the components of each class to its images (N, 784), of labels (N,): clusters, and their moments.

        Images are on the scale of what is to be denoised (`to_model`).

        A component that would be empty stays as it was.
        """
        x = images.double().cpu()
        basis = _leading(x - x.mean(0), SUBSPACE)[1]
        for label in range(self.num_classes):
            own = x[labels.cpu() == label]
            places = (self.labels == label).nonzero()[:, 0].tolist()
            clusters = _cluster(own @ basis, len(places), seed)
            for number, place in enumerate(places):
                if bool((chosen := clusters == number).any()):
                    self._set(place, own[chosen], basis, len(x))

    def _set(self, place: int, members: Tensor, basis: Tensor, total: int) -> None:
        mean = members.mean(0)
        centred = members - mean
        variances, directions = _leading(centred @ basis, self.rank)
        rest = (centred.square().sum() / len(members) - variances.sum()).clamp(min=0)
        self.log_weights[place] = math.log(len(members) / total)
        self.means[place] = mean.float()
        directions = (basis @ directions).T
        self.directions[place * self.rank : (place + 1) * self.rank] = directions.float()
        self.centres[place] = (directions @ mean).float()
        self.variances[place] = variances.float() + _FLOOR
        self.rests[place] = float(rest) / (NUM_PIXELS - self.rank) + _FLOOR

    def prior_of_label(self, labels: Tensor) -> Tensor:
        """Logits (B, J) of the components of each label alone, of all where the label is the number of classes."""
        own = (labels.unsqueeze(1) == self.labels) | (labels.unsqueeze(1) == self.num_classes)
        return torch.where(own, self.log_weights, -torch.inf)

    def forward(self, x: Tensor, sigma: Tensor, prior: Tensor) -> Tensor:
        """The means.

        Args:
            x: noisy images (B, 1, 28, 28).
            sigma: standard deviation of the noise (B,).
            prior: logits (B, J) of the components before x is seen.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self._mean(x.float(), sigma.float(), prior.float())

    def _mean(self, x: Tensor, sigma: Tensor, prior: Tensor) -> Tensor:
        flat = x.flatten(1)
        noise = sigma.square().unsqueeze(1)  # (B, 1)
        around = flat.square().sum(1, keepdim=True) - 2 * matmul(flat, self.means.T) + self.means.square().sum(1)
        along = matmul(flat, self.directions.T).view(len(x), -1, self.rank) - self.centres  # (B, J, rank)
        spread, rest = self.variances + noise.unsqueeze(2), self.rests + noise
        explained = along.square()
        log_density = (NUM_PIXELS - self.rank) * rest.log() + (around - explained.sum(2)) / rest
        log_density = log_density + (spread.log() + explained / spread).sum(2)
        share = (prior - log_density / 2).softmax(1)  # (B, J)
        shrink = self.rests / rest  # of the other directions
        kept = along * (self.variances / spread - shrink.unsqueeze(2)) * share.unsqueeze(2)
        mean = matmul(kept.flatten(1), self.directions) + matmul(share * (1 - shrink), self.means)
        return (mean + (share * shrink).sum(1, keepdim=True) * flat).view_as(x)


def _leading(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances (count,) of centred vectors (N, D) and their directions (D, count), the largest last."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return values[-count:], vectors[:, -count:]


def _cluster(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Which of `count` clusters each of (N, D) belongs to, by k-means on one thread: int64 (N,)."""
    if len(vectors) <= count:
        return torch.arange(len(vectors))
    with threadpool_limits(1):
        return torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit_predict(vectors.numpy())).long()
