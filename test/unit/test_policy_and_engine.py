"""An untrained policy on the real ONNX Runtime: what must hold for any policy."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from small_policy import write_robot_policy

from lightvla_ros.contract import load_manifest, write_manifest
from lightvla_ros.engine import load_engine
from lightvla_ros.engine.base import PromptIds, smallest_bucket
from lightvla_ros.errors import ContractError, EngineError, InstructionError
from lightvla_ros.policy.observation import Observation
from lightvla_ros.policy.policy import Policy


@pytest.fixture(scope='module')
def policy(policy_dir):
    loaded = Policy.load(policy_dir, unchecked=True)
    yield loaded
    loaded.close()


def _observation(seed=0, instruction='pick up the milk'):
    random = np.random.default_rng(seed)
    images = {
        name: np.repeat(np.repeat(random.integers(0, 256, (8, 8, 3), np.uint8), 32, 0), 32, 1)
        for name in ('third_person', 'wrist')
    }
    return Observation(images, instruction, random.normal(size=8) * 0.1)


def test_prediction_is_whole(policy):
    prediction = policy.infer(_observation())
    assert prediction.normalised.shape == (8, 7)
    assert len(prediction.chunk) == 8
    kept = prediction.kept_patches
    assert list(kept) == sorted(set(kept))
    assert prediction.kept == (int((kept < 64).sum()), int((kept >= 64).sum()))
    assert 1 <= len(kept) <= prediction.bucket
    assert prediction.times.inference > 0


def test_number_of_kept_patches_depends_on_what_is_seen(policy):
    counts = {len(policy.infer(_observation(seed)).kept_patches) for seed in range(20)}
    assert len(counts) > 3
    assert max(counts) <= 60


def test_kept_tokens_depend_on_the_image_and_the_words(policy):
    first = policy.infer(_observation(0)).kept_patches
    other_image = policy.infer(_observation(1)).kept_patches
    other_words = policy.infer(_observation(0, 'open the drawer')).kept_patches
    assert not np.array_equal(first, other_image)
    assert not np.array_equal(first, other_words)


def test_cameras_are_not_interchangeable(policy):
    seen = _observation()
    names = list(seen.images)
    swapped = dataclasses.replace(
        seen, images=dict(zip(names, list(seen.images.values())[::-1], strict=True))
    )
    assert not np.allclose(policy.infer(seen).normalised, policy.infer(swapped).normalised)


def _encoded(policy, observation):
    from lightvla_ros.policy.state import normalise_proprio

    prompt = policy._encode_prompt(observation.instruction)
    proprio = normalise_proprio(observation.state, policy.manifest.proprio)
    return policy.engine.encode(policy._preprocess(observation.images), prompt, proprio)


def _published_pruner(patches, task):
    """LightVLA's as released (``docs/explanation/pruning.md``): any query's best patch is kept."""

    def rms(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)

    patches, task = rms(patches), rms(task)
    logits = patches @ task.T / np.sqrt(patches.shape[1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    queries = rms(weights / weights.sum(-1, keepdims=True) @ task)
    return np.unique((queries @ patches.T).argmax(-1))


def test_pruner_is_the_published_one(policy):
    for seed in range(5):
        observation = _observation(seed)
        encoded = _encoded(policy, observation)
        handle = encoded.tensors
        patches = np.empty_like(handle['tokens'][0])
        patches[handle['positions'][0]] = handle['tokens'][0]
        # [BOS | state | words | slots | stop]; BOS is no task token, the zeros of the slots are
        context, mask = handle['context'][0], handle['word_mask'][0]
        used = np.concatenate([[False, True], mask, np.ones(57, bool)])
        kept = _published_pruner(patches.astype(float), context[used])
        np.testing.assert_array_equal(policy.engine.kept_patches(encoded), kept)


def test_every_bucket_gives_the_same_actions(policy):
    for seed in range(5):
        encoded = _encoded(policy, _observation(seed))
        count = sum(encoded.kept)
        exact = policy.engine.act(encoded, count)
        for bucket in policy.manifest.tokens.buckets:
            if bucket >= count:
                difference = np.abs(policy.engine.act(encoded, bucket) - exact).max()
                assert difference < 1e-5


def test_content_of_dropped_tokens_does_not_matter(policy):
    encoded = _encoded(policy, _observation())
    count = sum(encoded.kept)
    before = policy.engine.act(encoded, 128)
    encoded.tensors['tokens'][:, count:] = 100.0
    encoded.tensors['positions'][:, count:] = 7
    np.testing.assert_array_equal(policy.engine.act(encoded, 128), before)


def test_tokens_are_told_apart_by_position_not_by_order(policy):
    encoded = _encoded(policy, _observation())
    count = sum(encoded.kept)
    before = policy.engine.act(encoded, count)
    tokens, positions = (encoded.tensors[name] for name in ('tokens', 'positions'))
    in_order = positions[0, :count].copy()
    tokens[0, :count], positions[0, :count] = tokens[0, count - 1 :: -1].copy(), in_order[::-1]
    np.testing.assert_allclose(policy.engine.act(encoded, count), before, atol=1e-5, rtol=0)
    positions[0, :count] = in_order
    assert np.abs(policy.engine.act(encoded, count) - before).max() > 1e-3


def test_content_of_prompt_padding_does_not_matter(policy):
    observation = _observation()
    prompt = policy._encode_prompt(observation.instruction)
    pixels = policy._preprocess(observation.images)
    proprio = np.zeros((1, 8), np.float32)
    garbage = PromptIds(np.where(prompt.mask, prompt.ids, 30), prompt.mask)
    outcomes = []
    for each in (prompt, garbage):
        encoded = policy.engine.encode(pixels, each, proprio)
        outcomes.append((policy.engine.kept_patches(encoded), policy.engine.act(encoded, 128)))
    for one, two in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, two)


def test_length_of_prompt_padding_does_not_matter(policy, tmp_path):
    """The same network with room for a longer prompt; one bucket, so that sizes stay alike."""
    longer = Policy.load(write_robot_policy(tmp_path / 'longer', prompt_length=64), unchecked=True)
    for seed in range(5):
        one, two = (p.infer(_observation(seed)) for p in (policy, longer))
        np.testing.assert_array_equal(one.kept_patches, two.kept_patches)
        np.testing.assert_allclose(one.normalised, two.normalised, atol=1e-5, rtol=0)
    longer.close()


def test_attention_is_not_causal(policy):
    """A later word changes what the first action slot says, and which patches are kept."""
    one = policy.infer(_observation(0, 'pick up the milk on'))
    two = policy.infer(_observation(0, 'pick up the milk in'))
    assert not np.array_equal(one.normalised[0], two.normalised[0])


def test_smallest_bucket():
    assert [smallest_bucket((16, 32, 128), k) for k in (1, 16, 17, 128)] == [16, 16, 32, 128]
    for kept in (0, 129):
        with pytest.raises(ValueError, match='are possible'):
            smallest_bucket((16, 32, 128), kept)


def test_provider_must_be_the_one_asked_for(policy_dir):
    manifest = load_manifest(policy_dir)
    with pytest.raises(EngineError, match='has no CUDAExecutionProvider here, only'):
        load_engine('onnxruntime', policy_dir, manifest, provider='CUDAExecutionProvider')


def test_failure_while_running_is_an_engine_error(policy):
    prompt = policy._encode_prompt('pick up the milk')
    with pytest.raises(EngineError, match=r'pixels is \[1, 6, 8, 8\], the graph takes') as caught:
        policy.engine.encode(np.zeros((1, 6, 8, 8), np.float32), prompt, None)
    assert '\n' not in str(caught.value)


def test_graph_that_cannot_be_loaded(policy_dir, tmp_path):
    shutil.copytree(policy_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'act.onnx').write_bytes(b'no graph')
    with pytest.raises(EngineError, match='act.onnx: onnxruntime cannot load it'):
        load_engine('onnxruntime', tmp_path, load_manifest(policy_dir))


def test_precision_is_the_manifest_s_and_the_graphs_must_have_it(policy, policy_dir):
    assert policy.engine.precision == 'fp32'
    manifest = policy.manifest
    for precision, message in (
        ('fp16', 'encode.onnx: context is float32 .*, but by the manifest it must be float16'),
        ('bf16', 'in bf16, which only TensorRT runs'),
    ):
        graphs = dataclasses.replace(manifest.graphs, precision=precision)
        with pytest.raises(EngineError, match=message):
            load_engine('onnxruntime', policy_dir, dataclasses.replace(manifest, graphs=graphs))


def test_instruction_that_is_too_long_for_the_policy(policy):
    assert policy.check_instruction(' pick up the milk ') == 'pick up the milk'
    with pytest.raises(InstructionError, match='the policy takes 34'):
        policy.check_instruction('then ' * 60)


def test_unknown_engine(policy_dir):
    with pytest.raises(EngineError, match="no engine 'tensorflow'; choose onnxruntime"):
        Policy.load(policy_dir, 'tensorflow', unchecked=True)


def test_graphs_must_fit_the_manifest(policy_dir):
    manifest = load_manifest(policy_dir)
    wrong = dataclasses.replace(manifest, prompt=dataclasses.replace(manifest.prompt, length=64))
    with pytest.raises(
        EngineError, match='encode.onnx: context is .*, but by the manifest it must be'
    ):
        load_engine('onnxruntime', policy_dir, wrong)


def _golden(**changes):
    """Change arrays of ``golden.npz``; None leaves one out."""

    def change(path):
        with np.load(path) as file:
            arrays = dict(file)
        arrays |= {name: edit(arrays[name]) for name, edit in changes.items()}
        np.savez(path, **{name: each for name, each in arrays.items() if each is not None})

    return change


GOLDEN_FAULTS = {
    'text': lambda path: path.write_bytes(b'hello'),
    'empty': lambda path: path.write_bytes(b''),
    'cut short': lambda path: path.write_bytes(path.read_bytes()[:3000]),
    'objects inside': _golden(instruction=lambda a: np.array([{}] * len(a), dtype=object)),
    'no images': _golden(images=lambda _: None),
    'no answers': _golden(kept=lambda _: None),
    'one camera': _golden(images=lambda a: a[:, :1]),
    'images of floats': _golden(images=lambda a: a.astype(np.float32)),
    'a short state': _golden(proprio=lambda a: a[:, :5]),
    'a state of NaN': _golden(proprio=lambda a: a * np.nan),
    'short chunks': _golden(actions=lambda a: a[:, :2]),
    'fewer answers': _golden(actions=lambda a: a[:1]),
    'no observation': _golden(
        **dict.fromkeys(('images', 'instruction', 'proprio', 'kept', 'actions'), lambda a: a[:0])
    ),
}


@pytest.mark.parametrize('fault', GOLDEN_FAULTS)
def test_golden_observations_of_another_form_are_one_line(policy_dir, tmp_path, fault):
    """With none of them inside, the replay that a node trusts compared nothing."""
    folder = shutil.copytree(policy_dir, tmp_path / 'policy')
    GOLDEN_FAULTS[fault](folder / 'golden.npz')
    write_manifest(folder, json.loads((folder / 'manifest.json').read_text()))
    with pytest.raises(ContractError, match='golden.npz: ') as caught:
        Policy.load(folder, unchecked=True).replay_golden()
    assert str(caught.value).isprintable()
