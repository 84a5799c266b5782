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
_RIDGE = 1e-3  # images that count against what parts are worth: their sum is known, not each
_NEVER = -1e30  # logarithm of the weight of what has no image: finite, so that a class without any still has a mean
_FLOOR = 1e-4  # variance added in every direction: clusters have fewer images than pixels


class MixtureDenoiser(nn.Module):
    """Noisy images (B, 1, 28, 28) to means of the images (B, 1, 28, 28).

    Each Gaussian has its mean, the `rank` directions of largest variance, and one variance in all others.

    Args:
        count: J, of the Gaussians.
        rank: directions of each, at most 256.
    """

    log_weights: Tensor
    means: Tensor
    directions: Tensor
    centres: Tensor
    variances: Tensor
    rests: Tensor

    def __init__(self, count: int, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.register_buffer("log_weights", torch.full((count,), -math.log(count)))
        self.register_buffer("means", torch.zeros(count, NUM_PIXELS))
        self.register_buffer("directions", torch.eye(NUM_PIXELS)[:rank].repeat(count, 1))  # (count * rank, 784)
        self.register_buffer("centres", torch.zeros(count, rank))  # the means along the directions
        self.register_buffer("variances", torch.ones(count, rank))
        self.register_buffer("rests", torch.ones(count))

    @torch.no_grad()
    def fit(self, images: Tensor, members: Tensor, parts: Tensor | None = None) -> None:
        """Fit each Gaussian to its images.

        One that has none weighs nothing. With `parts` it is composed of those that have some: its mean is the sum of
        what its parts are worth, its variances are those of the Gaussians that differ from it in one part alone.

        Args:
            images: (N, 784), on the scale of what is to be denoised (`to_model`).
            members: the Gaussian of each, int64 (N,).
            parts: which parts each Gaussian has, (J, P) of 0 and 1, for example its class and its brightness.
        """
        x, members = images.double().cpu(), members.cpu()
        basis = _leading(x - x.mean(0), SUBSPACE)[1]
        counts = torch.bincount(members, minlength=len(self.means)).double()
        means = torch.zeros_like(self.means, dtype=torch.double, device="cpu").index_add_(0, members, x)
        means = means / counts.clamp(min=1).unsqueeze(1)
        around = x - means[members]
        self.log_weights.copy_((counts / len(x)).log().clamp(min=_NEVER))
        if parts is not None:
            parts = parts.double().cpu()
            means = torch.where((counts > 0).unsqueeze(1), means, _composed(means, counts, parts))
        for place in range(len(means)):
            chosen = members == place
            if parts is not None and not counts[place]:
                chosen = ((parts @ parts[place]) == parts[place].sum() - 1)[members]
            if bool(chosen.any()):
                self._set(place, means[place], around[chosen], basis)

    def _set(self, place: int, mean: Tensor, around: Tensor, basis: Tensor) -> None:
        variances, directions = _leading(around @ basis, self.rank)
        rest = (around.square().sum() / len(around) - variances.sum()).clamp(min=0)
        directions = (basis @ directions).T
        self.means[place] = mean.float()
        self.directions[place * self.rank : (place + 1) * self.rank] = directions.float()
        self.centres[place] = (directions @ mean).float()
        self.variances[place] = variances.clamp(min=0).float() + _FLOOR
        self.rests[place] = float(rest) / (NUM_PIXELS - self.rank) + _FLOOR

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


def cluster(images: Tensor, labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Clusters of the images of each class, numbered class by class: int64 (N,).

    Args:
        images: (N, 784).
        labels: classes, int64 (N,).
        per_class: clusters of each class; some have no image where there are fewer images.
        seed: of k-means.
    """
    x, labels = images.double().cpu(), labels.cpu()
    leading = x @ _leading(x - x.mean(0), SUBSPACE)[1]
    members = torch.zeros_like(labels)
    for label in labels.unique().tolist():
        own = labels == label
        members[own] = label * per_class + _clusters(leading[own], per_class, seed)
    return members


def _clusters(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Which of `count` clusters each of (N, D) belongs to, by k-means on one thread: int64 (N,)."""
    if len(vectors) <= count:
        return torch.arange(len(vectors))
    with threadpool_limits(1):
        return torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit_predict(vectors.numpy())).long()


def _composed(means: Tensor, counts: Tensor, parts: Tensor) -> Tensor:
    """Means (J, D) as sums of what parts (J, P) are worth, by least squares with a weight (J,) of each given mean."""
    weighted = parts * counts.unsqueeze(1)
    worth = torch.linalg.solve(parts.T @ weighted + _RIDGE * torch.eye(parts.shape[1]).double(), weighted.T @ means)
    return parts @ worth


def _leading(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances (count,) of centred vectors (N, D) and their directions (D, count), the largest last."""
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return values[-count:], vectors[:, -count:]
