"""Captions: a small grammar over what can be measured in an image.

A caption names the class of an image, how bright it is, and attributes of its shape, which each class has of its own: a
measure in pixels and a word on either side of a bound. All that an image can be said to be is a `Combination`; every
fifth of them can be held out, to see whether a model composes what it has only met apart.
"""

import re
from collections.abc import Sequence
from itertools import permutations, product
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from generative.config import Config, PositiveFloat
from generative.data.images import WHITE
from generative.errors import SettingError

Measure = Literal["height", "width", "upper_width", "lower_width", "gap", "side_height", "sleeves"]
Words = Annotated[str, Field(pattern=r"^[a-z-]+( [a-z-]+)*$")]
TwoBounds = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]

SHADES = (("dark", "black"), ("mid-grey", "grey"), ("light", "pale"))  # each with the words for it
_OBJECT = 38 / WHITE  # intensity above which a pixel belongs to what is shown
_HELD_OUT = 5  # every which combination
_TRAITS = 4  # of a class at most
CHANCES = 8 + _TRAITS  # random numbers that a caption takes
_OPENINGS = ("", "", "", "a photo of ", "a picture of ", "this is ")
_GLUE = {"a", "an", "and", "is", "of", "photo", "picture", "that", "this", "are"}


class Trait(Config):
    """An attribute of shape: the first word of an image whose `measure` is at most `bound`, else the second.

    Words of more than one are put behind the name: "with a heel".
    """

    measure: Measure
    bound: PositiveFloat
    words: Annotated[list[Words], Field(min_length=2, max_length=2)]


class Kind(Config):
    """How the images of a class are captioned."""

    names: Annotated[list[Words], Field(min_length=1)]
    shades: TwoBounds  # mean intensity of the object: dark up to the first, light above the second
    traits: Annotated[list[Trait], Field(min_length=1, max_length=_TRAITS)]


class Combination(NamedTuple):
    """What an image is: its class, its shade (0 to 2), and on which side of each bound of the class it lies (0, 1)."""

    label: int
    shade: int
    sides: tuple[int, ...]


class Request(NamedTuple):
    """What a prompt asks for: a class or None, and each shade and side that it names, None where it names none."""

    label: int | None
    shade: int | None
    sides: tuple[int | None, ...]


