"""`python -m tests.portable_bytes`: hashes of what a few updates of every network, and every score, come to.

Real widths, few images: an emulated processor takes some minutes. Prints one line for each: name, then hash.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from generative.capabilities.encoding import EncodesImages
from generative.capabilities.likelihood import WeighsPosteriorSamples
from generative.capabilities.sampling import DrawsSamples
from generative.compute.environment import process_environment, restart_with
from generative.compute.runtime import make_rng, start
from generative.compute.settings import ComputeConfig
from generative.data.splits import Split, balanced_labels, to_unit
from generative.extractor import load_extractor_kind
from generative.networks.mixture import Mixture
from generative.scores.diversity import mean_distance
from generative.scores.extrapolation import extrapolated_frechet_distance
from generative.scores.frechet import frechet_distance, frechet_score, statistics
from generative.scores.kernel import kernel_distance
from generative.scores.likelihood import importance_weighted_bound
from generative.scores.manifold import neighbour_radii, overlap
from generative.scores.memorisation import nearest_neighbours
from generative.scores.pca import pca_error
from generative.scores.reconstruction import reconstruction_scores
from generative.training import adversarial
from generative.training.checkpoints import Checkpoints
from generative.training.loop import fit
from stages.common.models import parse_model
from tests.small import MODELS, PARAMS, changed, make_blobs

_BATCH = 16


def main() -> None:
    """Train, sample, score, and print hashes."""
    restart_with(process_environment(os.environ, portable=True))
    start(ComputeConfig.parse(PARAMS["compute"], where="compute"))
    adversarial._STATISTICS_BATCH, adversarial._STATISTICS_BATCHES = 50, 2
    split = shuffled(make_blobs(), 2 * _BATCH)
    for name, block in MODELS.items():
        changes: dict[str, Any] = {"epochs": 1, "batch_size": _BATCH}
        if "sampled_epochs" in block["training"]:
            changes |= {"sampled_epochs": []}
        if "sampling" in block:
            changes |= {"mixture_components": 3, "refine_steps": 2}
        config, family = parse_model(changed(block, changes), where=name)
        model = trained(name, family, config.training, split)
        model.prepare_sampling(config.sampling, split)
        rng = make_rng(0)
        with torch.inference_mode():
            if isinstance(model, DrawsSamples):
                show(f"{name} samples", model.sample(balanced_labels(20, 10), rng))
            if isinstance(model, EncodesImages):
                show(f"{name} latents", model.encode(to_unit(split.images[:8])))
            if isinstance(model, WeighsPosteriorSamples):
                show(f"{name} log-weights", model.log_weights(to_unit(split.images[:4]), 5, rng))
    for name, block in PARAMS["extractors"].items():
        kind = load_extractor_kind(block["kind"], where=name)
        if hasattr(kind, "fetch"):
            model = kind.fetch(kind.Config.parse(block, where=name)).eval()
        else:
            config = kind.Config.parse(block | {"epochs": 1, "batch_size": _BATCH}, where=name)
            model = trained(name, kind, config, split)
        with torch.inference_mode():
            show(f"{name} features", *model(to_unit(split.images[:8])))
    show_scores(split)


def shuffled(split: Split, count: int) -> Split:
    """So many of the images, in another order."""
    order = torch.randperm(len(split), generator=make_rng(3))[:count]
    return Split(split.images[order], split.labels[order])


def trained(name: str, module: Any, config: Any, split: Split) -> Any:
    """Two updates of one network; its weights and curve are shown."""
    torch.manual_seed(config.seed)
    fabric = Fabric(accelerator="cpu", devices=1)
    model = module.Model(config, split.num_classes)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            model,
            module.Objective(model, config, fabric, 2),
            split,
            split,
            name=name,
            epochs=1,
            batch_size=_BATCH,
            seed=config.seed,
            fabric=fabric,
            checkpoints=Checkpoints(Path(folder), "none"),
            on_epoch=lambda _: None,
        )
    show(f"{name} weights", *model.state_dict().values())
    show(f"{name} curve", torch.tensor(list(history[0].values()), dtype=torch.float64))
    return model.eval()


def show_scores(split: Split) -> None:
    """Every score of random features or of the images."""
    rng = make_rng(5)
    a, b = torch.randn(600, 24, generator=rng), 1.1 * torch.randn(500, 24, generator=rng)
    images, others = split.images[:_BATCH], split.images[_BATCH:]
    radii = neighbour_radii(b)
    mixture = Mixture.fit(torch.randn(2000, 8, generator=rng), 5, seed=1)
    log_weights = 3 * torch.randn(20, 50, generator=rng, dtype=torch.float64)
    values = {
        "frechet": frechet_distance(statistics(a), statistics(b)),
        "frechet error": frechet_score(a, b),
        "frechet infinite": extrapolated_frechet_distance(a, b, seed=1),
        "kernel": kernel_distance(a, b, subset_size=100, seed=1),
        "overlap": [score for pair in overlap(a, b, radii) for score in pair],
        "radii": [*radii.small.tolist(), *radii.large.tolist()],
        "diversity": mean_distance(a),
        "pca": pca_error(images, others, 5).tolist(),
        "neighbours": nearest_neighbours(images, others).distances.tolist(),
        "reconstruction": [x for part in reconstruction_scores(images, others) for x in part.tolist()],
        "bound": importance_weighted_bound(log_weights).tolist(),
        "mixture": [x for part in vars(mixture).values() for x in part.flatten().tolist()],
    }
    for name, value in values.items():
        show(name, torch.tensor(np.array(value), dtype=torch.float64))


def show(name: str, *tensors: torch.Tensor) -> None:
    """Print the hash of some tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    print(f"{name:<28} {digest.hexdigest()[:12]}", flush=True)


if __name__ == "__main__":
    main()
