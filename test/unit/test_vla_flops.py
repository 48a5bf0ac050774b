"""FLOPs of the true model against the paper's table 2 and an analytic formula."""

import json

import pytest
import torch
from small_policy import small_config
from torch.utils.flop_counter import FlopCounterMode

from lightvla_ros.cli import main
from lightvla_ros.errors import ConfigError
from lightvla_ros.vla.config import PrunerConfig, preset
from lightvla_ros.vla.flops import TERA, count_flops
from lightvla_ros.vla.layers import spell_out_attention
from lightvla_ros.vla.model import LightVLA


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


@pytest.mark.parametrize(
    ('text', 'pruning'),
    [
        ('lightvla_star_encoder:32', PrunerConfig('lightvla_star_encoder', queries=32)),
        ('lightvla_star_llm:16:3', PrunerConfig('lightvla_star_llm', queries=16, layer=3)),
    ],
)
def test_learnable_queries_are_counted_for_any_model(text, pruning, capsys):
    arguments = ['--preset', 'libero-tiny', '--text', '20', '--json', '--kept', '9']
    assert main(['flops', *arguments, '--pruning', text]) == 0
    [counted] = json.loads(capsys.readouterr().out)
    assert [counted] == count_flops(preset('libero-tiny', pruning=pruning), [9], 20)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('lightvla_star_encoder', 'is none of lightvla_star_encoder:QUERIES, '),
        ('lightvla_star_encoder:32:1', 'is none of lightvla_star_encoder:QUERIES, '),
        ('lightvla_star_llm:32', 'is none of lightvla_star_encoder:QUERIES, '),
        ('lightvla_star_llm:32:9', 'layer 9 is not one of 1, 2, 3'),
        ('lightvla_star_encoder:0', 'queries 0'),
    ],
)
def test_impossible_learnable_queries_are_refused(text, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(['flops', '--pruning', text])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'method', ['off', 'lightvla', 'lightvla_star_encoder', 'lightvla_star_llm']
)
def test_every_way_of_pruning_is_counted_as_the_model_runs(method):
    torch.manual_seed(0)
    config, prompt = small_config(method), 9
    model = LightVLA(config).eval()
    spell_out_attention(model)  # the counter does not know every fused attention
    ids, mask = torch.arange(prompt)[None], torch.ones(1, prompt, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        selection = model(torch.rand(1, 2, 6, 64, 64), ids, mask, torch.rand(1, 8)).selection
    kept = config.patches if selection is None else int(selection.kept.sum())
    assert (kept < config.patches) == (method != 'off')
    counted = count_flops(config, [kept], prompt + 1)[0]
    assert counted['tflop'] * TERA == pytest.approx(counter.get_total_flops(), rel=1e-12)
