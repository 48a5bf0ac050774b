"""From what stops a command that runs episodes to one line and an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130


def exit_code(command: str, work: Callable[[], int], stopped: str = 'stopped') -> int:
    """Do the work and return its code; 1 after an error that says what is wrong, 130 after Ctrl-C.

    :param command: Such as ``lightvla eval``.
    :param stopped: What to say after Ctrl-C.
    """
    from lightvla_ros.contract import ContractError
    from lightvla_ros.engine.base import EngineError
    from lightvla_ros.evaluate.errors import EvaluationError
    from lightvla_ros.policy import PolicyOutputError
    from lightvla_ros.sim.libero_env import SimulationError
    from lightvla_ros.sim.rendering import RenderingError

    try:
        with _interruptible():
            return work()
    except (
        ContractError,
        EngineError,
        EvaluationError,
        PolicyOutputError,
        RenderingError,
        SimulationError,
    ) as error:
        print(f'{command}: {error}', file=sys.stderr)
    except OSError as error:
        print(f'{command}: {error.filename}: {error.strerror}', file=sys.stderr)
    except KeyboardInterrupt:
        print(f'\n{command}: {stopped}', file=sys.stderr)
        return INTERRUPTED
    return 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """Have SIGTERM end the workers as Ctrl-C does, by default it would leave them behind.

    And SIGINT, which a shell lets its background jobs ignore.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
