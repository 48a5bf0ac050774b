"""Building plans: TensorRT-RTX's builder, which needs no GPU, on graphs of the real signature."""

import dataclasses
import shutil
import signal
import subprocess
import sys
import threading
import types

import onnx.parser
import pytest
import tensorrt_rtx

from lightvla_ros.contract import amend_manifest, fingerprint, load_manifest
from lightvla_ros.engine.tensorrt.machine import (
    engine_facts,
    error_log,
    find_built,
    import_tensorrt,
)
from lightvla_ros.errors import BuildError, EngineError
from lightvla_ros.export.tensorrt import build as tensorrt_build
from lightvla_ros.export.tensorrt import install
from lightvla_ros.export.tensorrt.build import (
    TimingCache,
    build_engines,
    check_target,
    timing_cache_path,
)
from lightvla_ros.export.tensorrt.network import (
    build_error,
    build_plan,
    refuse_data_dependence,
    workspace_limit,
)
from lightvla_ros.export.tensorrt.progress import Phases, ctrl_c_stops, progress_monitor

# TensorRT-RTX has the timing cache's functions, but does nothing in them.
no_timings = pytest.mark.filterwarnings(
    'ignore:.*Timing cache operations are no-ops:DeprecationWarning'
)


@pytest.fixture(scope='module')
def graphs_dir(small_policy_fp16):
    """A folder with two fp16 graphs, and its manifest."""
    return small_policy_fp16, load_manifest(small_policy_fp16)


def write_graph(path, body, inputs='float16[1, bucket, 32] tokens, int64[1, bucket] positions'):
    text = (
        f'<ir_version: 9, opset_import: ["" : 20]> act ({inputs}) => (float actions) {{ {body} }}'
    )
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def write_contradictory_graph(path):
    """Write one with a position more than tokens, which takes no bucket."""
    return write_graph(
        path,
        'one = Constant<value_ints = [1]>() last = Constant<value_ints = [9999]>() '
        'rest = Slice(positions, one, last, one) many = Cast<to = 10>(rest) '
        'two = Constant<value_ints = [2]>() column = Unsqueeze(many, two) '
        'sums = Add(tokens, column) wide = Cast<to = 1>(sums) '
        'actions = ReduceSum<keepdims = 0>(wide)',
        'float16[1, bucket, 32] tokens, int64[1, more] positions',
    )


def build(path, buckets=(16, 32)):
    return build_plan(tensorrt_rtx, path, buckets, lambda config: None, print)


def test_both_graphs_build_on_a_cpu_with_a_profile_for_each_bucket(graphs_dir):
    folder, manifest = graphs_dir
    lines = []
    before = sorted(folder.iterdir())

    built = build_engines(folder, manifest, 'tensorrt-rtx', progress=lines.append)

    assert built.target == 'tensorrt-rtx'
    assert built.version == tensorrt_rtx.__version__
    assert [plan.graph for plan in built.plans] == ['encode', 'act']
    assert [plan.profiles for plan in built.plans] == [(), manifest.tokens.buckets]
    assert all(plan.nbytes > 10_000 and plan.seconds > 0 for plan in built.plans)
    assert lines == ['encode: building', 'act: building with 3 profiles']
    assert sorted(folder.iterdir()) == before


def test_profiles_are_in_the_plan(graphs_dir):
    """A plan grows with its profiles: they are compiled, not only named."""
    folder, manifest = graphs_dir
    one = build(folder / 'act.onnx', manifest.tokens.buckets[:1])
    all_of_them = build(folder / 'act.onnx', manifest.tokens.buckets)
    assert all_of_them.nbytes > 1.5 * one.nbytes


def test_fp32_is_not_rounded_to_tf32(graphs_dir):
    folder, _ = graphs_dir
    flags = []

    def look(config):
        flags.append(config.get_flag(tensorrt_rtx.BuilderFlag.TF32))

    build_plan(tensorrt_rtx, folder / 'encode.onnx', (), look, print)
    assert flags == [False]


