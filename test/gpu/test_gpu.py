"""The engines on a real GPU of NVIDIA: `make test-gpu` runs these; elsewhere they are skipped."""

import shutil
import threading

import numpy as np
import pytest

torch = pytest.importorskip('torch')
if not torch.cuda.is_available():
    pytest.skip('PyTorch finds no GPU of NVIDIA', allow_module_level=True)

from lightvla_ros.cli import main  # noqa: E402
from lightvla_ros.contract import load_manifest  # noqa: E402
from lightvla_ros.engine.static_model import StaticModel  # noqa: E402
from lightvla_ros.engine.torch import TorchEngine  # noqa: E402
from lightvla_ros.engine.torch_cuda import TorchCudaEngine, weight_bytes  # noqa: E402
from lightvla_ros.policy.golden import random_inputs  # noqa: E402
from lightvla_ros.policy.observation import observations  # noqa: E402
from lightvla_ros.policy.policy import Policy  # noqa: E402
from lightvla_ros.vla.config import first_layers, preset  # noqa: E402
from lightvla_ros.vla.model import LightVLA  # noqa: E402

# warnings of PyTorch's own compiler are no errors of ours
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings('default')]


@pytest.fixture(scope='module')
def manifest(bundled_policy):
    return load_manifest(bundled_policy)


@pytest.fixture(scope='module')
def policy(bundled_policy, manifest):
    engine = TorchCudaEngine(bundled_policy, manifest, precision='fp32')
    with Policy(bundled_policy, manifest, engine) as policy:
        yield policy


@pytest.fixture(scope='module')
def seen(manifest):
    return observations(manifest, random_inputs(manifest, 8, 5))


def test_every_bucket_equals_the_cpu(policy, bundled_policy, manifest, seen):
    reference = Policy(bundled_policy, manifest, TorchEngine(bundled_policy, manifest))
    for observation in seen:
        one = reference.engine.encode(*reference.prepare(observation))
        two = policy.engine.encode(*policy.prepare(observation))
        assert one.kept == two.kept
        np.testing.assert_array_equal(
            reference.engine.kept_patches(one), policy.engine.kept_patches(two)
        )
        for bucket in manifest.tokens.buckets:
            np.testing.assert_allclose(
                policy.engine.act(two, bucket), reference.engine.act(one, bucket), atol=1e-4
            )


def test_nothing_is_allocated_while_it_runs(policy, seen):
    def allocations():
        return torch.cuda.memory_stats()['allocation.all.allocated']

    policy.infer(seen[0])
    before = allocations()
    for observation in seen * 10:
        policy.infer(observation)
    assert allocations() == before


def test_the_same_observation_gives_the_same_bits_in_any_thread(policy, seen):
    first, found = policy.infer(seen[0]).normalised, []

    def run():
        for _ in range(50):
            found.append(policy.infer(seen[0]).normalised)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(found) == 50
    assert all(np.array_equal(first, each) for each in found)


@pytest.mark.parametrize('precision', ['bf16', 'fp8'])
def test_weights_are_not_kept_twice(precision):
    if precision == 'fp8' and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip('this GPU has no fp8')
    config = first_layers(preset('openvla-oft-7b'), 8)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = LightVLA(config).eval().requires_grad_(False)
    torch.set_default_dtype(default)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    largest = [[10.0] * 4] * config.language.layers if precision == 'fp8' else None
    buckets = (80, config.patches)
    static = StaticModel(
        model, 33, buckets, 'cuda', torch.bfloat16, largest=largest, compiled=False
    )
    weights = weight_bytes(config, precision)
    peak = torch.cuda.max_memory_allocated() - before
    print(f'{precision}: {weights / 2**30:.2f} GiB of weights, peak {peak / weights:.3f} of them')
    # the states of 604 tokens weigh more beside 8 layers than beside 32
    assert peak < 1.15 * weights + 2**28
    static.close()
    del model, static
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before + 2**27  # libraries keep their work space


@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
def test_verify_passes(bundled_policy, tmp_path, precision):
    copy = shutil.copytree(bundled_policy, tmp_path / 'policy')
    command = ['verify', str(copy), '--engine', 'torch-cuda', '--precision', precision]
    assert main([*command, '--count', '4']) == 0
    with Policy.load(copy, 'torch-cuda') as policy:  # the precision that passed, replayed
        assert policy.engine.precision == precision


def test_a_small_policy_in_bf16_is_refused(bundled_policy, tmp_path, capsys):
    copy = shutil.copytree(bundled_policy, tmp_path / 'policy')
    command = ['verify', str(copy), '--engine', 'torch-cuda', '--precision', 'bf16']
    assert main(command) == 1
    assert 'torch-cuda bf16: FAILED' in capsys.readouterr().out
