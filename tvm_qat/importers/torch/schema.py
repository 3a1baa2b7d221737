"""Operands by the argument names of an operator's schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvm_qat.errors import InputError


def operator_name(schema: Any) -> str:
    """`aten.add` for aten::add.Tensor, and for its in-place twin aten::add_.Tensor."""
    name = str(schema.name).replace("::", ".")
    return name[:-1] if is_in_place(schema) else name


def is_in_place(schema: Any) -> bool:
    """Whether the operator writes its first argument and returns it."""
    name = str(schema.name)
    return name.endswith("_") and not name.endswith("__") and is_written(schema.arguments[0])


def is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def is_view(schema: Any) -> bool:
    """Whether a result may share the memory of the first argument without being it."""
    aliases = any(value.alias_info is not None for value in schema.returns)
    return aliases and not is_in_place(schema)


def named(
    schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any], translated: Callable[[Any], Any]
) -> dict[str, Any]:
    """Every argument of `schema` by name, defaults filled in, each passed through `translated`."""
    found: dict[str, Any] = {}
    for position, argument in enumerate(schema.arguments):
        if argument.name in kwargs:
            value = kwargs[argument.name]
        elif position < len(args) and not argument.kwarg_only:
            value = args[position]
        elif argument.has_default_value():
            value = argument.default_value
        else:
            raise InputError(f"argument {argument.name!r} is missing")
        found[argument.name] = translated(value)
    return found
