"""Folders of PEFT: a few matrices that were tuned, and the name of the folder that they change.

Source: ``save_pretrained`` of PEFT. Its adapters are added to the weights of the base before the
network is exported, so what serves knows nothing of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skipserve.errors import ConfigError
from skipserve.extras import require

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What PEFT calls the tasks whose heads it saves beside the adapters.
CLASSIFIES = "SEQ_CLS"
# Last layers of heads; those of RoBERTa and ELECTRA have two.
_LAST = ("classifier.weight", "score.weight", "out_proj.weight")


@dataclass(frozen=True)
class Adapter:
    """Adapters in a folder.

    Attributes:
        path: Of the folder.
        base: The folder that they change.
        classifies: Whether they are of a classifier of texts.
        saved: Names of modules that are saved whole beside the adapters, its head among them.
    """

    path: Path
    base: Path
    classifies: bool
    saved: tuple[str, ...]

    def labels(self) -> int | None:
        """How many numbers the saved head gives; ``None`` if no head was saved."""
        from safetensors import safe_open

        with safe_open(self.path / WEIGHTS, "np") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no dict
                if name.endswith(_LAST):
                    return int(weights.get_slice(name).get_shape()[0])
        return None

    def covers(self, key: str) -> bool:
        """Whether the adapters bring a weight that the base may lack."""
        return any(part in self.saved for part in key.split("."))


def adapter_in(path: Path, config: Mapping[str, Any]) -> Adapter:
    """Look at a folder of PEFT.

    Args:
        path: Of the folder.
        config: Its ``adapter_config.json``.

    Raises:
        ConfigError: If its weights are a pickle, or its base is not on this machine.
    """
    if not (path / WEIGHTS).is_file():
        raise ConfigError(
            f"{path} holds no {WEIGHTS}; expected what save_pretrained of PEFT writes"
        )
    named = str(config.get("base_model_name_or_path") or "")
    places = [Path(named), path / named, path.parent / named] if named else []
    base = next((one for one in places if (one / "config.json").is_file()), None)
    if base is None:
        raise ConfigError(
            f"{path / CONFIG} changes {named or 'a base that it does not name'}, which is no "
            "folder here; download it and set base_model_name_or_path to its folder"
        )
    saved = tuple(config.get("modules_to_save") or ())
    return Adapter(path, base, config.get("task_type") == CLASSIFIES, saved)


def merged(model: Any, adapter: Adapter) -> Any:
    """A network with its adapters added to its weights.

    Raises:
        ConfigError: If the adapters are of another network.
        LaunchError: If PEFT is not installed.
    """
    require("peft")
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            # PEFT only warns of adapters without weights: they would be made up.
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            return PeftModel.from_pretrained(model, str(adapter.path)).merge_and_unload()
    except Exception as error:  # PEFT has no class of its own for it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{adapter.path} does not fit {adapter.base}: {reason}") from None
