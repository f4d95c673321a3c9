"""The selective scan of Mamba, forward and backward, in plain PyTorch (Gu and Dao 2023, arXiv:2312.00752, section 3.2).

    x_t = exp(delta_t A) x_{t-1} + delta_t B_t u_t        y_t = C_t x_t + D u_t

Each exponent is used as it is, one step at a time: nothing is divided and no product of steps is inverted, so any step
size is safe. Only a fused multiply-add runs step after step; all else is done for a whole *segment* of steps at once.
Beside the inputs only the state before each segment is kept for backward, L*D*N/16 numbers a sequence. Backward
recomputes the states within a segment and runs the adjoint g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1} through it.

Two sizes follow the device. A small problem is cut into *chunks* of the sequence that run side by side: each is first
run from zero to find what it adds, and a short loop over chunks then gives each its true first state. A large problem
is cut into *blocks* of the batch, so that the working set is bounded and stays in the cache.

Speed on a CPU comes from four choices, in ns per state element on two cores of an AMD EPYC (Zen 4): `exp2` takes 0.16
where `exp` takes 0.42 and, where the result underflows, about 5; a sum over channels as row times matrix takes 0.05, as
matrix times column 0.48; a two-dimensional transpose of the inputs is 3 to 5 times faster than a `permute` to the same
order; and buffers are allocated once for all blocks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

# Steps whose states are recomputed together. With one state kept for each, N = 16 states cost what one more input does.
SEGMENT = 16
# State elements a step should have to be worth its launch; below, the sequence is cut into chunks.
FILL = {"cpu": 2**12, "cuda": 2**20}
# State elements a segment may have; above, the batch is cut into blocks. Forward works in two buffers of that size and
# backward in four: on a CPU they stay in the last cache, and a step is still large enough to be shared by cores.
BLOCK = {"cpu": 2**20, "cuda": 2**26}
LOG2_E = math.log2(math.e)


def state_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def plan(batch, width, length, device, chunks=None, segment=None) -> tuple[int, int]:
    """(chunks of the sequence, steps a segment) for `width` = D*N state elements of each of `batch` sequences.

    As many chunks as bring a step to FILL elements, at most sqrt(2 L), where the steps within a chunk, taken twice, and
    the loop over chunks are shortest together.
    """
    if chunks is None:
        fill = FILL.get(device, FILL["cuda"])
        chunks = max(1, min(fill // max(1, batch * width), int((2 * length) ** 0.5)))
    steps = math.ceil(length / chunks)
    return math.ceil(length / steps), min(segment or SEGMENT, steps)


def _to_steps(x: Tensor, chunks: int, out: Tensor) -> None:
    """(batch, P, L) to out (steps, batch * chunks, P), padded with zeros: a step of size zero changes no state."""
    batch, planes, length = x.shape
    missing = len(out) * chunks - length
    x = x.to(out.dtype)
    x = (F.pad(x, (0, missing)) if missing else x).reshape(batch * planes, -1).t()
    if chunks == 1:
        out.view(x.shape).copy_(x)
    else:
        x = x.contiguous().view(chunks, len(out), batch, planes)
        out.view(len(out), batch, chunks, planes).copy_(x.permute(1, 2, 0, 3))


def _from_steps(x: Tensor, chunks: int, out: Tensor) -> None:
    """The inverse of `_to_steps`; out is contiguous."""
    batch, planes, length = out.shape
    if chunks > 1:
        x = x.view(len(x), batch, chunks, planes).permute(2, 0, 1, 3)
    out.view(batch * planes, length).copy_(x.reshape(-1, batch * planes)[:length].t())


def _at(M: Tensor, at: slice) -> Tensor:
    """B or C within a segment; the (G, N, D/G) of all steps has no time axis."""
    return M[at] if M.ndim == 5 else M


def _over_states(M: Tensor, x: Tensor) -> Tensor:
    """sum_n M x: (steps, rows, G, 1, D/G)"""
    return torch.matmul(M.mT, x) if M.ndim == 5 else (M * x).sum(-2, keepdim=True)


def _over_channels(M: Tensor, v: Tensor, x: Tensor) -> Tensor:
    """sum_d v x in the form of M; over all steps and rows where M has no time axis."""
    return torch.matmul(v, x.mT).mT if M.ndim == 5 else (v * x).sum((0, 1))


def _layout(batch, D, N, B, C, chunks):
    """The shape of the states of one step: (rows, G, N, D/G). A row is one chunk of one sequence."""
    groups = next((M.shape[1] for M in (B, C) if M.ndim == 4), 1)
    return batch * chunks, groups, N, D // groups


class _Block:
    """Work on a slice of the batch, laid out (step, row, group, state, channel), in buffers that the next slice reuses.

    Fresh memory costs a CPU more than the arithmetic on it. `decay` holds exp(delta A) for the steps of a segment and
    `x` the states, the incoming one first; u, delta, B and C hold all steps, and what is computed from them may replace
    them.
    """

    def __init__(self, batch, u, A, B, C, chunks, segment, dtype):
        steps = math.ceil(u.shape[2] / chunks)
        self.chunks, self.batch = chunks, batch
        self.shape = rows, groups, states, width = _layout(batch, *A.shape, B, C, chunks)
        self.segments = [slice(s, min(s + segment, steps)) for s in range(0, steps, segment)]
        self.like = dict(dtype=dtype, device=u.device)
        self.decay = torch.empty(segment, *self.shape, **self.like)
        self.x = torch.empty(segment + 1, *self.shape, **self.like)
        self.decay_steps, self.x_steps = self.decay.unbind(), self.x.unbind()
        self.u, self.delta = self.vectors(steps), self.vectors(steps)
        self.A = self.matrix(A)
        self.exponent = self.A * LOG2_E
        self.B, self.C = (
            self.matrix(M) if M.ndim == 2 else torch.empty(steps, rows, groups, states, 1, **self.like) for M in (B, C)
        )

    def vectors(self, steps):
        rows, groups, _, width = self.shape
        return torch.empty(steps, rows, groups, 1, width, **self.like)

    def matrix(self, M):
        """(..., D, N) -> (..., G, N, D/G)"""
        return M.to(self.like["dtype"]).unflatten(-2, (self.shape[1], self.shape[3])).mT.contiguous()

    def take(self, source, buffer):
        """(batch, D, L) or (batch, G, N, L) into all steps of a buffer."""
        _to_steps(source.flatten(1, -2), self.chunks, buffer.flatten(2))

    def give(self, buffer, target):
        """The inverse of `take`."""
        _from_steps(buffer.flatten(2), self.chunks, target.flatten(1, -2))

    def load(self, u, delta, B, C):
        for source, buffer in ((u, self.u), (delta, self.delta), (B, self.B), (C, self.C)):
            if source.ndim > 2:
                self.take(source, buffer)

    def decays(self, at):
        """exp(delta A) of the steps of a segment."""
        delta = self.delta[at]
        return torch.mul(delta, self.exponent, out=self.decay[: len(delta)]).exp2_()

    def run(self, at, first):
        """The states of a segment: `first`, which comes from before it, and one for each step."""
        self.decays(at)
        du = self.delta[at] * self.u[at]
        x = self.x[: len(du) + 1]
        self.x_steps[0].copy_(first)
        torch.mul(_at(self.B, at), du, out=x[1:])
        for before, now, a in zip(self.x_steps, self.x_steps[1 : len(x)], self.decay_steps):
            now.addcmul_(a, before)
        return x

    def run_back(self, at, dy, last, g):
        """The adjoints of a segment, into g, where `last` is what reaches its last state from beyond."""
        g = torch.mul(_at(self.C, at), dy[at], out=g[: at.stop - at.start])
        adjoints = g.unbind()[::-1]
        adjoints[0].add_(last)
        for after, now, a in zip(adjoints, adjoints[1:], self.decay_steps[len(g) - 1 :: -1]):
            now.addcmul_(a, after)
        return g

    def firsts(self):
        """The state before each row."""
        x = torch.zeros(self.shape, **self.like)
        if self.chunks > 1:
            for at in self.segments:
                x = self.run(at, x)[-1]
            x = self.carry(x, range(self.chunks), torch.zeros_like(x[:: self.chunks]))
        return x

    def lasts(self, dy, beyond, g):
        """What reaches the last state of each row from beyond it, `beyond` being that of the last chunk."""
        if self.chunks == 1:
            return beyond
        x = torch.zeros(self.shape, **self.like)
        for at in reversed(self.segments):
            decay = self.decays(at)
            x = decay[0] * self.run_back(at, dy, x, g)[0]
        return self.carry(x, reversed(range(self.chunks)), beyond)

    def carry(self, local, order, state):
        """From what each chunk adds when run from zero to what enters it, chunk after chunk in `order`."""
        local = local.unflatten(0, (self.batch, self.chunks))
        total = torch.exp2(self.exponent * self.delta.sum(0)).view_as(local)
        entering = torch.empty_like(local)
        for chunk in order:
            entering[:, chunk] = state
            state = torch.addcmul(local[:, chunk], total[:, chunk], state)
        return entering.flatten(0, 1)


def _blocks(u, delta, A, B, C, chunks, segment):
    """Yield (slice of the batch, slice of the rows, _Block with that slice loaded)."""
    batch = u.shape[0]
    most = max(1, BLOCK.get(u.device.type, BLOCK["cuda"]) // (segment * chunks * A.numel()))
    each = math.ceil(batch / math.ceil(batch / most)) if batch else 1
    block = None
    for start in range(0, batch, each):
        part = slice(start, min(start + each, batch))
        size = part.stop - part.start
        if block is None or block.batch != size:
            block = _Block(size, u, A, B, C, chunks, segment, state_dtype(u, delta, A, B, C))
        block.load(u[part], delta[part], *(M if M.ndim == 2 else M[part] for M in (B, C)))
        yield part, slice(part.start * chunks, part.stop * chunks), block


@torch.library.custom_op("baselines::selective_scan", mutates_args=())
def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, chunks: int, segment: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y (batch, D, L), x_L (batch, D, N), and the states before each segment, (segments, rows, G, N, D/G), to be kept.

    B and C: (D, N) or (batch, G, N, L) with one G.
    """
    y, last, kept = _scan_meta(u, delta, A, B, C, chunks, segment)
    with torch.autocast(u.device.type, enabled=False):
        for part, rows, block in _blocks(u, delta, A, B, C, chunks, segment):
            state = block.firsts()
            for index, at in enumerate(block.segments):
                kept[index, rows] = state
                x = block.run(at, state)
                block.u[at] = _over_states(_at(block.C, at), x[1:])
                state = x[-1]
            block.give(block.u, y[part])
            last[part] = _channels_first(state[chunks - 1 :: chunks])
    return y, last, kept


