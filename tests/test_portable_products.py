"""Products through oneDNN are those of torch, with first and second derivatives."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from generative.compute.portable import Linear, matmul, use_portable


@pytest.fixture(autouse=True)
def _onednn() -> Iterator[None]:
    use_portable(True)
    yield
    use_portable(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(7, 5, 3), (1, 1, 1), (128, 784, 512), (64, 1568, 1)])
def test_linear_and_its_gradients_are_those_of_torch(sizes: tuple[int, int, int], bias: bool) -> None:
    torch.manual_seed(1)
    count, width_in, width_out = sizes
    layer = Linear(width_in, width_out, bias=bias)
    x = torch.randn(count, width_in, requires_grad=True)
    gradient = torch.randn(count, width_out)
    inputs = [x, *layer.parameters()]
    ours, theirs = layer(x), F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for mine, its in zip(
        torch.autograd.grad(ours, inputs, gradient), torch.autograd.grad(theirs, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


def test_gradient_of_a_gradient_penalty() -> None:
    torch.manual_seed(2)
    layers = [Linear(6, 8), Linear(8, 1)]
    x = torch.randn(5, 6, requires_grad=True)

    def penalty_gradients() -> list[torch.Tensor]:
        out = layers[1](torch.tanh(layers[0](x))).sum()
        (gradient,) = torch.autograd.grad(out, x, create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), [layers[0].weight, layers[1].weight]))

    through_onednn = penalty_gradients()
    use_portable(False)
    for mine, its in zip(through_onednn, penalty_gradients(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_matmul_of_views_and_of_what_onednn_does_not_take() -> None:
    torch.manual_seed(3)
    a, b = torch.randn(9, 4), torch.randn(9, 5)
    torch.testing.assert_close(matmul(a.T, b), a.T @ b)
    torch.testing.assert_close(matmul(a[:, ::2], b[:2]), a[:, ::2] @ b[:2])
    exact = matmul(a.T.double(), b.double())
    assert exact.dtype == torch.float64
    assert torch.equal(exact, a.T.double() @ b.double())


def test_autocast_decides_the_precision() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(4, 4)(torch.randn(2, 4)).dtype == torch.bfloat16
