"""Whole runs: they learn, repeat bit for bit, go on after a kill, and end in a policy."""

import csv
import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
import train_rig
import yaml

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.engine.torch import TorchEngine
from lightvla_ros.errors import ConfigError, TrainError
from lightvla_ros.policy.observation import observations
from lightvla_ros.policy.policy import Policy
from lightvla_ros.train.checkpoint import load_checkpoint
from lightvla_ros.train.config import OptimizerConfig
from lightvla_ros.train.config_file import from_dict
from lightvla_ros.train.data import Data, FrameStore
from lightvla_ros.train.optim import make_optimizers, rate_factor
from lightvla_ros.train.parallel import Process
from lightvla_ros.train.run import Run
from lightvla_ros.train.start import spread_words
from lightvla_ros.vla.weights import load_model

HERE = Process(0, 1, torch.device('cpu'))
ALL = {  # all that a run can draw at random
    'augment': 'published',
    'alignment': {'weight': 0.2, 'only_steps': 2},
    'proprio_noise': [0.02, 0.02, 0.01, 0.1, 0.1, 0.1, 0.001, 0.001],
    'proprio_dropout': 0.2,
    'ema': 0.9,
    'accumulate': 2,
    'batch_size': 2,
    'optimizer': {'lr': 1e-3, 'warmup': 2, 'schedule': 'cosine', 'clip_norm': 1.0},
}


def made_up(count=24, held_out=4):
    store = FrameStore([train_rig.frames(count)])
    rows = store.rows(0)
    return Data(store, (rows[: count - held_out],), (1.0,), rows[count - held_out :])


def begin(folder, data=None, **changes):
    config = from_dict(train_rig.document('x', **changes))
    return Run(config, folder, HERE, data=made_up() if data is None else data)


def test_eight_frames_are_learnt_by_heart(tmp_path):
    run = begin(
        tmp_path / 'run',
        made_up(8, held_out=0),
        steps=150,
        batch_size=8,
        optimizer={'lr': 1e-3, 'schedule': 'cosine', 'warmup': 20, 'clip_norm': 1.0},
        model={
            'preset': 'libero-tiny',
            'changes': train_rig.MODEL | {'pruning': {'method': 'off'}},
        },
    )
    losses = [run.train_step()['loss'] for _ in range(150)]
    assert losses[0] > 0.4
    assert losses[-1] < 0.1


