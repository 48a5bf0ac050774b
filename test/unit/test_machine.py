"""What results say of the machine that they come from."""

from pathlib import Path

import pytest

from lightvla_ros import machine as module
from lightvla_ros.cli import main
from lightvla_ros.machine import kernels, machine, measured_with

FLAGS = {
    'x86': ('flags', 'fpu sse sse4_2 avx2 avx512f avx512_bf16 amx_tile smep', True),
    'x86 without': ('flags', 'fpu sse sse4_2 avx2 smep', False),
    'arm': ('Features', 'fp asimd sve2 sme bf16 crc32', True),
}
EXTENSIONS = {
    'x86': ['amx_tile', 'avx2', 'avx512_bf16', 'avx512f', 'sse4_2'],
    'x86 without': ['avx2', 'sse4_2'],
    'arm': ['asimd', 'bf16', 'sme', 'sve2'],
}


@pytest.mark.parametrize('processor', FLAGS)
def test_a_result_names_the_vector_extensions(processor, monkeypatch, tmp_path):
    field, flags, bf16 = FLAGS[processor]
    file = tmp_path / 'cpuinfo'
    file.write_text(f'processor\t: 0\nmodel name\t: AMD EPYC\n{field}\t\t: {flags}\n')
    monkeypatch.setattr(module, 'CPUINFO', file)
    found = machine()
    assert found['cpu'] == 'AMD EPYC'
    assert found['vector_extensions'] == EXTENSIONS[processor]
    assert found['bf16'] == bf16


def test_a_result_names_the_kernels_of_the_libraries():
    found = kernels()
    assert found['numpy']
    torch = pytest.importorskip('torch')
    assert kernels()['torch'] == torch.backends.cpu.get_cpu_capability()


def test_every_result_takes_its_facts_from_one_place():
    assert machine().items() <= measured_with(2).items()
    for path in Path(module.__file__).parent.rglob('*.py'):
        if path.name != 'machine.py':
            assert '/proc/cpuinfo' not in path.read_text(), path


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['--preset', 'libero-tiny'], 'libero-tiny: 6.40 M parameters'),
        (['--preset', 'libero-small'], 'libero-small: 10.86 M parameters'),
        (['--policy', 'models/libero_tiny'], 'models/libero_tiny: 2.67 M parameters'),
    ],
)
def test_the_command_of_the_results_prints_its_number_of_parameters(
    arguments, line, capsys, monkeypatch, pytestconfig
):
    pytest.importorskip('torch')
    monkeypatch.chdir(pytestconfig.rootpath)
    assert main(['flops', *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[0] == line
    pages = (page.read_text() for page in Path('docs/results').glob('*.md'))
    text = ' '.join(' '.join(pages).split())
    assert line.split(': ')[1] in text
    assert f'`lightvla flops {" ".join(arguments)}`' in text
