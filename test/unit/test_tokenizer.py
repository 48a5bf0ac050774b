"""Tokenizers that would tell a robot something else than its user: refused, or mended and said."""

import json
import shutil

import numpy as np
import pytest
from published_folder import tiny_published_config, write_published
from small_policy import export
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from lightvla_ros.cli import main
from lightvla_ros.contract import MANIFEST_NAME, load_manifest, write_manifest
from lightvla_ros.errors import ContractError
from lightvla_ros.export.import_checkpoint import check_published, import_policy
from lightvla_ros.export.published import read_published
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.tokenizer import check_tokenizer, read_tokenizer
from lightvla_ros.verify.verify import verify
from lightvla_ros.vla.word_tokenizer import word_tokenizer

TEMPLATE = 'In: What action should the robot take to {instruction}?\nOut:'


@pytest.fixture(scope='module')
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp('published') / 'folder'
    write_published(folder, tiny_published_config())
    return folder


@pytest.fixture
def folder(published, tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    for path in published.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def change(folder, edit):
    """Put a changed tokenizer in the place of the link."""
    path = folder / 'tokenizer.json'
    tokenizer = Tokenizer.from_file(str(path))
    edit(tokenizer)
    path.unlink()
    tokenizer.save(str(path))


def end_token(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 1), ('</s>', 2)]
    )


def no_begin(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(single='$A', special_tokens=[])


def begin_behind(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single='$A <s>', special_tokens=[('<s>', 1)]
    )


def other_begin(tokenizer):
    tokenizer.post_processor = processors.TemplateProcessing(
        single='</s> $A', special_tokens=[('</s>', 2)]
    )


def begin_twice(tokenizer):
    tokenizer.normalizer = normalizers.Prepend('<s> ')


def one_token(tokenizer):
    tokenizer.pre_tokenizer = None


def loses_words(tokenizer):
    tokenizer.normalizer = normalizers.Replace('the ', '')


def foreign_ids(tokenizer):
    tokenizer.model = models.WordLevel(
        {'<unk>': 0, '<s>': 1, '</s>': 2, 'pick': 40000}, unk_token='<unk>'
    )


WRONG = {
    'an end token': (end_token, r'adds the tokens \[1, 2\] to a prompt'),
    'no begin token': (no_begin, r'adds the tokens \[\] to a prompt'),
    'the begin token behind': (begin_behind, 'puts token 1 after the prompt, not before it'),
    'another begin token': (other_begin, r'must begin with id 1 \(BOS\), not 2'),
    'the begin token twice': (begin_twice, 'gives the begin token 1 also within a prompt'),
    'all words in one token': (one_token, 'one more word does not give more ids'),
    'words left out': (loses_words, 'one more word does not give more ids'),
    'ids outside the vocabulary': (foreign_ids, 'ids up to 40000, .* embeddings for 32064'),
}  # fmt: skip


@pytest.mark.parametrize('fault', WRONG)
def test_a_tokenizer_with_a_wrong_encoding_is_refused_at_import(folder, fault):
    edit, message = WRONG[fault]
    change(folder, edit)
    with pytest.raises(Exception, match=rf'tokenizer.json: .*{message}') as caught:
        check_published(read_published(folder), None)
    assert type(caught.value).__name__ in ('ContractError', 'CheckpointError')
    assert str(caught.value).isprintable()


def test_truncation_and_padding_are_taken_out_and_said_at_import(folder, tmp_path, capsys):
    """The published code sets both anew in each call, so its policies never saw them."""

    def edit(tokenizer):
        tokenizer.enable_truncation(12)
        tokenizer.enable_padding(length=40)

    change(folder, edit)
    assert main(['import', '--checkpoint', str(folder), '--out', str(tmp_path / 'policy')]) == 0
    said = capsys.readouterr().err
    assert 'tokenizer.json: it stores a truncation setting; the policy folder leaves it out' in said
    assert 'tokenizer.json: it stores a padding setting; the policy folder leaves it out' in said
    tokenizer = read_tokenizer(tmp_path / 'policy' / 'tokenizer.json')
    long = TEMPLATE.replace('{instruction}', 'pick up the robot and place it on the robot')
    assert len(tokenizer.encode(long).ids) > 12
    assert tokenizer.encode(long).ids != tokenizer.encode(long.replace('on', 'in')).ids
    assert len(load_manifest(tmp_path / 'policy').provenance['notes']) == 2


def test_an_untouched_tokenizer_is_copied_byte_for_byte(folder, tmp_path):
    import_policy(folder, tmp_path / 'policy')
    copied = (tmp_path / 'policy' / 'tokenizer.json').read_bytes()
    assert copied == (folder / 'tokenizer.json').read_bytes()


def rewrite(policy, edit):
    """Change a policy's tokenizer, and hash its files anew: made so, not damaged."""
    path = policy / 'tokenizer.json'
    tokenizer = Tokenizer.from_file(str(path))
    edit(tokenizer)
    path.unlink()
    tokenizer.save(str(path))
    write_manifest(policy, json.loads((policy / MANIFEST_NAME).read_text()))


@pytest.fixture
def policy(small_policy, tmp_path):
    return shutil.copytree(small_policy, tmp_path / 'policy')


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda tokenizer: tokenizer.enable_truncation(12), 'truncation is stored inside'),
        (lambda tokenizer: tokenizer.enable_padding(length=40), 'padding is stored inside'),
        (end_token, 'adds the tokens'),
        (foreign_ids, 'ids up to 40000, the policy has embeddings for 80'),
    ],
)
def test_a_policy_whose_tokenizer_misleads_does_not_load(policy, tmp_path, capsys, edit, message):
    """With truncation inside, the robot did the same whatever it was told."""
    rewrite(policy, edit)
    for engine in ('onnxruntime', 'torch'):
        with pytest.raises(ContractError, match=message):
            Policy.load(policy, engine, unchecked=True)
    assert main(['verify', str(policy), '--engine', 'onnxruntime']) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(ContractError, match=message):
        export(policy, tmp_path / 'out')


