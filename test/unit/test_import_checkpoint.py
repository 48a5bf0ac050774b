"""Published checkpoint folders in the true format at tiny size: imported, and broken."""

import json

import pytest
import torch
from published_folder import STATISTICS, tiny_published_config, write_adapter, write_published
from safetensors.torch import load_file, save_file

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import CheckpointError, ContractError
from lightvla_ros.export.import_checkpoint import import_policy
from lightvla_ros.export.published import INDEX, dropped_shapes
from lightvla_ros.policy.policy import Policy
from lightvla_ros.vla.config import PrunerConfig, preset
from lightvla_ros.vla.weights import load_model, used_shapes

Q_PROJ = 'language_model.model.layers.0.self_attn.q_proj.weight'
FC1 = 'projector.fc1.weight'


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / 'LightVLA-libero-spatial'
    return folder, write_published(folder)


def count(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def test_the_published_vla_is_accounted_for_to_the_last_parameter():
    config = preset('openvla-oft-7b', pruning=PrunerConfig('off'))
    used, dropped = used_shapes(config), dropped_shapes(config)
    vla = {n: s for n, s in used.items() if not n.startswith(('action_head', 'proprio_proj'))}
    assert not vla.keys() & dropped.keys()
    assert count(vla) + count(dropped) == 7_541_237_184
    towers = {
        stem: count({n: s for n, s in (vla | dropped).items() if f'.{stem}.' in n})
        for stem in ('featurizer', 'fused_featurizer')
    }
    assert towers == {'featurizer': 303_230_976, 'fused_featurizer': 427_680_704}
    assert {n.split('.')[2] for n in dropped if '.featurizer.' in n} == {'blocks', 'norm'}
    assert {n.split('.')[3] for n in dropped if '.featurizer.blocks' in n} == {'23'}
    assert {n.split('.')[3] for n in dropped if '.fused_featurizer.blocks' in n} == {'26'}


def test_import_keeps_every_used_tensor_and_names_the_rest(published, tmp_path):
    folder, tensors = published
    manifest = import_policy(folder, tmp_path / 'policy')
    model = load_model(tmp_path / 'policy')
    state = model.state_dict()
    config = tiny_published_config()
    assert model.config == config
    assert state.keys() == used_shapes(config).keys()
    for name, value in state.items():
        assert value.dtype == tensors[name].dtype
        assert torch.equal(value, tensors[name])
    dropped = set(manifest.provenance['dropped'])
    assert dropped == dropped_shapes(config).keys()
    assert dropped | state.keys() == tensors.keys()


def test_the_manifest_says_what_the_folder_says(published, tmp_path):
    folder, _ = published
    import_policy(folder, tmp_path / 'policy', action_slice='release')
    manifest = load_manifest(tmp_path / 'policy')
    assert manifest.preprocessing.normalisation[0].mean == (0.484375, 0.455078125, 0.40625)
    assert manifest.action.q99 == tuple(STATISTICS['action']['q99'])
    assert manifest.action.mask == (True,) * 6 + (False,)
    assert manifest.proprio.q01 == (-0.5,) * 8
    assert manifest.prompt.append_ids == (29871,)
    assert manifest.action.slice == 'release'
    assert load_model(tmp_path / 'policy').config.action_slice == 'release'
    assert manifest.provenance['lora'] == 'none'
    with pytest.raises(ContractError, match='weights but no graphs'):
        Policy.load(tmp_path / 'policy', unchecked=True)


def test_an_imported_model_runs(published, tmp_path):
    folder, _ = published
    import_policy(folder, tmp_path / 'policy')
    model = load_model(tmp_path / 'policy', torch.float32)
    ids = torch.tensor([[1, 50, 60, 29871]])
    with torch.no_grad():
        output = model(
            torch.randn(1, 2, 6, 28, 28), ids, torch.ones_like(ids, dtype=torch.bool),
            torch.zeros(1, 8),
        )  # fmt: skip
    assert torch.isfinite(output.actions).all()
    assert output.actions.shape == (1, 8, 7)


def edit_shard(folder, name, value):
    """Change (or with None remove) one tensor where it lies."""
    shard = folder / json.loads((folder / INDEX).read_text())['weight_map'][name]
    tensors = load_file(shard)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    save_file(tensors, shard)


def test_an_adapter_beside_merged_weights_is_not_merged_again(published, tmp_path):
    folder, tensors = published
    deltas = write_adapter(folder, {name: tensors[name] for name in (Q_PROJ, FC1)})
    for name, delta in deltas.items():
        edit_shard(folder, name, (tensors[name].float() + delta).bfloat16())
    manifest = import_policy(folder, tmp_path / 'policy')
    assert manifest.provenance['lora'] == 'already merged'
    state = load_model(tmp_path / 'policy').state_dict()
    for name, delta in deltas.items():
        assert torch.equal(state[name], (tensors[name].float() + delta).bfloat16())


def test_an_adapter_beside_base_weights_is_merged(published, tmp_path):
    folder, tensors = published
    deltas = write_adapter(folder, {name: tensors[name] for name in (Q_PROJ, FC1)})
    manifest = import_policy(folder, tmp_path / 'policy')
    assert manifest.provenance['lora'] == 'merged now'
    state = load_model(tmp_path / 'policy').state_dict()
    for name, delta in deltas.items():
        assert torch.equal(state[name], (tensors[name].float() + delta).bfloat16())


def test_half_an_adapter_in_the_weights_is_refused(published, tmp_path):
    folder, tensors = published
    deltas = write_adapter(folder, {FC1: tensors[FC1]})
    edit_shard(folder, FC1, (tensors[FC1].float() + deltas[FC1] / 2).bfloat16())
    with pytest.raises(CheckpointError, match=r'a share of 0\.\d+ of it is merged'):
        import_policy(folder, tmp_path / 'policy')


def test_a_lone_adapter_takes_its_weights_from_the_base(published, tmp_path):
    folder, tensors = published
    deltas = write_adapter(folder, {FC1: tensors[FC1]})
    base = tmp_path / 'base'
    base.mkdir()
    for path in [*folder.glob('model-*'), folder / INDEX]:
        path.rename(base / path.name)
    with pytest.raises(CheckpointError, match='--base DIR'):
        import_policy(folder, tmp_path / 'policy')
    import_policy(folder, tmp_path / 'policy', base=base)
    wanted = (tensors[FC1].float() + deltas[FC1]).bfloat16()
    assert torch.equal(load_model(tmp_path / 'policy').state_dict()[FC1], wanted)


def change_json(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class Payload:
    """What a hostile pickle does."""

    def __reduce__(self):
        return (print, ('executed',))


def hostile_pickle(folder):
    torch.save({'module.fc': Payload()}, folder / 'action_head--40000_checkpoint.pt')


def cut_a_shard(folder):
    shard = next(folder.glob('model-*.safetensors'))
    shard.write_bytes(shard.read_bytes()[:-100])


BROKEN = {
    'a shard is not downloaded': (
        lambda f: sorted(f.glob('model-*'))[1].unlink(),
        'model-00002-of-00003.safetensors: named in .* but missing',
    ),
    'a shard is cut short': (cut_a_shard, 'damaged or cut short'),
    'a tensor is missing': (lambda f: edit_shard(f, FC1, None), 'lacks projector.fc1.weight'),
    'a tensor has another shape': (
        lambda f: edit_shard(f, Q_PROJ, torch.zeros(3, 3).bfloat16()),
        r'q_proj.weight has shape \(3, 3\), not \(32, 32\)',
    ),
    'a tensor holds NaN': (
        lambda f: edit_shard(f, FC1, torch.full((64, 80), torch.nan).bfloat16()),
        'projector.fc1.weight holds NaN',
    ),
    'a tensor is of another model': (
        lambda f: save_file({'lm_head.bias': torch.zeros(2)}, sorted(f.glob('model-*'))[0]),
        'holds lm_head.bias, but .* does not list it',
    ),
    'there is no head': (
        lambda f: next(f.glob('action_head--*')).unlink(),
        r'0 files action_head--\*_checkpoint.pt',
    ),
    'there are two heads': (
        lambda f: (f / 'action_head--5000_checkpoint.pt').write_bytes(b''),
        r'2 files action_head--\*_checkpoint.pt; exactly one',
    ),
    'a pickle wants to run code': (hostile_pickle, 'not plain weights'),
    'statistics are missing': (
        lambda f: (f / 'dataset_statistics.json').unlink(),
        'dataset_statistics.json: is missing',
    ),
    'statistics lack proprio': (
        lambda f: change_json(f, 'dataset_statistics.json', libero_spatial_no_noops={
            'action': STATISTICS['action']
        }),
        'libero_spatial_no_noops.proprio.q01: must be a list of 8 finite numbers',
    ),
    'a config is cut short': (lambda f: (f / 'config.json').write_text('{"a": '), 'not JSON'),
    'the towers are others': (
        lambda f: change_json(f, 'config.json', vision_backbone_id='clip-vit-l'),
        "vision_backbone_id is 'clip-vit-l'",
    ),
    'the processor has one tower': (
        lambda f: change_json(f, 'preprocessor_config.json', tvf_normalize_params=[{}]),
        'tvf_normalize_params must list two towers',
    ),
    'there is no fast tokenizer': (
        lambda f: (f / 'tokenizer.json').unlink(),
        'tokenizer.json: is missing; make it with transformers',
    ),
    'it uses FiLM': (
        lambda f: (f / 'vision_backbone--40000_checkpoint.pt').write_bytes(b''),
        'FiLM checkpoint',
    ),
    'it is a diffusion policy': (
        lambda f: (f / 'noisy_action_projector--40000_checkpoint.pt').write_bytes(b''),
        'diffusion checkpoint',
    ),
    'the adapter lacks its weights': (
        lambda f: (f / 'lora_adapter').mkdir(),
        'adapter_config.json: is missing',
    ),
}  # fmt: skip


@pytest.mark.parametrize('fault', BROKEN)
def test_a_broken_folder_is_refused_with_its_fault(published, tmp_path, fault, capsys):
    folder, _ = published
    breaking, message = BROKEN[fault]
    breaking(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        import_policy(folder, tmp_path / 'policy')
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'policy').exists()  # nothing half-written is left
    assert 'executed' not in capsys.readouterr().out


def test_an_unnorm_key_that_is_missing_lists_those_there(tmp_path, capsys):
    folder = tmp_path / 'folder'
    write_published(folder, keys=('libero_goal_no_noops', 'libero_object_no_noops'))
    listed = 'libero_goal_no_noops, libero_object_no_noops'
    with pytest.raises(CheckpointError, match=f'several datasets.*{listed}'):
        import_policy(folder, tmp_path / 'policy')
    command = ['import', '--checkpoint', str(folder), '--out', str(tmp_path / 'policy')]
    assert main([*command, '--unnorm-key', 'bridge_orig']) == 1
    assert f"no dataset 'bridge_orig' (unnorm_key); it has: {listed}" in capsys.readouterr().err
    assert main([*command, '--unnorm-key', 'libero_goal_no_noops']) == 0
    assert main([*command, '--unnorm-key', 'libero_goal_no_noops']) == 1
    assert 'is not empty' in capsys.readouterr().err
