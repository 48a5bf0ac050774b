"""Small recordings of one made-up arm in every format, whose content a test can tell by heart.

Episode e has rows 0 … T - 1. The hand starts at (0.1 e, 0, 0.5), points down, and is moved by
STEP each row; the third-person picture of row r is a grey of 40 + 4 r with a bright top-left
corner, the wrist's a grey of 200 - 4 r, that of any further camera one of 120 + r.
"""

import json

import h5py
import numpy as np

RATE = 20
STEP = np.array([0.002, -0.001, 0.003])  # m
SIZE = (48, 64)
INSTRUCTION = 'pick up the milk and place it in the basket'
LABELS = ['x', 'y', 'z', 'qx', 'qy', 'qz', 'qw', 'width']
TOPICS = ('/front/image', '/hand/image', '/ee_pose', '/joints', '/target_pose', '/gripper')


def states(episode, rows):
    """Position, quaternion x y z w of either sign, and width: [T, 8]."""
    found = np.zeros((rows, 8))
    found[:, :3] = [0.1 * episode, 0, 0.5] + STEP * np.arange(rows)[:, None]
    found[:, 3] = np.where(np.arange(rows) % 2, 1, -1)
    found[:, 7] = np.where(np.arange(rows) < rows // 2, 0.08, 0.03)
    return found


def actions(rows):
    """Steps in metres and radians, and the gripper: 1 open, 0 closed: [T, 7]."""
    found = np.zeros((rows, 7))
    found[:, :3] = STEP
    found[:, 6] = np.arange(rows) < rows // 2
    return found


def picture(camera, row, size=SIZE):
    """The picture of a row: uint8 [H, W, 3]."""
    grey = (40 + 4 * row, 200 - 4 * row, 120 + row)[camera]
    image = np.full((*size, 3), grey, np.uint8)
    if camera == 0:
        image[: size[0] // 3, : size[1] // 3] = 250
    return image


def rows_shown(images, camera):
    """The rows that pictures [N, H, W, 3] show, by the grey in their lower right half."""
    height, width = images.shape[1:3]
    grey = images[:, height // 2 :, width // 2 :].mean(axis=(1, 2, 3))
    return np.rint((grey - 40) / 4 if camera == 0 else (200 - grey) / 4).astype(int).tolist()


def mapping(form, **changes):
    """The data YAML's content for what the writers below write."""
    lerobot = form == 'lerobot'
    names = {
        'lerobot': ('observation.images.front', 'observation.images.hand'),
        'hdf5': ('images/front', 'images/hand'),
        'rosbag': TOPICS[:2],
    }[form]
    state = 'observation.state' if lerobot else 'state'
    pose = TOPICS[2] if form == 'rosbag' else state
    document = {
        'format': form,
        'rate': RATE,
        'execution': 'displacement',
        'cameras': {'third_person': names[0], 'wrist': {'name': names[1]}},
        'state': {
            'position': {'name': pose, 'at': [0, 1, 2], 'unit': 'm'},
            'rotation': {'name': pose, 'at': [3, 4, 5, 6], 'form': 'quaternion_xyzw'},
            'gripper': {'name': state, 'at': [7], 'form': 'width', 'unit': 'm'},
        },
        'action': {
            'kind': 'delta',
            'translation': {'name': 'action', 'at': [0, 1, 2], 'unit': 'm'},
            'rotation': {'name': 'action', 'at': [3, 4, 5], 'form': 'axis_angle', 'unit': 'rad'},
            'gripper': {'name': 'action', 'at': [6], 'open': 1, 'closed': 0},
        },
    }
    if form == 'hdf5':
        document |= {'order': 'before', 'hdf5': {'episodes': 'trials', 'instruction': 'task'}}
    if form == 'rosbag':
        document['state']['gripper'] = {'name': TOPICS[3], 'at': ['left'], 'form': 'finger'}
        document['action'] = {
            'kind': 'pose',
            'translation': {'name': TOPICS[4], 'at': ['x', 'y', 'z']},
            'rotation': {
                'name': TOPICS[4],
                'at': ['qx', 'qy', 'qz', 'qw'],
                'form': 'quaternion_xyzw',
            },
            'gripper': {'name': TOPICS[5], 'open': 1, 'closed': 0},
        }
        document['instruction'] = INSTRUCTION
    return document | changes


def write_video(path, camera, lengths, fps=RATE, size=SIZE):
    """Write episodes one after the other into one video, as LeRobot's v3.0 does."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=fps, options={'crf': '1', 'g': '4'})
        stream.height, stream.width, stream.pix_fmt = *size, 'yuv420p'
        for length in lengths:
            for row in range(length):
                frame = av.VideoFrame.from_ndarray(picture(camera, row, size), format='rgb24')
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_lerobot(folder, version='v3.0', lengths=(12, 14), fps=RATE, video=True, **tables):
    """Write a data set as huggingface/lerobot lays it out.

    ``tables`` replaces the columns ``observation.state`` or ``action`` of an episode.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    v3 = version == 'v3.0'
    part = 'chunk_index' if v3 else 'episode_chunk'
    file = 'file-{file_index:03d}' if v3 else 'episode_{episode_index:06d}'
    cameras = ('observation.images.front', 'observation.images.hand')
    shown = {'dtype': 'video' if video else 'image', 'shape': [*SIZE, 3]}
    shown['names'] = ['height', 'width', 'channels']
    info = {
        'codebase_version': version,
        'fps': fps,
        'total_episodes': len(lengths),
        'total_frames': sum(lengths),
        'chunks_size': 1000,
        'data_path': f'data/chunk-{{{part}:03d}}/{file}.parquet',
        'video_path': f'videos/{{video_key}}/chunk-{{{part}:03d}}/{file}.mp4'
        if v3
        else f'videos/chunk-{{{part}:03d}}/{{video_key}}/{file}.mp4',
        'features': {
            **dict.fromkeys(cameras, shown),
            'observation.state': {'dtype': 'float32', 'shape': [8], 'names': LABELS},
            'action': {'dtype': 'float32', 'shape': [7], 'names': {'motors': list('abcdefg')}},
            'timestamp': {'dtype': 'float32', 'shape': [1], 'names': None},
        },
    }
    (folder / 'meta').mkdir(parents=True)
    (folder / 'meta/info.json').write_text(json.dumps(info))
    episodes, parts, first = [], [], 0
    for index, length in enumerate(lengths):
        columns = {
            'observation.state': states(index, length).tolist(),
            'action': actions(length).tolist(),
            'timestamp': (np.arange(length) / fps).tolist(),
            'episode_index': [index] * length,
            'task_index': [0] * length,
        }
        columns |= tables if index == 0 else {}
        kinds = {
            'observation.state': pa.list_(pa.float32()),
            'action': pa.list_(pa.float32()),
            'timestamp': pa.float32(),
        }
        columns = {n: pa.array(each, kinds.get(n, pa.int64())) for n, each in columns.items()}
        if not video:
            import cv2

            for camera, name in enumerate(cameras):
                files = [cv2.imencode('.png', picture(camera, r))[1] for r in range(length)]
                columns[name] = [{'bytes': each.tobytes(), 'path': None} for each in files]
        parts.append(pa.table(columns))
        row = {'episode_index': index, 'tasks': [INSTRUCTION], 'length': length}
        row |= {'data/chunk_index': 0, 'data/file_index': 0}
        for name in cameras:
            row |= {f'videos/{name}/chunk_index': 0, f'videos/{name}/file_index': 0}
            row[f'videos/{name}/from_timestamp'] = first / fps
            row[f'videos/{name}/to_timestamp'] = (first + length) / fps
        episodes.append(row)
        first += length
    data = folder / 'data/chunk-000'
    data.mkdir(parents=True)
    if v3:
        pq.write_table(pa.concat_tables(parts), data / 'file-000.parquet')
        (folder / 'meta/episodes/chunk-000').mkdir(parents=True)
        table = pa.Table.from_pylist(episodes)
        pq.write_table(table, folder / 'meta/episodes/chunk-000/file-000.parquet')
        tasks = pa.table({'task_index': [0], '__index_level_0__': [INSTRUCTION]})
        pq.write_table(tasks, folder / 'meta/tasks.parquet')
    else:
        keep = ('episode_index', 'tasks', 'length')
        lines = [json.dumps({name: row[name] for name in keep}) for row in episodes]
        (folder / 'meta/episodes.jsonl').write_text('\n'.join(lines) + '\n')
        task = {'task_index': 0, 'task': INSTRUCTION}
        (folder / 'meta/tasks.jsonl').write_text(json.dumps(task) + '\n')
        for index, table in enumerate(parts):
            pq.write_table(table, data / f'episode_{index:06d}.parquet')
    if video:
        for camera, name in enumerate(cameras):
            if v3:
                path = folder / f'videos/{name}/chunk-000/file-000.mp4'
                write_video(path, camera, lengths, fps)
            else:
                for index, length in enumerate(lengths):
                    path = folder / f'videos/chunk-000/{name}/episode_{index:06d}.mp4'
                    write_video(path, camera, [length], fps)
    return folder


def write_hdf5(path, lengths=(12, 14), cameras=('front', 'hand'), instruction=INSTRUCTION):
    """Write an HDF5 file of a layout that is nobody's."""
    with h5py.File(path, 'w') as file:
        trials = file.create_group('trials')
        for index, length in enumerate(lengths):
            trial = trials.create_group(f'trial{index}')
            trial.attrs['task'] = instruction
            trial['state'], trial['action'] = states(index, length), actions(length)
            for camera, name in enumerate(cameras):
                trial[f'images/{name}'] = [picture(camera, row) for row in range(length)]
    return path


def write_bag(path, rows=12, storage='mcap', late=0.0, skip=(), quiet=(), cameras=TOPICS[:2]):
    """Write a bag: images at 20 Hz, the hand's 5 ms later, poses at 100 Hz, commands at 20 Hz.

    :param cameras: Topics of at most three cameras.
    :param late: Seconds by which the wrist camera's stamps are late, beyond the 5 ms.
    :param skip: Rows without a wrist image; ``quiet``: without a target pose.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    header_type, time_type = types['std_msgs/msg/Header'], types['builtin_interfaces/msg/Time']
    image_type, pose_type = types['sensor_msgs/msg/Image'], types['geometry_msgs/msg/PoseStamped']
    messages = []

    def header(seconds):
        nanoseconds = round((1000 + seconds) * 1e9)
        return header_type(time_type(*divmod(nanoseconds, 10**9)), 'base')

    def pose(seconds, at):
        place = types['geometry_msgs/msg/Point'](*(np.array([0, 0, 0.5]) + STEP * at))
        turn = types['geometry_msgs/msg/Quaternion'](1.0, 0.0, 0.0, 0.0)
        return pose_type(header(seconds), types['geometry_msgs/msg/Pose'](place, turn))

    period = 1 / RATE
    for row in range(rows):
        for camera, topic in enumerate(cameras):
            if camera == 1 and row in skip:
                continue
            seconds = row * period + (0.005 + late if camera == 1 else 0.0)
            pixels = picture(camera, row)
            message = image_type(header(seconds), *SIZE, 'rgb8', 0, 3 * SIZE[1], pixels.reshape(-1))
            messages.append((seconds, topic, message))
        # the target stands one step ahead of where the hand is at the row's image
        if row not in quiet:
            messages.append((row * period, TOPICS[4], pose(row * period, row + 1)))
        closed = types['std_msgs/msg/Float64'](float(row < rows // 2))
        messages.append((row * period, TOPICS[5], closed))
    for tick in range(-5, 5 * rows + 5):
        seconds = tick * 0.01
        messages.append((seconds, TOPICS[2], pose(seconds, seconds / period)))
        joints = types['sensor_msgs/msg/JointState'](
            header(seconds), ['right', 'left'], np.full(2, 0.02), np.zeros(2), np.zeros(2)
        )
        messages.append((seconds, TOPICS[3], joints))
    plugin = StoragePlugin.MCAP if storage == 'mcap' else StoragePlugin.SQLITE3
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        kinds = {topic: message.__msgtype__ for _, topic, message in messages}
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, kind in kinds.items()
        }
        for seconds, topic, message in sorted(messages, key=lambda each: each[0]):
            data = store.serialize_cdr(message, kinds[topic])
            writer.write(connections[topic], round((1000 + seconds + 0.002) * 1e9), data)
    return path