def test_tensorrt_without_its_package_is_one_clear_line(graphs_dir):
    folder, manifest = graphs_dir
    with pytest.raises(EngineError):
        import_tensorrt()  # should this begin to pass, the test below needs another machine
    with pytest.raises(BuildError, match='tensorrt cannot be imported.*tensorrt-rtx$') as caught:
        build_engines(folder, manifest, 'tensorrt')
    assert '\n' not in str(caught.value)
    with pytest.raises(BuildError) as at_once:
        check_target('tensorrt')
    assert str(at_once.value) == str(caught.value)


def test_what_a_target_needs_is_looked_for_at_once(monkeypatch):
    check_target('tensorrt-rtx')
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', None)
    with pytest.raises(BuildError, match='tensorrt_rtx cannot be imported.*pip install'):
        check_target('tensorrt-rtx')
    with pytest.raises(BuildError, match="unknown target 'onnx'"):
        check_target('onnx')


@pytest.mark.parametrize(
    ('target', 'options', 'said'),
    [
        ('tensor-rt', {}, "unknown target 'tensor-rt'; choose tensorrt or tensorrt-rtx"),
        ('tensorrt-rtx', {'workspace': 0}, '--workspace is 0 MiB'),
    ],
)
def test_options_that_make_no_sense_are_refused(graphs_dir, target, options, said):
    folder, manifest = graphs_dir
    with pytest.raises(BuildError, match=said):
        build_engines(folder, manifest, target, **options)


def test_a_folder_without_graphs_is_refused(graphs_dir):
    folder, manifest = graphs_dir
    with pytest.raises(BuildError, match='has no graphs; export it first'):
        build_engines(folder, dataclasses.replace(manifest, graphs=None), 'tensorrt-rtx')


def test_nonzero_is_refused_with_its_node_named(tmp_path):
    path = write_graph(
        tmp_path / 'act.onnx',
        'chosen = NonZero(positions) some = Cast<to = 1>(chosen) '
        'actions = ReduceSum<keepdims = 0>(some)',
    )
    model = onnx.load(path)
    model.graph.node[0].name = 'the_pruner'
    onnx.save(model, path)
    with pytest.raises(BuildError, match=r'act\.onnx: node the_pruner \(NonZero\).*CUDA graph'):
        build(path)


def test_nonzero_is_refused_also_where_the_parser_takes_it(tmp_path):
    """Regular TensorRT parses and builds it."""
    builder = tensorrt_rtx.Builder(error_log(tensorrt_rtx))
    network = builder.create_network(0)
    layer = network.add_non_zero(network.add_input('x', tensorrt_rtx.float32, (4,)))
    layer.name = 'the_pruner'
    with pytest.raises(BuildError, match=r'act\.onnx: layer the_pruner \(NonZero\).*CUDA graph'):
        refuse_data_dependence(tensorrt_rtx, network, 'act.onnx')


def test_profiles_that_the_graph_contradicts_are_refused(tmp_path):
    path = write_contradictory_graph(tmp_path / 'act.onnx')
    with pytest.raises(BuildError, match="act.onnx: .*does not accept the manifest's buckets"):
        build(path)


@pytest.mark.parametrize(
    ('inputs', 'buckets', 'said'),
    [
        ('float16[batch, 9, 32] tokens', (16,), r'tokens has the shape \[-1, 9, 32\]'),
        ('float16[1, bucket, 32] context', (16,), r'context has the shape \[1, -1, 32\]'),
        ('float16[1, bucket, 32] tokens', (), r'tokens has the shape \[1, -1, 32\]'),
    ],
)
def test_other_dynamic_inputs_are_refused(tmp_path, inputs, buckets, said):
    name = inputs.split()[-1]
    path = write_graph(
        tmp_path / 'act.onnx',
        f'wide = Cast<to = 1>({name}) actions = ReduceSum<keepdims = 0>(wide)',
        inputs,
    )
    with pytest.raises(BuildError, match=said + '.*export the policy again'):
        build(path, buckets)


def test_files_that_are_no_graph_are_refused(tmp_path):
    (tmp_path / 'act.onnx').write_bytes(b'not a graph')
    with pytest.raises(BuildError, match=r'act\.onnx: '):
        build(tmp_path / 'act.onnx')
    with pytest.raises(BuildError, match=r'gone\.onnx: '):
        build(tmp_path / 'gone.onnx')


