from jaxft.columns import aligned


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces():
    rows = [("name", "count", "note"), ("a", "1", ""), ("bcdefg", "1,000", "long")]
    assert aligned(rows, right=(1,)) == ["name    count  note", "a           1", "bcdefg  1,000  long"]


def test_a_short_row_ends_early_and_no_rows_are_no_lines():
    assert aligned([("title",), ("a", "b")]) == ["title", "a      b"]
    assert aligned([]) == []
