"""The theory sheet: properties that it names as proven, and answers that give way to other evidence."""

import dataclasses
import math
import re
from typing import Any

import pytest
import torch
from scipy.stats import wasserstein_distance

from generative.compute.runtime import make_rng
from generative.data.splits import Split, to_unit
from generative.networks.convolutional import Discriminator
from generative.networks.denoiser import Denoiser, to_model
from generative.networks.patches import PatchDiscriminator
from generative.training.adversarial import gradient_penalty
from stages import theory
from stages.common.params import read_params
from stages.common.paths import ZOO
from stages.theory import STATEMENTS, Sheet, Statement, answer, contradiction, read_sheet, typeset
from tests.small import ROOT, build, disturb, small_config

ALL = [statement for part in STATEMENTS.values() for statement in part]


def test_denoiser_need_not_be_invertible(rng: torch.Generator) -> None:
    network = Denoiser((8, 8), 8)
    x, sigma = torch.randn(3, 1, 28, 28, generator=rng), torch.full((3,), 2.0)
    assert torch.equal(network(x, sigma, torch.zeros_like(x)), torch.zeros_like(x))


@pytest.mark.parametrize(
    "network", [Discriminator(8), PatchDiscriminator(8)], ids=lambda network: type(network).__name__
)
def test_discriminators_look_at_every_pixel(network: torch.nn.Module, rng: torch.Generator) -> None:
    x = torch.rand(20, 1, 28, 28, generator=rng).requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(x).sum(), x)
    assert bool((gradient.abs().sum(0) > 0).all())


def test_both_networks_of_a_gan_learn(blobs: Split) -> None:
    model, objective, _ = build(small_config("gan"))
    networks = (model.generator, objective.raw_discriminator)
    before = [[weight.clone() for weight in network.parameters()] for network in networks]
    objective.step(to_unit(blobs.images[:40]), blobs.labels[:40], make_rng(1))
    for network, weights in zip(networks, before, strict=True):
        changed = [not torch.equal(weight, old) for weight, old in zip(network.parameters(), weights, strict=True)]
        assert any(changed)


def test_gradient_passes_through_the_sample(blobs: Split, rng: torch.Generator) -> None:
    model, _, _ = build(small_config("vae"))
    x = to_unit(blobs.images[:40])
    eps = torch.randn(40, model.config.latent_dim, generator=rng)
    loss = (model(x, eps)[0] - x).square().sum()
    *_, weight, bias = gradients = torch.autograd.grad(loss, list(model.encoder.parameters()))
    assert all(bool((gradient != 0).any()) for gradient in gradients)
    means, deviations = bias.chunk(2)
    assert bool((means != 0).all())
    assert bool((deviations != 0).all())  # which only what was sampled depends on
    assert len(weight) == len(bias)


def test_noise_is_added_by_a_formula(blobs: Split, rng: torch.Generator) -> None:
    model, objective, _ = build(small_config("diffusion"))
    list(objective.batches(blobs, 40, make_rng(0), rank=0, world_size=1))  # fits the mixture
    seen: list[torch.Tensor] = []
    model.denoiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    grey, labels, sigma = blobs.images[:8], blobs.labels[:8], torch.linspace(0.1, 20, 8)
    noise = torch.randn(8, 1, 28, 28, generator=rng)
    for _ in range(2):
        model(grey, sigma, noise, labels)
        disturb(model)
    formula = to_model(to_unit(grey)) + sigma.view(-1, 1, 1, 1) * noise
    assert torch.equal(seen[0], formula)
    assert torch.equal(seen[1], formula)