def test_missing_external_data_is_refused(graphs_dir, tmp_path):
    folder, _ = graphs_dir
    (tmp_path / 'act.onnx').write_bytes((folder / 'act.onnx').read_bytes())
    with pytest.raises(BuildError, match=r'act\.onnx: .*initializer.*NAME\.data'):
        build(tmp_path / 'act.onnx')


def test_an_error_is_not_said_of_the_next_build(graphs_dir, tmp_path):
    folder, _ = graphs_dir
    with pytest.raises(BuildError):
        build(tmp_path / 'gone.onnx')
    build(folder / 'encode.onnx', ())
    assert error_log(tensorrt_rtx).take() == []


@pytest.mark.parametrize(
    ('said', 'advice'),
    [
        ('Requested amount of GPU memory (1073741824 bytes) could not be allocated', '--workspace'),
        ('Could not find any implementation for node X due to insufficient workspace', '--works'),
        ('Could not find any implementation for node {ForeignNode[a...b]}.', '--precision'),
        ('CUDA initialization failure with error: 35', 'nvidia-smi'),
    ],
)
def test_what_tensorrt_says_comes_with_advice(said, advice):
    error = str(build_error('act.onnx', said))
    assert error.startswith(f'act.onnx: {said}')
    assert advice in error


def test_phases_say_how_long_the_longest_takes():
    phases = Phases()
    phases.start('Building engine', 6, now=0.0)
    assert phases.line(now=3.0) == 'Building engine 0/6, 3 s so far'
    phases.step('Building engine', 0)
    phases.start('Computing profile costs', 25, now=10.0)
    phases.start('Timing graph nodes', 4, now=60.0)
    for step in range(5):
        phases.step('Computing profile costs', step)
    phases.step('Timing graph nodes', 2)
    assert phases.line(now=60.0) == 'Computing profile costs 5/25, about 200 s left'
    phases.finish('Computing profile costs')
    assert phases.line(now=66.0) == 'Timing graph nodes 3/4, about 2 s left'
    phases.step('unheard of', 1)
    phases.finish('unheard of')


def test_progress_is_said_while_it_builds(graphs_dir, monkeypatch):
    folder, manifest = graphs_dir
    monkeypatch.setattr('lightvla_ros.export.tensorrt.progress.SECONDS_BETWEEN_LINES', 0.0)
    lines = []
    build_plan(tensorrt_rtx, folder / 'encode.onnx', (), lambda config: None, lines.append)
    assert len(lines) > 10
    assert all(line.startswith('encode: ') for line in lines)


def test_a_layers_memory_can_be_limited():
    config = tensorrt_rtx.Builder(error_log(tensorrt_rtx)).create_builder_config()
    pool = tensorrt_rtx.MemoryPoolType.WORKSPACE
    before = config.get_memory_pool_limit(pool)
    workspace_limit(tensorrt_rtx, None)(config)
    assert config.get_memory_pool_limit(pool) == before
    workspace_limit(tensorrt_rtx, 64)(config)
    assert config.get_memory_pool_limit(pool) == 64 * 2**20


# In processes of their own: rclpy, which other tests start, has a handler of its own in C.
CTRL_C_WHILE_A_LINE_IS_SAID = """
progress.SECONDS_BETWEEN_LINES = 0.0
lines = []

def interrupt(line):
    lines.append(line)
    signal.raise_signal(signal.SIGINT)

try:
    build_plan(tensorrt_rtx, path, (), lambda config: None, interrupt)
except KeyboardInterrupt:
    assert len(lines) < 5  # many more are said in a whole build
    stopped = True
"""
# TensorRT loses what is raised in its log.
CTRL_C_WHILE_TENSORRT_LOGS = """
armed, said = [], []

def interrupt(self, severity, message):
    if armed and not said:
        said.append(message)
        signal.raise_signal(signal.SIGINT)

type(error_log(tensorrt_rtx)).log = interrupt
try:
    build_plan(tensorrt_rtx, path, (), armed.append, print)
except KeyboardInterrupt:
    assert len(said) == 1
    stopped = True
"""


