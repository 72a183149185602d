"""The parameter table: its rows, its totals, and what a stage's row says of mixed leaves."""

import jax
import nets
import numpy as np
import pytest

from jaxft import tree
from jaxft.tuning import FreezeSpec, Group, make_mask, parameter_table
from jaxft.tuning.table import Row, rows

PARAMS, _ = nets.init()
COUNTS = {path: leaf.size for path, leaf in tree.flatten(PARAMS).items()}
TOTAL = sum(COUNTS.values())
GROUPS = (Group("head", ("head",), lr_scale=10), Group("norms", ("**/bn",), weight_decay=False), Group("rest", ("**",)))


def _mask(train, freeze=()):
    return make_mask(FreezeSpec.parse(train, freeze), PARAMS, nets.STAGES)


def test_each_leaf_has_a_row_with_shape_count_rate_and_decay():
    found = rows(PARAMS, _mask("head,block2/bn"), GROUPS, nets.STAGES)
    assert [row.name for row in found] == list(COUNTS)
    assert [row.count for row in found] == list(COUNTS.values())
    by_name = {row.name: row for row in found}
    assert by_name["head/kernel"] == Row("head/kernel", (6, 4), 24, 24, "10", "yes")
    assert by_name["block2/bn/scale"] == Row("block2/bn/scale", (6,), 6, 6, "1", "no")
    assert by_name["stem/conv/kernel"] == Row("stem/conv/kernel", (3, 3, 3, 3), 81, 0, "-", "-")


def test_without_groups_the_table_shows_the_default_ones():
    for row in rows(PARAMS, _mask("full"), None, nets.STAGES):
        assert (row.lr_scale, row.weight_decay) == ("1", "yes" if row.name.endswith("kernel") else "no")


def test_a_stage_has_one_row_that_sums_its_leaves_and_names_each_rate_and_decay_of_the_trained_ones():
    found = rows(PARAMS, _mask("head,stage2", "block2/conv/kernel"), GROUPS, nets.STAGES, by_stage=True)
    assert [row.name for row in found] == list(nets.STAGES)
    for row in found:
        prefix = nets.STAGES[row.name][0] + "/"
        assert row.shape is None
        assert row.count == sum(count for path, count in COUNTS.items() if path.startswith(prefix))
    stem, stage1, stage2, head = found
    assert (stem.trained, stem.lr_scale, stem.weight_decay) == (0, "-", "-")
    assert (stage1.trained, stage1.lr_scale, stage1.weight_decay) == (0, "-", "-")
    assert (stage2.trained, stage2.lr_scale, stage2.weight_decay) == (6 + 6 + 6, "1", "no/yes")
    assert (head.trained, head.lr_scale, head.weight_decay) == (28, "10", "yes")


def test_a_frozen_leaf_adds_neither_its_rate_nor_its_decay_to_its_stages_row():
    groups = (Group("conv", ("**/conv",), lr_scale=0.5), Group("rest", ("**",), lr_scale=0.1, weight_decay=False))
    both, norms = (
        rows(PARAMS, _mask("stage1", freeze), groups, nets.STAGES, by_stage=True)[1] for freeze in ((), "block1/conv")
    )
    assert (both.lr_scale, both.weight_decay) == ("0.1/0.5", "no/yes")
    assert (norms.lr_scale, norms.weight_decay) == ("0.1", "no")
    assert norms.count == both.count


@pytest.mark.parametrize("by_stage", [False, True])
@pytest.mark.parametrize("train", ["full", "head", "stage1,head", "stem/bn"])
def test_the_totals_are_those_of_the_mask_however_the_rows_are_made(train, by_stage):
    mask = _mask(train)
    trained = tree.count(tree.split(PARAMS, mask)[0])
    found = rows(PARAMS, mask, None, nets.STAGES, by_stage=by_stage)
    assert sum(row.count for row in found) == TOTAL
    assert sum(row.trained for row in found) == trained
    last = parameter_table(PARAMS, mask, None, nets.STAGES, by_stage=by_stage).splitlines()[-1]
    assert last == f"{trained:,} of {TOTAL:,} parameters are trained ({trained / TOTAL:.2%})"


def test_the_text_is_aligned_with_a_title_and_the_share_below():
    params = {"stem": {"kernel": np.zeros((7, 7, 3, 64)), "gain": np.zeros(())}, "head": {"kernel": np.zeros((64, 20))}}
    stages = {"stem": ("stem",), "head": ("head",)}
    mask = make_mask(FreezeSpec.parse("head,stem/gain"), params, stages)
    groups = (Group("head", ("head",), lr_scale=2.5), Group("rest", ("**",), weight_decay=False))
    assert parameter_table(params, mask, groups, stages).splitlines() == [
        "parameter    shape     count  trained  lr scale  decay",
        "stem/kernel  7x7x3x64  9,408  frozen   -         -",
        "stem/gain              1      1        1         no",
        "head/kernel  64x20     1,280  1,280    2.5       yes",
        "1,281 of 10,689 parameters are trained (11.98%)",
    ]
    assert parameter_table(params, mask, groups, stages, by_stage=True).splitlines() == [
        "stage  count  trained  lr scale  decay",
        "stem   9,409  1        1         no",
        "head   1,280  1,280    2.5       yes",
        "1,281 of 10,689 parameters are trained (11.98%)",
    ]


def test_abstract_parameters_give_the_same_table():
    mask = _mask("head")
    abstract = jax.eval_shape(lambda: PARAMS)
    for by_stage in (False, True):
        expected = parameter_table(PARAMS, mask, None, nets.STAGES, by_stage=by_stage)
        # The leaves of one may be sorted; the rows are the same.
        found = parameter_table(abstract, mask, None, nets.STAGES, by_stage=by_stage)
        assert sorted(found.splitlines()) == sorted(expected.splitlines())
