"""The documentation's tables, generated from the code's declarations."""

from __future__ import annotations

import re

from lightvla_ros.errors import LightVLAError
from lightvla_ros.nodes.bridge_parameters import BRIDGE_PARAMETERS
from lightvla_ros.nodes.executor_parameters import EXECUTOR_PARAMETERS
from lightvla_ros.nodes.policy_parameters import POLICY_PARAMETERS
from lightvla_ros.runtime.reasons import REASONS

MARKERS = r'(<!-- generated: ([^>]+) -->)\n.*?(<!-- end -->)'


class MissingMarkersError(LightVLAError):
    """A file without markers for the tables, or with a marker for an unknown table."""


def tables() -> dict[str, str]:
    """Return the generated tables, by the name in their marker."""
    reasons = '| reason | meaning |\n|---|---|\n' + ''.join(
        f'| `{code}` | {meaning} |\n' for code, meaning in REASONS.items()
    )
    return {
        'policy parameters': POLICY_PARAMETERS.markdown(),
        'executor parameters': EXECUTOR_PARAMETERS.markdown(),
        'bridge parameters': BRIDGE_PARAMETERS.markdown(),
        'reasons': reasons,
    }


def updated(text: str) -> str:
    """Return a text with its generated parts replaced.

    A part is the text between ``<!-- generated: NAME -->`` and ``<!-- end -->``.

    :raises MissingMarkersError: When the text has no such part, or names a table that does not
        exist.
    """
    generated = tables()
    if not re.search(MARKERS, text, flags=re.DOTALL):
        raise MissingMarkersError(
            'nothing was written: the file has no part that begins with <!-- generated: NAME --> '
            f'and ends with <!-- end -->; NAME is one of {", ".join(generated)}'
        )

    def replace(match: re.Match) -> str:
        if match[2] not in generated:
            raise MissingMarkersError(
                f'there is no table {match[2]!r}; choose one of {", ".join(generated)}'
            )
        return f'{match[1]}\n{generated[match[2]]}{match[3]}'

    return re.sub(MARKERS, replace, text, flags=re.DOTALL)