def test_the_alignment_is_learnt_by_itself(tmp_path):
    run = begin(
        tmp_path / 'run',
        steps=60,
        batch_size=12,
        alignment={'only_steps': 60},
        optimizer={'lr': 3e-3, 'schedule': 'constant'},
    )
    decoder = run.model.language_model.model.layers[0].mlp.up_proj.weight
    before = decoder.detach().clone()
    losses = [run.train_step()['alignment'] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(decoder, before)
    report = run.evaluate()
    assert report['held_out_right_objects'] > 0.5
    assert 'held_out_l1' not in report


def test_a_run_repeats_and_goes_on_after_a_kill(tmp_path):
    path = train_rig.write_file(tmp_path / 'data')
    document = train_rig.document(path, **ALL, checkpoint_every={'steps': 3, 'minutes': 0})
    file = tmp_path / 'config.yaml'
    file.write_text(yaml.safe_dump(document))

    def command(out, *more):
        return main(['train', '--config', str(file), '--out', str(tmp_path / out), *more])

    # killed in step 5, while a later checkpoint is half written
    killed = subprocess.run(
        [
            sys.executable,
            '-c',
            textwrap.dedent(f"""
                import os, signal
                from lightvla_ros.cli import main
                from lightvla_ros.train import run
                step = run.Run.train_step
                def train_step(self):
                    if self.step == 5:
                        (self.folder / 'checkpoint.part.pt').write_bytes(b'half')
                        os.kill(os.getpid(), signal.SIGKILL)
                    return step(self)
                run.Run.train_step = train_step
                main(['train', '--config', {str(file)!r}, '--out', {str(tmp_path / 'killed')!r}])
            """),
        ],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    assert load_checkpoint(tmp_path / 'killed/checkpoint.pt')['step'] == 3
    assert command('killed') == 1  # would start anew
    assert command('killed', '--resume') == 0
    assert command('whole') == 0
    states = [load_checkpoint(tmp_path / out / 'checkpoint.pt') for out in ('whole', 'killed')]
    assert states[0]['step'] == states[1]['step'] == 6
    for part in ('weights', 'mean'):
        assert states[0][part].keys() == states[1][part].keys()
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), name
    policies = [tmp_path / out / 'policy/model.safetensors' for out in ('whole', 'killed')]
    assert policies[0].read_bytes() == policies[1].read_bytes()
    with (tmp_path / 'killed/log.csv').open() as log:
        rows = list(csv.DictReader(log))
    assert [row['step'] for row in rows] == ['0', '3', '6']
    assert float(rows[-1]['held_out_l1']) > 0
    assert float(rows[-1]['kept']) >= 1
    assert float(rows[-1]['query_cosine']) <= 1
    shares = [float(rows[-1][f'all_on_{p}']) for p in ('named', 'robot', 'other', 'background')]
    assert sum(shares) == pytest.approx(1)
    assert list((tmp_path / 'killed/tensorboard').iterdir())

    document['optimizer']['lr'] = 2e-3
    file.write_text(yaml.safe_dump(document))
    assert command('killed', '--resume') == 1
    assert command('written', '--write-policy', str(tmp_path / 'killed')) == 0
    written = (tmp_path / 'written/model.safetensors').read_bytes()
    assert written == policies[1].read_bytes()


def test_the_policy_runs_as_it_was_trained(tmp_path):
    data = made_up()
    run = begin(tmp_path / 'run', data, steps=2, ema=0.5)
    assert run.train()
    folder = tmp_path / 'run/policy'
    manifest = load_manifest(folder)
    assert manifest.provenance['trained'] is True
    assert manifest.provenance['steps'] == 2
    assert manifest.preprocessing.crop_area == 1.0
    assert manifest.preprocessing.jpeg_quality is None
    assert not any(camera.mirror for camera in manifest.cameras)
    policy = Policy(folder, manifest, TorchEngine(folder, manifest))
    row = data.held_out[0]
    store = data.store
    inputs = {
        'images': store.gather(np.array([row]), instances=False).images,
        'instruction': np.array([store.instructions[store.instruction[row]]]),
        'proprio': store.proprio[[row]].astype(np.float64),
    }
    (observation,) = observations(manifest, inputs)
    found = policy.infer(observation).normalised
    batch, _ = next(iter(run.batches.held_out()))
    with torch.no_grad(), run._mean.in_place():
        run.losses.eval()
        model = run.model
        wanted = model(batch.pixels, batch.ids, batch.mask, batch.proprio).actions[0]
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-5)
    policy.close()


def test_a_run_starts_from_another_with_another_pruner(tmp_path):
    base = begin(
        tmp_path / 'base',
        steps=1,
        model={
            'preset': 'libero-tiny',
            'changes': train_rig.MODEL | {'pruning': {'method': 'off'}},
        },
    )
    assert base._phase(0) == ('both', 0.0)
    base.train()
    fine = begin(
        tmp_path / 'fine',
        steps=4,
        model={'from': str(tmp_path / 'base'), 'changes': {'pruning': {'method': 'lightvla'}}},
        noise={'scale': 0.5},
        augment='published',
    )
    assert fine.model.config.pruning.method == 'lightvla'
    assert [fine._phase(step)[1] for step in range(5)] == [0.5, 0.375, 0.25, 0.125, 0.0]
    stored = load_model(tmp_path / 'base/policy').state_dict()
    for name, value in fine.model.state_dict().items():
        assert torch.equal(value, stored[name]), name
    assert fine.manifest.preprocessing.crop_area == 0.9
    assert fine.manifest.action == base.manifest.action
    star = {'pruning': {'method': 'lightvla_star_encoder', 'queries': 5}}
    begun = begin(tmp_path / 'star', model={'from': str(tmp_path / 'base'), 'changes': star})
    assert begun.train_step()['picks'] <= 5
    with pytest.raises(TrainError, match='head_width|would have shape'):
        begin(
            tmp_path / 'wide', model={'from': str(tmp_path / 'base'), 'changes': {'head_width': 64}}
        )


