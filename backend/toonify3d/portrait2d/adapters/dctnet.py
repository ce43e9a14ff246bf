"""DCT-Net (Men et al., SIGGRAPH 2022), the paper's translator [30], from the published weights.

The U-Net and the guided filter that the frozen graphs hold are rebuilt in torch and filled with
the graphs' constants, so that TensorFlow is not needed. Names, pre- and post-processing follow the
authors' repository menyifang/DCT-Net (Apache-2.0; the weights on ModelScope have their own terms).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InputError
from ...files import read_image
from ...progress import Progress
from ...scene import ByteImage, Float32Array, FloatArray
from .base import Photo
from .graphdef import read_constants

HEAD_NAMES = ("cartoon_h.pb", "cartoon_anime_h.pb")
BACKGROUND_NAMES = ("cartoon_bg.pb", "cartoon_anime_bg.pb")
_BOX = 288
_CLIP = 0.999999
_LONGEST = 720
"""The shorter side is shrunk to this."""
_MOUTH_CORNERS = (61, 291)  # the person's right corner is on the left of the picture
_NOSE_TIP = 1
_IRISES = (468, 473)
_WHERE = "see huggingface.co or modelscope.cn, models damo/cv_unet_person-image-cartoon*"

# The five points of the aligned face that all ArcFace-style crops use (96 x 112, moved by one pixel
# as the authors do, then squared to 112).
_TEMPLATE = np.array(
    [
        [30.29459953, 51.69630051],
        [65.53179932, 51.50139999],
        [48.02519989, 71.73660278],
        [33.54930115, 92.36550140],
        [62.72990036, 92.20410156],
    ]
)


class UNet(nn.Module):
    """The generator of White-box Cartoonization that DCT-Net uses: 32 channels, 4 blocks.

    Convolutions pad as TensorFlow's SAME does (a stride of 2 pads only right and below), and the
    upsampling is TensorFlow 1's: corners not aligned, pixel centres ignored.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        c = channels
        shapes = [
            *((3, c, 7), (c, c, 3), (c, 2 * c, 3), (2 * c, 2 * c, 3), (2 * c, 4 * c, 3)),
            *((4 * c, 2 * c, 3), (2 * c, 2 * c, 3), (2 * c, c, 3), (c, c, 3), (c, 3, 7)),
        ]
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k) for i, o, k in shapes)
        self.blocks = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(4 * c, 4 * c, 3), nn.Conv2d(4 * c, 4 * c, 3)])
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in -1..1, sides multiples of 4."""
        x0 = _leaky(_same(self.convs[0], x))
        x1 = _leaky(_same(self.convs[1], x0, 2))
        x1 = _leaky(_same(self.convs[2], x1))
        x2 = _leaky(_same(self.convs[3], x1, 2))
        x2 = _leaky(_same(self.convs[4], x2))
        for block in self.blocks:
            first, second = cast(nn.ModuleList, block)
            x2 = _same(second, _leaky(_same(first, x2))) + x2
        x2 = _leaky(_same(self.convs[5], x2))
        x3 = _leaky(_same(self.convs[6], _double(x2) + x1))
        x3 = _leaky(_same(self.convs[7], x3))
        x4 = _leaky(_same(self.convs[8], _double(x3) + x0))
        return _same(self.convs[9], x4)


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)


def _same(conv: Any, x: Tensor, stride: int = 1) -> Tensor:
    size = conv.kernel_size[0]
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, pads), conv.weight, conv.bias, stride)


def _double(x: Tensor) -> Tensor:
    """TensorFlow 1's ``resize_bilinear`` to twice the size: output pixel i samples input i / 2."""
    height, width = x.shape[2:]
    padded = functional.pad(x, (0, 1, 0, 1), mode="replicate")
    size = (2 * height + 1, 2 * width + 1)
    return functional.interpolate(padded, size, mode="bilinear", align_corners=True)[..., :-1, :-1]


def guided_filter(guide: Tensor, x: Tensor, radius: int = 1, eps: float = 1e-2) -> Tensor:
    """He et al.'s guided filter, channel by channel, windows cut off at the picture's edge.

    Args:
        guide: ``(N, C, H, W)``.
        x: Same shape.
        radius: Of the window.
        eps: Regularization.
    """

    def mean(value: Tensor) -> Tensor:
        return functional.avg_pool2d(
            value, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False
        )

    mean_g, mean_x = mean(guide), mean(x)
    variance = mean(guide * guide) - mean_g * mean_g
    slope = (mean(guide * x) - mean_g * mean_x) / (variance + eps)
    return mean(slope) * guide + mean(mean_x - slope * mean_g)


def load_unet(path: Path) -> UNet:
    """Fill the U-Net with a frozen graph's constants.

    Raises:
        InputError: Not a frozen graph, or nodes do not fit (all of them, 36 at most, are listed).
    """
    constants = read_constants(path)
    net = UNet()
    modules = {"Conv" if i == 0 else f"Conv_{i}": conv for i, conv in enumerate(net.convs)}
    for index, block in enumerate(net.blocks):
        first, second = cast(nn.ModuleList, block)
        modules |= {f"block_{index}/conv1": first, f"block_{index}/conv2": second}
    wrong = []
    for scope, module in modules.items():
        wrong += _fill(module, scope, constants)
    if wrong:
        raise InputError(f"'{path}' is not DCT-Net's network: {'; '.join(wrong)}.", "bad_graph")
    return net.eval()


