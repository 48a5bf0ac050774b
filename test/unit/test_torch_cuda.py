"""The engine `torch-cuda` without its capture: the same class on a CPU, with graphs off."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from small_policy import BUCKETS, small_config  # noqa: E402

from lightvla_ros.cli import main  # noqa: E402
from lightvla_ros.contract import MANIFEST_NAME, load_manifest  # noqa: E402
from lightvla_ros.contract.manifest import Fp8  # noqa: E402
from lightvla_ros.engine import options_of, torch_cuda  # noqa: E402
from lightvla_ros.engine.base import PromptIds  # noqa: E402
from lightvla_ros.engine.static_model import MULTIPLE, StaticModel  # noqa: E402
from lightvla_ros.engine.torch import TorchEngine  # noqa: E402
from lightvla_ros.engine.torch_cuda import TorchCudaEngine, weight_bytes  # noqa: E402
from lightvla_ros.errors import ContractError, EngineError  # noqa: E402
from lightvla_ros.policy.golden import random_inputs  # noqa: E402
from lightvla_ros.policy.golden_file import read_golden  # noqa: E402
from lightvla_ros.policy.observation import observations  # noqa: E402
from lightvla_ros.policy.policy import Policy  # noqa: E402
from lightvla_ros.verify.variants import choose, variants  # noqa: E402
from lightvla_ros.vla.fp8 import E4M3, HEADROOM, Fp8Linear, measure_activations  # noqa: E402
from lightvla_ros.vla.halves import ActHalf, EncodeHalf  # noqa: E402
from lightvla_ros.vla.model import LightVLA  # noqa: E402

WORDS = 9


def on_cpu(policy_dir, precision='fp32', manifest=None, **options):
    manifest = manifest or load_manifest(policy_dir)
    options = {'compiled': False, 'device': 'cpu'} | options
    return TorchCudaEngine(policy_dir, manifest, precision=precision, **options)


def static(config, buckets=BUCKETS, dtype=torch.float32, **options):
    """A model with random weights, and the same with static shapes."""
    torch.manual_seed(3)
    eager = LightVLA(config).eval().requires_grad_(False)
    torch.manual_seed(3)
    other = LightVLA(config).eval().requires_grad_(False)
    return eager, StaticModel(other, WORDS, buckets, 'cpu', dtype, compiled=False, **options)


def run_both(config, eager, model, seed, padding=2):
    """Give both the same inputs; return the eager halves' outputs, and act's by bucket."""
    random = np.random.default_rng(seed)
    pixels = random.standard_normal(model.pixels.array.shape, np.float32)
    ids = random.integers(3, config.language.vocabulary, (1, 1 + WORDS))
    mask = np.arange(1 + WORDS)[None] >= padding
    model.pixels.write(pixels)
    proprio = None
    if model.proprio is not None:
        state = random.uniform(-1, 1, model.proprio.array.shape).astype(np.float32)
        model.proprio.write(state)
        proprio = torch.from_numpy(state)
    model.set_prompt(ids, mask)
    model.encode()
    words = eager.language_model.model.embed_tokens(torch.from_numpy(ids[:, 1:]))
    word_mask = torch.from_numpy(mask[:, :-1])
    with torch.no_grad():
        tokens, positions, kept, context = EncodeHalf(eager)(
            torch.from_numpy(pixels), words, word_mask, proprio
        )
        acts = {
            bucket: ActHalf(eager)(
                tokens[:, :bucket], positions[:, :bucket], kept, context, word_mask
            ).numpy()
            for bucket in BUCKETS
        }
    return positions[0].numpy(), kept.numpy(), acts


@pytest.mark.parametrize('film', [False, True], ids=['', 'film'])
@pytest.mark.parametrize(
    'method', ['lightvla', 'off', 'lightvla_star_encoder', 'lightvla_star_llm', 'adp', 'dart']
)
def test_every_bucket_equals_the_eager_model(method, film):
    config = replace(small_config(method), film=film)
    eager, model = static(config)
    for seed in range(4):
        positions, kept, acts = run_both(config, eager, model, seed)
        count = int(kept.sum())
        np.testing.assert_array_equal(model.kept.array, kept)
        np.testing.assert_array_equal(model.positions.array[0, :count], positions[:count])
        for bucket, wanted in acts.items():
            model.act(bucket)
            # the order of sums: 2.3e-6 on a processor with AVX-512; one position off by one: 1.3e-3
            np.testing.assert_allclose(model.actions.array, wanted, atol=5e-6)


def test_a_camera_alone_and_no_proprio():
    config = replace(small_config(), cameras=1, proprio_size=0)
    eager, model = static(config, buckets=(4, 16))
    assert model.proprio is None
    random = np.random.default_rng(0)
    model.pixels.write(random.standard_normal(model.pixels.array.shape, np.float32))
    model.set_prompt(np.arange(1 + WORDS)[None], np.ones((1, 1 + WORDS), bool))
    model.encode()
    assert 1 <= model.kept.array.sum() <= 16


def test_sequences_are_multiples_that_the_kernels_like():
    config = small_config()
    context = config.context_length(1 + WORDS)
    _, model = static(config)
    assert all((rows + context) % MULTIPLE == 0 for rows in model._rows.values())
    seen = []
    tower = model._encode_half.model.vision_backbone.featurizer
    tower.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    model.encode()
    assert seen == [24]  # 16 patches, the class token and 2 registers are 19


def test_content_of_masked_rows_changes_no_bit():
    config = small_config()
    eager, model = static(config)
    run_both(config, eager, model, 0)
    count = int(model.kept.array.sum())
    before = {}
    for bucket in BUCKETS:
        model.act(bucket)
        before[bucket] = model.actions.array.copy()
    model.tokens[:, count:] = 100
    model.positions.tensor[:, count:] = 7
    for bucket in [each for each in BUCKETS if each >= count]:
        model.act(bucket)
        np.testing.assert_array_equal(model.actions.array, before[bucket])


def test_weights_are_fused_and_not_kept_twice():
    config = small_config()
    _, model = static(config)
    parts = dict(model._encode_half.model.named_parameters())
    assert not [name for name in parts if 'q_proj' in name or 'gate_proj' in name]
    held = sum(each.numel() * each.element_size() for each in parts.values())
    assert held == weight_bytes(
        config, 'fp32'
    )  # without the table of embeddings, which is not moved


def test_weight_bytes_of_every_precision():
    config = small_config()
    single, half, eight = (weight_bytes(config, each) for each in ('fp32', 'bf16', 'fp8'))
    assert single == 2 * half
    layer = config.language
    products = layer.layers * (4 * layer.width**2 + 3 * layer.width * layer.mlp_width)
    assert half - eight == products


# --- fp8


def test_an_fp8_product_is_that_of_the_rounded_numbers():
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 48, bias=False)
    x = torch.randn(2, 5, 64, dtype=torch.float16)
    largest = float(x.abs().max())
    product = Fp8Linear(linear.half(), largest)
    weight = product.weight.float() * product.weight_scale
    scale = HEADROOM * largest / torch.finfo(E4M3).max
    rounded = (x.float() / scale).to(E4M3).float() * scale
    torch.testing.assert_close(product(x).float(), rounded @ weight.t(), rtol=2e-3, atol=2e-3)
    # E4M3 has 3 bits of mantissa: a weight is off by a sixteenth at most
    error = (weight - linear.weight.float()).abs() / linear.weight.float().abs().clamp_min(1e-3)
    assert error.max() < 1 / 16 + 1e-3


def test_inputs_beyond_the_headroom_are_limited_not_nan():
    product = Fp8Linear(torch.nn.Linear(16, 16, bias=False).half(), 1.0)
    x = torch.zeros(1, 16, dtype=torch.float16)
    x[0, 0] = 60000
    limited = torch.zeros_like(x)
    limited[0, 0] = HEADROOM
    torch.testing.assert_close(product(x), product(limited))
    assert product(x).isfinite().all()


def test_measured_activations_are_the_largest_inputs_of_the_four_products():
    config = small_config()
    torch.manual_seed(3)
    model = LightVLA(config).eval().requires_grad_(False)
    llama = model.language_model.model
    x = torch.randn(1, 8, config.language.width)
    with measure_activations(llama) as largest, torch.no_grad():
        llama(x, torch.arange(8)[None])
    layer = llama.layers[0]
    wanted = float(layer.input_layernorm(x).abs().max())
    assert largest[0][0] == pytest.approx(wanted)
    assert np.array(largest).shape == (config.language.layers, 4)
    assert np.min(largest) > 0
    with torch.no_grad():
        llama(100 * x, torch.arange(8)[None])
    assert largest[0][0] == pytest.approx(wanted)  # it no longer watches


def test_fp8_keeps_the_tokens_of_16_bits_and_comes_near_its_actions(bundled_policy):
    manifest = load_manifest(bundled_policy)
    seen = observations(manifest, read_golden(bundled_policy, manifest))
    reference = TorchEngine(bundled_policy, manifest)
    with (
        Policy(bundled_policy, manifest, reference) as policy,
        measure_activations(reference.model.language_model.model) as largest,
    ):
        for observation in seen:
            policy.infer(observation)
    manifest = replace(manifest, fp8=Fp8(tuple(map(tuple, largest)), len(seen)))
    half = Policy(bundled_policy, manifest, on_cpu(bundled_policy, 'fp16'))
    eight = Policy(bundled_policy, manifest, on_cpu(bundled_policy, 'fp8', manifest))
    for observation in seen:
        one, two = half.infer(observation), eight.infer(observation)
        np.testing.assert_array_equal(one.kept_patches, two.kept_patches)
        # 0.007 in the mean; a trained 7B averages more of the rounding away, this is 128 wide
        assert 0 < np.abs(one.normalised - two.normalised).mean() < 0.03


def test_the_decoder_alone_is_in_fp8():
    _, model = static(small_config(), dtype=torch.float16, largest=[[8.0] * 4] * 2)
    whole = model._encode_half.model
    eight = {name for name, each in whole.named_modules() if isinstance(each, Fp8Linear)}
    assert len(eight) == 4 * 2
    assert all(name.startswith('language_model.model.layers.') for name in eight)
    assert whole.action_head.model.fc1.weight.dtype == torch.float16


def test_the_layer_that_adp_reads_keeps_16_bits():
    config = small_config('adp')
    eager, model = static(config, dtype=torch.float16, largest=[[8.0] * 4] * 2)
    whole = model._encode_half.model
    eight = {name for name, each in whole.named_modules() if isinstance(each, Fp8Linear)}
    assert len(eight) == 4
    assert all(name.startswith('language_model.model.layers.1.') for name in eight)
    _, kept, _ = run_both(config, eager, model, 0)
    np.testing.assert_array_equal(model.kept.array, kept)


# --- the engine, on policy folders


def test_the_bundled_policy_answers_as_recorded(bundled_policy):
    manifest = load_manifest(bundled_policy)
    with Policy(bundled_policy, manifest, on_cpu(bundled_policy)) as policy:
        policy.replay_golden()
        assert policy.engine.backend == 'torch-cuda'


def test_a_new_prompt_is_uploaded_and_an_old_one_is_not_kept(small_policy):
    manifest = load_manifest(small_policy)
    reference = Policy(small_policy, manifest, TorchEngine(small_policy, manifest))
    policy = Policy(small_policy, manifest, on_cpu(small_policy))
    for observation in observations(manifest, random_inputs(manifest, 5, 1)):
        np.testing.assert_allclose(
            policy.infer(observation).normalised,
            reference.infer(observation).normalised,
            atol=2e-6,
        )


def test_tokens_that_were_overwritten_are_refused(small_policy):
    manifest = load_manifest(small_policy)
    policy = Policy(small_policy, manifest, on_cpu(small_policy))
    (seen,) = observations(manifest, random_inputs(manifest, 1, 1))
    first = policy.engine.encode(*policy.prepare(seen))
    policy.engine.encode(*policy.prepare(seen))
    with pytest.raises(EngineError, match='overwritten by a later encode'):
        policy.engine.act(first, 32)
    with pytest.raises(EngineError, match='overwritten by a later encode'):
        policy.engine.kept_patches(first)


def test_an_error_of_the_driver_is_one_line(small_policy):
    engine = on_cpu(small_policy)
    manifest = load_manifest(small_policy)
    policy = Policy(small_policy, manifest, engine)
    (seen,) = observations(manifest, random_inputs(manifest, 1, 1))

    def fail():
        raise RuntimeError('CUDA error: an illegal memory access\nCompile with\nmore lines')

    engine._model._encode_graph = fail
    with pytest.raises(EngineError) as caught:
        policy.infer(seen)
    assert str(caught.value) == (
        'torch-cuda cannot run: CUDA error: an illegal memory access Compile with more lines'
    )


def test_an_input_of_another_shape_and_an_unknown_id_are_refused(small_policy):
    engine = on_cpu(small_policy)
    prompt = PromptIds(np.full((1, 35), 80), np.ones((1, 35), bool))
    with pytest.raises(EngineError, match=r'an input is \[1\], the engine takes \[2, 6, 64, 64\]'):
        engine.encode(np.zeros(1, np.float32), prompt, None)
    pixels = np.zeros((2, 6, 64, 64), np.float32)
    with pytest.raises(EngineError, match='gives id 80, but the table of embeddings has 80'):
        engine.encode(pixels, prompt, np.zeros((1, 8), np.float32))


def test_a_machine_without_a_gpu_is_told_so(small_policy):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    with pytest.raises(EngineError, match='built without CUDA|finds no GPU'):
        Policy.load(small_policy, 'torch-cuda', unchecked=True, precision='fp32')


def test_too_little_memory_is_said_with_the_figures(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (2**28, 2**30))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Toy GPU')
    with pytest.raises(EngineError, match=r'needs 0.5 GiB \(0.0 of weights\); Toy GPU has 0.2 of'):
        torch_cuda.check_memory(small_config(), 'bf16')


def test_a_folder_without_weights_is_refused(policy_dir):
    with pytest.raises(ContractError, match='holds no weights, which torch-cuda needs'):
        on_cpu(policy_dir)


def test_precisions_that_cannot_be(small_policy, monkeypatch):
    with pytest.raises(EngineError, match="has no precision 'int4'"):
        on_cpu(small_policy, 'int4')
    with pytest.raises(EngineError, match='fp8 needs measured activations; run `lightvla calibr'):
        on_cpu(small_policy, 'fp8')
    old = {'gpu': 'Toy GPU', 'compute_capability': [8, 6]}
    monkeypatch.setattr(torch_cuda, 'gpu_facts', lambda _: old)
    manifest = replace(load_manifest(small_policy), fp8=Fp8(((1.0,) * 4,) * 2, 1))
    with pytest.raises(EngineError, match=r'Toy GPU has no fp8 \(compute capability 8.6'):
        on_cpu(small_policy, 'fp8', manifest)


def test_the_default_precision_is_the_fastest_that_was_verified(small_policy):
    manifest = load_manifest(small_policy)
    with pytest.raises(EngineError, match='no precision of torch-cuda was verified on this GPU'):
        on_cpu(small_policy, None)
    entry = manifest.verified[0] if manifest.verified else None
    made = []
    for precision, passed in (('fp32', True), ('fp16', True), ('bf16', False)):
        print_of = on_cpu(small_policy, precision).fingerprint
        made.append(_verification(print_of, precision, passed))
    assert len({each.fingerprint for each in made}) == 3
    verified = replace(manifest, verified=(*([entry] if entry else []), *made))
    assert on_cpu(small_policy, None, verified).precision == 'fp16'
    # compiled blocks round otherwise: they are verified apart
    with pytest.raises(EngineError, match='was verified on this GPU'):
        on_cpu(small_policy, None, verified, compiled=True)


def _verification(fingerprint, precision, passed):
    from lightvla_ros.contract import Verification

    return Verification(fingerprint, 'torch-cuda', precision, '2026-11-28', 'torch', passed, {})


def test_16_bits_beside_fp8_are_those_of_the_weights():
    model = LightVLA(small_config())
    assert torch_cuda.sixteen_bits(model) == torch.float16
    assert torch_cuda.sixteen_bits(model.to(torch.bfloat16)) == torch.bfloat16


def test_options_that_an_engine_has_not_are_refused():
    assert options_of('torch-cuda', 'CPUExecutionProvider', 'bf16', False) == {
        'precision': 'bf16',
        'compiled': False,
    }
    assert options_of('openvino', 'CPUExecutionProvider', None, True) == {}
    with pytest.raises(EngineError, match='leave out precision bf16, or export with it'):
        options_of('onnxruntime', precision='bf16')
    with pytest.raises(EngineError, match="there is no engine 'rocket'"):
        options_of('rocket')


@pytest.mark.filterwarnings('ignore:.*torch.jit:DeprecationWarning')  # in PyTorch itself
def test_compiled_blocks_equal_the_eager_model(tmp_path, monkeypatch):
    """A block is compiled once per shape, whatever the number of layers."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    torch._dynamo.reset()
    counters.clear()
    config = small_config()
    torch.manual_seed(3)
    eager = LightVLA(config).eval().requires_grad_(False)
    torch.manual_seed(3)
    other = LightVLA(config).eval().requires_grad_(False)
    model = StaticModel(other, WORDS, (32,), 'cpu', torch.float32, compiled=True)
    positions, kept, acts = run_both(config, eager, model, 0)
    np.testing.assert_array_equal(model.kept.array, kept)
    model.act(32)
    np.testing.assert_allclose(model.actions.array, acts[32], atol=5e-6)
    assert counters['stats']['unique_graphs'] == 3  # both kinds of tower blocks, and the decoder's
    # a second start takes all three from the cache
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(3)
    again = LightVLA(config).eval().requires_grad_(False)
    second = StaticModel(again, WORDS, (32,), 'cpu', torch.float32, compiled=True)
    assert counters['inductor']['fxgraph_cache_hit'] == 3
    run_both(config, eager, second, 0)
    second.act(32)
    np.testing.assert_array_equal(second.actions.array, model.actions.array)
    torch._dynamo.reset()


