"""Other words for the requests of the data, and words that a policy did not know before."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import train_rig

torch = pytest.importorskip('torch')

from lightvla_ros.contract import load_manifest  # noqa: E402
from lightvla_ros.errors import ConfigError, TrainError  # noqa: E402
from lightvla_ros.policy.tokenizer import read_tokenizer  # noqa: E402
from lightvla_ros.train.config_file import from_dict  # noqa: E402
from lightvla_ros.train.config_sources import Paraphrases  # noqa: E402
from lightvla_ros.train.dry_run import dry_run  # noqa: E402
from lightvla_ros.train.parallel import Process  # noqa: E402
from lightvla_ros.train.paraphrases import (  # noqa: E402
    Rule,
    Rules,
    all_texts,
    paraphrases,
    read_rules,
)
from lightvla_ros.train.run import Run  # noqa: E402
from lightvla_ros.vla.word_tokenizer import with_words, word_tokenizer  # noqa: E402

MILK = 'pick up the milk and place it in the basket'
BUNDLED = str(Path(__file__).parents[2] / 'config/paraphrases/libero.yaml')


def write(folder, text):
    path = folder / 'rules.yaml'
    path.write_text(text)
    return str(path)


def test_every_part_that_a_rule_fits_stays_or_is_said_in_one_of_the_other_ways():
    rules = Rules(
        (
            Rule('pick up (.*) and place it', (r'put \1',)),
            Rule('pick up', ('take', 'grab')),
            Rule('the', ('',)),
        )
    )
    verbs = '(put|(pick up|take|grab))'
    found = paraphrases(MILK.capitalize(), rules)
    form = re.compile(rf'{verbs}( the)? milk( and place it)? in( the)? basket')
    assert all(form.fullmatch(text) for text in found)
    assert MILK not in found  # what was recorded is no paraphrase
    # put, or three verbs with the second half; with and without each article; all but the recorded
    assert len(found) == 4 * 4 - 1
    assert found == sorted(found) == paraphrases(MILK, rules)


def test_a_pattern_fits_whole_words_alone():
    assert paraphrases('other things on the table', Rules((Rule('the', ('',)),))) == [
        'other things on table'
    ]


def test_the_rules_of_libero_tell_all_of_its_requests_apart(bundled_policy):
    from lightvla_ros.policy.prompt import STOP_WORDS, PromptEncoder, stop_words_in

    things = ('alphabet soup', 'bbq sauce', 'butter', 'cream cheese', 'ketchup', 'milk')
    requests = [MILK.replace('milk', thing) for thing in things]
    bowl = 'pick up the black bowl {} and place it on the plate'
    places = (
        'between the plate and the ramekin',
        'next to the ramekin',
        'from table center',
        'on the cookie box',
        'in the top drawer of the wooden cabinet',
        'on the ramekin',
        'next to the cookie box',
        'on the stove',
        'next to the plate',
        'on the wooden cabinet',
    )
    requests += [bowl.format(place) for place in places]
    texts = all_texts(requests, Paraphrases(BUNDLED))
    assert [each[0] for each in texts] == requests
    assert min(map(len, texts)) > 50
    # each fits into the prompt, and holds no word that stops the robot
    manifest = load_manifest(bundled_policy)
    encode = PromptEncoder(manifest.prompt, bundled_policy / 'tokenizer.json')
    for text in (text for each in texts for text in each):
        encode(text)
        assert not re.search('[^a-z ]|  ', text)
        assert not stop_words_in(text, STOP_WORDS)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('rules:\n- {pattern: the, other: [a]}', r'rules\[0\].other is unknown'),
        ('rules:\n- {pattern: the, others: []}', "'the' has no others"),
        ("rules:\n- {pattern: 'pick (up', others: [take]}", "rule 'pick .up': missing"),
        ("rules:\n- {pattern: pick up, others: ['take \\1']}", "rule 'pick up': invalid group"),
        ('rules: 3', 'rules: a list is needed'),
        ('', 'a mapping is needed'),
        ("rules:\n- {pattern: '(very )?', others: [a]}", 'also fits where no word is'),
        ("rules:\n- {pattern: 'the)|(milk', others: [a]}", "'the.*milk': unbalanced"),
    ],
)
def test_a_wrong_rule_is_named_with_its_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f'rules.yaml: .*{message}'):
        read_rules(path)


def test_rules_that_make_two_requests_one_are_refused(tmp_path):
    rules = write(tmp_path, 'rules:\n- {pattern: milk|butter, others: [it]}')
    with pytest.raises(TrainError, match="'pick up the it.*' can mean .*milk.* and .*butter"):
        all_texts([MILK, MILK.replace('milk', 'butter')], Paraphrases(rules))


def test_a_request_without_other_words_is_named(tmp_path):
    rules = write(tmp_path, 'rules:\n- {pattern: butter, others: [it]}')
    with pytest.raises(TrainError, match=f'no rule says {MILK!r} in other words'):
        all_texts([MILK], Paraphrases(rules))


@pytest.mark.parametrize(
    ('requests', 'rules'),
    [
        (('Take the milk', 'pick up the milk'), '{pattern: take|pick up, others: [lift, take]}'),
        (('pick up the milk', 'lift the milk'), '{pattern: pick up|lift, others: [Grab]}'),
    ],
)
def test_texts_that_differ_in_case_alone_are_one(tmp_path, requests, rules):
    path = write(tmp_path, f'rules:\n- {rules}')
    with pytest.raises(TrainError, match='can mean'):
        all_texts(requests, Paraphrases(path))


def test_one_request_in_two_cases_is_no_contradiction(tmp_path):
    path = write(tmp_path, 'rules:\n- {pattern: pick up, others: [take]}')
    texts = all_texts(('Pick up the milk', 'pick up  the milk'), Paraphrases(path))
    assert [each[1:] for each in texts] == [('take the milk',)] * 2


def test_a_rule_that_fits_no_request_is_told(tmp_path, caplog):
    rules = '- {pattern: pick up, others: [take]}\n- {pattern: Milk, others: [it]}'
    all_texts([MILK], Paraphrases(write(tmp_path, f'rules:\n{rules}')))
    assert "the rule 'Milk' fits no request" in caplog.text
    assert 'pick up' not in caplog.text


def test_a_rule_that_empties_a_request_is_refused(tmp_path):
    rules = write(tmp_path, "rules:\n- {pattern: '.+', others: ['']}")
    with pytest.raises(TrainError, match=f"'' for {MILK!r}: it is empty"):
        all_texts([MILK], Paraphrases(rules))


def test_a_run_does_not_go_on_with_other_rules(tmp_path):
    """Words that a rule adds would take the ids of others."""
    data = train_rig.write_file(tmp_path / 'data')
    rules = write(tmp_path, 'rules:\n- {pattern: pick up, others: [grab]}')
    document = train_rig.document(data, steps=2, log_every=1)
    document['data'] |= {'paraphrases': {'rules': rules}}
    config = from_dict(document)
    here = Process(0, 1, torch.device('cpu'))
    Run(config, tmp_path / 'run', here).train()
    known = (tmp_path / 'run/tokenizer.json').read_bytes()
    said = load_manifest(tmp_path / 'run/policy').provenance['data']['mappings'][rules]
    assert said == {'rules': [{'pattern': 'pick up', 'others': ['grab']}]}
    write(tmp_path, 'rules:\n- {pattern: pick up, others: [grab, fetch]}')
    with pytest.raises(TrainError, match='rules.yaml has another content than when the run began'):
        Run(config, tmp_path / 'run', here, resume=True)
    assert (tmp_path / 'run/tokenizer.json').read_bytes() == known
    write(tmp_path, 'rules:\n- {pattern: pick up, others: [grab]}')
    Run(config, tmp_path / 'run', here, resume=True)


def test_a_dry_run_reads_the_rules(tmp_path):
    document = train_rig.document('x')
    document['data'] |= {'paraphrases': {'rules': str(tmp_path / 'none.yaml')}}
    with pytest.raises(ConfigError, match='none.yaml: cannot be read'):
        dry_run(from_dict(document), tmp_path / 'run')


def test_a_share_of_the_frames_is_shown_in_other_words(tmp_path):
    rules = write(tmp_path, 'rules:\n- {pattern: pick up, others: [grab]}')
    said = {'rules': rules, 'share': 0.25}
    document = train_rig.document('x')
    run = train_rig.begin(tmp_path / 'run', data=document['data'] | {'paraphrases': said})
    words = read_tokenizer(run.tokenizer).get_vocab()
    assert 'grab' in words  # a policy from scratch knows the words of the paraphrases
    torch.manual_seed(0)
    batch = run.batches.training(np.zeros(400, np.int64))
    grabs = (batch.ids == words['grab']).any(1).float().mean()
    picks = (batch.ids == words['pick']).any(1).float().mean()
    assert grabs + picks == 1
    assert 0.15 < grabs < 0.35
    held_out = torch.cat([batch.ids.flatten() for batch, _ in run.batches.held_out()])
    assert words['grab'] not in held_out  # measured with the words that were recorded


def test_a_policy_learns_new_words_by_rows_that_no_word_has(tmp_path):
    first = train_rig.begin(tmp_path / 'first', steps=1)
    first.train()
    rules = write(tmp_path, 'rules:\n- {pattern: pick up, others: [grab]}')
    data = train_rig.document('x')['data'] | {'paraphrases': {'rules': rules}}
    begun = {'from': str(tmp_path / 'first')}
    with pytest.raises(TrainError, match="unknown to .*: 'grab'; .*set model.words to data"):
        train_rig.begin(tmp_path / 'refused', model=begun, data=data)
    more = train_rig.begin(tmp_path / 'more', model=begun | {'words': 'data'}, data=data)
    before, after = (read_tokenizer(each.tokenizer).get_vocab() for each in (first, more))
    assert before.items() < after.items()
    assert set(after) - set(before) == {'grab'}
    assert after['grab'] == len(before)
    text = 'pick up the milk'
    ids = [read_tokenizer(each.tokenizer).encode(text).ids for each in (first, more)]
    assert ids[0] == ids[1]
    assert more.train_step()['l1'] > 0


def test_more_words_than_rows_are_refused(tmp_path):
    first = train_rig.begin(tmp_path / 'first', steps=1)
    first.train()
    many = ', '.join(f'verb{chr(97 + i)}' for i in range(26))
    rules = write(tmp_path, f'rules:\n- {{pattern: pick up, others: [{many}]}}')
    data = train_rig.document('x')['data'] | {'paraphrases': {'rules': rules}}
    model = {'from': str(tmp_path / 'first'), 'words': 'data'}
    with pytest.raises(ConfigError, match='ids go up to 82, but the model has 80 embeddings'):
        train_rig.begin(tmp_path / 'more', model=model, data=data)


def test_new_words_are_split_and_numbered_as_the_tokenizer_does(tmp_path):
    document = json.loads(word_tokenizer().to_str())
    vocabulary = document['model']['vocab']
    document['pre_tokenizer'] = {'type': 'Whitespace'}
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] = 78
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps(document))
    more = with_words(path, ['Grab the milk, gently'], 82).get_vocab()
    assert {word for word in more if more[word] > 78} == {',', 'gently', 'grab'}
    with pytest.raises(ConfigError, match='ids go up to 81'):
        with_words(path, ['Grab the milk, gently'], 81)


def test_a_tokenizer_of_pieces_needs_no_more_words(tmp_path):
    path = tmp_path / 'tokenizer.json'
    path.write_text(json.dumps({'model': {'type': 'BPE', 'vocab': {}}}))
    with pytest.raises(ConfigError, match='splits any word into tokens.*set it to kept'):
        with_words(path, ['grab'], 80)
