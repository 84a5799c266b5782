"""Stage `train_extractor`: the classifier in whose features samples are compared with real images."""

from generative.extractor import Extractor, ExtractorConfig, ExtractorObjective
from stages.cli import run
from stages.fitting import train_network
from stages.params import read_block
from stages.paths import EXTRACTOR, curves


def main() -> None:
    """Train the extractor and write its weights and curves."""
    config = read_block("extractor", ExtractorConfig)
    train_network("extractor", config, Extractor, ExtractorObjective, weights=EXTRACTOR, curves=curves("extractor"))


if __name__ == "__main__":
    run(main)
