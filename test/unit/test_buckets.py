"""Buckets from counts of kept tokens: least expected FLOPs, and never too small."""

import itertools
import json

import pytest

from lightvla_ros.errors import ExportError
from lightvla_ros.export.buckets import choose_buckets, fit_buckets
from lightvla_ros.vla.config import act_flops, preset

SEVEN = preset('openvla-oft-7b')
CONTEXT = 92


def expected(histogram, buckets):
    """FLOPs of all counts in the histogram, each in the smallest bucket that holds it."""
    return sum(
        times * act_flops(SEVEN, CONTEXT, min(b for b in buckets if b >= kept))
        for kept, times in histogram.items()
    )


def test_flops_are_those_of_the_paper_s_sequences():
    # ``docs/results/index.md``: 604 tokens 8.0143 TFLOP, 170 tokens 2.2170
    assert act_flops(SEVEN, CONTEXT, 512) == pytest.approx(8.0143e12, rel=1e-4)
    assert act_flops(SEVEN, CONTEXT, 78) == pytest.approx(2.2170e12, rel=1e-4)


def test_no_other_choice_of_so_many_buckets_costs_less():
    histogram = {60: 5, 70: 30, 78: 40, 90: 20, 130: 3, 512: 1}
    found = fit_buckets(histogram, SEVEN, CONTEXT, most=3)
    assert found[-1] == 512
    assert len(found) <= 3
    sizes = range(8, 512, 8)
    others = [(*pair, 512) for pair in itertools.combinations(sizes, 2)]
    assert expected(histogram, found) == min(expected(histogram, other) for other in others)


def test_few_counts_need_few_buckets():
    assert fit_buckets({78: 10}, SEVEN, CONTEXT) == (80, 512)
    assert fit_buckets({512: 10}, SEVEN, CONTEXT) == (512,)


def test_no_bucket_is_smaller_than_the_graph_takes():
    tiny = preset('libero-tiny', image_size=64)
    assert fit_buckets({1: 100, 5: 3}, tiny, CONTEXT) == (2, 5, 32)


def test_the_command_line_s_buckets(tmp_path):
    assert choose_buckets('auto', None, SEVEN, CONTEXT) == (64, 96, 128, 192, 256, 512)
    assert choose_buckets('100,64', None, SEVEN, CONTEXT) == (64, 100, 512)
    file = tmp_path / 'kept.json'
    file.write_text(json.dumps([78] * 10 + [90]))
    assert choose_buckets('auto', file, SEVEN, CONTEXT) == (80, 96, 512)
    file.write_text(json.dumps({'78': 10, '90': 1}))
    assert choose_buckets('auto', file, SEVEN, CONTEXT) == (80, 96, 512)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"0": 3}', '0 kept tokens; only 1 to 512'),
        ('{"600": 3}', '600 kept tokens; only 1 to 512'),
        ('{}', 'is empty'),
        ('{"78": 0}', 'is empty'),
        ('{"x": 1}', 'JSON such as'),
        ('78', 'JSON such as'),
        ('{', 'JSON such as'),
    ],
)
def test_histograms_that_cannot_be(tmp_path, text, message):
    file = tmp_path / 'kept.json'
    file.write_text(text)
    with pytest.raises(ExportError, match=message):
        choose_buckets('auto', file, SEVEN, CONTEXT)
