"""Files from a shared cache are data: damaged or hostile ones give one sentence, and no code of theirs runs."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from generative.errors import FileMissingError, PipelineError
from generative.io.tensors import load_metadata, load_tensors, load_weights
from stages.common.problems import explain


class Bomb:
    """Leaves a file behind if somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def tensor_header(**fields: object) -> bytes:
    return json.dumps({"weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | fields}).encode()


MALFORMED = {
    "empty": b"",
    "text": b"<html>404 not found</html>",
    "header without an end": (2**63).to_bytes(8, "little") + b"{}",
    "header larger than memory": (2**40).to_bytes(8, "little") + b"{}",
    "header that is no JSON": with_header(b"{weight:"),
    "data beyond the end": with_header(tensor_header(), b"1234"),
    "offsets that overlap": with_header(
        json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}).encode(), bytes(8)
    ),
    "offsets that run backwards": with_header(tensor_header(data_offsets=[8, 0]), bytes(8)),
    "more elements than data": with_header(tensor_header(shape=[2**40, 2**40]), bytes(8)),
    "negative size": with_header(tensor_header(shape=[-2]), bytes(8)),
    "unknown type": with_header(tensor_header(dtype="F1024"), bytes(8)),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (load_tensors, load_metadata):
        with pytest.raises(PipelineError, match=r"model\.safetensors is not a readable safetensors file ") as caught:
            read(path)
        assert explain(caught.value).endswith("): delete it, then `dvc pull` or `dvc repro`.")


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_pickles_are_not_run(how: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "model.safetensors", tmp_path / "exploded"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"weight": Bomb(mark)}, path)
    with pytest.raises(PipelineError, match="is not a readable safetensors file"):
        load_tensors(path)
    assert not mark.exists()


@pytest.mark.parametrize("metadata", [None, {"other": "{}"}, {"metadata": "{"}])
def test_metadata_of_somebody_else_are_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(PipelineError, match="has no readable metadata"):
        load_metadata(path)


class TestWeights:
    network = torch.nn.Linear(2, 3)

    def load(self, **changes: torch.Tensor | None) -> None:
        tensors = {key: value.clone() for key, value in self.network.state_dict().items()} | changes
        given = {key: value for key, value in tensors.items() if value is not None}
        load_weights(torch.nn.Linear(2, 3), given, path=Path("models/x.safetensors"))

    def test_right_ones_are_taken(self) -> None:
        self.load()

    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_broken_numbers_are_refused(self, number: float) -> None:
        with pytest.raises(PipelineError, match=r"models/x\.safetensors: 'bias' is not finite"):
            self.load(bias=torch.tensor([0.0, number, 0.0]))

    def test_other_shapes_and_names_are_refused(self) -> None:
        for changes in ({"bias": torch.zeros(4)}, {"bias": None}, {"extra": torch.zeros(1)}):
            with pytest.raises(PipelineError, match="does not fit the network that"):
                self.load(**changes)


@pytest.mark.parametrize(
    ("path", "way_out"),
    [("models/vae.safetensors", "`dvc pull` fetches it."), ("metrics/scores/vae.json", "`git restore` fetches it.")],
)
def test_missing_file_comes_from_where_it_is_kept(path: str, way_out: str) -> None:
    assert explain(FileMissingError(Path(path))) == f"{path} is missing: `dvc repro` makes it, {way_out}"
