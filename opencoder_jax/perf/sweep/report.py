"""A sweep as Markdown and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opencoder_jax.perf.plan.report import table

FAKE = "Fake CPU devices share the same cores: these figures prove that the machinery works and say nothing of speed."


def mesh_name(mesh: dict[str, int]) -> str:
    """The axes that are larger than 1, as a reader writes them."""
    return " ".join(f"{name}={size}" for name, size in mesh.items() if size > 1) or "one device"


def text(name: str, rows: Sequence[dict[str, Any]], *, scaling: str, fake: bool) -> str:
    """rows: of results.jsonl, in the order asked for; the first that ran is what the others are held against."""
    ran = [row for row in rows if "error" not in row]
    lines = [f"# Sweep of {name}, {scaling} scaling", ""]
    if fake:
        lines += [FAKE, ""]
    if ran:
        first = ran[0]
        counts = " to ".join(str(n) for n in sorted({f(row["num_devices"] for row in ran) for f in (min, max)}))
        lines += [
            f"{counts} x {first['device_kind']}; held against {mesh_name(first['mesh'])}.",
            "",
        ]
        head = (
            "mesh", "devices", "ms/step", "tokens/s", "tokens/s/device", "efficiency", "MFU causal", "GiB/device",
            "compile s", "loss differs by",
        )  # fmt: skip
        body = []
        for row in ran:
            peak = row["peak_bytes"] or row["compiled_bytes"]
            body.append(
                (
                    mesh_name(row["mesh"]),
                    str(row["num_devices"]),
                    f"{1e3 * row['median_seconds']:,.1f}",
                    f"{row['tokens_per_second']:,.0f}",
                    f"{row['tokens_per_second'] / row['num_devices']:,.0f}",
                    f"{efficiency(row, first):.1%}",
                    "-" if row["mfu_causal"] is None else f"{row['mfu_causal']:.1%}",
                    f"{peak / 2**30:.2f}",
                    f"{row['compile_seconds']:.1f}",
                    f"{loss_difference(row, first):.1e}"
                    if row["tokens_per_step"] == first["tokens_per_step"]
                    else "other batch",
                )
            )
        lines += [*table(head, body), "", "Efficiency: tokens/s per device over the first mesh's.", ""]
        parts = list(ran[0]["split"])
        split = [(mesh_name(r["mesh"]), *(f"{r['split'][p] / r['traced_seconds']:.1%}" for p in parts)) for r in ran]
        lines += ["## Share of the step (from a trace of two further steps)", "", *table(("mesh", *parts), split), ""]
        if not any(r["peak_bytes"] for r in ran):
            lines += ["Memory is the compiler's figure: these devices do not count theirs.", ""]
    for row in rows:
        if "error" in row:
            lines.append(f"{mesh_name(row['mesh'])} failed: {row['error']}")
    return "\n".join(lines) + "\n"


def efficiency(row: dict[str, Any], first: dict[str, Any]) -> float:
    return row["tokens_per_second"] / row["num_devices"] / (first["tokens_per_second"] / first["num_devices"])


def loss_difference(row: dict[str, Any], first: dict[str, Any]) -> float:
    """Largest relative difference of the losses, step by step; infinite when one is not finite."""
    pairs = list(zip(row["losses"], first["losses"], strict=True))
    if not all(math.isfinite(x) for pair in pairs for x in pair):
        return math.inf
    return max(abs(a - b) / abs(b) for a, b in pairs)


def draw(rows: Sequence[dict[str, Any]], path: Path, *, scaling: str, fake: bool) -> str:
    """Throughput against devices with the ideal line, and the split of time. Returns: why there is no picture, or ""."""
    try:
        import matplotlib
    except ImportError:
        return "matplotlib is missing (extra data)"
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ran = [row for row in rows if "error" not in row]
    if not ran:
        return "no mesh ran"
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5))
    first, counts = ran[0], sorted({row["num_devices"] for row in ran})
    per_device = first["tokens_per_second"] / first["num_devices"]
    left.plot(counts, [per_device * n for n in counts], "--", color="grey", label="ideal")
    for row in ran:
        left.plot(row["num_devices"], row["tokens_per_second"], "o", label=mesh_name(row["mesh"]))
    left.set(
        xlabel="devices",
        ylabel="tokens/s",
        xticks=counts,
        ylim=(0, None),
        title=f"throughput, {scaling} scaling" + (" (fake devices: no measurement)" if fake else ""),
    )
    left.legend(fontsize=8)
    names, start = [mesh_name(row["mesh"]) for row in ran], [0.0] * len(ran)
    for part in [p for p in ran[0]["split"] if p != "exposed network"]:
        shares = [row["split"][part] / row["traced_seconds"] for row in ran]
        right.barh(names, shares, left=start, label=part)
        start = [a + b for a, b in zip(start, shares, strict=True)]
    right.invert_yaxis()
    right.set(xlabel="share of the step; what overlaps is counted in each", title="where the time goes")
    right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return ""
