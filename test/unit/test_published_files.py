"""Files of a download that are not what they are called: one line with file and tensor each."""

import json

import pytest
import torch
from published_folder import tiny_published_config, write_published
from safetensors.torch import load_file, save_file

from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import CheckpointError, ContractError, TrainError
from lightvla_ros.export.import_checkpoint import import_policy
from lightvla_ros.export.published import INDEX
from lightvla_ros.train.checkpoint import load_checkpoint
from lightvla_ros.vla.weights import load_model

FC1 = 'projector.fc1.weight'
HEAD, PROPRIO = 'action_head--40000_checkpoint.pt', 'proprio_projector--40000_checkpoint.pt'
BIAS = 'module.fc1.bias'
LFS = b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4820000000\n'


@pytest.fixture
def folder(tmp_path):
    write_published(tmp_path / 'folder', tiny_published_config())
    return tmp_path / 'folder'


def refused(folder, match):
    policy = folder.parent / 'policy'
    with pytest.raises((CheckpointError, ContractError), match=match) as caught:
        import_policy(folder, policy)
    text = str(caught.value)
    assert text.isprintable()
    assert 'weights_only' not in text
    assert not policy.exists()


def change_shard(folder, name, change):
    shard = folder / json.loads((folder / INDEX).read_text())['weight_map'][name]
    tensors = load_file(shard)
    tensors[name] = change(tensors[name])
    save_file(tensors, shard)
    return shard.name


def change_pt(folder, change, file=PROPRIO):
    state = torch.load(folder / file, weights_only=True)
    torch.save(change(state), folder / file)


KINDS = {
    'I8': torch.int8, 'I32': torch.int32, 'BOOL': torch.bool, 'C64': torch.complex64,
    'F8_E4M3': torch.float8_e4m3fn,
}  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_weights_of_another_kind_are_refused_by_file_and_name(folder, kind):
    """A quantised weight without its scale is another weight, and nothing else says so."""
    shard = change_shard(folder, FC1, lambda weight: (weight * 100).to(KINDS[kind]))
    refused(folder, rf'{shard}: {FC1} holds {kind} numbers; weights must be fp32, fp16')


PT_KINDS = {
    'integers': (lambda value: value.int(), 'holds int32 numbers'),
    'complex numbers': (lambda value: value.to(torch.complex64), 'holds complex64 numbers'),
    'float8': (lambda value: value.to(torch.float8_e4m3fn), 'holds float8_e4m3fn numbers'),
    'a sparse tensor': (lambda value: value.to_sparse(), 'is sparse; only dense'),
    'a quantised tensor': (
        lambda value: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
        'is quantised; only dense',
    ),
    'a tensor without numbers': (lambda value: value.to('meta'), 'holds no numbers'),
    'a number': (lambda _: 3.0, 'is a float, not a tensor'),
}


@pytest.mark.filterwarnings('ignore::UserWarning')  # PyTorch's own, on what it makes here
@pytest.mark.parametrize('kind', PT_KINDS)
def test_a_pt_file_with_other_than_dense_weights_is_refused(folder, kind):
    change, message = PT_KINDS[kind]
    change_pt(folder, lambda state: state | {BIAS: change(state[BIAS])})
    refused(folder, rf'{PROPRIO}: {BIAS} {message}')


@pytest.mark.parametrize('number', [torch.float64, torch.float32, torch.float16])
def test_dense_floats_of_any_width_are_taken(folder, number):
    change_shard(folder, FC1, lambda weight: weight.to(number))
    import_policy(folder, folder.parent / 'policy')
    assert load_model(folder.parent / 'policy').projector.fc1.weight.dtype == number


def test_views_in_a_pt_file_are_taken_for_what_they_show(folder):
    """Not contiguous, and two names for one memory: safetensors can write neither."""
    wanted = torch.randn(32, 32)
    shared = torch.randn(64)

    def change(state):
        return state | {
            'module.fc2.weight': wanted.t().contiguous().t(),
            'module.fc1.bias': shared[:32],
            'module.fc2.bias': shared[16:48],
        }

    change_pt(folder, change)
    import_policy(folder, folder.parent / 'policy')
    projector = load_model(folder.parent / 'policy').proprio_projector
    assert torch.equal(projector.fc2.weight, wanted)
    assert torch.equal(projector.fc2.bias, shared[16:48])


class Payload:
    """What a hostile pickle does."""

    def __reduce__(self):
        return (print, ('executed',))


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def saving(content):
    return lambda path: torch.save(content, path)