# --- export, calibration and verification of a folder for this engine


@pytest.fixture(scope='module')
def exported(small_weights, tmp_path_factory):
    out = tmp_path_factory.mktemp('weights') / 'policy'
    command = ['export', '--policy', str(small_weights), '--target', 'torch-cuda']
    assert main([*command, '--out', str(out), '--buckets', '4,16,32']) == 0
    return out


def test_an_export_for_weights_alone_has_golden_answers_and_buckets(exported):
    manifest = load_manifest(exported)
    assert manifest.graphs is None
    assert manifest.tokens.buckets == BUCKETS
    assert len(read_golden(exported, manifest)['actions']) == 3
    assert not list(exported.glob('*.onnx'))
    with Policy(exported, manifest, on_cpu(exported, 'fp16')) as policy:
        policy.replay_golden()  # by the tolerance of fp16
    with pytest.raises(ContractError, match='it holds weights but no graphs'):
        Policy.load(exported, 'onnxruntime')


@pytest.mark.parametrize(
    ('more', 'said'),
    [
        (['--precision', 'fp16'], '--precision does not fit --target torch-cuda'),
        (['--no-weights'], '--no-weights does not fit --target torch-cuda'),
    ],
)
def test_options_that_do_not_fit_an_export_of_weights(exported, tmp_path, capsys, more, said):
    command = ['export', '--policy', str(exported), '--target', 'torch-cuda']
    assert main([*command, '--out', str(tmp_path / 'out'), *more]) == 1
    assert said in capsys.readouterr().err


