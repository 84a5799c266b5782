"""A density fitted to latent vectors, for models that have no prior of their own.

A Gaussian mixture with full covariances, fitted by expectation maximisation; cf. Ghosh et al. 2020, "From
Variational to Deterministic Autoencoders", ICLR, where this is called ex-post density estimation.
"""

from dataclasses import dataclass
from typing import Self

import torch
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor

from generative.compute.runtime import draw_normal

_MAX_ITERATIONS = 200
_MAX_VECTORS = 20_000  # more of them change the fit less than another seed does


def fitted_vectors(count: int) -> int:
    """How many of `count` vectors a fit uses: every n-th if they are many."""
    return len(range(0, count, _stride(count)))


def _stride(count: int) -> int:
    return -(-count // _MAX_VECTORS)


@dataclass(frozen=True)
class Mixture:
    """Gaussian mixture over (d,) vectors: `weights` (K,), `means` (K, d), lower Cholesky `factors` (K, d, d)."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    @classmethod
    def fit(cls, z: Tensor, components: int, seed: int) -> Self:
        """A mixture of `components`, at most `fitted_vectors(N)`, fitted to vectors `z` (N, d), on their device.

        The same arguments give the same mixture: the starting points come from k-means++ and everything runs on one
        thread, since the parallel k-means of scikit-learn adds numbers in an order that changes from run to run.
        """
        mixture = GaussianMixture(components, init_params="k-means++", max_iter=_MAX_ITERATIONS, random_state=seed)
        with threadpool_limits(1):
            mixture.fit(z[:: _stride(len(z))].double().cpu().numpy())
        factors = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))
        parts = (torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_), factors)
        return cls(*(part.float().to(z.device) for part in parts))

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw vectors (count, d)."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=rng)
        eps = draw_normal((count, self.means.shape[1]), rng)
        return self.means[component] + torch.einsum("nij,nj->ni", self.factors[component], eps)