def _fill(module: Any, scope: str, constants: dict[str, npt.NDArray[Any]]) -> list[str]:
    wrong = []
    for kind, target in (("weights", module.weight), ("biases", module.bias)):
        name = f"generator/{scope}/{kind}"
        value = constants.get(name)
        if value is None:  # an importer may have put a scope in front
            value = next((v for k, v in constants.items() if k.endswith(f"/{name}")), None)
        if value is None:
            wrong.append(f"node '{name}' is missing")
            continue
        array = np.asarray(value, np.float32)
        if kind == "weights" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)  # [kh, kw, in, out] -> [out, in, kh, kw]
        if array.shape != tuple(target.shape):
            wrong.append(f"node '{name}' is {list(value.shape)}")
            continue
        with torch.no_grad():
            target.copy_(torch.from_numpy(np.array(array, order="C")))
    return wrong


class DctNet:
    """The whole published procedure: background, then every face in its aligned box."""

    def __init__(self, folder: Path, device: str) -> None:
        head = _find(folder, HEAD_NAMES)
        background = _find(folder, BACKGROUND_NAMES)
        alpha = _find(folder, ("alpha.jpg",))
        self.device = device
        self.head = load_unet(head).to(device)
        self.background = load_unet(background).to(device)
        mask = read_image(alpha, cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(mask, (_BOX, _BOX), interpolation=cv2.INTER_AREA)
        self.alpha: Float32Array = small.astype(np.float32) / 255.0

    def stylize(self, photos: Sequence[Photo], progress: Progress) -> dict[str, ByteImage]:
        """See :class:`.base.FrameStylizer`."""
        made = {}
        for index, photo in enumerate(photos):
            progress.update(index / len(photos), f"DCT-Net: frame {index + 1} of {len(photos)}")
            made[photo.frame.name] = self.cartoonize(photo.image, photo.landmarks)
            progress.preview(made[photo.frame.name])
        return made

    def cartoonize(self, image: ByteImage, landmarks: FloatArray | None) -> ByteImage:
        """One RGB picture ``(H, W, 3)``; ``landmarks`` ``(478, 2)`` or None (no face)."""
        height, width = image.shape[:2]
        scale = min(1.0, _LONGEST / min(height, width))
        small = image
        if scale < 1.0:
            size = (round(width * scale), round(height * scale))
            small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        bgr = np.ascontiguousarray(small[..., ::-1])
        result = self._whole(bgr)
        if landmarks is not None:
            result = self._with_head(bgr, result, five_points(landmarks) * scale)
        out = np.clip(result + 0.5, 0, 255).astype(np.uint8)[..., ::-1]
        sized = cv2.resize(np.ascontiguousarray(out), (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(sized, np.uint8)

    def _whole(self, bgr: ByteImage) -> Float32Array:
        height, width = bgr.shape[:2]
        down, right = -height % 16, -width % 16
        padded = np.pad(bgr, ((0, down), (0, right), (0, 0)), constant_values=255)
        return run_graph(self.background, padded, self.device)[:height, :width]

    def _with_head(self, bgr: ByteImage, result: Float32Array, points: FloatArray) -> Float32Array:
        matrix = box_transform(points)
        head = cv2.warpAffine(bgr, matrix, (_BOX, _BOX), borderValue=(255, 255, 255))
        drawn = run_graph(self.head, np.asarray(head, np.uint8), self.device)
        size, inverse = (bgr.shape[1], bgr.shape[0]), cv2.invertAffineTransform(matrix)
        back = cv2.warpAffine(drawn, inverse, size, borderValue=(0, 0, 0))
        alpha = cv2.warpAffine(self.alpha, inverse, size)[..., None]
        return np.asarray(alpha * back + (1 - alpha) * result, np.float32)


def run_graph(net: UNet, bgr: ByteImage, device: str) -> Float32Array:
    """What ``input_image:0 -> output_image:0`` computes: BGR, whole numbers ``(H, W, 3)``.

    The published graph's last node casts to bytes, which in TensorFlow cuts off.
    """
    return np.floor(scaled_output(net, bgr, device))


def scaled_output(net: UNet, bgr: ByteImage, device: str) -> Float32Array:
    """The graph but for its last node: BGR floats within 0..255 ``(H, W, 3)``.

    Network, guided filter, clip and scale as ModelScope's ``CartoonTranslationExporter`` writes.
    """
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(bgr)).to(device).float() / 127.5 - 1.0
        x = x.permute(2, 0, 1)[None]
        out = guided_filter(x, net(x)).clamp(-_CLIP, _CLIP)
        scaled = (out + 1.0) * 127.5
    return np.asarray(scaled[0].permute(1, 2, 0).cpu().numpy())


def five_points(landmarks: FloatArray) -> FloatArray:
    """Pupils, nose tip, mouth corners ``(5, 2)``, picture left before right."""
    return np.asarray(landmarks[[*_IRISES, _NOSE_TIP, *_MOUTH_CORNERS], :2], np.float64)


def box_transform(points: FloatArray) -> FloatArray:
    """Affine ``(2, 3)`` from the picture into the 288-pixel box, the face at 75 % of its size."""
    squared = (_TEMPLATE + 1.0) + np.array([8.0, 0.0])  # 96 x 112 widened to 112 x 112
    target = ((squared - 56.0) * 0.75 + 56.0) * _BOX / 112.0
    return _similarity(points, target)


def _similarity(source: FloatArray, target: FloatArray) -> FloatArray:
    """Least-squares similarity (Umeyama 1991) as ``(2, 3)``."""
    s, t = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(t.T @ s)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((d * sign).sum() / (s**2).sum())
    offset = target.mean(0) - scale * rotation @ source.mean(0)
    return np.concatenate([scale * rotation, offset[:, None]], axis=1)


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"DCT-Net needs {' or '.join(names)} in the folder '{folder}' ({_WHERE}); name that folder"
        " with --set adapter.model=FOLDER.",
        "no_weights",
    )
