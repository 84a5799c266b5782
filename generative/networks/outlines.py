"""Outline drawings of images, by a fixed filter: white lines of one pixel on black ground, where the intensity jumps.

Canny 1986, "A Computational Approach to Edge Detection", IEEE TPAMI 8, without its smoothing, since 28 x 28 pixels have
little noise: gradients, of which the largest across each edge are kept, and two levels: lines begin where a gradient
exceeds the upper one, and go on while it exceeds the lower one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LOW, _HIGH = 0.06, 0.15  # of the gradient, intensity per pixel
_STEEP = 2.414  # tan(67.5 degrees): a gradient steeper than this counts as vertical, the inverse as horizontal
_LONGEST = 28  # pixels that a line goes on at most from where it began


def outlines(x: Tensor) -> Tensor:
    """Drawings (B, 1, 28, 28), 0 or 1, of images (B, 1, 28, 28) in [0, 1]."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    smooth, slope = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)]).unsqueeze(1) / 8  # Sobel
    across, down = F.conv2d(padded, kernels).chunk(2, 1)
    size = across.square() + down.square()
    thin = torch.where(_is_largest(across, down, size), size, 0.0)
    line, weak = thin > _HIGH**2, thin > _LOW**2
    for _ in range(_LONGEST):
        line = weak & (F.max_pool2d(line.float(), 3, 1, 1) > 0)
    return line.float()


def _is_largest(across: Tensor, down: Tensor, size: Tensor) -> Tensor:
    """Where the gradient is larger than at the next pixel across the edge, and no smaller than at the last one."""
    horizontal = across.abs() >= _STEEP * down.abs()
    vertical = down.abs() > _STEEP * across.abs()
    falling = ~horizontal & ~vertical & (across * down > 0)  # to the lower right, or upper left
    around = F.pad(size, (1, 1, 1, 1))
    largest = torch.zeros_like(horizontal)
    rising = ~horizontal & ~vertical & ~falling
    for chosen, (row, column) in ((horizontal, (0, 1)), (vertical, (1, 0)), (falling, (1, 1)), (rising, (-1, 1))):
        following = around[..., 1 + row : 29 + row, 1 + column : 29 + column]
        before = around[..., 1 - row : 29 - row, 1 - column : 29 - column]
        largest = largest | (chosen & (size > following) & (size >= before))
    return largest
