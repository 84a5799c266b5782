"""Stage `theory`: twenty statements about generative models, answered with evidence from this project, on two pages.

Each answer in STATEMENTS stands beside a function that reads what git keeps of the models and says what the evidence
says. The stage fails where the two disagree. A statement whose model is not among those of the params stays open.
Properties that no number shows are proven by tests, which are named. The layout is stages/theory.typ.
"""

import math
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from generative.data.images import NUM_PIXELS
from generative.errors import PipelineError
from generative.io.files import read_json, write_bytes
from generative.io.tables import read_table
from stages.common.leftovers import tidy
from stages.common.params import Params, read_params
from stages.common.paths import REAL, ROOT, Pipeline
from stages.common.published import Entry, ReportConfig, published_table, read_entries
from stages.common.typesetting import first_that_fits

TEMPLATE = Path("stages/theory.typ")
TEXT_SIZES = (9.6, 9.2, 8.8, 8.4, 8.0)  # points
_NATS, _BITS = 0.1, 0.1  # what counts as nothing
_STEEP = 2.0  # a critic whose slope stays below it is bounded
_NEAR = 0.25  # how near to 1 a slope must be
_FOLLOWED = 0.9  # of the accuracy on real images: where samples reach it, labels are followed


class Missing(Exception):  # noqa: N818 (no error: the statement stays open)
    """What the evidence is about is not among the models; the text says what."""


class Sheet:
    """What git keeps of all models, by family."""

    def __init__(self, entries: dict[str, Entry], families: dict[str, str]) -> None:
        self.entries, self.families = entries, families

    def of(self, *families: str) -> list[Entry]:
        """The models of some families that are there, the root's first; at least one."""
        found = [self.entries[name] for name, family in self.families.items() if family in families]
        if not found:
            raise Missing(f"no model of the family {families[0]}")
        return found

    def named(self, name: str) -> Entry:
        """The model of that name."""
        if name not in self.entries:
            raise Missing(f"no model {name}")
        return self.entries[name]


class Finding(NamedTuple):
    """What the evidence says: whether the statement holds, and by which numbers."""

    holds: bool
    numbers: str


class Statement(NamedTuple):
    """A statement about a model, its answer and why; where the answer depends on reading, the other one."""

    model: str
    text: str
    answer: bool
    reason: str
    evidence: Callable[[Sheet], Finding]
    proof: str = ""  # a test
    other: str = ""
    picture: tuple[str, str] = ("", "")  # its path, and what it shows


class Answered(NamedTuple):
    """A statement with its evidence; None where there is no model to ask."""

    statement: Statement
    finding: Finding | None
    missing: str

    @property
    def is_contradicted(self) -> bool:
        """Whether the evidence says something else than the answer."""
        return self.finding is not None and self.finding.holds != self.statement.answer


def main(here: Pipeline) -> None:
    """Write the sheet.

    Raises:
        PipelineError: an answer and its evidence disagree.
    """
    params = read_params(here)
    tidy(params)
    sheet, strict = read_sheet(params), params.block("report", ReportConfig).contradictions == "fail"
    groups = {title: [answer(one, sheet) for one in part] for title, part in STATEMENTS.items()}
    against = [found for part in groups.values() for found in part if found.is_contradicted]
    if against and strict:
        raise PipelineError(
            f"answers of the sheet and their evidence disagree: {'; '.join(map(contradiction, against))}. Mend the "
            "answer in stages/theory.py, or what the numbers come from; for models that are trained too briefly on "
            "purpose, set 'report.contradictions' to 'show'."
        )
    write_bytes(here.folder / "theory.pdf", typeset(groups))


def read_sheet(params: Params) -> Sheet:
    """The models of the root and of the pipeline of `params`."""
    settings = {ROOT: read_params(), params.here: params}
    entries = read_entries(params)
    families = {
        name: str(settings[entry.home].item("models", name).get("family"))
        for name, entry in entries.items()
        if name != REAL
    }
    return Sheet(entries, families)


