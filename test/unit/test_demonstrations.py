"""Demonstrations come back as the right pairs, whoever wrote the file."""

import ctypes
import fcntl
import json
import time
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pytest

from lightvla_ros.contract import Action, Proprio
from lightvla_ros.demonstrations import reading_process, writer
from lightvla_ros.demonstrations.frames import NO_SEGMENTATION
from lightvla_ros.demonstrations.mapping import read_mapping
from lightvla_ros.demonstrations.pairs import cut_chunks, moving_steps
from lightvla_ros.demonstrations.reader import read_demonstrations
from lightvla_ros.demonstrations.statistics import (
    MIN_SPREAD,
    normalise_actions,
    normalise_states,
    statistics_of,
)
from lightvla_ros.errors import DamagedFileError, DemonstrationError
from lightvla_ros.policy.actions import unnormalise
from lightvla_ros.policy.state import normalise_proprio

MILK = 'pick_up_the_milk_and_place_it_in_the_basket'
STEPS = 12
LAST_PAIR = STEPS - 8  # in a file whose observations come before their actions
WRIST = 100  # added to the wrist camera's pixels
LABEL = 50  # added to the labels of our own files


def numbered_actions(steps=STEPS):
    """Action j says j in its first number; the gripper closes half way."""
    actions = np.zeros((steps, 7))
    actions[:, 0] = np.arange(steps)
    actions[0, 1] = 0.5  # else step 0 would be a no-op
    actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1, 1)
    return actions


def pictures(numbers, size, offset=0):
    """Bottom-up images: the top-left corner of the upright image holds the number."""
    images = np.zeros((len(numbers), size, size, 3), np.uint8)
    images[:, -1, 0, 0] = np.asarray(numbers) + offset
    return images


def write_episode(data, name, observed, actions, size, joints_at=None):
    """One episode as both scripts lay it out; ``observed`` is the number each row shows."""
    steps = len(actions)
    states = np.random.default_rng(0).normal(size=(steps, 45))
    states[:, 1:8] = np.arange(steps)[:, None] * 0.01  # the arm, before each action
    proprio = np.arange(steps * 8).reshape(steps, 8) / 100
    demo = data.create_group(name)
    demo['actions'], demo['states'] = actions, states
    demo['robot_states'] = np.zeros((steps, 9))
    demo['rewards'] = demo['dones'] = np.eye(1, steps, steps - 1, dtype=np.uint8)[0]
    obs = demo.create_group('obs')
    obs['agentview_rgb'] = pictures(observed, size)
    obs['eye_in_hand_rgb'] = pictures(observed, size, WRIST)
    joints_at = observed if joints_at is None else np.asarray(joints_at)
    obs['joint_states'] = np.repeat(joints_at[:, None] * 0.01 - 0.0004, 7, axis=1)
    obs['ee_states'], obs['gripper_states'] = proprio[:, :6], proprio[:, 6:]
    obs['ee_pos'], obs['ee_ori'] = proprio[:, :3], proprio[:, 3:6]
    return demo


def write_official(folder, size=128, demos=1, actions=None, name=f'{MILK}_demo.hdf5'):
    """As LIBERO's create_dataset.py: row j shows the world after action j, before j + 1."""
    actions = numbered_actions() if actions is None else actions
    path = folder / name
    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        for number in range(demos):
            observed = np.arange(len(actions)) + 1
            demo = write_episode(data, f'demo_{number}', observed, actions, size)
            demo.attrs['model_file'] = '<mujoco/>'
            demo.attrs['init_state'] = demo['states'][0]
            demo.attrs['num_samples'] = len(actions)
        data.attrs['env_name'] = 'Libero_Floor_Manipulation'
        data.attrs['problem_info'] = json.dumps(
            {'language_instruction': 'pick the milk and place it in the basket'}
        )
        data.attrs['macros_image_convention'] = 'opengl'
        data.attrs['bddl_file_name'] = f'bddl_files/libero_object/{MILK}.bddl'
        data.attrs['bddl_file_content'] = '(define)'
        data.attrs['env_args'] = '{}'
        data.attrs['num_demos'] = demos
        data.attrs['total'] = demos * len(actions)
    return path


