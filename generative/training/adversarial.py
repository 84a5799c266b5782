"""What the families with a discriminator share: losses, penalties, two optimizers, averaged weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.capabilities.sampling import DrawsSamples
from generative.compute.portable import matmul, square_root
from generative.compute.runtime import draw_noise, draw_normal, make_rng
from generative.data.splits import Split, balanced_labels
from generative.family import GenerativeModel
from generative.training.averaging import MovingAverage, estimate_statistics
from generative.training.gradient import GradientObjective
from generative.training.schedules import Decay

Loss = Literal["least_squares", "logistic", "hinge"]
LOSS_NAMES = {"least_squares": "least-squares", "logistic": "non-saturating logistic", "hinge": "hinge"}
LOSS_SOURCES = {
    "least_squares": ["Mao et al. 2017, least squares GANs, ICCV"],
    "logistic": [],
    "hinge": ["Lim, Ye 2017, geometric GAN, arXiv:1705.02894"],
}

_TINY = 1e-12  # keeps the gradient of a norm finite at 0
_STATISTICS_BATCH, _STATISTICS_BATCHES = 1000, 20  # of samples that the final normalisations are measured on


class AdversarialModel(GenerativeModel, DrawsSamples):
    """A network `generator` from noise (B, config.latent_dim) and labels (B,), which it need not read, to images."""

    generator: nn.Module

    def sample(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        x: Tensor = self.generator(draw_normal((len(labels), self.config.latent_dim), rng), labels)
        return x


class AdversarialObjective(GradientObjective):
    """The generator of an `AdversarialModel` and a discriminator, each with an Adam of its own."""

    losses: Mapping[str, str] = {
        "loss_g": "generator: logistic loss, nats",
        "loss_d": "discriminator: logistic loss, nats",
    }

    average: MovingAverage | None

    def oppose(
        self,
        discriminator: nn.Module,
        *,
        betas: tuple[float, float],
        decay: Decay,
        discriminator_decay: Decay | None = None,
        ema_decay: float = 0.0,
    ) -> None:
        """Set up the model's generator and `discriminator`; with `ema_decay` samples come from an average.

        The learning rate follows `decay`, that of the discriminator its own where there is one.
        """
        self.raw_discriminator = discriminator  # for what has no gradient to share between devices
        adam_g, adam_d = (
            torch.optim.Adam(network.parameters(), lr=self.config.learning_rate, betas=betas, fused=True)
            for network in (self.raw_model.generator, discriminator)
        )
        self.generator, self.optimizer_g = self.optimise(self.raw_model.generator, adam_g, decay)
        self.discriminator, self.optimizer_d = self.optimise(discriminator, adam_d, discriminator_decay or decay)
        self.average = self.keep_average(self.raw_model.generator, ema_decay) if ema_decay else None

    def noise(self, count: int, rng: torch.Generator) -> Tensor:
        """Noise (count, config.latent_dim) for this process's share of a batch."""
        return draw_noise((count, self.config.latent_dim), rng, self.fabric)

    def judge(self, *inputs: Tensor) -> Any:
        """What the discriminator says of generated images, with gradients for the generator alone."""
        with frozen(self.raw_discriminator), self.fabric.autocast():
            return self.raw_discriminator(*inputs)

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor | None:
        """Samples of the generator that they would come from if the training ended now."""
        z = draw_normal((len(labels), self.config.latent_dim), rng)
        return torch.as_tensor(self.sampling_network()(z, labels))

    def sampling_network(self) -> nn.Module:
        """The generator that samples would come from if the training ended now."""
        network: nn.Module = self.raw_model.generator if self.average is None else self.average.network
        return network

    def finish(self, train: Split) -> None:
        """Keep the averaged generator, if there is one, with normalisations that fit it."""
        if self.average is None:
            return
        rng = make_rng(self.config.seed, train.images.device)
        labels = balanced_labels(_STATISTICS_BATCH, self.raw_model.num_classes).to(train.images.device)
        size = (_STATISTICS_BATCH, self.config.latent_dim)
        noise = (draw_normal(size, rng) for _ in range(_STATISTICS_BATCHES))
        estimate_statistics(self.average.network, ((z, labels) for z in noise))
        self.raw_model.generator.load_state_dict(self.average.network.state_dict())


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """While this lasts `network` passes gradients on and collects none."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def discriminator_loss(logits_real: Tensor, logits_fake: Tensor, loss: Loss) -> Tensor:
    """Mean loss of the discriminator, for logits (B,) of real and of generated images.

    Logistic: Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS, equation 1. Least squares: Mao et
    al. 2017, "Least Squares Generative Adversarial Networks", ICCV, equation 9. Hinge: Lim, Ye 2017, "Geometric GAN",
    arXiv:1705.02894.
    """
    if loss == "hinge":
        return F.relu(1 - logits_real).mean() + F.relu(1 + logits_fake).mean()
    if loss == "least_squares":
        return ((logits_real - 1).square().mean() + logits_fake.square().mean()) / 2
    return F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()


def generator_loss(logits_fake: Tensor, loss: Loss) -> Tensor:
    """Mean loss of the generator, for logits (B,) of generated images; `logistic` is the non-saturating form."""
    if loss == "hinge":
        return -logits_fake.mean()
    if loss == "least_squares":
        return (logits_fake - 1).square().mean() / 2
    return F.softplus(-logits_fake).mean()


def r1_penalty(judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient of `judge`, images to (B,), at real images `x`.

    Mescheder, Geiger, Nowozin 2018, "Which Training Methods for GANs do actually Converge?", ICML, equation 9, without
    its weight.
    """
    return input_gradients(judge, x).square().sum(1).mean() / 2