def answer(statement: Statement, sheet: Sheet) -> Answered:
    """The statement with its evidence, or with what is missing for it."""
    try:
        return Answered(statement, statement.evidence(sheet), "")
    except Missing as missing:
        return Answered(statement, None, str(missing))


def contradiction(found: Answered) -> str:
    """A sentence about an answer and evidence that disagree."""
    assert found.finding is not None
    yes, no = ("yes", "no") if found.statement.answer else ("no", "yes")
    asked = f"{found.statement.model}: {found.statement.text}"
    return f"'{asked}' has the answer {yes}, but the evidence says {no} ({found.finding.numbers})"


def typeset(groups: dict[str, list[Answered]]) -> bytes:
    """The PDF, in the largest of TEXT_SIZES that fits two pages; the same bytes for the same answers and figures.

    Raises:
        PipelineError: a figure cannot be read, or the template is wrong.
    """
    numbers = count(1)
    numbered = {title: [(next(numbers), found) for found in part] for title, part in groups.items()}
    context = {"groups": [[title, [_row(*one) for one in part], _pictures(part)] for title, part in numbered.items()]}
    contexts = (context | {"text_size": size} for size in TEXT_SIZES)
    return first_that_fits(TEMPLATE, contexts, name="theory sheet")


def _pictures(part: list[tuple[int, Answered]]) -> list[list[str]]:
    """The pictures of a group that there are, with the numbers of their statements."""
    shown = [(number, *found.statement.picture) for number, found in part]
    return [[f"/{path}", f"{number}: {words}"] for number, path, words in shown if path and Path(path).exists()]


def _row(number: int, found: Answered) -> dict[str, str]:
    statement = found.statement
    word = "open" if found.finding is None else "yes" if statement.answer else "no"
    word += ", but" if found.is_contradicted else ""
    return {
        "number": str(number),
        "model": statement.model,
        "text": statement.text,
        "answer": word,
        "reason": statement.reason,
        "other": statement.other,
        "numbers": found.finding.numbers if found.finding else f"this run has {found.missing}",
        "proof": statement.proof,
    }


def _score(entry: Entry, key: str) -> float:
    if key not in entry.scores:
        raise Missing(f"no score {key} of {entry.name}")
    return entry.scores[key]


def _with(key: str, entries: list[Entry]) -> list[Entry]:
    """Those that have a score; at least one."""
    found = [entry for entry in entries if key in entry.scores]
    if not found:
        raise Missing(f"no score {key} of {entries[0].name}")
    return found


def _table(entry: Entry, name: str) -> pd.DataFrame:
    path = entry.folder / name
    if not path.exists():
        raise Missing(f"no {name} of {entry.name}")
    return read_table(path)


def _value(table: pd.DataFrame, column: str, row: int, entry: Entry) -> float:
    """A number of a table of a model."""
    if column not in table or not len(table):
        raise Missing(f"no {column} of {entry.name}")
    return float(table[column].iloc[row])


def _losses(entry: Entry) -> dict[str, str]:
    """What was minimised, by its name, in words."""
    found: dict[str, str] = read_json(entry.folder / "losses.json")
    return found


def _slopes(entry: Entry) -> tuple[float, float]:
    """Of the gradient of a critic around real images, in what it sees of them: mean norm, and standard deviation."""
    found = published_table(entry.folder, "gradient_shares")
    if found is None:
        raise Missing(f"no norms of gradients of {entry.name}")
    return _value(found, "mean", 0, entry), _value(found, "standard deviation", 0, entry)


def _each(entries: Sequence[Entry], form: Callable[[Entry], str]) -> str:
    return ", ".join(f"{entry.name} {form(entry)}" for entry in entries)


def _rbm_likelihood(sheet: Sheet) -> Finding:
    (machine, *_) = sheet.of("rbm")
    estimate, below = _score(machine, "log_p_estimate_binary"), _score(machine, "log_p_lower_binary")
    nothing = -NUM_PIXELS * math.log(2)
    return Finding(
        below > nothing,
        f"log p(x) of test images rose from {nothing:.0f} to {below:.1f} nats at least ({estimate:.1f})",
    )