def write_regenerated(folder, size=256, name=f'{MILK}_demo.hdf5'):
    """As OpenVLA's regenerate_libero_dataset.py: row j shows what action j answers."""
    path = folder / name
    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        write_episode(data, 'demo_0', np.arange(STEPS), numbered_actions(), size)
    return path


def own_task(folder, names=('background', 'milk', 'basket'), bddl=MILK):
    (folder / f'{bddl}.bddl').write_text('(define)')
    return writer.Task(
        suite='libero_object',
        index=7,
        instruction='pick up the milk and place it in the basket',
        bddl=folder / f'{bddl}.bddl',
        render_setting='cheap',
        segmentation_names=names,
        camera_size=16,
    )


def own_episode(**changes):
    """Rows 2, 5 and 11 rendered; labels that differ from the actions executed."""
    rows = np.array([2, 5, 11])
    upright = {
        'third_person': pictures(rows, 16)[:, ::-1],
        'wrist': pictures(rows, 16, WRIST)[:, ::-1],
    }
    masks = np.zeros((3, 16, 16), np.uint8)
    masks[:, 0, 0] = [1, 2, 0]
    chunks = np.zeros((3, 8, 7), np.float32)
    chunks[..., 0] = LABEL + rows[:, None] + np.arange(8)
    fields = {
        'seed': 31,
        'instruction': 'pick up the ketchup and place it in the basket',
        'goal': ['in', 'ketchup_1', 'basket_1_contain_region'],
        'actions': numbered_actions(),
        'states': np.zeros((STEPS, 45)),
        'proprio': np.arange(STEPS * 8).reshape(STEPS, 8) / 100,
        'robot': np.zeros((STEPS, 9)),
        'joints': np.zeros((STEPS, 7)),
        'rows': rows,
        'chunks': chunks,
        'images': upright,
        'segmentation': {'third_person': masks, 'wrist': masks},
        'policy': 'abc123',
    }
    return writer.Episode(**fields | changes)


def write_own(folder, episodes, **task):
    folder.mkdir(exist_ok=True)
    with writer.DemonstrationWriter(folder, own_task(folder, **task)) as file:
        for episode in episodes:
            file.add(episode)
    return file.path


def load(path, **options):
    return read_demonstrations(path).load(progress=False, **options)


def seen(frames, camera=0):
    """The numbers that the images show; they stand upright, at the left."""
    return frames.images[:, camera, 0, 0, 0].tolist()


# --- pairs


@pytest.mark.parametrize('size', [128, 256])
def test_an_official_observation_goes_with_the_next_action(tmp_path, size):
    demonstrations = read_demonstrations(write_official(tmp_path, size))
    frames = demonstrations.load(progress=False)
    assert demonstrations.episodes[0].order == 'after'
    # the image shows how many actions were done: that is the number of the action to come
    assert seen(frames) == list(range(1, LAST_PAIR + 1))
    assert seen(frames, camera=1) == [WRIST + n for n in range(1, LAST_PAIR + 1)]
    np.testing.assert_array_equal(
        frames.chunks[..., 0], np.arange(1, LAST_PAIR + 1)[:, None] + np.arange(8)
    )
    assert frames.images.shape == (LAST_PAIR, 2, size, size, 3)
    # row 0 holds what action 1 answers
    np.testing.assert_allclose(frames.proprio[0], np.arange(8) / 100, atol=1e-7)
    assert frames.proprio.dtype == frames.chunks.dtype == np.float32
    assert frames.segmentation is None


def test_rotations_of_the_other_sign_are_turned_when_read(tmp_path):
    """Fault: a file with the other one of q and -q was trained on as another rotation."""
    path = write_official(tmp_path)
    with h5py.File(path, 'r+') as file:
        rotations = file['data/demo_0/obs/ee_states']
        rotations[:, 3:] = [[0.1 - np.pi, 0, 0]]  # the hand points down, x is negative
    frames = read_demonstrations(path).load(progress=False)
    np.testing.assert_allclose(frames.proprio[:, 3:6], [[np.pi + 0.1, 0, 0]] * len(frames))


