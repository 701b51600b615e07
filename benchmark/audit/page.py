"""The page of an audit: per image and defense a verdict in plain words, with pictures, in one file."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

RECOGNIZABLE, PARTLY, NOT_SHOWN = "recognizable", "partly", "not shown to leak by these attacks"
VERDICTS = (RECOGNIZABLE, PARTLY, NOT_SHOWN)
CONSTANT, DIVERGED = "not judged: a constant image", "not judged: every attack diverged"

# Conventions; the page says so. A control is a reconstruction that was made without the update.
CLEAR_DB, SOME_DB = 3.0, 1.0  # PSNR above the best control
LIKE = 0.5  # SSIM above which two pictures commonly count as the same
SOME_SSIM = 0.1  # above the best control

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; }
tr + tr > td { border-top: 1px solid #8886; } .wide { overflow-x: auto; } tr > :last-child { min-width: 15rem; }
img { width: 96px; height: 96px; image-rendering: pixelated; display: block; }
.recognizable { color: light-dark(#b00020, #ff8a80); font-weight: 600; }
.partly { color: light-dark(#8a5a00, #ffcc66); font-weight: 600; }
small { opacity: .8; }
"""


@dataclass(frozen=True)
class Shown:
    """The result of one attack for one image: the row, and the picture (PNG) that the attack chose by its own cost."""

    attack: str
    row: Mapping[str, Any]
    picture: bytes


def verdict(row: Mapping[str, Any], without: Sequence[Mapping[str, Any]]) -> str:
    """What one reconstruction shows of an image.

    Args:
        row: the scores of the reconstruction (`psnr` in dB, `ssim`, `iip`).
        without: the scores of the controls for the same image; the best of each score counts.
    """
    psnr = row["psnr"] - max(control["psnr"] for control in without)
    ssim = row["ssim"] - max(control["ssim"] for control in without)
    if row["iip"] == 1 and row["ssim"] >= LIKE and psnr >= CLEAR_DB:
        return RECOGNIZABLE
    if (row["iip"] == 1 and psnr >= SOME_DB) or (ssim >= SOME_SSIM and psnr > 0):
        return PARTLY
    return NOT_SHOWN


def worst(results: Sequence[Shown], idle: Mapping[str, Any]) -> tuple[str, Shown]:
    """The worst verdict over all attacks on an image under one defense, and the result of highest PSNR with it.

    An image of almost one color is not judged, for any flat picture matches it; nor is one of which no attack had a
    result.

    Args:
        results: of the attacks, and of the same attacks on the update of other images.
        idle: scores of the mean of the other images.
    """
    attacks = [r for r in results if r.row["control"] == "none"]
    best = max(attacks, key=lambda r: r.row["psnr"])
    if best.row["degenerate"]:
        return CONSTANT, best
    if all(r.row["status"] == "diverged" for r in attacks):
        return DIVERGED, best
    without = [idle, *(result.row for result in results if result.row["control"] != "none")]
    judged = [(verdict(r.row, without), r) for r in attacks]
    return min(judged, key=lambda pair: (VERDICTS.index(pair[0]), -pair[1].row["psnr"]))


