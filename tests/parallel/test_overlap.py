"""An item is given when the next one has been made, and none is lost."""

import pytest

from jaxft.parallel import one_late


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_every_item_comes_in_order_after_the_next_was_made(count):
    made = []

    def items():
        for number in range(count):
            made.append(number)
            yield number

    given = []
    for item in one_late(items()):
        given.append(item)
        assert made[-1] == min(item + 1, count - 1)
    assert given == list(range(count))
