"""Why the robot does not move: the codes in chunks, status and logs.

A reason is a code or ``code:subject``; details may follow after a space:
``camera_stale:wrist 0.620 s old, max_image_age 0.500 s``. ``lightvla reference`` generates the
documentation's table from this module.
"""

from __future__ import annotations

REASONS = {
    'bad_aspect': 'an image has a different aspect ratio from the one the policy was trained on',
    'bad_chunk': 'a chunk is damaged or of an unknown version; the log says what is wrong',
    'bad_data': 'an image is shorter or longer than its header says, or is a damaged JPEG or PNG',
    'bad_encoding': 'an image is not an 8-bit colour or grey picture, or does not say which it is',
    'bad_frame': 'a pose or a chunk is not in the frame of the parameter `base_frame` (or does not '
    'move `ee_frame`)',
    'bad_output': 'the engine returned NaN, infinity, a wrong shape or a step far over the limits',
    'bad_size': 'an image has no pixels, too many pixels, scans or bytes, or rows that are too '
    'short',
    'bad_stamp': 'the time stamp of a message is zero',
    'bad_state': 'a state message holds NaN, a position that no arm can reach, a quaternion that '
    'is not a unit one, or no fingers',
    'bad_target': 'a target pose is not finite, or its orientation is not a unit quaternion',
    'bad_time': 'the clock of the safety filter went back, or is not a number',
    'camera_blank': 'the pictures of this camera show nothing: they are black, white or one colour',
    'camera_frozen': 'this camera sends the same picture again and again with new stamps',
    'camera_missing': 'no image has come from these cameras yet; the log says what to do',
    'camera_skew': "the cameras' images are too far apart in time, or one camera's come too late",
    'camera_stale': 'the newest image of this camera is too old',
    'cameras_equal': 'two cameras show the same picture; their topics may be mixed up',
    'clock_jump': 'ROS time, or the clock of this source, jumped; waiting for new images',
    'configure_failed': 'the policy could not be loaded; the log says why; configure can be '
    'tried again',
    'controller_halted': 'the controller of the arm has halted; after it runs again, reset',
    'controller_missing': 'no controller of the arm listens to the commands, or it is silent',
    'controller_not_ready': 'the controller of the arm does not accept this kind of command yet',
    'controller_refuses': 'the controller of the arm does not accept the commands',
    'deactivated': 'the node was deactivated',
    'deviation': 'the arm is not where it was sent, by more than `deviation_*`; reset when it is '
    'safe',
    'enable_missing': 'no message of the dead-man has come for `enable_timeout`',
    'enable_released': 'the dead-man is released',
    'engine_error': 'the engine failed; the node tries again',
    'fault': 'the engine failed too often in a row, or a message could not be published; reset or '
    're-activate the node',
    'future_stamp': 'a message is stamped more than 50 ms ahead of ROS time; clocks disagree',
    'gripper_failed': 'the hand has not done what it was told; look what it holds, then reset',
    'gripper_missing': 'the action server of the hand is not there; start it, then reset',
    'gripper_timeout': 'the hand has not answered within `gripper_timeout`; look at it, then reset',
    'hand_moves': 'the hand opens or closes, and the arm waits for it',
    'inference_timeout': 'an inference took longer than `max_inference_time`',
    'instruction_changed': 'a new instruction came; waiting for its first chunk',
    'instruction_expired': 'no chunk came for `instruction_timeout`; give the instruction again',
    'instruction_rejected': 'an instruction was refused; the one before it stays in force',
    'keep_out': 'targets lie in a keep-out box for longer than `shortened_time`',
    'late_step': 'the safety filter was not asked for longer than `step_timeout`',
    'no_clock': 'use_sim_time is set and no /clock has come',
    'no_instruction': 'waiting for an instruction',
    'no_target': 'there is no step of a chunk to execute now',
    'old_sequence': 'a chunk is older than one that has come before; it is not executed',
    'operator_stop': 'an operator stopped the arm; reset when it is safe',
    'outside_box': 'targets lie outside the workspace for longer than `shortened_time`',
    'outside_cone': 'targets are tilted by more than `max_tilt` for longer than `shortened_time`',
    'outside_workspace': 'the arm is outside the workspace; move it back by hand, then reset',
    'paused': 'the ~/pause service or an instruction with one of `stop_words` paused the node; '
    'call ~/pause with false to resume',
    'recording_ended': 'the replayed recording has no steps left',
    'repeated_hold': 'the same cause interrupted the motion twice within `repeat_window`; reset '
    'when it is safe',
    'reset': 'the node was reset; waiting for an instruction',
    'run_ended': 'the action ~/run_instruction has ended; waiting for an instruction',
    'shutdown': 'the node is shutting down',
    'state_jump': 'the measured pose jumped by more than `state_jump_*` and is not believed; if it '
    'stays, reset',
    'state_missing': 'no message has come on these state topics yet; the log says what to do',
    'state_out_of_range': 'a number of the state is far outside the range of the training data',
    'state_skew': 'no state message is close enough in time to the images',
    'state_stale': 'the newest message of this state topic is too old',
    'step_too_long': 'a target is farther away than `max_step_*`',
    'stretched': 'the target and the measured pose are farther apart than `max_stretch_*`',
    'too_fast': 'targets move faster than the arm may for longer than `shortened_time`',
    'too_late': 'the chunk was ready only after its last step',
    'two_publishers': 'an input, or an output of this node, has more than one publisher',
    'unfamiliar': 'an observation is too unlike the recorded ones, by this signal of the alarm and '
    '`max_unfamiliarity`',
    'waiting_for_chunk': 'all inputs have arrived; the first chunk is being computed',
    'wrong_reference': 'the chunks are made for the other way of execution, `spring` or '
    '`displacement`',
    'wrong_session': 'a chunk comes from another session of the policy node; reset to follow '
    'that one',
    'wrong_type': 'a publisher of this input sends another message type; the log says what to do',
}


MAX_BYTES = 128  # the bound of `reason` in ActionChunk.msg and VlaStatus.msg, in UTF-8


def reason(code: str, subject: str = '', detail: str = '') -> str:
    """Compose a reason; an unknown code is a programming error.

    :param subject: Name of the camera, topic or part, without spaces.
    :param detail: The measured value and its limit; cut when it does not fit into the message.
    :raises KeyError: When the code is not in :data:`REASONS`.
    """
    if code not in REASONS:
        raise KeyError(code)
    why = f'{code}:{subject}' if subject else code
    return cut(f'{why} {detail}' if detail else why, MAX_BYTES)


def kind(why: str) -> str:
    """Return the ``code:subject`` of a reason, without the details that change."""
    return why.partition(' ')[0]


def cut(text: str, size: int) -> str:
    """Return the text if it fits into ``size`` bytes of UTF-8, else its beginning and an ellipsis.

    A character that UTF-8 cannot encode (a lone surrogate) becomes a question mark.
    """
    encoded = text.encode('utf-8', 'replace')
    if len(encoded) > size:
        encoded = encoded[: size - 3] + '…'.encode()
    return encoded.decode('utf-8', 'ignore')
