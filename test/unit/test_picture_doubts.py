"""Frozen, blank and equal pictures, and those of another aspect than the policy knows."""

from array import array
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lightvla_ros.contract import Camera, load_manifest
from lightvla_ros.errors import ImageError
from lightvla_ros.policy.golden import random_inputs
from lightvla_ros.policy.preprocessor import check_aspect, fitted
from lightvla_ros.runtime.picture_doubts import (
    FrozenPictures,
    check_contrast,
    check_unlike,
    contrast,
)

RANDOM = np.random.default_rng(0)
SECOND = 10**9


def noise(mean, spread, size=(64, 64, 3)):
    return np.clip(np.rint(RANDOM.normal(mean, spread, size)), 0, 255).astype(np.uint8)


def test_frozen_since_the_first_of_equal_pictures():
    frozen = FrozenPictures()
    first, other = (array('B', noise(100, 30).tobytes()) for _ in range(2))
    assert frozen.span('wrist', first, SECOND) == 0
    assert frozen.span('wrist', array('B', first), 2 * SECOND) == SECOND
    assert frozen.span('third_person', first, 2 * SECOND) == 0, 'each camera by itself'
    assert frozen.span('wrist', array('B', first), 4 * SECOND) == 3 * SECOND
    assert frozen.span('wrist', other, 5 * SECOND) == 0
    assert frozen.span('wrist', array('B', other), 5 * SECOND) == 0, 'a stamp that is not new'
    assert frozen.span('wrist', array('B', other), 3 * SECOND) == 0, 'a clock set back'
    assert frozen.span('wrist', array('B', other), 4 * SECOND) == SECOND
    frozen.clear()
    assert frozen.span('wrist', array('B', other), 6 * SECOND) == 0


@pytest.mark.parametrize('colour', [(0, 0, 0), (255, 255, 255), (0, 0, 255), (90, 200, 3)])
def test_one_colour_is_blank(colour):
    image = np.full((64, 64, 3), colour, np.uint8)
    with pytest.raises(ImageError, match=r'contrast 0.00, min_contrast 0.50') as caught:
        check_contrast(image, 0.5)
    assert caught.value.code == 'camera_blank'
    check_contrast(image, 0.0)


def test_a_dark_room_with_its_noise_is_not_blank():
    dark = noise(3, 1)
    check_contrast(dark, 0.5)
    check_contrast(cv2.imdecode(cv2.imencode('.jpg', dark)[1], cv2.IMREAD_COLOR), 0.5)


def test_pictures_of_libero_are_far_from_blank(bundled_policy):
    with np.load(bundled_policy / 'golden.npz') as golden:
        found = [contrast(image) for images in golden['images'] for image in images]
    assert min(found) > 20  # the least is 34.5


def test_equal_cameras_are_named():
    first, second = noise(100, 30), noise(100, 30)
    check_unlike('wrist', second, {'third_person': first})
    with pytest.raises(ImageError, match='wrist and third_person show the same picture') as caught:
        check_unlike('wrist', first.copy(), {'third_person': first})
    assert caught.value.code == 'cameras_equal'


def camera(aspect=1.0, fit='refuse'):
    return Camera('wrist', (32, 32), 0, False, aspect, fit)


def test_another_aspect_is_refused_with_the_numbers_and_the_cure():
    with pytest.raises(ImageError) as caught:
        check_aspect(480, 640, camera())
    assert caught.value.code == 'bad_aspect'
    assert '640 x 480 px, but trained on width / height = 1' in str(caught.value)
    assert 'fit in manifest.json to crop, pad or stretch' in str(caught.value)


@pytest.mark.parametrize(
    ('height', 'width', 'aspect'),
    [(128, 128, 1.0), (480, 640, 4 / 3), (480, 640, 1.333), (200, 201, 1.0)],
)
def test_one_per_cent_of_aspect_is_nothing(height, width, aspect):
    image = noise(100, 30, (height, width, 3))
    assert fitted(image, camera(aspect)) is image


@pytest.mark.parametrize(
    ('shape', 'aspect', 'box'),
    [
        ((48, 64), 1.0, np.s_[:, 8:56]),
        ((64, 48), 1.0, np.s_[8:56, :]),
        ((48, 48), 4 / 3, np.s_[6:42, :]),
        ((48, 48), 3 / 4, np.s_[:, 6:42]),
    ],
)
def test_crop_takes_the_centre_and_pad_adds_black(shape, aspect, box):
    image = noise(100, 30, (*shape, 3))
    cut = fitted(image, camera(aspect, 'crop'))
    np.testing.assert_array_equal(cut, image[box])
    assert fitted(image, camera(aspect, 'stretch')) is image
    inverse = camera(shape[1] / shape[0], 'pad')
    padded = fitted(cut, inverse)
    assert padded.shape == image.shape
    np.testing.assert_array_equal(padded[box], cut)
    assert padded.sum() == cut.sum(), 'all else is black'


@pytest.mark.parametrize('aspect', [1.0, 4 / 3, 9 / 16])
def test_golden_pictures_have_the_aspect_that_the_policy_knows(bundled_policy, aspect):
    manifest = load_manifest(bundled_policy)
    cameras = tuple(replace(each, aspect=aspect) for each in manifest.cameras)
    images = random_inputs(replace(manifest, cameras=cameras), 1, 0)['images']
    assert images.shape[2:] == (160, round(160 * aspect), 3)
    for each in cameras:
        check_aspect(*images.shape[2:4], each)
