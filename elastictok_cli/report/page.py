"""The page itself: one HTML file from a template, with style, script, data and pictures inside."""

import json
import math
from dataclasses import dataclass
from fractions import Fraction
from html import escape
from importlib import resources
from string import Template
from typing import Any

from elastictok_cli.analysis import kinds, promise, units
from elastictok_cli.report.gather import Gathered, charts
from elastictok_cli.version import __version__
from formats import Header

_OPTIONS_IN_SECONDS = ("keyframe_interval", "start", "duration")  # options of the encoder


@dataclass(frozen=True)
class Content:
    """All that a page is made of. name: of the file; size: its bytes, None if it came from a pipe."""

    name: str
    size: int | None
    header: Header
    found: Gathered
    strip: dict[str, Any]
    cards: list[dict[str, Any]]
    damage: list[str]
    source: str | None  # what the error was measured against, None if it is the recorded one


def render(content: Content) -> str:
    """The HTML of a report."""
    found, header = content.found, content.header
    pictured = any("picture" in card for card in content.cards)
    values = {
        "title": escape(f"{content.name}: where the tokens went"),
        "name": escape(content.name),
        "lead": escape(_lead(content)),
        "warnings": _warnings(content.damage),
        "tiles": "\n".join(_tiles(content)),
        "hint": escape(_hint(found)),
        "chart_label": escape(_chart_label(found)),
        "segments_hint": escape(_segments_hint(content)),
        "looks": _looks() if pictured else "",
        "moments": "\n".join(_moment(row, found.most) for row in found.moments),
        "facts": "\n".join(
            f"    <dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(content)
        ),
        "version": escape(__version__),
        "data": _json(
            {
                "start": found.start,
                "end": found.end,
                "capacity": capacity(header),
                "target": header.target_mse,
                "target_label": ["target", "(mean)"] if header.promise == "video" else ["target"],
                "missed_label": promise.missed_words(header),
                "width": header.width,
                "height": header.height,
                **charts(found),
                "strip": content.strip,
                "cards": content.cards,
            }
        ),
        "style": _asset("page.css"),
        "script": _asset("chart.js") + _asset("segments.js"),
    }
    return Template(_asset("page.html")).substitute(values)


def kept(content: Content) -> bool | None:
    """Whether the promise was kept: see `promise.kept`."""
    found = content.found
    return promise.kept(content.header, found.mean_error, found.missed, whole=not content.damage)


def capacity(header: Header) -> int:
    """The most tokens that a block can keep."""
    return header.grid[0] * header.grid[1] * header.model.full_cell


def _asset(name: str) -> str:
    return (resources.files("elastictok_cli.report") / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _seconds(found: Gathered) -> float:
    return found.end - found.start


def _lead(content: Content) -> str:
    header, found = content.header, content.found
    parts = [f"{header.width}x{header.height}"]
    if header.average_rate and header.average_rate[1]:
        parts.append(f"{float(Fraction(*header.average_rate)):.4g} fps")
    parts += [
        units.clock(_seconds(found), 2),
        units.count(found.count, "frame"),
        f"model {header.model.name}",
    ]
    return " · ".join(parts)


def _warnings(damage: list[str]) -> str:
    if not damage:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in damage)
    return (
        f'<section class="card warning" role="alert"><h2>This file is damaged</h2><ul>{items}</ul></section>'
    )


def _tiles(content: Content) -> list[str]:
    header, found = content.header, content.found
    total = content.size if content.size is not None else found.bytes
    rate = units.kbps(total, _seconds(found), found.count)
    mean = found.tokens / found.blocks_count
    budget, over = _budget(content)
    tiles = [
        _tile(
            "size",
            units.size(total),
            f"{rate:.0f} kbps" if rate is not None else "",
            ("audio and subtitles included" if header.aux else "no audio") + budget,
            bad=over,
        ),
        _tile(
            "tokens per block",
            f"{mean:,.0f}",
            f"{mean / capacity(header):.1%}",
            f"of a full block; from {found.fewest:,} to {found.most:,}",
        ),
    ]
    if found.known:
        how = "measured against the source" if content.source is not None else "as the encoder measured it"
        if found.known < found.count:
            how += f", known for {found.known:,} of {found.count:,} frames"
        tiles.append(
            _tile(
                "PSNR of the mean error",
                _decibels(found.mse),
                f"mse {found.mse:.3g}",
                f"worst frame {_decibels(found.worst)} at {units.clock(found.worst_at, 2)}; {how}",
            )
        )
    else:
        tiles.append(_tile("quality", "unknown", "", "this file records no error; --source measures it"))
    tiles.append(_target_tile(content))
    return tiles


def _budget(content: Content) -> tuple[str, bool]:
    """The budget of the file with what was spent of it, as the end of a sentence; and whether that is too much."""
    found, limits = content.found, promise.budget(content.header)
    spent = promise.used(
        content.header, size=content.size, tokens=found.tokens, seconds=_seconds(found), frames=found.count
    )
    if not limits:
        return "", False
    return f"; budget {promise.budget_words(limits, spent)}", promise.exceeded(limits, spent)


def _target_tile(content: Content) -> str:
    header, found = content.header, content.found
    if header.target_mse is not None:
        outcome = promise.outcome(header, found.mean_error, found.missed, whole=not content.damage)
        return _tile(
            "target",
            _decibels(header.target_mse),
            f"mse {header.target_mse:.3g}",
            f"{promise.SCOPES[header.promise]}: {outcome}",
            bad=kept(content) is False and promise.bound(header) != "budget",
        )
    if header.target_tokens is not None:
        return _tile("target", units.count(header.target_tokens, "token"), "in every cell", "")
    was = header.options.get("thinned_from_mse")
    note = f"made for {units.quality(was)}, then thinned" if isinstance(was, float) else ""
    return _tile("target", "none", "", note)


