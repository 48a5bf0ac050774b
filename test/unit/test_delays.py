"""What `lightvla bench delays` understands, and how it adds up."""

import json
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from lightvla_ros.cli import main
from lightvla_ros.errors import EvaluationError
from lightvla_ros.evaluate.journal import Journal
from lightvla_ros.nodes.demo.delay_report import (
    VARIANTS,
    DelayRecord,
    DelaySpec,
    Point,
    figures,
    table,
)
from lightvla_ros.nodes.twin_modes import CameraLink
from lightvla_ros.show.plots import write_delays
from lightvla_ros.sim.episode import EpisodeSpec


def record(delay=100, horizon=8, variant='plain', task=0, jitter_ms=0, loss=0.0, **fields):
    point = Point(delay, horizon, variant, jitter_ms, loss)
    spec = DelaySpec(point, EpisodeSpec('libero_object', task, 0))
    return DelayRecord.of(spec, **{'success': True, 'steps': 100} | fields)


def test_the_figures_of_a_point_are_those_of_all_its_episodes():
    (row,) = figures(
        [
            record(jumps=[[0.001, 0.0], [0.003, 0.1]], gaps=2, late_ms=[110.0], overruns=3),
            record(task=1, success=False, steps=280, jumps=[[0.005, 0.2]], late_ms=[130.0]),
            record(task=2, success=None, steps=0, error='a node died'),
        ]
    )
    assert (row['successes'], row['episodes'], row['errors'], row['rate']) == (1, 2, 1, 0.5)
    assert row['steps'] == 100.0, 'of solved episodes'
    assert (row['seams'], row['gaps'], row['chunks']) == (3, 2, 2)
    assert row['seam_mm']['p50'] == 3.0
    assert row['seam_deg']['p50'] == pytest.approx(np.degrees(0.1), abs=0.01)
    assert row['late_ms']['p50'] == 120.0
    assert (row['overruns'], row['ticks']) == (3, 1900)


def test_a_link_draws_the_same_delays_again_and_loses_its_share():
    link = CameraLink(delay=100, jitter=50, loss=0.25)
    drawn = list(islice(link.delays(3), 4000))
    assert drawn == list(islice(link.delays(3), 4000))
    assert drawn != list(islice(link.delays(4), 4000))
    came = [each for each in drawn if each is not None]
    assert len(came) / len(drawn) == pytest.approx(0.75, abs=0.03)
    assert (min(came), max(came)) == (100, 150)
    assert set(islice(CameraLink(delay=7).delays(0), 100)) == {7}


def test_a_link_is_a_point_of_its_own():
    records = [record(), record(jitter_ms=50), record(loss=0.2), record(jitter_ms=50, loss=0.2)]
    rows = figures(records)
    assert [(row['jitter_ms'], row['loss']) for row in rows] == [
        (0, 0.0),
        (0, 0.2),
        (50, 0.0),
        (50, 0.2),
    ]
    assert str(records[-1].spec.point) == '100 ms + 50, 20% lost, every 8 steps, plain'


def test_points_come_in_order_and_may_have_no_seam():
    points = [(400, 8, 'plain'), (0, 4, 'plain'), (0, 8, 'both'), (0, 8, 'plain')]
    rows = figures([record(*point) for point in points])
    found = [(row['delay_ms'], row['horizon'], row['variant']) for row in rows]
    assert found == [(0, 8, 'plain'), (0, 8, 'both'), (0, 4, 'plain'), (400, 8, 'plain')]
    assert rows[0]['seam_mm'] is None
    text = table(rows)
    assert len(text.splitlines()) == 5
    assert '1/1' in text


def test_the_plot_has_a_column_for_each_horizon(tmp_path):
    records = [
        record(delay, horizon, variant, jumps=[[delay * 1e-4, 0.1]])
        for delay in (0, 200)
        for horizon in (8, 2)
        for variant in VARIANTS
    ]
    records.append(record(400, 2, success=None, error='nothing was measured'))
    path = write_delays({'points': figures(records)}, tmp_path / 'delays.png')
    with Image.open(path) as image:
        assert image.width > 700


def test_an_episode_is_never_run_twice(tmp_path):
    path = tmp_path / 'delays.jsonl'
    with Journal(path, {'a': 1}, DelayRecord) as journal:
        journal.add(record(jumps=[[0.001, 0.2]]))
    with Journal(path, {'a': 1}, DelayRecord) as journal:
        assert journal.records == {record().spec: record(jumps=[[0.001, 0.2]])}
    path.write_text(json.dumps({'a': 1}) + '\n' + json.dumps({'task': 1}) + '\n')
    with pytest.raises(EvaluationError, match='is not a journal'):
        Journal(path, {'a': 1}, DelayRecord)


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ([], '--json'),
        (['--json', 'd.txt'], 'must end in .json'),
        (['--json', 'd.json', '--delay', '0,-5'], "'0,-5' is not a list"),
        (['--json', 'd.json', '--horizon', '9'], '--horizon 9: a chunk of libero-tiny has 8'),
        (['--json', 'd.json', '--tasks', '10'], 'has the tasks 0 to 9, not 10'),
        (['--json', 'd.json', '--real-time-factor', '0'], "'0' is not a number"),
    ],
)
def test_fault_wrong_arguments_of_bench_delays(arguments, said, capsys):
    try:
        code = main(['bench', 'delays', *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
