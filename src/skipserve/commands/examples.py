"""Examples for the help of every command; a test parses each, and runs those that are quick."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "bring": (
        "bring fashion.onnx --data fashion.npz --labels label",
        "bring ./minilm --data emails.jsonl --text body --label spam --risk 2%",
        "bring models.py:network --data rows.parquet --name mine",
    ),
    "build": ("build export/moons_residual.toml", "build export/moons_plain.toml export/mine.toml"),
    "train": ("train export/moons_residual.toml --epochs 4 --out checkpoints/short",),
    "export": ("export export/moons_residual.toml",),
    "calibrate": ("calibrate export/moons_residual.toml",),
    "package": ("package export/moons_residual.toml",),
    "plot": ("plot checkpoints/moons_plain checkpoints/moons_residual --out gradients.png",),
    "inspect": (
        "inspect moons_residual",
        "inspect moons_residual --data rows.npz --labels label --json",
    ),
    "report": ("report moons_residual", "report moons_residual --data rows.npz --risk 2%"),
    "predict": (
        "predict moons_residual rows.npz --out answers.csv",
        "predict moons_residual rows.npz --out answers.parquet --risk 1%",
    ),
    "serve": (
        "serve",
        "serve moons_residual --port 8080 --workers 2",
        "serve moons_residual moons_residual@2 --server torchserve",
    ),
    "reload": ("reload", "reload --metrics-port 9464"),
    "versions": ("versions moons_residual", "versions moons_residual --json"),
    "rollback": ("rollback moons_residual", "rollback moons_residual 2"),
    "top": ("top", "top http://127.0.0.1:9464 --interval 5", "top --json"),
    "router on": ("router on moons_residual",),
    "router off": ("router off moons_residual",),
    "router status": ("router status", "router status moons_residual --json"),
    "certify": (
        "certify model_store/moons_residual.mar",
        "certify artifacts/moons_residual --data rows.npz --labels label --risk 1% --risk 2%",
    ),
    "certificate": (
        "certificate moons_residual",
        "certificate moons_residual --export earned.jsonl",
    ),
    "attest": (
        "attest artifacts/moons_residual --out certificate.json",
        "attest moons_residual",
    ),
    "sign": ("sign certificate.json --key private.pem",),
    "verify": (
        "verify certificate.json artifacts/moons_residual",
        "verify certificate.json model_store/moons_residual.mar --data rows.npz --key public.pem",
    ),
    "loadtest": (
        "loadtest --model moons_residual --rate 100 --start",
        "loadtest --model moons_residual --capacity --slo p99=20ms",
    ),
}


def epilog_of(command: str) -> str:
    """The examples as the end of a help page."""
    lines = [f"  skipserve {line}" for line in EXAMPLES[command]]
    return "\n".join(["Examples:", *lines])