def test_a_regenerated_observation_goes_with_its_own_action(tmp_path):
    demonstrations = read_demonstrations(write_regenerated(tmp_path))
    frames = demonstrations.load(progress=False)
    assert demonstrations.episodes[0].order == 'before'
    assert seen(frames) == list(range(LAST_PAIR + 1))
    np.testing.assert_array_equal(
        frames.chunks[..., 0], np.arange(LAST_PAIR + 1)[:, None] + np.arange(8)
    )


def test_the_contents_decide_even_where_the_attributes_were_copied(tmp_path):
    path = write_official(tmp_path)
    with h5py.File(path, 'a') as file:  # somebody rendered it again, and observed first
        file['data/demo_0/obs/joint_states'][:] -= 0.01
    assert read_demonstrations(path).episodes[0].order == 'before'


@pytest.mark.parametrize(
    ('write', 'order'), [(write_official, 'after'), (write_regenerated, 'before')]
)
def test_an_arm_at_rest_leaves_the_order_to_the_attributes(tmp_path, write, order):
    path = write(tmp_path)
    with h5py.File(path, 'a') as file:
        file['data/demo_0/obs/joint_states'][:] = 0
        file['data/demo_0/states'][:] = 0
    assert read_demonstrations(path).episodes[0].order == order


def test_a_file_that_does_not_tell_its_order_is_refused_until_the_user_says(tmp_path):
    path = write_regenerated(tmp_path)
    with h5py.File(path, 'a') as file:
        del file['data/demo_0/states']
        file['data'].attrs['made_by'] = 'somebody'
    with pytest.raises(DemonstrationError, match=r"_demo\.hdf5: does not tell.*order='after'"):
        read_demonstrations(path)
    assert seen(read_demonstrations(path, 'before').load(progress=False))[0] == 0
    assert read_demonstrations(path, 'after').load(progress=False).chunks[0, 0, 0] == 1


def test_an_order_of_another_name_is_refused(tmp_path):
    with pytest.raises(DemonstrationError, match='choose one of'):
        read_demonstrations(write_official(tmp_path), order='behind')


def test_images_written_upright_are_not_turned(tmp_path):
    path = write_official(tmp_path)
    with h5py.File(path, 'a') as file:
        file['data'].attrs['macros_image_convention'] = 'opencv'
    assert load(path).images[0, 0, -1, 0, 0] == 1


# --- chunks and no-ops


def test_the_last_seven_steps_start_no_chunk(tmp_path):
    assert len(load(write_official(tmp_path, actions=numbered_actions(9)))) == 1
    with pytest.raises(DemonstrationError, match='none of the 1 chosen episodes has a frame'):
        load(write_official(tmp_path, actions=numbered_actions(8)))


def test_no_ops_by_the_published_rule():
    actions = np.zeros((8, 7))
    actions[:, 6] = [-1, -1, -1, 1, 1, 1, -1, -1]
    actions[1, 0] = 1  # the first that moves
    actions[4, 5] = 0.9e-4  # too little
    actions[5, 5] = 1.1e-4  # enough
    # 0: still, and nothing before it; 2: still; 3 and 6: the gripper changes; 4, 7: still
    assert moving_steps(actions).tolist() == [1, 3, 5, 6]


def test_no_ops_are_dropped_from_official_files_before_chunks_are_cut(tmp_path):
    actions = numbered_actions(16)
    actions[[3, 4, 9], 0] = 0
    path = write_official(tmp_path, actions=actions)
    moving = [1, 2, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15]
    frames = load(path)
    assert seen(frames) == moving[:5]
    assert frames.chunks[1, :, 0].tolist() == moving[1:9]
    assert seen(load(path, drop_noops=False)) == list(range(1, 9))
    assert load(path, drop_noops=False).chunks[2, :, 0].tolist() == [0, 0, 5, 6, 7, 8, 0, 10]


def test_no_ops_stay_in_files_of_the_other_order():
    actions = numbered_actions(10)
    actions[4, 0] = 0
    assert len(cut_chunks(actions, 'before', drop_noops=False, length=8)[0]) == 3
    rows, chunks = cut_chunks(actions, 'before', drop_noops=True, length=8)
    assert rows.tolist() == [0, 1]
    assert 0 not in chunks[1, :, 0]


# --- our own files


