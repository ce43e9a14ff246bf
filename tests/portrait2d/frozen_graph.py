"""Writes frozen TensorFlow graphs with DCT-Net's published layers and random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from toonify3d.portrait2d.adapters.graphdef import DT_FLOAT, DT_INT32, message_class

CLIP = 0.999999


class GraphWriter:
    """Adds nodes one by one; every method returns the node's name."""

    def __init__(self, missing: str = "") -> None:
        self.graph = message_class("Graph")()
        self.renamed = {missing: "kernel"}  # scope to another name of its weights

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
        name = f"{scope}/{self.renamed.get(scope, 'weights')}"
        kernel = self.const(name, weights)
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

    def box(self, scope, x, channels):
        """White-box Cartoonization's ``tf_box_filter`` of radius 1."""
        kernel = self.const(f"{scope}/kernel", np.full((3, 3, channels, 1), 1 / 9))
        return self.node(
            f"{scope}/depthwise",
            "DepthwiseConv2dNative",
            [x, kernel],
            strides=("list", [1, 1, 1, 1]),
            padding=("s", b"SAME"),
            data_format=("s", b"NHWC"),
        )

    def guided_filter(self, x, y, eps=1e-2):
        """White-box Cartoonization's ``guided_filter(x, y, r=1)``, node by node."""
        # The published ones are made from the shape alone, which OpenCV cannot run.
        nothing = self.node("zeros", "Mul", [x, self.const("zero", np.float32(0.0))])
        ones = self.node("ones", "Add", [nothing, self.const("unit", np.float32(1.0))])
        counts = self.box("counts", ones, 3)

        def mean(name, value):
            return self.node(name, "RealDiv", [self.box(f"{name}/box", value, 3), counts])

        def product(name, a, b):
            return self.node(name, "Mul", [a, b])

        mean_x, mean_y = mean("mean_x", x), mean("mean_y", y)
        both, square = mean("mean_xy", product("xy", x, y)), mean("mean_xx", product("xx", x, x))
        covariance = self.node("cov", "Sub", [both, product("mxmy", mean_x, mean_y)])
        variance = self.node("var", "Sub", [square, product("mxmx", mean_x, mean_x)])
        sure = self.node("var_eps", "Add", [variance, self.const("eps", np.float32(eps))])
        a = self.node("A", "RealDiv", [covariance, sure])
        b = self.node("b", "Sub", [mean_y, product("A_mean_x", a, mean_x)])
        slope = product("slope", mean("mean_A", a), x)
        return self.node("final_add", "Add", [slope, mean("mean_b", b)])

    def as_picture(self, x):
        """ModelScope's export: clipped, scaled to 0..255 (node ``scaled_output``), cast."""
        high, low = (self.const(n, np.float32(v)) for n, v in (("hi", CLIP), ("lo", -CLIP)))
        x = self.node("clip/Minimum", "Minimum", [x, high])
        x = self.node("clip", "Maximum", [x, low])
        x = self.node("up", "Add", [x, self.const("one", np.float32(1.0))])
        return self.node("scaled_output", "Mul", [x, self.const("half", np.float32(127.5))])


def dctnet_graph(
    path: Path, size: tuple[int, int], seed: int, skip: str = "", missing: str = ""
) -> None:
    """A graph of DCT-Net's published form, from ``input_image`` to the scaled output.

    What ModelScope's ``CartoonTranslationExporter`` writes, but for the batch axis (the published
    one is added in the graph) and the last cast to bytes, which OpenCV cannot run.

    Args:
        path: File to write.
        size: Height and width.
        seed: Of the weights.
        skip: Scope whose weights get a wrong shape.
        missing: Scope whose weights have another name.
    """
    rng = np.random.default_rng(seed)
    writer = GraphWriter(f"generator/{missing}")
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
    drawn = writer.guided_filter(x, conv("Conv_9", x4, 32, 3, 7))
    writer.as_picture(drawn)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(writer.graph.SerializeToString())