class Grammar:
    """Captions of images of some classes, and what prompts mean.

    Args:
        kinds: of each class, by label.

    Raises:
        SettingError: two classes share a name, or two traits of a class a word.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self.kinds = list(kinds)
        self.combinations = [
            Combination(label, shade, sides)
            for label, kind in enumerate(self.kinds)
            for shade in range(len(SHADES))
            for sides in product((0, 1), repeat=len(kind.traits))
        ]
        counts = [len(SHADES) * 2 ** len(kind.traits) for kind in self.kinds]
        self._first = [sum(counts[:label]) for label in range(len(counts))]  # place of each class's first combination
        self.held_out = [
            (place - self._first[combination.label] + combination.label) % _HELD_OUT == 0
            for place, combination in enumerate(self.combinations)
        ]
        self._check_words()
        phrases = [*(name for kind in self.kinds for name in kind.names), *(word for words in SHADES for word in words)]
        phrases += [word for kind in self.kinds for trait in kind.traits for word in trait.words]
        self.words = sorted(_GLUE | {word for phrase in phrases for word in phrase.split()})

    def parts(self) -> Tensor:
        """Which parts each combination has, bool (combinations, P): its class, the class and the shade, and sides."""
        made = [
            [(label,), (label, shade), *((label, at, side) for at, side in enumerate(sides))]
            for label, shade, sides in self.combinations
        ]
        places = {part: at for at, part in enumerate(sorted({part for row in made for part in row}))}
        found = torch.zeros(len(made), len(places), dtype=torch.bool)
        for row, own in enumerate(made):
            found[row, [places[part] for part in own]] = True
        return found

    def _check_words(self) -> None:
        names = [name for kind in self.kinds for name in kind.names]
        shades = [word for words in SHADES for word in words]
        for label, kind in enumerate(self.kinds):
            own = [*names, *shades, *(word for trait in kind.traits for word in trait.words)]
            if glue := sorted(_GLUE & set(own)):
                raise SettingError(f"the captions of class {label} use {glue[0]!r}, which means nothing in a caption.")
            if twice := sorted({word for word in own if own.count(word) > 1}):
                raise SettingError(f"the captions of class {label} use {twice[0]!r} in two meanings.")
            for word, other in permutations(own, 2):
                if f" {word} " in f" {other} " and not {word, other} <= set(names):
                    raise SettingError(f"the captions of class {label} use {word!r} alone and as a part of {other!r}.")

    def places(self, images: Tensor, labels: Tensor) -> Tensor:
        """Which of `combinations` each image is: int64 (N,).

        Args:
            images: uint8 (N, 1, 28, 28).
            labels: int64 (N,), of the classes.
        """
        found = measure(images)
        places = torch.zeros_like(labels)
        for label, kind in enumerate(self.kinds):
            place = torch.zeros_like(labels)
            for bound in kind.shades:
                place += found["brightness"] > bound
            for trait in kind.traits:
                place = 2 * place + (found[trait.measure] > trait.bound)
            places = torch.where(labels == label, place + self._first[label], places)
        return places

    def write(self, combination: Combination, chances: Sequence[float], *, share: float = 1.0) -> str:
        """A caption of an image of this combination.

        Args:
            combination: what the image is.
            chances: `CHANCES` random numbers in [0, 1), which choose the wording.
            share: of the attributes that are mentioned; the class always is.
        """
        kind = self.kinds[combination.label]
        words = [_pick(SHADES[combination.shade], chances[0])]
        words += [trait.words[side] for trait, side in zip(kind.traits, combination.sides, strict=True)]
        words = [word for word, chance in zip(words, chances[7:], strict=False) if chance < share]
        adjectives = [word for word in words if " " not in word]
        phrases = [word for word in words if " " in word]
        if chances[1] < 0.5:
            adjectives.reverse()
        if chances[2] < 0.5:
            phrases.reverse()
        name = _pick(kind.names, chances[3])
        behind = f" {' and '.join(phrases)}" if phrases else ""
        opening = _pick(_OPENINGS, chances[4])
        if adjectives and chances[5] < 0.3:
            verb = "are" if _is_plural(name) else "is"
            return f"{opening}{_with_article(name)}{behind} that {verb} {' and '.join(adjectives)}"
        described = " ".join([*adjectives, name])
        if not opening and chances[6] < 0.3:
            return described + behind
        return f"{opening}{_with_article(described)}{behind}"

    def read(self, prompt: str) -> Request:
        """What a prompt asks for.

        Raises:
            SettingError: it has no words, unknown ones (it names them), several classes, words that say nothing of
                its class, or two that exclude each other.
        """
        words = split_words(prompt)
        if not words:
            raise SettingError(f"the prompt is empty: describe an image, for example 'light {self.kinds[0].names[0]}'.")
        if unknown := [word for word in dict.fromkeys(words) if word not in self.words]:
            raise SettingError(
                f"unknown words in the prompt {prompt!r}: {', '.join(unknown)}. "
                f"Known ones: {', '.join(word for word in self.words if word not in _GLUE)}."
            )
        text = f" {' '.join(words)} "
        names = {name: label for label, kind in enumerate(self.kinds) for name in kind.names}
        labels = {names[name] for name in _longest(text, names)}
        if len(labels) > 1:
            raise SettingError(f"the prompt {prompt!r} names more than one class.")
        shades = {at for at, group in enumerate(SHADES) for word in group if f" {word} " in text}
        if len(shades) > 1:
            raise SettingError(f"the prompt {prompt!r} asks for more than one brightness.")
        shade = min(shades, default=None)
        if not labels:
            return Request(None, shade, ())
        label = labels.pop()
        sides: list[int | None] = []
        for trait in self.kinds[label].traits:
            named = [side for side, word in enumerate(trait.words) if f" {word} " in text]
            if len(named) > 1:
                raise SettingError(f"the prompt {prompt!r} asks for both {trait.words[0]} and {trait.words[1]}.")
            sides.append(named[0] if named else None)
        own = [*names, *(word for group in SHADES for word in group)]
        own += [word for trait in self.kinds[label].traits for word in trait.words]
        if idle := [word for word in _without(text, own).split() if word not in _GLUE]:
            possible = [word for trait in self.kinds[label].traits for word in trait.words]
            raise SettingError(
                f"{' '.join(idle)!r} in the prompt {prompt!r} says nothing of a {self.kinds[label].names[0]}, "
                f"which can be: {', '.join(possible)}."
            )
        return Request(label, shade, tuple(sides))

    def follows(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Whether images, uint8 (N, 1, 28, 28), have the brightness and the shape that prompts ask for: bool (N,)."""
        requests = [self.read(prompt) for prompt in prompts]
        labels = torch.tensor([request.label or 0 for request in requests], device=images.device)
        found = [self.combinations[place] for place in self.places(images, labels).tolist()]
        bounds = torch.tensor([kind.shades for kind in self.kinds], device=images.device).mean(0)  # of no class at all
        shades = (measure(images)["brightness"].unsqueeze(1) > bounds).sum(1).tolist()
        right = [
            request.shade in (None, shade if request.label is None else combination.shade)
            and all(wanted in (None, side) for wanted, side in zip(request.sides, combination.sides, strict=False))
            for request, combination, shade in zip(requests, found, shades, strict=True)
        ]
        return torch.tensor(right, dtype=torch.bool)


