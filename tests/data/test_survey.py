"""A survey as text and as JSON."""

import dataclasses
import json
import math

import pytest

from jaxft.data.survey import Group, Member, SplitSurvey, Spread, Survey


def split(**changes):
    found = SplitSurvey(
        count=26,
        classes={"cat": 20, "dog": 5},
        values=None,
        bad=(("cat/7.png", "the file is empty"),),
        height=Spread(30, 48, 3000),
        width=Spread(40, 48, 4000),
        aspect=Spread(1, 1.25, 3.5),
        file_size=Spread(900, 20_000, 3_000_000),
        sides={16: 1, 32: 24},
        kinds={"PNG RGB": 20, "JPEG L": 5},
        turned=2,
        grey=5,
        mean=(0.5, 0.25, 0.125),
        std=(0.1, 0.2, 0.3),
    )
    return dataclasses.replace(found, **changes)


@pytest.fixture
def survey():
    pair = Group((Member("train", 3, "cat/3.png", "cat"), Member("val", 0, "dog/0.png", "dog")))
    three = Group(tuple(Member("train", number, f"cat/{number}.png", "cat") for number in range(5)))
    splits = {"train": split(), "val": split(classes={"cat": 1, "dog": 0})}
    return Survey("pets", "classify", ("cat", "dog"), splits, (pair, three), (), 8, True, ("look here: do this",), {})


def test_the_report_begins_with_the_warnings_and_names_what_was_found(survey):
    text = str(survey)
    lines = text.splitlines()
    assert lines[:2] == ["pets: 52 pictures", "warning: look here: do this"]
    rows = [line.split("  ")[0] for line in lines]
    assert {"pictures", "unreadable", "height", "kinds", "turned by EXIF", "cat", "dog"} <= set(rows)
    assert "30 / 48 / 3,000" in text
    assert "cat/3.png (train, cat) = dog/0.png (val, dog)" in text
    assert "cat/2.png (train, cat) = 2 more" in text
    assert "cat/7.png: the file is empty" in text


def test_no_warnings_are_said_too(survey):
    assert str(dataclasses.replace(survey, warnings=())).splitlines()[1] == "no warnings"


def test_hundreds_of_classes_do_not_flood_the_terminal(survey):
    names = tuple(f"class {number}" for number in range(500))
    many = dataclasses.replace(survey, class_names=names, splits={"all": split(classes=dict.fromkeys(names, 3))})
    assert "... and 480 more classes" in str(many)
    assert len(str(many).splitlines()) < 70


def test_the_json_is_complete_and_has_no_infinity(survey):
    record = json.loads(survey.to_json())
    assert record["same"][0]["across"] is record["same"][0]["labels_differ"] is True
    assert record["same"][1]["across"] is record["same"][1]["labels_differ"] is False
    assert record["splits"]["train"]["imbalance"] == 4
    assert math.isinf(survey.splits["val"].imbalance)
    assert record["splits"]["val"]["imbalance"] is None
    assert record["splits"]["train"]["bad"] == [["cat/7.png", "the file is empty"]]
    assert record["warnings"] == ["look here: do this"]
