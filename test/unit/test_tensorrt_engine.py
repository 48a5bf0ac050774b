"""The TensorRT engine as far as it goes without a GPU: memory, choice of the plan, refusals."""

import dataclasses
import os
import subprocess
import sys
import types
from contextlib import ExitStack

import onnx
import pytest
import tensorrt_rtx

from lightvla_ros.contract import BuiltEngine, fingerprint, load_manifest
from lightvla_ros.engine.embedding import PromptWords
from lightvla_ros.engine.signature import ANY, check_ports, policy_ports
from lightvla_ros.engine.tensorrt import cuda
from lightvla_ros.engine.tensorrt.engine import TensorRTEngine
from lightvla_ros.engine.tensorrt.machine import differences, engine_facts, find_built
from lightvla_ros.engine.tensorrt.memory import (
    ALIGNMENT,
    HOST_TENSORS,
    aligned,
    lay_out,
    profile_index,
    sized,
)
from lightvla_ros.engine.tensorrt.plan import Plan
from lightvla_ros.errors import EngineError

THOR = {
    'tensorrt': '10.13.3.9',
    'gpu': 'NVIDIA Thor',
    'compute_capability': '11.0',
    'cuda_driver': '13.0',
}


@pytest.fixture(scope='module')
def manifest(policy_dir):
    return load_manifest(policy_dir)


def built_for(manifest, machine):
    facts = engine_facts(manifest, machine)
    return BuiltEngine('tensorrt', fingerprint(facts), facts, 'encode.plan', 'act.plan')


def with_engines(manifest, *engines):
    return dataclasses.replace(manifest, engines=engines)


def test_ports_are_those_of_the_graphs(policy_dir, manifest):
    wanted = policy_ports(manifest, 'fp32', PromptWords(policy_dir, manifest).width)
    for file, ports in zip((manifest.graphs.encode, manifest.graphs.act), wanted, strict=True):
        graph = onnx.load(policy_dir / file, load_external_data=False).graph
        found = {}
        for port in (*graph.input, *graph.output):
            kind = port.type.tensor_type
            shape = tuple(d.dim_value if d.HasField('dim_value') else ANY for d in kind.shape.dim)
            found[port.name] = (onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, shape)
        check_ports(file, found, ports)
        assert found == ports


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'bf16'])
def test_tensors_lie_apart_and_aligned(manifest, precision):
    layout = lay_out(*policy_ports(manifest, precision, 48))
    end = 0
    for tensor in layout.tensors.values():
        assert tensor.offset == end  # in order, without a gap but for the alignment
        assert tensor.offset % ALIGNMENT == 0
        end = aligned(tensor.offset + tensor.nbytes)
    assert layout.device_bytes == end


def test_the_host_sees_the_front_and_nothing_else(manifest):
    layout = lay_out(*policy_ports(manifest, 'fp16', 48))
    for name, tensor in layout.tensors.items():
        assert (tensor.offset < layout.host_bytes) == (name in HOST_TENSORS)
    assert layout.tensors.keys() - set(HOST_TENSORS) == {'tokens', 'context'}


def test_the_graphs_share_what_passes_between_them(manifest):
    encode, act = policy_ports(manifest, 'fp16', 48)
    layout = lay_out(encode, act)
    assert encode.keys() & act.keys() == {'tokens', 'positions', 'kept', 'context', 'word_mask'}
    assert layout.tensors.keys() == encode.keys() | act.keys()
    assert ANY not in {size for tensor in layout.tensors.values() for size in tensor.shape}


