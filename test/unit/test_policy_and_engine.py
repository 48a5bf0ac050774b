"""The untrained policy on the real ONNX Runtime: what must hold for any policy."""

import dataclasses
import filecmp

import numpy as np
import pytest

from lightvla_ros.contract import load_manifest
from lightvla_ros.engine import load_engine
from lightvla_ros.engine.base import EngineError, Prompt
from lightvla_ros.engine.buckets import smallest_bucket
from lightvla_ros.export.untrained import write_untrained_policy
from lightvla_ros.policy import Observation, Policy


@pytest.fixture(scope='module')
def policy(policy_dir):
    loaded = Policy.load(policy_dir)
    yield loaded
    loaded.close()


def _observation(seed=0, instruction='pick up the milk'):
    random = np.random.default_rng(seed)
    images = tuple(
        np.repeat(np.repeat(random.integers(0, 256, (8, 8, 3), np.uint8), 32, 0), 32, 1)
        for _ in range(2)
    )
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


def test_kept_tokens_depend_on_the_image_and_the_words(policy):
    first = policy.infer(_observation(0)).kept_patches
    other_image = policy.infer(_observation(1)).kept_patches
    other_words = policy.infer(_observation(0, 'open the drawer')).kept_patches
    assert not np.array_equal(first, other_image)
    assert not np.array_equal(first, other_words)


def test_cameras_are_not_interchangeable(policy):
    seen = _observation()
    swapped = dataclasses.replace(seen, images=seen.images[::-1])
    assert not np.allclose(policy.infer(seen).normalised, policy.infer(swapped).normalised)


def _encoded(policy, observation):
    from lightvla_ros.proprio import normalise_proprio

    prompt = policy._encode_prompt(observation.instruction)
    proprio = normalise_proprio(observation.proprio, policy.manifest.proprio)
    return policy.engine.encode(policy._preprocess(observation.images), prompt, proprio)


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
    encoded.handle['tokens'] = encoded.handle['tokens'].copy()
    encoded.handle['tokens'][:, count:] = 100.0
    encoded.handle['positions'] = encoded.handle['positions'].copy()
    encoded.handle['positions'][:, count:] = 7
    np.testing.assert_array_equal(policy.engine.act(encoded, 128), before)


def test_content_of_prompt_padding_does_not_matter(policy):
    observation = _observation()
    prompt = policy._encode_prompt(observation.instruction)
    pixels = policy._preprocess(observation.images)
    proprio = np.zeros((1, 8), np.float32)
    garbage = Prompt(np.where(prompt.mask, prompt.ids, 300), prompt.mask)
    one = policy.engine.encode(pixels, prompt, proprio)
    two = policy.engine.encode(pixels, garbage, proprio)
    np.testing.assert_array_equal(policy.engine.kept_patches(one), policy.engine.kept_patches(two))
    np.testing.assert_array_equal(policy.engine.act(one, 128), policy.engine.act(two, 128))


def test_attention_is_not_causal(policy):
    """A later word changes what the first action slot says, and which patches are kept."""
    one = policy.infer(_observation(0, 'pick up the milk a'))
    two = policy.infer(_observation(0, 'pick up the milk b'))
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


def test_unknown_engine(policy_dir):
    with pytest.raises(EngineError, match="no engine 'tensorflow'; choose onnxruntime"):
        Policy.load(policy_dir, 'tensorflow')


def test_graphs_must_fit_the_manifest(policy_dir):
    manifest = load_manifest(policy_dir)
    wrong = dataclasses.replace(manifest, prompt=dataclasses.replace(manifest.prompt, length=64))
    with pytest.raises(EngineError, match=r'encode.onnx: prompt_ids is .*, the manifest needs'):
        load_engine('onnxruntime', policy_dir, wrong)


def test_generator_repeats_itself(policy_dir, tmp_path):
    write_untrained_policy(tmp_path / 'again')
    names = [path.name for path in policy_dir.iterdir()]
    same, different, errors = filecmp.cmpfiles(policy_dir, tmp_path / 'again', names, shallow=False)
    assert (different, errors) == ([], [])
    with pytest.raises(FileExistsError, match='not empty'):
        write_untrained_policy(tmp_path / 'again')