def test_a_folder_exported_without_graphs_is_not_built_on(exported, capsys):
    assert main(['export', '--policy', str(exported), '--target', 'torch-cuda']) == 1
    assert 'is exported already; give --out' in capsys.readouterr().err


def test_calibration_is_stored_and_makes_fp8_possible(exported, tmp_path, capsys):
    copy = shutil.copytree(exported, tmp_path / 'policy')
    assert main(['calibrate', str(copy)]) == 0
    assert 'calibrated on 3 observations' in capsys.readouterr().out
    manifest = load_manifest(copy)
    assert np.array(manifest.fp8.largest).shape == (2, 4)
    assert manifest.fp8.observations == 3
    engine = on_cpu(copy, 'fp8')
    assert engine.precision == 'fp8'
    assert engine.fingerprint != on_cpu(copy, 'fp16').fingerprint
    other = replace(manifest, fp8=Fp8(((2.0,) * 4,) * 2, 3))
    assert engine.fingerprint != on_cpu(copy, 'fp8', other).fingerprint


def test_calibration_that_is_of_another_model_is_refused(exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / 'policy')
    document = json.loads((copy / MANIFEST_NAME).read_text())
    document['fp8'] = {'largest': [[1, 1, 1, 1]], 'observations': 1}
    (copy / MANIFEST_NAME).write_text(json.dumps(document))
    with pytest.raises(ContractError, match='fp8.largest: it has 1 layers, but the model has 2'):
        load_manifest(copy)


