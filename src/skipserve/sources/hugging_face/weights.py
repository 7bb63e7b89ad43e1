"""Loading the weights of a folder, and refusing those that are not all there."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from skipserve.errors import ConfigError
from skipserve.sources.hugging_face.adapter import merged
from skipserve.sources.hugging_face.folder import Folder
from skipserve.training.tuning.weights import load_tuned

NAMED = 3


def load(folder: Folder, auto: str, unused: tuple[str, ...] = ()) -> Any:
    """A folder's network in FP32 and evaluation mode.

    Args:
        folder: With weights.
        auto: The class of transformers that opens it.
        unused: What names of weights begin with that no answer depends on; they may be missing.

    Raises:
        ConfigError: If it cannot be opened, or some weights are missing: transformers would make
            them up.
    """
    speaks: Any = transformers.logging  # some of it has no types
    said, bars = (
        speaks.get_verbosity(),
        speaks.is_progress_bar_enabled(),
    )
    labels = None if folder.adapter is None else folder.adapter.labels()
    # The head of the adapters takes the place of the base's, of however many labels that is.
    head = {} if labels is None else {"num_labels": labels, "ignore_mismatched_sizes": True}
    speaks.set_verbosity(speaks.ERROR)
    speaks.disable_progress_bar()
    try:
        model, told = getattr(transformers, auto).from_pretrained(
            folder.path,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **head,
        )
    except Exception as error:  # each family raises classes of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{folder.path} cannot be opened by transformers: {reason}") from None
    finally:
        speaks.set_verbosity(said)
        if bars:
            speaks.enable_progress_bar()
    lacking = {*told["missing_keys"], *(key for key, *_ in told["mismatched_keys"])}
    if folder.adapter is not None:
        lacking = {key for key in lacking if not folder.adapter.covers(key)}
    missing = sorted(key for key in lacking if not key.startswith(unused))
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ConfigError(
            f"{folder.path} has no weights for {', '.join(missing[:NAMED])}{more}: transformers "
            "would make them up, so this part was never trained; bring a fine-tuned folder"
        )
    if folder.adapter is not None:
        model = merged(model, folder.adapter)
    if folder.tuned is not None:
        load_tuned(model, folder.tuned)
    return model.eval()