def _tile(label: str, value: str, unit: str, note: str, *, bad: bool = False) -> str:
    small = f" <small>{escape(unit)}</small>" if unit else ""
    kind = "note bad" if bad else "note"
    return (
        f'  <div class="tile"><div class="label">{escape(label)}</div><div class="value">{escape(value)}{small}</div>'
        f'<div class="{kind}">{escape(note)}</div></div>'
    )


def _option(name: str, value: object) -> str:
    """What the encoder was told, with its unit."""
    if name in _OPTIONS_IN_SECONDS and isinstance(value, int | float):
        return f"{value:g} s"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _decibels(mse: float) -> str:
    return "exact" if mse == 0 else f"{units.psnr(mse):.2f} dB"


def _hint(found: Gathered) -> str:
    text = "Drag to zoom, double-click for all; arrow keys walk from block to block, + and - zoom."
    if found.blocks.step > 1:
        text += f" The video is long: each step stands for {found.blocks.step} blocks and shows the largest of them."
    return text


def _chart_label(found: Gathered) -> str:
    text = f"Tokens per block over {units.clock(_seconds(found), 1)}: {found.fewest} to {found.most}"
    if found.moments:
        text += f", most at {units.clock(found.moments[0]['start'], 2)}"
    if found.cuts:
        text += f"; {units.count(found.cuts, 'scene cut')}"
    return text


def _segments_hint(content: Content) -> str:
    found, shown = content.found, len(content.cards)
    text = "A segment begins with a keyframe. The heat map shows how many tokens its cells keep."
    if shown < found.segments_count:
        text = f"{shown} of {found.segments_count} segments, the costliest of each stretch. " + text
    return text


def _looks() -> str:
    looks = (("picture", "First frame"), ("both", "Both"), ("heat", "Heat map"))
    return "".join(
        f'<button type="button" data-look="{look}" aria-pressed="{str(look == "picture").lower()}">{text}</button>'
        for look, text in looks
    )


def _moment(row: dict[str, Any], most: int) -> str:
    last = row["frame"] + row["frames"] - 1
    frames = f"{row['frame']} to {last}" if row["frames"] > 1 else str(row["frame"])
    known = not math.isnan(row["mse"])
    tags = [
        ("scene cut", "cut", row["cut"]),
        ("keyframe", "", row["key"]),
        ("missed", "missed", row["missed"]),
    ]
    why = " ".join(f'<span class="tag {kind}">{text}</span>' for text, kind, shown in tags if shown)
    width = f"{100 * row['tokens'] / max(1, most):.1f}"
    cells = [
        f'<td><button type="button" data-from="{row["start"]:.6f}" data-to="{row["end"]:.6f}">'
        f"{units.clock(row['start'], 2)}</button></td>",
        f'<td class="n">{frames}</td>',
        f'<td class="n">{row["block"]}</td>',
        f'<td class="n">{row["tokens"]:,}</td>',
        f'<td><span class="meter"><span style="width:{width}%"></span></span>{row["share"]:.1%}</td>',
        f'<td class="n">{row["bytes"]:,.0f}</td>',
        f'<td class="n">{row["mse"]:.3g}</td>' if known else '<td class="n">unknown</td>',
        f'<td class="n">{_decibels(row["mse"])}</td>' if known else '<td class="n">unknown</td>',
        f"<td>{why}</td>",
    ]
    return f"      <tr>{''.join(cells)}</tr>"


def _facts(content: Content) -> list[tuple[str, str]]:
    header, found = content.header, content.found
    model = header.model
    rows, columns = header.grid
    facts = [
        ("model", f"{model.name}, sha256 {model.sha256.hex()}"),
        (
            "grid",
            f"{columns} x {rows} cells of {model.cell[1]}x{model.cell[0]} pixels x {model.block_frames} frames, "
            f"{model.tokens_per_cell} tokens each at most, "
            + (f"vectors of {model.vector} numbers" if model.vector else f"{model.vocabulary:,} values"),
        ),
        (
            "length",
            f"{units.count(found.count, 'frame')}, {units.count(found.blocks_count, 'block')}, "
            f"{units.count(found.segments_count, 'segment')}, {units.count(found.cuts, 'scene cut')}",
        ),
        ("video", f"{units.size(found.bytes)} of {found.tokens:,} tokens in segments"),
        ("coded as", kinds.sentence(found.kinds)),
        ("audio and subtitles", f"carried as {header.aux['container']}" if header.aux else "none"),
        ("allocation", f"a length for each {header.allocation}"),
        ("error", "unknown" if not found.known else "measured now" if content.source else "as recorded"),
    ]
    if content.source is not None:
        facts.append(("source", content.source))
    if header.source_bytes is not None:
        facts.append(("source size", units.size(header.source_bytes)))
    if header.rotation:
        facts.append(("rotation", f"{header.rotation}°"))
    facts += [(f"source {name}", value) for name, value in (("pixel format", header.pixel_format),) if value]
    facts += [(name.replace("_", " "), _option(name, value)) for name, value in header.options.items()]
    facts += [(f"metadata {name}", value) for name, value in header.metadata.items()]
    facts.append(("written by", f"elastictok {header.program}"))
    return facts