def test_verify_offers_every_precision_of_weights_alone(exported, capsys):
    manifest = load_manifest(exported)
    offered = variants(manifest)
    assert [str(each) for each in offered] == [
        f'torch-cuda {precision}' for precision in ('fp32', 'fp16', 'bf16')
    ]
    choice = choose(manifest, offered)
    assert (choice.deciding, choice.trying, choice.left) == ((), tuple(offered), ())
    assert choose(manifest, offered, precision='bf16').deciding == (offered[2],)
    if not torch.cuda.is_available():
        assert main(['verify', str(exported), '--count', '0']) == 1
        said = capsys.readouterr().out
        assert 'unavailable: torch-cuda bf16: PyTorch ' in said
        assert 'no engine could be used, so none was verified' in said


def test_a_machine_without_a_gpu_does_not_list_the_engine_of_its_own_accord(small_policy):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    manifest = load_manifest(small_policy)
    assert 'torch-cuda' not in {each.name for each in variants(manifest)}
    assert 'torch-cuda' in {each.name for each in variants(manifest, 'torch-cuda')}


def test_verify_judges_every_precision_and_the_node_takes_the_fastest_that_passed(
    bundled_policy, tmp_path, monkeypatch, capsys
):
    """The whole way of a GPU's user, with the engine on the CPU."""
    on_gpu = TorchCudaEngine.__init__

    def without_graphs(self, *arguments, **options):
        on_gpu(self, *arguments, **options | {'device': 'cpu'})

    monkeypatch.setattr(TorchCudaEngine, '__init__', without_graphs)
    copy = shutil.copytree(bundled_policy, tmp_path / 'policy')
    assert main(['calibrate', str(copy)]) == 0
    verify = ['verify', str(copy), '--engine', 'torch-cuda', '--no-compile', '--count', '0']
    for precision, code in (('fp32', 0), ('fp16', 0), ('fp8', 1)):
        assert main([*verify, '--precision', precision]) == code
    said = capsys.readouterr().out
    assert 'torch-cuda fp16: passed' in said
    assert 'torch-cuda fp8: FAILED' in said  # so narrow a network is too coarse in 8 bits
    with Policy.load(copy, 'torch-cuda', compiled=False) as policy:
        assert policy.engine.precision == 'fp16'
    with pytest.raises(ContractError, match=r'did not pass.*--engine torch-cuda --precision fp8'):
        Policy.load(copy, 'torch-cuda', compiled=False, precision='fp8')


