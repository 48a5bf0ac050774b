"""Exported graphs compute what PyTorch computes, and `lightvla verify` sees it when they do not."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from published_folder import write_published
from small_policy import BUCKETS, export, small_config, write_weights

from lightvla_ros.cli import main
from lightvla_ros.contract import amend_manifest, load_manifest, write_manifest
from lightvla_ros.errors import ContractError, EngineError, ExportError
from lightvla_ros.export import onnx_files
from lightvla_ros.policy.policy import Policy
from lightvla_ros.policy.tolerances import action_difference, jaccard
from lightvla_ros.verify.verify import verify
from lightvla_ros.vla.config import PRUNING
from lightvla_ros.vla.language import LlamaBlock, LlamaModel
from lightvla_ros.vla.model import LightVLA
from lightvla_ros.vla.weights import StoredWeights, config_of


@pytest.fixture(scope='module')
def weights(small_weights):
    return small_weights


@pytest.fixture(scope='module')
def exported(small_policy):
    return small_policy


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / 'policy')


def test_untrained_weights_are_those_of_their_seed(weights, tmp_path):
    again = write_weights(tmp_path / 'again')
    assert load_manifest(again).fingerprint == load_manifest(weights).fingerprint
    with pytest.raises(FileExistsError, match='not empty'):
        write_weights(again)


def test_no_graph_has_nonzero_or_a_table_of_embeddings(exported):
    for name in ('encode', 'act'):
        graph = onnx.load(exported / f'{name}.onnx').graph
        kinds = {node.op_type for node in graph.node}
        assert not kinds & {'NonZero', 'Unique', 'Compress', 'Loop', 'If', 'CumSum'}
        vocabulary = small_config().language.vocabulary
        assert all(vocabulary not in tensor.dims for tensor in graph.initializer)
        dynamic = {
            port.name
            for port in (*graph.input, *graph.output)
            if any(size.dim_param for size in port.type.tensor_type.shape.dim)
        }
        assert dynamic == ({'tokens', 'positions'} if name == 'act' else set())


@pytest.mark.parametrize('method', PRUNING[2:4] + PRUNING[:1])
def test_every_way_of_pruning_exports(method, tmp_path):
    out = export(write_weights(tmp_path / 'weights', method), tmp_path / 'out')
    (found,), _ = verify(out, only='onnxruntime', count=3)
    assert found.passed, found.figures
    policy = Policy.load(out, unchecked=True)
    prediction = policy.infer(_observation(policy))
    holding = [each for each in BUCKETS if each >= sum(prediction.kept)]
    assert prediction.bucket == (32 if method == 'off' else min(holding))


def _observation(policy):
    from lightvla_ros.policy.golden import random_inputs
    from lightvla_ros.policy.observation import observations

    return observations(policy.manifest, random_inputs(policy.manifest, 1, 5))[0]


def test_fp16_computes_norms_softmax_and_scores_in_fp32(small_policy_fp16, tmp_path):
    out = shutil.copytree(small_policy_fp16, tmp_path / 'out')
    model = onnx.shape_inference.infer_shapes(onnx.load(out / 'encode.onnx'))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    for node in model.graph.node:
        if node.op_type in ('LayerNormalization', 'Softmax', 'ReduceMean', 'ArgMax'):
            assert kinds[node.input[0]] == single, node.name
    multiplied = [kinds[n.output[0]] for n in model.graph.node if n.op_type == 'MatMul']
    assert multiplied.count(single) == 3  # the pruner's, and no other
    assert multiplied.count(half) > 10
    (found,), _ = verify(out, only='onnxruntime')
    assert found.passed, found.figures
    assert found.precision == 'fp16'
    assert Policy.load(out, unchecked=True).engine.precision == 'fp16'


def test_a_verified_engine_may_run_and_another_may_not(folder):
    with pytest.raises(ContractError, match='was never verified; run `lightvla verify'):
        Policy.load(folder)
    Policy.load(folder, unchecked=True).close()
    assert main(['verify', str(folder), '--engine', 'onnxruntime']) == 0
    with Policy.load(str(folder)) as policy:
        policy.require_verified()
    failed = [
        {**each, 'passed': False} for each in json.loads((folder / 'manifest.json').read_text())[
            'verified'
        ]
    ]  # fmt: skip
    amend_manifest(folder, verified=failed)
    with pytest.raises(ContractError, match='did not pass its verification'):
        Policy.load(folder)


def test_every_engine_of_a_cpu_computes_what_pytorch_does(folder):
    found, _ = verify(folder, count=3)
    passed = {(each.backend, each.precision) for each in found if each.passed}
    assert {('onnxruntime-cpu', 'fp32'), ('openvino-cpu', 'fp32')} <= passed
    assert all(each.reference == 'torch' for each in found)


def test_without_weights_the_golden_answers_are_the_reference(weights, tmp_path, capsys):
    out = export(weights, tmp_path / 'out', keep_weights=False)
    assert load_manifest(out).model is None
    with pytest.raises(ExportError, match='holds no weights'):
        export(out, tmp_path / 'again')
    assert not list(out.glob('*.safetensors'))
    assert main(['verify', str(out), '--engine', 'onnxruntime', '--json']) == 0
    (found,) = json.loads(capsys.readouterr().out)['engines']
    assert found['reference'] == 'golden'
    assert found['figures']['observations'] == 3
    assert max(found['figures']['bucket_errors'].values()) < 1e-4


def causal(monkeypatch):
    def forward(self, x, positions, key_mask=None, first_layer=0):
        count = x.shape[1]
        # by position, as a causal model would mask this sequence
        bias = torch.where(positions[0][None] > positions[0][:, None], -3e4, 0.0)[None, None]
        rotation = self.rotation(positions, x.dtype)
        for layer in self.layers[first_layer:]:
            x = layer(x, rotation, bias.expand(1, 1, count, count))
        return x

    monkeypatch.setattr(LlamaModel, 'forward', forward)


def renumbered(monkeypatch):
    rotation = LlamaModel.rotation
    monkeypatch.setattr(
        LlamaModel,
        'rotation',
        lambda self, places, dtype: rotation(self, torch.arange(places.shape[1])[None], dtype),
    )


def slice_off_by_one(monkeypatch):
    monkeypatch.setattr(
        LightVLA,
        'act',
        lambda self, x: self.action_head(self.language_model.model.norm(x[:, -57:-1])),
    )


def swapped_cameras(monkeypatch):
    candidates = LightVLA.candidates
    monkeypatch.setattr(
        LightVLA,
        'candidates',
        lambda self, pixels, context: candidates(self, pixels.flip(1), context),
    )


def dropped_norm(monkeypatch):
    def forward(self, x, rotation, key_bias):
        x = x + self.self_attn(self.input_layernorm(x), rotation, key_bias)
        return x + self.mlp(x)

    monkeypatch.setattr(LlamaBlock, 'forward', forward)


def dropped_pruner_norm(monkeypatch):
    from lightvla_ros.vla import pruner

    monkeypatch.setattr(pruner, 'rms', lambda x: x)


def padding_unmasked(monkeypatch):
    place = LightVLA.place_context

    def forward(self, word_mask):
        positions, mask = place(self, word_mask)
        return positions, torch.ones_like(mask)

    monkeypatch.setattr(LightVLA, 'place_context', forward)


FAULTS = {
    causal: 'act',
    renumbered: 'act',
    slice_off_by_one: 'act',
    dropped_norm: 'act',
    padding_unmasked: 'act',
    swapped_cameras: 'encode',
    dropped_pruner_norm: 'encode',
}


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_caught(fault, folder, monkeypatch):
    """The faults that ports of OpenVLA-OFT have had, each planted in turn."""
    part = FAULTS[fault]
    manifest = load_manifest(folder)
    weights = StoredWeights(folder, manifest.model.weights)
    write = {'act': onnx_files.write_act, 'encode': onnx_files.write_encode}[part]
    with monkeypatch.context() as patch:
        fault(patch)
        length = manifest.prompt.length
        write(config_of(manifest), weights, 'fp32', length, folder / f'{part}.onnx')
    write_manifest(folder, json.loads((folder / 'manifest.json').read_text()))
    assert main(['verify', str(folder), '--engine', 'onnxruntime']) == 1
    (found,) = load_manifest(folder).verified
    assert found.figures['faults']
    with pytest.raises(ContractError, match='did not pass'):
        Policy.load(folder)


def test_errors_are_in_millimetres_and_degrees(exported):
    spec = load_manifest(exported).action
    one = np.zeros((8, 7), np.float32)
    two = one.copy()
    two[2, 0] = 0.1  # of 0.05 m
    two[3, 4] = 0.5  # of 0.5 rad times 0.2, the range of the statistics
    two[:3, 6] = 1.0
    error = action_difference(one, two, spec)
    assert error.millimetres == pytest.approx(5, rel=1e-6)
    assert error.degrees == pytest.approx(np.degrees(0.05), rel=1e-6)
    assert error.flips == 3
    one[:, 6], two[:, 6] = 0.49, 0.505  # a rounding error about the middle
    error = action_difference(one, two, spec)
    assert (error.flips, error.gripper) == (0, pytest.approx(0.015, rel=1e-4))
    two[:, 6] = 1.0
    assert action_difference(one, two, spec).flips == 8
    assert jaccard(np.array([1, 2, 3]), np.array([2, 3, 4])) == 0.5


def test_the_command_exports_and_says_what_it_would_do(weights, tmp_path, capsys):
    out = tmp_path / 'out'
    command = ['--policy', str(weights), '--out', str(out), '--buckets', '8,16']
    assert main(['export', *command, '--dry-run']) == 0
    said = capsys.readouterr().out
    assert not out.exists()
    for word in ('encode', 'act', 'embedding', 'disk', 'memory', 'buckets    8 (', '32 ('):
        assert word in said
    assert main(['export', *command]) == 0
    manifest = load_manifest(out)
    assert manifest.tokens.buckets == (8, 16, 32)
    assert manifest.graphs.precision == 'fp32'
    Policy.load(out, unchecked=True).replay_golden()
    assert main(['export', *command]) == 1
    assert 'is not empty' in capsys.readouterr().err


def test_a_checkpoint_as_downloaded_is_exported_in_one_step(tmp_path, capsys):
    write_published(tmp_path / 'published', keys=('libero_goal_no_noops', 'libero_10_no_noops'))
    out = tmp_path / 'out'
    command = ['--checkpoint', str(tmp_path / 'published'), '--out', str(out)]
    assert main(['export', *command, '--dry-run']) == 1
    assert 'several datasets; choose one with --unnorm-key' in capsys.readouterr().err
    command += ['--unnorm-key', 'libero_goal_no_noops', '--no-weights']
    assert main(['export', *command]) == 0
    Policy.load(out, unchecked=True).replay_golden()
    (found,), _ = verify(out, only='onnxruntime')
    assert found.passed, found.figures


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--policy', '{weights}'], '--out DIR is missing'),
        (['--policy', '{weights}', '--out', '{new}', '--workspace', '9'], 'with a TensorRT target'),
        (['--policy', '{weights}', '--out', '{new}', '--pruning', 'off'], 'was trained to prune'),
        (['--policy', '{weights}', '--out', '{new}', '--layers', '2'], '--layers does not fit --'),
        (['--policy', '{weights}', '--out', '{new}', '--target', 'tensorrt'], 'cannot be imported'),
        (['--preset', 'libero-tiny', '--dry-run'], '--dry-run does not fit --preset'),
        (['--policy', '{weights}', '--out', '{new}', '--buckets', '8,x'], "'auto' or numbers"),
        (['--policy', '{weights}', '--out', '{new}', '--buckets', '64'], 'must be from 2 to 32'),
        (['--policy', '{weights}', '--out', '{new}', '--histogram', '{new}'], 'JSON such as'),
        (['--policy', '{weights}', '--out', '{new}', '--observations', '{new}'], 'No such file'),
        (['--policy', '{exported}'], 'is exported already'),
        (['--policy', '{exported}', '--target', 'tensorrt-rtx', '--histogram', 'x'], 'was fixed'),
        (['--policy', '{exported}', '--target', 'tensorrt'], 'cannot be imported'),
        (['--policy', '{exported}', '--target', 'tensorrt-rtx', '--buckets', '8'], 'was fixed'),
        (['--policy', '{new}', '--out', '{new}'], 'no manifest.json'),
        (['--checkpoint', '{new}', '--out', '{new}'], 'no such folder'),
    ],
)  # fmt: skip
def test_a_wrong_request_is_one_line_with_the_fix(
    arguments, message, weights, exported, tmp_path, capsys
):
    places = {'weights': weights, 'exported': exported, 'new': tmp_path / 'new'}
    assert main(['export', *[each.format(**places) for each in arguments]]) == 1
    said = capsys.readouterr().err
    (line,) = [each for each in said.splitlines() if each.startswith('lightvla export: ')]
    assert message in line
    assert not (tmp_path / 'new').exists()


def test_large_weights_lie_beside_the_graph(small_policy_fp16):
    out = small_policy_fp16
    assert (out / 'act.onnx.data').stat().st_size > 100_000
    assert {'act.onnx.data', 'encode.onnx.data'} <= load_manifest(out).files.keys()
    Policy.load(out, unchecked=True).replay_golden()


def test_tensorrt_rtx_builds_an_exported_policy_in_fp16_with_all_profiles(
    weights, tmp_path, capsys
):
    out = tmp_path / 'out'
    command = ['--policy', str(weights), '--out', str(out), '--target', 'tensorrt-rtx']
    assert main(['export', *command, '--buckets', '4,16']) == 0
    said = capsys.readouterr().out
    assert 'encode: ' in said
    assert 'profiles [4, 16, 32]' in said
    manifest = load_manifest(out)
    assert manifest.graphs.precision == 'fp16'
    assert manifest.engines == ()  # a proof: nothing is kept


def test_layers_of_true_shapes_build_and_nothing_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ['--preset', 'libero-tiny', '--layers', '1']
    assert main(['export', *command, '--target', 'tensorrt-rtx', '--buckets', '16,32']) == 0
    assert 'profiles [16, 32, 128]' in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main(['export', *command]) == 1
    assert 'add --target tensorrt-rtx' in capsys.readouterr().err


def test_an_engine_that_fails_while_it_is_verified_has_not_passed(folder, monkeypatch, capsys):
    def act(self, encoded, bucket):
        raise EngineError('told to fail')

    monkeypatch.setattr('lightvla_ros.engine.onnxruntime.OnnxRuntimeEngine.act', act)
    assert main(['verify', str(folder), '--engine', 'onnxruntime']) == 1
    assert 'FAILED' in capsys.readouterr().out
    (found,) = load_manifest(folder).verified
    assert found.figures == {'faults': ['told to fail']}


def test_observations_of_another_robot_are_refused_before_the_export(weights, tmp_path, capsys):
    file = tmp_path / 'seen.npz'
    right = {
        'images': np.zeros((1, 2, 60, 80, 3), np.uint8),
        'instruction': np.array(['pick up the milk']),
        'proprio': np.zeros((1, 8)),
    }
    command = [
        '--policy',
        str(weights),
        '--out',
        str(tmp_path / 'out'),
        '--observations',
        str(file),
    ]
    for name, wrong in (
        ('images', right['images'][:, :1]),
        ('images', right['images'].astype(np.float32)),
        ('proprio', np.zeros((1, 7))),
        ('instruction', np.array([], str)),
    ):
        np.savez(file, **(right | {name: wrong}))
        assert main(['export', *command]) == 1
        assert 'expected images uint8 [N, 2, H, W, 3]' in capsys.readouterr().err
    np.savez(file, **(right | {'proprio': np.full((1, 8), np.nan)}))
    assert main(['export', *command]) == 1
    assert 'seen.npz: proprio[0] is not finite' in capsys.readouterr().err
    file.write_bytes(b'')
    assert main(['export', *command]) == 1
    assert 'not an .npz file with images, instruction, proprio' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    np.savez(file, **right)
    assert main(['export', *command, '--dry-run']) == 0


def test_verify_without_anything_to_verify(weights, folder, capsys):
    assert main(['verify', str(weights)]) == 1
    assert 'it is not exported, so there is no engine yet' in capsys.readouterr().err
    assert main(['verify', str(folder), '--engine', 'tensorrt']) == 1
    assert 'no engine could be used' in capsys.readouterr().out