def _vae_reconstruction(sheet: Sheet) -> Finding:
    found = _with("loss_kl", sheet.of("vae", "vae_gan"))
    words = {entry.name: " ".join(_losses(entry).values()) for entry in found}
    bounded = [name for name, word in words.items() if "evidence lower bound" in word]
    numbers = _each(found, lambda entry: f"{_score(entry, 'loss_kl'):.1f}")
    return Finding(
        not bounded,
        f"the negative bound is minimised by {', '.join(bounded) or 'none'}; its other term: {numbers} nats",
    )


def _flow_likelihood(sheet: Sheet) -> Finding:
    (flow, *_) = sheet.of("flow")
    exact, losses = _score(flow, "bits_per_dim"), _losses(flow)
    key = next((key for key, word in losses.items() if "log-likelihood" in word), "")
    minimised = _value(_table(flow, "curves.tsv"), f"validation_{key}", -1, flow) if key else math.nan
    return Finding(
        "log_p_exact" in flow.scores and abs(minimised - exact) < _BITS,
        f"minimised: {minimised:.2f} bits per dimension on validation images; exact: {exact:.2f} on test images",
    )


def _diffusion_likelihood(sheet: Sheet) -> Finding:
    found = sheet.of("diffusion", "text_diffusion")
    words = list(dict.fromkeys(word for entry in found for word in _losses(entry).values()))
    likelihoods = [word for word in words if "likelihood" in word or "log p" in word]
    return Finding(bool(likelihoods), f"minimised: {'; '.join(words[1:] or words)}")


def _diffusion_invertible(sheet: Sheet) -> Finding:
    found = sheet.of("diffusion", "text_diffusion")
    lost = _each(found, lambda entry: f"{_score(entry, 'lost_directions'):.0%}")
    return Finding(
        not any(_score(entry, "lost_directions") > 0 for entry in found),
        f"directions in which strong noise can move by its size, and the image by no half grey level: {lost}",
    )


def _vae_output(sheet: Sheet) -> Finding:
    found = _with("decoder_rank", sheet.of("vae", "vae_gan"))
    ranks = {_score(entry, "decoder_rank") for entry in found}
    chosen = all(_score(entry, "decoder_rank") == _score(entry, "latent_dimensions") for entry in found)
    if len(found) > 1 and len({_score(entry, "latent_dimensions") for entry in found}) == 1:
        raise Missing("no VAEs of different latent_dim")
    words = _each(found, lambda entry: f"{_score(entry, 'decoder_rank'):.0f}")
    asked = _each(found, lambda entry: f"{_score(entry, 'latent_dimensions'):.0f}")
    return Finding(
        not (chosen and len(ranks) > 1),
        f"{NUM_PIXELS} outputs; rank of the decoder's Jacobian: {words}; latent_dim: {asked}",
    )


def _critic_input(sheet: Sheet) -> Finding:
    critics = sheet.of("wgan")
    steepness = _each(critics, lambda entry: f"{_slopes(entry)[0]:.2f}")
    return Finding(
        all(_slopes(entry)[0] > 0 for entry in critics),
        f"slope of critics in what they see of {NUM_PIXELS} pixels (grey levels, enlarged detail): {steepness}",
    )


def _flow_dimension(sheet: Sheet) -> Finding:
    (flow, *_) = sheet.of("flow")
    dimensions, found = _score(flow, "latent_dimensions"), _score(flow, "decoder_rank")
    return Finding(
        dimensions == found == NUM_PIXELS, f"{dimensions:.0f} latent numbers, rank {found:.0f}, {NUM_PIXELS} pixels"
    )


def _gan_training(sheet: Sheet) -> Finding:
    (gan, *_) = sheet.of("gan")
    if "loss_d" not in _losses(gan):
        return Finding(True, "no loss of a discriminator is minimised")
    last = _value(_table(gan, "curves.tsv"), "validation_loss_d", -1, gan)
    fooled = 2 * math.log(2)  # of one that knows nothing of what it judges
    return Finding(
        last >= fooled,
        f"the discriminator still tells samples from images: its loss is {last:.2f}, by chance {fooled:.2f}",
    )


