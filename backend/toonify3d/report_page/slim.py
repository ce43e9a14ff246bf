"""A GLB small enough to be carried inside a page: textures as JPEG of at most 2048 pixels."""

from __future__ import annotations

import json
import struct
from typing import Any

import cv2
import numpy as np

from ..scene import ByteImage

_JSON, _BIN = 0x4E4F534A, 0x004E4942


def slim_glb(data: bytes, most: int = 2048, quality: int = 92) -> bytes:
    """Re-encode the textures inside a GLB; geometry and materials stay as they are.

    Args:
        data: A binary glTF 2.0 with one buffer.
        most: Largest width and height of a texture.
        quality: Of the JPEG, without chroma subsampling (lines of a toon are thin).

    Raises:
        ValueError: Not a GLB, or a texture that is no picture.
    """
    tree, binary = split_glb(data)
    images = {image["bufferView"]: image for image in tree.get("images", [])}
    out = bytearray()
    for index, view in enumerate(tree["bufferViews"]):
        start = view.get("byteOffset", 0)
        part = binary[start : start + view["byteLength"]]
        if index in images:
            part = encode_jpeg(_decode(part), most, quality)
            images[index]["mimeType"] = "image/jpeg"
        out += b"\0" * (-len(out) % 4)
        view["byteOffset"], view["byteLength"] = len(out), len(part)
        out += part
    out += b"\0" * (-len(out) % 4)
    tree["buffers"] = [{"byteLength": len(out)}]
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(out)
    head = struct.pack("<4sIIII", b"glTF", 2, total, len(text), _JSON)
    return head + text + struct.pack("<II", len(out), _BIN) + bytes(out)


def split_glb(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON tree and the binary chunk of a GLB (glTF 2.0, 4.4).

    Raises:
        ValueError: Not a GLB.
    """
    if len(data) < 28 or data[:4] != b"glTF":
        raise ValueError("not a binary glTF")
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    return tree, data[28 + length :]


def encode_jpeg(image: ByteImage, most: int, quality: int = 92) -> bytes:
    """JPEG of an RGB picture ``(H, W, 3)``, smaller where a side exceeds ``most`` pixels.

    Raises:
        ValueError: OpenCV cannot encode it.
    """
    scale = most / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    done, encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise ValueError("a picture cannot be encoded")
    return bytes(encoded.tobytes())


def _decode(data: bytes) -> ByteImage:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a texture is no picture")
    return np.asarray(image[..., ::-1], dtype=np.uint8)
