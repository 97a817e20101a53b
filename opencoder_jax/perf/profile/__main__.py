"""`python -m opencoder_jax.perf.profile --config=NAME [--profile.steps=2:5] [--field=value ...] [--out=DIR]`

Compiles the training step on the devices available, runs it on synthetic batches, traces the chosen steps and prints
where their time goes. DIR (default runs/profile/NAME) receives profile.md, the xprof trace (tensorboard --logdir DIR)
and hlo/: the step before and after optimisation and, on request (--buffers), XLA's buffer assignment.

On several hosts it is started on each, as training is; the first traces itself and reports.

    --trace=DIR --hlo=FILE   tables of an existing trace, for example of `train --profile.steps=10:15 --dump_hlo=true`

Exit codes: 0, or 2 with one line that says what to change.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from opencoder_data import command

from opencoder_jax import overrides
from opencoder_jax.config import profile_steps, replace


def run(arguments: list[str]) -> int:
    own, rest = overrides.take(arguments, {"trace": "", "hlo": "", "out": "", "buffers": ""})
    if own["trace"]:
        if not own["hlo"]:
            raise ValueError("--trace=DIR needs --hlo=FILE, the optimised HLO of the same run (train --dump_hlo=true)")
        if rest:
            raise ValueError(f"{' '.join(rest)} has no effect with --trace: leave it out")
        print(tables(Path(own["trace"]), Path(own["hlo"])))
        return 0

    config = overrides.parse(rest, own)
    out = Path(own["out"] or f"runs/profile/{config.name}")
    if not config.profile.steps:
        config = replace(config, profile=replace(config.profile, steps="2:5"))
    steps = profile_steps(config)
    if steps.start < 2:
        raise ValueError(f"profile.steps={config.profile.steps}: begin at 2 or later; the first steps warm up")
    if own["buffers"]:  # read when the compiler starts
        directory = out / "hlo" / "xla"
        flags = f"--xla_dump_to={directory} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=.*step.*"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

    from opencoder_jax import distributed
    from opencoder_jax.perf.timing import measure
    from opencoder_jax.xla_flags import set_memory_fraction

    set_memory_fraction()
    distributed.initialize()
    distributed.assert_equal_across_hosts(dict(overrides.leaves(config)), "the configuration")
    measured = partial(measure, config, warmup=1, steps=steps.start - 1, traced=len(steps))
    if not distributed.is_first():
        measured()
        return 0
    done = measured(trace_dir=out, hlo_dir=out / "hlo")
    report = (
        f"# {config.name} on {done.num_devices} x {done.device_kind}\n\n"
        f"{done.tokens_per_second:,.0f} tokens/s, {1e3 * done.median_seconds:,.1f} ms a step, not traced"
        + (f", MFU {done.mfu_causal:.1%} causal {done.mfu_full:.1%} full" if done.mfu_causal and done.mfu_full else "")
        + "\n\n"
        + tables(out, out / "hlo" / "train_step.optimized.hlo")
    )
    (out / "profile.md").write_text(report)
    print(report)
    print(f"written to {out}: profile.md, hlo/, trace (tensorboard --logdir {out})")
    return 0


def tables(trace_dir: Path, hlo_file: Path) -> str:
    from opencoder_jax.perf.plan import hlo
    from opencoder_jax.perf.profile import table, trace

    if not hlo_file.is_file():
        raise ValueError(f"{hlo_file}: no such file; it should hold the optimised HLO of the traced run")
    module = hlo.parse(hlo_file.read_text())
    return table.text(table.summarise(trace.read(trace.newest(trace_dir)), module))


if __name__ == "__main__":
    command.end(overrides.command(run, sys.argv[1:], __doc__))
