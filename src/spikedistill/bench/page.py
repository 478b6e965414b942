"""The benchmark's page, ``results/speed.md``."""

from __future__ import annotations

from typing import Any

MIB = 2**20


def figures(row: dict[str, Any]) -> str:
    """A candidate's figures in one line."""
    told = f"{1000 * row['seconds']:8.1f} ms  ratio {row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
    if row["saved_bytes"] is not None:
        told += f"  {row['saved_bytes'] / MIB:.0f} MiB kept"
    if row["peak_bytes"] is not None:
        told += f"  {row['peak_bytes'] / MIB:.0f} MiB peak"
    return told


def to_markdown(found: dict[str, Any]) -> str:
    """The page: aims first, then each work's table."""
    machine = found["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items()) or "none"
    lines = [
        "<!-- made by `spikedistill bench`; changes by hand are lost -->",
        "",
        "# Speed and memory",
        "",
        f"{machine['device']}; torch {machine['torch']}, Python {machine['python']}, commit {machine['commit']}; "
        f"peers: {peers}. Ratios are medians over interleaved rounds (lowest to highest in brackets), each to the "
        "baseline of the same round. Memory: bytes kept for the backward pass, each storage once, parameters left out; "
        "on a GPU also the peak of a step.",
        "",
    ]
    if found["small"]:
        lines += ["Tried with `--small`: other sizes than the titles say, and figures that mean nothing.", ""]
    aims = [(result, aim) for result in found["results"] for aim in result["aims"]]
    if aims:
        lines += ["| work | candidate | of | ratio | aim | |", "|---|---|---|---:|---:|---|"]
    for result, aim in aims:
        cells = (
            result["title"],
            aim["candidate"],
            f"{aim['of']} of {aim['to']}",
            f"{aim['ratio']:.2f}",
            f"≤ {aim['at_most']:.2f}",
            "reached" if aim["reached"] else "missed",
        )
        lines.append("| " + " | ".join(cells) + " |")
    for result in found["results"]:
        lines += ["", *_work(result)]
    return "\n".join(lines) + "\n"


def _work(result: dict[str, Any]) -> list[str]:
    rows = result["rows"]
    missed = any(not aim["reached"] for aim in result["aims"])
    kept, peak = (any(row[key] is not None for row in rows) for key in ("saved_bytes", "peak_bytes"))
    titles = ["candidate", "ms", f"of {result['baseline']}", *["MiB kept"] * kept, *["MiB peak"] * peak]
    lines = [
        f"## {result['title']}",
        "",
        f"{result['rounds']} rounds." + (f" What bounds it: {result['bound']}." if missed and result["bound"] else ""),
        "",
        "| " + " | ".join(titles) + " |",
        "|---|" + "---:|" * (len(titles) - 1),
    ]
    for row in rows:
        cells = [
            row["candidate"],
            f"{1000 * row['seconds']:.1f}",
            f"{row['ratio']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})",
        ]
        if kept:
            cells.append(f"{row['saved_bytes'] / MIB:.0f}")
        if peak:
            cells.append(f"{row['peak_bytes'] / MIB:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines
