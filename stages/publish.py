"""Stage `publish@MODEL`: what git keeps of one model: scores, errors, curves, figures, and strips of images.

stages/common/published_paths.py names every file. Leaderboard, comparing figures and report read nothing else.
"""

import torch
from matplotlib.figure import Figure

from generative.data.fashion_mnist import NUM_CLASSES
from generative.data.splits import Split, load_split
from generative.errors import FileDamagedError
from generative.figures import images
from generative.figures.strips import save_strip
from generative.figures.style import save_figure
from generative.io.tables import read_table, write_table
from generative.scores.memorisation import nearest_neighbours
from stages.common.generated import Encodings, Generated, load_generated
from stages.common.params import read_params
from stages.common.paths import TEST, TRAIN, curves, generated
from stages.common.published import FiguresConfig, examples, publish_latents, publish_scores
from stages.common.published_paths import FIGURES, PLOT_DATA


def main(name: str) -> None:
    """Publish the model `name`."""
    config = read_params().block("figures", FiguresConfig)
    side = config.sample_columns
    train, test = load_split(TRAIN), load_split(TEST)
    made = load_generated(name, len(test))
    if len(made.samples) < side * side:
        raise FileDamagedError(f"{generated(name)} has {len(made.samples)} samples, but the figures show {side * side}")
    publish_scores(name)
    write_table(PLOT_DATA / name / "curves.tsv", read_table(curves(name)))
    save_strip(made.samples[: side * side], side, PLOT_DATA / name / "samples.png")
    figures = sample_figures(name, made, train, side)
    if made.encodings is not None:
        reconstructions = made.encodings.reconstructions[examples(test.labels)]
        save_strip(reconstructions, NUM_CLASSES, PLOT_DATA / name / "reconstructions.png")
        publish_latents(name, made.encodings.latents, test)
        lines = interpolations(made.encodings, test)
        within = len(made.encodings.within)
        title = f"{name}: straight lines in the latent space, within a class and between two"
        figures["interpolations"] = images.interpolations(lines, within, title)
        animated = lines[within]._replace(decoded=made.encodings.animation)
        images.save_animation(animated, FIGURES / name / "interpolation.gif")
    if made.grid is not None:
        figures["latent_grid"] = images.latent_grid(*made.grid, f"{name}: decoded latent grid")
    for title, figure in figures.items():
        save_figure(figure, FIGURES / name / f"{title}.png", config.dpi)


def sample_figures(name: str, made: Generated, train: Split, side: int) -> dict[str, Figure]:
    """Samples by class, where the model follows labels, and samples beside the training images nearest to them."""
    figures = {}
    chosen, labels = made.samples[:side], made.followed_labels
    if labels is not None:
        figures["samples_by_class"] = images.samples_by_class(made.samples, labels, side, f"{name}: samples by class")
        chosen = torch.stack([made.samples[labels == label][0] for label in labels.unique()])
    nearest = train.images[nearest_neighbours(chosen, train.images).indices]
    figures["neighbours"] = images.neighbours(chosen, nearest, f"{name}: is it a copy?")
    return figures


def interpolations(encodings: Encodings, test: Split) -> list[images.Interpolation]:
    """The interpolations of one model, those within a class first."""
    words = [f"{label} to {label}" for label in encodings.within]
    words += [f"{first} to {second}" for first, second in encodings.between]
    first, last = (test.images[encodings.interpolation_ends[:, end]] for end in (0, 1))
    return [images.Interpolation(*row) for row in zip(words, first, encodings.interpolations, last, strict=True)]
