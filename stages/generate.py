"""Stage `generate@MODEL`: runs a trained model once and writes all that it makes as tensors.

What is made says the table MAKERS, for each capability of the model. data/generated/MODEL.safetensors holds
- of a model that draws samples: `samples` uint8 (N, 1, 28, 28), `labels` int64 (N,): -1 where the model is
  unconditional; for each setting S of its sweeps and the place I of a value, `sweep.S.I` uint8 (M, 1, 28, 28), of
  the first labels;
- of one that encodes, for the test split in its order: `latents` float32 (10000, d), `reconstructions` uint8
  (10000, 1, 28, 28); if d = 2, `grid` uint8 (G * G, 1, 28, 28) and `grid_axis` float32 (G, 2): row-major, first row on
  top, where the second coordinate is largest; and `plane_nearest` uint8 (10000, 1, 28, 28): of 200 x 200 images decoded
  over the plane the nearest to each test image; `interpolations` uint8 (P, S, 1, 28, 28) and `interpolation_ends` int64
  (P, 2), indices into the test split; `animation` uint8 (F, 1, 28, 28): the first interpolation between two classes, in
  finer steps; `paths` uint8 (2 K, 3, 1, 28, 28) and `path_ends` int64 (2 K, 2): the points at 1/4, 1/2 and 3/4 of many
  interpolations, the first K within a class, the others between two;
- of one with a likelihood: `log_likelihood` float32 (10000,) of the test split, and `likelihood.PART` of its parts, of
  what it models: grey levels, these dequantised once, or binary pixels drawn from them once; `dequantised_likelihood`
  float32 (10000,), of the same dequantised images, of one that models grey levels; where the model bounds it from
  below, `lower_bound` float32 (M,) of the first M images; where importance weights tighten it, `posterior_means`
  float32 (10000, d) and `log_weights` float32 (M, K): weights of K posterior samples for each of the first M images;
- of one that translates: `rendered`, the test split in the second domain, `translated_0` and `translated_1` from each
  domain to the other, `cycled_0` and `cycled_1` there and back, each uint8 (10000, 1, 28, 28); `class_means_0` and
  `class_means_1` uint8 (C, 1, 28, 28), the mean training image of each class in each domain;
- of one that follows prompts: `prompted` uint8 (M, 1, 28, 28), `prompt_labels` int64 (M,), `prompt_matches` bool (M,),
  and `caption_matches` bool (10000,), whether test images have the attributes of their own captions;
- of one with diagnostics: `diagnostic.NAME...`, as stages/common/diagnostics.py packs them.

models/released/MODEL.safetensors is the model for whoever wants to use it (generative/loading.py): weights, all
settings, what sampling was fitted to the training images, and the names of the classes.

The metadata have the words: what was minimised, how many numbers the model has and how many images it was trained on,
pairs of classes, how many dimensions decoded images have around one, values of sweeps, kind of likelihood, domains,
prompts, cost of a sample, and what a denoiser does to noise.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from generative.capabilities.denoising import TakesNoiseAway
from generative.capabilities.diagnosing import HasDiagnostics
from generative.capabilities.encoding import EncodesImages
from generative.capabilities.likelihood import BoundsLikelihood, HasLikelihood, WeighsPosteriorSamples, dequantise
from generative.capabilities.prompting import FollowsPrompts
from generative.capabilities.sampling import DrawsSamples
from generative.capabilities.translation import TranslatesDomains
from generative.compute.batching import in_batches
from generative.compute.cost import count_multiply_adds
from generative.compute.runtime import make_rng, start
from generative.config import Config, PositiveInt, Seed
from generative.data.images import IMAGE_SHAPE, UNLABELLED
from generative.data.splits import Split, load_split, to_uint8, to_unit
from generative.errors import PipelineError
from generative.family import FamilyConfig, GenerativeModel
from generative.io.tensors import load_metadata, load_network, save_tensors
from generative.objective import TrainingObjective
from generative.releasing import save_model
from generative.scores.geometry import jacobian, lost_directions, rank
from generative.scores.memorisation import nearest_neighbours
from stages.common.dataset import read_dataset
from stages.common.diagnostics import pack
from stages.common.generated import PLANE_SIDE
from stages.common.models import read_model
from stages.common.params import read_params
from stages.common.paths import TEST, TRAIN, Pipeline

ClassPair = Annotated[tuple[str, str], Field(strict=False)]  # strict: a YAML list is no tuple
PATH_POINTS = (0.25, 0.5, 0.75)
FEW_SAMPLES = 2000  # of each value of a sweep, and of prompts
_WEIGHTS_BATCH = 1000  # latent vectors decoded at a time: few enough to stay in the processor's cache
_COUNTED = 100  # samples whose operations are counted
_DIAGNOSED = 1000  # test images that diagnostics may look at
_HIGH_NOISE = 20.0  # standard deviation of the noise at which a denoiser is looked at, in those of images
_TRACE = 0.001  # of the standard deviation of images: less than half a grey level


class GenerateConfig(Config):
    """How much is generated (params: `generate`)."""

    seed: Seed
    num_samples: Annotated[int, Field(ge=100, le=100_000)]
    batch_size: PositiveInt
    grid_size: Annotated[int, Field(ge=2, le=100)]
    within: list[str]
    between: Annotated[list[ClassPair], Field(min_length=1)]
    interpolation_steps: Annotated[int, Field(ge=2, le=100)]
    animation_frames: Annotated[int, Field(ge=2, le=1000)]
    path_pairs: Annotated[int, Field(ge=2, le=10_000)]  # one has no standard error
    bound_images: Annotated[int, Field(ge=2)]
    bound_samples: Annotated[int, Field(ge=1, le=100_000)]


@dataclass(frozen=True)
class Task:
    """What a model is asked to make."""

    model: FamilyConfig
    config: GenerateConfig
    classes: list[str]  # the name of each
    train: Split
    test: Split
    device: torch.device

    def map(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """`function` of `inputs` on the device, some at a time; its results on the CPU."""
        return in_batches(lambda part: function(part.to(self.device)).cpu(), inputs, self.config.batch_size)

    def map_images(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """The same of grey levels uint8, which `function` takes in [0, 1] and gives back."""
        return self.map(lambda part: to_uint8(function(to_unit(part))), images)

    def rng(self) -> torch.Generator:
        """A new random state on the device."""
        return make_rng(self.config.seed, self.device)


class Made(dict[str, Tensor]):
    """Tensors by name, and the words that belong to them."""

    def __init__(self, tensors: dict[str, Tensor], **words: Any) -> None:
        super().__init__(tensors)
        self.words = words


def main(here: Pipeline, name: str) -> None:
    """Generate with the model `name`."""
    params = read_params(here)
    config, (model_config, family) = params.block("generate", GenerateConfig), read_model(params, name)
    device = start(params.compute)
    train, test = load_split(TRAIN), load_split(TEST)
    data = read_dataset(params)
    network: GenerativeModel = load_network(family.Model, model_config.training, here.model(name))
    network = network.to(device).eval()
    task = Task(model_config, config, data.classes, train.to(device), test, device)
    network.prepare_sampling(model_config.sampling, task.train)
    save_model(here.released(name), network, model_config, name=name, dataset=data.name, classes=data.classes)
    tensors: dict[str, Tensor] = {}
    words: dict[str, Any] = {
        "losses": load_metadata(here.model(name)).get("losses", {}),
        "stored_numbers": count_numbers(network),
        "images_seen": count_images(family.Objective, model_config, len(train)),
    }
    with torch.inference_mode():
        for capability, make in MAKERS.items():
            if isinstance(network, capability):
                made = make(network, task)
                tensors |= made
                words |= made.words
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise PipelineError(f"{name}: its {key} are not finite: train it again, with a lower learning_rate.")
    save_tensors(here.generated(name), tensors, words)


def count_numbers(network: GenerativeModel) -> int:
    """How many numbers a model has: weights, statistics, and what its sampling was fitted to."""
    tensors = [*network.state_dict().values(), *network.fitted().values()]
    return sum(tensor.numel() for tensor in tensors)


def count_images(objective: type[TrainingObjective], config: FamilyConfig, train_size: int) -> int:
    """How many images a training takes, each as often as it is taken."""
    training = config.training
    return training.epochs * training.batch_size * objective.steps_per_epoch(train_size, training.batch_size)


def make_samples(network: Any, task: Task) -> Made:
    """Samples, of equally many of the model's classes where it is conditional; few for each value of a sweep."""
    labels = sample_labels(network, task.config.num_samples)
    tensors = {"samples": _draw(network, labels, task), "labels": labels}
    counted = labels[:_COUNTED].to(task.device)
    cost = count_multiply_adds(lambda: network.sample(counted, task.rng())) / len(counted)
    words = {"nfe": network.nfe, "multiply_adds": cost, "sweeps": task.model.sweeps}
    for key, values in task.model.sweeps.items():
        for place, value in enumerate(values):
            network.prepare_sampling(task.model.sampling_with(key, value), task.train)
            tensors[f"sweep.{key}.{place}"] = _draw(network, labels[:FEW_SAMPLES], task)
    if task.model.sweeps:
        network.prepare_sampling(task.model.sampling, task.train)
    return Made(tensors, **words)


