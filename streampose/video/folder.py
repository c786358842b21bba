"""Pictures as a video: a folder of numbered frames, or an animated webp."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from math import gcd
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from streampose.errors import VideoError
from streampose.video.container import MAX_PIXELS, VIDEO_SUFFIXES, check_file
from streampose.video.ledger import Entry
from streampose.video.media import Facts
from streampose.video.rhythm import Rhythm

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
LEAST_IMAGES = 10
MOST_MISSING = 0.1  # share of the numbers between the first and the last
FPS_FILE, DEFAULT_FPS = "fps.txt", 25.0
TIME_BASE, MILLISECOND = Fraction(1, 1_000_000), Fraction(1, 1000)
NUMBERED = re.compile(r"^(.*?)(\d+)(\D*)$")  # the last number in a name


def is_image_folder(path: Path) -> bool:
    """Whether a folder is one video: numbered frames, and not photos that happen to lie together.

    It is one where all its images have one suffix and one name but for the last number in it, there are at least
    `LEAST_IMAGES`, at most one in ten numbers between the first and the last is missing (they may count in steps), the
    first and the last have the same size, neither carries EXIF data as cameras write it, and no video lies beside them.
    """
    return _why_not(path) == ""


def is_animated_webp(path: Path) -> bool:
    """Whether the header of a webp file says that it is animated."""
    try:
        with path.open("rb") as file:
            head = file.read(21)
    except OSError:
        return False
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)


class ImageFolder:
    """A folder of numbered frames, shown at the frames a second that its `fps.txt` names, else at 25.

    Numbers that are missing and images that cannot be read keep their time and their number.

    Raises:
        VideoError: the folder is none of numbered frames (and why).
    """

    sequential = False
    read_error = ""
    time_base = TIME_BASE

    def __init__(self, path: Path):
        self.path = path
        reason = _why_not(path)
        if reason:
            raise VideoError(f"{path}: a folder, not a video ({reason}); name the videos in it; skipped")
        self._numbered = _numbered_images(path)
        self._step = _step_of(self._numbered)
        self._fps, self._note = _read_fps(path)

    def again(self) -> ImageFolder:
        return self

    def close(self) -> None:
        return

    def facts(self) -> Facts:
        seconds = len(self._slots()) / self._fps
        suffix = next(iter(self._numbered.values())).suffix.lower()[1:]
        return Facts(self._fps, seconds, len(self._slots()), seconds, f"{suffix} images", self._note)

    def entries(self) -> Iterator[Entry]:
        return self._read(0)

    def seek(self, seconds: float, back_off_seconds: float = 0.0) -> Iterator[Entry]:
        return self._read(max(0, int((seconds - back_off_seconds) * self._fps + 1e-6)))

    def count_before(self, pts: int) -> tuple[int, Rhythm]:
        return sum(_pts(i, self._fps) < pts for i in range(len(self._slots()))), Rhythm()

    def _slots(self) -> range:
        return range(min(self._numbered), max(self._numbered) + 1, self._step)

    def _read(self, first: int) -> Iterator[Entry]:
        for i, number in list(enumerate(self._slots()))[first:]:
            pts = _pts(i, self._fps)
            entry = Entry(i, pts, TIME_BASE, _pts(i + 1, self._fps) - pts, key=True)
            file = self._numbered.get(number)
            if file is None:
                entry.problem = "missing image"
            else:
                entry.picture = _read_image(file)
                if entry.picture is None:
                    entry.problem = "unreadable image"
                else:
                    entry.picture.pts, entry.picture.time_base = pts, TIME_BASE
            yield entry


class AnimatedWebp:
    """An animated webp picture, which FFmpeg cannot read; transparent parts lie on black.

    Raises:
        VideoError: not a webp picture, or one that does not move.
    """

    sequential = True  # each picture is drawn onto the one before
    read_error = ""
    time_base = MILLISECOND

    def __init__(self, path: Path):
        check_file(path)
        self.path, self.read_error = path, ""
        try:
            with Image.open(path) as image:
                width, height = image.size
                self._frames = getattr(image, "n_frames", 1)
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise VideoError(f"{path}: cannot be opened ({error or type(error).__name__}); skipped") from None
        if width * height > MAX_PIXELS:
            raise VideoError(f"{path}: claims frames of {width} x {height} pixels; skipped")

    def again(self) -> AnimatedWebp:
        return AnimatedWebp(self.path)

    def close(self) -> None:
        return

    def facts(self) -> Facts:
        first = next(self._durations(), 40)
        return Facts(1000 / max(first, 1), None, self._frames, None, "webp")

    def entries(self) -> Iterator[Entry]:
        pts = 0
        for number, (picture, duration) in enumerate(self._pictures()):
            picture.pts, picture.time_base = pts, MILLISECOND
            yield Entry(number, pts, MILLISECOND, duration, key=number == 0, picture=picture)
            pts += duration

    def seek(self, seconds: float, back_off_seconds: float = 0.0) -> Iterator[Entry]:
        return self.entries()

    def count_before(self, pts: int) -> tuple[int, Rhythm]:
        return 0, Rhythm()

    def _durations(self) -> Iterator[int]:
        return (duration for _, duration in self._pictures())

    def _pictures(self) -> Iterator[tuple[av.VideoFrame, int]]:
        with Image.open(self.path) as image:
            for number in range(self._frames):
                try:
                    image.seek(number)
                    rgb = np.asarray(image.convert("RGB"))
                except (EOFError, OSError, ValueError) as error:
                    self.read_error = str(error) or "a picture is damaged"
                    return
                duration = int(image.info.get("duration") or 100)
                yield av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"), duration


def _why_not(path: Path) -> str:
    """Why a folder is not one of numbered frames; empty where it is."""
    images = _images(path)
    if not images:
        return "no images in it"
    if len(images) < LEAST_IMAGES:
        return f"{len(images)} images; at least {LEAST_IMAGES} numbered frames make a video"
    numbered = _numbered_images(path)
    if len(numbered) < len(images):
        return "its images are not named alike but for one number"
    slots = (max(numbered) - min(numbered)) // _step_of(numbered) + 1
    if slots - len(numbered) > MOST_MISSING * slots:
        return f"{slots - len(numbered)} of {slots} numbers between the first and the last image are missing"
    ends = [numbered[min(numbered)], numbered[max(numbered)]]
    try:
        sizes, exif = zip(*map(_size_and_exif, ends), strict=True)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return ""  # damaged at an end: the verdict on the frames says so
    if sizes[0] != sizes[1]:
        return "its images differ in size"
    if any(exif):
        return "its images are photos of a camera"
    if any(file.suffix.lower() in VIDEO_SUFFIXES for file in path.iterdir()):
        return "videos lie beside its images"
    return ""


def _images(path: Path) -> list[Path]:
    try:
        return [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    except OSError:
        return []


def _numbered_images(path: Path) -> dict[int, Path]:
    """{number: image} of the images that share the name of one of them; fewer than there are where names differ."""
    numbered: dict[int, Path] = {}
    names = set()
    for file in _images(path):
        match = NUMBERED.match(file.stem)
        if match is None:
            continue
        names.add((match[1], match[3], file.suffix))
        if len(names) == 1:
            numbered[int(match[2])] = file
    return numbered


def _step_of(numbered: dict[int, Path]) -> int:
    """What the numbers count in: their largest common step."""
    first = min(numbered)
    return gcd(*(number - first for number in numbered)) or 1


def _size_and_exif(file: Path) -> tuple[tuple[int, int], bool]:
    with Image.open(file) as image:
        return image.size, 271 in image.getexif() or 306 in image.getexif()  # make of the camera, date


def _read_image(file: Path) -> av.VideoFrame | None:
    """An image, upright, or None where it is damaged, too large or not there."""
    try:
        with Image.open(file) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                return None
            upright = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits
                upright = Image.fromarray((np.asarray(upright) // 256).clip(0, 255).astype(np.uint8))
            pixels = np.asarray(upright.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def _read_fps(path: Path) -> tuple[float, str]:
    file = path / FPS_FILE
    if not file.exists():
        return DEFAULT_FPS, f"no {FPS_FILE} in the folder: {DEFAULT_FPS:.0f} frames a second were assumed"
    try:
        fps = float(file.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        fps = 0.0
    if not 0 < fps <= 1000:
        raise VideoError(f"{file}: not a number of frames a second; write one, such as 30; skipped")
    return fps, ""


def _pts(number: int, fps: float) -> int:
    return round(number / fps / TIME_BASE)
