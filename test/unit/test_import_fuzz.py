"""Hundreds of damaged downloads: each is imported or refused in one line, never a traceback."""

import json
import os
import random
import shutil
import struct

import pytest
import torch
from published_folder import tiny_published_config, write_adapter, write_published

from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import CheckpointError, ContractError
from lightvla_ros.export.import_checkpoint import import_policy
from lightvla_ros.export.published import INDEX

SEEDS = 200
Q_PROJ = 'language_model.model.layers.0.self_attn.q_proj.weight'
ODD = [
    None, True, False, 0, 1, -1, 3, 1.5, float('nan'), float('inf'), 10**400, '', 'x', '../../x',
    'a\nb', 'x' * 5000, [], {}, [[]], [None], [1, 2], {'a': {}}, '\x00',
]  # fmt: skip
DTYPES = [
    torch.int8, torch.int32, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float64,
    torch.float16,
]  # fmt: skip


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz') / 'whole'
    tensors = write_published(folder, tiny_published_config())
    write_adapter(folder, {Q_PROJ: tensors[Q_PROJ]})
    return folder


def replace(path, content):
    """Write another file in the place of a hard link."""
    path.unlink()
    path.write_bytes(content)


def places(value, found=()):
    """Yield the path to every field of a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(pairs):
        yield (*found, key)
        if isinstance(each, dict | list):
            yield from places(each, (*found, key))


def change_document(path, chance):
    document = json.loads(path.read_text())
    for _ in range(chance.choice((1, 1, 2))):
        *way, last = chance.choice(list(places(document)))
        inner = document
        for key in way:
            inner = inner[key]
        match chance.randrange(4):
            case 0:
                del inner[last]
            case 1 if isinstance(inner, dict):
                inner[f'new_{last}'] = chance.choice(ODD)
            case _:
                inner[last] = chance.choice(ODD)
        if not document:
            break
    replace(path, json.dumps(document).encode())


def change_bytes(path, chance):
    content = bytearray(path.read_bytes())
    match chance.randrange(7):
        case 0:
            del content[chance.randrange(len(content)) :]
        case 1:
            content.clear()
        case 2:
            # the header, where a safetensors file says what follows
            for _ in range(chance.randrange(1, 9)):
                content[chance.randrange(min(600, len(content)))] = chance.randrange(256)
        case 3:
            for _ in range(chance.randrange(1, 30)):
                content[chance.randrange(len(content))] = chance.randrange(256)
        case 4:
            place = chance.randrange(min(600, len(content)))
            content[place:place] = chance.randbytes(chance.randrange(1, 9))
        case 5:
            content[:] = b'version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 42\n'
        case 6:
            content[:] = b'[' * 100_000
    replace(path, bytes(content))


def change_kind(path, chance):
    """Something else in the place of the file."""
    path.unlink()
    match chance.randrange(4):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to('../../blobs/0123')
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.with_name(f'{path.stem}_ü{path.suffix}').write_bytes(b'')


def change_state(path, chance):
    """A ``.pt`` of other tensors, or of none."""
    state = torch.load(path, weights_only=True)
    name = chance.choice(list(state))
    value = state[name]
    match chance.randrange(9):
        case 0:
            del state[name]
        case 1:
            state[chance.randrange(9)] = state.pop(name)
        case 2:
            state[name] = chance.choice(ODD)
        case 3:
            state[name] = value.to(chance.choice(DTYPES))
        case 4:
            state[name] = value.float().to_sparse()
        case 5:
            state[name] = value[..., :-1] if value.dim() else value
        case 6:
            state[name] = torch.full_like(value, float('nan'))
        case 7:
            state = chance.choice((list(state), state[name], {'state_dict': state}, 3, {}))
        case 8:
            state[name] = value.to('meta')
    path.unlink()
    torch.save(state, path)


def change_header(path, chance):
    """A safetensors file that says something else of a tensor."""
    content = path.read_bytes()
    (size,) = struct.unpack('<Q', content[:8])
    header = json.loads(content[8 : 8 + size])
    name = chance.choice([name for name in header if name != '__metadata__'])
    match chance.randrange(5):
        case 0:
            header[name]['dtype'] = chance.choice(('I16', 'F16', 'F8_E4M3', 'U8', 'C64', 'BOOL', 1))
        case 1:
            header[name]['shape'] = chance.choice(
                ([], [1], [-1], header[name]['shape'][::-1], [[]])
            )
        case 2:
            header[f'{name}{chance.choice(ODD)}'] = header.pop(name)
        case 3:
            header[name.replace('.0.', '.999999.')] = header.pop(name)
        case 4:
            header[name]['data_offsets'] = [0, 10**9]
    text = json.dumps(header).encode()
    replace(path, struct.pack('<Q', len(text)) + text + content[8 + size :])


def damage(folder, chance):
    """Change one thing of a folder; return what was done, for the message."""
    path = chance.choice(sorted(path for path in folder.rglob('*') if path.is_file()))
    changes = [change_bytes, change_bytes, change_kind]
    if path.suffix == '.json':
        changes = [*changes, *[change_document] * 8]
    elif path.suffix == '.pt':
        changes = [*changes, *[change_state] * 4]
    elif path.suffix == '.safetensors':
        changes = [*changes, *[change_header] * 4]
    change = chance.choice(changes)
    change(path, chance)
    return f'{change.__name__} of {path.name}'


def test_a_damaged_download_is_one_line(whole, tmp_path):
    refused = 0
    for seed in range(SEEDS):
        chance = random.Random(seed)
        folder, policy = tmp_path / 'folder', tmp_path / 'policy'
        shutil.copytree(whole, folder, copy_function=os.link)
        done = damage(folder, chance)
        try:
            import_policy(folder, policy)
        except (CheckpointError, ContractError) as error:
            refused += 1
            text = str(error)
            assert text.isprintable(), (seed, done, text)
            assert len(text) < 1000, (seed, done, text)
            assert 'weights_only' not in text, (seed, done, text)
            assert not policy.exists(), (seed, done)
        except BaseException as error:
            raise AssertionError(f'seed {seed}, {done}: {error!r}') from error
        else:
            load_manifest(policy)
            shutil.rmtree(policy)
        shutil.rmtree(folder)
    assert refused > SEEDS / 2
    assert (whole / INDEX).is_file()  # the original was not written to