def test_our_own_files_keep_their_rows_labels_and_instruction(tmp_path):
    demonstrations = read_demonstrations(write_own(tmp_path, [own_episode()]))
    episode = demonstrations.episodes[0]
    frames = demonstrations.load(progress=False)
    assert seen(frames) == [2, 5, 11]  # the last rows too: they have labels
    assert seen(frames, camera=1) == [WRIST + n for n in (2, 5, 11)]
    assert frames.chunks[:, 0, 0].tolist() == [LABEL + n for n in (2, 5, 11)]
    np.testing.assert_allclose(frames.proprio[1], np.arange(40, 48) / 100, atol=1e-7)
    assert frames.instructions == ('pick up the ketchup and place it in the basket',)
    assert (episode.suite, episode.task, episode.render_setting) == ('libero_object', 7, 'cheap')
    assert (episode.seed, episode.policy, episode.order) == (31, 'abc123', 'before')
    assert episode.goal == ('in', 'ketchup_1', 'basket_1_contain_region')


def test_rows_without_labels_take_the_executed_actions(tmp_path):
    path = write_own(tmp_path, [own_episode()])
    with h5py.File(path, 'a') as file:
        del file['data/demo_0/obs/chunks']
    frames = load(path)
    assert seen(frames) == [2]  # 5 and 11 are among the last seven
    assert frames.chunks[0, :, 0].tolist() == list(range(2, 10))


def test_segmentation_has_one_list_of_names_over_all_files(tmp_path):
    write_own(tmp_path / 'a', [own_episode()])
    write_own(tmp_path / 'b', [own_episode()], names=('background', 'soup', 'milk'))
    frames = load(tmp_path)
    assert frames.segmentation_names == ('background', 'milk', 'basket', 'soup')
    shown = [frames.segmentation_names[i] for i in frames.segmentation[:, 0, 0, 0]]
    assert shown == ['milk', 'basket', 'background', 'soup', 'milk', 'background']
    assert frames.segmentation.shape == (6, 2, 16, 16)
    assert load(tmp_path, segmentation=False).segmentation is None


def test_frames_without_segmentation_among_others_say_so(tmp_path):
    path = write_own(tmp_path, [own_episode(), own_episode()])
    with h5py.File(path, 'a') as file:
        for camera in ('agentview', 'eye_in_hand'):
            del file[f'data/demo_0/obs/{camera}_segmentation']
    masks = load(path).segmentation
    assert (masks[:3] == NO_SEGMENTATION).all()
    assert masks[3, 0, 0, 0] == 1


def test_an_episode_that_a_killed_run_left_is_passed_over(tmp_path):
    path = write_own(tmp_path, [own_episode(), own_episode()])
    with h5py.File(path, 'a') as file:
        del file['data/demo_1'].attrs['num_samples'], file['data/demo_1/obs/chunks']
    assert [episode.name for episode in read_demonstrations(path).episodes] == ['demo_0']


# --- nothing is left out or assumed without a word


def test_every_episode_that_is_left_out_is_named_with_why(tmp_path, caplog):
    path = write_official(tmp_path, demos=3)
    with h5py.File(path, 'a') as file:
        data = file['data']
        del data['demo_1'].attrs['num_samples']  # what LIBERO's script writes last
        for name in ('actions', 'states', 'obs/agentview_rgb', 'obs/eye_in_hand_rgb'):
            values = data['demo_2'][name][:5]  # too short for a chunk
            del data['demo_2'][name]
            data['demo_2'][name] = values
        for name in ('ee_states', 'gripper_states', 'joint_states'):
            values = data['demo_2/obs'][name][:5]
            del data['demo_2/obs'][name]
            data['demo_2/obs'][name] = values
        data['demo_3'] = 7
        data['take_4'] = h5py.SoftLink('/data/demo_0')
    assert len(np.unique(load(path).episode)) == 1
    said = caplog.messages
    assert [text for text in said if f'{path}, demo_1: is left out; it has no num_samples' in text]
    assert [text for text in said if f'{path}, demo_2: is left out; no frame of it has' in text]
    assert [text for text in said if f'{path}, demo_3: is left out; it is no group' in text]
    assert [text for text in said if f'{path}, take_4: is left out; episodes are named' in text]


