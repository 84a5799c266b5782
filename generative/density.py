"""A density fitted to latent vectors, for models that have no prior of their own.

A Gaussian mixture with full covariances, fitted by expectation maximisation; cf. Ghosh et al. 2020, "From
Variational to Deterministic Autoencoders", ICLR, where this is called ex-post density estimation.
"""

import torch
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

_MAX_ITERATIONS = 200
_MAX_VECTORS = 20_000  # more of them change the fit less than another seed does


class MixtureDensity(nn.Module):
    """Gaussian mixture over (d,) vectors whose parameters are buffers, so that they travel with the weights."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, components: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(components) / max(1, components))
        self.register_buffer("means", torch.zeros(components, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(components, 1, 1))  # lower Cholesky factors

    def fit(self, z: Tensor, seed: int) -> None:
        """Fit the mixture to vectors `z` (N, d), or to every n-th if they are many.

        The same `z` and `seed` give the same mixture.

        The starting points come from k-means++ and everything runs on one thread: the parallel k-means of
        scikit-learn adds numbers in an order that changes from run to run.
        """
        mixture = GaussianMixture(
            len(self.weights), init_params="k-means++", max_iter=_MAX_ITERATIONS, random_state=seed
        )
        with threadpool_limits(1):
            mixture.fit(z[:: -(-len(z) // _MAX_VECTORS)].double().cpu().numpy())
        self.weights.copy_(torch.from_numpy(mixture.weights_))
        self.means.copy_(torch.from_numpy(mixture.means_))
        self.factors.copy_(torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)))

    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw vectors (count, d)."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=rng)
        eps = torch.randn(count, self.means.shape[1], generator=rng, device=self.means.device)
        return self.means[component] + torch.einsum("nij,nj->ni", self.factors[component], eps)
