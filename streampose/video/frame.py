"""One decoded frame: pixels are made only when they are asked for, at the size and for the region that is asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import VideoReformatter

from streampose.geometry.crop import crop_resize, halve, halvings_for, shrink

REGION_STEP = 16  # regions are rounded up to so many pairs of blocks, so that the scaler is rarely set up anew
MAX_REFORMATTERS = 64
PLANAR = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"))


class Frame:
    """One frame of a video; treat its arrays as read-only.

    Attributes:
        pts_seconds: when it is shown, in the container's time.
        index: number of the frame in the video, in display order.
        size: (width, height) of `image`.
    """

    __slots__ = ("_converter", "_halves", "_image", "_picture", "_small", "index", "pts_seconds", "size")

    def __init__(
        self,
        image: np.ndarray | None,
        pts_seconds: float,
        index: int,
        *,
        picture: av.VideoFrame | None = None,
        converter: Converter | None = None,
    ):
        assert image is not None or (picture is not None and converter is not None)
        self._image, self._picture, self._converter = image, picture, converter
        self._small: dict[tuple[int, int, str], np.ndarray] = {}
        self._halves: list[np.ndarray] = []
        self.pts_seconds, self.index = pts_seconds, index
        self.size = converter.size if converter is not None else _size(cast(np.ndarray, image))

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        if self._image is None:
            assert self._converter is not None and self._picture is not None
            self._image = self._converter.convert(self._picture, self.size, "rgb24")
        return self._image

    def small(self, size: tuple[int, int], *, gray: bool = False) -> np.ndarray:
        """The whole frame at another size, straight from the decoder's picture, without making `image` first.

        Args:
            size: (width, height).
            gray: brightness only.

        Returns:
            (height, width, 3) uint8 RGB, or (height, width) uint8.
        """
        key = (*size, "gray" if gray else "rgb24")
        if key not in self._small:
            if self._picture is not None and self._converter is not None:
                if not self._halves and 2 * size[0] <= self.size[0] and 2 * size[1] <= self.size[1]:
                    self._halves = _halve_planes(self._picture)
                self._small[key] = self._converter.convert(self._picture, size, key[2], self._halves)
            else:
                image = cv2.resize(self.image, size, interpolation=cv2.INTER_AREA)
                self._small[key] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if gray else image
        return self._small[key]

    def glance(self, size: tuple[int, int]) -> np.ndarray:
        """Like `small`, but made from a quarter of the rows: good enough to tell one scene from another."""
        if self._picture is None or self._converter is None or self._picture.format.name not in PLANAR:
            return self.small(size)
        rows = [plane[::4] for plane in _planes(self._picture)]
        if min(len(plane) for plane in rows) < max(size):
            return self.small(size)
        return self._converter.convert(self._picture, size, "rgb24", rows)

    def skim(self, size: tuple[int, int]) -> np.ndarray | None:
        """Brightness as it is stored, from few of the pixels, at a tenth of the time of `glance`: enough to tell that
        nothing has changed since another frame.

        Args:
            size: (width, height).

        Returns:
            (height, width) uint8, not turned upright; None where the picture does not keep brightness apart.
        """
        if self._picture is None or self._picture.format.name not in PLANAR:
            return None
        brightness = self._picture.planes[0]
        few = cv2.resize(
            _pixels(brightness)[:, : brightness.width], (4 * size[0], 2 * size[1]), interpolation=cv2.INTER_NEAREST
        )
        return np.asarray(cv2.resize(few, size, interpolation=cv2.INTER_AREA))

    def crop(self, box: np.ndarray, size: int) -> np.ndarray:
        """`crop_resize(frame.image, box, size)`, made from the pixels under the box alone: (size, size, 3) uint8 RGB.

        Args:
            box: (4,) edges in pixels of `image`; may leave it.
            size: side of the crop in pixels.
        """
        if self._image is None and self._picture is not None and self._converter is not None:
            region = self._converter.convert_region(self._picture, box, size, self._halves)
            if region is not None:
                image, left, top, block = region
                return crop_resize(image, (np.asarray(box, np.float64) - (left, top, left, top)) / block, size)
        return crop_resize(self.image, box, size)


@dataclass(frozen=True)
class Orientation:
    """The turn and mirroring that makes a stored picture upright: transpose first, then flip."""

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise turn of the picture, mirroring left out."""
        if self.transposed:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    def apply(self, image: np.ndarray) -> np.ndarray:
        if self.transposed:
            image = cv2.transpose(image)
        if self.flip_x or self.flip_y:
            image = cv2.flip(image, -1 if self.flip_x and self.flip_y else int(self.flip_x))
        return image