def test_actions_that_the_controller_cuts_off_are_named(tmp_path, caplog):
    actions = numbered_actions() / STEPS
    path = write_official(tmp_path, actions=actions)
    load(path)
    assert not caplog.messages
    actions[4, 2] = -3.5
    load(write_official(tmp_path, actions=actions))
    (said,) = caplog.messages
    assert f'{path}: actions of 1 of 1 episodes lie outside of -1 to 1 (-3.5 to 0.9167)' in said


def test_a_missing_image_convention_is_named_and_an_unknown_one_refused(tmp_path, caplog):
    path = write_regenerated(tmp_path)
    load(path)
    assert any(f'{path}: has no macros_image_convention' in text for text in caplog.messages)
    with h5py.File(path, 'a') as file:
        file['data'].attrs['macros_image_convention'] = 'upside down'
    refuse(path, "macros_image_convention is 'upside down'; opengl", order='before')


def test_a_data_yaml_reads_the_official_layout_as_the_reader_does(tmp_path):
    path = write_official(tmp_path, size=16, demos=2)
    mapping = read_mapping(Path(__file__).parents[2] / 'config/data/libero.yaml')
    ours = read_demonstrations(path, mapping=mapping).load(progress=False)
    theirs = read_demonstrations(path).load(progress=False)
    for name in ('images', 'chunks', 'instruction', 'episode'):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_allclose(ours.proprio, theirs.proprio, rtol=1e-6)
    assert ours.instructions == theirs.instructions
    assert ours.robot == theirs.robot


# --- damaged files


@pytest.mark.parametrize(
    ('function', 'argument', 'reason'),
    [
        (time.sleep, 1000, 'reading it came to no end in 1 s'),
        (ctypes.string_at, 0, 'its library crashes on it'),
    ],
)
def test_what_never_ends_or_crashes_ends_its_own_process(monkeypatch, function, argument, reason):
    monkeypatch.setattr(reading_process, 'PATIENCE', 1)
    with pytest.raises(DamagedFileError, match=reason):
        list(reading_process.stream(function, argument))


def test_damaged_files_are_named_in_a_line_each_and_the_rest_is_read(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(reading_process, 'PATIENCE', 2)
    whole = write_official(tmp_path, size=8, demos=2)
    # what HDF5 2.0 and h5py 3.16 do of these seeds
    reasons = {
        53: 'reading it came to no end in 2 s',
        20: 'RuntimeError',
        115: 'ValueError',
        244: 'KeyError',
    }
    for seed in reasons:
        random, damaged = Random(seed), bytearray(whole.read_bytes())
        for _ in range(8):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        (tmp_path / f'{seed}_demo.hdf5').write_bytes(damaged)
    assert seen(load(tmp_path)) == list(range(1, LAST_PAIR + 1)) * 2
    for seed, reason in reasons.items():
        (said,) = [text for text in caplog.messages if f'{seed}_demo.hdf5' in text]
        assert f'{seed}_demo.hdf5: cannot be read as HDF5 ({reason}' in said
        assert '\n' not in said


def test_a_damaged_file_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(reading_process, 'PATIENCE', 2)
    path = write_own(tmp_path, [own_episode()])
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DamagedFileError, match='truncated'):
        write_own(tmp_path, [own_episode()])


def test_a_file_damaged_in_its_images_is_left_out_as_a_whole(tmp_path, caplog):
    for name in 'ab':
        path = write_own(tmp_path / name, [own_episode(), own_episode(seed=2)])
    with h5py.File(path) as file:
        chunk = file['data/demo_1/obs/agentview_rgb'].id.get_chunk_info(1)
    with path.open('r+b') as file:
        file.seek(chunk.byte_offset)
        file.write(b'\xff' * chunk.size)
    frames = load(tmp_path)
    assert np.unique(frames.episode).tolist() == [0, 1]
    assert len(frames.images) == len(frames.chunks) == 6
    assert f'{path}, demo_1: obs/agentview_rgb: cannot be read' in caplog.messages[-1]


@pytest.mark.parametrize('link', [h5py.SoftLink('/no'), h5py.ExternalLink('no.hdf5', '/no')])
@pytest.mark.parametrize('name', ['data/demo_1', 'data/demo_1/obs', 'data/demo_1/actions'])
def test_links_that_lead_nowhere_are_one_line(tmp_path, caplog, name, link):
    path = write_own(tmp_path, [own_episode(), own_episode(seed=2)])
    with h5py.File(path, 'a') as file:
        del file[name]
        file[name] = link
    if name == 'data/demo_1':
        assert len(read_demonstrations(path)) == 1
        assert any(f'{path}, demo_1: is left out' in text for text in caplog.messages)
    else:
        refuse(path, rf'{path.name}, demo_1: has no dataset')


