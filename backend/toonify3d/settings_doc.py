"""One source for what a setting means: the docstring under its dataclass field.

CLI help, ``job.json`` and the add-on's tooltips read it from here (nerfstudio's convention, read
by ``ast`` because Python does not keep attribute docstrings at run time).
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
import typing
from typing import Any, TypeVar

from .errors import InputError

T = TypeVar("T")


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Field name to the docstring under it, including inherited fields."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs.update(_own_field_docs(typing.cast(type, base)))
    return docs


def _own_field_docs(cls: type[Any]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    docs = {}
    for statement, following in itertools.pairwise(body):
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        is_doc = (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        )
        if is_field and is_doc:
            docs[statement.target.id] = inspect.cleandoc(following.value.value)  # type: ignore
    return docs


def describe(settings: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """Every leaf setting as ``(dotted name, current value, docstring)``."""
    rows = []
    docs = field_docs(typing.cast(type, type(settings)))
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        name = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            rows += describe(value, name + ".")
        else:
            rows.append((name, repr(value), docs.get(item.name, "")))
    return rows


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Rebuild a nested settings dataclass from its ``asdict`` form (as read from JSON).

    Unknown names are ignored and missing ones keep their defaults, so that a job written by
    another version can be read.

    Raises:
        TypeError: There is something else in the place of a group of settings.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{cls.__name__} cannot be read from {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    known = {}
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        if item.name not in values:
            continue
        value = values[item.name]
        if dataclasses.is_dataclass(hints[item.name]):
            value = from_dict(typing.cast(type, hints[item.name]), value)
        known[item.name] = _tuples(value)
    return cls(**known)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def override(settings: T, assignment: str) -> T:
    """Apply ``"prior.steps=4000"`` to nested frozen dataclasses.

    Raises:
        InputError: No such setting, or the value does not fit its type.
    """
    name, sep, text = assignment.partition("=")
    if not sep:
        raise InputError(f"--set wants NAME=VALUE, not '{assignment}'.", "bad_setting")
    return _replace(settings, name.strip().split("."), text.strip(), name)


def _replace(settings: T, path: list[str], text: str, full: str) -> T:
    names = {item.name for item in dataclasses.fields(settings)}  # type: ignore[arg-type]
    if path[0] not in names:
        raise InputError(
            f"There is no setting '{full}'; 'toonify3d settings' lists them.", "bad_setting"
        )
    current = getattr(settings, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise InputError(f"'{full}' is not a group of settings.", "bad_setting")
        value: Any = _replace(current, path[1:], text, full)
    else:
        hint = typing.get_type_hints(type(settings))[path[0]]
        value = _parse(text, hint, full)
    return dataclasses.replace(settings, **{path[0]: value})  # type: ignore[type-var]


def _parse(text: str, hint: Any, full: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text.lower() == "none":
        return None
    try:
        return _parse_one(text, next(o for o in options if o is not type(None)))
    except (ValueError, TypeError, SyntaxError, StopIteration):
        raise InputError(f"'{text}' does not fit the setting '{full}'.", "bad_setting") from None


def _parse_one(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(text)
        return text.lower() in ("true", "1", "yes")
    if kind in (int, float, str):
        return kind(text)
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if typing.get_origin(kind) is tuple:
        entry = typing.get_args(kind)[0]
        return tuple(entry(part) for part in ast.literal_eval(text))
    raise ValueError(text)
