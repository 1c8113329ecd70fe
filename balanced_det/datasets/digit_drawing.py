"""How one digit scene is drawn: numbers from a generator in, pixels and exact boxes out.

Nothing here touches a file or knows of COCO; :mod:`balanced_det.datasets.digit_scenes` does. The parts are
real (scikit-learn's handwritten digits and its two photographs), the scenes are made.

Geometry runs through numpy and scipy in float64 and the course of a scene (how many digits, where, which are
dropped) depends on it alone, not on image codecs, so that the boxes do not change with the library versions.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

ALPHA_MIN = 0.2
"""Fainter alpha than this is cut to zero, so a digit's drawn pixels are exactly those its box encloses."""
MIN_SIDE = 14
"""Shortest long side of a box, in pixels."""
ASPECT = (0.3, 3.0)
"""Range of box width over height."""
MAX_COVERED = 0.6
"""A digit is placed only where no earlier one ends up with more than this share of its pixels covered."""
MAX_BOX_IOU = 0.3
"""Nor where its box overlaps another one more than this."""
OVERLAP_SHARE = 0.4
"""Share of the digits that may lie partly over others; the rest go where their boxes touch none.

It sets how hard the set is: with free overlap the demo's detector reaches two thirds of its AP here.
"""
MAX_DIGITS = 6
TRAIN_SHARE = 0.7

_MAX_STRETCH = 3.5  # of a digit's own aspect; beyond it a '1' stretched to 3:1 is a bar, not a digit
_SUPERSAMPLE = 3  # at 5 pixels of width one sample per pixel breaks strokes
_INK = (0.4, 0.62)  # grey values between which an upscaled glyph goes from paper to ink
_MIN_CONTRAST = 80.0  # RGB distance (root mean square over channels) between a digit and what lies under it
_TRIES = 20


class Sources(NamedTuple):
    """The real parts scenes are made of.

    Attributes:
        glyphs: (n, 8, 8) float64 in [0, 1], 1 is ink.
        labels: (n,) int, the digit each glyph shows.
        photos: two (h, w, 3) uint8 photographs, BGR.
    """

    glyphs: np.ndarray
    labels: np.ndarray
    photos: tuple[np.ndarray, ...]


class Digit(NamedTuple):
    """One digit of a scene.

    Attributes:
        source: index of the glyph in ``load_digits()``.
        label: the digit it shows, 0 to 9.
        alpha: (h, w) float64, its tight coverage mask; 0 or above ``ALPHA_MIN``.
        left: column of the mask's first pixel.
        top: row of the mask's first pixel.
    """

    source: int
    label: int
    alpha: np.ndarray
    left: int
    top: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the mask lies on."""
        height, width = self.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def bbox(self) -> list[int]:
        """COCO xywh, absolute pixels, of the whole digit (amodal: also where later digits lie over it)."""
        height, width = self.alpha.shape
        return [self.left, self.top, width, height]


class Scene(NamedTuple):
    """A finished picture.

    Attributes:
        image: (size, size, 3) uint8, BGR.
        digits: the labelled digits, lowest first.
        visible: for each digit, the share of its pixels that no later digit covers.
    """

    image: np.ndarray
    digits: list[Digit]
    visible: list[float]


@lru_cache(maxsize=1)
def load_sources() -> Sources:
    """Load digits and photographs from scikit-learn (they come with the package; no download).

    Raises:
        ImportError: scikit-learn (or pillow, which decodes the photographs) is not installed.
    """
    try:
        from sklearn.datasets import load_digits, load_sample_images

        photos = tuple(np.ascontiguousarray(photo[..., ::-1]) for photo in load_sample_images().images)
    except ImportError as error:
        raise ImportError(
            'Digit scenes are made from the digits and photographs that come with scikit-learn: '
            f'`pip install scikit-learn pillow` and try again ({error}).'
        ) from error
    digits = load_digits()
    return Sources(digits.images / 16.0, digits.target.astype(int), photos)


def digit_range(split: str, total: int = 1797) -> range:
    """Which samples of ``load_digits()`` a split draws from.

    Args:
        split: ``'train'`` (the first 70 %) or ``'val'`` (the rest): no handwritten digit is in both.
        total: number of samples there are.

    >>> digit_range('train'), digit_range('val')
    (range(0, 1257), range(1257, 1797))
    """
    border = int(total * TRAIN_SHARE)
    return {'train': range(border), 'val': range(border, total)}[split]


def max_side(size: int) -> int:
    """Longest long side of a box in an image of ``size`` pixels: 80 of 128."""
    return size * 5 // 8


def draw_scene(rng: np.random.Generator, split: str, size: int = 128) -> Scene:
    """Draw one scene; the same generator state gives the same scene.

    Args:
        rng: all that varies comes from here.
        split: ``'train'`` or ``'val'``, see :func:`digit_range`.
        size: width and height of the image, pixels.

    Returns:
        A scene of one to six digits, each whole inside the image and recognisable (``MAX_COVERED``).
    """
    sources = load_sources()
    image = draw_background(rng, sources.photos, size)
    digits: list[Digit] = []
    for _ in range(rng.integers(1, MAX_DIGITS, endpoint=True)):
        digit = _place(rng, _warped_digit(rng, sources, split, size), digits, size)
        if digit is not None:
            digits.append(digit)
    for digit in digits:
        paint(rng, image, digit)
    return Scene(image, digits, visible_shares(digits, size))


def draw_background(rng: np.random.Generator, photos: tuple[np.ndarray, ...], size: int) -> np.ndarray:
    """Cut a square from a photograph, mirror it or not, change its brightness; (size, size, 3) uint8."""
    photo = photos[rng.integers(len(photos))]
    height, width = photo.shape[:2]
    side = int(rng.integers(height // 4, height, endpoint=True))
    top, left = rng.integers(height - side, endpoint=True), rng.integers(width - side, endpoint=True)
    crop = photo[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    crop = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(crop * rng.uniform(0.6, 1.2), 0, 255).astype(np.uint8)


def paint(rng: np.random.Generator, image: np.ndarray, digit: Digit) -> None:
    """Blend a digit into ``image``, in place, in a colour that shades off along a random direction.

    The pixels that change are among those of ``digit.alpha > 0``; its opacity is 0.9 to 1.
    """
    patch = image[digit.window].astype(np.float64)
    alpha = digit.alpha[..., None]
    behind = (patch * alpha).sum((0, 1)) / alpha.sum()
    colour = _contrasting_colour(rng, behind)
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 25)
    rows, columns = _pixel_grid(digit.alpha.shape[0], digit.alpha.shape[1], 1)
    shade = strength * (math.cos(angle) * columns + math.sin(angle) * rows)
    alpha = alpha * rng.uniform(0.9, 1.0)
    blended = patch * (1 - alpha) + (colour + shade[..., None]) * alpha
    image[digit.window] = np.clip(np.rint(blended), 0, 255).astype(np.uint8)


def visible_shares(digits: list[Digit], size: int) -> list[float]:
    """Share of each digit's pixels that no later digit covers; the last one has 1."""
    owner = np.full((size, size), -1)
    for number, digit in enumerate(digits):
        owner[digit.window][digit.alpha > 0] = number
    return [float((owner == number).sum() / (digit.alpha > 0).sum()) for number, digit in enumerate(digits)]