def test_a_file_that_another_process_has_open_is_not_written(tmp_path):
    path = write_own(tmp_path, [own_episode()])
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as HDF5 does while it reads
        with pytest.raises(DemonstrationError, match='another process writes it, or a training'):
            write_own(tmp_path, [own_episode()])


# --- sets of files


def test_episodes_come_sorted_and_are_chosen_by_index(tmp_path):
    (tmp_path / 'sub').mkdir()
    write_official(tmp_path, demos=11)
    write_regenerated(tmp_path / 'sub', 128, 'KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5')
    demonstrations = read_demonstrations([tmp_path, tmp_path / f'{MILK}_demo.hdf5'])
    assert len(demonstrations) == 12
    assert demonstrations.episodes[10].name == 'demo_10'
    frames = demonstrations.load([11, 2], progress=False)
    assert frames.episode.tolist() == [11] * 5 + [2] * 4
    told = [frames.instructions[index] for index in frames.instruction]
    # not problem_info's 'pick the milk': LIBERO asks by the file's name
    assert told == ['turn on the stove'] * 5 + ['pick up the milk and place it in the basket'] * 4


def test_what_is_held_out_stays_so_when_files_are_added_and_moved(tmp_path):
    def names(part):
        return [(episode.path.name, episode.name) for episode in part.episodes]

    write_official(tmp_path, demos=40)
    train, held = read_demonstrations(tmp_path).hold_out(0.25, seed=3)
    assert 4 <= len(held) <= 16
    assert len(train) == 40 - len(held)
    assert not set(names(train)) & set(names(held))
    assert read_demonstrations(tmp_path).hold_out(0.25, seed=4)[1] != held
    moved = tmp_path / 'moved'
    moved.mkdir()
    (tmp_path / f'{MILK}_demo.hdf5').rename(moved / f'{MILK}_demo.hdf5')
    write_official(tmp_path, demos=40, name='push_the_plate_demo.hdf5')
    more = read_demonstrations(tmp_path)
    train_again, held_again = more.hold_out(0.25, seed=3)
    assert set(names(held)) < set(names(held_again))
    assert train_again.instructions == held_again.instructions == more.instructions


def test_a_small_set_leaves_no_part_empty(tmp_path):
    demonstrations = read_demonstrations(write_official(tmp_path, demos=2))
    for seed in range(8):
        assert [len(part) for part in demonstrations.hold_out(0.01, seed)] == [1, 1]
    with pytest.raises(ValueError, match='above 0 and below 1'):
        demonstrations.hold_out(1.0)


# --- broken files


def refuse(path, pattern, **options):
    with pytest.raises(DemonstrationError, match=pattern) as caught:
        read_demonstrations(path, **options).load(progress=False)
    assert '\n' not in str(caught.value)


def test_what_is_no_file_of_demonstrations(tmp_path):
    refuse(tmp_path, r'no \*\.hdf5 in this folder')
    refuse(tmp_path / 'x.hdf5', 'there is no such file')
    refuse([], 'name a file or a folder')
    path = tmp_path / f'{MILK}_demo.hdf5'
    path.write_bytes(b'version https://git-lfs.github.com/spec/v1')
    refuse(path, r'_demo\.hdf5: cannot be read as HDF5 .*download')
    with h5py.File(path, 'w') as file:
        file['data'] = 1
    refuse(path, 'has no episodes')


