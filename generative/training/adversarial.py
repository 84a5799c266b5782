"""What the families of generative adversarial networks share: losses, two optimizers, their updates."""

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generative.compute.runtime import draw_normal
from generative.objective import TrainingObjective
from generative.training.schedules import Decay, make_schedule

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Loss = Literal["least_squares", "logistic"]


class AdversarialObjective(TrainingObjective):
    """Two networks that are updated in turn, each with an Adam of its own."""

    losses = ("loss_g", "loss_d")

    def prepare(
        self,
        model: Any,
        discriminator: nn.Module,
        config: Any,
        fabric: "Fabric",
        total_steps: int,
        *,
        betas: tuple[float, float],
        decay: Decay,
    ) -> None:
        """Set up `model.generator` and `discriminator` on Fabric's device, with optimizers and schedules."""
        self.raw_model = model
        self.raw_discriminator = discriminator  # for what has no gradient to share between devices
        self.config = config
        self.fabric = fabric
        adam_g, adam_d = (
            torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=betas, fused=True)
            for network in (model.generator, discriminator)
        )
        self.generator, self.optimizer_g = fabric.setup(model.generator, adam_g)
        self.discriminator, self.optimizer_d = fabric.setup(discriminator, adam_d)
        self.optimizers = (self.optimizer_g, self.optimizer_d)
        self.schedules = [make_schedule(optimizer, decay, total_steps) for optimizer in self.optimizers]

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """One step of `optimizer` down the gradient of `loss`."""
        optimizer.zero_grad()
        self.fabric.backward(loss)
        optimizer.step()

    def judge(self, x: Tensor, y: Tensor) -> Any:
        """What the discriminator says of generated images, with gradients for the generator alone."""
        self.raw_discriminator.requires_grad_(False)
        with self.fabric.autocast():
            judged = self.raw_discriminator(x, y)
        self.raw_discriminator.requires_grad_(True)
        return judged

    def preview(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor | None:
        """Samples of the labels `y`, from the same noise after every epoch."""
        return torch.as_tensor(self.sampling_network()(draw_normal(len(y), self.config.latent_dim, rng), y))

    def sampling_network(self) -> nn.Module:
        """The generator that samples would come from if the training ended now."""
        generator: nn.Module = self.raw_model.generator
        return generator

    def state_dict(self) -> dict[str, Any]:
        return {
            "discriminator": self.raw_discriminator.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [schedule.state_dict() for schedule in self.schedules],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.raw_discriminator.load_state_dict(state["discriminator"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        for schedule, values in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(values)


def discriminator_loss(logits_real: Tensor, logits_fake: Tensor, loss: Loss) -> Tensor:
    """Mean loss of the discriminator, for logits (B,) of real and of generated images.

    Logistic: Goodfellow et al. 2014, "Generative Adversarial Nets", NeurIPS, equation 1. Least squares: Mao et
    al. 2017, "Least Squares Generative Adversarial Networks", ICCV, equation 9.
    """
    if loss == "least_squares":
        return ((logits_real - 1).square().mean() + logits_fake.square().mean()) / 2
    return F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()


def generator_loss(logits_fake: Tensor, loss: Loss) -> Tensor:
    """Mean loss of the generator, for logits (B,) of generated images; `logistic` is the non-saturating form."""
    if loss == "least_squares":
        return (logits_fake - 1).square().mean() / 2
    return F.softplus(-logits_fake).mean()
