"""Stage `check_params`: every block of params.yaml is checked before any other stage works.

The output never changes, so that a param that passes makes only those stages run that read it.
"""

from pathlib import Path

from generative.config import Config
from generative.errors import PipelineError
from generative.extractor import ExtractorConfig
from generative.files import write_text
from generative.runtime import ComputeConfig
from stages.cli import run
from stages.download import DownloadConfig
from stages.figures import FiguresConfig
from stages.generate import GenerateConfig
from stages.models import read_model
from stages.params import RESERVED_NAMES, model_names, read_block, read_params
from stages.paths import PARAMS_CHECKED, curves, generated
from stages.prepare import PrepareConfig
from stages.result_paths import scores

BLOCKS: dict[str, type[Config]] = {
    "compute": ComputeConfig,
    "download": DownloadConfig,
    "prepare": PrepareConfig,
    "extractor": ExtractorConfig,
    "generate": GenerateConfig,
    "figures": FiguresConfig,
}


def main() -> None:
    """Check names, types and ranges, and what must hold between blocks."""
    unknown = sorted(set(read_params()) - set(BLOCKS) - {"models"})
    if unknown:
        raise PipelineError(f"params: unknown block '{unknown[0]}'; allowed: {', '.join(BLOCKS)}, models.")
    for name, config_class in BLOCKS.items():
        read_block(name, config_class)
    train_size = read_block("prepare", PrepareConfig).train_size
    for name in model_names():
        config, _ = read_model(name)
        if config.batch_size > train_size:
            raise PipelineError(
                f"params: 'models.{name}.batch_size' is {config.batch_size}, but must not exceed "
                f"'prepare.train_size' ({train_size})."
            )
    for path in leftovers(model_names()):
        path.unlink()
        print(f"removed {path}: no model in params.yaml has that name")
    write_text(PARAMS_CHECKED, "params.yaml: every key is known, every value has its type and range\n")


def leftovers(names: list[str]) -> list[Path]:
    """Outputs of models that params.yaml no longer has: in a folder that a later stage reads as a whole."""
    kept = {*names, *RESERVED_NAMES}
    folders = {path(names[0]).parent for path in (curves, generated, scores)}
    return [path for folder in sorted(folders) for path in sorted(folder.glob("*")) if path.stem not in kept]


if __name__ == "__main__":
    run(main)
