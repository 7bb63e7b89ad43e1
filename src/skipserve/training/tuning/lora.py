"""Matrices of low rank in the residual branches, the network under them frozen (PEFT)."""

from __future__ import annotations

from typing import Any

from torch import nn

from skipserve.errors import CutError
from skipserve.extras import require

# Where PEFT puts the module that it wraps.
INSIDE = "base_model.model"


def with_lora(module: nn.Module, blocks: tuple[str, ...], rank: int) -> Any:
    """A module with matrices of low rank beside every linear map and convolution of its blocks.

    Args:
        module: Its weights are frozen.
        blocks: Names of its residual blocks.
        rank: Of the matrices.

    Raises:
        CutError: If the blocks hold no such layer.
        LaunchError: If PEFT is not installed.
    """
    require("peft")
    from peft import LoraConfig, get_peft_model

    inside = [
        f"{block}.{name}"
        for block in blocks
        for name, part in module.get_submodule(block).named_modules()
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1)
    ]
    if not inside:
        raise CutError("the residual blocks hold no linear map or convolution for LoRA")
    return get_peft_model(
        module,
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=inside, lora_dropout=0.0),
    )
