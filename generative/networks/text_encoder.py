"""From the words of a caption to one vector."""

import torch
from torch import Tensor, nn

from generative.compute.portable import Linear

PADDING, START = 0, 1  # tokens that are no words
SPECIAL = 2  # how many there are
_LOUDNESS = 0.5  # of each word in the sum: some six of them are about as long as one embedding of a label


class TextEncoder(nn.Module):
    """Tokens (B, L), int64, the first one START and unused ones PADDING, to vectors (B, D).

    The vector is the sum of what each word says alone, so that combinations of words that were never met together add
    up, and of what the words say beside each other: each looks once at all (Vaswani et al. 2017, "Attention Is All You
    Need", NeurIPS, equation 1).

    Args:
        words: in the vocabulary, without the special tokens.
        length: L.
        width: D.
    """

    def __init__(self, words: int, length: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(SPECIAL + words, width, padding_idx=PADDING)
        self.places = nn.Parameter(torch.zeros(length, width))
        self.query, self.key, self.value = (Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Sequential(Linear(width, width), nn.SiLU(), Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        used = (tokens != PADDING).unsqueeze(2)  # (B, L, 1)
        alone = self.words(tokens) * used
        h = alone + self.places[: tokens.shape[1]]
        batch, length, width = h.shape
        query, key, value = (
            part(h.view(-1, width)).view(batch, length, width) for part in (self.query, self.key, self.value)
        )
        match = torch.bmm(query, key.transpose(1, 2)) / width**0.5
        weights = match.masked_fill(~used.transpose(1, 2), -torch.inf).softmax(2)
        h = (h + torch.bmm(weights, value)) * used
        vector: Tensor = alone.sum(1) * _LOUDNESS + self.out(h.sum(1) / used.sum(1))
        return vector
