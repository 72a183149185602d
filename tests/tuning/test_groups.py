import nets
import pytest

from jaxft.errors import JaxftError
from jaxft.tuning import FreezeSpec, Group, assign, make_mask, parameter_table

PARAMS, _ = nets.init()


def test_by_default_norms_and_biases_are_not_decayed():
    found = assign(None, PARAMS)
    assert {path for path, group in found.items() if group.weight_decay} == {
        "stem/conv/kernel", "block1/conv/kernel", "block2/conv/kernel", "head/kernel",
    }  # fmt: skip


def test_the_first_group_that_matches_counts():
    groups = [Group("head", ("head",), lr_scale=10), Group("biases", ("**/bias",), weight_decay=False), Group("rest", ("**",))]
    found = assign(groups, PARAMS)
    assert found["head/bias"].name == "head"
    assert found["stem/conv/bias"].name == "biases"
    assert found["stem/conv/kernel"].name == "rest"


def test_a_leaf_in_no_group_and_a_pattern_for_nothing_are_errors():
    with pytest.raises(JaxftError, match="are in no group, 'stem/conv/kernel' first"):
        assign([Group("head", ("head",))], PARAMS)
    with pytest.raises(JaxftError, match="parameter group 'norms': pattern 'nrm' matches no parameter"):
        assign([Group("norms", ("nrm",)), Group("rest", ("**",))], PARAMS)


def test_the_table_shows_shares_by_leaf_and_by_stage():
    mask = make_mask(FreezeSpec.parse("head"), PARAMS, nets.STAGES)
    text = parameter_table(PARAMS, mask, None, nets.STAGES)
    assert "head/kernel" in text
    assert "28 of " in text.splitlines()[-1]
    by_stage = parameter_table(PARAMS, mask, None, nets.STAGES, by_stage=True).splitlines()
    assert [line.split()[0] for line in by_stage[1:-1]] == list(nets.STAGES)
    assert "frozen" in by_stage[1]
    assert "yes" in by_stage[4]
