"""Words and state, as the policy takes them."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightvla_ros.contract import Prompt, Proprio
from lightvla_ros.instruction import InstructionError, PromptEncoder, check_instruction
from lightvla_ros.proprio import normalise_proprio, state_vector

STATE = Proprio(('ee_position', 'ee_axis_angle', 'gripper_qpos'), (-1.0,) * 8, (1.0,) * 8)


def test_instruction_is_stripped():
    assert check_instruction('  pick up the milk\n') == 'pick up the milk'


@pytest.mark.parametrize(
    'text', ['', ' \t ', 'x' * 513, '牛' * 342, 'a\x00b', 'a\nb', 'caf\ufffd', '\ud800']
)
def test_what_is_no_instruction(text):
    with pytest.raises(InstructionError):
        check_instruction(text)


@pytest.fixture
def encoder(tmp_path):
    """One token per byte, behind <pad>, <s> and </prompt>; upper case is another token."""
    tokens = ['<pad>', '<s>', '</prompt>', *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
    )
    tokenizer.save(str(tmp_path / 'tokenizer.json'))

    def build(length=192, append_ids=(2,), lowercase=True):
        spec = Prompt('In: {instruction}?\nOut:', lowercase, 'tokenizer.json', append_ids, length)
        return PromptEncoder(spec, tmp_path / 'tokenizer.json')

    return build


def test_prompt_is_padded_in_front(encoder):
    prompt = encoder()('Pick up')
    count = int(prompt.mask.sum())
    assert prompt.mask[0, -count:].all()
    assert not prompt.mask[0, :-count].any()
    assert prompt.ids[0, -count] == 1, 'BOS'
    assert prompt.ids[0, -1] == 2, 'the id that must end the prompt'
    assert count == 1 + len('In: pick up?\nOut:') + 1


def test_end_is_appended_once(encoder):
    once = encoder(append_ids=())('x')
    last = int(once.ids[0, -1])
    again = encoder(append_ids=(last,))('x')
    np.testing.assert_array_equal(once.ids, again.ids)


def test_case(encoder):
    np.testing.assert_array_equal(encoder()('PICK').ids, encoder()('pick').ids)
    assert (encoder(lowercase=False)('PICK').ids != encoder()('pick').ids).any()


def test_prompt_is_never_cut(encoder):
    with pytest.raises(InstructionError, match='the policy takes 20: shorten the instruction by'):
        encoder(length=20)('pick up the black bowl')


def test_state_vector_keeps_the_sign_of_the_quaternion():
    """OpenVLA's data has angles up to 2 pi; half a turn about x and its negative differ there."""
    position, fingers = np.array([0.1, 0.2, 0.3]), np.array([0.04, -0.04])
    half_turn = np.array([np.sin(1.5), 0, 0, np.cos(1.5)])
    vector = state_vector(STATE, position, half_turn, fingers)
    np.testing.assert_allclose(vector, [0.1, 0.2, 0.3, 3.0, 0, 0, 0.04, -0.04])
    other = state_vector(STATE, position, -half_turn, fingers)
    np.testing.assert_allclose(other[3:6], [-(2 * np.pi - 3.0), 0, 0])
    none = state_vector(STATE, position, np.array([0, 0, 0, 1.0]), fingers)
    np.testing.assert_array_equal(none[3:6], 0)


def test_state_vector_needs_every_part():
    with pytest.raises(ValueError, match='gripper_qpos needs 2 finite numbers'):
        state_vector(STATE, np.zeros(3), np.array([0, 0, 0, 1.0]))
    with pytest.raises(ValueError, match='ee_position'):
        state_vector(STATE, np.array([0, np.nan, 0]), np.array([0, 0, 0, 1.0]), np.zeros(2))


def test_proprio_is_clipped_as_published():
    spec = Proprio(('gripper_qpos',), (0.0, -2.0), (2.0, 2.0))
    np.testing.assert_allclose(normalise_proprio(np.array([0.5, 9.0]), spec), [[-0.5, 1.0]])
    assert normalise_proprio(None, None) is None
    with pytest.raises(ValueError, match='a state of 2 finite numbers'):
        normalise_proprio(np.zeros(3), spec)
