"""What torch computes in other bytes, or slowly, where the same bytes are wanted on every processor with AVX2.

MKL has a mode with that promise (`generative.compute.environment.PORTABLE`). In it float32 products are three to five
times slower; oneDNN, held to AVX2, has them in the same bytes on the processors tried (docs/performance.md) at the
speed of MKL's own AVX2 code. `torch.nn.Linear` in a family is right too, only slower. And MKL's square root starts
from an instruction that makers approximate differently, in that mode too: `torch.sqrt`, `torch.cdist` and optimizers
that are not fused are not portable.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_use_portable = False


def use_portable(wanted: bool) -> None:
    """Whether what follows goes through oneDNN from now on, where torch has it."""
    global _use_portable
    _use_portable = wanted and torch.backends.mkldnn.is_available()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The product (N, M) of matrices `a` (N, K) and `b` (K, M)."""
    return _OneDNNProduct.apply(a, b.T) if _by_onednn(a, b) else a @ b


def square_root(x: Tensor) -> Tensor:
    """The square root of each element, from torch's own code instead of MKL's; 0 for 0, NaN below."""
    return x.rsqrt().reciprocal()


class Linear(nn.Linear):
    """`torch.nn.Linear` for inputs (N, in_features)."""

    def forward(self, x: Tensor) -> Tensor:
        if not _by_onednn(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        product: Tensor = _OneDNNProduct.apply(x, self.weight)
        return product if self.bias is None else product + self.bias


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    plain = all(x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 2 for x in (a, b))
    return _use_portable and plain and not torch.is_autocast_enabled("cpu")


class _OneDNNProduct(torch.autograd.Function):
    """a @ b.T for a (N, K) and b (M, K); its gradients are such products too, so that they have gradients again."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = ctx.saved_tensors
        (gradient,) = gradients
        grad_a = _OneDNNProduct.apply(gradient, b.T) if ctx.needs_input_grad[0] else None
        grad_b = _OneDNNProduct.apply(gradient.T, a.T) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b
