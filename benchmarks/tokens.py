"""Are an artifact's tokens those of transformers, and what do they cost?

`python benchmarks/tokens.py FOLDER TEXTS.jsonl… [--column body]` opens the tokenizer of a Hugging
Face folder twice, as `skipserve bring` packs it and as transformers does, and compares every text,
odd ones, and pairs of them: alone and in batches of 32. Then it says what a text costs in
microseconds, one at a time, against the library on the whole text.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from skipserve.preprocessing.opening import preprocessor_of
from skipserve.sources.hugging_face.folder import open_folder
from skipserve.sources.hugging_face.tokens import open_tokenizer, prepared_texts

INPUTS = ("input_ids", "token_type_ids", "attention_mask")
ODD = [
    *(
        "",
        " ",
        "\n\n",
        "🙂",
        "🙂🙃 👩‍👩‍👧‍👦",
        "שלום עולם",
        "مرحبا بالعالم",
        "e\u0301\u0301",
        "\u200b\ufeff",
    ),
    *("\x00\x01", "[CLS] [SEP] [MASK] [PAD]", "漢字かな", "a" * 5_000, "great film " * 10_000),
    *(" " * 100_000, "." * 100_000, "a\u0301" * 50_000, "漢" * 100_000, "x y " * 60_000),
]
BATCH = 32


def batches(values: list[Any]) -> Iterator[list[Any]]:
    for value in values:
        yield [value]
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]


def compare(
    ours: Callable[[list[Any]], Any], theirs: Callable[[list[Any]], Any], values: list[Any]
) -> int:
    """Values whose tokens differ, in any of their batches."""
    differ = 0
    for some in batches(values):
        got, expected = ours(some), theirs(some)
        same = got.keys() == expected.keys() and all(
            np.array_equal(got[name], expected[name]) for name in got
        )
        if not same:
            differ += 1
            print(f"differs: {str(some[0])[:60]!r} and {len(some) - 1} more")
    return differ


def microseconds(run: Callable[[str], object], texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        run(text)
    return 1e6 * (time.process_time() - began) / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--column", default="body")
    options = parser.parse_args()
    texts = [json.loads(line)[options.column] for file in options.texts for line in file.open()]
    folder = open_folder(options.folder)
    tokenizer = open_tokenizer(folder)
    prepared = prepared_texts(folder, tokenizer, tuple(tokenizer.model_input_names))
    with tempfile.TemporaryDirectory() as place:
        for name, content in prepared.files.items():
            (Path(place) / name).write_bytes(content)
        ours = preprocessor_of(prepared.config, Path(place))
        plain = type(tokenizer.backend_tokenizer).from_file(str(Path(place) / "tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(prepared.config.longest)

    def theirs(values: list[Any]) -> Any:
        made = tokenizer(values, truncation=True, padding=True, return_tensors="np")
        return {name: made[name] for name in INPUTS if name in made}

    pairs = [list(pair) for pair in zip(texts[:1000], texts[1000:2000], strict=False)]
    pairs += [list(pair) for pair in zip(ODD, reversed(ODD), strict=True)]
    told = {
        "texts": len(texts),
        "odd": len(ODD),
        "pairs": len(pairs),
        "differ": compare(ours, theirs, texts + ODD) + compare(ours, theirs, pairs),
        "us_a_text": round(microseconds(lambda text: ours([text]), texts[:1000])),
        "us_whole_text": round(
            microseconds(lambda text: plain.encode_batch_fast([text]), texts[:1000])
        ),
        "us_transformers": round(microseconds(lambda text: theirs([text]), texts[:1000])),
    }
    print(json.dumps(told))
    if told["differ"]:
        sys.exit("wanted: none differs")


if __name__ == "__main__":
    main()
