"""Captions: what is measured, what is written, what prompts mean, and what is held out."""

from itertools import product
from typing import Any

import pytest
import torch

from generative.captions import CHANCES, Combination, Grammar, Kind, Trait, measure, split_words
from generative.compute.runtime import make_rng
from generative.data.splits import Split
from generative.errors import SettingError
from generative.families.text_diffusion import Config, Model
from generative.networks.text_encoder import PADDING, START, TextEncoder
from tests.small import ZOO_PARAMS, build, disturb, make_blobs, small_config


def draw_chances(count: int, rng: torch.Generator) -> torch.Tensor:
    return torch.rand(count, CHANCES, generator=rng)


KINDS = [Kind.model_validate(block) for block in ZOO_PARAMS["models"]["text_diffusion"]["training"]["captions"]]


@pytest.fixture
def grammar() -> Grammar:
    return Grammar(KINDS)


def kinds_with(**changes: Any) -> list[Kind]:
    return [KINDS[0].model_copy(update=changes), *KINDS[1:]]


def rectangle(top: int, bottom: int, left: int, right: int, level: int = 200) -> torch.Tensor:
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., top:bottom, left:right] = level
    return image


class TestMeasures:
    def test_of_a_rectangle(self) -> None:
        found = {key: float(value) for key, value in measure(rectangle(4, 24, 8, 18)).items()}
        assert found["brightness"] == pytest.approx(200 / 255)
        assert (found["height"], found["width"]) == (20, 10)
        assert (found["upper_width"], found["lower_width"], found["side_height"]) == (10, 10, 20)
        assert (found["gap"], found["sleeves"]) == (0, 0)

    def test_of_legs_and_sleeves(self) -> None:
        image = rectangle(0, 28, 2, 26)
        image[..., 12:, 8:20] = 0
        found = {key: float(value) for key, value in measure(image).items()}
        assert (found["upper_width"], found["lower_width"], found["gap"]) == (24, 12, 12)
        assert found["sleeves"] == pytest.approx(11 * 10 / 14)  # 5 of 7 columns on each side

    def test_of_a_black_image_are_finite(self) -> None:
        for name, value in measure(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).items():
            assert value.tolist() == [0, 0], name

    def test_faint_pixels_do_not_count(self) -> None:
        assert float(measure(rectangle(0, 28, 0, 28, level=38))["height"]) == 0
        assert float(measure(rectangle(0, 28, 0, 28, level=39))["height"]) == 28


