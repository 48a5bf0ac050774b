"""Calibrated cameras, and the way that an arm is expected to go."""

import dataclasses

import numpy as np
import pytest

from lightvla_ros.errors import ConfigError
from lightvla_ros.files import resource
from lightvla_ros.policy.actions import Chunk
from lightvla_ros.policy.calibration import Calibration, load_calibrations
from lightvla_ros.policy.poses import Pose
from lightvla_ros.runtime.expected_path import expected_path

# 2 m above the origin, looking down; x of the picture is x of the base, y of the picture is -y
ABOVE = Calibration(
    width=200,
    height=100,
    matrix=(100.0, 0, 100, 0, 100, 50, 0, 0, 1),
    position=(0.0, 0.0, 2.0),
    quaternion=(1.0, 0.0, 0.0, 0.0),
)


def test_points_find_their_places():
    places = ABOVE.places(np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0.5, 1], [0, 0, 3.0]]))
    assert places[:4] == [
        pytest.approx((0.5, 0.5)),
        pytest.approx((0.75, 0.5)),
        pytest.approx((0.5, 0.25)),
        pytest.approx((0.5, 0.0)),
    ]
    assert places[4] is None, 'behind the camera'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'width': 0}, 'width and height are 0 and 100'),
        ({'matrix': (1.0,)}, 'matrix must be 9 finite numbers'),
        ({'matrix': (0.0,) * 9}, 'focal lengths'),
        ({'position': (0.0, 0.0, float('nan'))}, 'position must be 3 finite numbers'),
        ({'quaternion': (1.0, 1.0, 0.0, 0.0)}, 'is not a unit quaternion'),
    ],
)
def test_fault_impossible_values(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(ABOVE, **change)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[]', 'it must give each camera a calibration'),
        ('wrist: 3', 'wrist: a mapping is needed, not 3'),
        ('wrist: {}', 'wrist.width is missing'),
        ('wrist: {size: 3}', 'wrist.size is unknown'),
        (
            'wrist: {width: 1, height: 1, matrix: [], position: [], quaternion: []}',
            'wrist: matrix must be 9 finite numbers',
        ),
    ],
)
def test_fault_files(tmp_path, text, message):
    path = tmp_path / 'cameras.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_calibrations(path)
    assert str(raised.value).startswith(f'{path}: {message}')


@pytest.mark.parametrize('scene', ['floor', 'table'])
def test_files_of_the_package(scene):
    found = load_calibrations(resource(f'config/calibration/libero_{scene}.yaml'))
    # the middle of the workspace is in the middle third of the picture
    ((x, y),) = found['third_person'].places(np.array([[0, 0, 0.15 if scene == 'floor' else 1.0]]))
    assert 0.33 < x < 0.67
    assert 0.33 < y < 0.67


def test_a_spring_covers_a_part_of_its_steps():
    chunk = Chunk(
        translations=np.tile([0.01, 0, 0], (4, 1)),
        rotations=np.tile([0, 0, 0, 1.0], (4, 1)),
        gripper=np.ones(4),
        period=0.05,
    )
    start = Pose(np.array([0.5, 0, 0.3]), np.array([1.0, 0, 0, 0]))
    whole = expected_path(start, chunk, 'displacement')
    assert len(whole) == 5
    assert whole[-1].position == pytest.approx([0.54, 0, 0.3])
    assert expected_path(start, chunk, 'spring')[-1].position[0] == pytest.approx(0.5104)
