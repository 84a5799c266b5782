"""Figures: images stand where they should, and equal data give equal bytes."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Annotation
from PIL import Image

from generative.capabilities.diagnosing import Curves, Table
from generative.data.splits import Split
from generative.errors import PipelineError
from generative.figures import charts, images
from generative.figures.latents import Plane
from generative.figures.strips import load_strip, save_strip
from generative.figures.style import class_colours, model_colour, model_marker, panel_grid, save_figure
from generative.io.files import read_json, write_json
from stages.common.leaderboard import Column, Place, boards
from stages.common.params import Params, read_params
from stages.common.paths import ROOT as PIPELINE
from stages.common.paths import Pipeline
from stages.common.published import (
    Entry,
    curve_chart,
    publish_diagnostic,
    published_curves,
    published_table,
    rank_correlations,
)
from stages.compare import distance_charts, long_table, shared_curves
from stages.report import (
    Footnote,
    best_model,
    between_points,
    columns,
    conditional,
    footnotes,
    likelihood_words,
    likelihoods,
    numbered_footnotes,
    read_configs,
    representation,
    table,
    translations,
    unconditional,
)
from tests.small import CLASSES, ROOT

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
    assert all(len(set(class_colours(count))) == count for count in (2, 10, 11, 47))
    assert len({(model_colour(index), model_marker(index)) for index in range(50)}) == 50


@pytest.mark.parametrize("count", [1, 2, 5, 20, 23])
def test_panels_wrap(count: int) -> None:
    rows, columns = panel_grid(count, widest=4)
    assert columns <= 4
    assert (rows - 1) * columns < count <= rows * columns
    blank = torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    figure = images.sample_panels({str(index): blank for index in range(count)})
    assert len(figure.axes) == count
    assert max(figure.get_size_inches()) < 25


def test_twenty_models_stand_in_one_chart_sorted_with_the_floor() -> None:
    values = {f"model{index}": (float(index % 7) + 1, 0.1) for index in range(20)}
    chart = charts.Dots("distance", values, (0.02, 0.01), log_scale=True, lower_is_better=True)
    figure = charts.score_dots([chart], list(values))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert [values[name][0] for name in names] == sorted(value for value, _ in values.values())


def test_ticks_of_the_latent_grid_are_round_and_where_they_belong() -> None:
    axis = torch.linspace(-1.93, 2.07, 20).unsqueeze(1).expand(-1, 2)
    figure = images.latent_grid(torch.zeros(400, 1, 28, 28, dtype=torch.uint8), axis, "grid")
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["-1", "0", "1", "2"]
    places, tops = panel.get_xticks(), panel.get_yticks()
    assert list(places) == sorted(places)
    assert list(tops) == sorted(tops, reverse=True)  # the second coordinate grows upwards


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_latent_space_is_the_same_file_every_time(tmp_path: Path, dim: int, rng: torch.Generator) -> None:
    z, labels = torch.randn(300, dim, generator=rng), torch.randint(10, (300,), generator=rng)
    hashes = set()
    for attempt in range(2):
        path = tmp_path / f"{attempt}.png"
        save_figure(charts.latent_spaces({"vae": (Plane.of(z), labels)}, CLASSES), path, dpi=60)
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
    figure = images.reconstructions(shown, {"a": 255 - shown, "b": shown}, CLASSES)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["test image", "a", "b"] * 2
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
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
    rows = long_table({"m": charts.Training(table, {})})
    assert rows.to_dict("records") == [
        {"model": "m", "quantity": "loss_g", "split": "train", "epoch": 1, "value": 3.0},
        {"model": "m", "quantity": "loss_g", "split": "train", "epoch": 2, "value": 4.0},
        {"model": "m", "quantity": "mse_x1000", "split": "validation", "epoch": 1, "value": 5.0},
        {"model": "m", "quantity": "mse_x1000", "split": "validation", "epoch": 2, "value": 6.0},
    ]


def test_losses_in_another_unit_have_an_axis_of_their_own() -> None:
    table = pd.DataFrame(
        {"epoch": [1, 2], "train_bound": [900.0, -600.0], "train_g": [1.0, 0.8], "train_d": [1.1, 1.2]}
    )
    losses = {"bound": "bound, nats per image", "g": "decoder: logistic loss, nats", "d": "critic, nats"}
    left, right = charts.training_curves({"m": charts.Training(table, losses)}).axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("nats per image", "nats")
    assert [list(np.asarray(line.get_ydata())) for line in right.lines] == [[1.0, 0.8], [1.1, 1.2]]
    legend = left.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "bound",
        "decoder: logistic loss (right)",
        "critic (right)",
    ]
    same = {key: words for key, words in losses.items() if key != "bound"}
    (only,) = charts.training_curves({"m": charts.Training(table, same)}).axes
    assert (only.get_ylabel(), len(only.lines)) == ("nats", 2)


def entry(name: str, scores: dict[str, float], errors: dict[str, float] | None = None) -> Entry:
    return Entry(name, PIPELINE, scores, errors or {})


def entries(**rows: dict[str, float]) -> dict[str, Entry]:
    return {name: entry(name, row) for name, row in rows.items()}


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
        text = representation(entries(real={}, ae=self.encoder, vae=self.encoder | {"mse_x1000": 30.0, "loss_kl": 4.8}))
        assert "40 and 44 of 255 grey levels (ae, vae)" in text  # sqrt(0.025) * 255
        assert "60 and 60 nats per image above the entropy" in text
        assert "leaves 2.0 times and 1.7 times the squared error" in text
        assert "best (ae) and the worst (vae) lies a factor of 1.2." in text
        assert "4.8 nats about its image (vae)" in text

    def test_no_sentence_is_repeated_for_each_model(self) -> None:
        rows = {f"vae{index}": self.encoder | {"path_within_kept": 0.9, "path_between_kept": 0.8} for index in range(9)}
        for text in (representation(entries(real={}, **rows)), between_points(entries(real={}, **rows))):
            assert len(re.findall(r"[a-z0-9)]\. |\.$", text)) <= 5

    def test_conditional_compares_with_real_images(self) -> None:
        real = {"frechet_distance": 0.02, "label_accuracy": 0.91, "cas": 0.87, "frechet_imagenet": 16.0}
        cgan = {"frechet_distance": 2.0, "label_accuracy": 0.9, "cas": 0.8, "frechet_imagenet": 126.2}
        text = conditional(entries(real=real, ae=self.encoder, cgan=cgan), ["imagenet"])
        for words in ("90.0%", "91.0%", "distance of 2.00", "training images at 0.02", "80.0%", "87.0%"):
            assert words in text
        assert "To imagenet, by which nothing was tuned, they are at 126, training images at 16." in text
        assert "inception" not in conditional(entries(real=real, cgan=cgan), ["inception"])  # of older scores
        assert conditional(entries(real=real, ae=self.encoder), ["imagenet"]) == ""

    def test_between_points_is_silent_without_encoders(self) -> None:
        assert between_points(entries(real={}, gan={"frechet_distance": 1.0})) == ""

    def test_model_without_samples_and_without_latents_breaks_nothing(self) -> None:
        rows = entries(real={"frechet_distance": 0.02}, cyclegan={"there_ssim": 0.5})
        assert (representation(rows), between_points(rows), conditional(rows, []), unconditional(rows)) == ("",) * 4
        assert [cell.text for cell in table(rows, columns(PARAMS, rows))["cyclegan"]] == ["–"]
        assert len(distance_charts(PARAMS, rows)) == 0

    def test_table_shows_a_dash_for_what_is_not_there_and_no_empty_column(self) -> None:
        rows = entries(real={"frechet_distance": 0.015})
        rows["vae"] = entry("vae", {"frechet_distance": 1.234, "ssim": 0.5678}, {"frechet_distance": 0.01})
        shown = columns(PARAMS, rows)
        cells = table(rows, shown)
        assert [column.key for column in shown] == ["frechet_distance", "ssim"]
        assert [cell.text for cell in cells["real"]] == ["0.01\u00a0±\u00a00.00", "–"]
        assert [cell.text for cell in cells["vae"]] == ["1.23\u00a0±\u00a00.01", "0.568"]

    def test_footnotes_are_numbered_where_they_belong(self) -> None:
        rows = entries(real={"iw_bound": 1.0}, vae={"iw_bound": 2.0, "ssim": 0.5}, gan={"iw_bound": 3.0})
        notes = [Footnote("vae", "iw_bound", "a bound of sorts"), Footnote("gan", "iw_bound", "no bound")]
        cells = table(rows, columns(PARAMS, rows), notes)
        assert [row[-1].text for row in cells.values()] == ["1.0", "2.0¹", "3.0²"]
        assert cells["vae"][0].text == "0.500"
        assert numbered_footnotes(notes, rows) == "¹ vae: a bound of sorts. ² gan: no bound."
        assert numbered_footnotes(notes, entries(gan={})) == "² gan: no bound."

    def test_families_say_what_a_score_is_not(self) -> None:
        scores = {"iw_bound": 1.0, "ssim": 0.5}
        rows = entries(real=scores, vae=scores, vae16=scores, cgan={})
        shown, configs = columns(PARAMS, rows), read_configs(read_params(), rows)
        assert [(note.name, note.key) for note in footnotes(configs, rows, shown)] == [("vae16", "iw_bound")]
        assert footnotes(configs, rows, shown[:1]) == []

    @pytest.mark.parametrize(("error", "winner"), [(0.05, "b"), (0.2, None)])
    def test_best_is_ahead_by_more_than_the_error_and_never_the_real_images(
        self, error: float, winner: str | None
    ) -> None:
        values = {"real": 0.0, "a": 1.2, "b": 1.0}
        rows = {n: entry(n, {"frechet_distance": v}, {"frechet_distance": error}) for n, v in values.items()}
        shown = columns(PARAMS, rows)
        assert best_model(rows, shown[0]) == winner
        assert [cells[0].bold for cells in table(rows, shown).values()] == [False, False, winner == "b"]

    def test_a_third_model_within_its_error_keeps_the_first_from_being_bold(self) -> None:
        values = {"a": (1.0, 0.01), "b": (1.2, 0.01), "c": (1.25, 0.6)}
        rows = {n: entry(n, {"frechet_distance": v}, {"frechet_distance": e}) for n, (v, e) in values.items()}
        column = columns(PARAMS, rows)[0]
        assert best_model(rows, column) is None
        rows["c"].errors["frechet_distance"] = 0.01
        assert best_model(rows, column) == "a"

    def test_likelihoods_stand_in_one_table_where_there_is_more_than_a_bound(self) -> None:
        bound = {"elbo": 300.0, "bits_per_dim": 7.4}
        assert likelihoods(entries(real={}, vae=bound)) == []
        rows = entries(
            vae=bound,
            flow={"log_p_exact": 2500.0, "bits_per_dim": 3.4},
            rbm={"log_p_estimate_binary": -230.0, "log_p_lower_binary": -232.0},
            cgan={},
        )
        found = likelihoods(rows)
        assert [row[:2] for row in found] == [
            ["vae", "evidence lower bound"],
            ["flow", "exact"],
            ["rbm", "estimate, by annealing"],
            ["rbm", "lower bound, by reverse annealing"],
        ]
        assert [row[4].partition("\u00a0")[0] for row in found] == ["7.400", "3.400", "–", "–"]
        assert [row[3].partition("\u00a0")[0] for row in found] == ["300.0", "2500.0", "-230.0", "-232.0"]
        assert "binary pixels" in likelihood_words(rows)
        assert "binary pixels" not in likelihood_words(entries(vae=bound, flow=rows["flow"].scores))

    def test_perfect_reconstruction_has_words_too(self) -> None:
        perfect = self.encoder | {"mse_x1000": 0.0}
        text = representation(entries(real={}, copy=perfect, vae=self.encoder))
        assert "0 and 40 of 255 grey levels" in text
        assert "infinitely many times and 2.0 times the squared error" in text
        assert "a factor of" not in text

    def test_columns_and_charts_follow_the_names_of_the_extractors(self) -> None:
        renamed = Params({"extractors": {"judge": {"kind": "classifier"}, "other": {"kind": "inception"}}})
        row = {"frechet_distance": 1.0, "frechet_other": 2.0}
        assert [column.heading for column in columns(renamed, entries(a=row))] == ["Fréchet distance ↓", "FID ↓"]
        titles = [chart.title for chart in distance_charts(renamed, entries(real=row, a=row))]
        assert titles == [f"Fréchet distance, {name}" for name in ("judge", "other")]

    def test_higher_is_better_where_the_arrow_says_so(self) -> None:
        rows = entries(real={"ssim": 1.0}, a={"ssim": 0.8}, b={"ssim": 0.7})
        assert best_model(rows, Column("ssim", "SSIM ↑", 3)) == "a"


class TestLeaderboard:
    def scored(self, **values: tuple[float, float]) -> dict[str, Entry]:
        key = "kernel_x1000"
        return {name: entry(name, {key: value}, {key: error}) for name, (value, error) in values.items()}

    def test_places_count_who_is_ahead_by_more_than_the_error_of_the_lead(self) -> None:
        rows = self.scored(real=(0.0, 0.1), c=(3.0, 0.1), a=(1.0, 0.1), b=(1.1, 0.1), d=(2.9, 2.0))
        near, *_ = boards(PARAMS, rows)
        assert list(near.rows) == ["real", "a", "b", "d", "c"]
        assert [cells[0].place for cells in near.rows.values()] == [0, 1, 1, 1, 3]
        assert near.rows["c"][0].text == "3.0 ± 0.1"

    def test_spread_over_seeds_is_part_of_the_error(self) -> None:
        rows = self.scored(real=(0.0, 0.0), a=(1.0, 0.1), b=(1.5, 0.1))
        assert [cells[0].place for cells in boards(PARAMS, rows)[0].rows.values()] == [0, 1, 2]
        rows["b"].spreads["kernel_x1000"] = 1.0
        assert [cells[0].place for cells in boards(PARAMS, rows)[0].rows.values()] == [0, 1, 1]

    def test_models_without_a_score_stand_where_they_have_one(self) -> None:
        rows = self.scored(real=(0.0, 0.1), a=(1.0, 0.1)) | entries(
            flow={"bits_per_dim": 3.0, "log_p_exact": 1.0}, vae={"bits_per_dim": 7.0, "images_seen": 550000.0}
        )
        near, known = boards(PARAMS, rows)
        assert list(near.rows) == ["real", "a"]
        assert list(known.rows) == ["flow", "vae"]
        assert [cell.text.partition(" ±")[0] for cell in known.rows["vae"]] == ["≤ 7.000", "550,000"]
        assert [cell.text for cell in known.rows["flow"]] == ["3.000 ± 0.000", "–"]
        assert known.rows["vae"][1] == Place("550,000", 0)

    def test_translations_stand_beside_what_needs_no_model(self) -> None:
        scores = {f"back_{kind}mse_x1000": value for kind, value in (("", 35.0), ("untranslated_", 235.0))}
        rows = entries(real={}, cyclegan=scores | {f"{key}_accuracy": 0.5 for key in ("source", "target", "back")})
        head, *table_rows = translations(rows)
        place = head.index("to photographs: MSE × 1000 ↓")
        assert {row[0]: row[place].partition(" ")[0] for row in table_rows} == {
            "cyclegan": "35.0",
            "the image itself": "235.0",
            "mean of its true class": "–",
            "photographs": "–",
        }
        assert [row[-1][:3] for row in table_rows] == ["0.5", "0.5", "–", "0.5"]
        assert translations(entries(real={}, vae={})) == []


def test_class_shares_say_where_a_class_is_missing(tmp_path: Path) -> None:
    shares = {"even": 4 * [0.25], "lost": [0.0, 0.5, 0.25, 0.25]}
    figure = charts.class_shares(shares, ["a", "b", "c", "d"])
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts] == 4 * ["25.0"] + ["0.0", "50.0", "25.0", "25.0"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["even", "lost"]
    light = [text.get_text() for text in panel.texts if text.get_color() == "white"]
    assert light == ["0.0", "50.0"]
    save_figure(figure, tmp_path / "shares.png", 60)


def test_points_have_their_words_and_panels_one_scale() -> None:
    traded = charts.Lines("t", "recall", "precision", [0.1, 0.9], {"s": [0.8, 0.2]}, words=["0.5", "2"])
    panel = charts.line_charts([traded]).axes[0]
    found = {note.get_text(): tuple(note.xy) for note in panel.texts if isinstance(note, Annotation)}
    assert found == {"0.5": (0.1, 0.8), "2": (0.9, 0.2)}
    pair = [charts.Lines(str(top), "x", "y", [0.0, 1.0], {"a": [0.0, top], "b": [0.0, 1.0]}) for top in (1.0, 7.0)]
    first, second = charts.line_charts(pair, same_axes=True).axes
    assert first.get_ylim() == second.get_ylim()
    peaks = [
        charts.Lines("p", "x", "y", list(range(100)), {"a": [float(x in range(top, top + 3)) for x in range(100)]})
        for top in (40, 50)
    ]
    ends = [panel.get_xlim() for panel in charts.line_charts(peaks, same_axes=True).axes]
    assert ends[0] == ends[1] == pytest.approx((39.7, 52.3))  # 40 to 52, and a margin of each panel's own stretch
    assert first.get_legend() is not None
    assert second.get_legend() is None


def test_rank_correlation_is_spearmans() -> None:
    """By 1 - 6 sum d^2 / (n (n^2 - 1)), d the differences of ranks."""
    distances = pd.DataFrame({"epoch": [1, 2, 3, 4], "first.frechet_distance": [9.0, 5.0, 2.0, 1.0]})
    curves = pd.DataFrame(
        {"epoch": [1, 2, 3, 4], "train_falls": [8.0, 1.0, 0.5, 0.1], "validation_swaps": [8.0, 0.5, 1.0, 0.1]}
    )
    found = rank_correlations(distances, curves)
    assert found == pytest.approx({"train_falls": 1.0, "validation_swaps": 1 - 6 * 2 / (4 * 15)})


def test_curves_are_read_back_and_tables_are_kept(tmp_path: Path) -> None:
    write_json(tmp_path / "losses.json", {"loss": "nats"})  # what else lies there
    curves = Curves("steep", "norm", "density", torch.tensor([0.0, 1.0]), {"here": torch.tensor([0.25, 0.5])})
    publish_diagnostic(tmp_path, "losses", curves)
    assert read_json(tmp_path / "losses.json") == {"loss": "nats"}
    back = published_curves(tmp_path)
    assert set(back) == {"losses"}
    assert curve_chart(back["losses"], "model") == curve_chart(curves, "model")
    assert published_table(tmp_path, "shares") is None
    publish_diagnostic(tmp_path, "shares", Table("shares", torch.tensor([[0.5, 1.25]]), ["row"], ["a", "b"]))
    kept = published_table(tmp_path, "shares")
    assert kept is not None
    assert kept.to_dict("list") == {"shares": ["row"], "a": [0.5], "b": [1.25]}
    assert set(published_curves(tmp_path)) == {"losses"}


def test_what_several_models_have_stands_side_by_side(tmp_path: Path) -> None:
    class Folder(Pipeline):
        def plot_data(self, name: str) -> Path:
            return tmp_path / name

    def curves(title: str) -> Curves:
        return Curves(title, "x", "y", torch.tensor([0.0, 1.0]), {"a": torch.tensor([0.0, 1.0])})

    for name, titles in {"one": ["both", "alone"], "two": ["both"], "none": []}.items():
        write_json(tmp_path / name / "losses.json", {})
        for title in titles:
            publish_diagnostic(tmp_path / name, title, curves(title))
    entries = {name: Entry(name, Folder(Path()), {}, {}) for name in ("one", "two", "none")}
    found = shared_curves(entries)
    assert set(found) == {"both"}
    assert [panel.get_title() for panel in found["both"].axes] == ["one", "two"]
