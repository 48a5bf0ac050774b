"""Runs that keep a part of the model, and what the decoder sees of a token picked twice."""

import numpy as np
import pytest
import torch
import train_rig
import yaml
from train_rig import begin

from lightvla_ros.cli import main
from lightvla_ros.errors import ConfigError, TrainError
from lightvla_ros.train.checkpoint import load_checkpoint, save_checkpoint
from lightvla_ros.train.config_file import from_dict
from lightvla_ros.vla.weights import load_model


def test_frozen_towers_see_once_and_are_written_as_they_were(tmp_path):
    changes = {'augment': 'off', 'alignment': {'weight': 0.2}, 'steps': 3, 'ema': 0.9}
    frozen = begin(tmp_path / 'frozen', freeze_towers=True, **changes)
    trained = begin(tmp_path / 'trained', **changes)
    before, same = frozen.evaluate(), trained.evaluate()
    for name in ('held_out_l1', 'held_out_alignment'):
        assert before[name] == pytest.approx(same[name], rel=1e-3)  # features are kept in fp16
    towers = {name: value.clone() for name, value in frozen._frozen.items()}
    assert towers
    assert frozen.train()
    written = load_model(tmp_path / 'frozen' / 'policy').state_dict()
    for name, value in towers.items():
        assert torch.equal(written[name], value), name
    assert not torch.equal(written['projector.fc1.weight'], trained.model.projector.fc1.weight)
    # and a checkpoint gives the same policy
    arguments = ['--config', str(tmp_path / 'any.yaml'), '--out', str(tmp_path / 'again')]
    (tmp_path / 'any.yaml').write_text(yaml.safe_dump(train_rig.document('x')))
    assert main(['train', *arguments, '--write-policy', str(tmp_path / 'frozen')]) == 0
    again = load_model(tmp_path / 'again').state_dict()
    assert all(torch.equal(again[name], written[name]) for name in written)


def test_frozen_tokens_and_the_choice_among_them_stay_as_they_were(tmp_path):
    assert begin(tmp_path / 'start', steps=1).train()
    before = load_model(tmp_path / 'start' / 'policy')
    changes = {'augment': 'off', 'ema': 0.9, 'model': {'from': str(tmp_path / 'start')}}
    run = begin(tmp_path / 'run', freeze_tokens=True, copies='once', steps=3, **changes)
    assert run.train()
    after = load_model(tmp_path / 'run' / 'policy')
    pixels = torch.randn(1, before.config.cameras, 6, *[before.config.image_size] * 2)
    words = torch.tensor([[before.config.bos_id, 5, 6]])
    proprio = torch.randn(1, before.config.proprio_size)
    with torch.no_grad():
        first, then = (
            model.eval()(pixels, words, torch.ones_like(words, dtype=torch.bool), proprio)
            for model in (before, after)
        )
    assert torch.equal(first.selection.tokens, then.selection.tokens)
    assert torch.equal(first.selection.picks, then.selection.picks)
    assert not torch.equal(first.actions, then.actions)
    moved = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert moved
    assert all(
        name.startswith(
            ('language_model.model.layers.', 'language_model.model.norm.', 'action_head.')
        )
        for name in moved
    )


def test_copies_seen_once_make_training_see_what_inference_sees(tmp_path):
    run = begin(tmp_path, noise={'schedule': 'none'}, proprio_noise=[], proprio_dropout=0.0)
    batch = run.batches.training(np.arange(4))
    losses = run.losses
    with torch.no_grad():
        counted = losses.train()(batch)['l1']
        losses.model.counts_copies = False
        once = losses(batch)['l1']
        deployed = losses.eval()(batch)['l1']
    torch.testing.assert_close(once, deployed)
    assert abs(counted - deployed) > 1e-5


def test_frozen_towers_that_see_augmented_images_stay_as_they_were(tmp_path):
    changes = {'augment': 'published', 'steps': 2, 'ema': 0.9}
    run = begin(tmp_path, freeze_towers=True, **changes)
    towers = {name: value.clone() for name, value in run.model.vision_backbone.state_dict().items()}
    projector = run.model.projector.fc1.weight.detach().clone()
    assert run.train()
    written = load_model(tmp_path / 'policy').state_dict()
    for name, value in towers.items():
        assert torch.equal(written['vision_backbone.' + name], value), name
    assert not torch.equal(written['projector.fc1.weight'], projector)


def test_a_checkpoint_from_before_a_key_had_its_default(tmp_path):
    assert begin(tmp_path, steps=1).train()
    path = tmp_path / 'checkpoint.pt'
    state = load_checkpoint(path)
    for name in ('copies', 'freeze_tokens'):
        del state['config'][name]
    save_checkpoint(path, state)
    assert begin(tmp_path, steps=1, resume=True).step == 1
    with pytest.raises(TrainError, match="copies was 'counted', is now 'once'"):
        begin(tmp_path, steps=1, resume=True, copies='once')


def test_tokens_that_the_decoder_chooses_cannot_be_frozen(tmp_path):
    star = {'method': 'lightvla_star_llm', 'queries': 8, 'layer': 1}
    model = {'preset': 'libero-tiny', 'changes': train_rig.MODEL | {'pruning': star}}
    said = 'freeze_tokens: works only with pruning off or lightvla, not lightvla_star_llm'
    with pytest.raises(ConfigError, match=said):
        begin(tmp_path, freeze_tokens=True, model=model)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        (
            {'freeze_tokens': True, 'alignment': {'weight': 0.1}},
            'freeze_tokens: excludes alignment, which trains the visual tokens',
        ),
        (
            {'freeze_tokens': True, 'lora': {'rank': 4}},
            'freeze_tokens: excludes lora, which trains only adapters',
        ),
        ({'copies': 'twice'}, "copies 'twice' is not one of counted, once"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        from_dict(train_rig.document('x', **changes))