def test_discriminator_of_patches_sees_eighteen_pixels(rng: torch.Generator) -> None:
    x = torch.rand(20, 1, 28, 28, generator=rng).requires_grad_(True)
    verdicts = PatchDiscriminator(8)(x).view(20, 7, 7)
    (gradient,) = torch.autograd.grad(verdicts[:, 3, 3].sum(), x)
    seen = (gradient.abs().sum((0, 1)) > 0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [18, 18]


def test_critic_measures_the_earth_movers_distance(rng: torch.Generator) -> None:
    direction = torch.randn(784, generator=rng)
    direction /= direction.norm()
    places = torch.rand(50, generator=rng)
    real, fake = ((places + shift)[:, None] * direction for shift in (3.0, 0.0))  # far apart: no point is in both

    def critic(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ direction

    steepness = gradient_penalty(critic, real.view(-1, 1, 28, 28), fake.view(-1, 1, 28, 28), places)
    assert float(steepness) == pytest.approx(0, abs=1e-10)  # it is as steep as it may be
    estimate = float((critic(real).mean() - critic(fake).mean()).detach())
    assert estimate == pytest.approx(wasserstein_distance(places + 3, places), rel=1e-5)
    histograms = [torch.histc(part @ direction, 50, -1, 5) / 50 for part in (real, fake)]
    assert math.isinf(float((histograms[0] * (histograms[0] / histograms[1]).log()).nansum()))


def test_noise_of_a_conditional_gan_does_not_depend_on_the_label() -> None:
    model, _, _ = build(small_config("cgan"))
    seen: list[torch.Tensor] = []
    model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for label in (0, 7):
        model.sample(torch.full((20,), label), make_rng(3))
    assert torch.equal(*seen)


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    return read_sheet(read_params(ZOO))


def changed(sheet: Sheet, scores: dict[str, dict[str, float]]) -> Sheet:
    """The sheet with other scores, by model; of one that is not a number, without that score."""
    entries = dict(sheet.entries)
    for name, new in scores.items():
        merged = entries[name].scores | new
        kept = {key: value for key, value in merged.items() if not math.isnan(value)}
        entries[name] = dataclasses.replace(entries[name], scores=kept)
    return Sheet(entries, sheet.families)


def find(model: str, text: str) -> Statement:
    (found,) = (statement for statement in ALL if (statement.model, statement.text) == (model, text))
    return found


def test_there_are_twenty_statements_and_all_are_answered(sheet: Sheet) -> None:
    assert len(ALL) == 20
    found = [answer(statement, sheet) for statement in ALL]
    assert not [one.missing for one in found if one.finding is None]
    assert not [contradiction(one) for one in found if one.is_contradicted]


@pytest.mark.parametrize("proof", sorted({statement.proof for statement in ALL if statement.proof}))
def test_every_proof_is_a_test(proof: str) -> None:
    path, _, name = proof.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_reasons_take_two_lines_at_most() -> None:
    assert max(len(statement.reason) for statement in ALL) < 120


VAES = ("vae", "vae16", "exercise_vae")
NOISY = ("diffusion", "text_diffusion")


@pytest.mark.parametrize(
    ("model", "text", "scores"),
    [
        ("RBM", "by maximising the likelihood", {"rbm": {"log_p_lower_binary": -600.0}}),
        ("flow", "by the likelihood itself", {"flow": {"bits_per_dim": 5.0}}),
        ("diffusion", "its networks are invertible", {name: {"lost_directions": 0.0} for name in NOISY}),
        ("VAE", "its output is low-dimensional", {"vae16": {"decoder_rank": 3.0}}),
        ("flow", "it keeps the dimension", {"flow": {"decoder_rank": 783.0}}),
        ("flow", "the forward map, and an approximate inverse", {"flow": {"mse_x1000": 0.01}}),
        ("VAE", "encoder and decoder; the probabilistic embedding by sampling", {"vae": {"loss_kl": 0.0}}),
        ("conditional GAN", "it factorises its latent space by classes", {"cgan": {"label_accuracy": 0.3}}),
        ("BigGAN", "it has a text module", {"biggan": {"prompt_match_seen": 0.5}}),
        ("CycleGAN", "domain adaptation", {"cyclegan": {"back_accuracy": 0.5}}),
        ("diffusion", "particularly efficient sampling", {name: {"multiply_adds_x1e6": 3.0} for name in NOISY}),
        ("guided diffusion", "samples by label or by text", {"diffusion": {"label_accuracy": 0.5}}),
        ("guided diffusion", "samples by label or by text", {"text_diffusion": {"prompt_match_seen": 0.2}}),
        ("VAE", "an explicit, analytic description of the density", {name: {"iw_bound": -1e6} for name in VAES}),
    ],
)
def test_other_evidence_stops_the_sheet(model: str, text: str, scores: dict[str, Any], sheet: Sheet) -> None:
    found = answer(find(model, text), changed(sheet, scores))
    assert found.is_contradicted
    assert f"'{model}: {text}' has the answer" in contradiction(found)


@pytest.mark.parametrize(
    ("model", "text", "losses"),
    [
        ("GAN", "the generator alone; the discriminator is fixed", {"loss_g": "generator"}),
        ("VAE", "by the reconstruction error", {"loss": "squared error"}),
        ("diffusion", "by the likelihood itself", {"loss": "negative log-likelihood, nats"}),
        ("diffusion", "the forward and the backward map", {"loss": "all", "loss_forth": "of adding noise"}),
        ("flow", "the forward map, and an approximate inverse", {"bits_per_dim": "", "inverse": "error"}),
    ],
)
def test_other_losses_stop_the_sheet(
    model: str, text: str, losses: dict[str, str], sheet: Sheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theory, "_losses", lambda _: losses)
    assert answer(find(model, text), sheet).is_contradicted


@pytest.mark.parametrize(
    ("model", "text", "slope"),
    [
        ("GAN", "the input of its discriminator has the dimension of the data", 0.0),
        ("WGAN", "its cost is the Kullback-Leibler divergence", 9.0),
        ("WGAN-CT", "it aims at a Lipschitz discriminator", 9.0),
    ],
)
def test_other_slopes_stop_the_sheet(
    model: str, text: str, slope: float, sheet: Sheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theory, "_slopes", lambda _: (slope, 0.1))
    assert answer(find(model, text), sheet).is_contradicted


def test_contradiction_can_be_shown(sheet: Sheet) -> None:
    other = changed(sheet, {"rbm": {"log_p_lower_binary": -600.0}})
    found = answer(find("RBM", "by maximising the likelihood"), other)
    assert theory._row(1, found)["answer"] == "yes, but"


def test_statement_without_its_model_stays_open(sheet: Sheet) -> None:
    left = {name: family for name, family in sheet.families.items() if family != "rbm"}
    found = answer(find("RBM", "by maximising the likelihood"), Sheet(sheet.entries, left))
    assert found.finding is None
    assert found.missing == "no model of the family rbm"
    found = answer(find("flow", "it keeps the dimension"), changed(sheet, {"flow": {"decoder_rank": math.nan}}))
    assert found.missing == "no score decoder_rank of flow"


def test_sheet_has_two_pages_and_the_same_bytes(sheet: Sheet) -> None:
    groups = {title: [answer(statement, sheet) for statement in part] for title, part in STATEMENTS.items()}
    first, second = (typeset(groups) for _ in range(2))
    assert first == second
    assert len(re.findall(rb"/Type\s*/Page\b", first)) == 2
