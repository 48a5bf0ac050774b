"""`lightvla eval` and `compare` without the simulator: figures, journal, shards, faults."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.cli.evaluate import options_from, parse_shard
from lightvla_ros.contract import load_manifest
from lightvla_ros.errors import (
    ArgumentError,
    EngineError,
    EvaluationError,
    PolicyOutputError,
    SimulationError,
)
from lightvla_ros.evaluate import direct
from lightvla_ros.evaluate.chosen_tokens import ChosenTokens, TokenChooser
from lightvla_ros.evaluate.chunk_flops import chunk_flops, merged_flops
from lightvla_ros.evaluate.episodes import (
    Conditions,
    EpisodeRecord,
    EvalOptions,
    failed_record,
    pieces,
    shard_of,
)
from lightvla_ros.evaluate.evaluate import evaluate, journal_path
from lightvla_ros.evaluate.journal import Journal, first_difference
from lightvla_ros.evaluate.rates import PairedOutcomes, rate_of
from lightvla_ros.evaluate.result import merge, missing, read_document, table, write_document
from lightvla_ros.files import LockedError, one_writer
from lightvla_ros.policy.actions import (
    Chunk,
    limit_chunk,
    osc_from_chunk,
    quaternion_from_axis_angle,
)
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.sim import closed_loop
from lightvla_ros.sim.episode import EpisodeSpec

# Workers are forked here, because what they run stands in this file, which no child can import.
pytestmark = pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')


def specs_of(tasks=2, inits=3, suite='libero_object'):
    return tuple(EpisodeSpec(suite, task, init) for task in range(tasks) for init in range(inits))


def solved(spec, success=True, **fields):
    """What a run leaves; the even chunk keeps 3 tokens, the odd one 5."""
    values = {
        'instruction': f'do {spec.task}',
        'success': success,
        'steps': 16,
        'renderer': 'egl',
        'end_state': f'{spec.task}-{spec.init_state}',
        'kept': {'third_person': [1, 2], 'wrist': [2, 3]},
        'latency_ms': [10.0, 20.0],
    }
    return EpisodeRecord(**vars(spec), **{**values, **fields})


def starting(run):
    @contextmanager
    def start(number):
        yield run

    return start


@pytest.fixture
def options(policy_dir, tmp_path):
    return EvalOptions(policy_dir, specs_of(), Conditions(), tmp_path / 'result.json')


def evaluated(options, run=solved):
    return evaluate(options, starting(run), 'fork')


# Figures


def test_rates_have_wilson_intervals():
    # Agresti and Coull 1998: 0 of 10, and a half
    assert rate_of(0, 10) == {'rate': 0.0, 'low': 0.0, 'high': 0.2775}
    half = rate_of(50, 100)
    assert (half['low'], half['high']) == (0.4038, 0.5962)
    assert rate_of(0, 0)['rate'] is None


def test_mcnemar_is_exact():
    assert PairedOutcomes(10, 6, 1, 3).p_value() == pytest.approx(2 * (1 + 7) / 2**7)
    assert PairedOutcomes(5, 0, 0, 5).p_value() == 1.0
    assert PairedOutcomes(0, 4, 4, 0).p_value() == 1.0


def test_paired_difference_is_symmetric_and_covers_as_it_says():
    difference, low, high = PairedOutcomes(36, 12, 2, 0).difference()
    assert difference == pytest.approx(0.2)
    mirrored = PairedOutcomes(36, 2, 12, 0).difference()
    assert mirrored == pytest.approx((-difference, -high, -low))
    assert PairedOutcomes(10, 0, 0, 0).difference()[0] == 0
    # more agreement between the same two rates: a narrower interval
    wide, narrow = (
        PairedOutcomes(10, 10, 10, 10).difference(),
        PairedOutcomes(19, 1, 1, 19).difference(),
    )
    assert narrow[2] - narrow[1] < wide[2] - wide[1]

    random = np.random.default_rng(0)
    cells = [0.5, 0.2, 0.1, 0.2]
    inside = 0
    for counts in random.multinomial(60, cells, 2000):
        _, low, high = PairedOutcomes(*map(int, counts)).difference()
        inside += low <= 0.1 <= high
    assert 0.93 <= inside / 2000 <= 0.975


def test_flops_of_any_mixture_are_those_of_each_chunk(small_policy):
    from small_policy import small_config

    from lightvla_ros.vla.flops import count_flops

    manifest = load_manifest(small_policy)
    kept = [4, 5, 9, 9, 20, 31, 32, 32]
    rows = count_flops(small_config(), kept, manifest.prompt.length + 1)
    counted = chunk_flops(manifest, kept)
    assert counted['tflop'] == pytest.approx(np.mean([row['tflop'] for row in rows]), rel=1e-12)
    assert counted['tflop_unpruned'] == rows[-1]['tflop']
    for few in ([7], [7, 8], [32], [30, 31]):
        rows = count_flops(small_config(), few, manifest.prompt.length + 1)
        mean = np.mean([row['tflop'] for row in rows])
        assert chunk_flops(manifest, few)['tflop'] == pytest.approx(mean, rel=1e-12)
    parts = [chunk_flops(manifest, kept[:3]), {'skipped': 'no chunk'}]
    whole = merged_flops([*parts, chunk_flops(manifest, kept[3:])])
    assert whole == pytest.approx(counted)


def test_flops_that_cannot_be_counted_say_why(policy_dir, small_policy):
    assert 'only graphs' in chunk_flops(load_manifest(policy_dir), [3])['skipped']
    assert chunk_flops(load_manifest(small_policy), []) == {'skipped': 'no chunk'}
    assert 'not' in merged_flops([{'skipped': 'not so'}, {'skipped': 'no chunk'}])['skipped']


# A run


def test_document_of_a_run(options):
    document = evaluated(options, lambda spec: solved(spec, success=spec.task == 1))
    assert (document['episodes'], document['successes'], document['errors']) == (6, 3, [])
    assert [row['successes'] for row in document['by_task']] == [0, 3]
    assert document['by_task'][1]['instruction'] == 'do 1'
    assert document['kept_tokens'] == {
        'mean': 4.0,
        'sd': 1.0,
        'per_camera': {
            'third_person': {'mean': 1.5, 'sd': 0.5},
            'wrist': {'mean': 2.5, 'sd': 0.5},
        },
    }
    assert document['latency_ms'] == {'p50': 15.0, 'p95': 20.0, 'chunks': 12}
    assert document['policy']['fingerprint'] == load_manifest(options.policy).fingerprint
    written = json.loads(options.out.read_text())
    assert written == json.loads(json.dumps(document, allow_nan=False))
    assert len(written['all_episodes']) == 6
    assert written['all_episodes'][0]['kept_mean'] == 4
    assert '3/6' in table(document)


def test_episode_that_raises_is_an_error_and_is_tried_again(options, tmp_path):
    log = tmp_path / 'log'

    def run(spec):
        with log.open('a') as file:
            file.write(f'{spec.task}{spec.init_state} ')
        if spec == EpisodeSpec('libero_object', 0, 1):
            raise SimulationError('no room')
        if spec == EpisodeSpec('libero_object', 1, 1):
            raise ZeroDivisionError('by zero')
        return solved(spec, success=spec.init_state == 0)

    document = evaluated(options, run)
    assert (document['episodes'], document['successes']) == (4, 2)
    assert [each['error'] for each in document['errors']] == [
        'no room',
        'ZeroDivisionError: by zero',
    ]
    failed = [each for each in document['all_episodes'] if each['error']]
    assert [each['success'] for each in failed] == [None, None]
    assert [row['errors'] for row in document['by_task']] == [1, 1]
    assert '2 episodes are errors and are not counted' in table(document)

    log.unlink()
    again = evaluated(options, lambda spec: [log.open('a').write(f'{spec.task}'), solved(spec)][1])
    assert log.read_text() == '01', 'the two errors and nothing else'
    assert (again['episodes'], again['successes'], again['errors']) == (6, 4, [])


@pytest.mark.parametrize('workers', [1, 2])
def test_worker_that_dies_takes_one_episode_with_it(options, workers):
    def run(spec):
        if spec == EpisodeSpec('libero_object', 0, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return solved(spec)

    document = evaluated(replace(options, workers=workers), run)
    assert (document['episodes'], len(document['errors'])) == (5, 1)
    assert document['errors'][0]['error'] == 'the worker process ended with -9 (out of memory?)'
    assert evaluated(options)['episodes'] == 6


def test_worker_that_dies_early_stops_everything(options):
    @contextmanager
    def start(number):
        os._exit(3)
        yield

    with pytest.raises(EvaluationError, match='the worker process ended with 3; its last output'):
        evaluate(options, start, 'fork')


def test_worker_that_cannot_begin_stops_everything(options):
    @contextmanager
    def start(number):
        raise EngineError('no such provider')
        yield

    with pytest.raises(EvaluationError, match='^no such provider$'):
        evaluate(options, start, 'fork')
    assert not options.out.exists()


# The journal


def test_what_is_done_is_not_run_again_and_more_can_be_asked_for(options):
    few = replace(options, specs=options.specs[:2])
    evaluated(few)

    def run(spec):
        assert spec not in few.specs
        return solved(spec)

    assert evaluated(options, run)['episodes'] == 6
    assert evaluated(few, run)['episodes'] == 2, 'only what is asked for counts'


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'replan': 4}, 'conditions.replan None, not 4'),
        ({'pruning': 'off'}, "conditions.pruning 'on', not 'off'"),
        ({'render': 'standard'}, "conditions.render 'cheap', not 'standard'"),
    ],
)
def test_journal_of_other_conditions_is_refused(options, changed, message):
    evaluated(options)
    other = replace(options, conditions=replace(options.conditions, **changed))
    with pytest.raises(EvaluationError, match=f'was begun with {message}; use the same setting'):
        evaluated(other)


def test_journal_of_another_policy_is_refused(options, small_policy):
    evaluated(options)
    with pytest.raises(EvaluationError, match='was begun with policy.fingerprint'):
        evaluated(replace(options, policy=small_policy))


def test_half_a_line_of_a_crash_is_cut_off(tmp_path):
    path = tmp_path / 'r.jsonl'
    first, second = specs_of(1, 2)
    with Journal(path, {'a': 1}) as journal:
        journal.add(solved(first))
    whole = path.read_bytes()
    path.write_bytes(whole + '{"suite": "lib€'.encode())
    with Journal(path, {'a': 1}) as journal:
        assert journal.records == {first: solved(first)}
        journal.add(solved(second))
    assert path.read_bytes().startswith(whole)
    with Journal(path, {'a': 1}) as journal:
        assert list(journal.records) == [first, second]


def test_two_runs_into_one_result_are_refused(options):
    with (
        one_writer(options.out, options.out.with_suffix('.lock')),
        pytest.raises(LockedError, match=f'process {os.getpid()} on '),
    ):
        evaluated(options)


def test_journal_is_a_journal(tmp_path):
    path = tmp_path / 'r.jsonl'
    path.write_text('notes\n')
    with pytest.raises(EvaluationError, match='is not a journal'):
        Journal(path, {})
    path.write_text('{}\n{"suite": "x", "page": 3}\n')
    with pytest.raises(EvaluationError, match='is not a journal'):
        Journal(path, {})
    latin = '{"suite": "Münze"}\n'.encode('latin-1')
    path.write_bytes(latin)
    with pytest.raises(EvaluationError, match='is not a journal'):
        Journal(path, {})
    assert path.read_bytes() == latin


def test_result_that_could_be_taken_for_the_journal_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match='must end in .json'):
        journal_path(tmp_path / 'r.jsonl')


def test_first_difference_names_it():
    assert first_difference({'a': {'b': 1}}, {'a': {'b': 1}}) == ''
    assert first_difference({'a': {'b': 1}}, {'a': {}}) == 'a.b 1, not None'


_UNTIL_CTRL_C = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
import lightvla_ros.evaluate.evaluate as evaluation
from lightvla_ros.cli import main
from lightvla_ros.evaluate.episodes import EpisodeRecord
@contextmanager
def start(number):
    def run(spec):
        if spec.init_state:
            time.sleep(300)
        return EpisodeRecord(**vars(spec), success=True)
    yield run
original = evaluation.run_pieces
evaluation.run_pieces = lambda pieces, _, workers, done, __: original(
    pieces, start, workers, done, 'fork')
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_journal_and_no_worker(tmp_path, policy_dir, number):
    out = tmp_path / 'r.json'
    command = [sys.executable, '-c', _UNTIL_CTRL_C, 'eval', '--policy', policy_dir, '--json', out]
    process = subprocess.Popen(
        [*map(str, command), '--tasks', '0', '--suite', 'libero_object', '--workers', '2'],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300  # a busy machine takes a minute to import all
        journal = out.with_suffix('.jsonl')
        while not (journal.exists() and len(journal.read_text().splitlines()) == 2):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, said
    assert 'stopped; run the same command again to continue' in said
    assert 'Traceback' not in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert not out.exists()


# Shards


def test_shards_are_all_episodes_once():
    specs = specs_of(3, 7)
    for parts in (1, 2, 4, 21, 30):
        cut = [shard_of(specs, part, parts) for part in range(1, parts + 1)]
        assert sum(cut, ()) == specs
        assert max(map(len, cut)) - min(map(len, cut)) <= 1


@pytest.mark.parametrize('workers', [1, 2, 3, 5, 100])
def test_pieces_are_of_one_task_and_enough_for_all(workers):
    specs = list(specs_of(2, 5))
    cut = pieces(specs, workers)
    assert sorted(sum(cut, []), key=str) == sorted(specs, key=str)
    assert all(len({spec.task for spec in piece}) == 1 for piece in cut)
    assert len(cut) >= min(workers, len(specs))


def shards(options, tmp_path, parts=2):
    paths = []
    for part in range(1, parts + 1):
        path = tmp_path / f'{part}.json'
        evaluated(replace(options, shard=(part, parts), out=path))
        paths.append(path)
    return paths


def test_merged_shards_are_the_whole(options, tmp_path, capsys):
    whole = evaluated(options)
    paths = shards(options, tmp_path)
    out = tmp_path / 'merged.json'
    arguments = ['eval', '--merge', *map(str, paths), '--json', str(out)]
    assert main(arguments) == 0
    merged = read_document(out)
    for key in ('episodes', 'successes', 'by_task', 'kept_tokens', 'latency_ms', 'conditions'):
        assert merged[key] == whole[key]
    assert [each['file'] for each in merged['options']['merged']] == ['1.json', '2.json']
    assert missing(merged) == 0

    assert main(['eval', '--merge', str(paths[0]), '--json', str(out)]) == 1
    assert '3 of the requested episodes are in none' in capsys.readouterr().out


def test_merge_refuses_overlaps_and_other_conditions(options, tmp_path):
    paths = shards(options, tmp_path)
    with pytest.raises(EvaluationError, match=r'libero_object task 0 state 0 is in .*1.json'):
        merge([paths[0], paths[1], paths[0]])
    other = replace(options, conditions=Conditions(replan=2), out=tmp_path / 'other.json')
    evaluated(other)
    with pytest.raises(EvaluationError, match=r'other.json: conditions.replan 2, not None'):
        merge([paths[0], other.out])
    (tmp_path / 'notes.json').write_text('{"format": 1}')
    with pytest.raises(EvaluationError, match='is not a result of `lightvla eval`'):
        merge([tmp_path / 'notes.json'])
    with pytest.raises(EvaluationError, match='No such file'):
        merge([tmp_path / 'none.json'])


@pytest.mark.parametrize('text', ['0/2', '3/2', '1', '1/0', 'a/b', '1/2/3'])
def test_shard_that_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match='is not a part such as 1/4 or 4/4'):
        parse_shard(text)
    assert parse_shard('2/4') == (2, 4)


# What contradicts


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['--replan', '9'],
            '--replan 9: a chunk of this policy has 8 steps; give a number from 1 to 8',
        ),
        (['--pruning', 'off', '--ablation', 'fixed'], 'leave out --ablation'),
        (['--controller', 'crisp'], '--controller crisp is commanded by the chunk executor'),
        (['--through', 'ros', '--replan', '4'], '--replan needs --through direct'),
        (['--through', 'ros', '--pruning', 'off'], '--pruning off needs --through direct'),
        (['--through', 'ros', '--max-steps', '4'], '--max-steps needs --through direct'),
        (['--merge', 'a.json'], 'give either --policy DIR or --merge FILE'),
    ],
)
def test_arguments_that_contradict(policy_dir, tmp_path, capsys, arguments, message):
    out = str(tmp_path / 'r.json')
    assert main(['eval', '--policy', str(policy_dir), '--json', out, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_policy_that_is_none_is_one_line(tmp_path, capsys):
    assert main(['eval', '--policy', str(tmp_path), '--json', str(tmp_path / 'r.json')]) == 1
    assert 'is this a policy folder?' in capsys.readouterr().err


def test_suites_may_be_several():
    from lightvla_ros.cli.evaluate import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    common = ['--policy', 'p', '--json', 'r.json', '--tasks', '0-1', '--inits', '3']
    options = options_from(parser.parse_args([*common, '--suite', 'all', 'libero_goal']))
    found = [(spec.suite, spec.task) for spec in options.specs]
    suites = ('libero_object', 'libero_spatial', 'libero_goal')
    assert found == list(product(suites, (0, 1)))
    twice = options_from(parser.parse_args([*common, '--suite', 'all', 'libero_object']))
    assert len(twice.specs) == 4, 'an episode is run once, however often it is asked for'


def test_layouts_take_the_place_of_saved_states():
    from lightvla_ros.cli.evaluate import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    common = ['--policy', 'p', '--json', 'r.json', '--suite', 'libero_object', '--tasks', '3']
    options = options_from(parser.parse_args([*common, '--layouts', '400000-400001']))
    assert [str(spec) for spec in options.specs] == [
        'libero_object task 3 layout 400000',
        'libero_object task 3 layout 400001',
    ]
    for other in (['--inits', '0'], ['--seed', '1']):
        with pytest.raises(ArgumentError, match=f'--layouts and {other[0]}'):
            options_from(parser.parse_args([*common, '--layouts', '400000', *other]))


# The same numbers as through ROS


def test_limits_are_the_nodes():
    parameters = pytest.importorskip('lightvla_ros.nodes.policy_parameters')
    defaults = {each.name: each.default for each in parameters.POLICY_PARAMETERS.rows}
    assert defaults['max_step_translation'] == closed_loop.MAX_STEP_TRANSLATION
    assert defaults['max_step_rotation'] == closed_loop.MAX_STEP_ROTATION


def a_chunk(scale):
    random = np.random.default_rng(0)
    turns = random.normal(0, 0.2 * scale, (8, 3))
    return Chunk(
        translations=random.normal(0, 0.02 * scale, (8, 3)),
        rotations=quaternion_from_axis_angle(turns),
        gripper=random.uniform(0, 1, 8),
        period=0.05,
    )


@pytest.mark.parametrize('scale', [0.5, 3.0])
def test_actions_are_the_bits_that_the_bridge_executes(scale):
    conversions = pytest.importorskip('lightvla_ros.nodes.conversions')

    from lightvla_ros.nodes.bridge_modes import executable

    chunk = a_chunk(scale)
    limited, clamped = limit_chunk(
        chunk, closed_loop.MAX_STEP_TRANSLATION, closed_loop.MAX_STEP_ROTATION
    )
    assert clamped == (scale > 1)
    message = conversions.chunk_to_message(
        limited,
        conversions.ChunkHeader(
            stamp=0,
            frame_id='world',
            child_frame_id='',
            reference=0,
            valid_until=0,
            sequence=0,
            session_id='',
        ),
    )
    # a message's float32 is rounded where it is sent, and not by the setters of Python
    message.gripper = np.asarray(message.gripper, np.float32).astype(float).tolist()
    np.testing.assert_array_equal(closed_loop.executed_actions(chunk), executable(message, 'world'))
    if scale < 1:
        np.testing.assert_allclose(closed_loop.executed_actions(chunk), osc_from_chunk(chunk), 1e-6)


def test_actions_far_over_the_limits_are_an_error():
    with pytest.raises(PolicyOutputError, match='times the limit'):
        closed_loop.executed_actions(a_chunk(100.0))


# Other tokens


@pytest.fixture
def golden(small_policy):
    with np.load(small_policy / 'golden.npz') as file:
        return observations(load_manifest(small_policy), dict(file))


def predictions(folder, golden, engine, choose):
    policy = Policy.load(folder, engine, unchecked=True)
    policy.engine = ChosenTokens(policy.engine, choose, 2)
    found = [policy.infer(each) for each in golden]
    policy.close()
    return found


@pytest.mark.parametrize(
    'conditions',
    [
        Conditions(pruning='off'),
        Conditions(ablation='random'),
        Conditions(ablation='fixed'),
        Conditions(ablation='more'),
        Conditions(ablation='fewer'),
    ],
    ids=['unpruned', 'random', 'fixed', 'more', 'fewer'],
)
def test_overruled_graphs_compute_what_the_model_does(small_policy, golden, conditions):
    plain = Policy.load(small_policy, unchecked=True)
    pruned = [plain.infer(each) for each in golden]
    plain.close()
    ours = {}
    for engine in ('onnxruntime', 'openvino', 'torch'):
        if engine == 'openvino':
            pytest.importorskip('openvino')
        chooser = TokenChooser(conditions)
        chooser.start_episode(EpisodeSpec('libero_object', 0, 0))
        ours[engine] = predictions(small_policy, golden, engine, chooser)
    for engine, found in ours.items():
        for one, torch_one, before in zip(found, ours['torch'], pruned, strict=True):
            np.testing.assert_array_equal(one.kept_patches, torch_one.kept_patches, engine)
            assert one.kept == torch_one.kept
            np.testing.assert_allclose(one.normalised, torch_one.normalised, atol=1e-4)
            if conditions.ablation != 'fewer' or sum(before.kept) > 5:  # a tenth of 5 is none
                assert not np.allclose(one.normalised, before.normalised, atol=1e-5)
            if conditions.pruning == 'off':
                assert one.kept == (16, 16)
            else:
                count = sum(before.kept)
                wanted = {'more': min(2 * count, 32), 'fewer': count - round(count / 10)}
                assert sum(one.kept) == wanted.get(conditions.ablation, count)


def test_draws_repeat_by_episode_and_chunk():
    kept = np.zeros(512, dtype=bool)
    kept[:40] = True
    first, second = EpisodeSpec('libero_object', 0, 0), EpisodeSpec('libero_object', 0, 1)

    def draws(what, spec, seed=0):
        chooser = TokenChooser(Conditions(ablation=what, ablation_seed=seed))
        chooser.start_episode(spec)
        return np.stack([chooser(kept) for _ in range(3)])

    random = draws('random', first)
    assert (random.sum(1) == 40).all()
    np.testing.assert_array_equal(random, draws('random', first))
    assert (random[0] != random[1]).any()
    assert (random != draws('random', second)).any()
    assert (random != draws('random', first, seed=1)).any()
    fixed = draws('fixed', first)
    assert (fixed == fixed[0]).all()
    np.testing.assert_array_equal(fixed, draws('fixed', second))
    # of two sizes, the smaller subset lies in the larger one
    kept[40:80] = True
    assert (draws('fixed', first)[0] | ~fixed[0]).all()


@pytest.mark.parametrize('what', ['more', 'fewer'])
def test_table_4_adds_as_many_tokens_or_drops_a_tenth(what):
    def draw(count, seed=0):
        kept = np.zeros(100, dtype=bool)
        kept[:count] = True
        chooser = TokenChooser(Conditions(ablation=what, ablation_seed=seed))
        chooser.start_episode(EpisodeSpec('libero_object', 0, 0))
        found = np.stack([chooser(kept) for _ in range(2)])
        assert found[:, kept].all() if what == 'more' else not found[:, ~kept].any()
        return found

    counts = {count: draw(count).sum(1).tolist() for count in (1, 4, 8, 20, 60)}
    if what == 'more':
        assert counts == {1: [2] * 2, 4: [8] * 2, 8: [16] * 2, 20: [40] * 2, 60: [100] * 2}
    else:
        assert counts == {1: [1] * 2, 4: [4] * 2, 8: [7] * 2, 20: [18] * 2, 60: [54] * 2}
    found = draw(20)
    assert (found[0] != found[1]).any(), 'each chunk has its own draw'
    np.testing.assert_array_equal(found, draw(20))
    assert (found != draw(20, seed=1)).any()


def test_engine_that_keeps_its_tokens_says_so(golden):
    class OnGpu:
        backend, precision, fingerprint = 'tensorrt', 'fp16', ''

        def encode(self, *_):
            from lightvla_ros.engine.base import Encoded

            return Encoded((3, 4))

    engine = ChosenTokens(OnGpu(), TokenChooser(Conditions(pruning='off')), 2)
    with pytest.raises(EngineError, match='tensorrt keeps its visual tokens on the GPU'):
        engine.encode(None, None, None)


def test_direct_run_wants_a_verified_policy_as_the_node_does(options, small_policy, tmp_path):
    folder = tmp_path / 'unverified'
    shutil.copytree(small_policy, folder)
    from lightvla_ros.contract import amend_manifest
    from lightvla_ros.errors import ContractError

    amend_manifest(folder, verified=[])
    unverified = replace(options, policy=folder)
    with pytest.raises(ContractError, match='was never verified'):
        direct.load_policy(unverified)
    conditions = replace(options.conditions, engine='torch')
    policy, chooser = direct.load_policy(replace(unverified, conditions=conditions))
    policy.close()
    assert chooser is None


# Comparing


def result(path, outcomes, render='cheap', **fields):
    specs = specs_of(1, len(outcomes))
    records = [
        failed_record(spec, 'broke') if outcome is None else solved(spec, outcome, **fields)
        for spec, outcome in zip(specs, outcomes, strict=True)
    ]
    document = {
        'format': 1,
        'conditions': Conditions(render=render).as_dict(),
        'versions': {'mujoco': '3'},
        'all_episodes': [record.as_dict() for record in records],
    }
    write_document(path, document)
    return str(path)


def test_comparison_counts_pairs(tmp_path, capsys):
    first = result(tmp_path / 'a.json', [True] * 6 + [True] * 3 + [False] * 1)
    second = result(tmp_path / 'b.json', [True] * 6 + [False] * 3 + [True] * 1)
    assert main(['compare', first, second, '--json']) == 0
    document = json.loads(capsys.readouterr().out)
    counts = [document[key] for key in ('pairs', 'both', 'first', 'second', 'neither')]
    assert counts == [10, 6, 3, 1, 0]
    assert document['difference'] == 0.2
    assert document['p_value'] == pytest.approx(0.625)
    assert (document['same_steps'], document['same_end_state']) == (6, 10)
    assert document['warnings'] == []
    assert main(['compare', first, second]) == 0
    said = capsys.readouterr().out
    assert 'p = 0.625' in said
    assert 'WARNING' not in said


def test_comparison_warns_of_one_policy_with_and_without_pruning(tmp_path, capsys):
    paths = [tmp_path / 'a.json', tmp_path / 'b.json']
    for path, pruning in zip(paths, ('on', 'off'), strict=True):
        result(path, [True, False])
        document = json.loads(path.read_text())
        document['policy'] = {'name': 'p', 'fingerprint': 'f' * 64}
        document['conditions']['pruning'] = pruning
        path.write_text(json.dumps(document))
    names = [str(path) for path in paths]
    assert main(['compare', *names]) == 0
    assert (
        'WARNING  the results differ in pruning: on and off with the same'
        in capsys.readouterr().out
    )
    assert main(['compare', *names, '--json']) == 0
    (warning,) = json.loads(capsys.readouterr().out)['warnings']
    assert warning.startswith('pruning: on and off with the same policy')

    document = json.loads(paths[1].read_text())
    document['policy']['fingerprint'] = 'e' * 64  # a base
    paths[1].write_text(json.dumps(document))
    assert main(['compare', *names]) == 0
    assert 'WARNING' not in capsys.readouterr().out


def test_comparison_warns_of_other_vector_extensions(tmp_path, capsys):
    paths = [tmp_path / 'a.json', tmp_path / 'b.json']
    for path, extensions in zip(paths, (['avx2'], ['avx2', 'avx512f']), strict=True):
        result(path, [True, False])
        document = json.loads(path.read_text())
        document['machine'] = {'cpu': 'AMD EPYC', 'vector_extensions': extensions}
        path.write_text(json.dumps(document))
    assert main(['compare', *map(str, paths)]) == 0
    assert 'AMD EPYC and AMD EPYC have different vector extensions' in capsys.readouterr().out


def test_comparison_refuses_other_episodes_and_errors(tmp_path, capsys):
    first = result(tmp_path / 'a.json', [True, True, False, None])
    second = result(tmp_path / 'b.json', [True, False])
    assert main(['compare', first, second]) == 1
    said = capsys.readouterr().err
    assert 'a.json has 2 episodes that the other result lacks and 1 errors' in said
    assert 'use --shared to compare the 2 common episodes' in said
    assert main(['compare', first, second, '--shared']) == 0
    assert '2 episodes are left out: they are not in both results' in capsys.readouterr().out
    none = result(tmp_path / 'c.json', [None])
    assert main(['compare', first, none, '--shared']) == 1
    assert 'share no episode' in capsys.readouterr().err


def test_no_outcome_is_no_failure_and_an_episode_counts_once(tmp_path, capsys):
    whole = result(tmp_path / 'a.json', [True, True])
    document = json.loads(Path(whole).read_text())
    first, second = document['all_episodes']
    for episodes, message in (
        ([first, {**second, 'success': None}], 'state 1 has neither an error nor an outcome'),
        ([first, {**second, 'success': 'yes'}], "nor an outcome (success is 'yes')"),
        ([first, first], 'state 0 occurs twice'),
    ):
        other = tmp_path / 'b.json'
        other.write_text(json.dumps({**document, 'all_episodes': episodes}))
        assert main(['compare', whole, str(other), '--shared']) == 1
        said = capsys.readouterr().err
        assert message in said
        assert 'b.json' in said


def test_comparison_warns_of_other_rendering(tmp_path, capsys):
    first = result(tmp_path / 'a.json', [True])
    second = result(tmp_path / 'b.json', [True], render='standard', renderer='osmesa')
    assert main(['compare', first, second]) == 0
    said = capsys.readouterr().out
    assert 'WARNING  the results differ in render: cheap and standard' in said
    assert 'rendered with egl and osmesa' in said


def test_results_are_read_without_a_simulator():
    """They may be compared on a machine that has none."""
    script = """if True:
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in ('mujoco', 'robosuite', 'libero'):
                    raise ModuleNotFoundError(name)
        sys.meta_path.insert(0, Absent())
        import lightvla_ros.evaluate.compare
        import lightvla_ros.evaluate.result
    """
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
