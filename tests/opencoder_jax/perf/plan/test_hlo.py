"""The reader of HLO text, on modules small enough to count by hand."""

from __future__ import annotations

import pytest

from opencoder_jax.perf.plan import collectives, hlo, topology
from opencoder_jax.perf.plan.cost import instruction_cost
from opencoder_jax.perf.plan.kernels import KernelCosts
from opencoder_jax.perf.plan.planner import compiler_recomputes
from opencoder_jax.perf.plan.roofline import MATMUL_EFFICIENCY, Simulator

LOOP = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8,16]{1,0})->f32[8,16]{1,0}}

%fused (p0: bf16[4,16,32], p1: s32[]) -> bf16[16,32] {
  %p0 = bf16[4,16,32]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %ds = bf16[1,16,32]{2,1,0} dynamic-slice(%p0, %p1, %zero, /*index=3*/%zero), dynamic_slice_sizes={1,16,32}
  ROOT %b = bf16[16,32]{1,0} bitcast(%ds)
}

%body (arg: (s32[], bf16[64,16], bf16[4,16,32])) -> (s32[], bf16[64,16], bf16[4,16,32]) {
  %arg = (s32[], bf16[64,16]{1,0}, bf16[4,16,32]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = bf16[64,16]{1,0} get-tuple-element(%arg), index=1
  %w = bf16[4,16,32]{2,1,0} get-tuple-element(%arg), index=2
  %slice = bf16[16,32]{1,0} fusion(%w, %i), kind=kLoop, calls=%fused
  %ags = (bf16[16,32]{1,0}, bf16[32,32]{1,0}) all-gather-start(%slice), channel_id=1, replica_groups=[2,2]<=[4], dimensions={0}, use_global_device_ids=true
  %d = bf16[64,32]{1,0} dot(%x, %slice), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %agd = bf16[32,32]{1,0} all-gather-done(%ags)
  ROOT %t = (s32[], bf16[64,16]{1,0}, bf16[4,16,32]{2,1,0}) tuple(%i, %x, %w)
}

%cond (arg.1: (s32[], bf16[64,16], bf16[4,16,32])) -> pred[] {
  %arg.1 = (s32[], bf16[64,16]{1,0}, bf16[4,16,32]{2,1,0}) parameter(0)
  ROOT %lt = pred[] constant(true)
}

ENTRY %main (a: s32[], b: bf16[64,16], c: bf16[4,16,32]) -> bf16[64,16] {
  %a = s32[] parameter(0)
  %b.1 = bf16[64,16]{1,0} parameter(1)
  %c = bf16[4,16,32]{2,1,0} parameter(2)
  %t.1 = (s32[], bf16[64,16]{1,0}, bf16[4,16,32]{2,1,0}) tuple(%a, %b.1, %c)
  %w.1 = (s32[], bf16[64,16]{1,0}, bf16[4,16,32]{2,1,0}) while(%t.1), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %r = bf16[64,16]{1,0} get-tuple-element(%w.1), index=1
  ROOT %ar = bf16[64,16]{1,0} all-reduce(%r), channel_id=2, replica_groups={{0,2},{1,3}}, to_apply=%cond
}
"""
MESH = {"data": 2, "fsdp": 2, "tensor": 1, "context": 1}
MACHINE = topology.parse("h100:2x2")


def test_loops_multiply_what_is_in_them():
    module = hlo.parse(LOOP)
    assert module.is_scheduled
    assert module.executions() == {"main": 1, "body": 3, "fused": 3}
    found = {c.kind: c for c in collectives.find(module, MESH, MACHINE)}
    gather, reduce = found["all-gather"], found["all-reduce"]
    assert (gather.count, gather.bytes, gather.axes, gather.between_nodes) == (3, 32 * 32 * 2, ("fsdp",), False)
    assert (reduce.count, reduce.bytes, reduce.axes, reduce.between_nodes) == (1, 64 * 16 * 2, ("data",), True)
    assert gather.is_async
    assert not reduce.is_async
    assert gather.wire_bytes == 32 * 32 * 2 / 2
    assert reduce.wire_bytes == 64 * 16 * 2


def test_a_slice_of_stacked_weights_costs_the_slice():
    module = hlo.parse(LOOP)
    body = module.computations["body"]
    layer = 16 * 32 * 2
    assert instruction_cost(module, body, body.by_name["slice"]).bytes == 2 * layer + 4  # and the index
    product = instruction_cost(module, body, body.by_name["d"])
    assert product.flops == 2 * 64 * 16 * 32
    assert product.bytes == 64 * 16 * 2 + layer + 64 * 32 * 2


def test_communication_hides_only_behind_what_is_between_start_and_done():
    from opencoder_jax.overrides import load

    module = hlo.parse(LOOP)
    simulator = Simulator(module, MESH, MACHINE, KernelCosts(load("tiny").model))
    times = simulator.run()
    body = module.computations["body"]
    product = simulator.seconds(instruction_cost(module, body, body.by_name["d"]))[0]
    gather = collectives.duration("all-gather", 32 * 32 * 2, 2, 1, MACHINE)
    reduce = collectives.duration("all-reduce", 64 * 16 * 2, 2, 2, MACHINE)
    assert times.network == pytest.approx(3 * gather + reduce)
    assert times.exposed == pytest.approx(3 * (gather - product) + reduce)
    assert times.flops == 3 * 2 * 64 * 16 * 32
    assert times.step == pytest.approx(times.matmul + times.memory + times.exposed)
    peak = simulator.peak
    assert simulator.seconds(type(instruction_cost(module, body, body.by_name["d"]))(flops=peak))[0] == pytest.approx(
        1 / MATMUL_EFFICIENCY
    )


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['data'=2,'fsdp'=2] {'data'}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['data'=2,'fsdp'=2] {'data','fsdp'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("source_target_pairs={{0,1},{1,0},{2,3},{3,2}}, x", [[0, 1], [2, 3]]),
        ("replica_groups={}, x", [[0, 1, 2, 3]]),
    ],
)
def test_device_groups_in_every_notation(text, groups):
    instruction = hlo.Instruction("c", "all-reduce", "f32[]", [], text)
    assert sorted(sorted(g) for g in collectives.device_groups(instruction, 4)) == groups


def test_unknown_group_notation_is_rejected():
    with pytest.raises(ValueError, match="not understood"):
        collectives.device_groups(hlo.Instruction("c", "all-reduce", "f32[]", [], "replica_groups=?"), 4)


@pytest.mark.parametrize(
    ("kind", "text", "size"),
    [
        ("all-reduce-start", "f32[10]{0}", 40),
        ("all-reduce-start", "((f32[10]{0}), f32[10]{0})", 40),
        ("all-reduce-start", "(f32[10]{0}, f32[4]{0})", 56),
        ("all-gather-start", "((bf16[4]{0}, bf16[2]{0}), (bf16[16]{0}, bf16[8]{0}))", 48),
        ("reduce-scatter-start", "((bf16[16]{0}), bf16[4]{0})", 32),
        ("reduce-scatter", "bf16[4]{0}", 32),
        ("all-gather", "(bf16[16]{0}, bf16[8]{0:T(256)(128)(2,1)S(1)})", 48),
    ],
)
def test_payload_is_the_full_array(kind, text, size):
    instruction = hlo.Instruction("c", kind, text, [], " replica_groups={{0,1,2,3}}", shapes=hlo.shapes(text))
    found = collectives.describe(instruction, 1, {"data": 4, "fsdp": 1, "tensor": 1, "context": 1}, MACHINE)
    assert found is not None
    assert found.bytes == size


def test_a_ring_between_nodes_uses_every_port():
    one_port = collectives.duration("all-gather", 10**9, 2, 2, topology.parse("h100:2x8"))
    eight_ports = collectives.duration("all-gather", 10**9, 16, 2, topology.parse("h100:2x8"))
    assert one_port == pytest.approx(0.5e9 / (50e9 * 0.8), rel=0.01)
    assert eight_ports == pytest.approx(15 / 16 * 1e9 / (8 * 50e9 * 0.8), rel=0.02)


TPU = """HloModule jit_step, is_scheduled=true

%cond (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[] constant(24), backend_config={"a":1}
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

%sparse () -> f32[8] {
  ROOT %c = f32[8]{0} constant({...})
}, execution_thread="sparsecore"

%body (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.1 = (s32[], f32[8]{0}) parameter(0)
  %kernel = f32[8]{0} custom-call(%p.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
}}, metadata={op_name="jit(step)/pallas_call"}
  %later = f32[8]{0} fusion(%kernel), kind=kLoop, calls=%sparse
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %step = s32[] constant(STEP)
  %next = s32[] add(%i.1, %step)
  ROOT %t = (s32[], f32[8]{0}) tuple(%next, %later)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %four = s32[] constant(START)
  %start = s32[] copy(%four)
  %init = (s32[], f32[8]{0}) tuple(%start, %x)
  %loop = (s32[], f32[8]{0}) while(%init), condition=%cond, body=%body
  ROOT %out = f32[8]{0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(("start", "step", "trips"), [(0, 1, 24), (4, 1, 20), (0, 2, 12), (1, 2, 12)])
def test_loops_of_the_tpu_compiler_are_counted_by_their_condition(start, step, trips):
    module = hlo.parse(TPU.replace("START", str(start)).replace("STEP", str(step)))
    assert module.unknown_loops() == []
    assert module.executions() == {"main": 1, "body": trips, "sparse": trips}


def test_a_kernel_whose_attributes_hold_line_breaks_ends_no_computation():
    body = hlo.parse(TPU.replace("START", "0").replace("STEP", "1")).computations["body"]
    assert list(body.by_name) == ["p.1", "kernel", "later", "i.1", "step", "next", "t"]
    assert body.by_name["kernel"].op_name == "jit(step)/pallas_call"


ATTENTION = "bf16[2,512,8,64]"
KERNELS = [  # operands, results, FLOPs
    # attention, forwards and both backward kernels: 2, 4 and 3 products of half the pairs of positions
    ([ATTENTION] * 3 + ["s32[2,512,128]"], [ATTENTION, "f32[2,8,512]"], 2 * 2 * (2 * 512 * 8 * 64) * 512 / 2),
    ([ATTENTION] * 4 + ["f32[2,8,512]"], [ATTENTION] * 2, 4 * 2 * (2 * 512 * 8 * 64) * 512 / 2),
    ([ATTENTION] * 4 + ["f32[2,8,512]"], [ATTENTION], 3 * 2 * (2 * 512 * 8 * 64) * 512 / 2),
    # SwiGLU: rows by two weights
    (["bf16[1024,256]", "bf16[256,640]", "bf16[256,640]"], ["bf16[1024,640]"], 2 * 2 * 1024 * 256 * 640),
    (["bf16[1024,256]", "bf16[256,640]", "bf16[256,640]", "bf16[1024,640]"], ["bf16[1024,640]"] * 2, 2 * 2 * 1024 * 256 * 640),
    # logits of the cross-entropy
    (["bf16[1024,256]", "bf16[256,8192]", "s32[1024]"], ["f32[64,1024]"], 2 * 1024 * 256 * 8192),
]  # fmt: skip


@pytest.mark.parametrize(("operands", "results", "flops"), KERNELS)
def test_kernels_are_recognised_by_their_operands(operands, results, flops):
    from opencoder_jax.overrides import load

    lines = [f"  %p{i} = {shape} parameter({i})" for i, shape in enumerate(operands)]
    arguments = ", ".join(f"%p{i}" for i in range(len(operands)))
    lines.append(f'  ROOT %k = ({", ".join(results)}) custom-call({arguments}), custom_call_target="mosaic_gpu_v2"')
    module = hlo.parse("HloModule m\n\nENTRY %main () -> f32[] {\n" + "\n".join(lines) + "\n}\n")
    kernels, main = KernelCosts(load("tiny").model), module.computations["main"]
    found = kernels.cost(module, main, main.by_name["k"])
    assert found is not None
    assert found[0].flops == flops
    assert kernels.unknown == {}
    # XLA may cut a kernel's arguments out of stacked arrays: then the kernel is in a fusion.
    fused = hlo.Instruction("f", "fusion", "f32[]", [], ", kind=kCustom, calls=%main")
    assert kernels.cost(module, hlo.Computation("outer", [fused]), fused) == found


def test_steps_of_a_ring_mask_nothing():
    """Their kernels touch all pairs, where a causal kernel touches half; the scope's name is the kernels' own."""
    from opencoder_kernels.attention import ring

    from opencoder_jax.overrides import load

    costs = []
    for scope in ("attention/shard_map", f"attention/shard_map/{ring.UNMASKED}/while/body"):
        text = (
            "HloModule m\n\nENTRY %main () -> f32[] {\n  %q = bf16[2,256,4,64] parameter(0)\n  %k = bf16[2,256,2,64] parameter(1)\n"
            '  ROOT %a = bf16[2,256,4,64] custom-call(%q, %k, %k), custom_call_target="mosaic_gpu_v2", '
            f'metadata={{op_name="jit(f)/{scope}/mpmd_map"}}\n}}\n'
        )
        module = hlo.parse(text)
        main = module.computations["main"]
        found = KernelCosts(load("tiny").model).cost(module, main, main.root)
        assert found is not None
        costs.append(found[0].flops)
    assert costs == [2 * 2 * 2 * 256 * 4 * 64 * 256 / 2, 2 * 2 * 2 * 256 * 4 * 64 * 256]


@pytest.mark.parametrize(
    "pairs", ["{{0,1},{1,2},{2,3},{3,0}}", "{{0,0},{1,2},{2,3},{3,1}}", "{{0,1},{1,0},{2,3},{3,2}}"]
)
def test_permutations_run_within_an_axis(pairs):
    """A whole ring, and the dealing out of chunks, which leaves a device in place or trades in parts of the axis."""
    text = f" channel_id=1, source_target_pairs={pairs}"
    instruction = hlo.Instruction("p", "collective-permute", "f32[8]", [], text, shapes=hlo.shapes("f32[8]"))
    found = collectives.describe(instruction, 7, {"data": 1, "fsdp": 1, "tensor": 1, "context": 4}, MACHINE)
    assert found is not None
    assert (found.axes, found.bytes, found.count) == (("context",), 32, 7)


PIECES = """HloModule jit_step, is_scheduled=true

ENTRY %main (a: s8[1024,4096], b: bf16[64,32], c: bf16[32,16]) -> bf16[64,16] {
  %a = s8[1024,4096]{1,0:T(8,128)(4,1)} parameter(0)
  %b = bf16[64,32]{1,0} parameter(1)
  %c = bf16[32,16]{1,0} parameter(2)
  %slice-start.1 = ((s8[1024,4096]{1,0:T(8,128)(4,1)}), s8[64,4096]{1,0:T(8,128)(4,1)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={[0:64], [0:4096]}
  %slice-done.1 = s8[64,4096]{1,0:T(8,128)(4,1)S(1)} slice-done(%slice-start.1)
  %sum.1 = s8[64,4096]{1,0:T(8,128)(4,1)} add(%slice-done.1, %slice-done.1)
  %dot.1 = bf16[64,16]{1,0} dot(%b, %c), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %add.1.remat = bf16[64,16]{1,0} add(%dot.1, %dot.1)
  ROOT %dot.1.remat2 = bf16[64,16]{1,0} dot(%b, %c), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""


def test_a_copy_into_vmem_costs_the_piece_and_reading_it_there_nothing():
    module = hlo.parse(PIECES)
    main = module.computations["main"]
    assert instruction_cost(module, main, main.by_name["slice-start.1"]).bytes == 64 * 4096
    assert instruction_cost(module, main, main.by_name["sum.1"]).bytes == 64 * 4096  # written to memory
    on_a_gpu = hlo.shapes("bf16[64,16]{1,0:S(1)}")[0]
    assert on_a_gpu.traffic == on_a_gpu.bytes


def test_what_the_compiler_computes_again_is_counted():
    """Products and kernels by their name; an addition is not a matter."""
    assert compiler_recomputes(hlo.parse(PIECES)) == 1
