"""The README's tables, printed from what the code declares."""

from __future__ import annotations

import re
from pathlib import Path

from lightvla_ros.files import write_text
from lightvla_ros.nodes.bridge_parameters import BRIDGE_PARAMETERS
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS
from lightvla_ros.reasons import REASONS


def tables() -> dict[str, str]:
    """Return the generated tables by the name of their place in the README."""
    reasons = '| reason | meaning |\n|---|---|\n' + ''.join(
        f'| `{code}` | {meaning} |\n' for code, meaning in REASONS.items()
    )
    return {
        'policy parameters': POLICY_PARAMETERS.markdown(),
        'bridge parameters': BRIDGE_PARAMETERS.markdown(),
        'reasons': reasons,
    }


def updated(text: str) -> str:
    """Return a text with its generated parts written anew.

    A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

    :raises KeyError: When the text names a table that does not exist.
    """
    generated = tables()

    def replace(match: re.Match) -> str:
        return f'{match[1]}\n{generated[match[2]]}{match[3]}'

    pattern = r'(<!-- generated: ([^>]+) -->)\n.*?(<!-- end -->)'
    return re.sub(pattern, replace, text, flags=re.DOTALL)


def print_reference(update: str | None) -> int:
    """Print all tables, or write them into a file; return 0."""
    if update is None:
        print('\n'.join(f'## {name}\n\n{table}' for name, table in tables().items()))
    else:
        path = Path(update)
        write_text(path, updated(path.read_text()))
    return 0
