"""The dry run of training: its counts and memory are those of real runs, and nothing is written."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_rig
import yaml

from lightvla_ros.cli import main
from lightvla_ros.train.config_file import from_dict, read_config
from lightvla_ros.train.data import Data, FrameStore
from lightvla_ros.train.dry_run import MEASURED, MEASURED_COUNTS
from lightvla_ros.train.estimate import estimate
from lightvla_ros.train.model_config import plan_model
from lightvla_ros.train.parallel import Process
from lightvla_ros.train.run import Run

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / 'config/train').glob('*.yaml'))
BUNDLED = str(ROOT / 'models/libero_tiny')
HERE = Process(0, 1, torch.device('cpu'))
OFF = {'preset': 'libero-tiny', 'changes': train_rig.MODEL | {'pruning': {'method': 'off'}}}
LORA = {'rank': 4, 'alpha': 8, 'reinitialise_heads': True}


def begin(folder, **changes):
    store = FrameStore([train_rig.frames(72)])
    data = Data(store, (store.rows(0),), (1.0,), store.rows(0)[:0])
    config = from_dict(train_rig.document('x', batch_size=64, **changes))
    return Run(config, folder, HERE, data=data)


def estimated(run, kept, batch):
    plan = plan_model(run.config)
    return estimate(run.config, plan.config, plan.numbers, [kept], batch.ids.shape[1])


def saved(run, batch, mode='both'):
    """Bytes that autograd keeps in a real pass, without the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in run.losses.parameters()}
    found = {}

    def keep(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes(), storage  # alive: no address is used twice
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), run._autocast():
        losses = run.losses(batch, 0.5, mode)
    kept = int(losses['picks'].max()) if 'picks' in losses else 32
    return sum(size for size, _ in found.values()), kept


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'ema': 0.9, 'model': OFF, 'optimizer': {'name': 'muon', 'lr': 1e-3}},
        {'freeze_towers': True, 'augment': 'published'},
        {'freeze_towers': True, 'alignment': {'weight': 0.1, 'where': 0.5}},
        {'freeze_tokens': True, 'copies': 'once'},
        {'alignment': {'only_steps': 6}},
        {'lora': LORA, 'autocast': True},
        {'autocast': True},
    ],
    ids=['all', 'muon', 'frozen', 'features', 'decoder', 'alignment', 'lora', 'autocast'],
)
def test_counts_and_bytes_are_those_of_a_real_run(tmp_path, changes):
    if 'lora' in changes:
        pytest.importorskip('peft')
    run = begin(tmp_path / 'run', **changes)
    batch = run.batches.training(run.data.training[0][:64])
    mode = 'alignment' if 'only_steps' in changes.get('alignment', {}) else 'both'
    real, kept = saved(run, batch, mode)
    run.train_step()

    found = estimated(run, kept, batch)
    weights = list(run.model.parameters()) + list(run._frozen.values())
    weights = list({weight.data_ptr(): weight for weight in reversed(weights)}.values())
    trained = [weight for weight in weights if weight.requires_grad]
    counts = found.counts['all']
    assert (counts.all, counts.trained) == tuple(
        sum(weight.numel() for weight in each) for each in (weights, trained)
    )
    size = sum(weight.nbytes for weight in trained)
    assert found.trained == found.gradients == size
    assert found.frozen == sum(weight.nbytes for weight in weights) - size
    assert found.mean == (size if run.config.ema else 0)
    states = [state for each in run._optimizers for state in each.state.values()]
    size = sum(value.nbytes for state in states for value in state.values())
    # weights that get no gradient have no state: the decoder, if only alignment is trained
    assert found.states == size or (mode == 'alignment' and found.states > size)
    assert found.activations[0].plain == pytest.approx(real, rel=0.1)
    assert found.activations[0].recomputed < found.activations[0].plain


def test_recomputed_blocks_keep_their_input_alone(tmp_path):
    run = begin(tmp_path / 'run', model=OFF, gradient_checkpointing=True)
    batch = run.batches.training(run.data.training[0][:64])
    real, _ = saved(run, batch)
    found = estimated(run, 32, batch).activations[0]
    # autograd does not see the rotation, which the blocks get in a tuple
    assert found.inputs == pytest.approx(real, rel=0.15)
    # two of the four blocks are the decoder's, which are alike and larger than the towers'
    assert found.plain - found.inputs == pytest.approx(2 * found.block, rel=0.3)


def test_the_7b_is_near_the_measured():
    pytest.importorskip('peft')
    config = read_config(ROOT / 'config/train/openvla_oft_7b_lightvla.yaml')
    plan = plan_model(config, 'openvla-oft-7b')
    for batch, (plain, recomputed) in MEASURED.items():
        one = replace(config, batch_size=batch, parallel='none')
        found = estimate(one, plan.config, plan.numbers, [192], prompt=34)
        counts = found.counts['all']
        assert (counts.all, counts.trained) == MEASURED_COUNTS
        each = found.activations[0]
        assert (found.fixed + each.plain) / 2**30 == pytest.approx(plain, rel=0.05)
        assert (found.fixed + each.recomputed) / 2**30 == pytest.approx(recomputed, rel=0.05)


