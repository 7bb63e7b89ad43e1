"""Folders of PEFT: their adapters are in the exported weights, or they are refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import torch
from folders import LABELS

from skipserve.errors import ConfigError
from skipserve.graph.memory import open_model
from skipserve.sources.hugging_face.folder import names_of, open_folder
from skipserve.sources.hugging_face.proposing import proposed_kind
from skipserve.sources.hugging_face.reading import read_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels, which the adapters change."""
    path = tmp_path_factory.mktemp("peft") / "base"
    folders.write(path, "bert", num_hidden_layers=2)
    return path


def tuned(base: Path, path: Path, labels: int = 3, **config: Any) -> Any:
    """Adapters that are not zero, as training leaves them; the network with them."""
    import peft
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=labels, ignore_mismatched_sizes=True
    )
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight += torch.randn_like(weight)
    wrapped.save_pretrained(path)
    return wrapped.eval()


@pytest.fixture(scope="module")
def adapters(base: Path) -> tuple[Path, Any]:
    return base.parent / "adapters", tuned(base, base.parent / "adapters")


def run(model: Any, ids: Any) -> Any:
    session = open_model(model)
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return session.run(None, feed)[0]


def test_the_exported_network_has_its_adapters(base: Path, adapters: tuple[Path, Any]) -> None:
    path, wrapped = adapters
    read = read_folder(path, ("torchscript",))
    ids = np.random.default_rng(0).integers(5, 80, (4, 9))
    with torch.no_grad():
        expected = wrapped(input_ids=torch.from_numpy(ids)).logits.numpy()
        plain = folders.network("bert", num_hidden_layers=2)(torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(run(read.model, ids), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected - plain).max() > 0.1
    assert (read.source.name, read.names) == ("adapters", LABELS)
    assert read.source.sha256 != open_folder(base).sha256()


def test_a_head_of_its_own_counts_and_not_that_of_its_base(base: Path) -> None:
    path = base.parent / "five"
    wrapped = tuned(base, path, labels=5)
    folder = open_folder(path)
    assert proposed_kind(folder) == "classify"
    assert names_of(folder.config) == ()
    ids = np.random.default_rng(0).integers(5, 80, (2, 7))
    with torch.no_grad():
        expected = wrapped(input_ids=torch.from_numpy(ids)).logits.numpy()
    found = run(read_folder(path, ("torchscript",)).model, ids)
    assert found.shape == (2, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def copied(adapters: tuple[Path, Any], path: Path, **config: Any) -> Path:
    shutil.copytree(adapters[0], path)
    file = path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return path


def test_what_cannot_be_merged_is_refused(adapters: tuple[Path, Any], tmp_path: Path) -> None:
    elsewhere = copied(adapters, tmp_path / "hub", base_model_name_or_path="org/bert-base")
    with pytest.raises(ConfigError, match="changes org/bert-base, which is no folder here"):
        read_folder(elsewhere, ("torchscript",))
    pickled = copied(adapters, tmp_path / "pickle")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"holds no adapter_model\.safetensors"):
        read_folder(pickled, ("torchscript",))
    wider = copied(adapters, tmp_path / "wider", target_modules=["query", "key", "value"])
    with pytest.raises(ConfigError, match=r"does not fit .*base"):
        read_folder(wider, ("torchscript",))
    other = copied(adapters, tmp_path / "other", target_modules=["q_proj"])
    with pytest.raises(ConfigError, match=r"does not fit .*base"):
        read_folder(other, ("torchscript",))