def test_sizes_of_a_7b_policy(manifest):
    """Two cameras of 256 patches at width 4096, prompts of 64, in fp16."""
    camera = dataclasses.replace(manifest.cameras[0], size=(224, 224))
    manifest = dataclasses.replace(
        manifest,
        cameras=(camera, camera),
        prompt=dataclasses.replace(manifest.prompt, length=64),
        tokens=dataclasses.replace(manifest.tokens, patch_size=14, buckets=(64, 512)),
    )
    layout = lay_out(*policy_ports(manifest, 'fp16', 4096))
    sizes = {name: tensor.nbytes for name, tensor in layout.tensors.items()}
    assert sizes == {
        'pixels': 2 * 6 * 224 * 224 * 4,
        'words': 63 * 4096 * 4,
        'word_mask': 63,
        'proprio': 8 * 4,
        'positions': 512 * 8,
        'kept': 2 * 4,
        'actions': 56 * 4,
        'tokens': 512 * 4096 * 2,
        'context': (1 + 1 + 63 + 56 + 1) * 4096 * 2,
    }
    assert layout.device_bytes < 9 * 2**20


def test_a_policy_without_proprio_has_no_tensor_for_it(manifest):
    encode, _ = policy_ports(manifest, 'fp16', 48)
    without, _ = policy_ports(dataclasses.replace(manifest, proprio=None), 'fp16', 48)
    assert encode.keys() - without.keys() == {'proprio'}
    assert encode['context'][1][1] - without['context'][1][1] == 1


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'pixels': ('float16', (2, 6, 128, 128))}, r'pixels is float16 \[2, 6, 128, 128\]'),
        ({'words': ('float32', (1, 9, 48))}, r'words is float32 \[1, 9, 48\], .* \[1, 33, 48\]'),
        ({'extra': ('bool', (1,))}, r'extra is bool \[1\], but by the manifest it must be absent'),
        ({'proprio': None}, r'proprio is absent, but by the manifest it must be float32 \[1, 8\]'),
    ],
)
def test_a_plan_of_other_graphs_is_refused(manifest, change, said):
    wanted, _ = policy_ports(manifest, 'fp16', 48)
    found = {name: port for name, port in (wanted | change).items() if port is not None}
    with pytest.raises(EngineError, match=f'encode.plan: {said}.*export the policy again'):
        check_ports('encode.plan', found, wanted)


def test_every_bucket_has_the_profile_of_its_place():
    buckets = (16, 64, 512)
    assert [profile_index(buckets, bucket) for bucket in buckets] == [0, 1, 2]
    for bucket in (0, 17, 513):
        with pytest.raises(EngineError, match=rf'no profile for {bucket} tokens.*\[16, 64, 512\]'):
            profile_index(buckets, bucket)


def test_the_engine_of_this_machine_is_found(policy_dir, manifest):
    orin = {**THOR, 'gpu': 'Orin', 'compute_capability': '8.7'}
    wanted = built_for(manifest, THOR)
    manifest = with_engines(manifest, built_for(manifest, orin), wanted)
    assert find_built(policy_dir, manifest, THOR) is wanted


def test_a_folder_without_engines_is_refused_with_the_command(policy_dir, manifest):
    with pytest.raises(EngineError) as caught:
        find_built(policy_dir, manifest, THOR)
    assert str(caught.value) == (
        f'{policy_dir}: holds no TensorRT engine; build one here: '
        f'lightvla export --policy {policy_dir} --target tensorrt'
    )


@pytest.mark.parametrize(
    ('fact', 'value'),
    [
        ('tensorrt', '10.3.0.30'),
        ('gpu', 'Orin'),
        ('compute_capability', '8.7'),
        ('cuda_driver', '12.6'),
    ],
)
def test_an_engine_of_another_machine_is_refused_with_what_differs(
    policy_dir, manifest, fact, value
):
    far = {name: 'other' for name in THOR}
    near = {**THOR, fact: value}
    manifest = with_engines(manifest, built_for(manifest, far), built_for(manifest, near))
    with pytest.raises(EngineError) as caught:
        find_built(policy_dir, manifest, THOR)
    said = f'({fact}: {value} there, {THOR[fact]} here); build one here: lightvla export'
    assert said in str(caught.value)


