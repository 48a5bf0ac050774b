"""Bounds that hold all of the data, in models that had others."""

import copy

import numpy as np
import pytest
import torch
import train_rig

from lightvla_ros.contract.document import manifest_document
from lightvla_ros.contract.libero import LIBERO
from lightvla_ros.demonstrations.statistics import (
    normalise_actions,
    normalise_states,
    statistics_of,
)
from lightvla_ros.errors import TrainError
from lightvla_ros.policy.actions import unnormalise
from lightvla_ros.train.bounds import cut_off, move_bounds, set_bounds
from lightvla_ros.train.start import changed, typed
from lightvla_ros.vla.config import preset
from lightvla_ros.vla.model import LightVLA


def made():
    torch.manual_seed(0)
    config = changed(preset('libero-tiny'), train_rig.MODEL)
    document = manifest_document('made', LIBERO, config.image_size, config.patch_size)
    fields = config.to_dict()
    document['action'] |= {'chunk_length': config.chunk_length, 'slice': fields.pop('action_slice')}
    document['prompt'] |= {'append_ids': [4], 'length': 34}
    document['tokens'] = {'patch_size': config.patch_size, 'buckets': [config.patches]}
    document['model'] = {'config': fields}
    return LightVLA(config), document


def test_nothing_of_the_data_is_cut_off():
    _, document = made()
    frames = train_rig.frames()
    frames.chunks[3, 2, 5], frames.proprio[5, 2] = 1.0, 1.3  # one hand that turns and stands high
    cut = normalise_actions(frames.chunks, typed(document).action)
    assert cut[3, 2, 5] == 1
    assert unnormalise(cut, typed(document).action)[3, 2, 5] < 0.3
    found = cut_off(frames.chunks, frames.proprio, typed(document))
    assert found['action[5]'] >= 1 / frames.chunks[..., 0].size
    assert found['proprio[2]'] >= 1 / len(frames.proprio)
    set_bounds(document, statistics_of(frames))
    spec = typed(document)
    assert cut_off(frames.chunks, frames.proprio, spec) == {}
    held = unnormalise(normalise_actions(frames.chunks, spec.action), spec.action)
    np.testing.assert_allclose(held[..., :6], frames.chunks[..., :6], atol=1e-6)
    states = normalise_states(frames.proprio, spec.proprio)
    assert np.sum(np.abs(states) == 1) <= 2 * states.shape[1]  # the extremes themselves


def test_with_other_bounds_the_model_does_what_it_did():
    model, document = made()
    set_bounds(document, statistics_of(train_rig.frames(seed=1)))
    frames = train_rig.frames()
    frames.proprio[:] = 1.5 * frames.proprio + 0.1
    before, moved = typed(copy.deepcopy(document)), copy.deepcopy(model)
    move_bounds(moved, document, statistics_of(frames))
    now = typed(document)
    assert now.action.q99[3] != before.action.q99[3]
    assert now.proprio.q01[0] != before.proprio.q01[0]
    hidden = torch.randn(4, model.action_head.model.fc2.in_features)
    actions = [
        unnormalise(each.action_head.model.fc2(hidden).detach().numpy(), spec.action)
        for each, spec in ((model, before), (moved, now))
    ]
    np.testing.assert_allclose(actions[1], actions[0], atol=1e-5)
    # states within both bounds: what lay outside was cut off before
    low = np.maximum(before.proprio.q01, now.proprio.q01)
    high = np.minimum(before.proprio.q99, now.proprio.q99)
    states = np.random.default_rng(0).uniform(low, high, (5, 8))
    tokens = [
        each.proprio_projector(torch.from_numpy(normalise_states(states, spec.proprio)))
        for each, spec in ((model, before), (moved, now))
    ]
    torch.testing.assert_close(tokens[1], tokens[0], atol=1e-4, rtol=1e-4)


def test_bounds_that_cannot_be_moved_are_refused():
    found = statistics_of(train_rig.frames())
    model, document = made()
    document['proprio']['layout'] = document['proprio']['layout'][::-1]
    with pytest.raises(TrainError, match='model.bounds: data needs the state layout'):
        move_bounds(model, document, found)
    model, document = made()
    document['action']['q99'][6] = document['action']['q01'][6]  # the gripper has no bounds
    move_bounds(model, document, found)
    model, document = made()
    document['action']['q99'][2] = document['action']['q01'][2]
    with pytest.raises(TrainError, match=r'q01 = q99 in action\[2\]'):
        move_bounds(model, document, found)
