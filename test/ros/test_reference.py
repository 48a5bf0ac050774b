"""`lightvla reference`: the tables of the documentation."""

import pytest

from lightvla_ros.cli import main


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'no place',
            'no part that begins with <!-- generated: NAME --> and ends with <!-- end -->',
        ),
        ('<!-- generated: reasons -->\nnever ends', 'nothing was written'),
        ('<!-- generated: lessons -->\n<!-- end -->', "there is no table 'lessons'"),
    ],
)
def test_a_file_without_a_place_for_tables_is_an_error(tmp_path, capsys, text, message):
    path = tmp_path / 'README.md'
    path.write_text(text)
    assert main(['reference', '--update', str(path)]) == 1
    assert message in capsys.readouterr().err
    assert path.read_text() == text


def test_tables_are_written_in_their_places(tmp_path):
    path = tmp_path / 'README.md'
    path.write_text('a\n<!-- generated: reasons -->\nold\n<!-- end -->\nb\n')
    assert main(['reference', '--update', str(path)]) == 0
    first, *_, last = path.read_text().splitlines()
    assert (first, last) == ('a', 'b')
    assert '`no_instruction`' in path.read_text()
    assert 'old' not in path.read_text().splitlines()