def page(
    shown: Mapping[tuple[str, str], Sequence[Shown]],
    idle: Mapping[str, Mapping[str, Any]],
    *,
    truths: Mapping[str, bytes],
    classes: Sequence[str],
    left_out: Mapping[str, str],
    facts: Mapping[str, str],
    warning: str = "",
) -> str:
    """The page.

    Args:
        shown: results by defense and image.
        idle: by image, scores of the mean of all others.
        truths: by image, the picture (PNG).
        classes: names of labels.
        left_out: attacks that could not be run, and why.
        facts: about the model, the images and the attacker.
        warning: what makes the whole page doubtful.
    """
    found = {key: worst(results, idle[key[1]]) for key, results in shown.items()}
    defenses = list(dict.fromkeys(defense for defense, _ in found))
    counts = {d: Counter(v for (defense, _), (v, _) in found.items() if defense == d) for d in defenses}
    columns = [*VERDICTS, *(v for v in (CONSTANT, DIVERGED) if any(counts[d][v] for d in defenses))]
    summary = "".join(
        f"<tr><td>{escape(d)}</td>" + "".join(f"<td>{counts[d][v]}</td>" for v in columns) + "</tr>" for d in defenses
    )
    sections = []
    for defense in defenses:
        lines = "".join(
            line(image, verdict_, best, shown[of, image], idle[image], truths[image], classes)
            for (of, image), (verdict_, best) in found.items()
            if of == defense
        )
        sections.append(
            f'<h2>Defense: {escape(defense)}</h2><div class="wide"><table><tr><th>image</th><th>truth</th>'
            f"<th>rebuilt</th><th>verdict</th><th>numbers</th></tr>{lines}</table></div>"
        )
    tried = list(dict.fromkeys(result.attack for results in shown.values() for result in results))
    assumed = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in facts.items())
    refused = "".join(f"<li>{escape(name)}: {escape(why)}</li>" for name, why in left_out.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit: what leaks from the update</title><style>{STYLE}</style></head><body>
<h1>What leaks from the update</h1>
<p><strong>This is a lower bound.</strong> The attacks below found what is shown here. Others, with more time, a better
generator or more knowledge, may find more: “{NOT_SHOWN}” is not “safe”.</p>
{f'<p class="recognizable">{escape(warning)}</p>' if warning else ""}
<div class="wide"><table><tr><th>defense</th>{"".join(f"<th>{v}</th>" for v in columns)}</tr>{summary}</table></div>
{"".join(sections)}
<h2>How a verdict is made</h2>
<p>Each attack keeps the start with its own lowest cost; it never sees the truth. The worst verdict of all attacks
counts. Each is compared with the best of two controls, made without the image's update: the mean of your other images,
and the same attacks on the update of other images of the same label (of any label if there are none).</p>
<ul><li><strong>{RECOGNIZABLE}</strong>: nearer to this image than to every other one of the folder, SSIM {LIKE} or
more, and PSNR at least {CLEAR_DB:g} dB above the controls.</li>
<li><strong>{PARTLY}</strong>: nearer to this image than to every other one and PSNR at least {SOME_DB:g} dB above the
controls, or SSIM at least {SOME_SSIM} above them and a higher PSNR.</li>
<li><strong>{NOT_SHOWN}</strong>: neither.</li>
<li><strong>not judged</strong>: an image of almost one color (standard deviation below 2/255 in every channel), which
any flat picture matches; or one on which every attack diverged.</li></ul>
<p>The thresholds are conventions; with few images “nearer than every other” says little. Look at the pictures.</p>
<h2>What was assumed</h2><ul>{assumed}<li>attacks: {escape(", ".join(tried))}</li></ul>
{f"<h2>Attacks that could not be run</h2><ul>{refused}</ul>" if refused else ""}
<h2>What an audit cannot show</h2>
<p>That a model is safe. It tries a few attacks on a few images for a short time, on one update each; an attacker can
gather many rounds, know other images of yours, or have trained a generator on images like them.</p>
</body></html>
"""


def line(
    image: str,
    found: str,
    best: Shown,
    results: Sequence[Shown],
    idle: Mapping[str, Any],
    truth: bytes,
    classes: Sequence[str],
) -> str:
    """The line of one image in the table of a defense."""
    each = "<br>".join(
        f"{escape(r.attack)}{'' if r.row['control'] == 'none' else ', other images’ update'}: {numbers(r.row)}"
        + (", diverged" if r.row["status"] == "diverged" else "")
        for r in results
    )
    return (
        f"<tr><td>{escape(image)}<br><small>{escape(classes[best.row['label']])}</small></td>"
        f"<td>{picture(truth, 'truth')}</td><td>{picture(best.picture, f'rebuilt by {best.attack}')}"
        f"<small>{escape(best.attack)}</small></td>"
        f'<td class="{found.split()[0]}">{found}</td>'
        f"<td><small>{each}<br>mean of the other images: {numbers(idle)}</small></td></tr>"
    )


def numbers(scores: Mapping[str, Any]) -> str:
    return f"{scores['psnr']:.1f} dB, SSIM {scores['ssim']:.2f}"


def picture(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
