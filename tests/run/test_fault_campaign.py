"""What docs/reliability.md says of the injected faults is what is on record; `scripts/fault_campaign.py` makes the record."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RECORD = json.loads((ROOT / "docs" / "faults.json").read_text())


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from faults import page

    yield page
    for name in [name for name in sys.modules if name.partition(".")[0] == "faults"]:
        del sys.modules[name]


def test_the_table_of_the_page_is_what_the_record_says(page):
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert page.with_table(text, RECORD) == text
    assert text.count("\n| ") >= len(RECORD["faults"])
    without = text.replace(page.BEGIN, "")
    with pytest.raises(ValueError, match="the page has no"):
        page.with_table(without, RECORD)


def test_every_fault_on_record_came_out_as_expected_and_there_are_many(page):
    tried = [record for record in RECORD["faults"] if "skipped" not in record]
    assert len(tried) >= 24
    assert [record["fault"] for record in tried if not record["as_expected"]] == []
    assert len({record["fault"] for record in RECORD["faults"]}) == len(RECORD["faults"])


def test_a_row_says_what_was_computed_of_a_fault(page):
    record = {"fault": "a | b", "message": "x " * 200, "code": 1, "before": 4, "kept": 4, "again": [0], "resumed": 4}
    went_on = "checkpoint 4; the same command went on from step 4 and ended "
    for end in ("bit-equal", "other: params"):
        assert page.survived({**record, "end": end}) == went_on + end
    assert page.row({**record, "end": "bit-equal"}).startswith("| a \\| b | x x ")
    assert len(page.row({**record, "end": "bit-equal"})) < 400
    assert page.row({"fault": "f", "skipped": "no root"}) == "| f | skipped: no root | | |\n"
