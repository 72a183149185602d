import pytest

from jaxft.explain.hlo import elements, nbytes, parse

#: A loop as the TPU compiler writes it: it says nowhere how often it runs.
LOOP = """HloModule m

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %s = f32[]{:T(128)} add(%x, %y), backend_config={"flag_configs":[]}
}

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0:T(128)} parameter(0)
  ROOT %n = f32[8]{0:T(128)} negate(%p)
}

%body (w: (f32[8], u32[])) -> (f32[8], u32[]) {
  %w = (f32[8]{0:T(128)}, u32[]{:T(128)}) parameter(0)
  %v = f32[8]{0:T(128)} get-tuple-element(%w), index=0
  %i = u32[]{:T(128)} get-tuple-element(%w), index=1
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%i, %two)
  %f = f32[8]{0:T(128)} fusion(%v), kind=kLoop, calls=%fused
  ROOT %t = (f32[8]{0:T(128)}, u32[]{:T(128)}) tuple(%f, /*index=1*/%next)
}

%condition (w.1: (f32[8], u32[])) -> pred[] {
  %w.1 = (f32[8]{0:T(128)}, u32[]{:T(128)}) parameter(0)
  %limit = u32[]{:T(128)} constant(9)
  %i.1 = u32[]{:T(128)} get-tuple-element(%w.1), index=1
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main.1_spmd (p0: f32[8]) -> f32[8] {
  %p0 = f32[8]{0:T(128)} parameter(0)
  %one = u32[]{:T(128)} constant(1)
  %init = (f32[8]{0:T(128)}, u32[]{:T(128)}) tuple(%p0, %one)
  %loop = (f32[8]{0:T(128)}, u32[]{:T(128)}) while(%init), condition=%condition, body=%body
  ROOT %out = f32[8]{0:T(128)} get-tuple-element(%loop), index=0
}
"""


def test_instructions_are_taken_apart():
    program = parse(LOOP)
    assert program.entry == "main.1_spmd"
    last = program.computations["body"][-1]
    assert (last.name, last.op, last.operands, last.root) == ("t", "tuple", ("f", "next"), True)
    assert program.computations["body"][5].called == ["fused"]
    assert program.computations["condition"][1].operands == ("9",)


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({}, 4),  # 1, 3, 5, 7
        ({"constant(1)": "constant(0)"}, 5),
        ({"constant(2)": "constant(1)"}, 8),
        ({"body=%body": 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'}, 3),
        ({"direction=LT": "direction=NE"}, 1),
        ({"%limit = u32[]{:T(128)} constant(9)": "%limit = u32[]{:T(128)} negate(%i.1)"}, 1),
    ],
)
def test_a_loop_runs_as_often_as_its_counter_says(changes, times):
    text = LOOP
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    counted = {one.name: count for _, one, count in parse(text).run(fusions=True)}
    assert counted["f"] == counted["n"] == times
    assert counted["loop"] == 1
    assert "n" not in {one.name for _, one, _ in parse(text).run(fusions=False)}


def test_bytes_of_shapes():
    assert nbytes("bf16[3,3,64]{2,1,0:T(8,128)(2,1)S(1)}") == 3 * 3 * 64 * 2
    assert nbytes("(f32[8]{0}, /*index=1*/pred[4,2]{1,0}, s4[6]{0}, c64[2], token[])") == 32 + 8 + 3 + 16
    assert nbytes("(f32[8]{0:T(128)S(1)}, f32[2]{0:T(128)}, f32[1]{0:S(0)})", main_memory=True) == 12
    assert elements("((f32[1]{0}, f32[2]{0}), f32[3]{1,0:T(8,128)})") == ["(f32[1]{0}, f32[2]{0})", " f32[3]{1,0:T(8,128)}"]
    assert elements("f32[3]{0}") == ["f32[3]{0}"]
