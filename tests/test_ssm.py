"""The selective state-space layer under torch.compile; its numbers are tested with the networks that use it."""

import pytest
import torch

from baselines.layers.ssm import SelectiveSSM


@pytest.mark.parametrize("dynamic", [True, False])
def test_it_compiles_with_sizes_that_change(dynamic):
    """Symbolic sizes are compared number by number: as tuples, equal ones need not be equal."""
    torch.manual_seed(0)
    layer = SelectiveSSM(8, directions=2, d_state=4, dt_rank=2)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=dynamic, fullgraph=True)
    for batch, length in ((2, 16), (3, 20), (5, 33)):
        x = torch.randn(batch, 2, 8, length, requires_grad=True)
        found, expected = compiled(x), layer(x)
        torch.testing.assert_close(found, expected)
        both = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in (found, expected)]
        for one, other in zip(*both):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
