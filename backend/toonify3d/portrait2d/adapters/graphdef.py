"""Constants of a frozen TensorFlow graph, without TensorFlow.

Only the few messages of ``tensorflow/core/framework/*.proto`` that hold constants are declared;
protobuf (which mediapipe brings) parses the file and skips the rest.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ...errors import InputError

_STRING, _BYTES, _MESSAGE = 9, 12, 11
_INT32, _INT64, _FLOAT, _BOOL, _ENUM_AS_INT = 5, 3, 2, 8, 5
_OPTIONAL, _REPEATED = 1, 3
DT_FLOAT, DT_INT32, DT_HALF = 1, 3, 19
_NUMPY: dict[int, np.dtype[Any]] = {
    DT_FLOAT: np.dtype("<f4"),
    DT_INT32: np.dtype("<i4"),
    DT_HALF: np.dtype("<f2"),
}

# message: (field, number, type, label, message type). Numbers are TensorFlow's.
_MESSAGES: dict[str, tuple[tuple[str, int, int, int, str], ...]] = {
    "Dim": (("size", 1, _INT64, _OPTIONAL, ""),),
    "Shape": (("dim", 2, _MESSAGE, _REPEATED, "Dim"),),
    "Tensor": (
        ("dtype", 1, _ENUM_AS_INT, _OPTIONAL, ""),
        ("tensor_shape", 2, _MESSAGE, _OPTIONAL, "Shape"),
        ("tensor_content", 4, _BYTES, _OPTIONAL, ""),
        ("float_val", 5, _FLOAT, _REPEATED, ""),
        ("int_val", 7, _INT32, _REPEATED, ""),
    ),
    "ListValue": (("i", 3, _INT64, _REPEATED, ""),),
    "AttrValue": (
        ("list", 1, _MESSAGE, _OPTIONAL, "ListValue"),
        ("s", 2, _BYTES, _OPTIONAL, ""),
        ("i", 3, _INT64, _OPTIONAL, ""),
        ("f", 4, _FLOAT, _OPTIONAL, ""),
        ("b", 5, _BOOL, _OPTIONAL, ""),
        ("type", 6, _ENUM_AS_INT, _OPTIONAL, ""),
        ("shape", 7, _MESSAGE, _OPTIONAL, "Shape"),
        ("tensor", 8, _MESSAGE, _OPTIONAL, "Tensor"),
    ),
    "AttrEntry": (
        ("key", 1, _STRING, _OPTIONAL, ""),
        ("value", 2, _MESSAGE, _OPTIONAL, "AttrValue"),
    ),
    "Node": (
        ("name", 1, _STRING, _OPTIONAL, ""),
        ("op", 2, _STRING, _OPTIONAL, ""),
        ("input", 3, _STRING, _REPEATED, ""),
        ("attr", 5, _MESSAGE, _REPEATED, "AttrEntry"),  # a protobuf map is such a list
    ),
    "Graph": (("node", 1, _MESSAGE, _REPEATED, "Node"),),
}


@functools.cache
def message_class(name: str) -> Any:
    """The protobuf class of ``Graph``, ``Node``, ``AttrValue``, ``Tensor``, ..."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"toonify3d.tf.{name}"))


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="toonify3d_graphdef.proto", package="toonify3d.tf", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label, inner in fields:
            added = message.field.add(name=field, number=number, type=kind, label=label)
            if inner:
                added.type_name = f".toonify3d.tf.{inner}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def read_constants(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Every constant of a frozen graph by its node's name.

    Raises:
        InputError: Not there (``no_file``) or not a frozen graph (``bad_graph``).
    """
    if not path.is_file():
        raise InputError(f"'{path}' does not exist.", "no_file")
    graph = message_class("Graph")()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"'{path}' is not a frozen TensorFlow graph.", "bad_graph") from error
    found = {}
    for node in graph.node:
        if node.op != "Const":
            continue
        tensor = next((entry.value.tensor for entry in node.attr if entry.key == "value"), None)
        if tensor is not None and tensor.dtype in _NUMPY:
            found[node.name] = _array(tensor, path, node.name)
    if not found:
        raise InputError(
            f"'{path}' holds no constants, so it is not a frozen TensorFlow graph.", "bad_graph"
        )
    return found


def _array(tensor: Any, path: Path, name: str) -> npt.NDArray[Any]:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    dtype = _NUMPY[tensor.dtype]
    count = int(np.prod(shape, dtype=np.int64))
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype)
    else:
        values = np.array(list(tensor.float_val) or list(tensor.int_val), dtype)
        if len(values) == 1:  # TensorFlow writes a constant fill as one value
            values = np.full(count, values[0], dtype)
    if len(values) != count:
        raise InputError(f"'{path}' is damaged: node '{name}' is cut off.", "bad_graph")
    return np.asarray(values.reshape(shape))
