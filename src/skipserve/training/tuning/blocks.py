"""Finding the residual blocks of a torch module by running it once.

A block is residual if its input reaches its output on a path of the autograd graph that meets no
product with weights. Of the classes whose instances are residual, the one that holds the network's
weights and has most instances is that of the blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from skipserve.errors import CutError

# Nodes of the autograd graph where values are mixed by weights.
PRODUCTS = ("Addmm", "Mm", "Bmm", "Convolution", "Einsum", "ScaledDotProduct", "MkldnnLinear")
# Classes that hold less of the weights than this, relative to the best, are parts of blocks.
HOLDS = 0.9


@dataclass(frozen=True)
class Call:
    """One call of a module, with the autograd nodes of what came in and what went out."""

    name: str
    module: nn.Module
    came: Any
    went: Any


def first_tensor(value: Any) -> Tensor | None:
    """The tensor that a module took or gave first."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)) and value:
        return first_tensor(value[0])
    return None


def find_residual_blocks(module: nn.Module, example: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of a network's residual blocks, in the order in which they run.

    Args:
        module: In evaluation mode.
        example: Its inputs, two rows or more.

    Raises:
        CutError: If there are no two of them.
    """
    calls = _calls(module, example)
    by_class: dict[type[nn.Module], list[Call]] = defaultdict(list)
    for call in calls:
        by_class[type(call.module)].append(call)
    residual = {
        kind: found
        for kind, found in by_class.items()
        if len(found) > 1
        and len({id(one.module) for one in found}) == len(found)
        and 2 * sum(_skips(one) for one in found) >= len(found)
    }
    held = {kind: _weights(found) for kind, found in residual.items()}
    largest = max(held.values(), default=0)
    candidates = [kind for kind, weights in held.items() if weights and weights >= HOLDS * largest]
    if not candidates:
        raise CutError("the module has no two residual blocks of one class; nothing is tuned")
    kind = max(candidates, key=lambda one: (len(residual[one]), held[one]))
    return tuple(call.name for call in residual[kind])


def watch(
    module: nn.Module, names: Sequence[str], tell: Callable[[int, Tensor], None]
) -> list[Any]:
    """Tell of every stream: 0 is what came into the first block, i what block i gave.

    Returns:
        Handles that end it.
    """
    blocks = [module.get_submodule(name) for name in names]

    def before(_block: nn.Module, came: Any) -> None:
        stream = first_tensor(came)
        assert stream is not None
        tell(0, stream)

    def behind(place: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_block: nn.Module, _came: Any, went: Any) -> None:
            stream = first_tensor(went)
            assert stream is not None
            tell(place, stream)

        return hook

    handles: list[Any] = [blocks[0].register_forward_pre_hook(before)]
    handles += [one.register_forward_hook(behind(i)) for i, one in enumerate(blocks, start=1)]
    return handles


def _calls(module: nn.Module, example: Sequence[Tensor]) -> list[Call]:
    """Calls of parts that have parts, with the nodes of the moment: ``+=`` changes them."""
    made: list[Call] = []
    came: dict[str, Any] = {}

    def before(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(_part: nn.Module, given: Any) -> None:
            came[name] = _node(given)

        return hook

    def behind(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, _given: Any, gave: Any) -> None:
            made.append(Call(name, part, came.pop(name, None), _node(gave)))

        return hook

    handles: list[Any] = []
    for name, part in module.named_modules():
        if name and next(part.children(), None) is not None:
            handles.append(part.register_forward_pre_hook(before(name)))
            handles.append(part.register_forward_hook(behind(name)))
    try:
        module(*example)
    finally:
        for handle in handles:
            handle.remove()
    return made


def _node(value: Any) -> Any:
    tensor = first_tensor(value)
    return None if tensor is None else tensor.grad_fn


def _weights(calls: Sequence[Call]) -> int:
    return sum(one.numel() for call in calls for one in call.module.parameters())


def _skips(call: Call) -> bool:
    """Whether the input reaches the output past all products."""
    if call.came is None or call.went is None:
        return False
    seen: set[Any] = set()
    ahead: list[Any] = [call.went]
    while ahead:
        node = ahead.pop()
        if node is call.came:
            return True
        if node in seen or any(word in node.name() for word in PRODUCTS):
            continue
        seen.add(node)
        ahead += [one for one, _ in node.next_functions if one is not None]
    return False
