"""Outline drawings, the two families that translate, and what is seen of a network around a point."""

from pathlib import Path

import pytest
import torch

from generative.compute.runtime import make_rng
from generative.data.splits import Split, balanced_labels, to_unit
from generative.networks.outlines import outlines
from generative.scores.geometry import jacobian, lost_directions, rank
from generative.training.translating import Translator
from tests.small import build, small_config, train


def square(level: float) -> torch.Tensor:
    x = torch.zeros(1, 1, 28, 28)
    x[..., 8:20, 8:20] = level
    return x


def test_outline_of_a_square_is_one_closed_thin_line() -> None:
    drawing = outlines(square(1.0))
    assert set(drawing.unique().tolist()) == {0.0, 1.0}
    assert drawing[0, 0, 10:18].sum(1).tolist() == [2.0] * 8  # each row crosses it twice
    assert drawing[0, 0, :, 10:18].sum(0).tolist() == [2.0] * 8
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[14, 14] = True
    for _ in range(28):  # what is inside stays inside
        spread = torch.nn.functional.max_pool2d(inside[None, None].float(), (3, 1), 1, (1, 0))
        spread = torch.maximum(spread, torch.nn.functional.max_pool2d(inside[None, None].float(), (1, 3), 1, (0, 1)))
        inside = (spread[0, 0] > 0) & (drawing[0, 0] == 0)
    assert not bool(inside[0, 0])


@pytest.mark.parametrize(("level", "drawn"), [(0.0, False), (0.1, False), (0.25, False), (0.5, True)])
def test_faint_edges_are_not_drawn(level: float, drawn: bool) -> None:
    assert bool(outlines(square(level)).any()) == drawn


def test_line_goes_on_along_an_edge_that_fades() -> None:
    x = torch.zeros(1, 1, 28, 28)
    x[..., 14:, :] = torch.linspace(0.8, 0.2, 28)
    assert bool(outlines(x)[..., 12:16, 25].any())  # as faint as what is not drawn alone
    assert not bool(outlines(0.35 * x).any())


def test_translator_starts_with_what_it_is_given(rng: torch.Generator) -> None:
    x = torch.rand(5, 1, 28, 28, generator=rng)
    order = Translator((8, 8))(x).flatten().argsort()
    assert bool((x.flatten()[order].diff() > -1e-6).all())


def test_no_photograph_of_a_cyclegan_has_its_drawing_among_the_others(blobs: Split) -> None:
    marked = Split(
        (torch.arange(400) % 100).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).clone(), blobs.labels
    )
    marked.images[1::2, :, :, 14:] = 255  # only every other one has an edge
    _, objective, _ = build(small_config("cyclegan"))
    drawn = list(objective.batches(marked, 40, make_rng(0), rank=0, world_size=1))
    assert len(drawn) == objective.steps_per_epoch(400, 40) == 5
    for photographs, drawings in drawn:
        assert not bool((photographs[..., 13] != photographs[..., 14]).any())
        assert bool(drawings.flatten(1).any(1).all())


def test_cycle_teaches_the_way_back_alone(blobs: Split) -> None:
    model, _, _ = build(small_config("cyclegan"))
    x = to_unit(blobs.images[:4])
    found = model(x, model.render(x), torch.zeros_like(x))
    there, back = list(model.to_drawing.parameters()), list(model.to_photograph.parameters())
    assert all(part is None for part in torch.autograd.grad(found.x.sum(), there, allow_unused=True, retain_graph=True))
    assert any(part is not None for part in torch.autograd.grad(found.x.sum(), back, allow_unused=True))


@pytest.fixture(scope="module")
def squares() -> Split:
    """400 images of a grey square whose place depends on the class: unlike blobs, they have an outline."""
    labels = balanced_labels(400, 10)
    images = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    for place, label in enumerate(labels.tolist()):
        row, column = 2 + 3 * (label % 5), 2 + 10 * (label // 5) + place % 3
        images[place, :, row : row + 11, column : column + 11] = 180
    return Split(images, labels)


@pytest.mark.parametrize(("name", "share"), [("cyclegan", 0.9), ("paired_translator", 0.5)])
def test_drawings_become_like_photographs(name: str, share: float, squares: Split, tmp_path: Path) -> None:
    model, _ = train(small_config(name, epochs=25), squares, tmp_path)
    x = to_unit(squares.images[:40])
    drawings = model.render(x)
    assert (model.translate(drawings, 1) - x).square().mean() < share * (drawings - x).square().mean()
    assert (model.translate(x, 0) - drawings).square().mean() < share * (drawings - x).square().mean()


def test_jacobian_and_rank_of_a_linear_map(rng: torch.Generator) -> None:
    matrix = torch.randn(6, 2, generator=rng).double() @ torch.randn(2, 4, generator=rng).double()
    found = jacobian(lambda x: x @ matrix.T, torch.randn(4, generator=rng).double())
    torch.testing.assert_close(found, matrix)
    assert rank(found) == 2


def test_what_does_not_depend_on_its_input_or_is_no_number_has_no_dimension() -> None:
    assert rank(jacobian(lambda z: torch.zeros(len(z), 5), torch.zeros(3))) == 0
    assert rank(jacobian(lambda z: torch.nan * z, torch.zeros(3))) == 0


def test_lost_directions_are_those_that_change_nothing(rng: torch.Generator) -> None:
    keep = torch.tensor([1.0, 1.0, 0.01, 0.0])
    assert lost_directions(lambda x: keep * x, torch.randn(4, generator=rng), step=2.0, least=0.1) == 2
    assert lost_directions(lambda x: keep * x, torch.randn(4, generator=rng), step=2.0, least=0.01) == 1
