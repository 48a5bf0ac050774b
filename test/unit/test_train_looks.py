"""Other colours of things in training, and towers that learn them from themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import train_rig
from train_rig import begin

from lightvla_ros.errors import ConfigError, TrainError
from lightvla_ros.train.config_file import from_dict
from lightvla_ros.train.object_words import object_classes
from lightvla_ros.train.recolour import recolour, things
from lightvla_ros.train.token_teacher import TokenTeacher
from lightvla_ros.vla.weights import load_model

RECOLOURED = {'crop': False, 'colour': False, 'things': 1.0}


def seen(count=40, seed=0):
    made = train_rig.frames(count, seed=seed)
    classes = object_classes([made.segmentation_names])
    torch.manual_seed(seed)
    allowed = things(classes)
    images = recolour(made.images, classes.tables[0][made.segmentation], allowed, 1.0)
    return made, images


def shown(made, name):
    return made.segmentation == made.segmentation_names.index(name)


def test_the_robot_and_the_room_change_by_the_light_of_the_frame_alone():
    made, images = seen()
    for name in ('background', 'robot'):
        for before, after, here in zip(made.images, images, shown(made, name), strict=True):
            bright = here & (before.min(-1) > 20)
            if not bright.any():
                continue
            ratio = (after[bright].astype(float) + 0.5) / before[bright]
            free = after[bright] < 255
            assert np.ptp(ratio[free]) < 0.06  # rounding down of at least 21
    same = [np.array_equal(a, b) for a, b in zip(made.images, images, strict=True)]
    assert not all(same)


def test_about_half_of_the_things_get_another_colour_and_one_colour_in_both_cameras():
    made = train_rig.frames(200)
    made.images[:] = 100
    made.segmentation[:] = 0
    made.segmentation[:, :, :8] = 1
    classes = object_classes([made.segmentation_names])
    torch.manual_seed(0)
    images = recolour(
        made.images, classes.tables[0][made.segmentation], things(classes), 1.0
    ).astype(int)
    thing, room = images[:, :, :8], images[:, :, 8:]
    for part in (thing, room):
        assert (part == part[:, :1, :1, :1]).all()
    light = room[:, 0, 0, 0, 0] / 100
    assert 0.35 < (light != 1).mean() < 0.65
    assert light.min() >= 0.59
    assert light.max() <= 1.4
    coloured = (thing[:, 0, 0, 0] != room[:, 0, 0, 0]).any(1)
    assert 0.4 < coloured.mean() < 0.6


def test_some_prints_get_hues_that_no_factor_gives():
    made = train_rig.frames(200)
    made.images[:] = (200, 20, 20)
    made.segmentation[:] = 1
    classes = object_classes([made.segmentation_names])
    torch.manual_seed(0)
    shown = classes.tables[0][made.segmentation]
    images = recolour(made.images, shown, things(classes), 1.0)[:, 0, 0, 0].astype(int)
    assert 0.1 < (images[:, 1:].max(1) > images[:, 0]).mean() < 0.4


def test_no_share_changes_nothing_and_a_seed_repeats_itself():
    made, images = seen()
    assert np.array_equal(seen()[1], images)
    classes = object_classes([made.segmentation_names])
    same = recolour(made.images, made.segmentation, things(classes), 0.0)
    assert np.array_equal(same, made.images)


def test_things_without_words_are_things_and_unknown_pixels_are_not():
    allowed = things(object_classes([train_rig.NAMES]))
    named = dict(zip(('background', *sorted(train_rig.NAMES[1:])), allowed.tolist(), strict=False))
    assert named == {
        'background': False,
        'akita_black_bowl_1': True,
        'gripper': False,
        'odd_thing': True,
        'plate_1': True,
        'robot': False,
    }
    assert not allowed[len(train_rig.NAMES) :].any()


def test_towers_learn_the_tokens_of_the_start_and_nothing_else_moves(tmp_path):
    assert begin(tmp_path / 'start', steps=1).train()
    before = load_model(tmp_path / 'start' / 'policy')
    changes = {'augment': RECOLOURED, 'ema': 0.0, 'model': {'from': str(tmp_path / 'start')}}
    run = begin(tmp_path / 'run', learn='tokens', steps=40, batch_size=16, **changes)
    torch.manual_seed(3)
    batch = run.batches.training(np.arange(16))

    def error():
        with torch.no_grad():
            return run.losses(batch, mode='tokens')['loss'].item()

    first = error()
    assert run.train()
    assert error() < 0.7 * first
    after = load_model(tmp_path / 'run' / 'policy')
    moved = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert moved
    assert all(name.startswith(('vision_backbone.', 'projector.')) for name in moved)
    assert {name.split('.')[0] for name in moved} == {'vision_backbone', 'projector'}


def test_a_teacher_sees_the_pictures_as_recorded_and_finds_no_error_in_itself(tmp_path):
    assert begin(tmp_path / 'start', steps=1).train()
    changes = {'augment': RECOLOURED, 'model': {'from': str(tmp_path / 'start')}}
    run = begin(tmp_path / 'run', learn='tokens', **changes)
    batch = run.batches.training(np.arange(8))
    plain = run.batches._viewer.evaluation(train_rig.frames(24).images[:8]).pixels
    assert torch.equal(batch.plain, plain)
    assert not torch.equal(batch.pixels, plain)
    same = run.losses(replace(batch, pixels=batch.plain), mode='tokens')
    assert same['tokens'].item() == 0
    assert run.losses(batch, mode='tokens')['tokens'].item() > 0
    # the teacher does not follow the model
    teacher = TokenTeacher(run.model)
    with torch.no_grad():
        run.model.projector.fc3.bias.add_(1)
        context = run.model.embed_context(
            run.model.language_model.model.embed_tokens(batch.ids[:, 1:]),
            batch.mask[:, :-1],
            batch.proprio,
            run.model.embed_ends(),
        )
        moved = teacher(run.model, batch.plain, batch.plain, context)['tokens']
    assert moved.item() > 0


def test_a_run_that_learns_tokens_resumes_bit_for_bit(tmp_path):
    assert begin(tmp_path / 'start', steps=1).train()
    changes = {'augment': RECOLOURED, 'model': {'from': str(tmp_path / 'start')}, 'steps': 4}
    whole = begin(tmp_path / 'whole', learn='tokens', **changes)
    assert whole.train()
    half = begin(tmp_path / 'half', learn='tokens', **changes)
    half.train_step()
    half.train_step()
    half.save()
    assert begin(tmp_path / 'half', resume=True, learn='tokens', **changes).train()
    one, two = (load_model(tmp_path / each / 'policy').state_dict() for each in ('whole', 'half'))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_things_cannot_be_recoloured_without_a_segmentation(tmp_path):
    bare = replace(train_rig.frames(24), segmentation=None, segmentation_names=())
    said = 'augment.things: the demonstrations have no segmentation; record them with segmentation'
    with pytest.raises(TrainError, match=said):
        begin(tmp_path, of=bare, augment=RECOLOURED)


def test_frozen_tokens_are_computed_anew_for_recoloured_pictures(tmp_path):
    run = begin(tmp_path, augment=RECOLOURED, freeze_towers=True)
    assert run.batches.features is None
    assert run.train()


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'augment': {'things': 1.5}}, r'augment.things 1.5 is not in \[0, 1\]'),
        (
            {'learn': 'tokens', 'augment': RECOLOURED},
            'learn tokens needs a start: set model.from',
        ),
        (
            {'learn': 'tokens'},
            'learn tokens needs things in other colours: set augment.things',
        ),
        (
            {'learn': 'tokens', 'augment': RECOLOURED | {'crop': True}},
            'needs pictures as recorded: set augment.crop and colour to false',
        ),
        (
            {'learn': 'tokens', 'augment': RECOLOURED, 'freeze_towers': True},
            'needs towers: leave freeze_towers, freeze_tokens and lora out',
        ),
        (
            {'learn': 'tokens', 'augment': RECOLOURED, 'alignment': {'weight': 0.1}},
            'needs no alignment: set its weight and only_steps to 0',
        ),
        ({'learn': 'words'}, "learn 'words' is not one of actions, tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        from_dict(train_rig.document('x', **changes))


def test_a_policy_without_a_choice_cannot_learn_tokens(tmp_path):
    off = {'preset': 'libero-tiny', 'changes': train_rig.MODEL | {'pruning': {'method': 'off'}}}
    assert begin(tmp_path / 'start', steps=1, model=off).train()
    changes = {'augment': RECOLOURED, 'model': {'from': str(tmp_path / 'start')}}
    with pytest.raises(
        ConfigError, match='learn: tokens works only with pruning lightvla, not off'
    ):
        begin(tmp_path / 'run', learn='tokens', **changes)