@pytest.mark.parametrize('program', [CTRL_C_WHILE_A_LINE_IS_SAID, CTRL_C_WHILE_TENSORRT_LOGS])
def test_ctrl_c_stops_the_build(graphs_dir, program):
    folder, _ = graphs_dir
    before = (
        'import signal, sys\nfrom pathlib import Path\nimport tensorrt_rtx\n'
        'from lightvla_ros.engine.tensorrt.machine import error_log\n'
        'from lightvla_ros.export.tensorrt import progress\n'
        'from lightvla_ros.export.tensorrt.network import build_plan\n'
        'path, stopped, handler = Path(sys.argv[1]), False, signal.getsignal(signal.SIGINT)\n'
    )
    after = 'assert stopped\nassert signal.getsignal(signal.SIGINT) is handler\n'
    command = [sys.executable, '-c', before + program + after, str(folder / 'encode.onnx')]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_build_outside_the_main_thread_leaves_ctrl_c_alone():
    monitor = progress_monitor(tensorrt_rtx, 'act', print)
    before = signal.getsignal(signal.SIGINT)
    found = []

    def build():
        with ctrl_c_stops(monitor):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert found == [before]


def test_the_monitor_goes_on_until_interrupted():
    monitor = progress_monitor(tensorrt_rtx, 'act', print)
    monitor.phase_start('Building engine', None, 6)
    assert monitor.step_complete('Building engine', 0)
    assert not monitor.interrupted


@no_timings
@pytest.mark.parametrize('before', [None, b''])
def test_timings_are_kept_from_build_to_build(tmp_path, before):
    config = tensorrt_rtx.Builder(tensorrt_rtx.Logger()).create_builder_config()
    path = tmp_path / 'cache' / 'gpu.timings'
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    cache = TimingCache(path)
    cache.attach(config)
    cache.attach(config)
    cache.save()
    assert path.stat().st_size > 0
    assert [file.name for file in path.parent.iterdir()] == ['gpu.timings']
    TimingCache(path).attach(config)


@no_timings
def test_timings_that_cannot_be_kept_are_no_failure(tmp_path):
    config = tensorrt_rtx.Builder(tensorrt_rtx.Logger()).create_builder_config()
    (tmp_path / 'file').touch()
    for path in (tmp_path / 'file' / 'gpu.timings', tmp_path, None):  # two cannot be read either
        cache = TimingCache(path)
        cache.attach(config)
        cache.save()


class OtherGPUsConfig:
    """A builder's configuration that takes a timing cache only if it is new."""

    def __init__(self, takes_damaged):
        self.takes_damaged = takes_damaged
        self.cache = None

    def create_timing_cache(self, before):
        if before and not self.takes_damaged:
            return None
        return types.SimpleNamespace(before=before, serialize=lambda: b'measured ' + before)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = None if cache.before else cache
        return self.cache is not None


@pytest.mark.parametrize('takes_damaged', [True, False])
def test_timings_that_tensorrt_does_not_take_are_begun_anew(tmp_path, takes_damaged):
    path = tmp_path / 'gpu.timings'
    path.write_bytes(b'damaged')
    config = OtherGPUsConfig(takes_damaged)
    cache = TimingCache(path)
    cache.attach(config)
    assert config.cache.before == b''
    cache.save()
    assert path.read_bytes() == b'measured '


def test_what_is_said_of_bad_timings_is_not_the_cause_of_a_failure(tmp_path):
    path = write_contradictory_graph(tmp_path / 'act.onnx')

    def configure(config):
        log = error_log(tensorrt_rtx)
        log.log(tensorrt_rtx.ILogger.ERROR, 'timing cache: header mismatch')

    with pytest.raises(BuildError) as caught:
        build_plan(tensorrt_rtx, path, (16, 32), configure, print)
    assert 'timing cache' not in str(caught.value)


def test_timings_of_another_gpu_or_tensorrt_lie_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    machine = {'tensorrt': '10.13.3', 'gpu': 'NVIDIA RTX 4090 (a/b)', 'compute_capability': '8.9'}
    path = timing_cache_path(machine)
    assert path == tmp_path / 'lightvla_ros' / 'tensorrt-10.13.3-NVIDIA-RTX-4090-a-b-8.9.timings'
    assert timing_cache_path({**machine, 'tensorrt': '11.4.0'}) != path