def test_a_dry_run_of_the_bench_has_all_figures(bundled_policy, tmp_path, capsys):
    out = tmp_path / 'new' / 'bench.json'
    command = ['bench', 'gpu', '--policy', str(bundled_policy), '--device', 'cpu', '--no-compile']
    assert main([*command, '--rounds', '2', '--precision', 'fp32', 'fp8', '--out', str(out)]) == 0
    assert 'these figures say nothing about a GPU' in capsys.readouterr().out
    document = json.loads(out.read_text())
    first, second = document['rows']
    assert [first['precision'], second['precision']] == ['fp32', 'fp8']
    assert list(first['act']) == ['8', '16', '20', '24', '32', '64', '128']
    assert list(second['act']) == ['20', '128']
    for row in document['rows']:
        assert row['chunk']['pruned']['p50'] > 0
        assert row['limit_ms']['20'] < row['limit_ms']['128']
        assert row['ratio_p50'] == pytest.approx(
            row['chunk']['pruned']['p50'] / row['chunk']['unpruned']['p50'], abs=1e-3
        )
    assert out.with_suffix('.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    ('options', 'code', 'said'),
    [
        (['--kept', '129'], 1, '--kept 129: the model has 2 to 128 visual tokens'),
        (['--out', '{tmp}/x.txt'], 2, 'give a name that ends in .json'),
    ],
)
def test_options_of_the_bench_that_cannot_be(bundled_policy, tmp_path, capsys, options, code, said):
    options = [each.format(tmp=tmp_path) for each in options]
    command = ['bench', 'gpu', '--policy', str(bundled_policy), '--device', 'cpu']
    assert main([*command, *options]) == code
    assert said in capsys.readouterr().err