PT_FILES = {
    'cut short': (cut(0.5), 'damaged or cut short; download it again'),
    'cut at its end': (cut(0.99), 'damaged or cut short; download it again'),
    'empty': (cut(0), 'damaged or cut short; download it again'),
    'text': (lambda path: path.write_text('<html>404</html>'), 'damaged or cut short'),
    'of integer keys': (saving({0: torch.zeros(3)}), 'does not hold named tensors'),
    'a list': (saving([torch.zeros(3)]), 'does not hold named tensors'),
    'a tensor': (saving(torch.zeros(3)), 'does not hold named tensors'),
    'of nested states': (saving({'model': {'a': torch.zeros(3)}}), 'model is a dict, not a tensor'),
    'with a call inside': (
        saving({'a': Payload()}),
        'holds a (builtins.)?print, and downloaded code',
    ),
    'with a module inside': (saving(torch.nn.Linear(2, 2)), 'holds a torch.nn.modules.linear'),
    'of an endless name': (saving({'a' * 300: torch.zeros(3)}), 'is not a valid tensor name'),
    'of a name with line ends': (saving({'a\nb': torch.zeros(3)}), 'is not a valid tensor name'),
}


@pytest.mark.parametrize('fault', PT_FILES)
def test_a_pt_file_that_is_none_is_one_line(folder, fault, capsys):
    change, message = PT_FILES[fault]
    change(folder / HEAD)
    refused(folder, rf'{HEAD}: .*{message}')
    assert 'executed' not in capsys.readouterr().out


def test_a_training_state_that_is_none_is_one_line_without_bad_advice(tmp_path):
    """PyTorch's own text advises to execute what the file holds."""
    path = tmp_path / 'checkpoint.pt'
    for content in ({'form': 1, 'a': Payload()}, torch.nn.Linear(2, 2)):
        torch.save(content, path)
        with pytest.raises(TrainError, match='damaged, or not a checkpoint') as caught:
            load_checkpoint(path)
        assert 'weights_only' not in str(caught.value)


INDICES = {
    'a null': (None, "weight_map gives None for projector.fc1.weight, which is not a file of this"),
    'a number': (7, 'weight_map gives 7 for'),
    'a list': (['model-00001-of-00003.safetensors'], 'which is not a file of this folder'),
    'a way out of the folder': ('../model.safetensors', "gives '../model.safetensors' for"),
    'an absolute path': ('/etc/passwd', "gives '/etc/passwd' for"),
    'a shard that is missing': ('model-9.safetensors', 'model-9.safetensors: named in .* missing'),
    'nothing': ('', "gives '' for"),
}  # fmt: skip


@pytest.mark.parametrize('fault', INDICES)
def test_an_index_that_names_no_shard_is_one_line(folder, fault):
    value, message = INDICES[fault]
    index = json.loads((folder / INDEX).read_text())
    index['weight_map'][FC1] = value
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, message)


@pytest.mark.parametrize(
    'name',
    [
        'model-00002-of-00003.safetensors', INDEX, HEAD, 'config.json', 'dataset_statistics.json',
        'preprocessor_config.json', 'tokenizer.json',
    ],
)  # fmt: skip
def test_a_git_lfs_pointer_is_called_one(folder, name):
    (folder / name).write_bytes(LFS)
    refused(folder, rf'{name}: is a Git LFS pointer, not the file itself; fetch it with: git lfs')


@pytest.mark.parametrize('name', ['model.safetensors', 'tokenizer.json', 'manifest.json'])
def test_a_git_lfs_pointer_in_a_policy_folder_is_called_one(small_weights, tmp_path, name):
    import shutil

    policy = shutil.copytree(small_weights, tmp_path / 'policy')
    (policy / name).write_bytes(LFS)
    with pytest.raises(ContractError, match=rf'{name}: is a Git LFS pointer'):
        load_manifest(policy)


def test_a_field_that_stands_twice_in_a_json_file_is_refused(folder):
    text = (folder / 'config.json').read_text()
    (folder / 'config.json').write_text(f'{{"model_type": "x", {text[1:]}')
    refused(folder, r"config.json: not JSON: the field 'model_type' occurs twice")


def test_a_layer_that_is_missing_among_many_does_not_make_a_model_of_any_depth(folder):
    """One tensor renamed to layer 999999 built a million layers before it was refused."""
    name = 'language_model.model.layers.1.input_layernorm.weight'
    index = json.loads((folder / INDEX).read_text())
    shard = folder / index['weight_map'].pop(name)
    tensors = load_file(shard)
    other = name.replace('.1.', '.999999.')
    tensors[other] = tensors.pop(name)
    save_file(tensors, shard)
    index['weight_map'][other] = shard.name
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, r'language_model.model.layers.2 is missing; download it again')


def test_parts_of_two_steps_are_refused_with_both_names(folder):
    (folder / PROPRIO).rename(folder / 'proprio_projector--50000_checkpoint.pt')
    refused(
        folder,
        r'action_head--40000_checkpoint.pt is from step 40000, proprio_projector'
        r'--50000_checkpoint.pt from step 50000; use parts from one step',
    )


def test_a_run_folder_of_another_step_than_its_parts_is_refused(folder):
    run = folder.rename(folder.parent / 'openvla-7b+libero--50000_chkpt')
    refused(
        run, r'--50000_chkpt/ is from step 50000, action_head--40000_checkpoint.pt from step 40000'
    )
    import_policy(run.rename(folder.parent / 'run--40000_chkpt'), folder.parent / 'policy')
