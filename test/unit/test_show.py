"""`lightvla show` and `lightvla listen` without the simulator: choices, figures, files, tables."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from lightvla_ros.cli import main
from lightvla_ros.contract import load_manifest
from lightvla_ros.evaluate.episodes import Conditions, EvalOptions, failed_record
from lightvla_ros.evaluate.listen import ListeningRecord, listen
from lightvla_ros.evaluate.listen_result import Answer, confusion, summarise, table, thing
from lightvla_ros.policy.preprocessor import Preprocessor, upright_mask
from lightvla_ros.show import concentration, pictures
from lightvla_ros.show.dimming import dim
from lightvla_ros.show.watch import Events, Moment, Seen, key_moments
from lightvla_ros.show.write import write_episode
from lightvla_ros.sim.episode import EpisodeSpec

# Workers are forked here: what they run stands in this file, which no child can import.
forking = pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
CAMERAS = ('third_person', 'wrist')


def starting(run):
    @contextmanager
    def start(number):
        yield run

    return start


# Which moments are shown


def test_key_moments_follow_the_events():
    steps = list(range(0, 100, 4))
    chosen = key_moments(steps, Events(touched=41, lifted=49, released=90))
    assert [(label, steps[index]) for label, index in chosen] == [
        ('start', 0),
        ('approach', 20),
        ('before the grasp', 40),
        ('lift', 52),
        ('carry', 72),
        ('release', 92),
    ]


def test_key_moments_of_an_object_that_is_never_released():
    chosen = key_moments(list(range(0, 100, 8)), Events(touched=20, lifted=30))
    assert chosen[-1] == ('end', 12)


def test_key_moments_without_a_lift_are_spread_evenly():
    chosen = key_moments(list(range(0, 88, 8)), Events(touched=20))
    assert chosen == [('start', 0), ('', 2), ('', 4), ('', 6), ('', 8), ('end', 10)]
    assert key_moments([0, 8], Events()) == [('start', 0), ('end', 1)]


def test_key_moments_of_a_short_episode_come_once():
    chosen = key_moments([0, 8, 16], Events(touched=3, lifted=4, released=12))
    assert [index for _, index in chosen] == [0, 1, 2]


# Dimming


@pytest.mark.parametrize('crop_area', [1.0, 0.9])
def test_kept_patch_is_bright_where_the_policy_saw_it(policy_dir, crop_area):
    from dataclasses import replace

    manifest = load_manifest(policy_dir)
    camera = replace(manifest.cameras[0], mirror=True, rotate_degrees=180)
    recipe = replace(manifest.preprocessing, crop_area=crop_area, jpeg_quality=None)
    image = np.full((256, 256, 3), 10, np.uint8)
    image[60:80, 190:215] = 250  # off the centre, along both axes
    seen = Preprocessor((camera,), recipe).policy_view(image, camera)
    rows, columns = manifest.patch_grid
    size = manifest.tokens.patch_size
    kept = seen[..., 0].reshape(rows, size, columns, size).max((1, 3)) > 100
    shown = dim(image, upright_mask(kept, camera), crop_area)
    assert (shown[60:80, 190:215] == 250).all()
    assert shown[:20].max() < 10  # all else is darker


def test_margin_that_no_patch_shows_is_dimmed():
    image = np.full((100, 100, 3), 200, np.uint8)
    shown = dim(image, np.ones((4, 4), bool), 0.81)
    assert (shown[5:95, 5:95] == 200).all()
    assert shown[:4].max() < 100
    assert (dim(image, np.ones((4, 4), bool), 1.0) == 200).all()


# Files


@pytest.fixture
def seen(policy_dir):
    rng = np.random.default_rng(0)
    manifest = load_manifest(policy_dir)
    shape = (2, manifest.patches_per_camera)
    moments = tuple(
        Moment(
            step,
            tuple(rng.integers(0, 255, (2, 8, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)),
            rng.random(shape) < 0.2,
            rng.integers(0, 6, shape, np.uint8),
            acted=step % 8 == 0 and step < 40,
        )
        for step in range(0, 44, 4)
    )
    name = 'libero_object-0-0-0'
    return Seen(name, 'pick up the milk', CAMERAS, True, 40, Events(10, 14, 35), moments)


def test_files_of_an_episode(seen, policy_dir, tmp_path):
    document = write_episode(seen, load_manifest(policy_dir), {'suite': 'libero_object'}, tmp_path)
    names = [f'{seen.name}{end}' for end in ('-frames.png', '-kept.png', '-concentration.png')]
    assert [str(tmp_path / name) for name in (*names, f'{seen.name}.gif', f'{seen.name}.json')] == (
        document['files']
    )
    for name in names:
        with Image.open(tmp_path / name) as picture:
            picture.verify()
    assert json.loads((tmp_path / f'{seen.name}.json').read_text()) == document
    assert document['chunks'] == len(document['all_chunks']) == 5  # those that were executed
    kept = sum(sum(chunk['kept'].values()) for chunk in document['all_chunks'])
    assert document['mean_kept_tokens'] == pytest.approx(kept / 5)
    with Image.open(tmp_path / f'{seen.name}.gif') as gif:
        assert gif.size == (512, 256 + pictures.FOOTER)
        assert gif.n_frames == len(seen.moments)
        assert gif.info['duration'] == 200


def test_animation_keeps_to_its_bytes(seen, policy_dir, tmp_path):
    manifest, path = load_manifest(policy_dir), tmp_path / 'a.gif'
    large = pictures.write_animation(seen, manifest, path).stat().st_size
    small = pictures.write_animation(seen, manifest, path, most=large - 1).stat().st_size
    assert small < large
    with pytest.raises(ValueError, match='more than 0.001'):
        pictures.write_animation(seen, manifest, path, most=1000)


# Concentration


def record_of(spec, seen):
    return concentration.ConcentrationRecord(
        **vars(spec), success=True, steps=40, shares=seen.shares
    )


@forking
def test_figures_of_many_episodes(seen, policy_dir, tmp_path):
    specs = tuple(EpisodeSpec('libero_object', task, 0) for task in range(3))

    def run(spec):
        return failed_record(spec, 'no') if spec.task == 1 else record_of(spec, seen)

    options = EvalOptions(policy_dir, specs, Conditions(), tmp_path)
    document = concentration.measure(options, starting(run), 'fork')
    one = concentration.figures(seen.shares)
    assert (document['episodes'], document['chunks']) == (2, 10)
    for name in ('mean_kept_tokens', 'kept_share', 'on_task', 'by_role'):
        assert document[name] == one[name]
    assert [each['task'] for each in document['errors']] == [1]
    assert [each['task'] for each in document['all_episodes']] == [0, 2]
    assert set(document['per_camera']) == set(CAMERAS)
    json.dumps(document)
    text = concentration.table(document)
    assert '2 episodes (2 solved), 10 chunks' in text
    assert 'libero_object task 1 state 0: no' in text


@pytest.mark.parametrize(
    ('kept_share', 'on_task', 'wanted'),
    [(0.1, 0.5, (True, True)), (0.04, 0.9, (False, True)), (0.26, 0.49, (False, False))],
)
def test_criterion(kept_share, on_task, wanted):
    met = concentration.criterion({'kept_share': kept_share, 'on_task': {'kept': on_task}})
    assert tuple(met.values()) == wanted


def test_no_episode_at_all_has_figures():
    document = concentration.summarise([failed_record(EpisodeSpec('libero_object', 0, 0), 'no')])
    assert (document['episodes'], document['chunks']) == (0, 0)
    assert not document['criterion']['half_of_kept_on_task']


# Listening


def answer(instructed, reached, own='milk_1', suite='libero_object', fulfilled=False):
    return Answer(suite, 0, 0, 0, 'do it', instructed, own, reached, fulfilled, 10)


def test_confusion_of_objects_has_all_rows_and_columns():
    answers = [
        answer('butter_1', 'butter_1'),
        answer('butter_1', 'milk_1'),
        answer('alphabet_soup_1', 'none'),
        answer('alphabet_soup_1', 'alphabet_soup_1'),
    ]
    assert confusion(answers) == {
        'alphabet soup': {'alphabet soup': 1, 'butter': 0, 'milk': 0, 'none': 1},
        'butter': {'alphabet soup': 0, 'butter': 1, 'milk': 1, 'none': 0},
    }


def test_confusion_of_bowls():
    one, two = 'akita_black_bowl_1', 'akita_black_bowl_2'
    reached = [two, two, one, 'none', 'cookies_1']
    answers = [answer(two, each, one, 'libero_spatial') for each in reached]
    row = {'named bowl': 2, 'other bowl': 1, 'something else': 1, 'none': 1}
    assert confusion(answers) == {'named bowl': row}


def test_figures_have_wilson_intervals():
    answers = [answer('butter_1', 'butter_1', fulfilled=True)] * 30
    answers += [answer('butter_1', 'milk_1')] * 10
    document = summarise(answers)
    assert (document['episodes'], document['right'], document['fulfilled']) == (40, 30, 30)
    assert document['as_in_its_own_task'] == 10
    assert document['right_rate'] == {'rate': 0.75, 'low': 0.5981, 'high': 0.8581}
    text = table({**document, 'errors': []})
    assert 'reached what it was told        30 of 40   75.0%   95 % interval 59.8% to 85.8%' in text


def test_names_in_words():
    assert [thing(name) for name in ('alphabet_soup_1', 'none')] == ['alphabet soup', 'none']


@forking
def test_listening_gathers_scenes(policy_dir, tmp_path):
    specs = tuple(EpisodeSpec('libero_object', task, 0) for task in range(3))

    def run(spec):
        if spec.task == 1:
            raise RuntimeError('broken')
        answers = (answer('butter_1', 'butter_1'), answer('butter_1', 'none'))
        return ListeningRecord(**vars(spec), answers=answers)

    options = EvalOptions(policy_dir, specs, Conditions(), tmp_path, workers=2)
    document = listen(options, 2, starting(run), 'fork')
    assert (document['episodes'], document['right']) == (4, 2)
    assert document['errors'][0]['error'] == 'RuntimeError: broken'
    assert len(document['all_answers']) == 4
    json.dumps(document)


# Command lines


def test_another_suite_cannot_listen(capsys):
    with pytest.raises(SystemExit):
        main(['listen', '--policy', 'p', '--suite', 'libero_goal'])
    assert 'invalid choice' in capsys.readouterr().err


@pytest.mark.parametrize('command', ['show', 'listen'])
def test_missing_policy_is_one_line(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, '--policy', 'nowhere']) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f'lightvla {command}: nowhere')
    assert '\n' not in error


def test_defaults_are_many_episodes_without_pictures_and_one_with():
    import argparse

    from lightvla_ros.cli.arguments import eval_options
    from lightvla_ros.cli.show import INITS, TASKS, add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parsed = parser.parse_args(['--policy', 'p'])
    assert len(eval_options(parsed, (0,), (0,), parsed.out).specs) == 2
    assert len(eval_options(parsed, TASKS, INITS, parsed.out).specs) == 100
    parsed = parser.parse_args(['--policy', 'p', '--suite', 'libero_goal', '--task', '3'])
    specs = eval_options(parsed, (0,), (0,), parsed.out).specs
    assert specs == (EpisodeSpec('libero_goal', 3, 0),)
