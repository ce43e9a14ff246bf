"""Runs inside the user's VToonify environment: loads the user's clone, stylizes a folder of crops.

Started by ``vtoonify.py`` with one argument, a JSON file; needs only what VToonify itself needs.
Any failure ends with one line and exit code 1.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

STYLE_CODES = "exstyle_code.npy"
"""VToonify-D's style codes, beside its checkpoint."""
UNTRUSTED = (
    "'{}' is a Python pickle, which can run any code when it is loaded; if you trust its source,"
    " say so with --set adapter.trust_pickles=true"
)


def main(request_path: str) -> None:
    """Stylize ``frames`` of ``input`` into ``output``."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    sys.path.insert(0, request["checkout"])
    import torch

    _refuse_pickles(torch, request["trust_pickles"])
    with torch.no_grad():
        _run(request, torch)


def _refuse_pickles(torch: Any, trusted: bool) -> None:
    """Every ``torch.load``, VToonify's own too, reads plain tensors unless the user consented."""
    plain = torch.load

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["weights_only"] = not trusted
        try:
            return plain(file, *args, **kwargs)
        except Exception as error:
            if not trusted and "weights_only" in str(error).lower().replace(" ", "_"):
                raise SystemExit(UNTRUSTED.format(file)) from error
            raise

    torch.load = load


def _run(request: dict[str, Any], torch: Any) -> None:
    from model.bisenet.model import BiSeNet
    from model.vtoonify import VToonify
    from util import load_psp_standalone

    device = request["device"]
    checkpoint = Path(request["checkpoint"])
    weights = Path(request["checkout"]) / "checkpoint"
    state = torch.load(checkpoint, map_location="cpu")["g_ema"]
    codes = checkpoint.with_name(STYLE_CODES)
    backbone = "dualstylegan" if codes.is_file() else "toonify"
    network = VToonify(backbone=backbone)
    network.load_state_dict(state)
    network.to(device).eval()
    parsing = BiSeNet(n_classes=19)
    parsing.load_state_dict(torch.load(weights / "faceparsing.pth", map_location="cpu"))
    parsing.to(device).eval()
    encoder = load_psp_standalone(str(weights / "encoder.pt"), device)

    source, target = Path(request["input"]), Path(request["output"])
    face = _read(source / f"{request['style_frame']}_face.png", torch, device)
    style = network.zplus2wplus(encoder(face))
    if backbone == "dualstylegan":
        style = _with_style(request, codes, style, network, torch, device)
    for name in request["frames"]:
        x = _read(source / f"{name}.png", torch, device)
        drawn = network(_with_parsing(x, parsing, torch), style, d_s=request["style_degree"])
        _write(target / f"{name}.png", drawn[0].clamp(-1, 1))


def _with_style(
    request: dict[str, Any], codes: Path, style: Any, network: Any, torch: Any, device: str
) -> Any:
    """The extrinsic code: its first seven layers are structure, the rest colour."""
    import numpy as np

    if not request["trust_pickles"]:
        raise SystemExit(UNTRUSTED.format(codes))
    rows = list(np.load(codes, allow_pickle=True).item().values())
    if not 0 <= request["style_id"] < len(rows):
        raise SystemExit(f"style_id must lie between 0 and {len(rows) - 1}")
    code = network.zplus2wplus(torch.as_tensor(rows[request["style_id"]]).float().to(device))
    if request["color_transfer"]:
        return code
    style[:, :7] = code[:, :7]
    return style


def _with_parsing(x: Any, parsing: Any, torch: Any) -> Any:
    """Three colours and nineteen face-parsing channels, as the network was trained."""
    from torch.nn import functional

    big = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    parts = parsing(2 * big)[0]
    small = functional.interpolate(parts, size=x.shape[2:], mode="nearest")
    return torch.cat([x, small / 16.0], dim=1)


def _read(path: Path, torch: Any, device: str) -> Any:
    import cv2
    import numpy as np

    rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)[None].float().to(device)
    return tensor / 127.5 - 1.0


def _write(path: Path, picture: Any) -> None:
    import cv2
    import numpy as np

    rgb = ((picture.permute(1, 2, 0).cpu().numpy() + 1) * 127.5 + 0.5).clip(0, 255)
    cv2.imwrite(str(path), np.ascontiguousarray(rgb.astype(np.uint8)[..., ::-1]))


if __name__ == "__main__":
    main(sys.argv[1])