def read_orientation(picture: av.VideoFrame) -> Orientation:
    """Read the display matrix that the container gave this picture (x' = a x + c y, y' = b x + d y)."""
    try:
        side_data = cast(Mapping[SideDataType, bytes], picture.side_data)
        matrix = np.frombuffer(bytes(side_data[SideDataType.DISPLAYMATRIX]), "=i4").reshape(3, 3)
    except (KeyError, ValueError):
        return Orientation()
    a, b, c, d = (int(v) for v in matrix[:2, :2].reshape(-1))
    if abs(b) > abs(a):
        return Orientation(transposed=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(flip_x=a < 0, flip_y=d < 0)


class Converter:
    """Turns the decoder's pictures into upright arrays with one reused reformatter for each kind of output.

    Args:
        size: (width, height) of a frame's `image`.
    """

    def __init__(self, size: tuple[int, int], orientation: Orientation):
        self.size, self._orientation = size, orientation
        self._reformatters: dict[tuple[int, int, str], VideoReformatter] = {}
        self._matrices: dict[tuple[bool, int, int], np.ndarray] = {}
        self._lock = threading.Lock()  # frames may be converted in another thread than they are decoded in

    def convert(
        self,
        picture: av.VideoFrame,
        size: tuple[int, int],
        pixel_format: str,
        planes: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """The whole picture at (width, height).

        Args:
            planes: what `_halve_planes` gave, or other reduced planes, to begin with where the result is smaller.
        """
        width, height = size[::-1] if self._orientation.transposed else size
        if 4 * width <= 3 * picture.width and 4 * height <= 3 * picture.height and picture.format.name in PLANAR:
            rgb = self._rgb(picture, [shrink(plane, (width, height)) for plane in planes or _planes(picture)])
            return self._orientation.apply(rgb if pixel_format == "rgb24" else cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        return self._orientation.apply(self._reformat(picture, width, height, pixel_format))

    def convert_region(
        self, picture: av.VideoFrame, box: np.ndarray, size: int, halves: Sequence[np.ndarray] = ()
    ) -> tuple[np.ndarray, int, int, int] | None:
        """The part of the picture under a box, averaged down in blocks as far as a crop of `size` pixels allows.

        Returns:
            RGB, its left, its top, the side of a block in pixels; None where that saves nothing.
        """
        width, height = picture.width, picture.height
        if self._orientation != Orientation() or self.size != (width, height) or picture.format.name not in PLANAR:
            return None
        if width % 2 or height % 2:  # its half-size colours are stretched a little, which a part would not repeat
            return None
        sides = (float(box[2] - box[0]), float(box[3] - box[1]))
        for halvings in range(halvings_for(min(sides), size), -1, -1):
            block = 2**halvings
            x0, x1 = _stretch(float(box[0]), float(box[2]), width, 2 * block)
            y0, y1 = _stretch(float(box[1]), float(box[3]), height, 2 * block)
            if x1 >= min(box[2], width) and y1 >= min(box[3], height):
                break  # else whole blocks do not reach the picture's edge: smaller ones will
        if x1 <= x0 or y1 <= y0 or 2 * (x1 - x0) * (y1 - y0) > width * height * block**2:
            return None
        planes = []
        for plane in halves if halves and block > 1 else _planes(picture):
            down_x, down_y = width // plane.shape[1], height // plane.shape[0]
            planes.append(plane[y0 // down_y : y1 // down_y, x0 // down_x : x1 // down_x])
        part_size = ((x1 - x0) // block, (y1 - y0) // block)
        if block > 1:
            return self._rgb(picture, [shrink(plane, part_size) for plane in planes]), x0, y0, block
        part = _with_planes(picture, planes, picture.format.name)
        return self._reformat(part, *part_size, "rgb24"), x0, y0, block

    def _rgb(self, picture: av.VideoFrame, planes: list[np.ndarray]) -> np.ndarray:
        """Brightness and colours of one size, of the kind that the picture has: RGB."""
        if len(planes) == 1:
            grey = _with_planes(picture, planes, picture.format.name)
            return self._reformat(grey, grey.width, grey.height, "rgb24")
        full_range = picture.format.name.startswith("yuvj")
        key = (full_range, int(picture.colorspace), int(picture.color_range))
        with self._lock:
            if key not in self._matrices:
                self._matrices[key] = _rgb_matrix(picture)
            return np.asarray(cv2.transform(cv2.merge(planes), self._matrices[key]))

    def _reformat(self, picture: av.VideoFrame, width: int, height: int, pixel_format: str) -> np.ndarray:
        key = (width, height, pixel_format)
        with self._lock:
            if key not in self._reformatters:
                if len(self._reformatters) >= MAX_REFORMATTERS:
                    self._reformatters.clear()
                self._reformatters[key] = VideoReformatter()
            # one thread: the decoder already keeps the others busy
            return self._reformatters[key].reformat(picture, width, height, pixel_format, threads=1).to_ndarray()


def _rgb_matrix(picture: av.VideoFrame) -> np.ndarray:
    """What FFmpeg multiplies (Y, U, V, 1) of such a picture by, (3, 4): found by asking it.

    FFmpeg's scaler takes ten times as long for pictures whose colours have the full size.
    """
    known = np.random.default_rng(0).integers((70, 110, 110), (180, 146, 146), (64, 64, 3)).astype(np.uint8)
    name = "yuvj444p" if picture.format.name.startswith("yuvj") else "yuv444p"
    test = _with_planes(picture, list(cv2.split(known)), name)
    rgb = VideoReformatter().reformat(test, 64, 64, "rgb24", threads=1).to_ndarray()
    left = np.concatenate([known.reshape(-1, 3), np.ones((known[..., 0].size, 1))], 1)
    return np.linalg.lstsq(left, rgb.reshape(-1, 3).astype(np.float64), rcond=None)[0].T.astype(np.float32)


def _planes(picture: av.VideoFrame) -> list[np.ndarray]:
    return [_pixels(plane)[:, : plane.width] for plane in picture.planes]


def _halve_planes(picture: av.VideoFrame) -> list[np.ndarray]:
    """Brightness and colours at half the size; empty where that is not known how, or their sides are odd."""
    planes = _planes(picture) if picture.format.name in PLANAR else []
    if any(side % 2 for plane in planes for side in plane.shape):
        return []
    return [halve(plane, 1) for plane in planes]


def _with_planes(picture: av.VideoFrame, planes: list[np.ndarray], pixel_format: str) -> av.VideoFrame:
    """A picture of these planes whose colours mean the same."""
    made = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pixel_format)
    made.colorspace, made.color_range = picture.colorspace, picture.color_range
    for source, target in zip(planes, made.planes, strict=True):
        _pixels(target)[:, : target.width] = source
    return made


def _stretch(low: float, high: float, limit: int, step: int) -> tuple[int, int]:
    """Start and stop of a stretch around low..high and a margin, multiples of `step` inside 0..limit.

    Its length is a multiple of REGION_STEP steps where the limit allows, so that few sizes occur.
    """
    limit = limit // step * step
    start = int(min(max(low - 2 * step, 0), limit - 1)) // step * step
    stop = min(-(-int(max(high + 2 * step, start + 1)) // step) * step, limit)
    length = -(-(stop - start) // (REGION_STEP * step)) * REGION_STEP * step
    start = max(0, min(start, limit - length))
    return start, min(start + length, limit)


def _pixels(plane: av.video.plane.VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1], image.shape[0]
