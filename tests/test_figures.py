"""Figures: images stand where they should, and equal data give equal bytes."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from generative.data.fashion_mnist import CLASS_NAMES
from generative.data.splits import Split
from generative.errors import PipelineError
from generative.figures import charts, images
from generative.figures.latents import Plane
from generative.figures.strips import load_strip, save_strip
from generative.figures.style import CLASS_COLOURS, MODEL_COLOURS, save_figure
from stages.common.params import Params
from stages.compare import long_table, score_charts
from stages.report import Column, best_model, between_points, columns, conditional, representation, table
from tests.small import ROOT

PARAMS = Params({"extractors": {"classifier": {"kind": "classifier"}, "bottleneck": {"kind": "bottleneck"}}})


def test_tile_puts_images_row_by_row() -> None:
    pictures = torch.arange(1, 7, dtype=torch.uint8).view(2, 3, 1, 1, 1).expand(2, 3, 1, 28, 28)
    canvas = images.tile(pictures)
    assert canvas.shape == (58, 88)
    assert [[canvas[row * 30 + 14, column * 30 + 14] for column in range(3)] for row in range(2)] == [
        [1, 2, 3],
        [4, 5, 6],
    ]
    assert not canvas[28:30].any()  # the gap


def test_tile_leaves_room_between_blocks() -> None:
    canvas = images.tile(torch.full((3, 1, 1, 28, 28), 9, dtype=torch.uint8), gaps_after_rows=[0])
    rows = np.asarray(canvas.any(axis=1))
    assert rows[:28].all()
    assert not rows[28:38].any()
    assert rows[38:66].all()
    assert len(rows) == 3 * 30 - 2 + 8


def test_colours_are_distinct() -> None:
    assert list(CLASS_COLOURS) == list(CLASS_NAMES)
    assert len(set(CLASS_COLOURS.values())) == 10
    assert len(set(MODEL_COLOURS)) == len(MODEL_COLOURS)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_latent_space_is_the_same_file_every_time(tmp_path: Path, dim: int, rng: torch.Generator) -> None:
    z, labels = torch.randn(300, dim, generator=rng), torch.randint(10, (300,), generator=rng)
    hashes = set()
    for attempt in range(2):
        path = tmp_path / f"{attempt}.png"
        save_figure(charts.latent_spaces({"vae": (Plane.of(z), labels)}), path, dpi=60)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
        assert b"matplotlib" not in path.read_bytes().lower()
    assert len(hashes) == 1


def test_users_style_changes_no_figure(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("figure.facecolor: red\nlines.linewidth: 9\naxes.grid: True\n")
    code = "import sys; from pathlib import Path; from generative.figures import style\n"
    code += "figure, (axes,) = style.new_figure(3, 2); axes.plot([0, 1], [1, 0])\n"
    code += "style.save_figure(figure, Path(sys.argv[1]), dpi=50)\n"
    for name, environment in (("plain", {}), ("styled", {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")})):
        command = [sys.executable, "-c", code, str(tmp_path / f"{name}.png")]
        subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "styled.png").read_bytes()


def test_projection_keeps_the_two_widest_directions(rng: torch.Generator) -> None:
    z = torch.randn(2000, 4, generator=rng) * torch.tensor([0.1, 5.0, 0.2, 3.0])
    points, title, _ = Plane.of(z)
    torch.testing.assert_close(points.std(0), torch.tensor([5.0, 3.0]), rtol=0.1, atol=0)
    assert "2 principal components of 4" in title


def test_reconstructions_stand_below_their_images(blobs: Split) -> None:
    shown = blobs.images[:20]  # labels are 0, 1, ... in turn
    figure = images.reconstructions(shown, {"a": 255 - shown, "b": shown})
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["test image", "a", "b"] * 2
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASS_NAMES)
    canvas = np.asarray(axes.get_images()[0].get_array())
    assert (canvas[:28, 30:58] == shown[1, 0].numpy()).all()
    assert (canvas[30:58, 30:58] == 255 - shown[1, 0].numpy()).all()
    assert (canvas[-28:, :28] == shown[10, 0].numpy()).all()


def test_strip_keeps_every_grey_level(blobs: Split, tmp_path: Path) -> None:
    save_strip(blobs.images[:15], 5, tmp_path / "strip.png")
    assert torch.equal(load_strip(tmp_path / "strip.png"), blobs.images[:15])
    with Image.open(tmp_path / "strip.png") as picture:
        assert picture.size == (5 * 28, 3 * 28)


@pytest.mark.parametrize("content", ["nothing", "text", "other size", "colours"])
def test_other_files_are_no_strip(content: str, tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    if content == "text":
        path.write_text("<html>")
    elif content != "nothing":
        Image.new("L" if content == "other size" else "RGB", (28, 29) if content == "other size" else (28, 28)).save(
            path
        )
    with pytest.raises(PipelineError, match=r"strip\.png"):
        load_strip(path)


def test_animation_goes_there_and_back(tmp_path: Path, blobs: Split) -> None:
    path = tmp_path / "x.gif"
    row = images.Interpolation("x", blobs.images[0], blobs.images[:5], blobs.images[4])
    images.save_animation(row, path)
    with Image.open(path) as animation:
        assert animation.n_frames == 8  # type: ignore[attr-defined]
        assert animation.info["loop"] == 0


def test_long_table_splits_column_names() -> None:
    table = pd.DataFrame({"epoch": [1, 2], "train_loss_g": [3.0, 4.0], "validation_mse_x1000": [5.0, 6.0]})
    rows = long_table({"m": table})
    assert rows.to_dict("records") == [
        {"model": "m", "quantity": "loss_g", "split": "train", "epoch": 1, "value": 3.0},
        {"model": "m", "quantity": "loss_g", "split": "train", "epoch": 2, "value": 4.0},
        {"model": "m", "quantity": "mse_x1000", "split": "validation", "epoch": 1, "value": 5.0},
        {"model": "m", "quantity": "mse_x1000", "split": "validation", "epoch": 2, "value": 6.0},
    ]


class TestReportWords:
    encoder: ClassVar[dict[str, float]] = {
        "mse_x1000": 25.0,
        "psnr": 16.0,
        "ssim": 0.6,
        "bce": 250.0,
        "bce_floor": 190.0,
        "frechet_distance": 8.0,
        "pca_mse_x1000": 50.0,
    }

    def test_representation_follows_the_numbers(self) -> None:
        rows = {"real": {}, "ae": self.encoder, "vae": self.encoder | {"mse_x1000": 30.0, "loss_kl": 4.8}}
        text = representation(rows)
        assert "40 of 255 grey levels" in text  # sqrt(0.025) * 255
        assert "60 nats per image above the irreducible 190" in text
        assert "The error of the vae is 20% above that of the ae." in text
        assert "4.8 nats" in text

    def test_conditional_compares_with_the_nearest_other_model(self) -> None:
        real = {"frechet_distance": 0.02, "label_accuracy": 0.91}
        rows = {"real": real, "ae": self.encoder, "gan": {"frechet_distance": 2.0, "label_accuracy": 0.9}}
        assert "2.00, 4.0 times nearer than those of the ae" in conditional(rows)
        rows["gan"]["frechet_distance"] = 16.0
        assert "16.00, 2.0 times farther than those of the ae" in conditional(rows)

    def test_between_points_is_silent_without_encoders(self) -> None:
        assert between_points({"real": {}, "gan": {"frechet_distance": 1.0}}) == ""

    def test_table_shows_a_dash_for_what_is_not_there_and_no_empty_column(self) -> None:
        rows = {"real": {"frechet_distance": 0.015}, "vae": {"frechet_distance": 1.234, "ssim": 0.5678}}
        shown = columns(PARAMS, rows)
        cells = table(rows, {"real": {}, "vae": {"frechet_distance": 0.01}}, shown)
        assert [column.key for column in shown] == ["frechet_distance", "ssim"]
        assert [cell.text for cell in cells["real"]] == ["0.01 ± 0.00", "–"]
        assert [cell.text for cell in cells["vae"]] == ["1.23 ± 0.01", "0.568"]

    @pytest.mark.parametrize(("error", "winner"), [(0.05, "b"), (0.2, None)])
    def test_best_is_ahead_by_more_than_the_error_and_never_the_real_images(
        self, error: float, winner: str | None
    ) -> None:
        rows = {"real": {"frechet_distance": 0.0}} | {n: {"frechet_distance": v} for n, v in (("a", 1.2), ("b", 1.0))}
        errors = {name: {"frechet_distance": error} for name in rows}
        shown = columns(PARAMS, rows)
        assert best_model(rows, errors, shown[0]) == winner
        assert [cells[0].bold for cells in table(rows, errors, shown).values()] == [False, False, winner == "b"]

    def test_a_third_model_within_its_error_keeps_the_first_from_being_bold(self) -> None:
        values = {"a": (1.0, 0.01), "b": (1.2, 0.01), "c": (1.25, 0.6)}
        rows = {name: {"frechet_distance": value} for name, (value, _) in values.items()}
        errors = {name: {"frechet_distance": error} for name, (_, error) in values.items()}
        column = columns(PARAMS, rows)[0]
        assert best_model(rows, errors, column) is None
        errors["c"]["frechet_distance"] = 0.01
        assert best_model(rows, errors, column) == "a"

    def test_perfect_reconstruction_has_words_too(self) -> None:
        perfect = self.encoder | {"mse_x1000": 0.0}
        text = representation({"real": {}, "copy": perfect, "vae": self.encoder})
        assert "0 of 255 grey levels" in text
        assert "infinitely many times its squared error" in text
        assert "above that of" not in text
        rows = {"real": {"frechet_distance": 0.0, "label_accuracy": 0.9}, "ae": self.encoder}
        rows["copy"] = {"frechet_distance": 0.0, "label_accuracy": 0.9}
        assert "infinitely many times nearer than those of the real" not in conditional(rows)
        assert "0.00, infinitely many times nearer than those of the ae" in conditional(rows)

    def test_columns_and_charts_follow_the_names_of_the_extractors(self) -> None:
        renamed = Params({"extractors": {"judge": {"kind": "classifier"}, "other": {"kind": "inception"}}})
        row = {"frechet_distance": 1.0, "frechet_other": 2.0}
        assert [column.heading for column in columns(renamed, {"a": row})] == ["Fréchet distance ↓", "FID ↓"]
        titles = [chart.title for chart in score_charts(renamed, {"real": row, "a": row})]
        assert titles == [f"Fréchet distance, {name}\n(lower is better)" for name in ("judge", "other")]

    def test_higher_is_better_where_the_arrow_says_so(self) -> None:
        rows = {"real": {"ssim": 1.0}, "a": {"ssim": 0.8}, "b": {"ssim": 0.7}}
        column = Column("ssim", "SSIM ↑", 3)
        assert best_model(rows, {name: {} for name in rows}, column) == "a"
