"""Our preprocessing against TensorFlow's, step by step.

The golden arrays come from test/tools/make_preprocessing_golden.py.
"""

from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.contract import Action, Camera, Normalisation, Preprocessing, Proprio
from lightvla_ros.policy.actions import chunk_from_policy, osc_from_chunk, unnormalise
from lightvla_ros.policy.preprocessor import Preprocessor
from lightvla_ros.policy.state import normalise_proprio

GOLDEN = dict(np.load(Path(__file__).parents[1] / 'data' / 'preprocessing_golden.npz'))
ROWS = 4  # the golden images hold every fourth row
CAMERAS = ('third_person', 'wrist')  # 256 x 256, and 120 x 160 for another scale and shape
DINO = Normalisation((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375))
SIGLIP = Normalisation((0.5,) * 3, (0.5,) * 3)


def recipe(crop_area=0.9, jpeg_quality=95):
    return Preprocessing(jpeg_quality, crop_area, (DINO, SIGLIP))


def camera(name, size=(224, 224)):
    raw = GOLDEN[f'{name}_raw']
    return Camera(name, size, 0, mirror=True, aspect=raw.shape[1] / raw.shape[0])


def upright(name):
    """Return the true view, as a camera driver publishes it: LIBERO renders bottom row first."""
    return GOLDEN[f'{name}_raw'][::-1]


def view(name, preprocessing, size=(224, 224)):
    each = camera(name, size)
    return Preprocessor((each,), preprocessing).policy_view(upright(name), each)


def difference(ours, name):
    """Return the largest difference in grey levels, and the share of numbers that differ."""
    error = np.abs(ours[::ROWS].astype(int) - GOLDEN[name].astype(int))
    return error.max(), (error > 0).mean()


@pytest.mark.parametrize('name', CAMERAS)
def test_turning_and_jpeg_are_exact(name):
    raw = GOLDEN[f'{name}_raw']
    unchanged = view(name, recipe(crop_area=1.0, jpeg_quality=None), raw.shape[:2])
    assert np.array_equal(unchanged, raw[::-1, ::-1])  # OpenVLA's rotation by 180 degrees
    jpeg = view(name, recipe(crop_area=1.0), raw.shape[:2])
    assert difference(jpeg, f'{name}_jpeg') == (0, 0)


@pytest.mark.parametrize('name', CAMERAS)
def test_resize_is_within_one_grey_level(name):
    worst, share = difference(view(name, recipe(crop_area=1.0)), f'{name}_resized')
    assert worst <= 1  # measured: 1, in 1 of 19,000 numbers, where a sum rounds the other way
    assert share < 3e-4


@pytest.mark.parametrize('name', CAMERAS)
def test_crop_is_within_one_grey_level(name):
    worst, share = difference(view(name, recipe()), f'{name}_cropped')
    assert worst <= 1  # measured: 1, in 1 of 10,000 numbers
    assert share < 3e-4


def test_normalisation_channel_and_camera_order():
    preprocess = Preprocessor(tuple(map(camera, CAMERAS)), recipe())
    ours = preprocess({name: upright(name) for name in CAMERAS})
    for index, name in enumerate(CAMERAS):
        error = np.abs(ours[index][:, ::16, ::16] - GOLDEN[f'{name}_normalised'])
        assert error.max() < 1e-5 + 1 / 255 / 0.22  # a grey level of the steps before
        assert np.quantile(error, 0.99) < 2e-6  # measured: 5e-7 where the grey levels agree


def test_proprio_and_unnormalisation_are_exact():
    q01, q99 = GOLDEN['q01'], GOLDEN['q99']
    layout = ('ee_position', 'ee_axis_angle', 'gripper_qpos')
    spec = Proprio(layout, tuple(q01), tuple(q99))
    for state, wanted in zip(GOLDEN['state'], GOLDEN['proprio'], strict=True):
        ours = normalise_proprio(state, spec)[0]
        assert np.array_equal(ours, wanted.astype(np.float32))
    action = Action(
        chunk_length=16,
        control_period=0.05,
        translation_scale=0.05,
        rotation_scale=0.5,
        q01=tuple(q01[:7]),
        q99=tuple(q99[:7]),
        mask=(True,) * 6 + (False,),
        gripper_closed=0.0,
        gripper_open=1.0,
        reference='measured_pose',
        slice='training',
    )
    plain = unnormalise(GOLDEN['action'], action)
    assert np.abs(plain - GOLDEN['action_unnormalised']).max() < 1e-15
    # The simulator gets -1 to open and 1 to close. Upstream takes the sign; an opening between the
    # two goes through ours unchanged, and robosuite's gripper takes the sign of it.
    sent = osc_from_chunk(chunk_from_policy(GOLDEN['action'], action))[:, 6]
    assert np.array_equal(np.sign(sent), GOLDEN['gripper_command'])
