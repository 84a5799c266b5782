"""Diffusion model of images that a caption describes, with a text encoder trained beside it.

Captions are written by a grammar (`generative.captions`) over what is measured in each training image. A fifth of
the combinations of attributes is never seen in training, so that prompts can ask for what the model has to compose.
Samples are guided by two networks, one that knows nothing and one that knows the class alone (Brooks, Holynski, Efros
2023, "InstructPix2Pix: Learning to Follow Image Editing Instructions", CVPR, section 3.2.1, has two weights likewise).
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from generative.capabilities.diagnosing import Diagnostic, Table
from generative.capabilities.prompting import FollowsPrompts, Prompt
from generative.captions import CHANCES, SHADES, Grammar, Kind, split_words
from generative.compute.portable import Linear, matmul
from generative.compute.runtime import make_rng
from generative.data.splits import Split
from generative.errors import SettingError
from generative.networks.text_encoder import PADDING, SPECIAL, START, TextEncoder
from generative.training import diffusion
from generative.training.diffusion import (
    Condition,
    DiffusionConfig,
    DiffusionModel,
    DiffusionObjective,
    DiffusionSampling,
    DiffusionTraining,
    Guide,
    Level,
    to_grey,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALL = {"training": diffusion.SMALL, "sampling": diffusion.SMALL_SAMPLING}

_LENGTH = 24  # tokens of a prompt at most
_MENTIONED = 0.85  # share of the attributes that a caption in training names
_WORDINGS = 64  # of each combination, in training
_WORDING_SEED = 0
_HARDLY = 1e-9  # how often, at least, a combination is drawn that no training image has
_CHUNK = 500  # prompts drawn at a time


class Training(DiffusionTraining):
    """Settings of the denoiser and of the captions."""

    captions: Annotated[list[Kind], Field(min_length=1)]  # of each class, by label

    @field_validator("captions")
    @classmethod
    def _captions_make_a_grammar(cls, captions: list[Kind]) -> list[Kind]:
        try:
            Grammar(captions)
        except SettingError as error:
            raise ValueError(str(error)) from None
        return captions


class Sampling(DiffusionSampling):
    """Settings of sampling, with a second guidance, by what the network says if it is told the class alone."""

    attribute_guidance: Annotated[float, Field(ge=0, le=100)]  # 1: none
    attributes_from: Level  # noise level from which it acts, to guided_to


class Config(DiffusionConfig):
    """Settings of a diffusion model of captions."""

    training: Training
    sampling: Sampling

    def condition(self) -> str:
        return "a caption of class, brightness and shape, read by a text encoder"

    def sources(self) -> list[str]:
        return [*super().sources(), "Brooks et al. 2023, InstructPix2Pix, CVPR: guidance with two weights"]

    def mixture(self) -> str:
        return "a mixture of Gaussians, one for each combination of attributes,"


class Model(DiffusionModel, FollowsPrompts):
    """The network is told tokens (B, 24) of a caption; each combination of attributes has a Gaussian.

    The text encoder tells how likely each combination is. Combinations are made of parts (a class; a class and how
    bright it is; a class and a side of one of its bounds), and their logits, the vectors that the network is told, and
    the means of Gaussians that no training image was of are sums over these: what was never seen is composed.
    """

    shares: Tensor
    wordings: Tensor
    parts: Tensor

    def __init__(self, config: Training, num_classes: int) -> None:
        if len(config.captions) != num_classes:
            raise SettingError(
                f"'captions' describes {len(config.captions)} classes, but the data have {num_classes}: one entry each."
            )
        grammar = Grammar(config.captions)
        count = len(grammar.combinations)
        super().__init__(config, num_classes, count)
        self.grammar = grammar
        self.tokens = {word: at for at, word in enumerate(grammar.words, SPECIAL)}
        self.encoder = TextEncoder(len(self.tokens), _LENGTH, config.width)
        self.register_buffer("parts", grammar.parts().float(), persistent=False)  # (combinations, parts)
        self.recognise = Linear(config.width, self.parts.shape[1])
        self.meanings = nn.Parameter(torch.randn(self.parts.shape[1], config.width))
        texts = self._write(torch.arange(count).repeat_interleave(_WORDINGS), _MENTIONED)
        wordings = self.tell_captions(texts, torch.device("cpu")).view(count, _WORDINGS, _LENGTH)
        self.register_buffer("wordings", wordings, persistent=False)
        self.register_buffer("shares", torch.full((count,), 1 / count))  # of each combination in the training images

    def fit_mixture(self, images: Tensor, train: Split) -> None:
        self.mixture.fit(images, self.grammar.places(train.images, train.labels), self.parts)

    def read(self, told: Tensor) -> Tensor:
        """Logarithms of how likely each combination is (B, combinations), given tokens (B, 24)."""
        return matmul(self.recognise(self.encoder(told)), self.parts.T).float().log_softmax(1)

    def condition(self, told: Tensor) -> Condition:
        return self._condition(self.read(told))

    def _condition(self, likely: Tensor) -> Condition:
        return Condition(matmul(matmul(likely.exp(), self.parts), self.meanings), likely)

    def guides(self, told: Tensor, sampling: Any) -> list[Guide]:
        """The untold network, and that of the class alone; settings without the latter have the former."""
        found = super().guides(told, sampling)
        if isinstance(sampling, Sampling):
            alone = partial(self.denoise, condition=self._of_class(self.read(told)))
            found.append(Guide(sampling.attribute_guidance, sampling.attributes_from, sampling.guided_to, alone))
        return found

    def _of_class(self, likely: Tensor) -> Condition:
        """The condition if all that is known are the classes, as likely as those of combinations (B, combinations)."""
        owners = torch.tensor([combination.label for combination in self.grammar.combinations], device=likely.device)
        own = F.one_hot(owners, self.num_classes).to(likely)  # (combinations, classes)
        shares = self.shares + _HARDLY
        spread = matmul(likely.exp(), own)[:, owners] * (shares / (shares @ own)[owners])
        return self._condition(spread.log())

    def tell(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Tokens (B, 24) of prompts.

        Raises:
            SettingError: a prompt is too long, or has words that are not known.
        """
        for prompt in prompts:
            self.grammar.read(prompt)
        return self.tell_captions(prompts, device)

    def tell_captions(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """The same of texts that the grammar wrote."""
        rows = []
        for caption in captions:
            tokens = [START, *(self.tokens[word] for word in split_words(caption))]
            if len(tokens) > _LENGTH:
                raise SettingError(f"{caption!r} has {len(tokens) - 1} words; at most {_LENGTH - 1} are read.")
            rows.append(tokens + [PADDING] * (_LENGTH - len(tokens)))
        return torch.tensor(rows, device=device)

    def tell_labels(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Captions of combinations of each label, as frequent as among the training images."""
        of_label = torch.tensor([combination.label for combination in self.grammar.combinations], device=labels.device)
        weights = (self.shares + _HARDLY) * (labels.unsqueeze(1) == of_label)  # (B, combinations)
        places = torch.multinomial(weights, 1, generator=rng)[:, 0]
        return self.captioned(places, torch.rand(len(places), generator=rng, device=rng.device))

    def captioned(self, places: Tensor, chances: Tensor) -> Tensor:
        """Tokens (B, 24) of captions of combinations, given their places (B,) and random numbers (B,) in [0, 1)."""
        tokens: Tensor = self.wordings[places, (chances * _WORDINGS).long()]
        return tokens

    def _write(self, places: Tensor, share: float) -> list[str]:
        """A caption of each combination, given their places; `share` of the attributes are named."""
        chances = torch.rand(len(places), CHANCES, generator=make_rng(_WORDING_SEED)).tolist()
        found = [self.grammar.combinations[place] for place in places.tolist()]
        return [self.grammar.write(one, row, share=share) for one, row in zip(found, chances, strict=True)]

    def test_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """In turns of combinations that were seen in training and of such that were held out, each with one wording."""
        groups: dict[str, list[Prompt]] = {"seen": [], "held_out": []}
        for place in torch.randperm(len(self.grammar.combinations), generator=rng, device=rng.device).tolist():
            combination, group = self.grammar.combinations[place], ("seen", "held_out")[self.grammar.held_out[place]]
            text = self.grammar.write(combination, torch.rand(CHANCES, generator=rng, device=rng.device).tolist())
            groups[group].append(Prompt(text, combination.label, group))
        turns = list(groups.values())
        return [turns[number % 2][number // 2 % len(turns[number % 2])] for number in range(count)]

    def draw(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        told = self.tell(prompts, rng.device)
        return torch.cat([self.draw_images(part, self.sampling, rng) for part in told.split(_CHUNK)])

    def attributes_match(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self.grammar.follows(images, prompts)

    def captions(self, split: Split) -> list[str]:
        """Captions that name all attributes."""
        return self._write(self.grammar.places(split.images, split.labels), 1.0)

    def diagnose(self, examples: Split, rng: torch.Generator) -> dict[str, Diagnostic]:
        """The path of denoising, and how frequent each attribute is among test images of its class."""
        places = self.grammar.places(examples.images, examples.labels).cpu()
        found = [self.grammar.combinations[place] for place in places.tolist()]
        rows, numbers = [], []
        for label, kind in enumerate(self.grammar.kinds):
            own = [combination for combination in found if combination.label == label]
            values = [[combination.shade == shade for combination in own] for shade in range(len(SHADES))]
            for place in range(len(kind.traits)):
                values += [[combination.sides[place] == side for combination in own] for side in (0, 1)]
            rows.append(kind.names[0])
            numbers.append([sum(value) / max(1, len(own)) for value in values])
        width = max(map(len, numbers))
        table = torch.tensor([[*row, *[0.0] * (width - len(row))] for row in numbers])
        columns = [words[0] for words in SHADES]
        columns += [f"{word} word of trait {place}" for place in (1, 2, 3, 4) for word in ("first", "second")]
        return {
            **super().diagnose(examples, rng),
            "attribute_shares": Table("share of test images with each attribute", table, rows, columns[:width]),
        }


class Objective(DiffusionObjective):
    """The denoising error given captions of what is measured in the images, and how well the captions are read."""

    losses = DiffusionObjective.losses | {"loss_reading": "cross-entropy of the combination given its caption, nats"}

    def __init__(self, model: Model, config: Training, fabric: "Fabric", total_steps: int) -> None:
        super().__init__(model, config, fabric, total_steps)
        self.held_out = torch.tensor(model.grammar.held_out)
        self.places: Tensor | None = None  # of the training images among the combinations

    def choose(self, train: Split, rng: torch.Generator) -> Split:
        """Each image whose combination is not held out once, and some of them again, as many as there are in all.

        Raises:
            SettingError: all images of a class are held out.
        """
        grammar = self.raw_model.grammar
        if self.places is None:
            self.places = grammar.places(train.images, train.labels)
        places = self.places
        kept = (~self.held_out.to(places.device)[places]).nonzero()[:, 0]
        if lost := sorted(set(train.labels.unique().tolist()) - set(train.labels[kept].unique().tolist())):
            raise SettingError(
                f"every training image of class {lost[0]} has a combination of attributes that is held out: "
                f"set its bounds in 'captions' so that all values occur."
            )
        if self.steps == 0:
            counts = torch.bincount(places[kept], minlength=len(grammar.combinations))
            self.raw_model.shares.copy_(counts / len(kept))
        again = [
            kept[torch.randperm(len(kept), generator=rng, device=rng.device)] for _ in range(len(train) // len(kept))
        ]
        chosen = torch.cat([kept, *again])[: len(train)]
        return Split(train.images[chosen], train.labels[chosen])

    def tell(self, x: Tensor, y: Tensor, chances: Tensor) -> Tensor:
        model: Any = self.raw_model
        tokens: Tensor = model.captioned(model.grammar.places(to_grey(x), y), chances)
        return tokens

    def further_losses(self, model: Any, told: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss_reading": F.nll_loss(model.read(told), model.grammar.places(to_grey(x), y))}
