"""Muon: steps whose matrices are orthogonal, for the weights of convolutions and hidden layers; Adam for the rest.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". torch.optim.Muon takes no weights of
convolutions, and multiplies in bfloat16, whose bytes depend on the processor: products here are those of
`generative.compute.portable`.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from generative.compute.portable import matmul, square_root

_MOMENTUM = 0.95
_BETAS = (0.9, 0.99)  # of Adam
_EPSILON = 1e-8
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the odd polynomial of degree 5: singular values come near 1


class Muon(torch.optim.Optimizer):
    """An optimizer of two groups of parameters.

    Args:
        matrices: weights of two or more dimensions, each one matrix (first dimension, all others).
        others: what Adam updates.
        matrix_rate: learning rate of the first; a step of a matrix has a spectral norm of about that, of one with more
            rows than columns the square root of their ratio times as much.
        learning_rate: of the others.
    """

    def __init__(
        self, matrices: Iterable[Tensor], others: Iterable[Tensor], *, matrix_rate: float, learning_rate: float
    ) -> None:
        groups = [
            {"params": list(matrices), "lr": matrix_rate, "orthogonal": True},
            {"params": list(others), "lr": learning_rate, "orthogonal": False},
        ]
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = self._orthogonal_step if group["orthogonal"] else self._adam_step
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.add_(update(weight.grad, self.state[weight]), alpha=-group["lr"])
        return loss

    def _orthogonal_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        if not state:
            state["mean"] = torch.zeros_like(gradient)
        mean = state["mean"]
        mean.lerp_(gradient, 1 - _MOMENTUM)
        matrix = gradient.lerp(mean, _MOMENTUM).reshape(len(gradient), -1)  # Nesterov's momentum
        rows, columns = matrix.shape
        return orthogonalise(matrix).reshape(gradient.shape) * max(1.0, rows / columns) ** 0.5

    def _adam_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(gradient),
                "square": torch.zeros_like(gradient),
            }
        first, second = _BETAS
        state["step"] += 1
        steps = state["step"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        scale = square_root(state["square"] / (1 - second**steps)) + _EPSILON
        return state["mean"] / (1 - first**steps) / scale


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix (N, M) whose singular values are near 1, by a Newton-Schulz iteration."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).contiguous()
    x = x * (x.square().sum() + _EPSILON**2).rsqrt()
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = matmul(x, x.T)
        x = a * x + matmul(b * square + c * matmul(square, square), x)
    return x.T if tall else x
