"""Result files, and the charts drawn from them."""

import json

import cost_by_size
import draw
import jax
import plain_flax
import pytest
import results
from workloads import WORKLOADS, chosen

from jaxft.errors import JaxftError
from jaxft.models import build


def _row(model="vgg16", part="train", ratio=1.25, rival="torch"):
    return {
        "workload": f"{model}@32",
        "model": model,
        "size": 32,
        "batch": 64,
        "part": part,
        "threads": 2,
        "cpu": "A Processor",
        "date": "2026-11-25",
        "ratio": {rival: {"median": ratio, "q1": ratio - 0.05, "q3": ratio + 0.05}},
    }


def _cost(part, size, batch, seconds):
    place = {"model": "resnet50", "part": part, "size": size, "batch": batch, "threads": 2}
    return {**place, "cpu": "A Processor", "date": "2026-11-25", "seconds_per_image": {"median": seconds}}


def test_a_partial_run_replaces_its_own_rows_alone(tmp_path):
    path = tmp_path / "new" / "vs.json"
    results.merge(path, [_row(part="train"), _row(part="eval")])
    results.merge(path, [_row(part="eval", ratio=2.0), _row("resnet50")])
    found = [(row["model"], row["part"], row["ratio"]["torch"]["median"]) for row in results.load(path)]
    assert found == [("vgg16", "train", 1.25), ("vgg16", "eval", 2.0), ("resnet50", "train", 1.25)]


@pytest.mark.parametrize("text", ["", "[]", '{"rows"', '{"lines": []}'])
def test_what_is_no_result_file_is_one_clear_error(tmp_path, text):
    path = tmp_path / "vs.json"
    path.write_text(text)
    with pytest.raises(JaxftError, match="is no result file"):
        results.load(path)


def test_a_result_file_that_is_not_there_says_what_to_run(tmp_path):
    with pytest.raises(JaxftError, match="run the benchmark that writes it first"):
        results.load(tmp_path / "vs.json")


def test_workloads_are_chosen_by_network_or_by_network_and_size():
    assert [found.name for found in chosen(["vgg16"], WORKLOADS)] == ["vgg16@32", "vgg16@224"]
    assert [found.name for found in chosen(["vgg16@224", "vgg16"], WORKLOADS)] == ["vgg16@224", "vgg16@32"]
    with pytest.raises(JaxftError, match="did you mean 'resnet50@224'"):
        chosen(["resnet50@225"], WORKLOADS)


def test_the_recorded_command_names_no_folder_of_the_machine(monkeypatch):
    flags = ["--torch-python=/home/me/env/bin/python", "--keras-python", "/opt/env/bin/python3", "--workloads=vgg16@32"]
    monkeypatch.setattr("sys.argv", ["/home/me/jaxft/benchmarks/vs_pytorch.py", *flags])
    expected = "python benchmarks/vs_pytorch.py --torch-python=python --keras-python python3 --workloads=vgg16@32"
    assert results.conditions(2)["command"] == expected


def _drawn(path):
    svg, png = draw.draw(path)
    assert png.read_bytes().startswith(b"\x89PNG")
    return svg.read_text()


def test_ratios_are_drawn_with_their_figures(tmp_path):
    results.merge(tmp_path / "vs.json", [_row(), _row("resnet50", "eval", 0.87), _row("resnet50", "head", 12.3)])
    svg = _drawn(tmp_path / "vs.json")
    for text in ("1.25", "0.87", ">12<", "resnet50", "training step", "PyTorch", "A Processor"):
        assert text in svg


def test_each_rival_has_a_panel(tmp_path):
    row = _row(rival="flax")
    row["ratio"]["keras"] = {"median": 3.0, "q1": 2.9, "q3": 3.2}
    results.merge(tmp_path / "vs.json", [row])
    svg = _drawn(tmp_path / "vs.json")
    assert "plain Flax and Keras on JAX" in svg
    assert "3.00" in svg


def test_costs_are_drawn_as_a_line_for_each_size(tmp_path):
    rows = [_cost(part, size, batch, 1e-3 / batch) for part in ("train", "eval") for size in (32, 64) for batch in (1, 4)]
    results.merge(tmp_path / "cost.json", rows, cost_by_size.KEY)
    assert len(results.load(tmp_path / "cost.json")) == 8
    svg = _drawn(tmp_path / "cost.json")
    for text in ("32 px", "64 px", "inference", "resnet50", "milliseconds an image"):
        assert text in svg
    assert "head-only" not in svg


def test_methods_are_drawn_with_what_they_cost(tmp_path):
    rows = [
        {"data": data, "per_class": count, "seed": seed, "method": method, "accuracy": 0.5 + 0.1 * seed}
        for data, count in (("one", 5), ("one", 20), ("two", 5))  # the last cell is not there yet
        for seed in (0, 1)
        for method in ("linear probe", "head")
    ]
    cost = {"trained": 0.0123, "memory": 50 * 2**20, "ratio": 1.5}
    about = {"cpu": "A Processor", "threads": 2, "date": "2026-11-25"}
    record = {"rows": rows, "costs": {"head": cost}, "conditions": about}
    (tmp_path / "methods.json").write_text(json.dumps(record))
    svg = _drawn(tmp_path / "methods.json")
    for text in ("linear probe", ">head<", ">one<", ">two<", "20 pictures a class", "1.5x, 50 MB", "1.2 % trained", "2 draws"):
        assert text in svg


def test_the_same_results_draw_the_same_bytes(tmp_path):
    results.merge(tmp_path / "vs.json", [_row()])
    first = _drawn(tmp_path / "vs.json")
    assert _drawn(tmp_path / "vs.json") == first


def test_the_next_batch_is_expected_on_the_line_through_the_last_two():
    assert cost_by_size.expected([(1, 5.0)], 4) < 0
    assert cost_by_size.expected([(1, 100.0), (4, 7.0), (16, 19.0)], 64) == pytest.approx(67.0)


@pytest.mark.parametrize("name", plain_flax.NETWORKS)
def test_plain_networks_have_the_parameters_of_jaxfts(name):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    plain = jax.eval_shape(lambda key, image: plain_flax.NETWORKS[name](10).init(key, image, False), jax.random.key(0), image)
    ours, _ = jax.eval_shape(lambda key: build(name, 10).init(key, 32), jax.random.key(0))

    def shapes(params):
        return sorted(leaf.shape for leaf in jax.tree.leaves(params))

    assert shapes(plain["params"]) == shapes(ours)


def test_result_files_of_the_repository_can_be_read():
    for path in (*results.RESULTS.glob("vs_*.json"), results.RESULTS / "methods.json"):
        assert results.load(path), path
