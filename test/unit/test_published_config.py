"""What a published folder's JSON files say of the model: known, or refused by name."""

import json

import pytest
from published_folder import DINO_MEAN, DINO_STD, STATISTICS, tiny_published_config, write_published

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import CheckpointError
from lightvla_ros.export.import_checkpoint import check_published
from lightvla_ros.export.published import read_published

KEY = 'libero_spatial_no_noops'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('published') / 'folder'
    write_published(folder, tiny_published_config())
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """Links to the large files, so that each case may change the small ones."""
    folder = tmp_path / 'folder'
    folder.mkdir()
    for path in whole.iterdir():
        if path.suffix == '.json':
            (folder / path.name).write_bytes(path.read_bytes())
        else:
            (folder / path.name).symlink_to(path)
    return folder


def change(folder, name, *way, **fields):
    document = json.loads((folder / name).read_text())
    inner = document
    for key in way:
        inner = inner[key]
    inner |= fields
    (folder / name).write_text(json.dumps(document))


def check(folder):
    return check_published(read_published(folder), None)


def refused(folder, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        check(folder)
    assert str(caught.value).isprintable()


TEXT_FIELDS = {
    'rope_parameters': {'rope_theta': 10000.0, 'rope_type': 'llama3', 'factor': 8.0},
    'rope_scaling': {'type': 'linear', 'factor': 2.0},
    'hidden_act': 'gelu',
    'head_dim': 64,
    'attention_bias': True,
    'mlp_bias': True,
    'tie_word_embeddings': True,
    'num_key_value_heads': 2,
    'hidden_size': 4096,
    'num_hidden_layers': 32,
    'vocab_size': 32000,
    'model_type': 'mistral',
    'sliding_window': 4096,
    'quantization_config': {'bits': 4},
}


@pytest.mark.parametrize('field', TEXT_FIELDS)
def test_a_field_of_another_language_model_is_refused_by_name(folder, field):
    change(folder, 'config.json', 'text_config', **{field: TEXT_FIELDS[field]})
    refused(folder, rf'config.json: text_config.{field} is ')


FIELDS = {
    'timm_model_ids': ['vit_so400m_patch14_siglip_224', 'vit_large_patch14_reg4_dinov2.lvd142m'],
    'timm_override_act_layers': [None, 'quick_gelu'],
    'image_sizes': [384, 384],
    'use_fused_vision_backbone': False,
    'llm_backbone_id': 'mistral-v0.1-7b-pure',
    'quantization_config': {'load_in_4bit': True},
    'causal': True,
}


@pytest.mark.parametrize('field', FIELDS)
def test_a_field_of_another_model_is_refused_by_name(folder, field):
    change(folder, 'config.json', **{field: FIELDS[field]})
    refused(folder, rf'config.json: {field} is ')


@pytest.mark.parametrize('value', ['llama', ['llama'], 7])
def test_a_text_config_that_is_no_object_is_one_line(folder, value):
    change(folder, 'config.json', text_config=value)
    refused(folder, 'text_config is .*, not a JSON object')


@pytest.mark.parametrize('field', ['num_attention_heads', 'rms_norm_eps', 'rope_theta'])
@pytest.mark.parametrize('value', [0, -1, True, '8', float('nan'), 10**400, [4]])
def test_a_number_that_cannot_be_is_one_line(folder, field, value):
    change(folder, 'config.json', 'text_config', **{field: value})
    refused(folder, rf'text_config.{field} is .*, not a ')


def test_all_that_transformers_writes_of_the_same_model_is_understood(folder):
    """Both in full and as the newest release writes it, with rope_parameters."""
    transformers = pytest.importorskip('transformers')
    language = tiny_published_config().language
    config = transformers.LlamaConfig(
        vocab_size=language.vocabulary,
        hidden_size=language.width,
        intermediate_size=language.mlp_width,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
    )
    for text in (config.to_dict(), config.to_diff_dict()):
        assert 'rope_parameters' in text
        change(folder, 'config.json', text_config=text)
        assert check(folder) == ()
    change(folder, 'config.json', 'text_config', rope_theta=500000.0)
    refused(folder, 'rope_theta and rope_parameters disagree')


PROCESSORS = {
    'image_resize_strategy': 'letterbox',
    'tvf_do_letterbox': True,
    'input_sizes': [[3, 384, 384]] * 2,
    'tvf_crop_params': [{'output_size': [14, 14]}] * 2,
    'tvf_resize_params': [{'size': [384, 384]}] * 2,
    'use_fused_vision_backbone': False,
    'do_rescale': True,
}


@pytest.mark.parametrize('field', PROCESSORS)
def test_a_processor_that_does_something_else_is_refused_by_name(folder, field):
    change(folder, 'preprocessor_config.json', **{field: PROCESSORS[field]})
    refused(folder, rf'preprocessor_config.json: {field} is ')


TOWERS = [{'mean': DINO_MEAN, 'std': DINO_STD}, {'mean': [0.5] * 3, 'std': [0.5] * 3}]


@pytest.mark.parametrize(
    'towers',
    [
        TOWERS[::-1],
        [TOWERS[0], TOWERS[0]],
        [TOWERS[0], {'mean': [0.5] * 3, 'std': [0, 0, 0]}],
        [TOWERS[0], {'mean': [0.5] * 3, 'std': ['a'] * 3}],
        [TOWERS[0], {'mean': [0.5] * 2, 'std': [0.5] * 3}],
        [TOWERS[0], 'siglip'],
    ],
)
def test_constants_of_other_towers_are_refused(folder, towers):
    """Turned round, each tower sees a picture that it was never trained on, and nothing fails."""
    change(folder, 'preprocessor_config.json', tvf_normalize_params=towers)
    refused(folder, r'tvf_normalize_params\[.\]\.\w+ is .*the towers are DINOv2, then SigLIP')


def write_statistics(folder, document):
    (folder / 'dataset_statistics.json').write_text(json.dumps(document))


def with_part(part, **fields):
    return {KEY: STATISTICS | {part: STATISTICS[part] | fields}}


BAD_STATISTICS = {
    'proprio.mask': with_part('proprio', mask=[True] * 7 + [False]),
    'action.norm_type': with_part('action', norm_type='bounds'),
    'proprio.p99': with_part('proprio', p99=[1.0] * 8),
    'state': {KEY: STATISTICS | {'state': {}}},
    'action.q01': with_part('action', q01=['a'] * 7),
    'action.q99': with_part('action', q99=[None] * 7),
    'proprio.q99': with_part('proprio', q99=[0.5] * 7 + [float('nan')]),
    'proprio.q01': with_part('proprio', q01=[-0.5] * 7 + [True]),
    'action: q01[3]': with_part('action', q01=[-0.7, -0.6, -0.9, 3.0, -0.2, -0.2, 0.0]),
    'action.mask': with_part('action', mask=[1] * 7),
    'proprio': {KEY: STATISTICS | {'proprio': [1, 2]}},
}


@pytest.mark.parametrize('where', BAD_STATISTICS)
def test_an_error_in_statistics_names_their_file_and_field(folder, where):
    """Not the manifest that is being written."""
    import re

    write_statistics(folder, BAD_STATISTICS[where])
    refused(folder, rf'dataset_statistics\.json: {KEY}\.{re.escape(where)}')


@pytest.mark.parametrize(
    ('document', 'lead'),
    [
        (STATISTICS, r'without the name of a dataset; put them under a name: \{"NAME": '),
        ({'action': STATISTICS['action']}, 'without the name of a dataset'),
        ({}, 'holds no dataset; take the file from the folder of the training run'),
        ({KEY: None}, f'{KEY} is None, not statistics'),
    ],
)
def test_statistics_in_another_form_get_a_true_lead(folder, document, lead):
    write_statistics(folder, document)
    refused(folder, rf'dataset_statistics\.json: .*{lead}')


def test_a_dimension_without_a_range_is_named(folder, tmp_path, capsys):
    """It is legitimate, and the robot's user has to know: the number says nothing."""
    low, high = list(STATISTICS['action']['q01']), list(STATISTICS['action']['q99'])
    low[4] = high[4] = 0.25
    low[6] = high[6] = 1.0  # not normalised, so nothing is lost
    document = with_part('action', q01=low, q99=high)
    document[KEY]['proprio'] = {'q01': [-0.5] * 7 + [0.04], 'q99': [0.5] * 7 + [0.04]}
    write_statistics(folder, document)
    assert main(['import', '--checkpoint', str(folder), '--out', str(tmp_path / 'policy')]) == 0
    named = capsys.readouterr().err.splitlines()
    assert len(named) == 2
    assert 'action[4] has no range, q01 0.25 and q99 0.25: the policy always commands' in named[0]
    assert (
        'proprio[7] has no range, q01 0.04 and q99 0.04: the policy sees -1 for values up to'
        in named[1]
    )
    notes = load_manifest(tmp_path / 'policy').provenance['notes']
    assert [line.split('note: ')[1] for line in named] == notes


def test_a_proprio_mask_that_leaves_nothing_out_is_taken(folder):
    write_statistics(folder, with_part('proprio', mask=[True] * 8))
    assert check(folder) == ()
