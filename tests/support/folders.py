"""Small Hugging Face folders with random weights, and rows of text for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

from skipserve.artifacts.origin import Origin
from skipserve.sources.brought import brought_origin
from skipserve.sources.config import Brought, DataConfig, SourceConfig
from skipserve.sources.hugging_face.proposing import task_of
from skipserve.sources.splits import Splits

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(f"{a}{b}" for a in "bdfglmnprstv" for b in ("a", "e", "i", "o", "u", "an", "or"))
LABELS = ("calm", "glad", "grim")
LONGEST = 24
# Of sentence embeddings.
SHORTER = 16
SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 40,
}
FAMILIES = {
    "bert": "BertForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "modernbert": "ModernBertForSequenceClassification",
    "deberta-v2": "DebertaV2ForSequenceClassification",
}


def tokenizer() -> Tokenizer:
    """BERT's kind of tokenizer, of a hundred words and their parts."""
    parts = [*SPECIAL, *WORDS, *(f"##{word}" for word in WORDS)]
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(parts)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def network(family: str, **changes: Any) -> nn.Module:
    """A network of transformers whose answers differ from text to text."""
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SIZES, "vocab_size": len(tokenizer().get_vocab()), "pad_token_id": 0}
    if family == "distilbert":
        sizes |= {"dim": 32, "n_heads": 2, "hidden_dim": 48, "n_layers": 3}
    if family == "modernbert":
        ids = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
        sizes |= {**ids, "local_attention": 8}
    if family == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}
    named = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    config = transformers.AutoConfig.for_model(family, **(sizes | named | changes))
    made = getattr(transformers, FAMILIES[family])(config).eval()
    with torch.no_grad():
        for part in made.modules():
            if isinstance(part, nn.Linear):
                part.weight *= 4
                last = part
            if isinstance(part, nn.Embedding):
                part.weight *= 20
        ids = torch.randint(len(SPECIAL), sizes["vocab_size"], (256, LONGEST))
        logits = made(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        last.weight *= 2 / logits.std(dim=0, keepdim=True).T
        logits = made(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        last.bias -= logits.mean(dim=0)
    return made


def write(folder: Path, family: str = "bert", **changes: Any) -> nn.Module:
    """Write a folder as ``save_pretrained`` does; the network in it."""
    made = network(family, **changes)
    made.save_pretrained(folder)
    write_tokenizer(folder, made)
    return made


def write_tokenizer(folder: Path, made: Any) -> None:
    """Write the tokenizer of a network beside it."""
    from transformers import PreTrainedTokenizerFast

    types = ["token_type_ids"] if getattr(made.config, "type_vocab_size", 0) > 1 else []
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(),
        model_max_length=LONGEST,
        model_input_names=["input_ids", *types, "attention_mask"],
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=False)),
    ).save_pretrained(folder)


def write_embedder(folder: Path, mode: str, unit: bool) -> nn.Module:
    """Write a folder as sentence-transformers does; the network in it, without its pooling."""
    made: nn.Module = network("bert").bert
    made.save_pretrained(folder)
    write_tokenizer(folder, made)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if unit else [])]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{one}": one.startswith(mode) for one in ("cls_token", "mean_tokens")}
    flags |= {"pooling_mode_max_tokens": mode == "max", "word_embedding_dimension": 32}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(flags))
    settings = {"max_seq_length": SHORTER, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return made


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of one to thirty words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 31))) for _ in range(count)]


def write_rows(file: Path, texts: list[str], **columns: list[Any]) -> Path:
    """Write texts and what else stands beside them as lines of JSON."""
    lines = [
        json.dumps({"body": text, **{name: column[i] for name, column in columns.items()}})
        for i, text in enumerate(texts)
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def origin_of(root: Path, said: dict[str, Any] | None = None, **data: Any) -> tuple[Origin, Splits]:
    """What is made of the folder ``net`` and the rows in ``rows.jsonl``; nothing is certified."""
    source = SourceConfig(folder="net", exporters=("torchscript",))
    rows = DataConfig(**({"rows": "rows.jsonl"} | data))
    task = task_of(root / "net", said or {}, "task", pairs=len(rows.values) > 1)
    return brought_origin(Brought(source=source, data=rows, task=task), root)


def given_by(net: nn.Module, folder: Path, texts: list[Any], **options: Any) -> Any:
    """What transformers itself gives for texts or pairs."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(texts, truncation=True, padding=True, return_tensors="pt", **options)
    with torch.no_grad():
        return net(**tokens), tokens["attention_mask"]
