"""What the figures of :mod:`.check` mean for an artist: sentences and what to do."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..scene import FloatArray
from .check import Measured
from .selection import DUPLICATE_MOTION
from .subject import SubjectMotion
from .turn import clock_position, missing_arcs

Severity = Literal["ok", "hint", "warning", "stop"]
# Thousandths of the long side from which the person moves, and how many times as far off as the
# room it must be (blur throws both off). Two rendered persons at rest give 0.4 and 0.3 by epipolar
# lines, nodding by 6 pixels of 560 both 0.95. With known cameras: at rest 0.1 to 0.6 (five
# captures), nodding 12, swaying by 2 to 4 pixels 2.8 and 4.0, by 12 pixels three times a turn 2.0
# and 3.2.
EPIPOLAR = (0.62, 1.25)
MEASURED = (1.1, 2.0)
PAUSE = 5
"""So many frames in a row without motion are a pause."""


@dataclass(frozen=True)
class Finding:
    """One answer of the check.

    Attributes:
        code: Short stable identifier, the same whatever the severity.
        severity: ``stop`` means that the job would fail.
        what: What was found, one sentence.
        why: Why it matters; empty when all is well.
        what_to_do: How to do better; empty when all is well.
    """

    code: str
    severity: Severity
    what: str
    why: str = ""
    what_to_do: str = ""


@dataclass(frozen=True)
class CheckReport:
    """The findings with the figures they rest on."""

    capture: str
    findings: list[Finding]
    figures: dict[str, Any]

    @property
    def stops(self) -> bool:
        """Whether anything would stop the job."""
        return any(item.severity == "stop" for item in self.findings)

    def to_json(self) -> str:
        """The report as a JSON document."""
        document = {
            "capture": self.capture,
            "stops": self.stops,
            "findings": [dataclasses.asdict(item) for item in self.findings],
            "figures": self.figures,
        }
        return json.dumps(document, indent=1, ensure_ascii=False)

    def to_text(self) -> str:
        """Lines for a terminal, the gravest first."""
        order = ("stop", "warning", "hint", "ok")
        marks = {"stop": "STOP", "warning": "WARN", "hint": "hint", "ok": "ok  "}
        lines = []
        for item in sorted(self.findings, key=lambda item: order.index(item.severity)):
            lines.append(f"{marks[item.severity]} {item.what}")
            if item.why:
                lines.append(f"       why: {item.why}")
            if item.what_to_do:
                lines.append(f"       do:  {item.what_to_do}")
        return "\n".join(lines)


def judge(measured: Measured, min_frames: int) -> CheckReport:
    """Turn figures into findings."""
    findings = [
        _length(measured, min_frames),
        _resolution(measured),
        _sharpness(measured),
        _exposure(measured),
        *_dynamic_range(measured),
        *_coverage(measured),
        _face(measured),
        *_framing(measured),
        *subject_finding(measured.subject, EPIPOLAR),
        _background(measured),
    ]
    return CheckReport(measured.name, findings, _figures(measured))


def refused(capture: str, code: str, sentence: str) -> CheckReport:
    """The report on a source that cannot be looked at at all."""
    return CheckReport(capture, [Finding(code, "stop", sentence)], {})


def _length(m: Measured, min_frames: int) -> Finding:
    usable = len(m.choice.indices)
    noun = "frames" if m.is_video else "images"
    length = f"{m.frames} {noun}" + (f", {m.seconds:.0f} s" if m.seconds else "")
    redo = "Film one slow, steady turn of 20 to 30 seconds around the head."
    if usable < min_frames:
        why = f"At least {min_frames} usable {noun} from different places are needed."
        what = f"{length}, but only {usable} of the {len(m.steps)} looked at are usable."
        return Finding("length", "stop", what, why, redo)
    if m.frames < 48:
        why = "Few views leave holes and blur in the head; 60 or more are good."
        return Finding("length", "warning", f"Only {length}.", why, redo)
    still = _standing_still(m)
    if still + m.choice.blurred > 0.4 * len(m.steps):
        why = "Frames without camera motion or with motion blur do not help."
        what = (
            f"{length}; {100 * still / len(m.steps):.0f} % of it stands still and "
            f"{100 * m.choice.blurred / len(m.steps):.0f} % is motion-blurred."
        )
        return Finding("length", "hint", what, why, "Keep walking, slowly and evenly.")
    if m.is_video and m.seconds and m.seconds > 90:
        why = "Long clips take long to read, and people cannot hold still for so long."
        return Finding("length", "hint", f"{length}: rather long.", why, redo)
    return Finding("length", "ok", f"Length is fine: {length}.")


def _standing_still(m: Measured) -> int:
    """Looked-at frames in pauses; frames that a converter wrote twice are none."""
    still = [step.motion <= DUPLICATE_MOTION for step in m.steps]
    runs = [sum(1 for _ in group) for same, group in itertools.groupby(still) if same]
    return sum(run for run in runs if run >= PAUSE)


def _resolution(m: Measured) -> Finding:
    if m.size is None:
        return Finding("resolution", "hint", "The size of the pictures is not told by the file.")
    width, height = m.size
    what = f"{width} x {height} pixels"
    redo = "Film in 1080p or 4K, and send the file itself: messengers shrink videos."
    if min(width, height) < 360:
        why = "The face has too few pixels for eyes and mouth."
        return Finding("resolution", "warning", f"Only {what}.", why, redo)
    if min(width, height) < 540:
        why = "Fine detail of the face will be soft."
        return Finding("resolution", "hint", f"Rather small: {what}.", why, redo)
    return Finding("resolution", "ok", f"Resolution is fine: {what}.")


def _sharpness(m: Measured) -> Finding:
    why = "What is blurred in the pictures is blurred in the texture, and cameras are less exact."
    redo = "Tap the face to focus before filming, use more light, walk slower, wipe the lens."
    if m.blur > 0.56:
        return Finding("sharpness", "warning", "The pictures are blurred.", why, redo)
    if m.blur > 0.46:
        return Finding("sharpness", "hint", "The pictures are a little soft.", why, redo)
    return Finding("sharpness", "ok", "The pictures are sharp.")


def _exposure(m: Measured) -> Finding:
    path = np.cumsum([step.exposure for step in m.steps])
    stops = float(np.ptp(np.percentile(path, [2, 98])))
    # Adding up hundreds of small steps is off by up to 1.2 stops (looped clip, five turns).
    why = "The same skin gets different colours in different frames, which end up as blotches."
    redo = "Lock exposure and white balance (long press on the face), and avoid windows behind."
    if stops > 2.0:
        what = f"The exposure changes by about {stops:.1f} stops while filming."
        return Finding("exposure", "warning", what, why, redo)
    if stops > 1.4:
        what = f"The exposure drifts by about {stops:.1f} stops."
        return Finding("exposure", "hint", what, why, redo)
    return Finding("exposure", "ok", f"The exposure is steady (within {stops:.1f} stops).")


def _dynamic_range(m: Measured) -> list[Finding]:
    if m.hdr is None:
        return []
    what = f"The video is HDR ({m.hdr}); its colours are converted to those of an ordinary screen."
    why = "The very brightest highlights get darker than in the phone's own player."
    redo = "Nothing has to be done; filming with HDR off gives colours exactly as seen."
    return [Finding("hdr", "hint", what, why, redo)]


def _coverage(m: Measured) -> list[Finding]:
    redo = "Walk one full circle around the person, and end a little after where you began."
    if not m.ordered:
        what = "The images are in no order, so how far they go round is not known yet."
        return [Finding("coverage", "hint", what, "", "Make sure that every side is covered.")]
    total = np.degrees(m.turn.total)
    if total < 25:
        return [_on_the_spot(m, total, redo)]
    if not m.turn.anchored:
        what = f"The camera turns by roughly {total:.0f} degrees (no face to measure by)."
        if total > 300:
            return [Finding("coverage", "ok", what)]
        why = "What no frame shows is guessed."
        return [Finding("coverage", "hint", what, why, redo)]
    return gap_findings(m.turn.angles)


def gap_findings(angles: FloatArray, twelve: str = "the face") -> list[Finding]:
    """What the cameras' angles round the head ``(N,)`` in radians leave out, three arcs at most.

    Args:
        angles: 0 in front, positive on the person's left.
        twelve: What is at 12 o'clock.
    """
    gaps = missing_arcs(angles)
    if not gaps:
        what = "The camera goes all the way round the person."
        return [Finding("coverage", "ok", what)]
    redo = "Walk one full circle around the person, and end a little after where you began."
    out = []
    for gap in gaps[:3]:
        hour, side = clock_position(gap.middle), _side(gap.middle)
        what = (
            f"An arc of about {gap.width:.0f} degrees is missing at {hour} o'clock ({side}; seen "
            f"from above, {twelve} at 12)."
        )
        why = "What no frame shows is guessed: a flat or smeared patch there."
        grave: Severity = "warning" if gap.width > 50 else "hint"
        out.append(Finding("coverage", grave, what, why, redo))
    return out


def _on_the_spot(m: Measured, total: float, redo: str) -> Finding:
    """The room hardly slides by: the camera stays, or there is nothing in the room to see it by."""
    yaws = [look.face.rough_yaw for look in m.looks if look.face is not None]
    comes_and_goes = 0 < len(yaws) < 0.6 * len(m.looks)
    if comes_and_goes or (yaws and np.degrees(np.ptp(yaws)) > 40):
        what = "The background shows too little to tell how far round the camera goes."
        return Finding("coverage", "hint", what, "What no frame shows is guessed.", redo)
    what = f"The camera goes round the person by only about {total:.0f} degrees."
    why = "Shape is measured from different sides; a camera on the spot shows none."
    return Finding("coverage", "stop" if yaws else "warning", what, why, redo)


def _side(degrees: float) -> str:
    size = abs(degrees)
    side = "left" if degrees > 0 else "right"
    if size < 25:
        return "in front of the face"
    if size > 155:
        return "behind the head"
    if size < 65:
        return f"in front, to the person's {side}"
    return f"behind, to the person's {side}" if size > 115 else f"the person's {side}"


def _face(m: Measured) -> Finding:
    faces = m.faces
    if not faces:
        what = "No face was found."
        why = "The face tells where the front is, how large the head is and where the style goes."
        redo = "Film the face from the front too, in good light, without a mask or sunglasses."
        return Finding("face", "warning", what, why, redo)
    yaws = np.degrees([look.face.rough_yaw for look in faces if look.face is not None])
    where = f"from {len(faces)} of {len(m.looks)} looked-at places"
    if float(np.abs(yaws).min()) > 25:
        what = f"The face is seen {where}, but never from the front."
        why = "Eyes and mouth follow the exemplar from the frontal frames."
        return Finding("face", "warning", what, why, "Start the circle in front of the face.")
    first = faces[int(np.abs(yaws).argmin())]
    return Finding("face", "ok", f"The face is seen {where}, best in frame {first.source_index}.")


def _framing(m: Measured) -> list[Finding]:
    if m.person is None and not m.faces:
        return [_nobody(m)]
    out = []
    size = _face_share(m)
    near = "Come closer: the head should fill about half of the picture's height."
    if size is not None and size < 0.12:
        what = f"The face is only {100 * size:.0f} % of the picture's long side: too far away."
        why = "Most pixels go to the room instead of the face."
        out.append(Finding("distance", "warning", what, why, near))
    elif size is None and m.person is not None and m.person.share < 0.08:
        what = f"The person fills only {100 * m.person.share:.0f} % of the picture."
        why = "Most pixels go to the room instead of the head."
        out.append(Finding("distance", "warning", what, why, near))
    else:
        out.append(Finding("distance", "ok", "The distance is fine."))
    if m.person is not None and max(m.person.head_cut, m.person.side_cut) > 0.15:
        share = max(m.person.head_cut, m.person.side_cut)
        edge = "upper" if m.person.head_cut >= m.person.side_cut else "left or right"
        what = f"The head is cut off by the {edge} edge in {100 * share:.0f} % of the pictures."
        why = "Parts outside the picture cannot be reconstructed."
        redo = "Step back or raise the phone so that the whole head stays in the picture."
        out.append(Finding("cut_off", "warning", what, why, redo))
    else:
        out.append(Finding("cut_off", "ok", "The head stays inside the picture."))
    return out


def _nobody(m: Measured) -> Finding:
    """No person to the models: a bust or a skull may still be what the camera goes round."""
    redo = "Film one person from all around, the head in the middle of the picture."
    if m.goes_round is False:
        what = "There is no person in the pictures, and the camera goes round nothing."
        why = "The job reconstructs the head and shoulders of one person."
        return Finding("person", "stop", what, why, redo)
    what = "No person was recognised; what the camera goes round is taken for the head."
    why = "Without a face, front and size are guesses, and only your own portraits can style it."
    redo = (
        "For a bust or a skull give the number of a frontal frame with capture.front_frame; "
        "otherwise film one person from all around."
    )
    return Finding("person", "warning", what, why, redo)


def subject_finding(motion: SubjectMotion | None, limits: tuple[float, float]) -> list[Finding]:
    """Whether the person moved while being filmed; nothing when that could not be measured.

    Args:
        motion: What :mod:`.subject` measured.
        limits: :data:`EPIPOLAR` or :data:`MEASURED`.
    """
    if motion is None:
        return []
    if motion.person < limits[0] or motion.person < limits[1] * motion.room:
        return [Finding("subject", "ok", "The person holds still.")]
    what = (
        f"The person moves while being filmed: the features on it are {motion.person:.1f} "
        f"thousandths of the picture off, those of the room {motion.room:.1f}."
    )
    why = "A head that is elsewhere in every frame comes out blurred and too thick or too thin."
    redo = "Let the person sit, lean the head on something and look at one point; film again."
    return [Finding("subject", "warning", what, why, redo)]


def _face_share(m: Measured) -> float | None:
    """Median height of the frontal faces as a share of the picture's long side."""
    sizes = [
        (look.face.box[3] - look.face.box[1]) / max(look.image.shape[:2])
        for look in m.looks
        if look.face is not None and abs(look.face.rough_yaw) < 0.7
    ]
    return float(np.median(sizes)) if sizes else None


