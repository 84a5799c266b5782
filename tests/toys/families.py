"""The text of each toy's file, by the name of the family: what it adds to `toy_base`."""

_HEAD = '''"""{words}"""

import torch

from generative.networks.toy_base import SMALL as SMALL
from generative.networks.toy_base import Training as Training
from generative.networks.toy_base import ToyConfig, ToyModel, ToyObjective
{imports}

class Config(ToyConfig):
    pass


'''

_SAMPLER = """class Model(ToyModel, DrawsSamples):
    conditional = True

    def sample(self, labels, rng):
        return self.noisy(labels, rng)


class Objective(ToyObjective):
    def draw(self, labels, rng):
        return self.raw_model.noisy(labels, rng)
"""

_TWO_CLASSES = """class Model(ToyModel, DrawsSamples):
    conditional = True
    classes = (1, 7)

    def sample(self, labels, rng):
        return self.noisy(labels, rng)


class Objective(ToyObjective):
    pass
"""

_SWEPT = """class Sampling(SamplingConfig):
    spread: float


class Config(ToyConfig):
    sampling: Sampling


class Model(ToyModel, DrawsSamples):
    @property
    def nfe(self):
        return 3

    def sample(self, labels, rng):
        x = self(torch.randint(10, labels.shape, generator=rng))
        return (x + self.sampling.spread * torch.rand(x.shape, generator=rng)).clamp(0, 1)


class Objective(ToyObjective):
    scaleless = ("squared_error",)

    @classmethod
    def steps_per_epoch(cls, count, batch_size):
        return 5

    @classmethod
    def batches(cls, train, batch_size, rng, *, rank, world_size):
        for _ in range(5):
            chosen = torch.randint(len(train), (batch_size,), generator=rng)
            yield train.images[chosen].float() / 255, train.labels[chosen]

    def update(self, x, y, rng):
        scalars = super().update(x, y, rng)
        return scalars if self.steps % 2 else scalars | {"seldom": scalars["squared_error"]}
"""

_ENCODER = '''class Model(ToyModel, EncodesImages):
    """The image itself is the code: as many numbers as pixels, a perfect reconstruction."""

    def encode(self, x):
        return x.flatten(1)

    def decode(self, z):
        return z.view(-1, 1, 28, 28).clamp(0, 1)


class Objective(ToyObjective):
    pass
'''

_LIKELIHOOD = """class Model(ToyModel, BoundsLikelihood):
    likelihood_kind = "estimate"
    likelihood_of = "binary"

    def log_likelihood(self, x, rng):
        nats = -x.flatten(1).sum(1)
        return Likelihood(nats, {"term": 2 * nats}, shared_error=0.5)

    def lower_bound(self, x, rng):
        assert set(x.unique().tolist()) <= {0.0, 1.0}
        return -x.flatten(1).sum(1) - 1


class Objective(ToyObjective):
    pass
"""

_BOUND = """class Model(ToyModel, WeighsPosteriorSamples):
    def log_likelihood(self, x, rng):
        nats = -x.flatten(1).sum(1)
        return Likelihood(nats, {"loss_kl": -nats})

    def log_weights(self, x, count, rng):
        return -x.flatten(1).sum(1, keepdim=True) + torch.randn(len(x), count, generator=rng)

    def posterior_means(self, x):
        return x.flatten(1)[:, :5]


class Objective(ToyObjective):
    pass
"""

_TRANSLATOR = """class Model(ToyModel, TranslatesDomains):
    domains = ("photographs", "negatives")

    def render(self, x):
        return 1 - x

    def translate(self, x, source):
        return (1 - x) * 0.9


class Objective(ToyObjective):
    pass
"""

_PROMPTED = """class Model(ToyModel, FollowsPrompts):
    def test_prompts(self, count, rng):
        words = [("trouser", 1), ("sneaker", 7)]
        return [Prompt(f"a {words[i % 2][0]}", words[i % 2][1], ("seen", "held_out")[i % 2]) for i in range(count)]

    def draw(self, prompts, rng):
        return self.noisy(torch.tensor([1 if "trouser" in prompt else 7 for prompt in prompts]), rng)

    def attributes_match(self, images, prompts):
        return images.float().mean((1, 2, 3)) > 10

    def captions(self, split):
        return ["a trouser"] * len(split)


class Objective(ToyObjective):
    pass
"""

