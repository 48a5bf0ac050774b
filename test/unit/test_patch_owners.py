"""What patches lie on: roles, the policy's view of a segmentation, and shares."""

from dataclasses import replace

import numpy as np
import pytest

from lightvla_ros.contract import load_manifest
from lightvla_ros.policy.preprocessor import Preprocessor
from lightvla_ros.sim.patch_owners import (
    COVERED,
    ROLES,
    Shares,
    in_policy_view,
    owners_of_patches,
    roles_of,
    sum_of,
)

NAMES = ('background', 'robot', 'gripper', 'milk_1', 'basket_1', 'butter_1')


def named(roles):
    return [ROLES[role] for role in roles]


def test_roles_follow_the_goal():
    goal = [['in', 'milk_1', 'basket_1_contain_region']]
    wanted = ['background', 'robot', 'gripper', 'object', 'target', 'other']
    assert named(roles_of(NAMES, goal)) == wanted
    goal = [['in', 'butter_1', 'basket_1_contain_region']]
    wanted = ['background', 'robot', 'gripper', 'other', 'target', 'object']
    assert named(roles_of(NAMES, goal)) == wanted


def test_roles_of_other_goals():
    bowls = ('akita_black_bowl_1', 'akita_black_bowl_2', 'plate_1', 'flat_stove_1')
    goal = [['on', 'akita_black_bowl_2', 'plate_1']]
    assert named(roles_of(bowls, goal)) == ['other', 'object', 'target', 'other']
    # a predicate of one thing; two objects with one target
    assert named(roles_of(bowls, [['turnon', 'flat_stove_1']])) == ['other'] * 3 + ['object']
    both = [['on', f'akita_black_bowl_{number}', 'plate_1'] for number in (1, 2)]
    assert named(roles_of(bowls, both)) == ['object', 'object', 'target', 'other']


@pytest.mark.parametrize('size', [128, 256])
@pytest.mark.parametrize('crop_area', [1.0, 0.9])
@pytest.mark.parametrize(('rotate', 'mirror'), [(0, False), (0, True), (180, False), (180, True)])
def test_view_of_a_segmentation_is_that_of_the_image(policy_dir, size, crop_area, rotate, mirror):
    manifest = load_manifest(policy_dir)
    camera = replace(manifest.cameras[0], rotate_degrees=rotate, mirror=mirror)
    recipe = replace(manifest.preprocessing, crop_area=crop_area, jpeg_quality=None)
    blocks = np.random.default_rng(0).integers(0, 6, (8, 8)).astype(np.uint8)
    shown = blocks.repeat(size // 8, 0).repeat(size // 8, 1)
    image = np.repeat(40 * shown[..., None], 3, axis=2)
    seen = Preprocessor((camera,), recipe).policy_view(image, camera)[..., 0] / 40
    found = in_policy_view(shown, camera, crop_area)
    assert found.shape == camera.size
    # they differ where pixels are mixed: along the edges of the blocks
    assert (np.abs(seen - found) < 0.5).mean() > 0.93
    inside = np.abs(seen - np.rint(seen)) < 0.02
    assert (np.rint(seen)[inside] == found[inside]).mean() > 0.99


def test_patch_belongs_to_what_covers_most_of_it_and_a_quarter():
    view = np.zeros((8, 12), np.uint8)
    view[:2, :2] = 3  # a quarter of the first patch
    view[:3, 4:5] = 3  # less than a quarter of the second
    view[:2, 8:10], view[2:4, 8:11] = 1, 2  # of two things the larger
    view[4:, :4] = 5
    assert owners_of_patches(view, 4).tolist() == [3, 0, 2, 5, 0, 0]


def test_rule_is_that_of_the_alignment_in_training_but_for_the_share(monkeypatch):
    torch = pytest.importorskip('torch')
    from lightvla_ros.train import alignment

    monkeypatch.setattr(alignment, 'COVERED', COVERED)
    rng = np.random.default_rng(0)
    view = rng.integers(0, 5, (16, 16)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    view[rng.random(view.shape) < 0.6] = 0
    labels = alignment.patch_labels(torch.from_numpy(view)[None, None], 8, 5)
    assert labels[0].tolist() == owners_of_patches(view, 8).tolist()


def test_shares_of_kept_and_of_all_patches():
    roles = np.array([0, 0, 1, 2, 3, 5, 5, 5], np.uint8)
    first = Shares.of_frame(roles, np.array([1, 1, 0, 0, 0, 1, 0, 0], bool))
    second = Shares.of_frame(roles, np.array([0, 0, 1, 0, 0, 0, 0, 0], bool))
    both = first + second
    assert both.frames == 2
    assert both.kept_share == {
        'object': 0.5,
        'target': 0.25,
        'gripper': 0.0,
        'robot': 0.0,
        'other': 0.0,
        'background': 0.25,
    }
    assert both.kept_on_task == 0.75
    assert both.patches_on_task == 0.5
    assert sum_of([first, second]).kept.tolist() == both.kept.tolist()


def test_nothing_kept_is_no_share():
    assert sum_of([]).kept_on_task == 0
    nothing = Shares.of_frame(np.zeros(4, np.uint8), np.zeros(4, bool))
    assert (nothing.kept_on_task, nothing.patches_on_task) == (0, 1)