def _place(rng: np.random.Generator, digit: Digit | None, below: list[Digit], size: int) -> Digit | None:
    """Find a spot where the digit leaves those below it recognisable; None if there is none in 20 tries."""
    if digit is None:
        return None
    height, width = digit.alpha.shape
    limit = MAX_BOX_IOU if rng.random() < OVERLAP_SHARE else 0.0
    for _ in range(_TRIES):
        left, top = rng.integers(size - width, endpoint=True), rng.integers(size - height, endpoint=True)
        placed = digit._replace(left=int(left), top=int(top))
        if any(_box_iou(placed.bbox, other.bbox) > limit for other in below):
            continue
        if min(visible_shares([*below, placed], size)) >= 1 - MAX_COVERED:
            return placed
    return None


def _box_iou(one: list[int], two: list[int]) -> float:
    width = min(one[0] + one[2], two[0] + two[2]) - max(one[0], two[0])
    height = min(one[1] + one[3], two[1] + two[3]) - max(one[1], two[1])
    inter = max(width, 0) * max(height, 0)
    return inter / (one[2] * one[3] + two[2] * two[3] - inter)


def _contrasting_colour(rng: np.random.Generator, behind: np.ndarray) -> np.ndarray:
    """First of some random colours far enough from ``behind``, else the farthest; (3,) float64.

    All are drawn beforehand, so that the generator's state does not depend on the photograph's pixels.
    """
    colours = rng.uniform(0, 255, (8, 3))
    contrast = np.sqrt(((colours - behind) ** 2).mean(1))
    enough = np.flatnonzero(contrast >= _MIN_CONTRAST)
    return colours[enough[0] if len(enough) else contrast.argmax()]


def _warped_digit(rng: np.random.Generator, sources: Sources, split: str, size: int) -> Digit | None:
    """Draw a glyph, a warp, a size and an aspect; at (0, 0), None if 20 draws all miss the limits.

    A drawn mask can come out a pixel smaller than asked for; hence the check and the loop.
    """
    samples = digit_range(split, len(sources.labels))
    for _ in range(_TRIES):
        source = int(rng.integers(samples.start, samples.stop))
        warp = _Warp.draw(rng, sources.glyphs[source])
        rows, columns = warp.extent()
        height, width = _draw_shape(rng, (columns[1] - columns[0]) / (rows[1] - rows[0]), max_side(size))
        alpha = _tight(warp.render(rows, columns, height, width))
        height, width = alpha.shape
        fits = MIN_SIDE <= max(height, width) <= max_side(size)
        if fits and ASPECT[0] * height <= width <= ASPECT[1] * height:
            return Digit(source, int(sources.labels[source]), alpha, 0, 0)
    return None