_DIAGNOSED = """class Model(ToyModel, HasDiagnostics):
    def diagnose(self, examples, rng):
        x = torch.linspace(0, 1, 5)
        return {
            "norms": Curves("norms of gradients", "layer", "norm", x, {"a": x**2, "b": x}),
            "filters": Strip("filters", self(torch.arange(10)).unsqueeze(0)),
            "numbers": Table("numbers", torch.eye(2), ["one", "two"], ["first", "second"]),
        }


class Objective(ToyObjective):
    pass
"""

_READER = '''class Training(ReadsExtractor):
    pass


class Config(ToyConfig):
    training: Training


class Model(ToyModel, DrawsSamples):
    conditional = True

    def sample(self, labels, rng):
        return self.noisy(labels, rng)


class Objective(ToyObjective):
    """Matches features beside pixels."""

    def __init__(self, model, config, fabric, total_steps, extractor):
        super().__init__(model, config, fabric, total_steps)
        self.extractor = extractor

    def terms(self, x, y, rng):
        matched = (self.extractor(self.network(y))[0] - self.extractor(x)[0]).square().mean()
        return {"squared_error": super().terms(x, y, rng)["squared_error"] + 0.01 * matched}
'''

_IMPORTS = {
    "DrawsSamples": "sampling",
    "EncodesImages": "encoding",
    "FollowsPrompts": "prompting",
    "Prompt": "prompting",
    "HasDiagnostics": "diagnosing",
    "Curves": "diagnosing",
    "Strip": "diagnosing",
    "Table": "diagnosing",
    "BoundsLikelihood": "likelihood",
    "Likelihood": "likelihood",
    "WeighsPosteriorSamples": "likelihood",
    "TranslatesDomains": "translation",
}
_OF_FAMILIES = ("SamplingConfig", "ReadsExtractor")

_BODIES = {
    "toy_sampler": _SAMPLER,
    "toy_two_classes": _TWO_CLASSES,
    "toy_swept": _SWEPT,
    "toy_encoder": _ENCODER,
    "toy_likelihood": _LIKELIHOOD,
    "toy_bound": _BOUND,
    "toy_translator": _TRANSLATOR,
    "toy_prompted": _PROMPTED,
    "toy_diagnosed": _DIAGNOSED,
    "toy_reader": _READER,
}


def _methods(body: str) -> str:
    """What a body's Model has, without the line of the class."""
    model = body[body.index("class Model(") :].partition("class Objective")[0]
    return model.partition("\n")[2].rstrip()


def _everything() -> str:
    parts = ("toy_sampler", "toy_encoder", "toy_bound", "toy_translator", "toy_prompted", "toy_diagnosed")
    bases = "DrawsSamples, EncodesImages, WeighsPosteriorSamples, TranslatesDomains, FollowsPrompts, HasDiagnostics"
    methods = "\n\n".join(_methods(_BODIES[name]) for name in parts).replace(
        "x.flatten(1)\n\n    def decode", "x.flatten(1)\n\n    def decode"
    )
    objective = _SAMPLER[_SAMPLER.index("class Objective") :]
    return f"class Model(ToyModel, {bases}):\n{methods}\n\n\n{objective}"


_BODIES["toy_everything"] = _everything()


def text_of(name: str) -> str:
    """The file of the family `name`."""
    body = _BODIES[name]
    used = {key: module for key, module in _IMPORTS.items() if key in body}
    lines = [f"from generative.capabilities.{module} import {key}" for key, module in used.items()]
    lines += [f"from generative.family import {key}" for key in _OF_FAMILIES if key in body]
    head = _HEAD.format(words=f"{name}.", imports="\n".join(lines))
    if "class Config" in body or "class Training" in body:
        head = head.replace("class Config(ToyConfig):\n    pass\n\n\n", "")
    if "class Training" in body:
        head = head.replace("from generative.networks.toy_base import Training as Training\n", "")
    return head + body


def block_of(name: str, seed: int = 0) -> dict[str, object]:
    """The block of params of a model of the family `name`."""
    training: dict[str, object] = {"seed": seed, "epochs": 2, "batch_size": 50, "learning_rate": 0.5}
    block: dict[str, object] = {"family": name, "training": training}
    if name == "toy_swept":
        block |= {"sampling": {"spread": 0.2}, "sweeps": {"spread": [0.1, 0.3]}}
    if name in ("toy_sampler", "toy_everything"):
        training["sampled_epochs"] = [1, 2]
    if name == "toy_reader":
        training["extractor"] = "classifier"
    return block


NAMES = tuple(_BODIES)
