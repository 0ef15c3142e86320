"""Makes astronaut-pan.npy: a camera window that circles once over a public-domain photograph.

    pip install numpy pillow scikit-image==0.26.0
    python make_recording.py

README.md says where the photograph comes from. The result is the same, byte for byte, on every machine.
"""

import hashlib
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOGRAPH_SHA256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
FRAMES, HEIGHT, WIDTH = 30, 200, 320
RESULT = Path(__file__).with_name("astronaut-pan.npy")


def photograph() -> np.ndarray:
    """The photograph as uint8 luma [512, 512]."""
    # Found without importing scikit-image, which is large and only needed for this one file.
    path = Path(find_spec("skimage").origin).with_name("data") / "astronaut.png"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PHOTOGRAPH_SHA256:
        raise SystemExit(f"{path} has sha256 {found}, expected {PHOTOGRAPH_SHA256}: use scikit-image 0.26.0")
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(np.uint32)
    # Rec. 601 luma in integers, so that no rounding mode matters.
    return ((rgb @ np.array([299, 587, 114], np.uint32) + 500) // 1000).astype(np.uint8)


def windows(image: np.ndarray) -> np.ndarray:
    """FRAMES windows along an ellipse that touches all four edges; the last leads back to the first."""
    free_y, free_x = image.shape[0] - HEIGHT, image.shape[1] - WIDTH
    frames = np.empty((FRAMES, HEIGHT, WIDTH), np.uint8)
    for index in range(FRAMES):
        angle = 2 * math.pi * index / FRAMES
        top = round(free_y * (1 - math.cos(angle)) / 2)
        left = round(free_x * (1 + math.sin(angle)) / 2)
        frames[index] = image[top : top + HEIGHT, left : left + WIDTH]
    return frames


if __name__ == "__main__":
    np.save(RESULT, windows(photograph()))
    print(f"{hashlib.sha256(RESULT.read_bytes()).hexdigest()}  {RESULT.name}")