def sample_labels(network: DrawsSamples, count: int) -> Tensor:
    """Labels (count,) to draw samples of: one class after the other, and again; -1 of an unconditional model."""
    if not network.conditional:
        return torch.full((count,), UNLABELLED)
    return torch.tensor(network.classes)[torch.arange(count - count % len(network.classes)) % len(network.classes)]


def _draw(network: DrawsSamples, labels: Tensor, task: Task) -> Tensor:
    rng = task.rng()
    return task.map(lambda y: to_uint8(network.sample(y, rng)), labels)


def make_encodings(network: Any, task: Task) -> Made:
    """Latents and reconstructions of the test split, the decoded grid, and interpolations."""
    config, test, index = task.config, task.test, task.classes.index

    def decode(z: Tensor) -> Tensor:
        return task.map(lambda part: to_uint8(network.decode(part)), z)

    z = task.map(lambda images: network.encode(to_unit(images)), test.images)
    rng = make_rng(config.seed)
    pairs = [(c, c) for c in config.within] + list(config.between)
    ends = torch.stack([_draw_pair(test.labels, (index(first), index(last)), rng) for first, last in pairs])
    path_ends = torch.stack(
        [
            _draw_pair(test.labels, _draw_classes(len(task.classes), within, rng), rng)
            for within in _halves(config.path_pairs)
        ]
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
        plane = decode(_grid_points(torch.quantile(z, torch.linspace(0, 1, PLANE_SIDE), dim=0)))
        nearest = plane[nearest_neighbours(test.images, plane).indices]
        tensors |= {"grid": decode(_grid_points(axis)), "grid_axis": axis, "plane_nearest": nearest}
    dimensions = decoder_rank(network, test.images[:1], task)
    return Made(tensors, within=config.within, between=config.between, decoder_rank=dimensions)


@torch.inference_mode(False)
def decoder_rank(network: Any, image: Tensor, task: Task) -> int:
    """How many dimensions decoded images have around one, uint8 (1, 1, 28, 28): the rank of the decoder's Jacobian.

    The image is taken at half its contrast, so that no decoder cuts a pixel off at black or white.
    """
    half = (0.25 + to_unit(image) / 2).to(task.device)
    with torch.no_grad():
        z = network.encode(half)[0].double().cpu()
    return rank(jacobian(deepcopy(network).cpu().double().decode, z))


def make_likelihood(network: Any, task: Task) -> Made:
    """The log-likelihood of every test image, with its parts."""
    rng = task.rng()
    modelled = _as_modelled(network, task)
    found = [network.log_likelihood(x, rng) for x in modelled.split(task.config.batch_size)]
    tensors = {"log_likelihood": torch.cat([part.nats.cpu() for part in found])}
    tensors |= {f"likelihood.{key}": torch.cat([part.parts[key].cpu() for part in found]) for key in found[0].parts}
    if network.likelihood_of == "intensities":
        noisy = dequantise(task.test.images.to(task.device), task.rng())
        parts = [network.log_likelihood(x, rng).nats.cpu() for x in noisy.split(task.config.batch_size)]
        tensors["dequantised_likelihood"] = torch.cat(parts)
    words = {"kind": network.likelihood_kind, "of": network.likelihood_of, "shared_error": found[0].shared_error}
    return Made(tensors, likelihood=words)


def make_lower_bound(network: Any, task: Task) -> Made:
    """A bound from below for some images, of the same pixels as their likelihood."""
    modelled = _as_modelled(network, task)[: task.config.bound_images]
    return Made({"lower_bound": network.lower_bound(modelled, task.rng()).cpu()})


def _as_modelled(network: HasLikelihood, task: Task) -> Tensor:
    """The test images as the likelihood sees them: the same noise for all models."""
    return network.as_modelled(task.test.images.to(task.device), task.rng())


def make_weights(network: Any, task: Task) -> Made:
    """Means of the posterior of every test image, and importance weights for some images."""
    rng, count = task.rng(), task.config.bound_samples
    weights = in_batches(
        lambda images: network.log_weights(to_unit(images.to(task.device)), count, rng).cpu(),
        task.test.images[: task.config.bound_images],
        max(1, _WEIGHTS_BATCH // count),
    )
    means = task.map(lambda images: network.posterior_means(to_unit(images)), task.test.images)
    return Made({"posterior_means": means, "log_weights": weights})


def make_translations(network: Any, task: Task) -> Made:
    """The test split in both domains, each translated to the other and back, and the mean image of each class."""
    sources, known = (
        (split.images, task.map_images(network.render, split.images)) for split in (task.test, task.train)
    )
    labels = task.train.labels.cpu()
    tensors = {"rendered": sources[1]}
    for source, images in enumerate(sources):
        means = [to_unit(known[source].cpu()[labels == label]).mean(0) for label in range(len(task.classes))]
        tensors[f"class_means_{source}"] = to_uint8(torch.stack(means))
        there = task.map_images(partial(network.translate, source=source), images)
        back = task.map_images(partial(network.translate, source=1 - source), there)
        tensors |= {f"translated_{source}": there, f"cycled_{source}": back}
    return Made(tensors, domains=list(network.domains))


def make_prompted(network: Any, task: Task) -> Made:
    """Images of prompts of each group, and whether they have the attributes that were asked for."""
    rng = task.rng()
    prompts = network.test_prompts(min(FEW_SAMPLES, task.config.num_samples), rng)
    texts = [prompt.text for prompt in prompts]
    size = task.config.batch_size
    parts = [to_uint8(network.draw(texts[at : at + size], rng)).cpu() for at in range(0, len(texts), size)]
    images = torch.cat(parts)
    return Made(
        {
            "prompted": images,
            "prompt_labels": torch.tensor([prompt.label for prompt in prompts]),
            "prompt_matches": network.attributes_match(images, texts),
            "caption_matches": network.attributes_match(task.test.images, network.captions(task.test)),
        },
        prompts=texts,
        prompt_groups=[prompt.group for prompt in prompts],
    )


@torch.inference_mode(False)
def make_denoised(network: Any, task: Task) -> Made:
    """In how many directions noise can be moved by its own standard deviation without a trace in the denoised image."""
    rng = make_rng(task.config.seed)
    here = deepcopy(network).cpu()
    label = torch.zeros(1, dtype=torch.int64)
    condition = here.condition(here.tell_labels(label, rng))
    x = _HIGH_NOISE * torch.randn(IMAGE_SHAPE, generator=rng)

    def denoise(images: Tensor) -> Tensor:
        told = type(condition)(*(part.expand(len(images), -1) for part in condition))
        mean: Tensor = here.denoise(images, torch.full((len(images),), _HIGH_NOISE), told)
        return mean

    lost = lost_directions(denoise, x, step=_HIGH_NOISE, least=_TRACE)
    return Made({}, denoiser={"sigma": _HIGH_NOISE, "lost_directions": lost, "directions": x.numel()})


def make_diagnostics(network: Any, task: Task) -> Made:
    """What the family itself wants to be seen."""
    examples = Split(task.test.images[:_DIAGNOSED], task.test.labels[:_DIAGNOSED]).to(task.device)
    tensors, words = pack(network.diagnose(examples, task.rng()))
    return Made(tensors, diagnostics=words)


MAKERS: dict[Any, Callable[[Any, Task], Made]] = {  # by capability
    DrawsSamples: make_samples,
    EncodesImages: make_encodings,
    HasLikelihood: make_likelihood,
    BoundsLikelihood: make_lower_bound,
    WeighsPosteriorSamples: make_weights,
    TranslatesDomains: make_translations,
    FollowsPrompts: make_prompted,
    TakesNoiseAway: make_denoised,
    HasDiagnostics: make_diagnostics,
}


def _grid_points(axis: Tensor) -> Tensor:
    """Points (G * G, 2) at all pairs of coordinates `axis` (G, 2): row-major, the second falling from row to row."""
    second, first = torch.meshgrid(axis[:, 1].flip(0), axis[:, 0], indexing="ij")
    return torch.stack([first, second], dim=-1).view(-1, 2)


def _decode_lines(decode: Callable[[Tensor], Tensor], z: Tensor, ends: Tensor, steps: Tensor) -> Tensor:
    """Images (P, S, 1, 28, 28) at `steps` (S,) of the straight lines between `z` at `ends` (P, 2)."""
    lines = torch.lerp(z[ends[:, 0], None], z[ends[:, 1], None], steps.view(1, -1, 1))  # (P, S, d)
    return decode(lines.flatten(0, 1)).unflatten(0, lines.shape[:2])


def _halves(count: int) -> list[bool]:
    return [True] * count + [False] * count


def _draw_classes(num_classes: int, within: bool, rng: torch.Generator) -> tuple[int, int]:
    first, second = torch.randperm(num_classes, generator=rng)[:2].tolist()
    return (first, first) if within else (first, second)


def _draw_pair(labels: Tensor, classes: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Indices (2,) of two different images of the given classes."""
    ends: list[Any] = []
    for label in classes:
        members = (labels == label).nonzero().squeeze(1)
        members = members[~torch.isin(members, torch.tensor(ends, dtype=torch.int64))]
        ends.append(int(members[torch.randint(len(members), (1,), generator=rng)]))
    return torch.tensor(ends)
