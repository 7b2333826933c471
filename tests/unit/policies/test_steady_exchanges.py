"""How long an exchange may take: pure arithmetic on moments that are given."""

from policies.wire.steady import BYTES_PER_S, EXCHANGE_S, Allowance


def test_a_drip_gains_no_time() -> None:
    allowance = Allowance()
    assert allowance.sending(now=1000.0) == EXCHANGE_S
    for _ in range(1000):
        allowance.moved(1)
    assert allowance.receiving(now=1000.0 + EXCHANGE_S) < 0.1
    assert allowance.receiving(now=1001.0 + EXCHANGE_S) < 0


def test_a_large_answer_over_a_slow_line_passes() -> None:
    allowance, now = Allowance(), 0.0
    allowance.sending(now)
    for _ in range(10_000):
        # A kibibyte more each time than the slowest line would bring in a second.
        now += 1.0
        allowance.moved(BYTES_PER_S + 1024)
        assert allowance.receiving(now) > 0


def test_what_is_sent_after_an_answer_begins_anew_and_what_is_sent_before_one_does_not() -> None:
    allowance = Allowance()
    allowance.sending(0.0)
    assert allowance.sending(100.0) == EXCHANGE_S - 100.0
    assert allowance.receiving(110.0) == EXCHANGE_S - 110.0
    # Kept alive, idle for an hour.
    assert allowance.sending(3600.0) == EXCHANGE_S