def _flow_inverse(sheet: Sheet) -> Finding:
    (flow, *_) = sheet.of("flow")
    error, losses = _score(flow, "mse_x1000"), _losses(flow)
    return Finding(
        error > 0 or len(losses) > 1,
        f"forth and back, MSE × 1000 of grey levels: {error:.4f}; minimised: {'; '.join(losses.values())}",
    )


def _vae_training(sheet: Sheet) -> Finding:
    found = _with("loss_kl", sheet.of("vae", "vae_gan"))
    numbers = _each(found, lambda entry: f"{entry.scores['loss_kl']:.1f}")
    return Finding(
        all(entry.scores["loss_kl"] > _NATS for entry in found),
        f"what sampled embeddings say of their images, nats: {numbers}",
    )


def _diffusion_training(sheet: Sheet) -> Finding:
    (diffusion, *_) = sheet.of("diffusion")
    parts = {key: word for key, word in _losses(diffusion).items() if key != "loss"}
    forward = {key: word for key, word in parts.items() if key not in ("loss_denoising", "loss_guide")}
    return Finding(bool(forward), f"minimised: {'; '.join((forward or parts).values())}")


def _wgan_cost(sheet: Sheet) -> Finding:
    critic = sheet.of("wgan")[0]
    curves, slope = _table(critic, "curves.tsv"), _slopes(critic)[0]
    first, last = (_value(curves, "validation_critic_estimate", at, critic) for at in (0, -1))
    return Finding(
        not (slope < _STEEP and 0 < last < first),
        f"{critic.name}: a difference of mean verdicts, {first:.2f} after an epoch, {last:.2f} at the end, of a critic "
        f"with slope {slope:.2f}",
    )


def _wgan_ct(sheet: Sheet) -> Finding:
    consistent = sheet.named("wgan_ct")
    others = [entry for entry in sheet.of("wgan") if entry.name != consistent.name]
    mean, spread = _slopes(consistent)
    words = _each([consistent, *others], lambda entry: f"{_slopes(entry)[0]:.2f}")
    return Finding(
        abs(mean - 1) < _NEAR and spread < _NEAR,
        f"slope around real images: {words}; its standard deviation over images: {spread:.2f}",
    )


def _factorised(sheet: Sheet) -> Finding:
    (cgan, *_) = sheet.of("cgan")
    right, real = _score(cgan, "label_accuracy"), _score(sheet.named(REAL), "label_accuracy")
    return Finding(
        right > _FOLLOWED * real,
        f"whatever the noise, {right:.1%} of samples look like the class asked for (real images: {real:.1%})",
    )


def _text_module(sheet: Sheet) -> Finding:
    (biggan, *_) = sheet.of("biggan")
    reads = [key for key in biggan.scores if key.startswith("prompt_")]
    right = _score(biggan, "label_accuracy")
    return Finding(bool(reads), f"it follows labels ({right:.1%}), and has {len(reads)} scores of prompts")


def _domain_adaptation(sheet: Sheet) -> Finding:
    (translator, *_) = sheet.of("cyclegan")
    source, target, back = (_score(translator, f"{key}_accuracy") for key in ("source", "target", "back"))
    return Finding(
        back - target > (source - target) / 2,
        f"a classifier of photographs is right on {source:.1%} of photographs, {target:.1%} of drawings, "
        f"{back:.1%} of drawings turned into photographs",
    )