def test_an_exported_and_calibrated_policy_is_trained_further(bundled_policy, tmp_path):
    """Graphs, golden answers and the alarm are of the weights before, and are not taken over."""
    before = load_manifest(bundled_policy)
    assert None not in (before.graphs, before.golden, before.familiarity)
    assert before.verified
    run = begin(tmp_path, model={'from': str(bundled_policy)}, steps=1, batch_size=2)
    run.train()
    after = load_manifest(tmp_path / 'policy')
    assert (after.graphs, after.golden, after.fp8, after.familiarity) == (None,) * 4
    assert (after.engines, after.verified) == ((), ())
    assert after.action == before.action


def test_a_run_says_what_the_bounds_of_its_policy_cut_off(tmp_path, capsys):
    begin(tmp_path / 'base', steps=1).train()
    assert 'cut off' not in capsys.readouterr().out
    frames = train_rig.frames(24)
    frames.chunks[3, 2, 5] = 1.0  # a hand that turns as none did
    store = FrameStore([frames])
    data = Data(store, (store.rows(0),), (1.0,), np.empty(0, np.int64))
    begin(tmp_path / 'kept', data, model={'from': str(tmp_path / 'base')})
    said = capsys.readouterr().out
    assert f'{100 / frames.chunks[..., 0].size:.2g} % of action[5]; model.bounds: data' in said
    begin(tmp_path / 'moved', data, model={'from': str(tmp_path / 'base'), 'bounds': 'data'})
    assert 'cut off' not in capsys.readouterr().out


def test_demonstrations_of_another_aspect_are_recorded_or_refused(tmp_path):
    made = train_rig.frames(12)
    wide = replace(made, images=made.images[:, :, 4:28], segmentation=None)
    stores = [FrameStore([each]) for each in (made, wide)]
    square, wide = (Data(s, (s.rows(0),), (1.0,), np.empty(0, np.int64)) for s in stores)
    begun = begin(tmp_path / 'wide', wide)
    assert [camera.aspect for camera in begun.manifest.cameras] == [4 / 3] * 2
    begin(tmp_path / 'base', square, steps=1).train()
    with pytest.raises(TrainError, match=r'third_person: 32 x 24 px.* fit in manifest.json'):
        begin(tmp_path / 'fine', wide, model={'from': str(tmp_path / 'base')})


def test_a_folder_without_a_policy_is_refused(tmp_path):
    with pytest.raises(TrainError, match='neither a policy nor a finished run'):
        begin(tmp_path / 'run', model={'from': str(tmp_path)})


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    run = begin(tmp_path / 'run')
    run.batches.targets[:] = torch.nan
    with pytest.raises(TrainError, match='step 0: the loss is nan; lower'):
        run.train_step()


def test_a_request_to_stop_leaves_a_checkpoint(tmp_path):
    run = begin(tmp_path / 'run', steps=50)
    run.stop()
    assert not run.train()
    assert load_checkpoint(tmp_path / 'run/checkpoint.pt')['step'] == 0
    assert not (tmp_path / 'run/policy').exists()


def test_noise_on_the_state_is_in_its_own_units(tmp_path):
    rest = {'proprio_dropout': 0.0}
    run = begin(tmp_path / 'noisy', proprio_noise=[0, 0, 0.02, 0, 0, 0, 0, 0], **rest)
    spec = run.manifest.proprio
    rows = np.zeros(2000, np.int64)
    states = run.batches.training(rows).proprio
    assert (states[:, [0, 1, 3, 4, 5, 6, 7]] == states[0, [0, 1, 3, 4, 5, 6, 7]]).all()
    assert states[:, 2].std().item() * (spec.q99[2] - spec.q01[2]) / 2 == pytest.approx(0.02, 0.1)
    with pytest.raises(ConfigError, match='proprio_noise has 1 numbers, but the state has 8'):
        begin(tmp_path / 'short', proprio_noise=[0.02], **rest)


