"""When an instruction becomes the current one, and when it has expired."""

from lightvla_ros.runtime.instruction_gate import InstructionGate

INTERVAL = 0.1


def test_the_newest_instruction_wins_and_waits_for_its_turn():
    gate = InstructionGate()
    gate.offer('first')
    assert gate.next('', 10.0, INTERVAL) == 'first'
    for text in ('second', 'third'):
        gate.offer(text)
        assert gate.next('first', 10.05, INTERVAL) == ''
    assert gate.next('first', 10.11, INTERVAL) == 'third'
    assert gate.next('third', 20.0, INTERVAL) == ''


def test_a_repetition_changes_nothing_but_keeps_the_instruction_alive():
    gate = InstructionGate()
    gate.served(0.0)
    gate.offer('again')
    assert gate.next('again', 50.0, INTERVAL) == ''
    assert gate.expiry(100.0, 60.0) == ''


def test_an_instruction_that_was_withdrawn_never_comes():
    gate = InstructionGate()
    gate.offer('move')
    gate.withdraw()
    assert gate.next('', 10.0, INTERVAL) == ''
    gate.offer('of somebody else')
    gate.withdraw('move')
    assert gate.next('', 20.0, INTERVAL) == 'of somebody else'


def test_an_instruction_expires_after_long_without_a_chunk():
    gate = InstructionGate()
    gate.served(10.0)
    assert gate.expiry(70.0, 60.0) == ''
    why = gate.expiry(70.5, 60.0)
    assert why == 'instruction_expired 60.5 s without a chunk, instruction_timeout 60.0 s'
    assert gate.expiry(1e9, 0.0) == '', '0 means never'
