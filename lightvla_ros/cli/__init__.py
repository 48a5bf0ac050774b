"""The command `lightvla`: one module for each of its commands.

A command's module has a docstring whose first line says what the command does, ``add_arguments``,
which declares its options, and ``run``, which does the work and returns the exit code. Modules
import ROS, PyTorch or the simulator only in ``run``, so that other commands work without them.
"""

from __future__ import annotations

import argparse

from lightvla_ros import __version__
from lightvla_ros.cli import (
    alarm,
    average,
    bench,
    calibrate,
    collect,
    compare,
    data,
    demo,
    doctor,
    evaluate,
    export,
    flops,
    import_checkpoint,
    listen,
    make_untrained,
    new_policy,
    plan,
    reference,
    replay,
    show,
    tables,
    train,
    verify,
)
from lightvla_ros.cli.exit_code import exit_code

COMMANDS = {
    'demo': demo,
    'doctor': doctor,
    'eval': evaluate,
    'compare': compare,
    'tables': tables,
    'listen': listen,
    'show': show,
    'bench': bench,
    'import': import_checkpoint,
    'export': export,
    'verify': verify,
    'replay': replay,
    'calibrate': calibrate,
    'alarm': alarm,
    'collect': collect,
    'new-policy': new_policy,
    'data': data,
    'train': train,
    'average': average,
    'make-untrained': make_untrained,
    'plan': plan,
    'flops': flops,
    'reference': reference,
}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run its command; return the exit code."""
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    if parsed.command is None:
        parser.print_help()
        return 0
    return exit_code(parsed.prog, lambda: parsed.run(parsed), parsed.stopped)


def make_parser() -> argparse.ArgumentParser:
    """Declare all commands."""
    parser = argparse.ArgumentParser(
        prog='lightvla',
        description='LightVLA: policies that prune their own visual tokens, on ROS 2 robots.',
    )
    parser.add_argument('--version', action='version', version=f'lightvla {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND')
    for name, module in COMMANDS.items():
        text = module.__doc__.partition('\n')[0].partition(': ')[2].rstrip('.')
        command = commands.add_parser(name, help=text, description=f'{text[0].upper()}{text[1:]}.')
        command.set_defaults(prog=command.prog, run=module.run, stopped='stopped')
        module.add_arguments(command)
    return parser
