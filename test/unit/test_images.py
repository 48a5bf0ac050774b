"""Images: encodings, layouts, and the one way into the model."""

import cv2
import numpy as np
import pytest
import simplejpeg

from lightvla_ros.contract import Camera, Normalisation, Preprocessing
from lightvla_ros.errors import ImageError
from lightvla_ros.policy.images import RawPicture
from lightvla_ros.policy.preprocessor import Preprocessor

RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
TOWER = Normalisation((0.0, 0.5, 0.0), (1.0, 0.5, 1.0))


def _picture(side, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def _encode(encoding):
    alpha = np.full((6, 5, 1), 255, np.uint8)
    return {
        'rgb8': RGB,
        'bgr8': RGB[..., ::-1],
        'rgba8': np.concatenate([RGB, alpha], axis=2),
        'bgra8': np.concatenate([RGB[..., ::-1], alpha], axis=2),
        'mono8': RGB[..., :1],
    }[encoding]


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8'])
@pytest.mark.parametrize('padding', [0, 7])
def test_encodings_and_row_padding(encoding, padding):
    rows = _encode(encoding).reshape(6, -1)
    padded = np.concatenate([rows, np.full((6, padding), 99, np.uint8)], axis=1)
    image = RawPicture(padded.tobytes(), 6, 5, encoding, padded.shape[1]).decode()
    expected = np.repeat(RGB[..., :1], 3, axis=2) if encoding == 'mono8' else RGB
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ('layout', 'code'),
    [
        ((6, 5, 'yuv422', 15, 90), 'bad_encoding'),
        ((6, 5, '8UC3', 15, 90), 'bad_encoding'),
        ((0, 5, 'rgb8', 15, 0), 'bad_size'),
        ((6, 5000, 'rgb8', 15000, 90000), 'bad_size'),
        ((6, 5, 'rgb8', 14, 84), 'bad_size'),
        ((6, 5, 'rgb8', 15, 89), 'bad_data'),
    ],
)
def test_layouts_that_do_not_fit(layout, code):
    with pytest.raises(ImageError) as caught:
        RawPicture(bytes(layout[-1]), *layout[:-1])
    assert caught.value.code == code


def _preprocessor(size=(32, 32), towers=(TOWER,), crop=1.0, jpeg=None, **camera):
    cameras = tuple(
        Camera(name, size, **{'rotate_degrees': 0, 'mirror': False} | camera) for name in ('a', 'b')
    )
    run = Preprocessor(cameras, Preprocessing(jpeg, crop, towers))
    return lambda images: run(dict(zip('ab', images, strict=False)))


def test_normalisation_and_tower_order():
    other = Normalisation((0.25,) * 3, (0.5,) * 3)
    images = (_picture(32), _picture(32, 1))
    batch = _preprocessor(towers=(TOWER, other))(images)
    assert batch.shape == (2, 6, 32, 32)
    x = images[1].astype(np.float64).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(batch[1, 1], (x[1] - 0.5) / 0.5, atol=1e-5)
    np.testing.assert_allclose(batch[1, 3:], (x - 0.25) / 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ('camera', 'turned'),
    [
        ({'rotate_degrees': 180}, lambda x: x[::-1, ::-1]),
        ({'mirror': True}, lambda x: x[:, ::-1]),
        ({'rotate_degrees': 180, 'mirror': True}, lambda x: x[::-1]),
    ],
)
def test_orientation(camera, turned):
    image = _picture(32)
    np.testing.assert_array_equal(
        _preprocessor(**camera)((image, image)), _preprocessor()((turned(image), image)[:1] * 2)
    )


def _slow_lanczos(line, target):
    """The formula of TensorFlow's ScaleAndTranslate, one pixel at a time."""
    source = len(line)
    scale = target / source
    stretch = max(1 / scale, 1.0)
    out = []
    for x in range(target):
        centre = (x + 0.5) / scale
        weights = []
        for i in range(source):
            d = abs(i + 0.5 - centre) / stretch
            weights.append(0.0 if d >= 3 else np.sinc(d) * np.sinc(d / 3))
        out.append(np.dot(weights, line) / np.sum(weights))
    return np.array(out)