def _efficient(sheet: Sheet) -> Finding:
    diffusion = sheet.of("diffusion", "text_diffusion")
    others = sheet.of("cgan", "gan", "biggan", "vae", "vae_gan", "flow")
    cost = {entry.name: _score(entry, "multiply_adds_x1e6") for entry in (*diffusion, *others)}
    steps = _each(diffusion, lambda entry: f"{_score(entry, 'nfe'):.0f} evaluations and {cost[entry.name]:.0f} M")
    dearest = max(others, key=lambda entry: cost[entry.name])
    most = max(_score(entry, "nfe") for entry in others)
    return Finding(
        all(cost[entry.name] <= cost[dearest.name] for entry in diffusion),
        f"evaluations and multiply-adds of a sample: {steps}; GANs, VAEs and flow at most {most:.0f} and "
        f"{cost[dearest.name]:.0f} M ({dearest.name})",
    )


def _guided(sheet: Sheet) -> Finding:
    (labels, *_), (texts, *_) = sheet.of("diffusion"), sheet.of("text_diffusion")
    sweeps = _table(labels, "sweeps.tsv")
    rows = sweeps[(sweeps["setting"] == "guidance") & (sweeps["value"] == 1)]
    plain, guided = _value(rows, "label_accuracy", 0, labels), _score(labels, "label_accuracy")
    right, real = _score(texts, "prompt_match_seen"), _score(texts, "prompt_match_real")
    return Finding(
        guided > plain and right > real / 2,
        f"label accuracy {plain:.1%} without guidance, {guided:.1%} with; all of a caption in {right:.1%} of samples "
        f"(real images: {real:.1%})",
    )


def _analytic(sheet: Sheet) -> Finding:
    found = _with("iw_bound", sheet.of("vae", "vae_gan"))
    gaps = _each(found, lambda entry: f"{_score(entry, 'iw_bound') - _score(entry, 'elbo'):.1f}")
    return Finding(
        not any(_score(entry, "iw_bound") > _score(entry, "elbo") + entry.error("iw_bound") for entry in found),
        f"the bound that is maximised lies below log p(x), nats, by at least: {gaps}",
    )


