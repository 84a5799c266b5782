"""Prompts: texts to images."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from generative.capabilities.capability import Capability, require_images
from generative.data.splits import Split
from generative.errors import PipelineError


class Prompt(NamedTuple):
    """A text that asks for an image, the class 0 to 9 that it names, and the group of prompts that it is scored in."""

    text: str
    label: int
    group: str


class FollowsPrompts(Capability):
    """Texts to images."""

    @abstractmethod
    def test_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """`count` prompts to be scored by, of all groups; the first twenty are shown."""

    @abstractmethod
    def draw(self, prompts: Sequence[str], rng: torch.Generator) -> Tensor:
        """One image (B, 1, 28, 28) for each prompt.

        Raises:
            SettingError: naming the words of a prompt that the model does not know.
        """

    @abstractmethod
    def attributes_match(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Whether `images`, uint8 (B, 1, 28, 28), have what their prompts ask for beside the class: bool (B,)."""

    @abstractmethod
    def captions(self, split: Split) -> list[str]:
        """A prompt that each of the real images of `split` follows, as far as that can be measured."""

    def try_out(self, examples: Split, rng: torch.Generator) -> None:
        prompts = [prompt.text for prompt in self.test_prompts(len(examples), rng)]
        require_images("draw()", self.draw(prompts, rng), len(prompts))
        matches = self.attributes_match(examples.images, self.captions(examples))
        if matches.dtype != torch.bool or matches.shape != (len(examples),):
            raise PipelineError(
                f"attributes_match() gives {matches.dtype} {tuple(matches.shape)}, but must give bools (B,)."
            )
