"""Classification accuracy score: what a classifier learns from generated images alone.

Ravuri, Vinyals 2019, "Classification Accuracy Score for Conditional Generative Models", NeurIPS. The classifier is
trained on samples with the labels they were asked for, and tested on real images. Its design differs from the
extractor's: strided convolutions, no normalisation, a dense hidden layer.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from generative.compute.batching import in_batches
from generative.compute.portable import Linear
from generative.compute.runtime import make_rng
from generative.data.splits import Split, batches, steps_per_epoch, to_unit
from generative.scores.score import Score, mean_score

_EPOCHS = 12
_BATCH = 100
_RATE = 0.003  # AdamW, peak of a one-cycle schedule
_DROPOUT = 0.3
_TEST_BATCH = 1000


def classification_accuracy(train: Split, test: Split, *, seed: int) -> Score:
    """Accuracy on `test` of a small classifier trained on `train`; both on the same device.

    The number depends on the size of `train`: compare equal sizes only. Its error is that of the test images; another
    seed changes it about as much.
    """
    device = train.images.device
    rng = make_rng(seed, device)
    with torch.random.fork_rng(devices=[]):  # the weights and dropout draw from the global state
        torch.manual_seed(seed)
        classifier = _Classifier(test.num_classes).to(device)
        _fit(classifier, train, rng)
    classifier.eval()
    with torch.inference_mode():
        seen = in_batches(lambda images: classifier(to_unit(images)).argmax(1), test.images, _TEST_BATCH)
    return mean_score((seen == test.labels).cpu())


class _Classifier(nn.Sequential):
    """Images (B, 1, 28, 28) in [0, 1] to class logits (B, num_classes)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.PixelUnshuffle(2),  # (B, 4, 14, 14)
            nn.Conv2d(4, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),  # (B, 48, 7, 7)
            nn.ReLU(),
            nn.Conv2d(48, 64, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            Linear(64 * 7 * 7, 64),
            nn.ReLU(),
            nn.Dropout(_DROPOUT),
            Linear(64, num_classes),
        )
        self.to(memory_format=torch.channels_last)


def _fit(classifier: nn.Module, train: Split, rng: torch.Generator) -> None:
    steps = steps_per_epoch(len(train), _BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_RATE, fused=True)
    schedule = OneCycleLR(optimizer, max_lr=_RATE, total_steps=_EPOCHS * steps + 1)
    for _ in range(_EPOCHS):
        for x, y in batches(train, _BATCH, rng):
            loss = F.cross_entropy(classifier(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
