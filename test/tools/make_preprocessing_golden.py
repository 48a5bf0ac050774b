"""Write test/data/preprocessing_golden.npz: the published preprocessing's steps, by TensorFlow.

Run once, with any recent CPU build of TensorFlow (made with 2.21.0); it is not a dependency:

    python3 -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu
    /tmp/tf/bin/python test/tools/make_preprocessing_golden.py

Written from the formulas of OpenVLA-OFT's openvla_utils.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

OUT = Path(__file__).parents[1] / 'data' / 'preprocessing_golden.npz'
SIDE = 224
ROWS = 4  # every fourth row of an image is kept
AREA = 0.9
MEANS = ([0.484375, 0.455078125, 0.40625], [0.5] * 3)
STDS = ([0.228515625, 0.2236328125, 0.224609375], [0.5] * 3)


def scene(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw gradients, edges and a patch of noise: uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 / width, y * 255 / height, (x + y) % 97 * 2], -1)
    for _ in range(12):
        top, left = random.integers(0, height - 30), random.integers(0, width - 30)
        tall, wide = random.integers(5, 30, 2)
        image[top : top + tall, left : left + wide] = random.integers(0, 256, 3)
    image[height // 2 : height // 2 + 24, 8:40] = random.integers(0, 256, (24, 32, 3))
    return image.astype(np.uint8)


def jpeg(image: np.ndarray) -> np.ndarray:
    """Encode and decode with TensorFlow's defaults."""
    return tf.io.decode_image(
        tf.io.encode_jpeg(image), expand_animations=False, dtype=tf.uint8
    ).numpy()


def resize(image: np.ndarray) -> np.ndarray:
    """Lanczos3 with antialias, rounded and clipped."""
    image = tf.image.resize(image, (SIDE, SIDE), method='lanczos3', antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8).numpy()


def crop(image: np.ndarray) -> np.ndarray:
    """Centre box of 0.9 of the area, back to the full size."""
    length = np.sqrt(AREA)
    low = (1 - length) / 2
    pixels = tf.image.convert_image_dtype(image, tf.float32)[None]
    box = [[low, low, low + length, low + length]]
    pixels = tf.image.crop_and_resize(pixels, box, [0], (SIDE, SIDE))[0]
    pixels = tf.clip_by_value(pixels, 0, 1)
    return tf.image.convert_image_dtype(pixels, tf.uint8, saturate=True).numpy()


def normalise(image: np.ndarray) -> np.ndarray:
    """Normalise for both towers: float32 [6, H, W], DINOv2 first."""
    pixels = image.astype(np.float64) / 255
    towers = [
        (pixels - mean) / std for mean, std in zip(np.array(MEANS), np.array(STDS), strict=True)
    ]
    return np.concatenate(towers, -1).transpose(2, 0, 1).astype(np.float32)


def main() -> None:
    """Write all steps of two cameras, the second one of another shape."""
    random = np.random.default_rng(20261124)
    arrays = {}
    for name, size in (('third_person', (256, 256)), ('wrist', (120, 160))):
        raw = scene(random, *size)  # as LIBERO renders it, bottom row first
        steps = {'jpeg': jpeg(raw[::-1, ::-1])}
        steps['resized'] = resize(steps['jpeg'])
        steps['cropped'] = crop(steps['resized'])
        # every 16th pixel shows a wrong constant as well as all of them
        arrays[f'{name}_normalised'] = normalise(steps['cropped'])[:, ::16, ::16]
        arrays[f'{name}_raw'] = raw
        for step in ('jpeg', 'resized', 'cropped'):
            arrays[f'{name}_{step}'] = steps[step][::ROWS]  # to keep the file small
    q01, q99 = random.uniform(-1, 0, 8), random.uniform(0.1, 1, 8)
    state = random.uniform(-1.5, 1.5, (16, 8))
    arrays |= {'q01': q01, 'q99': q99, 'state': state}
    arrays['proprio'] = np.clip(2 * (state - q01) / (q99 - q01 + 1e-8) - 1, -1, 1)
    action = random.uniform(-1.2, 1.2, (16, 7))
    action[:, 6] = random.uniform(-0.1, 1.1, 16)
    low, high = q01[:7], q99[:7]
    mask = np.array([True] * 6 + [False])
    plain = np.where(mask, 0.5 * (action + 1) * (high - low + 1e-8) + low, action)
    arrays |= {'action': action, 'action_unnormalised': plain}
    # to the simulator: -1 opens, +1 closes
    arrays['gripper_command'] = -np.sign(2 * plain[:, 6] - 1)
    OUT.parent.mkdir(exist_ok=True)
    np.savez_compressed(OUT, **arrays)
    print(f'{OUT}: {OUT.stat().st_size / 1024:.0f} KiB, TensorFlow {tf.__version__}')


if __name__ == '__main__':
    main()
