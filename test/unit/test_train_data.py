"""From demonstrations to what a model takes: views, labels, words, order."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
import train_rig

from lightvla_ros.contract import Camera, Normalisation, Preprocessing, Prompt
from lightvla_ros.errors import TrainError
from lightvla_ros.policy.preprocessor import Preprocessor
from lightvla_ros.train.alignment import NO_LABEL, Aligner, patch_labels, patch_places
from lightvla_ros.train.config_sources import DataConfig, DataSource
from lightvla_ros.train.data import FrameStore, Sampler, load_data, step_seed
from lightvla_ros.train.measurements import PLACES, places_of
from lightvla_ros.train.object_words import IGNORED, object_classes
from lightvla_ros.train.prompts import PromptTable, word_ids
from lightvla_ros.train.views import Viewer, change_colours, saturate, shift_hue
from lightvla_ros.vla import pruner
from lightvla_ros.vla.word_tokenizer import word_tokenizer

TOWERS = (
    Normalisation((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)),
    Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
)
SIDE = 32


def recipe(crop_area):
    return Preprocessing(jpeg_quality=None, crop_area=crop_area, normalisation=TOWERS)


def cameras(side=SIDE, **turns):
    return tuple(
        Camera(name, (side, side), **{'rotate_degrees': 0, 'mirror': False} | turns)
        for name in ('a', 'b')
    )


def viewer(crop_area, colour=False):
    return Viewer(cameras(), recipe(crop_area), colour)


def by_camera(pair):
    return dict(zip([camera.name for camera in cameras()], pair, strict=True))


def preprocessed(images, crop_area):
    run = Preprocessor(cameras(), recipe(crop_area))
    return np.stack([run(by_camera(pair)) for pair in images])


def test_evaluation_sees_what_the_robot_sees():
    images = train_rig.frames(4, SIDE).images
    seen = viewer(1.0, True).evaluation(images).pixels.numpy()
    np.testing.assert_allclose(seen, preprocessed(images, 1.0), atol=1e-6)


def test_and_with_a_crop_but_for_one_grey_value():
    images = train_rig.frames(4, SIDE).images
    seen = viewer(0.9, True).evaluation(images).pixels.numpy()
    grey = np.abs(seen - preprocessed(images, 0.9))[:, :, 3:] * 255 / 2
    assert grey.max() < 1.01
    assert (grey > 0.01).mean() < 0.01


def test_training_without_changes_is_evaluation():
    images = train_rig.frames(4, SIDE).images
    plain = viewer(1.0)
    assert torch.equal(plain.training(images).pixels, plain.evaluation(images).pixels)


def test_each_image_is_changed_by_itself_and_labels_follow_the_crop():
    images = np.zeros((2, 2, SIDE, SIDE, 3), np.uint8)
    images[:, :, 8:20, 8:20] = 200
    classes = (images[..., 0] > 0).astype(np.uint8)
    torch.manual_seed(0)
    views = viewer(0.9).training(images, classes)
    bright = views.pixels[:, :, 3] > 100 / 127.5 - 1
    assert not torch.equal(bright[0, 0], bright[0, 1])
    assert (bright == views.instances.bool()).float().mean() > 0.95


def test_a_policy_that_turns_images_is_trained_on_turned_ones():
    made = train_rig.frames(2, SIDE)
    turning = cameras(16, rotate_degrees=180, mirror=True)
    shape = replace(recipe(1.0), jpeg_quality=95)
    views = Viewer(turning, shape, False).training(made.images, made.segmentation)
    robot = Preprocessor(turning, shape)
    wanted = np.stack([robot(by_camera(pair)) for pair in made.images])
    np.testing.assert_allclose(views.pixels.numpy(), wanted, atol=1e-6)
    flipped = made.segmentation[:, :, ::-1]  # both turns together are up and down
    np.testing.assert_array_equal(views.instances.numpy(), flipped[:, :, 1::2, 1::2])


@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
def test_wide_demonstrations_are_seen_as_the_robot_sees_them(fit):
    """What pixels show goes where the pixels go."""
    images = np.zeros((1, 2, 24, 32, 3), np.uint8)
    images[:, :, 6:18, 8:24] = 255
    shown = images[..., 0] // 255
    square = cameras(24, fit=fit)
    views = Viewer(square, recipe(1.0), False).training(images, shown)
    wanted = Preprocessor(square, recipe(1.0))(by_camera(images[0]))
    np.testing.assert_allclose(views.pixels.numpy()[0], wanted, atol=1e-6)
    bright = wanted[:, 3] > 0
    assert (bright == (views.instances.numpy()[0] == 1)).mean() > 0.95


def test_colours_are_those_of_hsv():
    torch.manual_seed(1)
    images = torch.rand(2, 3, 4, 4)
    turn, factor = torch.tensor([0.04, -0.03]), torch.tensor([1.2, 0.8])
    shape = (2, 1, 1, 1)
    found = shift_hue(saturate(images, factor.view(shape)), turn.view(shape))
    for index in range(2):
        for place in np.ndindex(4, 4):
            h, s, v = colorsys.rgb_to_hsv(*images[index, :, *place].tolist())
            s = min(1.0, s * float(factor[index]))
            wanted = colorsys.hsv_to_rgb((h + float(turn[index])) % 1, s, v)
            assert found[index, :, *place].tolist() == pytest.approx(wanted, abs=1e-5)
    changed = change_colours(images)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert not torch.equal(changed, images)


def test_a_grey_image_has_no_hue_to_turn():
    grey = torch.full((1, 3, 2, 2), 0.4)
    shift = torch.full((1, 1, 1, 1), 0.05)
    assert torch.allclose(shift_hue(grey, shift), grey)


def test_a_patch_shows_the_object_that_covers_a_tenth():
    classes = torch.zeros(1, 1, 8, 16, dtype=torch.uint8)
    classes[..., 0, :7] = 2  # 7 of 64 pixels of the first patch
    classes[..., :2, 8:11] = 1  # 6 of 64 of the second
    assert patch_labels(classes, 8, 3).tolist() == [[2, 0]]
    classes[..., :, 8:12] = 1
    classes[..., :, 12:] = IGNORED
    classes[..., 0, 11] = IGNORED
    assert patch_labels(classes, 8, 3).tolist() == [[2, NO_LABEL]]


def test_cameras_and_rows_of_patches_stand_in_the_models_order():
    classes = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    classes[0, 0, 4:, :4] = 1
    classes[0, 1, :4, 4:] = 2
    assert patch_labels(classes, 4, 3).tolist() == [[0, 0, 1, 0, 0, 2, 0, 0]]


def test_patches_know_where_what_they_show_is_centred():
    instances = torch.zeros(1, 2, 8, 12, dtype=torch.uint8)
    instances[0, 0, 2:6, 0:8] = 3  # centred at row 4, column 4
    instances[0, 1, 0:4, 8:12] = 3  # another image: the same thing elsewhere, a whole patch
    instances[0, 1, 4:8, 0:4] = IGNORED
    places, found = patch_places(instances, 4)
    assert found.tolist() == [[True, True, False] * 2 + [False, False, True] + [False] * 3]
    # right and down from the image's centre, 4 at its border
    expected = torch.tensor([4 * (4 / 6 - 1), 0.0])
    torch.testing.assert_close(places[0, [0, 1, 3, 4]], expected.expand(4, 2))
    torch.testing.assert_close(places[0, 8], torch.tensor([4 * (10 / 6 - 1), 4 * (2 / 4 - 1)]))


def test_where_is_read_along_two_directions_of_each_camera():
    aligner = Aligner([[3], [4]], torch.tensor([0.9, 0.1]), 16, 2)
    places = torch.tensor([[[0.5, -1.0], [3.0, 0.0], [2.0, 1.0], [-1.0, 0.0]]])
    found = torch.tensor([[True, True, True, False]])
    labels = torch.tensor([[0, 0, 0, 1]])
    third, wrist = aligner.directions[:, :2], aligner.directions[:, 2:]
    right = torch.cat([places[:, :2] @ third.T, places[:, 2:] @ wrist.T], 1)
    assert float(aligner.where(right, places, found, labels)) == pytest.approx(0, abs=1e-5)
    wrong = aligner.where(0 * right, places, found, labels)
    assert float(wrong) == pytest.approx((1.5 + 3 + 3) / 3)
    # what is seldom seen weighs three times as much, by the root of 0.9 / 0.1
    rare = aligner.where(0 * right, places, found, torch.tensor([[1, 0, 0, 1]]))
    assert float(rare) == pytest.approx((3 * 1.5 + 3 + 3) / 5)
    unlabelled = aligner.where(0 * right, places, found, torch.tensor([[NO_LABEL, 0, 0, 1]]))
    assert float(unlabelled) == pytest.approx(3)
    # a token that takes itself for one of the other camera's is wrong about both
    swapped = torch.cat([places[:, :2] @ wrist.T, places[:, 2:] @ third.T], 1)
    error = aligner.where(swapped, places, found, labels)
    assert float(error) == pytest.approx(2 * (1.5 + 3 + 3) / 3)
    none = torch.zeros_like(found)
    assert float(aligner.where(right, places, none, labels)) == 0


def test_names_of_the_simulator_become_words():
    classes = object_classes(
        [
            ['background', 'plate_1', 'cookies_1', 'odd'],
            ['background', 'gripper0', 'plate_2', 'robot'],
        ],
        {'odd': 'basket'},
    )
    assert classes.words == ('background', 'basket', 'cookie box', 'plate', 'robot')
    instances = ('background', 'cookies_1', 'gripper0', 'odd', 'plate_1', 'plate_2', 'robot')
    assert classes.instances == instances
    assert classes.tables[0][:5].tolist() == [0, 4, 1, 3, IGNORED]
    assert classes.tables[1][:4].tolist() == [0, 2, 5, 6]
    assert classes.of_instance[:8].tolist() == [0, 2, 4, 1, 3, 3, 0, IGNORED]  # the arm: background
    assert classes.unknown == ()
    named = classes.named_in('put it on the plate in the cookie box, robot')
    assert named.tolist() == [False, False, False, True, False]  # 'box,' is another word
    assert object_classes([['background', 'odd']]).unknown == ('odd',)


def test_patches_are_sorted_by_what_the_instruction_names():
    classes = object_classes([train_rig.NAMES])
    bowl, plate = classes.words.index('black bowl'), classes.words.index('plate')
    robot = classes.words.index('robot')
    labels = torch.tensor([[0, bowl, plate, robot, NO_LABEL]])
    found = places_of(labels, np.array([0]), ['put it on the plate'], classes)
    wanted = ['background', 'other', 'named', 'robot', 'other']
    assert [PLACES[index] for index in found[0]] == wanted


def test_the_alignment_is_equation_1():
    torch.manual_seed(0)
    patches, embeddings = torch.randn(2, 5, 16), torch.randn(9, 16)
    aligner = Aligner([[3], [4, 6]], torch.tensor([0.9, 0.1]), 16, 1)
    words = torch.stack([embeddings[3], (embeddings[4] + embeddings[6]) / 2])
    wanted = pruner.rms(patches) @ pruner.rms(words).T / 4
    assert torch.allclose(aligner.logits(patches, embeddings), wanted, atol=1e-6)
    weights = aligner.weight
    assert float(weights[1] / weights[0]) == pytest.approx(3.0)
    labels = torch.tensor([[0, 1, NO_LABEL, 0, 1]] * 2)
    loss = aligner.loss(wanted, labels)
    logs = wanted.log_softmax(-1)
    by_hand = -sum(
        weights[k] * logs[i, j, k] for i in range(2) for j, k in ((0, 0), (1, 1), (3, 0), (4, 1))
    )
    assert float(loss) == pytest.approx(float(by_hand) / 10, rel=1e-5)


def test_prompts_are_padded_to_the_batchs_longest(tmp_path):
    path = tmp_path / 'tokenizer.json'
    word_tokenizer().save(str(path))
    spec = Prompt(
        'In: What action should the robot take to {instruction}?\nOut:', True, '', (4,), 34
    )
    texts = ['pick up the milk', 'pick up the milk and place it in the basket']
    table = PromptTable([(text,) for text in texts], spec, path)
    ids, mask = table(np.array([0, 1, 0]))
    assert mask[1].all()
    assert mask[0].sum() == mask.shape[1] - 6
    assert ids.shape == mask.shape
    assert table(np.array([0]))[1].all()
    with pytest.raises(TrainError, match="'open the window' has words unknown"):
        PromptTable([('open the window',)], spec, path)
    with pytest.raises(TrainError, match="'window' is unknown"):
        word_ids(['window'], path, True)


def test_an_epoch_shows_each_frame_as_often_as_its_weight_says():
    groups = [np.arange(10), np.arange(10, 20)]
    sampler = Sampler(groups, [2.0, 0.5], batch=5, seed=3)
    assert sampler.epoch_frames == 25
    shown = np.bincount(np.concatenate([sampler.rows(step) for step in range(5)]), minlength=20)
    assert (shown[:10] == 2).all()
    assert shown[10:].sum() == 5
    following = np.concatenate([sampler.rows(step) for step in range(5, 10)])
    assert not np.array_equal(np.sort(following)[-5:], np.flatnonzero(shown[10:]) + 10)


def test_the_order_follows_from_seed_and_step_alone():
    def rows(step, seed=0):
        return Sampler([np.arange(7)], [1.0], 4, seed).rows(step).tolist()

    walked = Sampler([np.arange(7)], [1.0], 4, 0)
    assert [walked.rows(step).tolist() for step in range(5)] == [rows(step) for step in range(5)]
    assert rows(0) != rows(0, seed=1)
    assert len({step_seed(0, step, rank) for step in range(50) for rank in range(2)}) == 100


def test_whole_episodes_are_held_out_and_sources_keep_their_weights(tmp_path):
    made = train_rig.frames(24, SIDE)
    paths = (
        DataSource(str(train_rig.write_file(tmp_path / 'a', made))),
        DataSource(str(train_rig.write_file(tmp_path / 'b', made)), 2.0),
    )
    data = load_data(DataConfig(paths, held_out=0.3), {}, segmentation=True, progress=False)
    assert len(data.store) == 48
    assert data.weights == (1.0, 2.0)
    rows = np.sort(np.concatenate([*data.training, data.held_out]))
    assert rows.tolist() == list(range(48))
    assert len(data.held_out) % 4 == 0  # frames of an episode
    some = data.store.gather(np.array([5, 40]), instances=True)
    assert some.images.shape == (2, 2, SIDE, SIDE, 3)
    names = {data.store.classes.instances[index] for index in np.unique(some.instances)}
    assert len(names) > 1
    assert names <= set(train_rig.NAMES)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(TrainError, match='different sizes'):
        FrameStore([train_rig.frames(4, 32), train_rig.frames(4, 16)])
