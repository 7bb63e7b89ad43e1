"""What a router does with texts that are not like its data: is it unsure of them, or held back?

    python benchmarks/strange_texts.py artifacts/minilm_spam emails.jsonl [--column body]

Each kind of text is run at the certified ε and at full depth. Wanted of strange kinds: at most 3 %
disagree, or at least 90 % are held back by the guards; of ordinary texts at most 1 % are held back.

- *ordinary*: texts of the file, the last ones;
- *words shuffled*: the same, the words of each in random order;
- *random tokens*: as many tokens of the vocabulary as each has, drawn evenly;
- *German*, *Russian*, *Chinese*: messages of this machine's programs in these languages
  (`/usr/share/locale/*/LC_MESSAGES/*.mo`), joined until they are as long.

Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import gettext
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from skipserve.artifacts.artifact import open_artifact
from skipserve.runtime.engine import Engine
from skipserve.sources.columns import read_columns

LANGUAGES = {"German": "de", "Russian": "ru", "Chinese": "zh_CN"}
LOCALES = Path("/usr/share/locale")
MOST_DISAGREE, FEWEST_HELD, MOST_HELD = 0.03, 0.9, 0.01
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--column", default="body")
    parser.add_argument("--risk", type=float, default=0.02)
    parser.add_argument("--rows", type=int, default=300, help="of each kind")
    options = parser.parse_args()
    texts = read_columns(options.texts)[options.column][-options.rows :].tolist()
    engine = Engine.for_many(open_artifact(options.artifact), provider="cpu")
    setting = engine.setting(options.risk)
    if setting.risk is None:
        raise SystemExit(f"{options.risk:g} is not certified: {setting.reason}")
    found = []
    print(f"{len(texts)} texts of each kind, ε = {setting.risk:g}\n")
    print("| texts | disagree | held back | blocks run | |\n|---|---|---|---|---|")
    for kind, made in kinds(texts, options.artifact).items():
        rows = engine.inputs.prepare(made)
        full = engine.run_batches(rows, engine.off, BATCH).answers
        routed = engine.run_batches(rows, setting, BATCH)
        row = {
            "texts": kind,
            "disagree": float((~engine.manifest.task.agree(routed.answers, full)).mean()),
            "held_back": float(routed.held_back.mean()),
            "run_rate": float(routed.depth_run.mean() / engine.manifest.depth),
        }
        row["passes"] = passes(kind, row["disagree"], row["held_back"])
        found.append(row)
        told = "| {texts} | {disagree:.1%} | {held_back:.1%} | {run_rate:.0%} |".format(**row)
        print(told, "" if row["passes"] else "not as wanted", "|", flush=True)
    print(json.dumps({"benchmark": "strange_texts", "rows": found}))


def passes(kind: str, disagree: float, held_back: float) -> bool:
    if kind == "ordinary":
        return held_back <= MOST_HELD
    return disagree <= MOST_DISAGREE or held_back >= FEWEST_HELD


def kinds(texts: list[str], artifact: Path) -> dict[str, list[str]]:
    """Texts of each kind, as many as are given and about as long."""
    rng = np.random.default_rng(0)
    tokenizer = Tokenizer.from_file(str(artifact / "tokenizer.json"))
    tokenizer.no_padding()
    words = [word for word in tokenizer.get_vocab() if word.isalpha()]

    def tokens(text: str) -> str:
        return " ".join(rng.choice(words, len(tokenizer.encode(text).ids)).tolist())

    def shuffled(text: str) -> str:
        return " ".join(rng.permutation(text.split()).tolist())

    made: dict[str, Callable[[str], str]] = {"words shuffled": shuffled, "random tokens": tokens}
    for name, place in LANGUAGES.items():
        said = messages(LOCALES / place)
        if said:
            made[name] = lambda text, said=said: joined(said, len(text), rng)
    return {"ordinary": texts} | {kind: [one(text) for text in texts] for kind, one in made.items()}


def messages(folder: Path) -> list[str]:
    """Messages of programs in one language."""
    found: set[str] = set()
    for file in sorted(folder.glob("LC_MESSAGES/*.mo")):
        with file.open("rb") as stream:
            try:
                catalog = gettext.GNUTranslations(stream)
            except (OSError, UnicodeDecodeError, ValueError):
                continue
        given = vars(catalog)["_catalog"]
        found |= {text for key, text in given.items() if key and text != key and len(text) > 20}
    return sorted(found)


def joined(messages: list[str], length: int, rng: np.random.Generator) -> str:
    """Random messages, until they are as long as a text."""
    parts: list[str] = []
    while sum(map(len, parts)) < min(length, 2_000):
        parts.append(messages[rng.integers(len(messages))])
    return "\n".join(parts)


if __name__ == "__main__":
    main()