def test_verify_refuses_a_policy_that_cannot_tell_its_instructions_apart(policy):
    """Neither ``milk`` nor ``ketchup`` is a word of this one: both are ``<unk>``."""

    def forget(tokenizer):
        known = {word: i for word, i in tokenizer.get_vocab().items() if i < 20}
        tokenizer.model = models.WordLevel(known, unk_token='<unk>')

    with np.load(policy / 'golden.npz') as file:
        golden = dict(file)
    golden['instruction'] = np.array(['pick up the milk', 'pick up the ketchup', 'hold'])
    np.savez(policy / 'golden.npz', **golden)
    rewrite(policy, forget)
    with pytest.raises(
        ContractError, match="'pick up the milk' and 'pick up the ketchup' become the same prompt"
    ):
        verify(policy, only='onnxruntime', count=0)


def test_what_this_project_and_llama_encode_with_passes(tmp_path):
    assert check_tokenizer(word_tokenizer(), tmp_path, TEMPLATE, 80) == 1
    # SentencePiece's way: a piece of its own for the space in front, bytes for the rest
    pieces = ['<unk>', '<s>', '</s>', *[f'<0x{byte:02X}>' for byte in range(256)], '▁']
    llama = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)}, [], unk_token='<unk>',
            byte_fallback=True, fuse_unk=True,
        )
    )  # fmt: skip
    llama.normalizer = normalizers.Sequence(
        [normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')]
    )
    llama.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
    )
    assert check_tokenizer(llama, tmp_path, TEMPLATE, 32064) == 1
    llama.normalizer = None
    llama.pre_tokenizer = pre_tokenizers.Metaspace()
    assert check_tokenizer(llama, tmp_path, TEMPLATE, 32064) == 1
