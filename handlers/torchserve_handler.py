"""What TorchServe opens by path; all it does is in the package.

TorchServe wants one class with ``initialize`` and ``handle`` that the file itself defines. What a
project wants to do besides goes in here.
"""

from __future__ import annotations

from skipserve.hosts.torchserve.handler import SkipserveHandler


class Handler(SkipserveHandler):
    """Serves the artifact in the archive it came with."""