def test_a_user_without_a_home_keeps_no_timings(monkeypatch):
    def no_home():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setattr('pathlib.Path.home', no_home)
    machine = {'tensorrt': '10.13.3', 'gpu': 'Orin', 'compute_capability': '8.7'}
    assert timing_cache_path(machine) is None


def test_graphs_in_fp32_build(policy_dir):
    build_engines(policy_dir, load_manifest(policy_dir), 'tensorrt-rtx')


@pytest.fixture
def rtx_as_tensorrt(policy_dir, tmp_path, monkeypatch):
    """A policy folder on a machine whose TensorRT is TensorRT-RTX: they have the builder's API."""
    machine = {'tensorrt': '1.7', 'gpu': 'none', 'compute_capability': '8.9', 'cuda_driver': '13.0'}
    monkeypatch.setattr(tensorrt_build, 'machine_facts', lambda: machine)
    monkeypatch.setattr(tensorrt_build, 'import_tensorrt', lambda: tensorrt_rtx)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return shutil.copytree(policy_dir, tmp_path / 'policy'), machine


@no_timings
def test_plans_are_kept_and_not_built_twice(rtx_as_tensorrt):
    folder, machine = rtx_as_tensorrt
    built = build_engines(folder, load_manifest(folder), 'tensorrt')

    manifest = load_manifest(folder)
    engine = find_built(folder, manifest, machine)
    assert manifest.engines == (engine,)
    assert engine.encode == f'encode-{engine.fingerprint[:12]}.plan'
    assert engine.facts['precision'] == 'fp32'
    for plan, file in zip(built.plans, (engine.encode, engine.act), strict=True):
        assert (folder / file).stat().st_size == plan.nbytes
    assert len(list((folder.parent / 'cache/lightvla_ros').iterdir())) == 1
    assert {path.name for path in folder.parent.iterdir()} == {'cache', 'policy'}

    again = build_engines(folder, manifest, 'tensorrt')
    assert load_manifest(folder) == manifest
    assert [plan.nbytes for plan in again.plans] == [plan.nbytes for plan in built.plans]
    assert [plan.seconds for plan in again.plans] == [0.0, 0.0]


@no_timings
def test_a_new_build_drops_what_its_gpu_cannot_load_any_more(rtx_as_tensorrt):
    folder, machine = rtx_as_tensorrt
    other = {**machine, 'gpu': 'Orin', 'compute_capability': '8.7'}
    for facts in (other, machine):
        list_unusable_engine(folder, {**facts, 'tensorrt': '1.5'})
    orin, replaced = load_manifest(folder).engines

    build_engines(folder, load_manifest(folder), 'tensorrt')

    manifest = load_manifest(folder)  # which refuses files too many or too few
    assert manifest.engines == (orin, find_built(folder, manifest, machine))
    verified = {each.fingerprint for each in manifest.verified}
    assert orin.fingerprint in verified
    assert replaced.fingerprint not in verified
    assert not (folder / replaced.encode).exists()
    assert (folder / orin.act).read_bytes() == b'a plan'


def list_unusable_engine(folder, machine):
    """Add an entry with two files that pass for plans, and a verification of it."""
    manifest = load_manifest(folder)
    facts = engine_facts(manifest, machine)
    identity = fingerprint(facts)
    files = {graph: f'{graph}-{identity[:12]}.plan' for graph in ('encode', 'act')}
    for name in files.values():
        (folder / name).write_bytes(b'a plan')
    entry = {'target': 'tensorrt', 'fingerprint': identity, 'facts': facts, **files}
    verification = {
        'fingerprint': identity,
        'backend': 'tensorrt',
        'precision': 'fp32',
        'date': '2026-01-01',
        'reference': 'golden',
        'passed': True,
        'figures': {},
    }
    amend_manifest(
        folder,
        new_files=tuple(files.values()),
        engines=[*map(dataclasses.asdict, manifest.engines), entry],
        verified=[*(each.as_dict() for each in manifest.verified), verification],
    )


