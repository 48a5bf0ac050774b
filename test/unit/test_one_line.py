"""Untrusted text in logs and reasons: short, on one line, and only as long as it must be."""

import pytest

from lightvla_ros.errors import quoted


@pytest.mark.parametrize(
    'text',
    ['x' * 3_000_000, '\x1b[31m' * 200, 'line\n' * 100, '‮' * 500, "it's " * 100, '\\' * 119],
    ids=['3 MB', 'escapes', 'lines', 'right to left', 'quotes', 'backslashes'],
)
def test_text_of_any_length_becomes_120_printable_characters(text):
    shown = quoted(text)
    assert len(shown) <= 120
    assert shown.isprintable()
    assert shown[0] == shown[-1], 'it is in quotes'
    assert '…' in shown, 'it says that it was cut'


def test_short_text_is_shown_whole():
    assert quoted('panda_link0') == "'panda_link0'"
    assert quoted('') == "''"
