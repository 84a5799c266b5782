"""What families that translate between photographs and outline drawings share: settings, and a network each way."""

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from generative.capabilities.translation import TranslatesDomains
from generative.config import Fraction
from generative.data.splits import Split
from generative.family import GenerativeModel, TrainingConfig
from generative.networks.outlines import outlines
from generative.networks.unet import UNet
from generative.training.convolutional import round_to_grey_levels
from generative.training.gradient import GradientObjective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"epochs": 2, "batch_size": 40, "channels": [8, 8], "ema_decay": 0.9, "learning_rate": 0.002}

SOURCES = [  # of the networks, and of the drawings
    "Ronneberger et al. 2015, U-Net, MICCAI",
    "Canny 1986, a computational approach to edge detection, IEEE TPAMI 8",
]

_CONDITIONS = 8  # a U-Net wants some; these stay zero, so that biases alone scale and shift what its blocks do
_KEPT = 3.0  # how much of the given image stands in the answer before the training, as the argument of a sigmoid

_TwoWidths = Annotated[list[Annotated[int, Field(ge=8, le=4096, multiple_of=8)]], Field(min_length=2, max_length=2)]


class TranslatorTraining(TrainingConfig):
    """Settings of the two translators."""

    channels: _TwoWidths  # of each U-Net at 14 x 14 and at 7 x 7
    ema_decay: Fraction

    def describe_translators(self) -> str:
        """The networks, for the report."""
        wide, narrow = self.channels
        return f"two U-Nets ({wide} and {narrow} channels), from photographs to outline drawings and back"


class Translator(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] of one domain to such of the other; before the training nearly to themselves."""

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.condition = nn.Parameter(torch.zeros(1, _CONDITIONS))
        self.network = UNet(1, channels, _CONDITIONS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.network(x, self.condition.expand(len(x), -1)) + _KEPT * (x - 0.5))


class TranslatorModel(GenerativeModel, TranslatesDomains):
    """A network for each direction."""

    domains = ("photographs", "drawings")

    def __init__(self, config: Any, num_classes: int) -> None:
        super().__init__(config, num_classes)
        self.to_drawing, self.to_photograph = (Translator(tuple(config.channels)) for _ in range(2))

    def render(self, x: Tensor) -> Tensor:
        return outlines(x)

    def draw(self, x: Tensor) -> Tensor:
        """Drawings of photographs `x`, at the nearest of 256 grey levels."""
        return round_to_grey_levels(self.to_drawing(x))

    def photograph(self, y: Tensor) -> Tensor:
        """Photographs of drawings `y`, at the nearest of 256 grey levels."""
        return round_to_grey_levels(self.to_photograph(y))

    def translate(self, x: Tensor, source: int) -> Tensor:
        return (self.draw, self.photograph)[source](x)


class TranslatorObjective(GradientObjective):
    """Both translators with one Adam, and an average of their weights, which is what is kept."""

    def __init__(
        self,
        model: TranslatorModel,
        config: Any,
        fabric: "Fabric",
        total_steps: int,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(model, config, fabric, total_steps)
        adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate, betas=betas, fused=True)
        self.network, self.optimizer = self.optimise(model, adam, "linear")
        self.average = self.keep_average(model, config.ema_decay)

    def validate(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Squared errors per pixel, times 1000, of translations of validation images `x` in both domains, and back."""
        averaged: Any = self.average.network
        drawings = averaged.render(x)
        there, back = averaged.draw(x), averaged.photograph(drawings)
        pairs = {"there": (drawings, there), "back": (x, back)}
        pairs |= {"there_cycle": (x, averaged.photograph(there)), "back_cycle": (drawings, averaged.draw(back))}
        return {f"{key}_mse_x1000": 1000 * (truth - answer).square().mean() for key, (truth, answer) in pairs.items()}

    def preview(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor | None:
        """Photographs of the drawings of validation images."""
        averaged: Any = self.average.network
        photographs: Tensor = averaged.photograph(averaged.render(x))
        return photographs

    def finish(self, train: Split) -> None:
        """Keep the averaged weights."""
        self.raw_model.load_state_dict(self.average.network.state_dict())