@no_timings
def test_the_folder_can_be_loaded_and_changed_during_a_build(rtx_as_tensorrt):
    folder, machine = rtx_as_tensorrt
    manifest = load_manifest(folder)
    lines = []

    def change(line):
        lines.append(line)
        if line.startswith('act: building'):  # encode's plan is there
            list_unusable_engine(folder, {**machine, 'gpu': 'Orin'})
            assert load_manifest(folder).provenance == manifest.provenance

    build_engines(folder, manifest, 'tensorrt', progress=change)
    manifest = load_manifest(folder)
    assert [engine.facts['gpu'] for engine in manifest.engines] == ['Orin', 'none']
    assert manifest.engines[0].fingerprint in {each.fingerprint for each in manifest.verified}


@no_timings
def test_a_folder_exported_again_during_the_build_is_not_given_its_plans(rtx_as_tensorrt):
    folder, _ = rtx_as_tensorrt
    manifest = load_manifest(folder)

    def export_again(line):
        if line.startswith('act: building'):
            tokens = dataclasses.asdict(manifest.tokens)
            amend_manifest(folder, tokens={**tokens, 'buckets': list(tokens['buckets'][1:])})

    with pytest.raises(BuildError, match='exported again during the build'):
        build_engines(folder, manifest, 'tensorrt', progress=export_again)
    assert load_manifest(folder).engines == ()


@no_timings
def test_two_builds_of_the_same_keep_the_plans_that_are_listed(rtx_as_tensorrt):
    folder, machine = rtx_as_tensorrt
    manifest = load_manifest(folder)

    def other_build(line):
        if line.startswith('act: building'):
            list_unusable_engine(folder, machine)

    built = build_engines(folder, manifest, 'tensorrt', progress=other_build)
    assert [plan.nbytes for plan in built.plans] == [len(b'a plan')] * 2
    assert len(load_manifest(folder).engines) == 1


@no_timings
@pytest.mark.parametrize('step', [1, 2])
def test_ctrl_c_while_plans_are_listed_leaves_a_folder_that_loads(
    rtx_as_tensorrt, monkeypatch, step
):
    folder, machine = rtx_as_tensorrt
    list_unusable_engine(folder, {**machine, 'tensorrt': '1.5'})
    before = load_manifest(folder)
    calls = []

    def interrupted(*arguments, **fields):
        calls.append(fields)
        if len(calls) == step:
            raise KeyboardInterrupt
        return amend_manifest(*arguments, **fields)

    monkeypatch.setattr(install, 'amend_manifest', interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engines(folder, before, 'tensorrt')
    assert load_manifest(folder).engines[:1] == before.engines
    assert len(load_manifest(folder).engines) == step
    assert {path.name for path in folder.parent.iterdir()} == {'cache', 'policy'}


def test_a_plan_that_is_not_copied_wholly_stays_where_it_was(tmp_path, monkeypatch):
    """As from one file system to another that is full."""
    whole, part = tmp_path / 'old.plan', tmp_path / 'copy.plan'
    whole.write_bytes(b'whole')

    def fill_the_disk(source, target):
        target.write_bytes(b'wh')
        raise OSError('No space left on device')

    monkeypatch.setattr(shutil, 'move', fill_the_disk)
    with pytest.raises(OSError, match='No space'), install._moved([(whole, part)]):
        pass
    assert whole.read_bytes() == b'whole'
    assert not part.exists()


@no_timings
def test_a_build_that_fails_leaves_the_folder_as_it_was(rtx_as_tensorrt):
    folder, _ = rtx_as_tensorrt
    manifest = load_manifest(folder)
    write_graph(
        folder / manifest.graphs.act,
        'chosen = NonZero(positions) some = Cast<to = 1>(chosen) '
        'actions = ReduceSum<keepdims = 0>(some)',
    )
    before = sorted(folder.iterdir())
    with pytest.raises(BuildError, match='NonZero'):
        build_engines(folder, manifest, 'tensorrt')  # after encode has been built
    assert sorted(folder.iterdir()) == before
    assert {path.name for path in folder.parent.iterdir()} == {'cache', 'policy'}
