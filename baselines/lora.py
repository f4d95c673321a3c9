"""LoRA on the linear layers of a ViT (Hu et al., arXiv:2106.09685), by peft: W x + (alpha / rank) B A x, B = 0 at the
start. Attention alone (query, key and value in one matrix, and the output projection), or the MLP too.
"""

from baselines import Family
from baselines.backbones import Classifier

FAMILY = Family(label="LoRA", group="ViT", colours="#8F1D78")

LAYERS = {"attention": "attn.qkv|attn.proj", "mlp": "mlp.fc1|mlp.fc2"}  # timm's names


def adapt(
    model: Classifier,
    *,
    rank: int,
    alpha: float,
    layers: tuple[str, ...] = ("attention",),
    blocks: tuple[int, int] = (2, 5),
) -> Classifier:
    """`layers`: which of "attention" and "mlp" are adapted, in every transformer layer of the blocks."""
    from peft import LoraConfig, inject_adapter_in_model  # here, since it takes seconds

    unknown = [name for name in layers if name not in LAYERS]
    if unknown or not layers:
        raise ValueError(f"layers: found {list(layers)}, expected one or both of {', '.join(LAYERS)}")
    if rank < 1:
        raise ValueError(f"rank: found {rank}, expected at least 1")
    prefixes = [name for name in model.block_modules(blocks) if hasattr(model.get_submodule(name), "attn")]
    if not prefixes:
        raise ValueError(f"blocks: {list(blocks)} of this backbone hold no attention; LoRA here is for ViTs")
    names = "|".join(LAYERS[name] for name in layers)
    model.freeze_backbone()
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=rf"({'|'.join(prefixes)})\.({names})")
    inject_adapter_in_model(config, model)
    model.head.requires_grad_(True)  # peft froze all that it did not add
    return model