@pytest.mark.parametrize('source', [75, 32, 20])
def test_resize_is_lanczos3_with_antialias(source):
    image = _picture(source)
    columns = np.stack([_slow_lanczos(image[:, i].astype(float), 32) for i in range(source)], 1)
    wanted = np.stack([_slow_lanczos(columns[i], 32) for i in range(32)])
    wanted = np.clip(np.rint(wanted), 0, 255)
    plain = Normalisation((0.0,) * 3, (1 / 255,) * 3)
    got = _preprocessor(towers=(plain,))((image, image))[0].transpose(1, 2, 0)
    assert np.abs(got - wanted).max() <= 1.01  # a rounding apart at most
    assert np.abs(got - wanted).mean() < 0.01


def _slow_crop(image, area):
    """TensorFlow's crop_and_resize and its conversion to uint8, one pixel at a time."""
    side = len(image)
    first = (1 - area**0.5) / 2
    out = np.zeros_like(image)
    for y in range(side):
        for x in range(side):
            at = [first * (side - 1) + i * area**0.5 for i in (y, x)]
            (top, left), (fy, fx) = np.floor(at).astype(int), np.array(at) % 1
            box = image[top : top + 2, left : left + 2].astype(float) / 255
            upper, lower = box[0, 0] * (1 - fx) + box[0, -1] * fx, box[-1, 0]
            lower = lower * (1 - fx) + box[-1, -1] * fx
            out[y, x] = np.clip((upper * (1 - fy) + lower * fy) * 255.5, 0, 255)
    return out


def test_centre_crop_is_bilinear_and_truncates():
    image = _picture(32)
    plain = Normalisation((0.0,) * 3, (1 / 255,) * 3)
    got = _preprocessor(towers=(plain,), crop=0.9)((image, image))[0].transpose(1, 2, 0)
    difference = np.abs(got - _slow_crop(image, 0.9))
    assert difference.max() <= 1.01  # where float32 falls on the other side of a whole number
    assert difference.mean() < 0.01


def test_jpeg_comes_after_the_turn_and_before_the_resize():
    image = _picture(75)
    turned = np.ascontiguousarray(image[::-1])  # 180 degrees and mirrored
    encoded = cv2.imencode('.jpg', turned[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 95))[1]
    by_hand = simplejpeg.decode_jpeg(encoded, fastdct=True)
    assert (by_hand != turned).any()
    np.testing.assert_array_equal(
        _preprocessor(jpeg=95, rotate_degrees=180, mirror=True)((image, image)),
        _preprocessor()((by_hand, by_hand)),
    )


def test_centre_crop_takes_the_centre():
    """A ramp stays a ramp; with area 0.9 it spans sqrt(0.9) of the way."""
    ramp = np.repeat(np.linspace(0, 248, 32).astype(np.uint8)[None, :, None], 32, 0)
    ramp = np.repeat(ramp, 3, 2)
    plain = Normalisation((0.0,) * 3, (1 / 255,) * 3)
    row = _preprocessor(towers=(plain,), crop=0.9)((ramp, ramp))[0, 0, 16]
    assert row[0] == pytest.approx(248 * (1 - np.sqrt(0.9)) / 2, abs=1.5)
    assert row[-1] == pytest.approx(248 * (1 + np.sqrt(0.9)) / 2, abs=1.5)


def test_wrong_images_are_refused():
    run = _preprocessor()
    image = _picture(32)
    with pytest.raises(ValueError, match=r"images of \['a'\]; the policy sees \['a', 'b'\]"):
        run((image,))
    with pytest.raises(ValueError, match='image of b: float32'):
        run((image, image.astype(np.float32)))
    with pytest.raises(ValueError, match='image of a'):
        run((image[..., 0], image))


@pytest.mark.parametrize('turned', [{}, {'rotate_degrees': 180, 'mirror': True}])
def test_a_wide_camera_is_no_square_one(turned):
    """640 x 480 squeezed to the policy's square was up to 37 mm a step off; a centre crop 0."""
    square = _picture(48)
    wide = cv2.copyMakeBorder(square, 0, 0, 8, 8, cv2.BORDER_REFLECT)
    with pytest.raises(ImageError, match='64 x 48 px') as caught:
        _preprocessor(**turned)((wide, wide))
    assert caught.value.code == 'bad_aspect'
    for jpeg in (None, 95):
        seen = _preprocessor(fit='crop', jpeg=jpeg, **turned)((wide, wide))
        np.testing.assert_array_equal(seen, _preprocessor(jpeg=jpeg, **turned)((square, square)))
    tall = cv2.copyMakeBorder(wide, 8, 8, 0, 0, cv2.BORDER_CONSTANT)
    seen = _preprocessor(fit='pad', **turned)((wide, wide))
    np.testing.assert_array_equal(seen, _preprocessor(**turned)((tall, tall)))
