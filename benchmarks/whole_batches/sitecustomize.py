"""On the path of a service: its replies leave with the last row of their batch, as elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

SERVICE = "skipserve.service.service"


class Whole(MetaPathFinder, Loader):
    """Changes the service as it is imported: nothing else is imported here, nor in the launcher."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name != SERVICE:
            return None
        sys.meta_path.remove(self)
        self._spec: ModuleSpec | None = find_spec(name)
        assert self._spec is not None and self._spec.loader is not None
        self._loader = self._spec.loader
        self._spec.loader = self
        return self._spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        answers = module.Service.answers

        def at_once(self: Any, *asked: Any) -> Iterator[Any]:
            yield [reply for some in answers(self, *asked) for reply in some]

        module.Service.answers = at_once


sys.meta_path.insert(0, Whole())