def test_an_engine_of_older_graphs_or_buckets_is_refused(policy_dir, manifest):
    engine = built_for(manifest, THOR)
    files = {**manifest.files, manifest.graphs.act: '0' * 64}
    exported_again = dataclasses.replace(with_engines(manifest, engine), files=files)
    with pytest.raises(EngineError, match=r'\(graphs: exported again since\)'):
        find_built(policy_dir, exported_again, THOR)
    tokens = dataclasses.replace(manifest.tokens, buckets=manifest.tokens.buckets[1:])
    fewer = dataclasses.replace(with_engines(manifest, engine), tokens=tokens)
    with pytest.raises(EngineError, match=r'profiles: \[16, 32, .* there, \[32, .* here'):
        find_built(policy_dir, fewer, THOR)


def test_differences_name_what_one_side_lacks():
    assert differences({'gpu': 'Orin'}, {}) == ['gpu: Orin there, none here']
    assert differences({'gpu': 'Orin'}, {'gpu': 'Orin'}) == []


def test_without_tensorrt_the_engine_says_how_to_get_it(policy_dir, manifest):
    """Here it is not installed: PyPI's package fetches it from elsewhere."""
    with pytest.raises(EngineError, match='tensorrt cannot be imported.*JetPack.*pip install'):
        TensorRTEngine(policy_dir, manifest, threads=2)


def test_a_failed_cuda_call_is_named_with_its_error():
    with pytest.raises(EngineError, match=r'^cudaFree failed: cudaError\w+, \w.+$'):
        cuda.call('cudaFree', 1)


def test_what_was_not_acquired_is_not_released():
    with ExitStack() as stack, pytest.raises(EngineError, match='^cudaFree failed'):
        cuda.acquire(stack, 'no such function', 'cudaFree', 1)


def test_a_release_that_fails_does_not_hide_the_cause():
    stack = ExitStack()
    cuda.acquire(stack, 'cudaFree', 'cudaRuntimeGetVersion')  # no address that can be freed
    stack.close()


def test_a_machine_without_a_gpu_says_so():
    code = 'from lightvla_ros.engine.tensorrt import cuda; cuda.gpu_facts()'
    run = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
    )
    assert 'EngineError: CUDA finds no usable GPU here (cudaGetDeviceProp' in run.stderr


def test_a_damaged_plan_is_refused_with_what_tensorrt_says(tmp_path):
    (tmp_path / 'encode.plan').write_bytes(b'no plan' * 1000)
    with pytest.raises(EngineError, match=r'encode\.plan: TensorRT 1\..* cannot load it: .*rror'):
        Plan(tensorrt_rtx, tmp_path / 'encode.plan', {}, ())


DTYPES = {'float32': 'FLOAT', 'float16': 'HALF', 'int64': 'INT64', 'int32': 'INT32', 'bool': 'BOOL'}
BUCKETS = (16, 64, 512)


class FakeEngine:
    """An ``ICudaEngine`` of a policy's act.

    :param said: What it says of an axis that is as long as the bucket.
    """

    device_memory_size_v2 = 4096

    def __init__(self, ports, said=ANY, buckets=BUCKETS):
        self._ports = list(ports.items())
        self._shapes = {name: sized(shape, said) for name, (_, shape) in ports.items()}
        self._dynamic = {name: shape for name, (_, shape) in ports.items() if ANY in shape}
        self._buckets = buckets
        self.num_io_tensors = len(ports)
        self.num_optimization_profiles = len(buckets)
        self.context = FakeContext()

    def get_tensor_name(self, index):
        return self._ports[index][0]

    def get_tensor_dtype(self, name):
        return types.SimpleNamespace(name=DTYPES[dict(self._ports)[name][0]])

    def get_tensor_shape(self, name):
        return list(self._shapes[name])

    def get_tensor_profile_shape(self, name, index):
        return [list(sized(self._dynamic[name], self._buckets[index]))] * 3

    def create_execution_context(self, strategy):
        return self.context


