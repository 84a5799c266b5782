"""Diffusion model of images that a caption describes, with a text encoder trained beside it.

Captions are written by a grammar (`generative.captions`) over what is measured in each training image. A fifth of
the combinations of attributes is never seen in training, so that prompts can ask for what the model has to compose.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from generative.capabilities.diagnosing import Diagnostic, Table
from generative.capabilities.prompting import FollowsPrompts, Prompt
from generative.captions import CHANCES, SHADES, Grammar, Kind, split_words
from generative.compute.portable import Linear
from generative.compute.runtime import make_rng
from generative.data.images import WHITE
from generative.data.splits import Split
from generative.errors import SettingError
from generative.networks.denoiser import Condition
from generative.networks.text_encoder import PADDING, SPECIAL, START, TextEncoder
from generative.training import diffusion
from generative.training.diffusion import DiffusionConfig, DiffusionModel, DiffusionObjective, DiffusionTraining

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


class Config(DiffusionConfig):
    """Settings of a diffusion model of captions."""

    training: Training

    def condition(self) -> str:
        return "a caption of class, brightness and shape, read by a text encoder"


class Model(DiffusionModel, FollowsPrompts):
    """The denoiser, told tokens (B, 24) of a caption, or nothing but its start."""

    shares: Tensor
    wordings: Tensor

    def __init__(self, config: Training, num_classes: int) -> None:
        super().__init__(config, num_classes)
        if len(config.captions) != num_classes:
            raise SettingError(
                f"'captions' describes {len(config.captions)} classes, but the data have {num_classes}: one entry each."
            )
        self.grammar = Grammar(config.captions)
        self.tokens = {word: at for at, word in enumerate(self.grammar.words, SPECIAL)}
        self.encoder = TextEncoder(len(self.tokens), _LENGTH, config.width)
        self.prior = Linear(config.width, len(self.denoiser.mixture.labels))
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)
        count = len(self.grammar.combinations)
        texts = self._write(torch.arange(count).repeat_interleave(_WORDINGS), _MENTIONED)
        wordings = self.tell_captions(texts, torch.device("cpu")).view(count, _WORDINGS, _LENGTH)
        self.register_buffer("wordings", wordings, persistent=False)
        self.register_buffer("shares", torch.full((count,), 1 / count))  # of each combination in the training images

    def condition(self, told: Tensor) -> Condition:
        vector = self.encoder(told)
        return Condition(vector, self.denoiser.mixture.log_weights + self.prior(vector))

    def untold(self, count: int, device: torch.device) -> Tensor:
        tokens = torch.full((count, _LENGTH), PADDING, device=device)
        tokens[:, 0] = START
        return tokens

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
        return self.captioned(places, draw_chances(len(places), rng))

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
    """The denoising error given captions of what is measured in the images."""

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

    def tell(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        model: Any = self.raw_model
        ranks = self.fabric.world_size
        chances = draw_chances(len(x) * ranks, rng)[self.fabric.global_rank :: ranks]
        tokens: Tensor = model.captioned(model.grammar.places(to_grey(x), y), chances)
        return tokens


def draw_chances(count: int, rng: torch.Generator) -> Tensor:
    """Random numbers in [0, 1) (count,)."""
    return torch.rand(count, generator=rng, device=rng.device)


def to_grey(x: Tensor) -> Tensor:
    """Intensities in [0, 1] of grey levels as these, uint8: `to_uint8` for what is known to be finite."""
    return (x * WHITE).round().to(torch.uint8)
