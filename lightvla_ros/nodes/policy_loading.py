"""Loads a policy while the node still responds to signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from lightvla_ros.errors import ContractError, EngineError
from lightvla_ros.nodes.launch_arguments import parameter
from lightvla_ros.nodes.lifecycle import TransitionError
from lightvla_ros.nodes.policy_parameters import engine_options
from lightvla_ros.policy.policy import Policy


def load_policy(
    load: Callable[..., Policy], values: SimpleNamespace, stop: threading.Event
) -> Policy:
    """Load and check the policy in a thread, so that a request to end is handled meanwhile.

    :param load: Builds the policy from folder, engine and options.
    :param values: The node's parameters.
    :raises TransitionError: When the policy cannot be used with these parameters, or ``stop`` is
        set.
    """
    outcome: list[Policy | Exception] = []

    def run() -> None:
        try:
            outcome.append(load(Path(values.policy), values.engine, **engine_options(values)))
        except Exception as error:
            outcome.append(error)

    if not values.policy:
        raise TransitionError(f'{parameter("policy")} is empty; set it to a policy folder')
    thread = threading.Thread(target=run, name='load', daemon=True)
    thread.start()
    while thread.is_alive():
        if stop.is_set():
            raise TransitionError('the node was told to end while loading')
        thread.join(0.1)
    if isinstance(outcome[0], ContractError | EngineError):
        given = ', '.join(map(parameter, ('policy', 'engine', 'provider')))
        raise TransitionError(f'{outcome[0]} (given by {given})')
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