def _draw_shape(rng: np.random.Generator, aspect: float, longest: int) -> tuple[int, int]:
    """Height and width: long side and aspect log-uniform, the latter near enough to the digit's own."""
    low, high = max(ASPECT[0], aspect / _MAX_STRETCH), min(ASPECT[1], aspect * _MAX_STRETCH)
    aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
    side = math.exp(rng.uniform(math.log(MIN_SIDE), math.log(longest)))
    return max(1, round(side / max(aspect, 1))), max(1, round(side * min(aspect, 1)))


def _tight(alpha: np.ndarray) -> np.ndarray:
    """Cut faint alpha to zero and empty rows and columns off."""
    alpha = np.where(alpha > ALPHA_MIN, alpha, 0.0)
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if len(rows) == 0:
        return alpha[:0, :0]
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _pixel_grid(height: int, width: int, per_pixel: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates of (sub)pixel centres, both in (-1, 1); broadcast to (h, w)."""
    rows = (np.arange(height * per_pixel) + 0.5) / (height * per_pixel) * 2 - 1
    columns = (np.arange(width * per_pixel) + 0.5) / (width * per_pixel) * 2 - 1
    return rows[:, None], columns[None, :]


class _Warp(NamedTuple):
    """A smooth map from the drawing plane to a glyph: bend (elastic), then rotate, shear and perspective.

    Plane and glyph both have the digit's square at [-1, 1]; ``coefficients`` are cubic B-spline ones.
    """

    coefficients: np.ndarray
    matrix: np.ndarray
    waves: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, glyph: np.ndarray) -> _Warp:
        padded = np.pad(glyph / glyph.max(), 3)  # the spline rings past the ink; let it fade before the edge
        angle = math.radians(rng.uniform(-25, 25))  # more and a 6 is a 9
        shear_x, shear_y = rng.uniform(-0.35, 0.35), rng.uniform(-0.15, 0.15)
        tilt_x, tilt_y = rng.uniform(-0.15, 0.15, 2)
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = np.array(
            [[cos + sin * shear_y, cos * shear_x + sin], [cos * shear_y - sin, cos - sin * shear_x], [tilt_x, tilt_y]]
        )
        # amplitude, frequency along each axis, phase; one wave each for columns and rows
        waves = np.stack(
            [
                rng.uniform(0.02, 0.1, 2),
                rng.uniform(-2.5, 2.5, 2),
                rng.uniform(-2.5, 2.5, 2),
                rng.uniform(0, 2 * math.pi, 2),
            ],
            axis=1,
        )
        return cls(ndimage.spline_filter(padded, order=3, mode='constant'), matrix, waves)

    def ink(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Ink in [0, 1] at plane coordinates that broadcast against each other."""
        (amp_x, fx, gx, phase_x), (amp_y, fy, gy, phase_y) = self.waves
        x = columns + amp_x * np.sin(fx * columns + gx * rows + phase_x)
        y = rows + amp_y * np.sin(fy * columns + gy * rows + phase_y)
        (a, b), (c, d), (e, f) = self.matrix
        depth = 1 + e * x + f * y
        centre, half = (len(self.coefficients) - 1) / 2, 4.0
        at = np.stack([centre + half * (c * x + d * y) / depth, centre + half * (a * x + b * y) / depth])
        grey = ndimage.map_coordinates(self.coefficients, at, order=3, mode='constant', prefilter=False)
        low, high = _INK
        return np.clip((grey - low) / (high - low), 0, 1)

    def extent(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the ink lies in the plane: (first, last) row and (first, last) column."""
        rows, columns = (1.8 * axis for axis in _pixel_grid(48, 48, 1))
        inked = self.ink(rows, columns) > 0.5
        row, column = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
        half_step = 1.8 / 48
        return (
            (rows[row[0], 0] - half_step, rows[row[-1], 0] + half_step),
            (columns[0, column[0]] - half_step, columns[0, column[-1]] + half_step),
        )

    def render(self, rows: tuple[float, float], columns: tuple[float, float], height: int, width: int) -> np.ndarray:
        """Draw that part of the plane on height x width pixels; (h, w) coverage, each the mean of 3 x 3."""
        down, right = _pixel_grid(height, width, _SUPERSAMPLE)
        down = (rows[0] + rows[1]) / 2 + (rows[1] - rows[0]) / 2 * down
        right = (columns[0] + columns[1]) / 2 + (columns[1] - columns[0]) / 2 * right
        ink = self.ink(down, right)
        return ink.reshape(height, _SUPERSAMPLE, width, _SUPERSAMPLE).mean((1, 3))
