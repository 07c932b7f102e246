import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tus_server.core.parts import MIB
from tus_server.engine.buffers import KEPT_BLOCKS, SIZES, SMALL, BlockPool, grown

BUDGET = 4 * MIB


@given(st.integers(0, 4 * MIB))
def test_the_smallest_block_that_is_enough_is_lent(wanted: int) -> None:
    block = BlockPool(BUDGET).take(wanted)

    assert len(block) in SIZES
    assert len(block) >= min(wanted, SIZES[-1])
    assert all(size < wanted for size in SIZES if size < len(block))


def test_beyond_the_budget_blocks_are_small_but_never_refused() -> None:
    pool = BlockPool(2 * MIB)

    sizes = [len(pool.take(MIB)) for _ in range(5)]

    assert sizes == [MIB, MIB, SMALL, SMALL, SMALL]


def test_what_was_given_back_counts_no_more() -> None:
    pool = BlockPool(MIB)
    first = pool.take(MIB)

    pool.give(first)

    assert pool.lent_bytes == 0
    assert len(pool.take(MIB)) == MIB


def test_a_block_is_used_again() -> None:
    pool = BlockPool(BUDGET)
    block = pool.take(SMALL)
    pool.give(block)

    assert pool.take(SMALL) is block


def test_a_block_that_is_out_is_not_lent_a_second_time() -> None:
    pool = BlockPool(BUDGET)
    blocks = [pool.take(SMALL) for _ in range(20)]

    assert len({id(block) for block in blocks}) == 20


def test_only_a_few_idle_blocks_are_kept() -> None:
    pool = BlockPool(BUDGET)
    blocks = [pool.take(SMALL) for _ in range(3 * KEPT_BLOCKS)]
    for block in blocks:
        pool.give(block)

    again = [pool.take(SMALL) for _ in blocks]

    assert sum(any(block is old for old in blocks) for block in again) == KEPT_BLOCKS


@pytest.mark.parametrize("size", SIZES)
def test_blocks_grow_up_to_the_largest(size: int) -> None:
    assert grown(size) in SIZES
    assert grown(size) > size or size == SIZES[-1]


class Pool(RuleBasedStateMachine):
    """Take and give in any order: the account is right, and only small blocks exceed the budget."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(BUDGET)
        self.lent: list[bytearray] = []

    @rule(wanted=st.integers(0, 2 * MIB))
    def take(self, wanted: int) -> None:
        self.lent.append(self.pool.take(wanted))

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.lent) - 1))
        self.pool.give(self.lent.pop(index))

    @invariant()
    def the_account_is_right(self) -> None:
        assert self.pool.lent_bytes == sum(map(len, self.lent))
        assert self.pool.lent_bytes <= BUDGET + SMALL * len(self.lent)


TestPool = Pool.TestCase