def test_a_file_cut_short_by_its_download(tmp_path):
    path = write_official(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(path, 'cannot be read as HDF5 .*truncated')


def test_images_damaged_on_disk(tmp_path):
    path = write_own(tmp_path, [own_episode()])
    with h5py.File(path) as file:
        chunk = file['data/demo_0/obs/agentview_rgb'].id.get_chunk_info(1)
    with path.open('r+b') as file:
        file.seek(chunk.byte_offset)
        file.write(b'\xff' * chunk.size)
    refuse(path, r'demo_0: obs/agentview_rgb: cannot be read')


@pytest.mark.parametrize(
    'name',
    ['actions', 'obs/agentview_rgb', 'obs/eye_in_hand_rgb', 'obs/ee_states', 'obs/gripper_states'],
)
def test_a_missing_dataset(tmp_path, name):
    path = write_official(tmp_path)
    with h5py.File(path, 'a') as file:
        del file['data/demo_0'][name]
    refuse(path, rf'{path.name}, demo_0: has no dataset {name}')


@pytest.mark.parametrize(
    ('name', 'values', 'pattern'),
    [
        ('actions', np.zeros((STEPS, 6)), r'actions is float64 \(12, 6\).*\(any, 7\)'),
        ('obs/ee_states', np.zeros((STEPS - 1, 6)), r'\(12, 6\) is needed'),
        ('obs/agentview_rgb', np.zeros((STEPS, 8, 8, 3), np.float32), r'uint8 \(12, any, any, 3\)'),
        ('obs/eye_in_hand_rgb', np.zeros((STEPS, 8, 8, 3), np.uint8), r'uint8 \(12, 128, 128, 3\)'),
        ('obs/rows', np.array([3, 2]), r'obs/rows must ascend'),
        ('obs/rows', np.array([3, STEPS]), r'obs/rows must ascend from 0 to 11'),
        ('obs/chunks', np.zeros((STEPS, 4, 7)), r'obs/chunks .*\(12, 8, 7\)'),
        ('obs/gripper_states', np.full((STEPS, 2), np.nan), 'not all finite'),
        ('actions', np.full((STEPS, 7), np.inf), 'actions are not all finite'),
    ],
)
def test_a_misshapen_dataset(tmp_path, name, values, pattern):
    path = write_official(tmp_path)
    with h5py.File(path, 'a') as file:
        demo = file['data/demo_0']
        if name in demo:
            del demo[name]
        demo[name] = values
    refuse(path, f'demo_0: .*{pattern}')


def test_images_of_two_sizes(tmp_path):
    write_official(tmp_path, 128)
    write_official(tmp_path, 256, name='push_the_plate_demo.hdf5')
    refuse(tmp_path, '256 x 256 px, but .* 128 x 128 px; read them as two sets')


@pytest.mark.parametrize(
    ('attribute', 'value', 'pattern'),
    [
        ('observation_order', 'sideways', "is 'sideways'"),
        ('segmentation_names', '["background"', 'is no JSON'),
        ('segmentation_names', '["background", "milk"]', 'has id 2, but there are only 2'),
        ('segmentation_names', '[]', 'no segmentation_names'),
        ('task', 'seven', 'no whole number'),
    ],
)
def test_attributes_that_cannot_be(tmp_path, attribute, value, pattern):
    path = write_own(tmp_path, [own_episode()])
    with h5py.File(path, 'a') as file:
        file['data'].attrs[attribute] = value
    refuse(path, pattern)


def test_an_instruction_that_is_nowhere(tmp_path):
    path = write_regenerated(tmp_path, name='renamed.hdf5')
    refuse(path, r'renamed\.hdf5, demo_0: has no instruction; give the file its name')
    official = write_official(tmp_path, name='renamed.hdf5')
    assert load(official).instructions == ('pick the milk and place it in the basket',)


# --- statistics


def spec(figures, **changes):
    fields = {
        'chunk_length': 8,
        'control_period': 0.05,
        'translation_scale': 0.05,
        'rotation_scale': 0.5,
        'q01': figures.q01,
        'q99': figures.q99,
        'mask': figures.mask,
        'gripper_closed': 0.0,
        'gripper_open': 1.0,
        'reference': 'measured_pose',
        'slice': 'training',
    }
    return Action(**fields | changes)


def test_statistics_in_the_published_form(tmp_path):
    frames = load(write_official(tmp_path, demos=2))
    statistics = statistics_of(frames)
    found = json.loads(json.dumps(statistics.as_openvla()))
    assert (found['num_transitions'], found['num_trajectories']) == (8, 2)
    assert found['action']['mask'] == [True] * 6 + [False]
    assert set(found['proprio']) == {'mean', 'std', 'max', 'min', 'q01', 'q99'}
    numbers = frames.chunks[..., 0].ravel().astype(np.float64)
    assert found['action']['q01'][0] == pytest.approx(np.quantile(numbers, 0.01))
    assert found['action']['std'][0] == pytest.approx(numbers.std())
    # the gripper in the policy's numbers: 1 is open
    assert found['action']['mean'][6] == pytest.approx((frames.chunks[..., 6] == -1).mean())


def test_normalised_actions_are_undone_by_the_runtime(tmp_path):
    frames = load(write_official(tmp_path))
    figures = statistics_of(frames).action
    normalised = normalise_actions(frames.chunks, spec(figures))
    assert normalised.dtype == np.float32
    assert np.abs(normalised).max() <= 1
    back = unnormalise(normalised[0], spec(figures))
    wanted = np.clip(frames.chunks[0, :, :6], figures.q01[:6], figures.q99[:6])
    np.testing.assert_allclose(back[:, :6], wanted, atol=1e-6)
    assert back[:, 6].tolist() == (frames.chunks[0, :, 6] == -1).tolist()


def test_the_gripper_follows_the_policys_numbers():
    chunks = np.zeros((1, 8, 7))
    chunks[0, :, 6] = [-1, 1, -1, 1, 0, 0.25, -2, 2]
    figures = statistics_of(as_frames(chunks)).action
    usual = normalise_actions(chunks, spec(figures))[0, :, 6]
    np.testing.assert_allclose(usual, [1, 0, 1, 0, 1, 0.75, 1, 0])
    turned = normalise_actions(chunks, spec(figures, gripper_open=-1.0, gripper_closed=1.0))
    np.testing.assert_allclose(turned[0, :, 6], [-1, 1, -1, 1, -1, -0.5, -1, 1])


def test_a_number_that_never_varies_becomes_zero_and_comes_back(tmp_path):
    chunks = np.random.default_rng(0).uniform(-1, 1, (50, 8, 7)).astype(np.float32)
    chunks[..., 3] = 0.3 + np.random.default_rng(1).normal(0, 1e-7, (50, 8))
    figures = statistics_of(as_frames(chunks)).action
    assert figures.q99[3] - figures.q01[3] == pytest.approx(MIN_SPREAD, rel=1e-3)
    normalised = normalise_actions(chunks, spec(figures))
    assert np.abs(normalised[..., 3]).max() < 1e-3
    for output in (-1, 0, 1):  # whatever the head says, the robot does the same
        back = unnormalise(np.full((8, 7), output), spec(figures))
        np.testing.assert_allclose(back[:, 3], 0.3, atol=MIN_SPREAD)


@pytest.mark.parametrize(
    'layout', [('ee_position', 'ee_axis_angle', 'gripper_qpos'), ('gripper_qpos', 'ee_position')]
)
def test_states_are_normalised_as_the_runtime_does(layout):
    states = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    columns = {'ee_position': [0, 1, 2], 'ee_axis_angle': [3, 4, 5], 'gripper_qpos': [6, 7]}
    chosen = states[:, sum((columns[part] for part in layout), [])].astype(np.float64)
    proprio = Proprio(
        layout, tuple(np.quantile(chosen, 0.01, 0)), tuple(np.quantile(chosen, 0.99, 0))
    )
    one_by_one = np.concatenate([normalise_proprio(state, proprio) for state in chosen])
    np.testing.assert_array_equal(normalise_states(states, proprio), one_by_one)
    with pytest.raises(ValueError, match=r'\[N, 8\]'):
        normalise_states(states[:, :7], proprio)


def as_frames(chunks):
    """Frames of which only the chunks matter."""
    from lightvla_ros.demonstrations.frames import Frames

    count = len(chunks)
    return Frames(
        images=np.zeros((count, 2, 1, 1, 3), np.uint8),
        proprio=np.zeros((count, 8), np.float32),
        chunks=np.asarray(chunks, np.float32),
        instruction=np.zeros(count, np.int64),
        episode=np.zeros(count, np.int64),
        segmentation=None,
        instructions=('',),
        segmentation_names=(),
    )


def test_only_this_package_knows_hdf5():
    package = Path(writer.__file__).parents[1]
    users = {
        path.parent.name for path in package.rglob('*.py') if 'import h5py' in path.read_text()
    }
    assert users == {'demonstrations'}
