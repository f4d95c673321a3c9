"""`ColoraConv2d`: a convolution with a CoLoRA branch."""

import functools
import weakref

import torch
from torch import fx, nn
from torch.nn import functional as F

from colora.config import ColoraConfig
from colora.fused import FusedConv2d, accumulation_dtype, kernel_is_cheaper, merged_kernel
from colora.tensors import digest, is_sharded, leave_inference_mode, like, replace, whole

BRANCH = ("pointwise", "depthwise", "pointwise_bias", "depthwise_bias")
KEPT = ("base_weight", "base_bias", "initial_base")  # buffers, so that they move with the model


def refusal(module: nn.Module) -> str | None:
    """Why `module` cannot be adapted, or None when it can."""
    kind = type(module).__name__
    if isinstance(module, ColoraConv2d):
        return "it has a CoLoRA branch already"
    if not isinstance(module, nn.Conv2d):
        return f"it is a {kind}, and CoLoRA adapts torch.nn.Conv2d only"
    if isinstance(module.weight, nn.parameter.UninitializedTensorMixin):
        return f"it is a {kind} without a shape yet; run one batch through the model first"
    for method in ("forward", "_conv_forward"):
        if getattr(type(module), method) is not getattr(nn.Conv2d, method):
            return f"it is a {kind}, which has its own {method}; only torch.nn.Conv2d's own computation is known"
        if method in vars(module):
            return (
                f"its {method} was replaced on the instance (an accelerate hook or a patch), and would go on computing "
                "without the branch; take that off first, and put it on again after inject"
            )
    if module._compiled_call_impl is not None:
        return "it was compiled by itself and would go on computing without the branch; compile after inject"
    if "weight" not in module._parameters:
        return "its weight is computed (weight norm or another parametrization); remove that first"
    if not module.weight.is_floating_point():
        return f"its weight is {module.weight.dtype}; a floating-point kernel is needed"
    if is_sharded(module.weight):
        return "its weight is sharded already; inject first, then fully_shard"
    return None


def _transfer(source: nn.Conv2d, target: nn.Conv2d) -> None:
    """Give `target` all of `source`: parameters, hooks, attributes.

    Hooks stay in the same dicts, through which their handles remove them.
    """
    own = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
    for key, value in vars(source).items():
        target.__dict__[key] = value.copy() if key in own else value
    for hook in target._load_state_dict_pre_hooks.values():
        if getattr(hook, "with_module", False):
            hook.module = weakref.ref(target)


