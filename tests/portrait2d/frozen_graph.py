"""Writes frozen TensorFlow graphs with DCT-Net's published layers and random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toonify3d.portrait2d.adapters.graphdef import DT_FLOAT, DT_INT32, message_class


class GraphWriter:
    """Adds nodes one by one; every method returns the node's name."""

    def __init__(self) -> None:
        self.graph = message_class("Graph")()

    def node(self, name, op, inputs=(), **attributes):
        node = self.graph.node.add(name=name, op=op)
        node.input.extend(inputs)
        for key, value in ({"T": ("type", DT_FLOAT)} | attributes).items():
            entry = node.attr.add(key=key)
            kind, content = value
            if kind == "list":
                entry.value.list.i.extend(content)
            elif kind == "shape":
                for side in content:
                    entry.value.shape.dim.add(size=side)
            else:
                setattr(entry.value, kind, content)
        return name

    def const(self, name, array):
        array = np.asarray(array)
        kind = DT_INT32 if array.dtype.kind == "i" else DT_FLOAT
        array = array.astype("<i4" if kind == DT_INT32 else "<f4")
        node = self.graph.node.add(name=name, op="Const")
        entry = node.attr.add(key="dtype")
        entry.value.type = kind
        entry = node.attr.add(key="value")
        tensor = entry.value.tensor
        tensor.dtype = kind
        for side in array.shape:
            tensor.tensor_shape.dim.add(size=side)
        tensor.tensor_content = array.tobytes()
        return name

    def conv(self, scope, x, weights, biases, stride=1, op="Conv2D"):
        kernel = self.const(f"{scope}/weights", weights)
        out = self.node(
            f"{scope}/{op}",
            op,
            [x, kernel],
            strides=("list", [1, stride, stride, 1]),
            padding=("s", b"SAME"),
            data_format=("s", b"NHWC"),
        )
        if biases is None:
            return out
        bias = self.const(f"{scope}/biases", biases)
        return self.node(f"{scope}/BiasAdd", "BiasAdd", [out, bias], data_format=("s", b"NHWC"))

    def leaky(self, x):
        return self.node(f"{x}/leaky", "LeakyRelu", [x], alpha=("f", 0.2))

    def double(self, x, height, width):
        size = self.const(f"{x}/size", np.array([2 * height, 2 * width]))
        return self.node(
            f"{x}/resize",
            "ResizeBilinear",
            [x, size],
            align_corners=("b", False),
            half_pixel_centers=("b", False),
        )


def dctnet_graph(path: Path, size: tuple[int, int], seed: int, skip: str = "") -> None:
    """A graph of DCT-Net's form; ``skip`` names a scope whose weights get a wrong shape."""
    rng = np.random.default_rng(seed)
    writer = GraphWriter()
    height, width = size
    writer.node("input_image", "Placeholder", shape=("shape", [1, height, width, 3]))
    scaled = writer.node(
        "scaled", "Mul", ["input_image", writer.const("scale", np.float32(1 / 127.5))]
    )
    x = writer.node("shifted", "Add", [scaled, writer.const("shift", np.float32(-1.0))])

    def conv(scope, value, inputs, outputs, kernel, stride=1):
        shape = (kernel, kernel, inputs, outputs + (scope == skip))
        weights = rng.normal(0, 1.2 / np.sqrt(kernel * kernel * inputs), shape)
        return writer.conv(
            f"generator/{scope}", value, weights, rng.normal(0, 0.05, shape[3]), stride
        )

    x0 = writer.leaky(conv("Conv", x, 3, 32, 7))
    x1 = writer.leaky(conv("Conv_1", x0, 32, 32, 3, 2))
    x1 = writer.leaky(conv("Conv_2", x1, 32, 64, 3))
    x2 = writer.leaky(conv("Conv_3", x1, 64, 64, 3, 2))
    x2 = writer.leaky(conv("Conv_4", x2, 64, 128, 3))
    for index in range(4):
        inner = writer.leaky(conv(f"block_{index}/conv1", x2, 128, 128, 3))
        inner = conv(f"block_{index}/conv2", inner, 128, 128, 3)
        x2 = writer.node(f"generator/block_{index}/add", "Add", [inner, x2])
    x2 = writer.leaky(conv("Conv_5", x2, 128, 64, 3))
    up = writer.double(x2, height // 4, width // 4)
    x3 = writer.leaky(conv("Conv_6", writer.node("generator/add_1", "Add", [up, x1]), 64, 64, 3))
    x3 = writer.leaky(conv("Conv_7", x3, 64, 32, 3))
    up = writer.double(x3, height // 2, width // 2)
    x4 = writer.leaky(conv("Conv_8", writer.node("generator/add_2", "Add", [up, x0]), 32, 32, 3))
    writer.node("network_output", "Identity", [conv("Conv_9", x4, 32, 3, 7)])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(writer.graph.SerializeToString())