class TestCombinations:
    def test_there_are_twelve_of_each_class_and_a_fifth_is_held_out(self, grammar: Grammar) -> None:
        assert len(grammar.combinations) == len(set(grammar.combinations)) == 120
        assert sum(grammar.held_out) == 24

    def test_each_value_is_seen(self, grammar: Grammar) -> None:
        seen = [found for found, out in zip(grammar.combinations, grammar.held_out, strict=True) if not out]
        for label in range(10):
            own = [found for found in seen if found.label == label]
            assert {found.shade for found in own} == {0, 1, 2}
            for trait in range(2):
                assert {found.sides[trait] for found in own} == {0, 1}

    def test_places_are_those_of_what_is_measured(self, grammar: Grammar) -> None:
        bag = 8
        images = torch.cat(
            [
                rectangle(20 - height, 20, 14 - width // 2, 14 + width // 2, level)
                for level, width, height in product((90, 160, 230), (16, 26), (8, 18))
            ]
        )
        found = [grammar.combinations[place] for place in grammar.places(images, torch.full((12,), bag)).tolist()]
        assert found == [Combination(bag, shade, (w, h)) for shade, w, h in product((0, 1, 2), (0, 1), (0, 1))]


class TestWords:
    def test_what_is_written_is_read_back(self, grammar: Grammar) -> None:
        chances = draw_chances(40 * len(grammar.combinations), make_rng(0)).tolist()
        texts = set()
        for number, row in enumerate(chances):
            combination = grammar.combinations[number % len(grammar.combinations)]
            text = grammar.write(combination, row)
            texts.add(text)
            assert tuple(grammar.read(text)) == tuple(combination), text
            assert len(split_words(text)) < 24
        assert len(texts) > 2000  # varied wording

    def test_words_are_left_out_as_often_as_asked(self, grammar: Grammar) -> None:
        rows = draw_chances(2000, make_rng(1)).tolist()
        requests = [grammar.read(grammar.write(Combination(8, 0, (1, 1)), row, share=0.75)) for row in rows]
        for mentioned in ([r.shade for r in requests], *([r.sides[place] for r in requests] for place in (0, 1))):
            assert sum(value is not None for value in mentioned) / 2000 == pytest.approx(0.75, abs=0.04)

    def test_articles(self, grammar: Grammar) -> None:
        rows = draw_chances(300, make_rng(2)).tolist()
        texts = [grammar.write(Combination(9, 0, (0, 0)), row, share=0) for row in rows]
        assert any(text == "an ankle boot" for text in texts)
        assert not any("a ankle" in text or "an boot" in text for text in texts)
        trousers = [grammar.write(Combination(1, 2, (1, 0)), row) for row in rows]
        assert not any("a trousers" in text or "a light wide trousers" in text for text in trousers)
        assert any(text.startswith("light wide trousers") for text in trousers)

    @pytest.mark.parametrize(
        ("prompt", "label", "shade", "sides"),
        [
            ("a light wide bag", 8, 2, (1, None)),
            ("Boot!", 9, None, (None, None)),
            ("an ANKLE BOOT, with a heel", 9, None, (None, 1)),
            ("pale sleeveless dress", 3, 2, (0, None)),
            ("black", None, 0, ()),
        ],
    )
    def test_prompts(self, grammar: Grammar, prompt: str, label: int | None, shade: int | None, sides: Any) -> None:
        assert tuple(grammar.read(prompt)) == (label, shade, sides)

    @pytest.mark.parametrize(
        ("prompt", "words"),
        [
            ("a purple bag of leather", ["purple, leather", "bag"]),
            ("  ", ["empty"]),
            ("a bag and a dress", ["more than one class"]),
            ("a dark light bag", ["more than one brightness"]),
            ("a wide narrow bag", ["both narrow and wide"]),
            ("a bag with a heel", ["'with heel' in the prompt 'a bag with a heel' says nothing of a bag", "deep"]),
        ],
    )
    def test_what_cannot_be_read_is_named(self, grammar: Grammar, prompt: str, words: list[str]) -> None:
        with pytest.raises(SettingError) as caught:
            grammar.read(prompt)
        for word in words:
            assert word in str(caught.value)

    def test_ambiguous_words_are_refused(self) -> None:
        block = ZOO_PARAMS["models"]["text_diffusion"]
        captions = [block["training"]["captions"][0] | {"names": ["bag"]}, *block["training"]["captions"][1:]]
        twice = block | {"training": block["training"] | {"captions": captions}}
        with pytest.raises(SettingError, match=r"'bag' in two meanings"):
            Grammar(kinds_with(names=["bag"]))
        with pytest.raises(SettingError, match=r"'photo', which means nothing"):
            Grammar(kinds_with(names=["photo"]))
        with pytest.raises(SettingError, match=r"'models.text.training.captions' is .*'bag' in two meanings"):
            Config.parse(twice, where="models.text")
        traits = [KINDS[0].traits[0].model_copy(update={"words": ["wide", "with a wide sole"]})]
        with pytest.raises(SettingError, match=r"'wide' alone and as a part of 'with a wide sole'"):
            Grammar(kinds_with(traits=traits))

    def test_followed_are_prompts_whose_attributes_are_measured(self, grammar: Grammar) -> None:
        bag = rectangle(8, 20, 1, 27, level=230)
        prompts = ["a bag", "a light wide bag", "a wide bag", "a narrow bag", "a dark bag", "light"]
        assert grammar.follows(bag.repeat(6, 1, 1, 1), prompts).tolist() == [True, True, True, False, False, True]


class TestTextDiffusion:
    def test_held_out_combinations_are_never_trained_on(self) -> None:
        model, objective, _ = build(small_config("text_diffusion"))
        blobs = make_blobs()
        grammar: Grammar = model.grammar
        out = torch.tensor(grammar.held_out)
        assert out[grammar.places(blobs.images, blobs.labels)].any()
        rng = make_rng(0)
        count = 0
        for _ in range(2):
            for x, y in objective.batches(blobs, 40, rng, rank=0, world_size=1):
                assert not out[grammar.places((255 * x).round().to(torch.uint8), y)].any()
                count += len(x)
        assert count == 2 * len(blobs)
        assert float(model.shares.sum()) == pytest.approx(1)
        assert float(model.shares[out].sum()) == 0

    def test_no_image_left_is_one_sentence(self) -> None:
        model, objective, _ = build(small_config("text_diffusion"))
        place = model.grammar.held_out.index(True)
        combination = model.grammar.combinations[place]
        assert combination == Combination(0, 0, (0, 0))
        dark = rectangle(10, 14, 10, 14, level=60)
        with pytest.raises(SettingError, match="every training image of class 0"):
            objective.choose(Split(dark, torch.zeros(1, dtype=torch.int64)), make_rng(0))

    def test_captions_of_labels_are_of_seen_combinations(self) -> None:
        model, objective, _ = build(small_config("text_diffusion"))
        objective.choose(make_blobs(), make_rng(0))
        words = {number: word for word, number in model.tokens.items()}
        labels = torch.arange(10).repeat(20)
        for label, row in zip(labels.tolist(), model.tell_labels(labels, make_rng(0)).tolist(), strict=True):
            request = model.grammar.read(" ".join(words[number] for number in row if number in words))
            assert request.label == label
            fitting = [
                place
                for place, found in enumerate(model.grammar.combinations)
                if found.label == label
                and request.shade in (None, found.shade)
                and all(side in (None, own) for side, own in zip(request.sides, found.sides, strict=True))
            ]
            assert float(model.shares[fitting].max()) > 0

    def test_prompts_to_be_scored_are_of_both_groups_and_name_all(self) -> None:
        model, _, _ = build(small_config("text_diffusion"))
        prompts = model.test_prompts(400, make_rng(0))
        assert [prompt.group for prompt in prompts[:2]] == ["seen", "held_out"]
        for group, wanted in (("seen", False), ("held_out", True)):
            found = [Combination(*model.grammar.read(prompt.text)) for prompt in prompts if prompt.group == group]
            assert [combination.label for combination in found] == [p.label for p in prompts if p.group == group]
            places = {model.grammar.combinations.index(combination) for combination in found}
            assert {model.grammar.held_out[place] for place in places} == {wanted}
            assert len(places) == (24 if wanted else 96)

    def test_likelihoods_of_combinations_are_sums_over_their_parts(self) -> None:
        model, _, _ = build(small_config("text_diffusion"))
        told = model.tell(["a light wide bag", "a shirt"], torch.device("cpu"))
        likely = model.read(told)
        assert likely.exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
        kinds = {combination: place for place, combination in enumerate(model.grammar.combinations)}
        bag = [likely[:, kinds[Combination(8, shade, sides)]] for shade in (0, 2) for sides in ((0, 1), (1, 1))]
        assert torch.allclose(bag[0] + bag[3], bag[1] + bag[2], atol=1e-5)

    def test_told_the_class_alone_each_combination_is_as_likely_as_in_training(self) -> None:
        model, objective, _ = build(small_config("text_diffusion"))
        objective.choose(make_blobs(), make_rng(0))
        likely = model.read(model.tell(["a light wide bag", "a shirt"], torch.device("cpu")))
        found = model._of_class(likely).prior.exp()
        owners = torch.tensor([combination.label for combination in model.grammar.combinations])
        for label in range(10):
            own = owners == label
            share = model.shares[own] / model.shares[own].sum()
            wanted = likely[:, own].exp().sum(1, keepdim=True) * share
            assert torch.allclose(found[:, own], wanted, atol=1e-5)

    def test_attribute_guidance_acts_on_what_is_asked_beside_the_class(self) -> None:
        config = small_config("text_diffusion")
        model, objective, _ = build(config)
        objective.choose(make_blobs(), make_rng(0))
        model.eval()
        disturb(model)

        def draw(weight: float) -> torch.Tensor:
            changes = {"attribute_guidance": weight, "attributes_from": 0.0, "guided_to": 100.0}
            model.sampling = config.sampling.model_copy(update=changes)
            images: torch.Tensor = model.draw(["a light wide bag"], make_rng(1))
            return images

        assert not torch.equal(draw(1.0), draw(3.0))
        assert torch.equal(draw(1.0), draw(1.0))

    def test_wrong_number_of_captions_is_named(self) -> None:
        config = small_config("text_diffusion")
        with pytest.raises(SettingError, match="10 classes, but the data have 7"):
            Model(config.training, 7)

    def test_long_prompts_are_refused(self) -> None:
        model, _, _ = build(small_config("text_diffusion"))
        with pytest.raises(SettingError, match="30 words; at most 23"):
            model.draw(["a " * 29 + "bag"], make_rng(0))

    def test_real_images_have_what_their_captions_say(self) -> None:
        model, _, _ = build(small_config("text_diffusion"))
        blobs = make_blobs()
        assert model.attributes_match(blobs.images, model.captions(blobs)).all()


class TestReading:
    def test_training_reads_captions_of_combinations_that_it_never_met(self) -> None:
        model, _, _ = build(small_config("text_diffusion"), 400)
        grammar, rng = model.grammar, make_rng(0)
        held_out = torch.tensor(grammar.held_out)
        seen = (~held_out).nonzero()[:, 0]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(400):
            places = seen[torch.randint(len(seen), (40,), generator=rng)]
            loss = torch.nn.functional.nll_loss(
                model.read(model.captioned(places, torch.rand(40, generator=rng))), places
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        places = torch.arange(len(held_out)).repeat(3)
        told = model.tell_captions(model._write(places, 1.0), torch.device("cpu"))
        right = model.read(told).argmax(1) == places
        assert float(right[~held_out[places]].float().mean()) > 0.95
        assert float(right[held_out[places]].float().mean()) > 0.8


class TestTextEncoder:
    def test_padding_changes_nothing_and_words_do(self) -> None:
        torch.manual_seed(0)
        encoder = TextEncoder(5, 8, 16)
        short = encoder(torch.tensor([[START, 3, 4]]))
        long = encoder(torch.tensor([[START, 3, 4, PADDING, PADDING]]))
        assert torch.allclose(short, long, atol=1e-6)
        assert not torch.allclose(short, encoder(torch.tensor([[START, 3, 5]])), atol=1e-3)
        assert torch.isfinite(encoder(torch.tensor([[START]]))).all()


def test_four_traits_are_the_most_that_a_caption_has_chances_for() -> None:
    measures = ("height", "width", "upper_width", "lower_width")
    words = {measure: measure.replace("_", "-") for measure in measures}
    traits = [
        Trait.model_validate({"measure": measure, "bound": 5.0, "words": [f"less-{word}", f"more-{word}"]})
        for measure, word in words.items()
    ]
    grammar = Grammar(kinds_with(traits=traits))
    combination = grammar.combinations[47]
    assert combination == Combination(0, 2, (1, 1, 1, 1))
    assert tuple(grammar.read(grammar.write(combination, [0.5] * CHANCES))) == tuple(combination)