class ColoraConv2d(nn.Conv2d):
    """conv2d(x; K0, b0) + depthwise(pointwise(x)), run as one convolution by K0 + dK.

    dK[o,i,u,v] = depthwise[o,u,v] * pointwise[o,i] holds for every stride, dilation, padding mode and number of groups
    (pointwise has the same groups). `weight` (O, I/groups, kh, kw) and `bias` (O,) are the frozen base under their
    original names. New parameters: `pointwise` (O, I/groups, 1, 1), `depthwise` (O, 1, kh, kw), and, if configured,
    `depthwise_bias` (O,) and `pointwise_bias` (O,). Make one with `from_conv`.

    While merged, `weight` and `bias` hold the merged values and the base is kept aside; `state_dict` and
    `load_state_dict` always speak of the unmerged form, so a state dict never carries the update twice.

    Source: Rivera and Hoyos, arXiv:2505.18315.
    """

    config: ColoraConfig

    @classmethod
    @torch.inference_mode(False)
    def from_conv(cls, conv: nn.Conv2d, config: ColoraConfig | None = None) -> "ColoraConv2d":
        """Adapt one convolution; the base parameters are shared with `conv`, and frozen.

        Only those made in inference mode, which no gradient can pass, are copied. Raises TypeError for
        anything but a Conv2d with torch's own forward. Uses the global random generator.
        """
        reason = refusal(conv)
        if reason:
            raise TypeError(f"ColoraConv2d.from_conv: the module cannot be adapted: {reason}")
        config = config or ColoraConfig()
        layer = cls.__new__(cls)
        _transfer(conv, layer)
        layer.config, layer.merged, layer.disabled = config, False, False
        for name in KEPT:
            layer.register_buffer(name, None, persistent=False)
        leave_inference_mode(layer)
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
        train_pointwise, train_depthwise = config.components != "depthwise", config.components != "pointwise"
        outputs, inputs, *size = conv.weight.shape
        layer.pointwise = nn.Parameter(conv.weight.new_empty(outputs, inputs, 1, 1), train_pointwise)
        layer.depthwise = nn.Parameter(conv.weight.new_empty(outputs, 1, *size), train_depthwise)
        with_bias = config.depthwise_bias and conv.bias is not None and train_depthwise
        for name, present in (("depthwise_bias", with_bias), ("pointwise_bias", config.pointwise_bias)):
            layer.register_parameter(name, nn.Parameter(conv.weight.new_empty(outputs)) if present else None)
        layer.reset_branch()
        return layer

    def to_conv(self) -> nn.Conv2d:
        """A plain Conv2d with the merged kernel; it takes over this layer's `weight` and `bias` parameters."""
        self.check_plain()
        if "forward" in vars(self) or self._compiled_call_impl is not None:
            raise RuntimeError(
                "ColoraConv2d: the layer was compiled by itself or its forward was replaced on the instance, which "
                "would go on computing with the branch; take that off before unloading"
            )
        self.merge()
        conv = nn.Conv2d.__new__(nn.Conv2d)
        _transfer(self, conv)
        for name in BRANCH:
            del conv._parameters[name]
        conv._non_persistent_buffers_set -= set(KEPT)
        for name in KEPT:
            del conv._buffers[name]
        for name in ("config", "merged", "disabled"):
            del conv.__dict__[name]
        return conv

    def check_plain(self) -> None:
        """Raise RuntimeError where one of the layer's tensors is computed from others, and cannot be changed itself."""
        for name in ("weight", "bias", *BRANCH):
            if name not in self._parameters:
                raise RuntimeError(
                    f"ColoraConv2d: {name} is computed (weight norm, pruning or another parametrization, put on after "
                    "inject), so what is written there would be lost; remove that first"
                )

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's; a new `weight` or `bias` is refused, except by load_state_dict(assign=True).

        Utilities that fold something into a convolution (torch.nn.utils.fuse_conv_bn_eval) read the base kernel and
        write another in its place: the update would be lost.
        """
        if name in ("weight", "bias") and name in self._parameters and not vars(self).get("_loading", False):
            raise RuntimeError(
                f"ColoraConv2d: something replaces {name}, which is the base of a CoLoRA layer, not all of its kernel; "
                "call colora.merge_and_unload(model) first"
            )
        super().register_parameter(name, param)

    @torch.inference_mode(False)
    @torch.no_grad()
    def reset_branch(self) -> None:
        """Draw a fresh branch whose update is zero; the base is left as it is.

        Pointwise is Glorot-uniform with, per group, fan_in = I/groups and fan_out = O/groups (the 1x1 convolution's own
        fans); depthwise and biases are zero. With components="pointwise": identity depthwise and zero pointwise.
        """
        self.check_plain()
        fresh = {
            name: torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
            for name, parameter in self._parameters.items()
            if name in BRANCH and parameter is not None
        }
        if self.config.components == "pointwise":
            rows, columns = self.kernel_size
            fresh["depthwise"][:, :, (rows - 1) // 2, (columns - 1) // 2] = 1
        else:
            limit = (6 * self.groups / (self.in_channels + self.out_channels)) ** 0.5
            fresh["pointwise"].uniform_(-limit, limit)
        for name, value in fresh.items():
            replace(self._parameters[name], like(value, self._parameters[name]))

    @torch.inference_mode(False)
    @torch.no_grad()
    def merge(self) -> None:
        """Put K0 + dK (summed in float32 at least) and b0 + depthwise bias in place of the base, which is kept.

        The base's storage is not written to. Does nothing when merged already. A pointwise bias is left out:
        `lost_by_merge` says how much that is. Raises RuntimeError for a layer with computed tensors (`check_plain`).
        """
        if self.merged:
            return
        self.check_plain()
        kernel, bias = self.effective()
        for name, value in (("weight", kernel), ("bias", bias)):
            base = self._parameters[name]
            if base is not None:
                setattr(self, f"base_{name}", base.detach().clone() if is_sharded(base) else base.detach())
                replace(base, value.to(base.dtype))
        self.merged = True

    @torch.inference_mode(False)
    @torch.no_grad()
    def unmerge(self) -> None:
        """Bring the kept base back, bit for bit. Does nothing when not merged."""
        if not self.merged:
            return
        self.check_plain()
        for name in ("weight", "bias"):
            if self._parameters[name] is not None:
                replace(self._parameters[name], self._buffers[f"base_{name}"])
        self.base_weight = self.base_bias = None
        self.merged = False

    @torch.inference_mode(False)
    def reset(self) -> None:
        """Start a new zero update; when merged, from the merged kernel as the new base (merge-reset training)."""
        self.check_plain()
        if self.merged:
            if self.initial_base is None:
                # The adapter file names the base it belongs to by digest; this is the last moment to take it.
                kept = {"weight": self.base_weight, "bias": self.base_bias}
                self.remember_base({name: digest(value) for name, value in kept.items() if value is not None})
            self.base_weight = self.base_bias = None
            self.merged = False
        self.reset_branch()

    def remember_base(self, digests: dict[str, str]) -> None:
        """Keep SHA-256 digests of `weight` and `bias` as they were before merge-reset; a state dict carries them."""
        known = {**self.initial_digests(), **digests}
        rows = [list(bytes.fromhex(known.get(name, "00" * 32))) for name in ("weight", "bias")]
        self.initial_base = torch.tensor(rows, dtype=torch.uint8, device=self.pointwise.device)

    def initial_digests(self) -> dict[str, str]:
        """What `remember_base` was given; empty unless merge-reset has changed the base."""
        if self.initial_base is None:
            return {}
        rows = zip(("weight", "bias"), self.initial_base.tolist(), strict=True)
        return {name: bytes(row).hex() for name, row in rows if any(row)}

    @torch.no_grad()
    def lost_by_merge(self) -> float:
        """Output shift that merging drops: max over channels of |pointwise_bias * sum(depthwise)|; 0 without one.

        NaN on the meta device, where there are no values.
        """
        if self.pointwise_bias is None:
            return 0.0
        if self.pointwise_bias.is_meta:
            return float("nan")
        bias, depthwise = whole(self.pointwise_bias).double(), whole(self.depthwise).double()
        return (bias * depthwise.sum((1, 2, 3))).abs().max().item()

    def effective(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """K0 + dK (O, I/groups, kh, kw) and b0 + depthwise bias (O,) or None of an unmerged layer, float32 at least."""
        # The dtype from the parameters themselves: under torch.fx the attributes are symbols.
        dtypes = [parameter.dtype for parameter in self._parameters.values() if parameter is not None]
        dtype = accumulation_dtype(functools.reduce(torch.promote_types, dtypes))
        return merged_kernel(self.weight, self.pointwise, self.depthwise, dtype), self._effective_bias(dtype)

    def _effective_bias(self, dtype: torch.dtype) -> torch.Tensor | None:
        if self.bias is None or self.depthwise_bias is None:
            return self.bias
        return self.bias.to(dtype) + self.depthwise_bias.to(dtype)

    def _padded(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """`x` with every padding applied that a symmetric zero padding cannot express, and the padding that is left."""
        left, right, top, bottom = self._reversed_padding_repeated_twice
        if self.padding_mode != "zeros":  # back in x's dtype: autocast may pad in float32
            return F.pad(x, (left, right, top, bottom), mode=self.padding_mode).to(x.dtype), (0, 0)
        if left == right and top == bottom:
            return x, (top, left)
        return F.pad(x, (left, right, top, bottom)), (0, 0)

    def two_branch(self, x: torch.Tensor) -> torch.Tensor:
        """The defining form, with both branches as convolutions: (N, I, H, W) to (N, O, H', W'). For an unmerged layer.

        Slower than `forward`, the same up to rounding; `forward` uses it only when there is a pointwise bias.
        """
        base = self._conv_forward(x, self.weight, self.bias)
        z = F.conv2d(x, self.pointwise, self.pointwise_bias, groups=self.groups)
        z, padding = self._padded(z)
        return base + F.conv2d(
            z, self.depthwise, self.depthwise_bias, self.stride, padding, self.dilation, self.out_channels
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, I, H, W) or (I, H, W) to (N, O, H', W') or (O, H', W'), as torch.nn.Conv2d."""
        if self.disabled and self.merged:
            bias = None if self.base_bias is None else whole(self.base_bias)
            return self._conv_forward(x, whole(self.base_weight), bias)
        if self.disabled or self.merged:
            return self._conv_forward(x, self.weight, self.bias)
        if self.pointwise_bias is not None:
            return self.two_branch(x)
        if isinstance(x, fx.Proxy):  # symbolic tracing, with no dtype to compute by; autocast acts on the operators
            kernel, bias = self.effective()
            dtype = self._parameters["weight"].dtype
            return self._conv_forward(x, kernel.to(dtype), None if bias is None else bias.to(dtype))
        dtype = self._compute_dtype(x)
        learns = torch.is_grad_enabled() and (self.pointwise.requires_grad or self.depthwise.requires_grad)
        if not learns or self.weight.requires_grad or x.dim() != 4:
            # Plain autograd: nothing of the branch to learn, or a base kernel that someone chose to train as well.
            kernel, bias = self.effective()
            return self._conv_forward(x.to(dtype), kernel.to(dtype), None if bias is None else bias.to(dtype))
        bias = self._effective_bias(accumulation_dtype(self.weight.dtype))
        x, padding = self._padded(x.to(dtype))
        geometry = (self.stride, padding, self.dilation, self.groups)
        bias = None if bias is None else bias.to(dtype)
        by_kernel = self._gradients_by_kernel(x.device.type)
        return FusedConv2d.apply(x, self.weight, self.pointwise, self.depthwise, bias, geometry, by_kernel)

    def _gradients_by_kernel(self, device_type: str) -> bool:
        if self.config.gradient == "auto":
            return kernel_is_cheaper(self.weight.shape, self.stride, device_type)
        return self.config.gradient == "kernel"

    def _compute_dtype(self, x: torch.Tensor) -> torch.dtype:
        """The dtype torch.nn.Conv2d would compute in: autocast's where it is on (float64 is left alone), else x's."""
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)  # not for meta
        if x.dtype == torch.float64 or not autocast:
            if x.dtype != self.weight.dtype:
                raise RuntimeError(
                    f"ColoraConv2d: the input is {x.dtype} and the kernel {self.weight.dtype}; "
                    "cast one of them, or run under torch.autocast"
                )
            return x.dtype
        return torch.get_autocast_dtype(device)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("weight", "bias"):
            if self.merged and self._buffers[f"base_{name}"] is not None:
                destination[prefix + name] = self._buffers[f"base_{name}"]
        if self.initial_base is not None:
            destination[prefix + "initial_base"] = self.initial_base

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        initial_base = state_dict.pop(prefix + "initial_base", None)
        merged = self.merged
        self.unmerge()
        self.__dict__["_loading"] = True
        try:
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        finally:
            del self.__dict__["_loading"]
        if prefix + "weight" in state_dict:
            self.initial_base = None if initial_base is None else initial_base.to(self.weight.device, copy=True)
        if merged:
            self.merge()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.config.components}, merged={self.merged}"
