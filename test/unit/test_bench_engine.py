"""`lightvla bench engine` measures what it says; how fast anything is, no test asserts."""

import json
import time

import numpy as np
import pytest
import torch
from small_policy import BUCKETS, small_config

from lightvla_ros.bench import engines, load_watch, timing
from lightvla_ros.bench import layers as layer_bench
from lightvla_ros.bench.chunk_runner import ChunkRunner, GraphClock
from lightvla_ros.bench.layers import weight_bytes
from lightvla_ros.bench.timing import percentiles_ms, ratio_p50, rotated, take_turns
from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.vla.config import openvla_oft_7b
from lightvla_ros.vla.flops import count_flops
from lightvla_ros.vla.weights import used_shapes

PERCENTILES = {'min', 'p50', 'p95', 'p99', 'max'}


@pytest.fixture(scope='module')
def exported(small_policy):
    return small_policy


def bench(capsys, *arguments):
    """Run the command; return its exit code and what it printed, on stderr when it failed."""
    code = main(['bench', 'engine', *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.err if code else printed.out


@pytest.fixture
def observation(exported):
    with np.load(exported / 'golden.npz') as golden:
        return observations(load_manifest(exported), dict(golden))[0]


def test_the_document_of_a_policy(exported, capsys):
    code, said = bench(capsys, '--policy', exported, '--rounds', 2, '--kept', 10, '--json')
    assert code == 0
    document = json.loads(said)
    assert document['kept'] == 10
    assert document['rounds'] == 2
    machine = document['machine']
    assert machine['threads'] == 1
    assert machine['matrix_gflop_per_second']['fp32'] > 0
    assert {'cpu', 'cores', 'versions', 'vector_extensions', 'kernels'} <= machine.keys()
    assert document['load'].keys() == {'before', 'after', 'warning'}
    assert document['prepare'].keys() == PERCENTILES
    rows = {(row['backend'], row['precision']): row for row in document['rows']}
    ours, torch_row = rows['onnxruntime-cpu', 'fp32'], rows['torch-cpu', 'fp32']
    assert ours['bucket'] == 16
    assert ours['act'].keys() == {str(bucket) for bucket in BUCKETS}
    assert torch_row['bucket'] == 10  # needs no bucket
    assert torch_row['act'].keys() == {'4', '10', '16', '32'}
    assert torch_row['host_ms'] is None
    assert torch_row['against_torch'] == {'precision': 'fp32', 'pruned': 1, 'unpruned': 1}
    flops = count_flops(small_config(), [10, 32], load_manifest(exported).prompt.length + 1)
    assert document['tflop']['pruned'] == flops[0]['tflop']
    assert document['tflop']['unpruned'] == flops[1]['tflop']
    for row in rows.values():
        assert (row['kept'], row['threads']) == (10, 1)
        for times in (row['encode'], row['pruned'], row['unpruned'], *row['act'].values()):
            assert times.keys() == PERCENTILES
            assert 0 < times['min'] <= times['p50'] <= times['max']
        for ratio in ('p50', 'min'):
            assert row[f'ratio_{ratio}'] == pytest.approx(
                row['pruned'][ratio] / row['unpruned'][ratio], abs=1e-3
            )
        assert row['matrix_share'].keys() == {'pruned', 'unpruned'}
    assert 0 < ours['host_ms']['min'] < ours['pruned']['max']


def test_the_table_and_the_mean_of_the_golden_observations(exported, capsys):
    code, said = bench(
        capsys, '--policy', exported, '--rounds', 1, '--engine', 'onnxruntime', '--threads', 2
    )
    assert code == 0
    with np.load(exported / 'golden.npz') as golden:
        mean = round(golden['kept'].sum(1).mean())
    assert f'K {mean} of 32 visual tokens' in said
    assert '2 threads used' in said
    assert 'onnxruntime-cpu fp32' in said
    assert 'torch-cpu' not in said
    for bucket in BUCKETS:
        assert f'  act {bucket}' in said


def test_pytorch_keeps_as_many_tokens_as_it_is_told(exported, observation):
    policy = Policy.load(exported, 'torch', unchecked=True)
    runner, seen = ChunkRunner('torch', policy, observation, 7), []
    decode = policy.engine.model.decode
    policy.engine.model.decode = lambda encoded: (
        seen.append(encoded.tokens.shape[1]) or decode(encoded)
    )
    runner.turn(0)
    assert seen == [7, 4, 7, 16, 32]  # the first does not count
    assert policy.engine.model.ablation is None


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
def test_the_host_is_what_the_graphs_are_not(name, exported, observation, monkeypatch):
    if name == 'openvino':
        pytest.importorskip('openvino')
    policy = Policy.load(exported, name, unchecked=True)
    runner = ChunkRunner(name, policy, observation, 4)
    kept_patches = policy.engine.kept_patches

    def slow(encoded):
        time.sleep(0.02)
        return kept_patches(encoded)

    monkeypatch.setattr(policy.engine, 'kept_patches', slow)
    clock = runner._clock
    before = clock.seconds
    times = runner.time(4)
    graphs = clock.seconds - before
    assert times.host >= 0.02
    assert 0 < graphs < times.encode + times.act
    # host has kept_patches, encode and act do not
    assert times.host + graphs >= times.encode + times.act
    policy.close()


def test_watching_an_engine_changes_no_answer(exported, observation):
    policy = Policy.load(exported, unchecked=True)
    before = policy.infer(observation).normalised
    GraphClock(policy.engine)
    assert np.array_equal(policy.infer(observation).normalised, before)


def test_warm_up_does_not_count_and_all_take_turns():
    called = []

    def contestant(name):
        return lambda number: called.append(name) or number

    results = take_turns({name: contestant(name) for name in 'abc'}, rounds=2, warm_up=2)
    assert results == {'a': [2, 3], 'b': [2, 3], 'c': [2, 3]}
    assert ''.join(called) == 'abcbcacababc'
    assert rotated((1, 2), 5) == [2, 1]


def test_percentiles_and_ratios_of_known_samples():
    times = percentiles_ms([each / 1000 for each in range(1, 102)])
    assert times == {'min': 1, 'p50': 51, 'p95': 96, 'p99': 100, 'max': 101}
    assert ratio_p50([1, 2, 30], [4, 4, 4]) == 0.5


def test_the_matrix_rate_is_flops_by_time():
    assert timing.gflop_per_second([9.0, 2 * 1024**3 / 1e9, 0.1]) == 1


def test_without_pytorch_numpy_multiplies(monkeypatch):
    monkeypatch.setattr(timing, 'has_torch', lambda: False)
    assert timing.MatrixProduct('fp32', 1).time() > 0


def test_without_weights_there_is_no_pytorch_and_no_flops(exported, capsys, monkeypatch):
    monkeypatch.setattr(engines, 'has_torch', lambda: False)
    arguments = ('--policy', exported, '--rounds', 1, '--json')
    document = json.loads(bench(capsys, *arguments)[1])
    assert 'torch' not in {row['engine'] for row in document['rows']}
    assert document['tflop'] is None
    assert document['rows'][0]['against_torch'] is None
    assert document['rows'][0]['matrix_share'] is None
    assert bench(capsys, *arguments[:-1])[0] == 0


def test_a_busy_machine_is_told_of():
    assert not load_watch.not_idle(0.1, 1.2, 1)
    assert load_watch.not_idle(1.0, 1.2, 1)
    assert load_watch.not_idle(0.1, 2.2, 1)
    assert not load_watch.not_idle(0.1, 2.2, 2)


def test_layers_of_a_preset(capsys):
    arguments = ('--preset', 'libero-tiny', '--layers', 1, '--rounds', 2)
    assert main(['bench', 'engine', *map(str, arguments), '--json']) == 0
    printed = capsys.readouterr()
    assert '1 layers of libero-tiny in bf16: 0.0 GiB of weights' in printed.err
    document = json.loads(printed.out)
    preset = document['preset']
    assert (preset['layers'], preset['precision'], preset['rounds']) == (1, 'bf16', 2)
    long, short = preset['rows']
    # 35 of text, the state and 56 slots
    assert (long['kept'], long['sequence']) == (128, 128 + 92)
    assert (short['kept'], short['sequence']) == (20, 20 + 92)
    assert long['faster_p50'] == 1
    assert short['faster_p50'] == pytest.approx(
        long['times']['p50'] / short['times']['p50'], abs=1e-3
    )
    assert short['flop_ratio'] == pytest.approx(long['tflop'] / short['tflop'], abs=1e-3)
    assert bench(capsys, *arguments, '--kept', 5, '--precision', 'fp32')[0] == 0


def test_the_paper_s_flop_ratio_and_the_size_of_its_layers():
    config = openvla_oft_7b()
    flops = [layer_bench.act_flops(config, 92, kept) for kept in (512, 78)]
    assert flops[0] / flops[1] == pytest.approx(3.615, abs=1e-3)
    layers = [
        np.prod(shape) for name, shape in used_shapes(config).items() if '.model.layers.' in name
    ]
    assert weight_bytes(config.language, 'bf16') == 2 * sum(layers)


def test_weights_are_made_in_bf16_from_a_seed(monkeypatch):
    config = small_config().language
    made = []
    to_empty = torch.nn.Module.to_empty
    monkeypatch.setattr(
        torch.nn.Module,
        'to_empty',
        lambda self, **options: made.append(to_empty(self, **options)) or made[-1],
    )
    for _ in range(2):
        layer_bench._forwards(config, [5], 'bf16')[5](0)
    first, second = (each.state_dict() for each in made)
    for name, weight in first.items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, second[name])
        assert weight.float().std() > 0.005 or 'layernorm' in name


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--policy', '{exported}', '--engine', 'oracle'], '--engine oracle: this folder and this'),
        (['--policy', '{exported}', '--kept', '0'], '--kept 0: the policy has 1 to 32 visual'),
        (['--policy', '{exported}', '--kept', '33'], '--kept 33: the policy has 1 to 32 visual'),
        (['--policy', '{exported}', '--kept', '3', '4'], 'only one number with --policy'),
        (['--policy', '{exported}', '--rounds', '0'], '--rounds 0: give at least 1'),
        (['--policy', '{exported}', '--layers', '1'], '--layers works only with --preset'),
        (['--policy', '{exported}/nowhere'], 'no manifest.json'),
        (['--preset', 'libero-tiny', '--engine', 'torch'], '--engine works only with --policy'),
        (['--preset', 'libero-huge'], "--preset: preset 'libero-huge' is not one of"),
        (['--preset', 'libero-tiny', '--layers', '7'], '--layers 7: libero-tiny has 1 to 6'),
        (['--preset', 'libero-tiny', '--kept', '129'], '--kept 129: libero-tiny has 1 to 128'),
        (['--preset', 'libero-tiny', '--text', '1'], '--text 1: BOS and stop alone are 2'),
        (['--preset', 'libero-tiny', '--threads', '0'], '--threads 0: give at least 1'),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line(arguments, message, exported, capsys):
    code, said = bench(capsys, *(each.format(exported=exported) for each in arguments))
    assert code in (1, 2)
    (line,) = said.splitlines()
    assert line.startswith('lightvla bench engine: ')
    assert message in line


def test_too_many_layers_for_the_memory_are_refused(capsys, monkeypatch):
    monkeypatch.setattr(layer_bench, 'available_memory', lambda: 4 * 2**30)
    code, said = bench(capsys, '--preset', 'openvla-oft-7b', '--layers', 32)
    assert code == 1
    *_, line = said.splitlines()  # after what is going on
    assert '--layers 32: 12.1 GiB of weights' in line
    assert 'do not fit into the 4.0 GiB available; 7 layers do' in line


@pytest.mark.parametrize('arguments', [[], ['--policy', 'x', '--preset', 'libero-tiny']])
def test_either_a_policy_or_a_preset_is_measured(arguments, capsys):
    with pytest.raises(SystemExit):
        main(['bench', 'engine', *arguments])
    said = capsys.readouterr().err
    assert '--policy --preset is required' in said or 'not allowed with argument' in said


def test_an_engine_that_cannot_be_loaded_is_named(exported, capsys, monkeypatch):
    monkeypatch.setattr(
        engines,
        'variants',
        lambda _: [
            engines.Variant(
                'onnxruntime', 'fp32', {'provider': 'NoExecutionProvider'}, 'onnxruntime-no'
            )
        ],
    )
    monkeypatch.setattr(engines, 'has_torch', lambda: False)
    code, said = bench(capsys, '--policy', exported)
    assert code == 1
    assert 'no engine could be loaded: onnxruntime' in said
