"""Trained models for whoever wants to use them, each from one file (generative/releasing.py).

>>> model = load_model("vae.safetensors")
>>> images = model.sample(["Trouser", "Bag"], seed=0)
>>> latents = model.encode(images)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generative.capabilities.encoding import EncodesImages
from generative.capabilities.likelihood import HasLikelihood
from generative.capabilities.prompting import FollowsPrompts
from generative.capabilities.sampling import DrawsSamples
from generative.compute.runtime import make_rng
from generative.data.images import IMAGE_SHAPE, UNLABELLED
from generative.data.splits import to_unit
from generative.errors import FileDamagedError, PipelineError
from generative.family import FamilyConfig, GenerativeModel, load_family
from generative.io.tensors import load_metadata, load_tensors, load_weights
from generative.releasing import FITTED, FORMAT, WEIGHTS


def load_model(path: str | Path, device: str | torch.device = "cpu") -> "LoadedModel":
    """The model in a file that `save_model` wrote: models/released/NAME.safetensors of a pipeline.

    Reading it runs no code of the file.

    Args:
        path: of the file.
        device: to compute on.

    Raises:
        FileMissingError: there is no such file.
        FileDamagedError: the file is damaged, or is no such model.
        SettingError: it is of a family, or has settings, that this version does not know.
    """
    path = Path(path)
    words, tensors = load_metadata(path), load_tensors(path)
    try:
        version, name, dataset, classes = (words[key] for key in ("format", "name", "dataset", "classes"))
        block = dict(words["settings"])
    except (KeyError, TypeError, ValueError):
        raise FileDamagedError(
            f"{path} is no model that load_model can read; it reads those in models/released/"
        ) from None
    if version != FORMAT:
        raise FileDamagedError(f"{path} is of format {version}, but this version reads format {FORMAT}")
    family = load_family(block.get("family"), where=str(path))
    config: FamilyConfig = family.Config.parse(block, where=str(path))
    network: GenerativeModel = family.Model(config.training, len(classes))
    load_weights(network, _part(tensors, WEIGHTS), path=path)
    network = network.to(device).eval()
    try:
        fitted = {key: tensor.to(device) for key, tensor in _part(tensors, FITTED).items()}
        network.restore_sampling(config.sampling, fitted)
    except (KeyError, TypeError):
        raise FileDamagedError(f"{path}: what sampling was fitted to is not complete") from None
    return LoadedModel(network, config, name=name, dataset=dataset, classes=tuple(classes))


class LoadedModel:
    """A trained model: `sample` and `draw` make images, `encode` and `decode` go to latent vectors and back, if it can.

    `network` is the model itself, `config` its settings, `classes` the names of the classes by label.
    """

    def __init__(
        self, network: GenerativeModel, config: FamilyConfig, *, name: str, dataset: str, classes: tuple[str, ...]
    ) -> None:
        self.network: Any = network
        self.config, self.name, self.dataset, self.classes = config, name, dataset, classes

    @torch.inference_mode()
    def sample(self, labels: Sequence[int | str] | Tensor | int, seed: int = 0) -> Tensor:
        """Draw images (N, 1, 28, 28) in [0, 1].

        Args:
            labels: the class of each, by number or name; a number N stands for N images, of a conditional model of its
                classes in turn. An unconditional model reads only how many there are.
            seed: the same gives the same images.

        Raises:
            PipelineError: the model draws no samples, or none of a class that is asked for.
        """
        if not isinstance(self.network, DrawsSamples):
            raise PipelineError(f"{self.name} draws no samples.")
        device = self._device
        y = self._labels(labels, self.network).to(device)
        return self.network.sample(y, make_rng(seed, device))

    @torch.inference_mode()
    def draw(self, prompts: str | Sequence[str], seed: int = 0) -> Tensor:
        """Draw one image (B, 1, 28, 28) in [0, 1] for each prompt.

        Args:
            prompts: what to draw, in words of the captions that the model was trained with; one text is one prompt.
            seed: the same gives the same images.

        Raises:
            PipelineError: the model follows no prompts.
            SettingError: a prompt is empty or too long, contradicts itself, or has unknown words, which are named.
        """
        if not isinstance(self.network, FollowsPrompts):
            raise PipelineError(f"{self.name} follows no prompts.")
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        if not listed:
            return torch.zeros(0, *IMAGE_SHAPE, device=self._device)
        return self.network.draw(listed, make_rng(seed, self._device))

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Latent vectors (N, d) of images (N, 1, 28, 28): floats in [0, 1], or grey levels uint8.

        Raises:
            PipelineError: the model does not encode, or the images are of another shape or range.
        """
        self._require_encoder()
        if images.shape[1:] != torch.Size(IMAGE_SHAPE):
            raise PipelineError(f"images must be (N, 1, 28, 28), not {tuple(images.shape)}.")
        x = to_unit(images) if images.dtype == torch.uint8 else images.float()
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise PipelineError("images must be uint8, or floats in [0, 1].")
        latents: Tensor = self.network.encode(x.to(self._device))
        return latents

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) in [0, 1] of latent vectors (N, d).

        Raises:
            PipelineError: the model does not decode.
        """
        self._require_encoder()
        images: Tensor = self.network.decode(latents.to(self._device))
        return images

    @torch.inference_mode()
    def log_likelihood(self, images: Tensor, seed: int = 0) -> Tensor:
        """Log-likelihoods (N,) in nats of grey levels uint8 (N, 1, 28, 28): exact, a bound or an estimate.

        `network.likelihood_kind` says which, and `network.likelihood_of` of what: of the grey levels themselves, of
        these with uniform noise, or of binary pixels drawn from them. A thousand images at a time take little memory.

        Args:
            images: uint8.
            seed: of the noise and the draws.

        Raises:
            PipelineError: the model has no likelihood, or the images are of another shape or type.
        """
        if not isinstance(self.network, HasLikelihood):
            raise PipelineError(f"{self.name} has no likelihood.")
        if images.dtype != torch.uint8 or images.shape[1:] != torch.Size(IMAGE_SHAPE):
            raise PipelineError(f"images must be uint8 (N, 1, 28, 28), not {images.dtype} {tuple(images.shape)}.")
        rng = make_rng(seed, self._device)
        found = self.network.log_likelihood(self.network.as_modelled(images.to(self._device), rng), rng)
        nats: Tensor = found.nats
        return nats

    @property
    def _device(self) -> torch.device:
        return next(iter(self.network.state_dict().values())).device

    def _require_encoder(self) -> None:
        if not isinstance(self.network, EncodesImages):
            raise PipelineError(f"{self.name} has no encoder.")

    def _labels(self, labels: Sequence[int | str] | Tensor | int, network: DrawsSamples) -> Tensor:
        if isinstance(labels, int):
            if not network.conditional:
                return torch.full((labels,), UNLABELLED)
            return torch.tensor(network.classes)[torch.arange(labels) % len(network.classes)]
        listed = labels.tolist() if isinstance(labels, Tensor) else labels
        numbers = [self._number(label) for label in listed]
        if network.conditional and (unknown := sorted(set(numbers) - set(network.classes))):
            raise PipelineError(f"{self.name} draws samples of the classes {network.classes}, not of {unknown[0]}.")
        return torch.tensor(numbers, dtype=torch.int64)

    def _number(self, label: int | str) -> int:
        if isinstance(label, str):
            if label not in self.classes:
                raise PipelineError(f"there is no class {label!r}; there are: {', '.join(self.classes)}.")
            return self.classes.index(label)
        return label


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
