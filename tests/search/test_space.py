"""The strings that say what is searched, what is drawn for them, and what is said of mistakes."""

import numpy as np
import pytest
import scipy.stats

from jaxft.cli.config import read_config
from jaxft.config import default_config, to_json
from jaxft.errors import JaxftError
from jaxft.search.space import Space, as_text, draw, parse_search, with_overrides


@pytest.fixture
def config():
    return default_config()


def test_each_kind_is_read(config):
    found = parse_search(
        [
            "config.optim.lr=log(1e-5, 1e-2)",
            "config.optim.weight_decay = uniform(0,0.1)",
            "config.input.batch_size=int(8, 64)",
            "--config.model.name=choice(resnet18, resnet50.a1_in1k, 'hf:timm/vit, small')",
            "config.loss.options.label_smoothing=choice(0.0, 0.1)",
            "config.optim.schedule_options.pct_start=uniform(0.1, 0.4)",
            "config.input.augment=choice('crop_flip, random_rotation(10)', random_erasing(p=0.3, value=1), none)",
        ],
        config,
    )
    assert found == {
        "config.optim.lr": Space("log", (1e-5, 1e-2)),
        "config.optim.weight_decay": Space("uniform", (0.0, 0.1)),
        "config.input.batch_size": Space("int", (8, 64)),
        "config.model.name": Space("choice", ("resnet18", "resnet50.a1_in1k", "hf:timm/vit, small")),
        "config.loss.options.label_smoothing": Space("choice", (0.0, 0.1)),
        "config.optim.schedule_options.pct_start": Space("uniform", (0.1, 0.4)),
        "config.input.augment": Space("choice", ("crop_flip, random_rotation(10)", "random_erasing(p=0.3, value=1)", "none")),
    }
    assert parse_search({"config.optim.lr": "log(1e-5, 1e-2)"}, config) == {"config.optim.lr": found["config.optim.lr"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config.optim.lr", "is not written KEY=VALUES, e.g. 'config.optim.lr=log(1e-5, 1e-2)'"),
        ("config.optim.lr=1e-5", "'1e-5' says no values: write one of log(1e-5, 1e-2), uniform(0, 0.1)"),
        ("config.optim.lr=lgo(1e-5, 1e-2)", "no search is called 'lgo' (did you mean 'log'?); there are log(1e-5, 1e-2)"),
        ("config.optim.lr=log(1e-2, 1e-5)", "'log(1e-2, 1e-5)' is no range: the lower end stands first"),
        ("config.optim.lr=log(0, 1)", "the ends of log must be above 0; uniform takes any"),
        ("config.optim.lr=log(1e-5)", "must have two numbers, the lower and the upper end: log(1e-5, 1e-2)"),
        ("config.optim.lr=uniform(a, b)", "must have two numbers"),
        ("config.optim.lr=uniform(0, inf)", "must have two numbers"),
        ("config.input.batch_size=int(8.5, 9)", "the ends of int are whole numbers"),
        (
            "config.input.batch_size=uniform(8, 64)",
            "is of type int: it cannot be 8.0; search it with int(LOW, HIGH)",
        ),
        ("config.optim.lr=choice(fast, slow)", "config.optim.lr is of type float: it cannot be 'fast'"),
        ("config.model.name=choice(resnet18)", "leaves nothing to choose: give two values or more, or set --config.model.name"),
        ("config.model.name=choice(a, b, a)", "has a value twice"),
        ("config.optim.clip_norm=choice(None, 1.0)", "None cannot be given on a command line"),
        ("config.optim.Lr=log(1e-5, 1e-2)", "config.optim has no key 'Lr' (did you mean 'lr'"),
        ("config.optm.lr=log(1e-5, 1e-2)", "config has no key 'optm' (did you mean 'optim'"),
        ("config.optim.lr.x=log(1e-5, 1e-2)", "config.optim.lr is a value, not a section"),
        ("config.optim=choice(1, 2)", "config.optim is a section with the keys b1, b2, clip_norm"),
        ("optim.lr=log(1e-5, 1e-2)", "keys begin with 'config.', as in config.optim.lr"),
        ("config.train.monitor=choice(loss, accuracy)", "trials are compared by one figure on one validation split"),
        ("config.data.split_seed=int(0, 3)", "trials are compared by one figure on one validation split"),
    ],
)
def test_what_does_not_fit_is_said(config, text, message):
    with pytest.raises(JaxftError) as raised:
        parse_search([text], config)
    assert message in str(raised.value)


