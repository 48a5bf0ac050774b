"""What our source uses of TensorRT, compared with the real bindings.

``test/tools/tensorrt_bindings.sh`` runs this file with the bindings of other releases.
"""

import importlib
import re
from pathlib import Path

import pytest
from tensorrt_uses import look

import lightvla_ros
from lightvla_ros.engine.tensorrt.plan import DTYPES

ROOT = Path(lightvla_ros.__file__).parent
FILES = [
    *sorted((ROOT / 'engine/tensorrt').glob('*.py')),
    *sorted((ROOT / 'export/tensorrt').glob('*.py')),
    ROOT / 'export/shape_proof.py',
]

# TensorRT-RTX 1.7 lacks nothing of what we use, so no difference has to be allowed for.


@pytest.fixture(scope='module')
def api():
    """TensorRT's Python module, or that of TensorRT-RTX, which has the same API."""
    for name in ('tensorrt', 'tensorrt_rtx'):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    pytest.skip('neither tensorrt nor tensorrt_rtx can be imported')


def test_what_we_use_of_tensorrt_is_there_as_we_use_it(api):
    uses, faults = look(api, {path.name: path.read_text() for path in FILES})
    assert not faults
    assert uses > {  # one of each class: nothing is lost on the way there
        'Builder.create_network',
        'BuilderFlag.TF32',
        'DataType.name',
        'ExecutionContextAllocationStrategy.USER_MANAGED',
        'IBuilderConfig.progress_monitor',
        'ICudaEngine.get_tensor_profile_shape',
        'IExecutionContext.execute_async_v3',
        'IHostMemory.nbytes',
        'ILayer.type',
        'ILogger.log',
        'INetworkDefinition.get_layer',
        'IOptimizationProfile.set_shape',
        'IProgressMonitor.step_complete',
        'ITensor.shape',
        'ITimingCache.serialize',
        'LayerType.NON_ZERO',
        'MemoryPoolType.WORKSPACE',
        'NetworkDefinitionCreationFlag.STRONGLY_TYPED',
        'OnnxParser.parse_from_file',
        'ParserError.desc',
        'Runtime.deserialize_cuda_engine',
    }


def test_the_number_types_of_a_plan_have_tensorrts_names(api):
    assert DTYPES.keys() <= api.DataType.__members__.keys()


@pytest.mark.parametrize(
    ('planted', 'said'),
    [
        ('trt.Bilder(log)', 'there is no tensorrt(_rtx)?.Bilder'),
        ('trt.BuilderFlag.TF33', 'there is no BuilderFlag.TF33'),
        ('trt.Builder(log).make_network(0)', 'there is no Builder.make_network'),
        ('builder.create_network(0).get_layer(0).kind', 'there is no ILayer.kind'),
        ('parse(trt).num_layer', 'there is no INetworkDefinition.num_layer'),
        (
            '[port.size for port in [network.get_input(i) for i in (0, 1)]]',
            'there is no ITensor.size',
        ),
        ('for plan, _ in plans(): plan.size', 'there is no IHostMemory.size'),
        ('trt.OnnxParser(network, log).get_error(0).text()', 'there is no ParserError.text'),
        ('trt.Builder()', r'trt.Builder\(\): it takes \(logger\)'),
        ('builder.create_network(0, 1)', r'it takes \(flags=\)'),
        ('builder.create_network(flag=0)', r'it takes \(flags=\)'),
        ('builder.create_builder_config().num_optimization_profiles = 2', 'cannot be set'),
        ('class Log(trt.ILogger): pass', 'ILogger.log is not overridden'),
        (
            'class Log(trt.ILogger):\n        def log(self, message): pass',
            r'log is called with \(severity, msg\)',
        ),
    ],
)
def test_a_wrong_use_is_found(api, planted, said):
    source = (
        'def parse(trt) -> tensorrt.INetworkDefinition: ...\n'
        'def plans() -> Iterator[tuple[tensorrt.IHostMemory, int]]: ...\n'
        'def use(trt, log, network: tensorrt.INetworkDefinition):\n'
        f'    builder = trt.Builder(log)\n    {planted}\n'
    )
    _, faults = look(api, {'planted.py': source})
    (fault,) = faults
    assert re.match(rf'planted\.py:[56]: .*{said}', fault)
