"""Colours as people see them, also those who lack one kind of cone; and how far apart they are.

Sources:
    Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
    Deficiency", 2009, severity 1. Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula",
    2005.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

VISIONS = {
    "all cones": np.eye(3),
    "no red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no blue": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""What each eye makes of linear RGB."""

_XYZ_OF_RGB = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab_of(colours: npt.ArrayLike, vision: str = "all cones") -> Array:
    """Return CIE L*a*b* of colours in sRGB, 0 to 255, ``(..., 3)``."""
    shares = np.asarray(colours, dtype=np.float64) / 255.0
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISIONS[vision].T, 0.0, 1.0)
    x, y, z = np.moveaxis(_eased(seen @ _XYZ_OF_RGB.T / _XYZ_OF_RGB.sum(axis=1)), -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _eased(t: Array) -> Array:
    return np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)


def distance(one: npt.ArrayLike, other: npt.ArrayLike) -> Array:
    """Return CIEDE2000 between colours in L*a*b*; about 1 is just seen side by side."""
    l1, a1, b1 = np.moveaxis(np.asarray(one, dtype=np.float64), -1, 0)
    l2, a2, b2 = np.moveaxis(np.asarray(other, dtype=np.float64), -1, 0)
    mean_chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2.0
    stretch = 1.0 + 0.5 * (1.0 - _of_strong(mean_chroma))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1 = np.degrees(np.arctan2(b1, stretch * a1)) % 360.0
    h2 = np.degrees(np.arctan2(b2, stretch * a2)) % 360.0
    is_grey = c1 * c2 == 0.0
    turn = np.where(is_grey, 0.0, (h2 - h1 + 180.0) % 360.0 - 180.0)
    hue = np.where(is_grey, h1 + h2, (h1 + turn / 2.0) % 360.0)
    light, chroma = (l1 + l2) / 2.0 - 50.0, (c1 + c2) / 2.0
    waves = 1.0 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue)
    waves += 0.32 * _cos(3 * hue + 6) - 0.20 * _cos(4 * hue - 63)
    d_light = (l2 - l1) / (1.0 + 0.015 * light**2 / np.sqrt(20.0 + light**2))
    d_chroma = (c2 - c1) / (1.0 + 0.045 * chroma)
    d_hue = 2.0 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2.0)) / (1.0 + 0.015 * chroma * waves)
    bend = np.sin(np.radians(60.0 * np.exp(-(((hue - 275.0) / 25.0) ** 2))))
    twist = -2.0 * bend * _of_strong(chroma) * d_chroma * d_hue
    return np.sqrt(d_light**2 + d_chroma**2 + d_hue**2 + twist)


def _of_strong(chroma: Array) -> Array:
    return np.sqrt(chroma**7 / (chroma**7 + 25.0**7))


def _cos(degrees: Array) -> Array:
    return np.cos(np.radians(degrees))
