"""Normalizing flow: Jacobians against autograd and zuko, inverses, and bits per dimension."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zuko  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.distributions import AffineTransform

from generative.capabilities.likelihood import dequantise
from generative.compute.runtime import make_rng
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split, to_unit
from generative.families import flow
from generative.networks.flows import (
    ActNorm,
    AffineCoupling,
    Chain,
    Convolutions,
    InvertibleConvolution,
    Permutation,
    convolutional_steps,
    dense_steps,
)
from tests.small import disturb, small_config, train


def disturbed(layer: nn.Module) -> nn.Module:
    """The same with weights that are not those it starts with, in float64."""
    disturb(layer, 0.2)
    return layer.double()


def log_det_of(function: Any, x: Tensor) -> Tensor:
    """log |det| of the Jacobian that autograd finds at the one image `x` (1, ...)."""
    jacobian = torch.autograd.functional.jacobian(lambda value: function(value).flatten(), x)
    return torch.linalg.slogdet(jacobian.view(x.numel(), x.numel())).logabsdet


LAYERS = {
    "ActNorm": lambda: ActNorm(4, 2),
    "InvertibleConvolution": lambda: InvertibleConvolution(4),
    "AffineCoupling": lambda: AffineCoupling(Convolutions(2, 4, 8, 6)),
    "convolutional_steps": lambda: convolutional_steps(4, 3, 8, 6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_log_determinant_is_that_of_the_jacobian(name: str, rng: torch.Generator) -> None:
    layer = disturbed(LAYERS[name]())
    x = torch.randn(2, 4, 6, 6, generator=rng, dtype=torch.float64)
    y, log_det = layer(x)
    for place in range(2):
        one = x[place : place + 1]
        torch.testing.assert_close(log_det[place], log_det_of(lambda value: layer(value)[0], one))
    torch.testing.assert_close(layer.inverse(y), x, rtol=0, atol=1e-5)  # type: ignore[operator]


def test_dense_steps_have_the_determinant_of_their_jacobian(rng: torch.Generator) -> None:
    layer = disturbed(dense_steps(12, 3, 16))
    x = torch.randn(2, 12, generator=rng, dtype=torch.float64)
    y, log_det = layer(x)
    torch.testing.assert_close(log_det[1], log_det_of(lambda value: layer(value)[0], x[1:]))
    torch.testing.assert_close(layer.inverse(y), x)  # type: ignore[operator]


def test_coupling_is_that_of_zuko(rng: torch.Generator) -> None:
    network = disturbed(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6)))
    layer = AffineCoupling(network)
    x = torch.randn(5, 6, generator=rng, dtype=torch.float64)

    def meta(kept: Tensor) -> Any:
        shift, raw = network(kept).chunk(2, 1)
        scale = torch.exp(torch.tanh(raw))
        return zuko.transforms.DependentTransform(AffineTransform(shift * scale, scale), 1)

    reference = zuko.transforms.CouplingTransform(meta, torch.tensor([True] * 3 + [False] * 3))
    wanted, log_det = reference.call_and_ladj(x)
    found, own = layer(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(own, log_det)
    torch.testing.assert_close(layer.inverse(wanted), reference.inv(wanted))


def test_invertible_convolution_is_the_linear_map_of_zuko(rng: torch.Generator) -> None:
    layer = disturbed(InvertibleConvolution(4))
    assert isinstance(layer, InvertibleConvolution)
    x = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    unit_lower = torch.tril(layer.lower, -1) + torch.eye(4, dtype=torch.float64)
    diagonal = layer.sign * layer.log_diagonal.exp()
    packed = torch.tril(unit_lower * diagonal) + torch.triu(layer.upper / diagonal[:, None], 1)
    reference = zuko.transforms.LULinearTransform(packed)
    wanted, log_det = reference.call_and_ladj(x)
    found, own = layer(x[:, :, None, None])
    torch.testing.assert_close(found[:, :, 0, 0], wanted @ layer.permutation.T)
    torch.testing.assert_close(own, log_det)


def test_invertible_convolution_starts_as_a_rotation() -> None:
    layer = InvertibleConvolution(8)
    x = torch.randn(3, 8, 5, 5)
    y, log_det = layer(x)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_det, torch.zeros(3), rtol=0, atol=1e-4)


def test_activation_normalisation_fits_what_reaches_it(rng: torch.Generator) -> None:
    chain = Chain([Permutation(6), ActNorm(6, 0)])
    x = 5 + 3 * torch.randn(1000, 6, generator=rng)
    y = chain.fit(x, lambda value: value)
    torch.testing.assert_close(y.mean(0), torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(6), rtol=1e-3, atol=0)


def test_stretch_goes_back_and_knows_its_determinant() -> None:
    x = torch.rand(1, 1, 2, 3, dtype=torch.float64)
    y, log_det = flow.stretch(x)
    torch.testing.assert_close(flow.shrink(y), x)
    torch.testing.assert_close(log_det[0], log_det_of(lambda value: flow.stretch(value)[0], x))
    assert float(flow.stretch(torch.tensor([[0.0]]))[0]) == -0.5
    assert float(flow.stretch(torch.tensor([[1.0]]))[0]) == pytest.approx(0.5)


def test_eight_bits_without_knowledge_and_none_for_certainty() -> None:
    uniform, certain = torch.tensor(0.0), torch.tensor(NUM_PIXELS * math.log(256))
    assert float(flow.bits_per_dim(uniform)) == 8
    assert float(flow.bits_per_dim(certain)) == pytest.approx(0, abs=1e-5)


def test_dequantised_grey_levels_stay_in_their_intervals(blobs: Split) -> None:
    noisy = dequantise(blobs.images, make_rng(1))
    places = noisy * 256 - blobs.images
    assert 0 <= float(places.min()) <= float(places.max()) <= 1
    assert float(places.mean()) == pytest.approx(0.5, abs=0.01)


@pytest.fixture(scope="module")
def trained(blobs: Split, tmp_path_factory: pytest.TempPathFactory) -> Iterator[flow.Model]:
    model, _ = train(small_config("flow", epochs=60), blobs, tmp_path_factory.mktemp("flow"))
    with torch.inference_mode():
        yield model


def test_trained_flow_is_inverted_within_a_ten_thousandth(trained: flow.Model, blobs: Split) -> None:
    x = dequantise(blobs.images, make_rng(1))
    z, _ = trained(x)
    assert float((trained.inverse(z) - x).abs().max()) < 1e-4
    z = torch.randn(100, NUM_PIXELS, generator=make_rng(2))
    assert float((trained(trained.inverse(z))[0] - z).abs().max()) < 1e-2  # black is stretched some hundred times


def test_whole_model_has_the_determinant_of_its_jacobian(trained: flow.Model, blobs: Split) -> None:
    with torch.inference_mode(False):
        config = small_config("flow")
        model = flow.Model(config.training, 10)
        model.load_state_dict({key: value.clone() for key, value in trained.state_dict().items()})
        model = model.double()
        x = dequantise(blobs.images[:1], make_rng(1)).double()
        torch.testing.assert_close(model(x)[1][0], log_det_of(lambda value: model(value)[0], x), rtol=1e-6, atol=1e-4)


def test_likelihood_is_the_change_of_variables(trained: flow.Model, blobs: Split) -> None:
    x = dequantise(blobs.images[:20], make_rng(1))
    z, log_det = trained(x)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(trained.log_likelihood(x, make_rng(0)).nats, normal + log_det, rtol=1e-5, atol=1e-2)


def test_grey_levels_come_back(trained: flow.Model, blobs: Split) -> None:
    x = to_unit(blobs.images)
    torch.testing.assert_close(trained.decode(trained.encode(x)), x, rtol=0, atol=1e-4)


def test_low_temperature_draws_nearer_to_the_mode(trained: flow.Model) -> None:
    spreads = []
    for temperature in (0.1, 1.0):
        trained.sampling = flow.Sampling(temperature=temperature)
        spreads.append(float(trained.sample(torch.zeros(200), make_rng(1)).std(0).mean()))
    assert spreads[0] < spreads[1] / 2


def test_number_of_levels_is_checked() -> None:
    block = small_config("flow").training.model_dump() | {"widths": [8, 8]}
    with pytest.raises(ValueError, match="steps and widths must have 3 numbers"):
        flow.Training.model_validate(block)
