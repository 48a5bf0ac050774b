"""Words and state, as the policy takes them."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightvla_ros.contract import POINTING_DOWN, Prompt, Proprio, load_manifest
from lightvla_ros.errors import InstructionError
from lightvla_ros.policy.prompt import STOP_WORDS, PromptEncoder, check_instruction, stop_words_in
from lightvla_ros.policy.state import (
    RobotState,
    normalise_proprio,
    on_side_of,
    out_of_bounds,
    state_vector,
    wrap_axis_angles,
)

STATE = Proprio(('ee_position', 'ee_axis_angle', 'gripper_qpos'), (-1.0,) * 8, (1.0,) * 8)


def test_instruction_is_stripped():
    assert check_instruction('  pick up the milk\n') == 'pick up the milk'


@pytest.mark.parametrize(
    'text', ['', ' \t ', 'x' * 513, '牛' * 342, 'a\x00b', 'a\nb', 'caf\ufffd', '\ud800']
)
def test_what_is_no_instruction(text):
    with pytest.raises(InstructionError):
        check_instruction(text)


def test_instructions_are_brought_to_one_form():
    """Full-width letters, ligatures and special spaces are what they look like."""
    assert check_instruction('ｐｉｃｋ\u00a0up the ﬁsh') == 'pick up the fish'
    assert check_instruction('pick up the milk') == 'pick up the milk'


@pytest.mark.parametrize(
    'text',
    [
        '\u200b\u200c\u2060',
        '\u00ad',
        '\u3164',
        '\u115f\u1160',
        '\uffa0',
        '\u2800\u2800',
        '☕️',
        '123 !?',
        'pick\u200bup the milk',
        'pick up \u202emilk',
        'pick up\u2066 the milk',
        'pick up the mi\u00adlk',
        'pick up the milk\u2028now',
        'pick up the milk\ufe0f',
        '\U000e0070ick up the milk',
        'ﷺ' * 300,
    ],
    ids=ascii,
)
def test_invisible_characters_are_no_instruction(text):
    """Fault: zero width, soft hyphens and blank letters counted as text, and motion began."""
    with pytest.raises(InstructionError):
        check_instruction(text)


@pytest.mark.parametrize(
    'text',
    [
        'stop',
        ' STOP!!! ',
        'ｓｔｏｐ',
        's\u200btop',
        'please stop now',
        'stop\nit',
        'Don’t move.',
        'halt',
        'pause ☕️',
        'stop ' + 'x' * 10**6,
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_words_that_stop(text):
    assert stop_words_in(text, STOP_WORDS)


def test_words_that_do_not_stop():
    for text in ('pick up the milk', 'open the stopper', 'move', '', 'hold the bowl'):
        assert stop_words_in(text, STOP_WORDS) == ''
    assert stop_words_in('stop', ['', 'genug']) == ''


def test_an_instruction_without_a_known_word_is_none(bundled_policy):
    """Fault: nonsense, emoji and other languages started motion."""
    spec = load_manifest(bundled_policy).prompt
    encoder = PromptEncoder(spec, bundled_policy / spec.tokenizer)
    assert encoder.unknown_words('Pick up the MILK') == ()
    assert encoder.unknown_words('juggle the milk, quickly') == ('juggle', 'milk,', 'quickly')
    for text in ('gostak distim', 'nimm die Milch', '?', 'greif: zu'):
        with pytest.raises(InstructionError, match='the policy knows none of its words'):
            encoder.unknown_words(text)


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


def test_a_tokenizer_of_pieces_knows_any_word(encoder):
    assert encoder().unknown_words('gostak') == ()


def test_case(encoder):
    np.testing.assert_array_equal(encoder()('PICK').ids, encoder()('pick').ids)
    assert (encoder(lowercase=False)('PICK').ids != encoder()('pick').ids).any()


def test_prompt_is_never_cut(encoder):
    with pytest.raises(InstructionError, match='the policy takes 20: shorten the instruction by'):
        encoder(length=20)('pick up the black bowl')


def _rotation(quaternion, spec=STATE):
    return state_vector(spec, RobotState(np.zeros(3), np.asarray(quaternion, float), np.zeros(2)))[
        3:6
    ]


def test_state_vector_has_angles_up_to_a_whole_turn():
    """As OpenVLA's data have them: a hand that points down is turned by about pi."""
    position, fingers = np.array([0.1, 0.2, 0.3]), np.array([0.04, -0.04])
    for angle in (3.0, 3.3):
        quaternion = np.array([np.sin(angle / 2), 0, 0, np.cos(angle / 2)])
        vector = state_vector(STATE, RobotState(position, quaternion, fingers))
        np.testing.assert_allclose(vector, [0.1, 0.2, 0.3, angle, 0, 0, 0.04, -0.04])
    np.testing.assert_array_equal(_rotation([0, 0, 0, 1.0]), 0)