def test_different_losses_are_not_compared_by_the_loss(config):
    parse_search(["config.loss.options.gamma=uniform(1, 3)"], config)
    config.train.monitor = "loss"
    with pytest.raises(JaxftError, match="'loss' would compare different losses: set --config.train.monitor=accuracy"):
        parse_search(["config.loss.options.gamma=uniform(1, 3)"], config)


def test_a_key_is_searched_once_and_something_is(config):
    with pytest.raises(JaxftError, match=r"config.optim.lr is searched twice"):
        parse_search(["config.optim.lr=log(1e-5, 1e-2)", "config.optim.lr=log(1e-4, 1e-2)"], config)
    with pytest.raises(JaxftError, match="nothing to search: give --search"):
        parse_search([], config)


SPACES = {
    "config.optim.lr": Space("log", (1e-5, 1e-1)),
    "config.optim.weight_decay": Space("uniform", (0.0, 0.2)),
    "config.input.batch_size": Space("int", (3, 6)),
    "config.model.name": Space("choice", ("a", "b", "c")),
}


def test_what_is_drawn_has_the_stated_distribution():
    drawn = [draw(SPACES, 0, number) for number in range(2000)]
    rates = np.log10([one["config.optim.lr"] for one in drawn])
    assert scipy.stats.kstest(rates, scipy.stats.uniform(-5, 4).cdf).pvalue > 0.01
    decays = [one["config.optim.weight_decay"] for one in drawn]
    assert scipy.stats.kstest(decays, scipy.stats.uniform(0, 0.2).cdf).pvalue > 0.01
    for key, values in (("config.input.batch_size", [3, 4, 5, 6]), ("config.model.name", ["a", "b", "c"])):
        counts = [sum(one[key] == value for one in drawn) for value in values]
        assert sum(counts) == 2000
        assert scipy.stats.chisquare(counts).pvalue > 0.01
    assert abs(np.corrcoef(rates, decays)[0, 1]) < 0.06


def test_a_value_is_a_function_of_seed_trial_and_key():
    assert draw(SPACES, 1, 7) == draw(SPACES, 1, 7) != draw(SPACES, 2, 7)
    alone = {"config.model.name": SPACES["config.model.name"], "config.optim.lr": SPACES["config.optim.lr"]}
    assert draw(alone, 1, 7).items() <= draw(SPACES, 1, 7).items()  # whatever else is searched, in whatever order


def test_the_command_line_makes_the_same_config(tmp_path, config):
    (tmp_path / "plain.py").write_text("import jaxft\ndef get_config(arg=''):\n    return jaxft.default_config()\n")
    overrides = {
        "config.optim.lr": 0.1 + 0.2,
        "config.phases.phase1.lr": 1e-5 / 3,
        "config.input.batch_size": 48,
        "config.optim.nesterov": True,
        "config.input.augment": "crop_flip, random_erasing(p=0.3)",
        "config.loss.options.gamma": 2.5,
        "config.loss.options.class_weights": "balanced",
        "config.loss.options.note": "12",
        "config.loss.options.weights": [1, 2],
    }
    texts = [f"--{key}={as_text(key, value)}" for key, value in overrides.items()]
    assert to_json(read_config(str(tmp_path / "plain.py"), texts)) == to_json(with_overrides(config, overrides))
    assert to_json(config) == to_json(default_config())  # a copy was changed
