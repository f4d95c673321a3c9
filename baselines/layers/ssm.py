"""The selective state-space layer (S6) on several sequences side by side, each direction with its own parameters.

Source: Gu and Dao, arXiv:2312.00752, sections 3.2, 3.5 and 3.6 (parameters, initialisation).
"""

import math

import torch
from torch import nn

from baselines.layers.selective_scan import BACKENDS, mamba_ssm, selective_scan


class SelectiveSSM(nn.Module):
    """y = SSM(x) along the last axis: (batch, directions, channels, length) to the same shape, in one scan.

    Each direction has its own projections of x to (dt, B, C), step sizes, decay rates and skip. The caller
    arranges the sequences (flips, transposes): here every direction runs from position 0 on.

    Args:
        channels: sequence channels (Mamba's d_inner).
        directions: sequences with parameters of their own.
        d_state: states a channel.
        dt_rank: rank of the step sizes' projection; ceil(d_model / 16) in Mamba.
        scan: which kernel computes it, one of `BACKENDS` ("auto": mamba-ssm's where it can run).
    """

    def __init__(self, channels: int, *, directions: int, d_state: int, dt_rank: int, scan: str = "auto"):
        super().__init__()
        self.sizes, self.scan = (dt_rank, d_state, d_state), scan
        self.x_proj = nn.Parameter(torch.empty(directions, sum(self.sizes), channels))
        self.dt_proj = nn.Parameter(torch.empty(directions, channels, dt_rank))
        self.dt_bias = nn.Parameter(torch.empty(directions, channels))
        self.A_log = nn.Parameter(torch.empty(directions * channels, d_state))
        self.D = nn.Parameter(torch.ones(directions * channels))
        self.reset_parameters()

    def reset_parameters(self):
        """Decay rates 1..d_state, D = 1, and step sizes log-uniform in [0.001, 0.1] where x is 0."""
        _, channels, dt_rank = self.dt_proj.shape
        nn.init.uniform_(self.x_proj, -(channels**-0.5), channels**-0.5)
        nn.init.uniform_(self.dt_proj, -(dt_rank**-0.5), dt_rank**-0.5)
        nn.init.ones_(self.D)
        with torch.no_grad():
            step = torch.empty_like(self.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
            self.dt_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus of this is the step
            self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1, device=self.A_log.device).log())

    def forward(self, x):
        dt, b, c = (self.x_proj @ x).split(self.sizes, dim=2)
        y = selective_scan(
            x.flatten(1, 2), (self.dt_proj @ dt).flatten(1, 2), -self.A_log.exp(), b, c, self.D,
            delta_bias=self.dt_bias.flatten(), delta_softplus=True, backend=self.scan,
        )  # fmt: skip
        return y.view_as(x)


def init_linear(module: nn.Module) -> None:
    """For `Module.apply`: linear weights from a normal distribution of deviation 0.02, cut off at +-2; biases zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def check_scan(scan: str) -> None:
    """Raises ValueError where `scan` is none of the scan's backends, or asks for a package that is not installed."""
    if scan not in BACKENDS:
        raise ValueError(f"scan: found {scan!r}, expected one of {', '.join(map(repr, BACKENDS))}")
    if scan == "mamba-ssm":
        try:
            mamba_ssm(required=True)
        except ModuleNotFoundError as error:
            raise ValueError(f"scan: {error}") from error
