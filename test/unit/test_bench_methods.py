"""`lightvla bench methods` measures what it says; how fast anything is, no test asserts."""

import json

import numpy as np
import pytest

from lightvla_ros.cli import main


def bench(capsys, *arguments):
    code = main(['bench', 'methods', *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.err if code else printed.out


@pytest.fixture(scope='module')
def recording(small_policy, tmp_path_factory):
    """An episode in which nothing moves."""
    path = tmp_path_factory.mktemp('recording') / 'episode.npz'
    with np.load(small_policy / 'golden.npz') as golden:
        np.savez(path, **{name: golden[name][[0, 0, 0, 0]] for name in golden})
    return path


def test_every_row_keeps_what_it_should(small_policy, recording, tmp_path, capsys):
    options = ('--policy', small_policy, '--observations', recording, '--rounds', 4)
    methods = ('random:8', 'vla-cache:8', 'flashvla-reuse:8')
    out = tmp_path / 'figures.json'
    others = ('--prune', *methods, '--beside', small_policy, '--exported', small_policy)
    code, said = bench(capsys, *options, *others, '--json', out)
    assert code == 0, said
    rows = json.loads(out.read_text())['rows']
    own, drawn, cached, again, beside, exported = rows
    names = [str(small_policy), *methods, *[str(small_policy)] * 2]
    assert [row['name'] for row in rows] == names
    assert [row['backend'] for row in rows] == ['torch-cpu'] * 5 + ['onnxruntime-cpu']
    assert own['ratio_p50'] == 1
    assert own['kept'] == beside['kept'] == exported['kept']
    assert drawn['kept'] == 8
    everything = 32
    # of four chunks the first sees every patch, because an episode begins anew
    assert everything / 4 < cached['kept'] < everything
    assert again['kept'] == 6, 'one of four chunks is given again, without any token'
    lines = [line for line in said.splitlines() if '-cpu fp32 ' in line]
    assert [line.split()[0] for line in lines] == names
    assert [float(line.split()[3]) for line in lines] == [round(row['kept'], 1) for row in rows]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--prune', 'random'], '--prune random: give NAME:K, such as fastv-stop:16'),
        (['--prune', 'best:8'], "there is no method 'best'; choose adp, dart, "),
        (['--observations', '{policy}/manifest.json'], 'manifest.json: not an .npz file with'),
        (['--rounds', '0'], '--rounds'),
    ],
)
def test_a_wrong_request_is_one_line(arguments, message, small_policy, recording, capsys):
    given = [each.format(policy=small_policy) for each in arguments]
    try:
        code, said = bench(capsys, '--policy', small_policy, '--observations', recording, *given)
    except SystemExit as error:  # argparse itself
        code, said = error.code, capsys.readouterr().err
    assert code in (1, 2)
    assert message in said.splitlines()[-1]
