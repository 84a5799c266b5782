"""Stage `generate@MODEL`: runs a trained model once and writes all that it makes as tensors.

data/generated/MODEL.safetensors holds
- `samples` uint8 (N, 1, 28, 28), `labels` int64 (N,): -1 where the model is unconditional;
where the family encodes also, for the test split in its order,
- `latents` float32 (10000, d), `reconstructions` uint8 (10000, 1, 28, 28);
- `grid` uint8 (G * G, 1, 28, 28) and `grid_axis` float32 (G, 2), if d = 2: row-major, first row on top, where
  the second coordinate is largest;
- `interpolations` uint8 (P, S, 1, 28, 28) and `interpolation_ends` int64 (P, 2), indices into the test split;
- `animation` uint8 (F, 1, 28, 28): the first interpolation between two classes, in finer steps;
- `paths` uint8 (2 K, 3, 1, 28, 28) and `path_ends` int64 (2 K, 2): the points at 1/4, 1/2 and 3/4 of many
  interpolations, the first K within a class, the others between two;
and where the family bounds its likelihood, of the test split,
- `loss_recon`, `loss_kl` float32 (10000,) and `posterior_means` float32 (10000, d);
- `log_weights` float32 (M, K): importance weights of K posterior samples for each of the first M images.
The metadata name the pairs of classes that `interpolations` joins.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from generative.compute.batching import in_batches
from generative.compute.runtime import make_rng, start
from generative.config import Config, PositiveInt, Seed
from generative.data.fashion_mnist import CLASS_NAMES, NUM_CLASSES, TEST_SIZE, UNLABELLED
from generative.data.splits import Split, balanced_labels, load_split, to_uint8, to_unit
from generative.errors import PipelineError
from generative.family import GenerativeModel
from generative.io.tensors import load_tensors, load_weights, save_tensors
from stages.common.models import read_model
from stages.common.params import read_params
from stages.common.paths import TEST, TRAIN, generated, model


def _class_name(name: str) -> str:
    if name not in CLASS_NAMES:
        raise ValueError(f"must be one of {', '.join(CLASS_NAMES)}")
    return name


ClassName = Annotated[str, AfterValidator(_class_name)]
ClassPair = Annotated[tuple[ClassName, ClassName], Field(strict=False)]  # strict: a YAML list is no tuple
PATH_POINTS = (0.25, 0.5, 0.75)
_WEIGHTS_BATCH = 1000  # latent vectors decoded at a time: few enough to stay in the processor's cache


class GenerateConfig(Config):
    """How much is generated (params: `generate`)."""

    seed: Seed
    num_samples: Annotated[int, Field(ge=100, multiple_of=NUM_CLASSES)]
    batch_size: PositiveInt
    grid_size: Annotated[int, Field(ge=2)]
    within: list[ClassName]
    between: Annotated[list[ClassPair], Field(min_length=1)]
    interpolation_steps: Annotated[int, Field(ge=2)]
    animation_frames: Annotated[int, Field(ge=2)]
    path_pairs: Annotated[int, Field(ge=2)]  # one has no standard error
    bound_images: Annotated[int, Field(ge=2, le=TEST_SIZE)]
    bound_samples: PositiveInt


def main(name: str) -> None:
    """Generate with the model `name`."""
    params = read_params()
    config, (model_config, family) = params.block("generate", GenerateConfig), read_model(params, name)
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    network: GenerativeModel = family.Model(model_config.training)
    load_weights(network, load_tensors(model(name)), path=model(name))
    network = network.to(device).eval()
    network.prepare_sampling(model_config.sampling, train.to(device))
    with torch.inference_mode():
        tensors = samples(network, config, device)
        if network.encodes:
            tensors |= encodings(network, test, config, device)
        if network.bounds_likelihood:
            tensors |= likelihood(network, test, config, device)
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise PipelineError(f"{name}: its {key} are not finite: train it again, with a lower learning_rate.")
    metadata = {"within": config.within, "between": config.between} if network.encodes else {}
    save_tensors(generated(name), tensors, metadata)


def samples(network: GenerativeModel, config: GenerateConfig, device: torch.device) -> dict[str, Tensor]:
    """Samples from the model, class-balanced where it is conditional."""
    labels = balanced_labels(config.num_samples)
    if not network.conditional:
        labels = torch.full_like(labels, UNLABELLED)
    rng = make_rng(config.seed, device)
    images = in_batches(lambda y: to_uint8(network.sample(y.to(device), rng)).cpu(), labels, config.batch_size)
    return {"samples": images, "labels": labels}


def encodings(network: GenerativeModel, test: Split, config: GenerateConfig, device: torch.device) -> dict[str, Tensor]:
    """Latents and reconstructions of the test split, the decoded grid, and interpolations."""

    def decode(z: Tensor) -> Tensor:
        return in_batches(lambda part: to_uint8(network.decode(part.to(device))).cpu(), z, config.batch_size)

    z = in_batches(lambda images: network.encode(to_unit(images.to(device))).cpu(), test.images, config.batch_size)
    rng = make_rng(config.seed)
    pairs = [(c, c) for c in config.within] + list(config.between)
    ends = torch.stack(
        [_draw_pair(test.labels, CLASS_NAMES.index(first), CLASS_NAMES.index(last), rng) for first, last in pairs]
    )
    path_ends = torch.stack(
        [_draw_pair(test.labels, *_draw_classes(within, rng), rng) for within in _halves(config.path_pairs)]
    )
    tensors = {
        "latents": z,
        "reconstructions": decode(z),
        "interpolations": _decode_lines(decode, z, ends, torch.linspace(0, 1, config.interpolation_steps)),
        "interpolation_ends": ends,
        "animation": _decode_lines(
            decode, z, ends[len(config.within) :][:1], torch.linspace(0, 1, config.animation_frames)
        )[0],
        "paths": _decode_lines(decode, z, path_ends, torch.tensor(PATH_POINTS)),
        "path_ends": path_ends,
    }
    if z.shape[1] == 2:
        axis = network.grid_axis(config.grid_size).cpu()
        second, first = torch.meshgrid(axis[:, 1].flip(0), axis[:, 0], indexing="ij")
        tensors |= {"grid": decode(torch.stack([first, second], dim=-1).view(-1, 2)), "grid_axis": axis}
    return tensors


def likelihood(
    network: GenerativeModel, test: Split, config: GenerateConfig, device: torch.device
) -> dict[str, Tensor]:
    """Terms of the evidence lower bound of every test image, and importance weights for some."""
    rng = make_rng(config.seed, device)
    bounds = [network.likelihood_bound(to_unit(x.to(device)), rng) for x in test.images.split(config.batch_size)]
    weights = in_batches(
        lambda images: network.log_weights(to_unit(images.to(device)), config.bound_samples, rng).cpu(),
        test.images[: config.bound_images],
        max(1, _WEIGHTS_BATCH // config.bound_samples),
    )
    return {
        "loss_recon": torch.cat([bound.loss_recon for bound in bounds]),
        "loss_kl": torch.cat([bound.loss_kl for bound in bounds]),
        "posterior_means": torch.cat([bound.posterior_means for bound in bounds]),
        "log_weights": weights,
    }


def _decode_lines(decode: Callable[[Tensor], Tensor], z: Tensor, ends: Tensor, steps: Tensor) -> Tensor:
    """Images (P, S, 1, 28, 28) at `steps` (S,) of the straight lines between `z` at `ends` (P, 2)."""
    lines = torch.lerp(z[ends[:, 0], None], z[ends[:, 1], None], steps.view(1, -1, 1))  # (P, S, d)
    return decode(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])


def _halves(count: int) -> list[bool]:
    return [True] * count + [False] * count


def _draw_classes(within: bool, rng: torch.Generator) -> tuple[int, int]:
    first, second = torch.randperm(NUM_CLASSES, generator=rng)[:2].tolist()
    return (first, first) if within else (first, second)


def _draw_pair(labels: Tensor, first: int, second: int, rng: torch.Generator) -> Tensor:
    """Indices (2,) of two different images of the given classes."""
    ends: list[Any] = []
    for label in (first, second):
        members = (labels == label).nonzero().squeeze(1)
        members = members[~torch.isin(members, torch.tensor(ends, dtype=torch.int64))]
        ends.append(int(members[torch.randint(len(members), (1,), generator=rng)]))
    return torch.tensor(ends)