def gradient_penalty(
    judge: Callable[[Tensor], Tensor],
    x_real: Tensor,
    x_fake: Tensor,
    share: Tensor,
    view: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mean squared distance to 1 of the gradient's norm, between real and generated images.

    Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", NeurIPS, equation 3, without its weight.

    Args:
        judge: images (B, 1, 28, 28), or their views, to (B,).
        x_real: real images (B, 1, 28, 28).
        x_fake: generated ones.
        share: in [0, 1], (B,), of the real image in each mixture.
        view: what of images `judge` gets; the gradient is that in the view.
    """
    with torch.no_grad():
        mixed = torch.lerp(x_fake, x_real, share.view(-1, 1, 1, 1))
        mixed = mixed if view is None else view(mixed)
    return (gradient_norms(judge, mixed) - 1).square().mean()


def gradient_norms(judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Norms (B,) of the gradients of `judge`, (B, ...) to (B,), at `x`, to be differentiated again."""
    return square_root(input_gradients(judge, x).square().sum(1) + _TINY)


def consistency_term(judged: Tensor, judged_again: Tensor, features: Tensor, features_again: Tensor) -> Tensor:
    """How differently a critic judges the same real images when it drops other neurons: mean squared differences.

    Wei et al. 2018, "Improving the Improved Training of Wasserstein GANs: A Consistency Term and Its Dual Effect",
    ICLR, equation 4 with M' = 0 and squared distances, without its weight: of the judgements (B,), and a tenth of that
    of the last layer's features (B, F), averaged over them.
    """
    return (judged - judged_again).square().mean() + 0.1 * (features - features_again).square().mean()


def orthogonal_penalty(weights: Iterable[Tensor]) -> Tensor:
    """Squared products of different rows of each matrix, summed: 0 where they are orthogonal, of any length.

    Brock, Donahue, Simonyan 2019, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR, equation
    3, without its weight. Kernels count as matrices (out, rest); of matrices that are higher than wide the columns are
    meant, since only these can be orthogonal.
    """
    total = torch.zeros(())
    for weight in weights:
        matrix = weight.flatten(1)
        matrix = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
        products = matmul(matrix, matrix.T)
        total = total.to(products) + (products - torch.diag(products.diagonal())).square().sum()
    return total


def input_gradients(judge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradients (B, D) of `judge`, (B, ...) of D numbers to (B,), at `x`, to be differentiated again."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(judge(x).sum(), x, create_graph=True)
    return gradient.flatten(1)


def plain_adversarial_step(
    generator: nn.Module, discriminator: nn.Module, config: Any, device: torch.device
) -> Callable[[Tensor, Tensor], None]:
    """The update of a first tutorial: the default memory layout, Adam as it comes, the losses read after every step.

    `discriminator` takes images and labels and returns logits (B,), or a tuple that begins with them.
    """
    generator, discriminator = (
        network.to(device).to(memory_format=torch.contiguous_format) for network in (generator, discriminator)
    )
    optimizers = [torch.optim.Adam(net.parameters(), lr=config.learning_rate) for net in (generator, discriminator)]
    criterion = nn.BCEWithLogitsLoss()

    def judge(x: Tensor, y: Tensor) -> Tensor:
        judged = discriminator(x, y)
        logits: Tensor = judged[0] if isinstance(judged, tuple) else judged
        return logits

    def step(x: Tensor, y: Tensor) -> None:
        real, fake = torch.ones(len(x), device=x.device), torch.zeros(len(x), device=x.device)
        x_fake = generator(torch.randn(len(x), config.latent_dim, device=x.device), y)
        loss_g = criterion(judge(x_fake, y), real)
        optimizers[0].zero_grad()
        loss_g.backward()
        optimizers[0].step()
        loss_d = (criterion(judge(x, y), real) + criterion(judge(x_fake.detach(), y), fake)) / 2
        optimizers[1].zero_grad()
        loss_d.backward()
        optimizers[1].step()
        loss_g.item(), loss_d.item()

    return step
