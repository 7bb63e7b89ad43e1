"""The commands of `skipserve`, a file a subject; each imports what it needs when it is called."""

from __future__ import annotations

from rich.console import Console

# What a person reads; what a program reads goes to stdout.
console = Console(stderr=True, highlight=False)
