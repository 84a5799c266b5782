"""Restricted Boltzmann machine: its likelihood against enumeration, its update against autograd, its annealing."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from generative.capabilities.likelihood import binarise
from generative.compute.runtime import make_rng
from generative.data.images import NUM_PIXELS
from generative.data.splits import Split
from generative.families import rbm
from tests.small import build, small_config

_HIDDEN = 12


@pytest.fixture
def machine(blobs: Split) -> Iterator[rbm.Model]:
    """A machine of 12 hidden units with weights that matter, prepared for annealing."""
    config = small_config("rbm", hidden=_HIDDEN)
    torch.manual_seed(0)
    model = rbm.Model(config.training, 10).eval()
    with torch.no_grad():
        model.weight.normal_(std=0.15)
        model.visible_bias.normal_(std=0.5)
        model.hidden_bias.normal_(std=0.5)
    sampling = rbm.Sampling(annealed_steps=50, annealing_steps=500, annealing_chains=300)
    model.prepare_sampling(sampling, blobs)
    with torch.inference_mode():
        yield model


def all_hidden(count: int) -> Tensor:
    """Every state (2^H, H) of the hidden units."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)), dtype=torch.float64)


def exact_log_z(model: rbm.Model) -> float:
    """The sum over all hidden states, pixels summed analytically."""
    h = all_hidden(_HIDDEN)
    pixels = F.softplus(h @ model.weight.T.double() + model.visible_bias.double()).sum(1)
    return float(torch.logsumexp(pixels + h @ model.hidden_bias.double(), 0))


def test_free_energy_sums_over_all_hidden_states(machine: rbm.Model, blobs: Split) -> None:
    v, h = binarise(blobs.images[:5], make_rng(1)).flatten(1).double(), all_hidden(_HIDDEN)
    weight, visible, hidden = (p.double() for p in (machine.weight, machine.visible_bias, machine.hidden_bias))
    energies = -(v @ weight @ h.T) - (v @ visible)[:, None] - h @ hidden
    torch.testing.assert_close(
        machine.free_energy(v.float()).double(), -torch.logsumexp(-energies, 1), rtol=1e-5, atol=0
    )


def test_annealing_finds_the_partition_function_within_its_error(machine: rbm.Model) -> None:
    assert 0 < machine.log_z_error < 0.3
    assert machine.log_z == pytest.approx(exact_log_z(machine), abs=4 * machine.log_z_error)
    assert machine.log_z_error < abs(machine._base_log_z() - exact_log_z(machine)) / 10  # there was something to find


def test_an_error_tells_how_far_annealings_spread(machine: rbm.Model) -> None:
    found = [machine.estimate_partition_function(200, 100, make_rng(seed)) for seed in range(30)]
    values, errors = torch.tensor(found, dtype=torch.float64).T
    assert float(values.std()) == pytest.approx(float(errors.mean()), rel=0.5)


def test_reverse_annealing_bounds_the_exact_likelihood_tightly_from_below(machine: rbm.Model) -> None:
    """Of images that the machine itself draws."""
    x = binarise((255 * machine.sample(torch.zeros(200), make_rng(2))).to(torch.uint8), make_rng(3))
    exact = -machine.free_energy(x.flatten(1)).double() - exact_log_z(machine)
    below = machine.lower_bound(x, make_rng(4)).double()
    gap = exact - below
    error = float(gap.std()) / math.sqrt(len(gap))
    assert -4 * error < float(gap.mean()) < 2
    weights = torch.exp(below - exact)  # each an unbiased estimate of the probability, where the annealing is long
    assert float(weights.mean()) == pytest.approx(1, abs=0.3)


def test_more_temperatures_tighten_the_bound(machine: rbm.Model, blobs: Split) -> None:
    x = binarise(blobs.images[:100], make_rng(1))
    bounds = []
    for steps in (5, 500):
        machine.sampling = machine.sampling.model_copy(update={"annealing_steps": steps})
        bounds.append(float(machine.lower_bound(x, make_rng(4)).mean()))
    assert bounds[0] < bounds[1] - 1