def split_words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return re.findall(r"[^\s,.;:!?\"()]+", text.lower())


def _longest(text: str, names: Sequence[str] | dict[str, int]) -> list[str]:
    """The names in a text, without those that are but a part of a longer one that stands there."""
    found = []
    for name in sorted(names, key=len, reverse=True):
        if f" {name} " in text:
            found.append(name)
            text = text.replace(f" {name} ", " | ")
    return found


def _without(text: str, phrases: Sequence[str]) -> str:
    """A text, words between single spaces, without the phrases, the longest first."""
    for phrase in sorted(phrases, key=len, reverse=True):
        text = text.replace(f" {phrase} ", "  ").replace("  ", " ")
        text = f" {text.strip()} "
    return text


def _pick(choices: Sequence[str], chance: float) -> str:
    return choices[int(chance * len(choices))]


def _is_plural(name: str) -> bool:
    return name.endswith("s") and not name.endswith("ss")


def _with_article(described: str) -> str:
    if _is_plural(described):
        return described
    return f"{'an' if described[0] in 'aeiou' else 'a'} {described}"


def measure(images: Tensor) -> dict[str, Tensor]:
    """Of images uint8 (N, 1, 28, 28): `brightness`, the mean intensity of the object in [0, 1], and by name, in pixels,

    - `height`, `width`: of its bounding box;
    - `upper_width`, `lower_width`: object pixels in a row, mean over the upper and the lower quarter of the box;
    - `gap`: background between object pixels of a row, mean over the lower quarter;
    - `side_height`: object pixels in a column, mean over the outer quarters of the box;
    - `sleeves`: the same of the outer quarters of the image, from its middle to 7/8 of its height.

    Each float32 (N,).
    """
    x = images.squeeze(1).float() / WHITE
    inside = x > _OBJECT
    mask = inside.float()
    rows, columns = inside.any(2), inside.any(1)
    row_weights, column_weights = _places_in_box(rows), _places_in_box(columns)
    in_row, in_column = mask.sum(2), mask.sum(1)
    between = (mask.cummax(2).values * mask.flip(2).cummax(2).values.flip(2) - mask).sum(2)
    outermost = _between(column_weights, 0, 0.25) | _between(column_weights, 0.75, 1)
    outer = torch.cat([mask[:, 14:25, :7], mask[:, 14:25, 21:]], 2)
    return {
        "brightness": (x * mask).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1),
        "height": rows.float().sum(1),
        "width": columns.float().sum(1),
        "upper_width": _mean(in_row, _between(row_weights, 0, 0.25)),
        "lower_width": _mean(in_row, _between(row_weights, 0.75, 1)),
        "gap": _mean(between, _between(row_weights, 0.75, 1)),
        "side_height": _mean(in_column, outermost),
        "sleeves": outer.sum((1, 2)) / outer.shape[2],
    }


def _places_in_box(occupied: Tensor) -> Tensor:
    """Of lines (N, 28) of which some are occupied: how far each lies between the first and the last one, 0 to 1.

    Lines outside are below 0 or from 1 on; -1 throughout where none is occupied.
    """
    count = occupied.shape[1]
    first = (occupied.cumsum(1) == 0).sum(1, keepdim=True)
    size = count - (occupied.flip(1).cumsum(1) == 0).sum(1, keepdim=True) - first
    middles = torch.arange(count, device=occupied.device) + 0.5
    return torch.where(size > 0, (middles - first) / size.clamp(min=1), -1.0)


def _between(places: Tensor, low: float, high: float) -> Tensor:
    return (places >= low) & (places < high)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean over chosen places of (N, L); 0 where none is."""
    return (values * chosen).sum(1) / chosen.sum(1).clamp(min=1)
