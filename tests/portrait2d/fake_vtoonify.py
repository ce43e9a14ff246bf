"""A folder of the same form as a clone of VToonify, with tiny networks of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

VTOONIFY = """
import torch
from torch import nn

class VToonify(nn.Module):
    def __init__(self, backbone="dualstylegan"):
        super().__init__()
        self.backbone = backbone
        self.mix = nn.Conv2d(22, 3, 1)
    def zplus2wplus(self, code):
        return code + 0.0
    def forward(self, x, style, d_s=None):
        assert x.shape[1] == 22 and style.shape == (1, 18, 512)
        picture = self.mix(x) + d_s * style[:, 0, :3].reshape(1, 3, 1, 1)
        return nn.functional.interpolate(picture, scale_factor=4, mode="nearest")
"""
BISENET = """
import torch
from torch import nn

class BiSeNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.head = nn.Conv2d(3, n_classes, 1)
    def forward(self, x):
        out = self.head(x)
        return out, out, out
"""
UTIL = """
import torch

def load_psp_standalone(path, device):
    state = torch.load(path, map_location="cpu")
    def encode(face):
        assert face.shape == (1, 3, 256, 256)
        return state["latent_avg"].repeat(1, 18, 1) + face.mean() * 0
    return encode
"""


class _Pickled:
    """Something that plain tensor loading refuses."""

    def __reduce__(self):
        return (dict, ())


def make_checkout(folder: Path, pickled: bool = False, styles: int = 3) -> Path:
    """Write the clone; the returned checkpoint belongs to VToonify-D when ``styles``."""
    for name, text in {
        "model/__init__.py": "",
        "model/vtoonify.py": VTOONIFY,
        "model/bisenet/__init__.py": "",
        "model/bisenet/model.py": BISENET,
        "util.py": UTIL,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    weight = torch.zeros(3, 22, 1, 1)
    weight[[0, 1, 2], [2, 1, 0]] = 1.0  # swaps red and blue: visible, and undone by nothing
    state = {"mix.weight": weight, "mix.bias": torch.zeros(3)}
    style = folder / "checkpoint" / "vtoonify_d_test"
    style.mkdir(parents=True)
    torch.save({"g_ema": state, "extra": _Pickled() if pickled else 1}, style / "toon.pt")
    parsing = {"head.weight": torch.zeros(19, 3, 1, 1), "head.bias": torch.zeros(19)}
    torch.save(parsing, folder / "checkpoint" / "faceparsing.pth")
    torch.save({"latent_avg": torch.zeros(1, 512)}, folder / "checkpoint" / "encoder.pt")
    if styles:
        codes = {f"{i}.jpg": np.full((1, 18, 512), 0.4 * i, np.float32) for i in range(styles)}
        np.save(style / "exstyle_code.npy", codes, allow_pickle=True)
    return Path("checkpoint/vtoonify_d_test/toon.pt")