class FakeContext:
    """An ``IExecutionContext`` that notes what is set."""

    def __init__(self):
        self.profile = None
        self.shapes = {}
        self.addresses = {}

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_device_memory(self, address, size):
        self.scratch = (address, size)


@pytest.fixture
def load(tmp_path):
    """A function that loads a plan file whose engine is the given one."""

    def load(engine, wanted, buckets=BUCKETS):
        trt = types.ModuleType('tensorrt')
        trt.__version__ = '10.13'
        trt.ILogger = type('ILogger', (), {'ERROR': 1})
        trt.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED=2)
        runtime = types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
        trt.Runtime = lambda log: runtime
        (tmp_path / 'act.plan').write_bytes(b'a plan')
        return Plan(trt, tmp_path / 'act.plan', wanted, buckets)

    return load


@pytest.mark.parametrize('said', [ANY, *BUCKETS])
def test_every_bucket_is_set_whatever_the_engine_says_of_the_axis(manifest, load, said):
    """TensorRT need not say -1: no profile of ours lets a size vary."""
    _, act = policy_ports(manifest, 'fp16', 48)
    engine = FakeEngine(act, said)
    plan = load(engine, act)
    buffers = types.SimpleNamespace(address=lambda name: hash(name), scratch=7)
    for index, bucket in enumerate(BUCKETS):
        engine.context = FakeContext()
        context = plan.context(buffers, 0, bucket)
        assert context.profile == index
        assert context.shapes == {'tokens': (1, bucket, 48), 'positions': (1, bucket)}
        assert context.addresses == {name: hash(name) for name in act}
        assert context.scratch == (7, 4096)
    with pytest.raises(EngineError, match='no profile for 17 tokens'):
        plan.context(buffers, 0, 17)


def test_a_static_plan_is_given_no_shape_and_no_profile(manifest, load):
    encode, _ = policy_ports(manifest, 'fp16', 48)
    plan = load(FakeEngine(encode, buckets=(0,)), encode)
    context = plan.context(types.SimpleNamespace(address=hash, scratch=7), 0)
    assert context.profile is None
    assert context.shapes == {}
    assert context.addresses.keys() == encode.keys()


def test_a_plan_of_no_bucket_or_another_width_is_refused(manifest, load):
    _, act = policy_ports(manifest, 'fp16', 48)
    _, wider = policy_ports(manifest, 'fp16', 64)
    with pytest.raises(EngineError, match=r'act.plan: positions is int64 \[1, 17\]'):
        load(FakeEngine(act, said=17), act)
    with pytest.raises(EngineError, match=r'act.plan: context is float16 \[1, \d+, 64\]'):
        load(FakeEngine(wider), act)


def test_a_static_axis_is_not_taken_for_a_bucketed_one(manifest, load):
    encode, _ = policy_ports(manifest, 'fp16', 48)
    other = {**encode, 'positions': ('int64', (1, BUCKETS[0]))}
    with pytest.raises(EngineError, match=r'act.plan: positions is int64 \[1, 16\]'):
        load(FakeEngine(other), encode)


@pytest.mark.parametrize(
    ('buckets', 'said'),
    [
        ((16, 512), 'has 2 profiles'),
        ((64, 16, 512), r'profile 0 takes tokens of (\[1, 64, 48\](, )?){3}'),
    ],
)
def test_a_plan_whose_profiles_are_not_the_buckets_is_refused(manifest, load, buckets, said):
    _, act = policy_ports(manifest, 'fp16', 48)
    with pytest.raises(EngineError, match=said + r', but .* \[16, 64, 512\].*build it again'):
        load(FakeEngine(act, buckets=buckets), act)


def test_a_robot_loads_no_training_library():
    code = (
        'import sys, lightvla_ros.engine.tensorrt.engine; '
        'print({"torch", "onnx", "transformers", "tensorrt", "cuda"} & set(sys.modules))'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == 'set()'
