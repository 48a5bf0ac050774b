"""A table of evaluations: its rows as options of ``lightvla eval``, and the finished table.

A table may also name the policies that it trains for its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightvla_ros.errors import ConfigError, EvaluationError
from lightvla_ros.evaluate.compare import compare
from lightvla_ros.evaluate.result import read_document
from lightvla_ros.typed_yaml import build, read_yaml

POLICIES = '{policies}'  # in a plan, the folder with the runs of its policies


@dataclass(frozen=True)
class TablePlan:
    """What a table compares.

    Rows and policies may name the run of a policy, as ``{policies}/NAME``.

    :param title: What the table shows.
    :param rows: Options of ``lightvla eval`` by the row's name, which is also its file's name.
    :param options: Options that all rows have.
    :param against: Row with which the others are compared, pair by pair; empty for none.
    :param training: Configuration of ``lightvla train`` for the policies; a path relative to the
        plan's folder.
    :param policies: The policies that are trained for the rows, by name: what each changes in that
        configuration, nested fields by nested mappings. It may start from those above it.
    """

    title: str
    rows: dict[str, list]
    options: tuple[str, ...] = ()
    against: str = ''
    training: str = ''
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def arguments(self, row: str) -> list[str]:
        """Return the options of a row, as ``lightvla eval`` takes them."""
        return [*self.options, *self.rows[row]]

    def needed(self, rows: Iterable[str]) -> list[str]:
        """Return the names of the policies that rows need, in the order of training."""
        wanted = {name for row in rows for each in self.rows[row] for name in _named(each)}
        for name in reversed(self.policies):
            if name in wanted:
                wanted |= set(_named(self.policies[name]))
        return [name for name in self.policies if name in wanted]


def in_folder(value: Any, policies: Path) -> Any:
    """Return a plan's value with the folder of its policies put in."""
    if isinstance(value, str):
        return value.replace(POLICIES, str(policies))
    if isinstance(value, dict):
        return {name: in_folder(each, policies) for name, each in value.items()}
    return [in_folder(each, policies) for each in value] if isinstance(value, list) else value


def _named(value: Any) -> Iterator[str]:
    """Yield the names of the policies that a plan's value mentions."""
    if isinstance(value, str):
        yield from re.findall(re.escape(POLICIES) + r'/([^/]+)', value)
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _named(each)


def read_plan(path: Path) -> TablePlan:
    """Read the plan of a table.

    :raises ConfigError: When the file cannot be read or a field is unknown, missing or wrong.
    """
    document = read_yaml(path)
    try:
        plan = build(TablePlan, document)
        for name, row in plan.rows.items():
            if not re.fullmatch(r'[a-z0-9_.-]+', str(name)):
                raise ConfigError(f'rows.{name}: a name has a-z, 0-9, ".", "_" and "-" alone')
            if not isinstance(row, list) or not all(isinstance(each, str) for each in row):
                raise ConfigError(f'rows.{name}: a list of strings is needed, not {row!r}')
        if plan.against and plan.against not in plan.rows:
            raise ConfigError(f'against: there is no row {plan.against!r}')
        _check_policies(plan)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None
    return plan


def _check_policies(plan: TablePlan) -> None:
    if plan.policies and not plan.training:
        raise ConfigError('training is missing, the configuration that the policies change')
    known: set[str] = set()
    for name, changes in plan.policies.items():
        if not isinstance(changes, dict):
            raise ConfigError(f'policies.{name}: a mapping is needed, not {changes!r}')
        if unknown := [each for each in _named(changes) if each not in known]:
            raise ConfigError(f'policies.{name}: there is no policy {unknown[0]!r} above it')
        known.add(name)
    for name, row in plan.rows.items():
        if unknown := [each for each in _named(row) if each not in known]:
            raise ConfigError(f'rows.{name}: there is no policy {unknown[0]!r}')


def result_path(folder: Path, row: str) -> Path:
    """Return the path of a row's result."""
    return folder / f'{row}.json'


def table(plan: TablePlan, folder: Path) -> str:
    """Return the table in Markdown; a row without a result is not measured.

    The difference to ``against`` is over the pairs that both rows have, with its 95 % interval
    (Newcombe, paired) and the p value of McNemar's test.

    :raises EvaluationError: When a result is damaged.
    """
    head = ['row', 'solved', '95 % interval', 'kept', 'FLOPs', 'chunk, p50']
    if plan.against:
        head += [f'against {plan.against}', 'p', 'steps where both solve']
    lines = [_line(head), _line(['---'] * len(head))]
    lines += [_line(_cells(plan, folder, row, len(head))) for row in plan.rows]
    return f'{plan.title}\n\n' + '\n'.join(lines)


def _cells(plan: TablePlan, folder: Path, row: str, width: int) -> list[str]:
    path = result_path(folder, row)
    if not path.exists():
        return [row, 'not measured', *[''] * (width - 2)]
    document = read_document(path)
    rate, kept, flops = document['success'], document['kept_tokens'], document['flops']
    errors = f', {len(document["errors"])} errors' if document['errors'] else ''
    share, milliseconds = flops.get('ratio'), document['latency_ms']['p50']
    cells = [
        row,
        f'{document["successes"]} of {document["episodes"]}{errors}',
        '' if rate['low'] is None else f'{rate["low"]:.1%} to {rate["high"]:.1%}',
        '' if kept['mean'] is None else f'{kept["mean"]:.1f}',
        '' if share is None else f'{share:.1%}',
        '' if milliseconds is None else f'{milliseconds:g} ms',
    ]
    return cells + (_against(plan, folder, row) if plan.against else [])


def _against(plan: TablePlan, folder: Path, row: str) -> list[str]:
    base = result_path(folder, plan.against)
    if row == plan.against or not base.exists():
        return [''] * 3
    try:
        pairs = compare(result_path(folder, row), base, shared=True)
    except EvaluationError:  # no common episode yet
        return [''] * 3
    steps = pairs['efficiency'].get('steps')
    return [
        f'{100 * pairs["difference"]:+.1f} ({100 * pairs["low"]:+.1f} to '
        f'{100 * pairs["high"]:+.1f}) points, {pairs["pairs"]} pairs',
        f'{pairs["p_value"]:.2g}',
        '' if steps is None else f'{steps["first"]:.0f} and {steps["second"]:.0f}',
    ]


def _line(cells: list[str]) -> str:
    return '| ' + ' | '.join(cells) + ' |'