def _background(m: Measured) -> Finding:
    why = "Cameras are found by holding on to small details of the room."
    redo = "Film in a lit room with things standing around, not before blank walls."
    if m.textured < 40:
        what = "The pictures show nearly no texture to find the camera by."
        return Finding("background", "stop", what, why, redo)
    if m.room_points < 60 or m.room_cells < 0.3:
        what = "The background is plain."
        return Finding("background", "warning", what, why, redo)
    if m.room_points < 150 or m.room_cells < 0.55:
        what = "Parts of the background are plain."
        return Finding("background", "hint", what, why, redo)
    return Finding("background", "ok", "The background has enough in it to find the cameras by.")


def _figures(m: Measured) -> dict[str, Any]:
    gaps = missing_arcs(m.turn.angles) if m.turn_known else []
    exposure = np.cumsum([step.exposure for step in m.steps])
    faces = [
        {
            "frame": look.source_index,
            "yaw_degrees": round(float(np.degrees(look.face.rough_yaw)), 1),
            "box": [round(v / s, 4) for v, s in zip(look.face.box, 2 * _size(look), strict=True)],
        }
        for look in m.looks
        if look.face is not None
    ]
    return {
        "frames": m.frames,
        "seconds": m.seconds,
        "size": m.size,
        "hdr": m.hdr,
        "looked_at": len(m.steps),
        "standing_still": m.choice.duplicates,
        "motion_blurred": m.choice.blurred,
        "blur": round(m.blur, 3),
        "exposure_stops": round(float(np.ptp(np.percentile(exposure, [2, 98]))), 2),
        "turn_degrees": round(float(np.degrees(m.turn.total)), 1),
        "turn_measured_by": m.turn.source,
        "missing_arcs": [
            {
                "degrees": gap.width,
                "middle_degrees": gap.middle,
                "clock": clock_position(gap.middle),
            }
            for gap in gaps
        ],
        "faces": faces,
        "person": None if m.person is None else dataclasses.asdict(m.person),
        "subject_motion": None if m.subject is None else dataclasses.asdict(m.subject),
        "background_points": m.room_points,
        "points": m.textured,
    }


def _size(look: Any) -> tuple[int, int]:
    return look.image.shape[1], look.image.shape[0]
