"""FLOPs of the true model against the paper's table 2 and an analytic formula."""

import json

import pytest

from lightvla_ros.cli import main
from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.config import preset
from lightvla_ros.vla.flops import count_flops


def test_the_papers_unpruned_figure_and_what_78_tokens_really_cost(capsys):
    arguments = ['--preset', 'openvla-oft-7b', '--text', '35', '--json']
    assert main(['flops', *arguments, '--kept', '512', '119', '78']) == 0
    full, paper, pruned = json.loads(capsys.readouterr().out)
    assert full['kept'] == 512
    assert full['sequence'] == 604
    # timm also runs the towers' last blocks, whose output nobody reads; ours does not
    last_blocks = 0.0299
    assert full['tflop'] + last_blocks == pytest.approx(8.857, abs=0.001)
    assert pruned['tflop'] + last_blocks == pytest.approx(3.062, abs=0.001)
    assert paper['tflop'] + last_blocks == pytest.approx(3.6, abs=0.005)  # the paper's 3.6
    for row in (full, pruned):
        n = row['sequence']
        analytic = 32 * (2 * n * (4 * 4096**2 + 3 * 4096 * 11008) + 4 * n * n * 4096)
        assert row['llm'] * 1e12 == pytest.approx(analytic, rel=1e-9)
        parts = ('towers', 'projector', 'pruner', 'llm', 'head')
        assert row['tflop'] == pytest.approx(sum(row[part] for part in parts))


def test_impossible_counts_are_refused():
    for kept, text in (([0], 35), ([129], 35), ([4], 1)):
        with pytest.raises(ConfigError):
            count_flops(preset('libero-tiny'), kept, text)
    assert main(['flops', '--preset', 'nonsense']) == 1