def test_samples_have_the_means_of_the_machine(machine: rbm.Model) -> None:
    h = all_hidden(_HIDDEN)
    inputs = h @ machine.weight.T.double() + machine.visible_bias.double()
    log_p = F.softplus(inputs).sum(1) + h @ machine.hidden_bias.double()
    exact = torch.softmax(log_p, 0) @ torch.sigmoid(inputs)
    found = machine.sample(torch.zeros(4000), make_rng(5)).flatten(1).double().mean(0)
    assert float((found - exact).abs().max()) < 0.06
    base = torch.sigmoid(machine.base_bias).double()
    assert float((base - exact).abs().max()) > 0.3  # which the base rates have not


def test_restored_machine_has_the_likelihood_that_was_estimated(machine: rbm.Model, blobs: Split) -> None:
    with torch.inference_mode(False):
        other = rbm.Model(machine.config, 10).eval()
        other.load_state_dict({key: value.clone() for key, value in machine.state_dict().items()})
    other.restore_sampling(machine.sampling, machine.fitted())
    x = binarise(blobs.images[:20], make_rng(1))
    own, same = (model.log_likelihood(x, make_rng(1)) for model in (machine, other))
    assert torch.equal(own.nats, same.nats)
    assert own.shared_error == same.shared_error == machine.log_z_error


def test_partition_function_is_estimated_once_for_all_ways_of_sampling(machine: rbm.Model, blobs: Split) -> None:
    known = machine.log_z
    machine.prepare_sampling(machine.sampling.model_copy(update={"annealed_steps": 3}), blobs)
    assert machine.log_z == known
    assert machine.nfe == 3
    machine.prepare_sampling(machine.sampling.model_copy(update={"annealing_chains": 10}), blobs)
    assert machine.log_z != known


def test_update_follows_the_gradient_of_the_likelihood(blobs: Split) -> None:
    """Over many draws its mean is the gradient of log p, which enumeration gives."""
    config = small_config("rbm", hidden=_HIDDEN, batch_size=400)
    model, objective, _ = build(config)
    with torch.no_grad():
        model.weight.normal_(std=0.02)
    x, rng = binarise(blobs.images[:400], make_rng(1)), make_rng(3)
    objective.step(x, blobs.labels[:400], make_rng(2))
    wanted = _exact_gradient(model, x.flatten(1))
    objective.optimizer.param_groups[0]["lr"] = 0.0
    sums = torch.zeros(NUM_PIXELS, dtype=torch.float64)
    for _ in range(300):
        objective.update(x, blobs.labels[:400], rng)
        sums -= _uncentred_visible(model, objective).double() / 300
    assert float(torch.corrcoef(torch.stack([sums, wanted]))[0, 1]) > 0.95


def _exact_gradient(model: rbm.Model, v: Tensor) -> Tensor:
    """Of the mean log-likelihood of `v` with respect to the biases of the pixels."""
    with torch.no_grad():
        h = all_hidden(_HIDDEN)
        inputs = h @ model.weight.T.double() + model.visible_bias.double()
        log_p = F.softplus(inputs).sum(1) + h @ model.hidden_bias.double()
        return v.double().mean(0) - torch.softmax(log_p, 0) @ torch.sigmoid(inputs)


def _uncentred_visible(model: rbm.Model, objective: rbm.Objective) -> Tensor:
    """The plain gradient that a centred one was made of."""
    assert model.visible_bias.grad is not None
    assert model.weight.grad is not None
    return model.visible_bias.grad + model.weight.grad @ objective.hidden_mean


def test_two_trainings_that_resume_have_the_same_chains(blobs: Split) -> None:
    config = small_config("rbm")
    first, second = (build(config)[1] for _ in range(2))
    first.step(blobs.images[:40] / 255, blobs.labels[:40], make_rng(1))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.chains, second.chains)
    assert bool(first.chains.any())
    assert torch.equal(first.hidden_mean, second.hidden_mean)


def test_binary_pixels_follow_their_grey_levels() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(20_000, 1, 1, 3)
    drawn = binarise(images, make_rng(1))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.mean((0, 1, 2)).tolist() == pytest.approx([0, 0.2, 1], abs=0.01)
