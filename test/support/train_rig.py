"""Small models, made-up demonstrations and configurations for the tests of training."""

import h5py
import numpy as np
import torch

from lightvla_ros.demonstrations.frames import Frames
from lightvla_ros.train.config_file import from_dict
from lightvla_ros.train.data import Data, FrameStore
from lightvla_ros.train.parallel import Process
from lightvla_ros.train.run import Run

NAMES = ('background', 'akita_black_bowl_1', 'plate_1', 'robot', 'gripper', 'odd_thing')
INSTRUCTIONS = (
    'pick up the black bowl next to the plate and place it on the plate',
    'pick up the milk and place it in the basket',
)
MODEL = {
    'image_size': 32,
    'patch_size': 8,
    'dino': {'width': 16, 'depth': 2, 'heads': 2, 'mlp_width': 32, 'registers': 2},
    'siglip': {'width': 16, 'depth': 2, 'heads': 2, 'mlp_width': 32},
    'language': {'width': 64, 'layers': 2, 'heads': 2, 'mlp_width': 64, 'vocabulary': 80},
    'projector_width': 32,
    'head_width': 32,
}


def frames(count=24, size=32, episodes=6, seed=0):
    """Images with a coloured square whose place decides the action."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 40, (count, 2, size, size, 3), np.uint8)
    segmentation = np.zeros(images.shape[:-1], np.uint8)
    places = random.integers(0, size - size // 4, (count, 2, 2))
    for frame in range(count):
        for camera in range(2):
            row, column = places[frame, camera]
            square = (slice(row, row + size // 4), slice(column, column + size // 4))
            kind = 1 + (frame + camera) % 3
            images[frame, camera][square] = (60 * kind, 255 - 60 * kind, 100)
            segmentation[frame, camera][square] = kind
    chunks = np.zeros((count, 8, 7), np.float32)
    chunks[..., :2] = (2 * places[:, 0] / size - 1)[:, None]
    chunks[..., 2:6] = random.uniform(-0.3, 0.3, (count, 1, 4))
    chunks[..., 6] = np.where(random.random((count, 1)) < 0.5, -1, 1)
    return Frames(
        images=images,
        proprio=random.normal(0, 0.3, (count, 8)).astype(np.float32),
        chunks=chunks,
        instruction=np.arange(count) % 2,
        episode=np.arange(count) * episodes // count,
        segmentation=segmentation,
        instructions=INSTRUCTIONS,
        segmentation_names=NAMES,
    )


def write_file(folder, made=None):
    """Write frames as a file of demonstrations; returns its path."""
    made = frames() if made is None else made
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'made_up_demo.hdf5'
    with h5py.File(path, 'w') as file:
        data = file.create_group('data')
        data.attrs['macros_image_convention'] = 'opencv'
        data.attrs['observation_order'] = 'before'
        data.attrs['segmentation_names'] = str(list(made.segmentation_names)).replace("'", '"')
        for episode in np.unique(made.episode):
            rows = np.flatnonzero(made.episode == episode)
            demo = data.create_group(f'demo_{episode}')
            demo.attrs['language_instruction'] = made.instructions[made.instruction[rows[0]]]
            values = {
                'actions': made.chunks[rows, 0],
                'obs/rows': np.arange(len(rows), dtype=np.int32),
                'obs/chunks': made.chunks[rows],
                'obs/ee_states': made.proprio[rows, :6],
                'obs/gripper_states': made.proprio[rows, 6:],
            }
            for index, camera in enumerate(('agentview', 'eye_in_hand')):
                values[f'obs/{camera}_rgb'] = made.images[rows, index]
                values[f'obs/{camera}_segmentation'] = made.segmentation[rows, index]
            for name, value in values.items():
                demo.create_dataset(name, data=value)
    return path


def document(path, **changes):
    """A configuration file's content for a small model from scratch."""
    return {
        'name': 'made-up',
        'model': {'preset': 'libero-tiny', 'changes': MODEL},
        'data': {'paths': [str(path)], 'held_out': 0.3, 'held_out_frames': 8},
        'steps': 6,
        'batch_size': 4,
        'optimizer': {'lr': 1e-3, 'schedule': 'constant'},
        'augment': 'off',
        'log_every': 3,
        'threads': 1,
        **changes,
    }


def begin(folder, *, resume=False, of=None, **changes):
    """A run on 20 frames, with 4 held out."""
    store = FrameStore([frames(24) if of is None else of])
    rows = store.rows(0)
    config = from_dict(document('x', **changes))
    here = Process(0, 1, torch.device('cpu'))
    data = Data(store, (rows[:20],), (1.0,), rows[20:])
    return Run(config, folder, here, resume=resume, data=data)