def test_a_pose_and_its_negative_are_one_state():
    """Fault: with the quaternion's sign turned, another chunk came out, 44 mm a step off."""
    random = np.random.default_rng(0)
    quaternions = random.normal(size=(2000, 4))
    # at right angles to the reference there is no side
    quaternions[:200, 0] = 0.0
    quaternions[:100, 1] = 0.0
    quaternions = [*(quaternions / np.linalg.norm(quaternions, axis=1)[:, None]), *np.eye(4)]
    for reference in ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.5, -0.5, 0.5, 0.5)):
        spec = replace(STATE, quaternion_reference=reference)
        for quaternion in quaternions:
            found = _rotation(quaternion, spec)
            assert found.tobytes() == _rotation(-quaternion, spec).tobytes()
            # the rotation is still the same one
            angle = np.linalg.norm(found)
            made = [*np.sinc(angle / 2 / np.pi) * found / 2, np.cos(angle / 2)]
            np.testing.assert_allclose(abs(np.dot(made, quaternion)), 1, atol=1e-7)


def test_good_states_keep_their_bits(bundled_policy):
    """All rotations that the bundled policy was trained on are on the default's side."""
    spec = load_manifest(bundled_policy).proprio
    assert spec.quaternion_reference == POINTING_DOWN
    assert spec.q01[3] > 0, 'the least x of all data'
    downward = np.array([[0.7, -0.7, 0.1, -0.1], [0.999, 0.01, -0.02, 0.03]])
    for quaternion in downward / np.linalg.norm(downward, axis=1)[:, None]:
        assert on_side_of(POINTING_DOWN, quaternion) is quaternion


def test_recorded_rotations_are_wrapped_as_live_ones():
    """Fault: training took others' files as they were, the node another side."""
    random = np.random.default_rng(0)
    quaternions = random.normal(size=(500, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1)[:, None]
    wanted = np.array([_rotation(each) for each in quaternions])
    shortest = np.array(
        [_rotation(each, replace(STATE, quaternion_reference=(0, 0, 0, 1))) for each in quaternions]
    )
    np.testing.assert_allclose(wrap_axis_angles(POINTING_DOWN, shortest), wanted, atol=1e-6)
    np.testing.assert_array_equal(wrap_axis_angles(POINTING_DOWN, wanted), wanted)
    np.testing.assert_array_equal(wrap_axis_angles(POINTING_DOWN, np.zeros((2, 3))), 0)


def test_state_vector_needs_every_part():
    with pytest.raises(ValueError, match='gripper_qpos needs 2 finite numbers'):
        state_vector(STATE, RobotState(np.zeros(3), np.array([0, 0, 0, 1.0])))
    with pytest.raises(ValueError, match='ee_position'):
        state_vector(
            STATE, RobotState(np.array([0, np.nan, 0]), np.array([0, 0, 0, 1.0]), np.zeros(2))
        )


BOUNDED = replace(STATE, q01=(0.0,) * 8, q99=(1.0,) * 3 + (4.0,) * 3 + (0.04, 0.0))


def test_a_state_outside_of_what_the_policy_knows_is_named():
    """Fault: millimetres, another frame and 1e300 were cut off at the bounds without a word."""
    inside = np.array([0.5, 1.0, 0.0])
    assert out_of_bounds(BOUNDED, RobotState(inside)) == []
    assert out_of_bounds(BOUNDED, RobotState(inside + 1e-7)) == []
    far, near = out_of_bounds(BOUNDED, RobotState(np.array([-0.25, 0.5, 400.0])))
    assert str(far) == 'ee_position.z is 400, trained 0 to 1'
    assert (near.name, near.excess) == ('ee_position.x', 0.25)
    assert out_of_bounds(BOUNDED, RobotState(np.array([0, 0, 1e300])))[0].excess == 1e300
    # the gripper's second number never changed in these data
    (finger,) = out_of_bounds(BOUNDED, RobotState(fingers=np.array([0.04, -0.02])))
    assert (finger.name, finger.excess) == ('gripper_qpos.2', pytest.approx(2.0))


def test_parts_that_a_policy_does_not_take_are_not_looked_at():
    spec = Proprio(('gripper_qpos', 'ee_position'), (0.0,) * 5, (1.0, 1.0, 2.0, 2.0, 2.0))
    position, turned = np.array([3.0, 0, 0]), np.array([0, 0, 0, 1.0])
    (found,) = out_of_bounds(spec, RobotState(position, turned))
    assert (found.name, found.high, found.excess) == ('ee_position.x', 2.0, 0.5)


def test_proprio_is_clipped_as_published():
    spec = Proprio(('gripper_qpos',), (0.0, -2.0), (2.0, 2.0))
    np.testing.assert_allclose(normalise_proprio(np.array([0.5, 9.0]), spec), [[-0.5, 1.0]])
    assert normalise_proprio(None, None) is None
    with pytest.raises(ValueError, match='a state of 2 finite numbers'):
        normalise_proprio(np.zeros(3), spec)