def test_words_begin_at_right_angles(tmp_path):
    model = begin(tmp_path / 'run').model
    spread_words(model, 57)
    table = model.language_model.model.embed_tokens.weight[:57]
    torch.testing.assert_close(table @ table.T / 64, torch.eye(57), atol=1e-4, rtol=0)
    document = json.loads((tmp_path / 'run/policy_document.json').read_text())
    assert document['action']['mask'] == [True] * 6 + [False]


def test_muon_takes_the_hidden_matrices_alone(tmp_path):
    run = begin(tmp_path / 'run', optimizer={'name': 'muon', 'lr': 1e-3, 'schedule': 'constant'})
    adamw, muon = run._optimizers
    names = {id(weight): name for name, weight in run.model.named_parameters()}
    there = [names[id(weight)] for group in muon.param_groups for weight in group['params']]
    assert 'language_model.model.layers.0.self_attn.q_proj.weight' in there
    assert not any('embed' in name or 'head' in name or 'proprio' in name for name in there)
    others = [names[id(weight)] for group in adamw.param_groups for weight in group['params']]
    assert sorted(there + others) == sorted(names.values())
    assert np.isfinite(run.train_step()['loss'])


def test_recomputing_and_plain_attention_change_nothing(tmp_path):
    data = made_up()
    found = []
    for index, changes in enumerate(({}, {'gradient_checkpointing': True}, {'attention': 'plain'})):
        run = begin(tmp_path / str(index), data, **changes)
        run.add_gradients()
        found.append(run.model.vision_backbone.featurizer.pos_embed.grad)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0], atol=1e-5, rtol=1e-3)


def test_the_rate_follows_its_schedule():
    def rates(**fields):
        config = OptimizerConfig(**fields)
        return [round(rate_factor(config, step, 8), 4) for step in range(8)]

    assert rates(schedule='step', milestones=(3, 6)) == [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert rates(schedule='constant', warmup=4)[:5] == [0.25, 0.5, 0.75, 1, 1]
    cosine = rates(schedule='cosine')
    assert cosine[0] == 1
    assert cosine[4] == 0.5
    assert make_optimizers(torch.nn.Linear(2, 2), OptimizerConfig())[0].defaults['lr'] == 5e-4


@pytest.mark.parametrize('ema', [0.0, 0.9])
def test_the_policy_may_lie_between_start_and_end(tmp_path, ema):
    assert begin(tmp_path / 'start', steps=1).train()
    changes = {'steps': 2, 'ema': ema, 'model': {'from': str(tmp_path / 'start')}}
    assert begin(tmp_path / 'end', **changes).train()
    assert begin(tmp_path / 'run', interpolation=0.25, **changes).train()

    def weights(name):
        return load_model(tmp_path / name / 'policy').state_dict()

    start, end, written = weights('start'), weights('end'), weights('run')
    moved = 0
    for name, value in written.items():
        torch.testing.assert_close(value, 0.75 * start[name] + 0.25 * end[name])
        moved += not torch.equal(start[name], end[name])
    assert moved
    # and a checkpoint gives the same policy
    (tmp_path / 'any.yaml').write_text(yaml.safe_dump(train_rig.document('x')))
    arguments = ['--config', str(tmp_path / 'any.yaml'), '--out', str(tmp_path / 'again/policy')]
    assert main(['train', *arguments, '--write-policy', str(tmp_path / 'run')]) == 0
    again = weights('again')
    assert all(torch.equal(again[name], written[name]) for name in written)
    # and so does a run that goes on from it
    config = from_dict(train_rig.document('x', interpolation=0.25, **changes))
    resumed = Run(config, tmp_path / 'run', HERE, resume=True, data=made_up())
    resumed.write_policy(tmp_path / 'resumed/policy')
    again = weights('resumed')
    assert all(torch.equal(again[name], written[name]) for name in written)
