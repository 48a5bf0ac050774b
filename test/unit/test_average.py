"""A policy between two others."""

import json
import shutil

import pytest

torch = pytest.importorskip('torch')

from small_policy import write_weights  # noqa: E402

from lightvla_ros.cli import main  # noqa: E402
from lightvla_ros.contract import load_manifest, write_manifest  # noqa: E402
from lightvla_ros.policy.tokenizer import read_tokenizer  # noqa: E402
from lightvla_ros.vla.weights import load_model  # noqa: E402


@pytest.fixture(scope='module')
def policies(small_weights, tmp_path_factory):
    """Two policies of one shape with other weights, and one without pruning."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp('policies')
    first, second = folder / 'first', folder / 'second'
    shutil.copytree(small_weights, first)
    shutil.copytree(small_weights, second)
    weights = load_file(second / 'model.safetensors')
    save_file({name: value + 1 for name, value in weights.items()}, second / 'model.safetensors')
    document = json.loads((second / 'manifest.json').read_text())
    del document['files'], document['schema_version']
    write_manifest(second, document)
    write_weights(folder / 'unpruned', 'off')
    return first, second, folder / 'unpruned'


@pytest.mark.parametrize(
    ('parts', 'averaged'),
    [
        ('all', ('',)),
        ('tokens', ('vision_backbone.', 'projector.')),
        ('decoder', ('language_model.model.layers.', 'language_model.model.norm.', 'action_head.')),
    ],
)
def test_the_named_parts_lie_between_and_all_else_is_of_the_second(
    policies, tmp_path, parts, averaged, capsys
):
    first, second, _ = policies
    out = tmp_path / 'out'
    command = ['average', str(first), str(second), '--share', '0.25', '--parts', parts]
    assert main([*command, '--out', str(out)]) == 0
    assert 'next: lightvla export --policy' in capsys.readouterr().out
    one, two, found = (load_model(each).state_dict() for each in (first, second, out))
    assert found.keys() == two.keys()
    for name, value in found.items():
        share = 0.25 if name.startswith(averaged) else 1.0
        torch.testing.assert_close(value, one[name] + share * (two[name] - one[name]))
    said = load_manifest(out).provenance['average']
    assert said['share'] == 0.25
    assert said['parts'] == parts
    assert said['first']['fingerprint'] == load_manifest(first).fingerprint
    assert load_manifest(out).provenance['from'] == load_manifest(second).provenance


def test_what_was_verified_or_calibrated_of_the_second_is_not_said_of_the_new_one(
    bundled_policy, tmp_path
):
    out = tmp_path / 'out'
    assert main(['average', str(bundled_policy), str(bundled_policy), '--out', str(out)]) == 0
    document = json.loads((out / 'manifest.json').read_text())
    assert not document['verified']
    assert not document.get('familiarity')
    assert not document.get('graphs')
    one, two = load_model(bundled_policy).state_dict(), load_model(out).state_dict()
    assert all(torch.equal(one[name], value) for name, value in two.items())


def test_policies_of_another_kind_are_refused(policies, tmp_path, capsys):
    first, _, unpruned = policies
    assert main(['average', str(first), str(unpruned), '--out', str(tmp_path / 'out')]) == 1
    said = capsys.readouterr().err
    assert 'differ in model: only policies of which one was trained from the other' in said
    assert not (tmp_path / 'out').exists()


def test_the_second_may_know_more_words_and_the_first_may_not(policies, tmp_path, capsys):
    first, second, _ = policies
    more = tmp_path / 'more'
    shutil.copytree(second, more)
    document = json.loads((more / 'tokenizer.json').read_text())
    words = document['model']['vocab']
    words['grab'] = max(words.values()) + 1
    (more / 'tokenizer.json').write_text(json.dumps(document))
    manifest = json.loads((more / 'manifest.json').read_text())
    del manifest['files'], manifest['schema_version']
    write_manifest(more, manifest)
    assert main(['average', str(first), str(more), '--out', str(tmp_path / 'out')]) == 0
    assert read_tokenizer(tmp_path / 'out/tokenizer.json').get_vocab() == words
    assert main(['average', str(more), str(first), '--out', str(tmp_path / 'back')]) == 1
    assert 'differ in tokenizer (only the second may know more' in capsys.readouterr().err
    document['normalizer'] = None
    (more / 'tokenizer.json').write_text(json.dumps(document))
    write_manifest(more, manifest)
    assert main(['average', str(first), str(more), '--out', str(tmp_path / 'other')]) == 1