STATEMENTS: dict[str, list[Statement]] = {
    "What is it trained by?": [
        Statement(
            "RBM",
            "by maximising the likelihood",
            True,
            "The update estimates the gradient of log p(x): data minus model averages, these from persistent chains.",
            _rbm_likelihood,
            "tests/test_rbm.py::test_update_follows_the_gradient_of_the_likelihood",
        ),
        Statement(
            "VAE",
            "by the reconstruction error",
            False,
            "By a bound on log p(x), of which the reconstruction is one term; without the other it is an autoencoder.",
            _vae_reconstruction,
            other="yes, if one of two terms is enough",
        ),
        Statement(
            "flow",
            "by the likelihood itself",
            True,
            "Change of variables: log p(x) is the latent density and a log-determinant, both computed exactly.",
            _flow_likelihood,
            "tests/test_flow.py::test_likelihood_is_the_change_of_variables",
        ),
        Statement(
            "diffusion",
            "by the likelihood itself",
            False,
            "By the squared error of denoised images, weighted against how hard each level of noise is.",
            _diffusion_likelihood,
            other="nearly, if a bound counts: with other weights the same error is one (Kingma et al. 2021, NeurIPS)",
        ),
    ],
    "What must hold?": [
        Statement(
            "diffusion",
            "its networks are invertible",
            False,
            "A denoiser has to forget noise, and in practice cannot be undone. Even a network that says 0 is one.",
            _diffusion_invertible,
            "tests/test_theory.py::test_denoiser_need_not_be_invertible",
            other="the path of sampling as a whole can be run backwards",
            picture=("zoo/plots/figures/diffusion/denoised_path.png", "one image, made of less and less noise."),
        ),
        Statement(
            "VAE",
            "its output is low-dimensional",
            False,
            "Its output is an image. That images lie on a surface of few dimensions is a choice, latent_dim.",
            _vae_output,
            other="yes, of that surface, as long as latent_dim is small",
            picture=("plots/figures/vae/latent_grid.png", "all that a VAE of two dimensions can say."),
        ),
        Statement(
            "GAN",
            "the input of its discriminator has the dimension of the data",
            True,
            "It judges real images and samples, both of 784 pixels.",
            _critic_input,
            "tests/test_theory.py::test_discriminators_look_at_every_pixel",
        ),
        Statement(
            "flow",
            "it keeps the dimension",
            True,
            "A bijection with a Jacobian must have as many outputs as inputs.",
            _flow_dimension,
            "tests/test_flow.py::test_whole_model_has_the_determinant_of_its_jacobian",
        ),
    ],
    "What is trained?": [
        Statement(
            "GAN",
            "the generator alone; the discriminator is fixed",
            False,
            "Both in turn. A fixed discriminator would be fooled once, and teach nothing more.",
            _gan_training,
            "tests/test_theory.py::test_both_networks_of_a_gan_learn",
        ),
        Statement(
            "flow",
            "the forward map, and an approximate inverse",
            False,
            "One map, whose inverse is exact and has the same weights.",
            _flow_inverse,
            "tests/test_flow.py::test_trained_flow_is_inverted_within_a_ten_thousandth",
        ),
        Statement(
            "VAE",
            "encoder and decoder; the probabilistic embedding by sampling",
            True,
            "The gradient passes through a sample, written as mean + deviation × noise, into the encoder.",
            _vae_training,
            "tests/test_theory.py::test_gradient_passes_through_the_sample",
        ),
        Statement(
            "diffusion",
            "the forward and the backward map",
            False,
            "Forward, noise is added by a formula without weights; the way back alone is learned.",
            _diffusion_training,
            "tests/test_theory.py::test_noise_is_added_by_a_formula",
        ),
    ],
    "Which variant is it?": [
        Statement(
            "WGAN",
            "its cost is the Kullback-Leibler divergence",
            False,
            "The earth mover's distance, by a critic of bounded slope; the divergence of disjoint sets is infinite.",
            _wgan_cost,
            "tests/test_theory.py::test_critic_measures_the_earth_movers_distance",
        ),
        Statement(
            "WGAN-CT",
            "it aims at a Lipschitz discriminator",
            True,
            "Besides the gradient penalty it keeps verdicts on a real image under dropout together.",
            _wgan_ct,
            "tests/test_adversarial.py::test_consistency_term_by_hand",
            picture=(
                "zoo/plots/comparison/gradient_norms.png",
                "how steep critics are: clipped weights, a penalty, and its consistency term.",
            ),
        ),
        Statement(
            "conditional GAN",
            "it factorises its latent space by classes",
            True,
            "Noise and label are independent factors of the input: the label has the class, the noise the rest.",
            _factorised,
            "tests/test_theory.py::test_noise_of_a_conditional_gan_does_not_depend_on_the_label",
            other="no, if the noise should fall into regions of classes: it knows none",
        ),
        Statement(
            "BigGAN",
            "it has a text module",
            False,
            "The class is an embedding that scales and shifts normalisations; no part reads text.",
            _text_module,
        ),
    ],
    "What is it for?": [
        Statement(
            "CycleGAN",
            "domain adaptation",
            True,
            "Images of a domain without labels are turned into such of the domain that a classifier knows.",
            _domain_adaptation,
            picture=("zoo/plots/figures/cyclegan/translation_back.png", "no pair of these was ever seen."),
        ),
        Statement(
            "diffusion",
            "particularly efficient sampling",
            False,
            "Every sample takes many evaluations of the network, one after the other.",
            _efficient,
            picture=(
                "zoo/plots/figures/diffusion/samples_by_evaluations.png",
                "the same noise, more and more evaluations.",
            ),
        ),
        Statement(
            "guided diffusion",
            "samples by label or by text",
            True,
            "What a network that knows the condition says is pushed away from what a worse one says.",
            _guided,
            picture=("zoo/plots/figures/diffusion/samples_by_guidance.png", "the same noise, more and more guidance."),
        ),
        Statement(
            "VAE",
            "an explicit, analytic description of the density",
            False,
            "p(x) is an integral over all codes without a closed form; the training has a bound on it.",
            _analytic,
            other="yes, of p(z) and of p(x given z)",
        ),
    ],
}