@scan.register_fake
def _scan_meta(u, delta, A, B, C, chunks, segment):
    batch, _, length = u.shape
    dtype = state_dtype(u, delta, A, B, C)
    steps = -(-length // chunks)  # of the longest chunk
    segments = -(-steps // segment)
    return (
        u.new_empty(u.shape, dtype=dtype),
        u.new_empty((batch, *A.shape), dtype=dtype),
        u.new_empty((segments, *_layout(batch, *A.shape, B, C, chunks)), dtype=dtype),
    )


@torch.library.custom_op("baselines::selective_scan_backward", mutates_args=())
def _scan_backward(
    dy: Tensor | None,
    dlast: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    kept: Tensor,
    chunks: int,
    segment: int,
    needs: list[bool],
) -> list[Tensor]:
    """The gradients of u, delta, A, B, C in their dtypes; those of A, B, C mean nothing unless `needs` has them."""
    need_A, need_B, need_C = needs
    # Sums over steps and sequences are taken in the dtype of the state. Only what has no time axis is a sum from zero.
    make = {2: torch.zeros, 3: torch.empty, 4: torch.empty}
    grads = [make[M.ndim](M.shape, dtype=kept.dtype, device=u.device) for M in (u, delta, A, B, C)]
    grad_u, grad_delta, grad_A, grad_B, grad_C = grads
    block = None
    with torch.autocast(u.device.type, enabled=False):
        for part, rows, current in _blocks(u, delta, A, B, C, chunks, segment):
            if current is not block:
                block = current
                dy_steps = block.vectors(len(block.u))
                all_g, sum_A = torch.empty_like(block.decay), torch.empty_like(block.decay)
            block.take(dy[part], dy_steps)
            beyond = torch.zeros_like(block.x[0, ::chunks]) if dlast is None else block.matrix(dlast[part])
            beyond = block.lasts(dy_steps, beyond, all_g)
            sum_A.zero_()
            for index in reversed(range(len(block.segments))):
                at = block.segments[index]
                x = block.run(at, kept[index, rows])
                g = block.run_back(at, dy_steps, beyond, all_g)
                u_at, delta_at = block.u[at], block.delta[at]
                into_du = _over_states(_at(block.B, at), g)
                for need, M, grad, v, state in (
                    (need_B, block.B, grad_B, delta_at * u_at, g),
                    (need_C, block.C, grad_C, dy_steps[at], x[1:]),
                ):
                    if need and M.ndim == 5:
                        M[at] = _over_channels(M, v, state)
                    elif need:
                        grad += _channels_first(_over_channels(M, v, state))
                beyond = g.mul_(block.decay[: len(g)])[0].clone()
                # From here on g is the gradient of the exponent, delta A.
                g.mul_(x[:-1])
                if need_A:
                    sum_A[: len(g)].addcmul_(g, delta_at)
                into_delta = g.mul_(block.A).sum(-2, keepdim=True).addcmul_(into_du, u_at)
                torch.mul(into_du, delta_at, out=u_at)
                delta_at.copy_(into_delta)
            if need_A:
                grad_A += _channels_first(sum_A.sum((0, 1)))
            for buffer, grad in ((block.u, grad_u), (block.delta, grad_delta), (block.B, grad_B), (block.C, grad_C)):
                if grad.ndim > 2:
                    block.give(buffer, grad[part])
    return [grad.to(M.dtype) for grad, M in zip(grads, (u, delta, A, B, C))]


def _channels_first(x):
    """(..., G, N, D/G) -> (..., D, N)"""
    return x.mT.flatten(-3, -2)


@_scan_backward.register_fake
def _(dy, dlast, u, delta, A, B, C, kept, chunks, segment, needs):
    return [torch.empty_like(M, memory_format=torch.contiguous_format) for M in (u, delta, A, B, C)]


def _keep(ctx, inputs, output):
    u, delta, A, B, C, ctx.chunks, ctx.segment = inputs
    ctx.save_for_backward(u, delta, A, B, C, output[2])
    ctx.set_materialize_grads(False)


def _backward(ctx, dy, dlast, _):
    u, delta, A, B, C, kept = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(u, dtype=kept.dtype)
    needs = list(ctx.needs_input_grad[:5])
    grads = _scan_backward(dy, dlast, u, delta, A, B, C, kept, ctx.chunks, ctx.segment, needs[2:])
    return *(grad if need else None for grad, need in zip(grads, needs)), None, None


scan.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.baselines.selective_scan)
def selective_scan_flops(u_shape, delta_shape, A_shape, *args, **kwargs) -> int:
    """9 * batch * L * D * N, as the field counts the forward scan without the terms of D and z.

    Source: Mamba's authors in github.com/state-spaces/mamba/issues/110; VMamba (arXiv:2401.10166) and others follow.
    """
    return 9 * math.prod(u_shape) * A_shape[1]


@register_flop_formula(torch.ops.baselines.selective_scan_backward)
def selective_scan_backward_flops(dy_shape, dlast_shape, u_shape, delta_shape, A_shape, *args, **kwargs) -> int:
    """Twice the forward, as for the products that FlopCounterMode knows."""
    return 2 * selective_scan_flops(u_shape, delta_shape, A_shape)