def test_every_file_in_the_repository_has_a_dry_run(tmp_path):
    pytest.importorskip('peft')
    script = """if True:
        import json, sys
        from pathlib import Path
        from lightvla_ros.cli import main
        for command in json.loads(sys.argv[1]):
            assert main(command) == 0, command
        # not ru_maxrss, which begins with what the parent process had
        lines = Path('/proc/self/status').read_text().splitlines()
        print('PEAK', next(line.split()[1] for line in lines if line.startswith('VmHWM')))
    """
    commands = []
    for path in FILES:
        like = 'openvla-oft-7b' if '7b' in path.name else BUNDLED
        commands.append(['train', '--config', str(path), '--dry-run', '--like', like])
    done = subprocess.run(
        [sys.executable, '-c', script, json.dumps(commands)],
        cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text, _, peak = done.stdout.partition('PEAK')
    assert int(peak) < 2 * 2**20  # KiB
    assert text.count('a dry run, in which nothing is loaded or written') == len(FILES)
    assert text.count('7,642,620,583 parameters,   275,798,023 trained (3.61%)') == 3
    assert not list(tmp_path.iterdir())


def write(path, **changes):
    path.write_text(yaml.safe_dump(train_rig.document('x', **changes)))
    return ['train', '--config', str(path), '--out', str(path.parent / 'run'), '--dry-run']


def test_a_dry_run_says_what_is_trained(tmp_path, capsys):
    changes = {'accumulate': 3, 'parallel': 'fsdp2', 'gradient_checkpointing': True}
    assert main(write(tmp_path / 'c.yaml', **changes)) == 0
    said = capsys.readouterr().out
    for text in (
        'data        x is not there yet',
        'step        4 frames on each GPU, 3 times; 6 steps; adamw; parallel fsdp2',
        'precision   weights float32; no autocast',
        'blocks      recomputed in the backward pass',
        'activations, 12 of 32 tokens',
        'total, 32 of 32 tokens',
        'FSDP2 divides',
    ):
        assert text in said
    assert [path.name for path in tmp_path.iterdir()] == ['c.yaml']


def test_a_finished_run_gives_the_shapes(tmp_path, capsys):
    begin(tmp_path / 'base', steps=1).train()
    command = write(tmp_path / 'c.yaml', model={'from': str(tmp_path / 'base')})
    assert main(command) == 0
    assert f'shapes      of {tmp_path / "base/policy"}' in capsys.readouterr().out
    weights = tmp_path / 'base/policy/model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    assert main(command) == 1
    assert 'model.safetensors: damaged' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('changes', 'more', 'message'),
    [
        ({'steps': 0}, [], 'steps 0 must be a positive'),
        ({'model': {'preset': 'huge'}}, [], "preset 'huge' is not one of"),
        (
            {'model': {'from': 'no/where'}},
            [],
            'no/where is not there; make it .* of the same shapes with --like',
        ),
        ({'model': {'from': 'no/where'}}, ['--like', 'x'], '--like x: neither a policy folder nor'),
        (
            {'model': {'from': 'no/where', 'changes': {'head_width': 7}}},
            ['--like', 'libero-tiny'],
            'model.changes: action_head.model.fc1.weight would have shape',
        ),
        ({'proprio_noise': [0.1]}, [], 'proprio_noise has 1 numbers, but the state has 8'),
        (
            {
                'model': {'from': 'no/where', 'changes': {'pruning': {'method': 'off'}}},
                'lora': LORA,
            },
            ['--like', 'openvla-oft-7b'],
            'lora: the initial weights are torch.bfloat16; set autocast',
        ),
        (
            {
                'model': {
                    'preset': 'libero-tiny',
                    'changes': {'pruning': {'method': 'lightvla_star_encoder'}},
                },
                'alignment': {'weight': 1.0},
            },
            [],
            'alignment works only with pruning off or lightvla',
        ),
    ],
)
def test_a_fault_is_one_line(tmp_path, capsys, changes, more, message):
    if 'lora' in changes:
        pytest.importorskip('peft')
    assert main([*write(tmp_path / 'c.yaml', **changes), *more]) == 1
    said = capsys.readouterr()
    assert said.err.count('\n') == 1
    assert not said.out
    assert re.search(message, said.err)
    assert [path.name for path in tmp_path.iterdir()] == ['c.yaml']


def test_a_folder_that_holds_a_run_is_refused(tmp_path, capsys):
    command = write(tmp_path / 'c.yaml')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/checkpoint.pt').touch()
    assert main(command) == 1
    assert 'run: holds a run' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--dry-run', '--resume'], '--dry-run excludes --resume'),
        (['--dry-run', '--write-policy', 'x'], '--dry-run excludes --resume and --write-policy'),
        (['--like', 'libero-tiny'], '--like needs --dry-run'),
    ],
)
def test_options_that_do_not_fit_are_refused(capsys, options, message):
    assert main(['train', '--config', 'x.yaml', *options]) == 2
    assert message in capsys.readouterr().err
