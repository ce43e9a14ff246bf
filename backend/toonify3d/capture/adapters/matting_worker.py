"""Runs a matting model over a folder of pictures. Stands alone: any Python that has the package.

    python matting_worker.py {onnx|tensorflow|rembg} MODEL PICTURES MASKS

Started by :mod:`.matting` in a process, and if wanted an interpreter, of its own: TensorFlow and
rembg want other releases of numpy and protobuf than MediaPipe (rembg 2.0.86: numpy 2.3 and newer;
mediapipe 0.10.21: numpy below 2). So this file imports nothing of ours. It needs numpy, Pillow and
the one package named.

Writes ``MASKS/NAME`` for every ``PICTURES/NAME`` (PNG, 8 bit grey) and prints a line for each.
Exit codes: 0 done; 3 package missing (its name is the last line of stderr); 4 the model is not of
the expected form (the last line of stderr says why).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

INPUT, OUTPUT = "input_image:0", "output_png:0"
"""Tensors of BSHM's ``tf_graph.pb``: RGB ``(H, W, 3)`` float 0 to 255 in; RGBA ``(H, W, 4)`` 0 to
255 out (ModelScope, ``iic/cv_unet_image-matting``)."""
MISSING, WRONG_FORM = 3, 4

Matte = Callable[[Any], Any]
"""RGB ``(H, W, 3)`` uint8 to alpha ``(h, w)`` uint8."""


class WrongFormError(Exception):
    """The model's inputs or outputs are not those of a matting model known here."""


def alpha_of(output: Any) -> Any:
    """The alpha channel ``(h, w)`` uint8 of what a model gave.

    Accepts RGBA or one channel, last or first, with or without a leading batch axis; floats in 0
    to 1 or in 0 to 255.

    Raises:
        WrongFormError: Any other shape.
    """
    import numpy as np

    value = np.asarray(output)
    while value.ndim > 2 and value.shape[0] == 1:
        value = value[0]
    if value.ndim == 3 and value.shape[-1] in (1, 4):
        value = value[..., -1]
    elif value.ndim == 3 and value.shape[0] == 4:
        value = value[-1]
    if value.ndim != 2:
        raise WrongFormError(f"its output has the shape {np.asarray(output).shape}")
    if value.dtype != np.uint8:
        value = value.astype(np.float32)
        value = value * 255.0 if value.max(initial=0.0) <= 1.0 else value
    return np.clip(value, 0, 255).astype(np.uint8)


def onnx_model(path: str) -> Matte:
    """BSHM exported to ONNX: any float input of three channels, last or first."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    entry, shape = session.get_inputs()[0], session.get_inputs()[0].shape
    if "float" not in entry.type and "uint8" not in entry.type:
        raise WrongFormError(f"its input {entry.name} is {entry.type}")
    kind = np.uint8 if "uint8" in entry.type else np.float32
    names = [output.name for output in session.get_outputs()]
    wanted = OUTPUT if OUTPUT in names else names[0]
    if len(shape) not in (3, 4) or 3 not in (shape[-1], shape[-3]):
        raise WrongFormError(f"its input {entry.name} has the shape {shape}")
    first, fixed = shape[-1] != 3, shape[-2:] if shape[-1] != 3 else shape[-3:-1]

    def matte(rgb: Any) -> Any:
        if all(isinstance(side, int) and side > 0 for side in fixed):
            rgb = resized(rgb, fixed[1], fixed[0])
        value = rgb.astype(kind)
        value = value.transpose(2, 0, 1) if first else value
        value = value[None] if len(shape) == 4 else value
        return alpha_of(session.run([wanted], {entry.name: np.ascontiguousarray(value)})[0])

    return matte


def tensorflow_model(path: str) -> Matte:
    """BSHM's frozen graph as its authors publish it."""
    import numpy as np
    import tensorflow

    tf = tensorflow.compat.v1
    definition = tf.GraphDef()
    definition.ParseFromString(Path(path).read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    try:
        entry, wanted = graph.get_tensor_by_name(INPUT), graph.get_tensor_by_name(OUTPUT)
    except KeyError as error:
        raise WrongFormError(f"it has no tensor {INPUT} or {OUTPUT}") from error
    session = tf.Session(graph=graph)

    def matte(rgb: Any) -> Any:
        return alpha_of(session.run(wanted, {entry: rgb.astype(np.float32)}))

    return matte


def rembg_model(name: str) -> Matte:
    """A model of the rembg package by its name."""
    import rembg

    session = rembg.new_session(name)

    def matte(rgb: Any) -> Any:
        return alpha_of(rembg.remove(rgb, session=session, only_mask=True))

    return matte


KINDS: dict[str, Callable[[str], Matte]] = {
    "onnx": onnx_model,
    "tensorflow": tensorflow_model,
    "rembg": rembg_model,
}


def resized(image: Any, width: int, height: int) -> Any:
    """An image or mask at another size."""
    import numpy as np
    from PIL import Image

    if (image.shape[1], image.shape[0]) == (width, height):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def main(arguments: list[str]) -> int:
    """See the module's text."""
    kind, model, pictures, masks = arguments
    try:
        import numpy as np
        from PIL import Image

        matte = KINDS[kind](model)
        for path in sorted(Path(pictures).iterdir()):
            rgb = np.asarray(Image.open(path).convert("RGB"))
            mask = resized(matte(rgb), rgb.shape[1], rgb.shape[0])
            Image.fromarray(mask).save(Path(masks) / path.name)
            sys.stdout.write(path.name + "\n")
            sys.stdout.flush()
    except ImportError as error:
        sys.stderr.write(f"\n{error.name or error}\n")
        return MISSING
    except WrongFormError as error:
        sys.stderr.write(f"\n{error}\n")
        return WRONG_FORM
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
