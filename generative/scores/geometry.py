"""How a network maps the neighbourhood of a point: its Jacobian, and how many dimensions of it are left."""

from collections.abc import Callable

import torch
from torch import Tensor

from generative.scores.linear_algebra import singular_vectors


def jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative, float64 (M, N), of `function`, (B, ...) of N numbers to (B, ...) of M, at the point `x` (...).

    The function must treat what is in a batch independently.
    """
    with torch.enable_grad():
        count = function(x.unsqueeze(0)).numel()
        copies = x.detach().expand(count, *x.shape).clone().requires_grad_(True)
        out = function(copies).flatten(1)
        if not out.requires_grad:  # it does not depend on where it is looked at
            return torch.zeros(count, x.numel(), dtype=torch.float64)
        (rows,) = torch.autograd.grad(out, copies, torch.eye(count, dtype=out.dtype, device=out.device))
    return rows.flatten(1).double()


def rank(matrix: Tensor) -> int:
    """How many singular values of a float64 `matrix` (M, N) rounding alone does not explain; 0 if it is not finite."""
    if not bool(torch.isfinite(matrix).all()):
        return 0
    values, _ = singular_vectors(matrix)
    hidden = max(matrix.shape) * torch.finfo(matrix.dtype).eps * values.max()
    return int((values > hidden).sum())


def lost_directions(function: Callable[[Tensor], Tensor], x: Tensor, step: float, least: float) -> int:
    """In how many orthogonal directions a `step` from `x` changes no output of `function` by `least`.

    The directions are the right singular vectors of the Jacobian at `x`; `function` takes (B, ...) like `x`.
    """
    directions = singular_vectors(jacobian(function, x))[1].to(x.dtype)
    with torch.no_grad():
        moved = function(x + step * directions.view(-1, *x.shape))
        stayed = function(x.unsqueeze(0))
    return int(((moved - stayed).flatten(1).abs().amax(1) < least).sum())
