"""Write asyncsmtp/mail/checks/caniemail.json: what mail programs do not support of HTML and CSS, by caniemail.com.

    npm pack caniemail && tar -xzf caniemail-*.tgz
    python docs/reference/list_mail_clients.py package/data/caniemail.json

Kept are the last results of the tests of the programs in `CLIENTS`. Left out is what every mail uses, and what is
missing only where a program shows mail of somebody else's account. The terms of the data (MIT) are written with it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

OUTPUT = Path(__file__).parents[2] / "asyncsmtp" / "mail" / "checks" / "caniemail.json"
TERMS = Path(__file__).with_name("caniemail-license.txt")

CLIENTS = {  # name -> family of the data, and platforms
    "Gmail": ("gmail", ("desktop-webmail", "ios", "android")),
    "Outlook on Windows": ("outlook", ("windows",)),
    "Outlook.com": ("outlook", ("outlook-com",)),
    "Outlook for Mac and phones": ("outlook", ("macos", "ios", "android")),
    "Apple Mail": ("apple-mail", ("macos", "ios")),
    "Yahoo Mail": ("yahoo", ("desktop-webmail", "ios", "android")),
    "Samsung Email": ("samsung-email", ("android",)),
    "Thunderbird": ("thunderbird", ("macos", "windows")),
}
_LEFT_OUT = """
    css-at-media-device-pixel-ratio css-background css-background-color css-border css-comments css-display css-font
    css-font-size css-font-weight css-height css-important css-letter-spacing css-line-height css-list-style css-margin
    css-padding css-selector-chaining css-selector-class css-selector-descendant css-selector-grouping css-selector-id
    css-selector-type css-sytem-ui css-text-align css-text-decoration css-text-indent css-text-transform css-unit-cm
    css-unit-em css-unit-ex css-unit-in css-unit-initial css-unit-mm css-unit-pc css-unit-percent css-unit-pt
    css-unit-px css-width css-nesting css-cursor css-word-wrap css-pseudo-class-link css-pseudo-class-visited
    html-align html-anchor-links html-aria-describedby html-aria-hidden html-aria-label html-aria-labelledby html-base
    html-aria-live html-body html-button-reset html-button-submit html-comments html-dir html-doctype html-form
    html-height html-input-checkbox html-input-hidden html-input-radio html-input-reset html-input-submit
    html-input-text html-lang html-lists html-mailto-links html-required html-role html-select html-style html-target
    html-textarea html-width html-abbr html-acronym html-address html-meta-color-scheme html-loading-attribute amp bimi
    css-accent-color css-border-radius css-border-radius-logical css-box-shadow css-caption-side css-clear
    css-font-kerning css-hyphenate-character css-hyphenate-limit-chars css-hyphens css-orphans css-outline
    css-outline-offset css-pseudo-class-active css-pseudo-class-focus css-pseudo-class-hover css-resize css-scroll-snap
    css-tab-size css-text-decoration-color css-text-decoration-line css-text-decoration-skip-ink
    css-text-decoration-style css-text-decoration-thickness css-text-shadow css-text-underline-offset
    css-text-underline-position css-transition css-user-select css-widows html-wbr
"""  # what every mail has, what is an ornament that nobody misses, and what another check objects to (forms)
_IN_PART = frozenset(  # features of which it matters that a program supports only a part
    ("css-max-width", "css-position", "css-at-font-face", "css-display-none", "image-base64", "image-gif")
)
_KEYS = {  # slug -> what to look for; without an entry it is made of the slug
    "css-align-items": "p:align-items",
    "css-at-media": "@media",
    "css-block-inline-size": "p:block-size p:inline-size",
    "css-border-inline-block": "p:border-inline p:border-block",
    "css-border-inline-block-individual": " ".join(
        f"p:border-{side}-{end}{what}"
        for side in ("inline", "block")
        for end in ("start", "end")
        for what in ("", "-color", "-style", "-width")
    ),
    "css-border-inline-block-longhand": " ".join(
        f"p:border-{side}-{what}" for side in ("inline", "block") for what in ("color", "style", "width")
    ),
    "css-border-radius-logical": " ".join(
        f"p:border-{one}-{two}-radius" for one in ("start", "end") for two in ("start", "end")
    ),
    "css-column-layout-properties": "p:column-fill p:column-rule p:column-span p:column-width p:columns",
    "css-conic-gradient": "f:conic-gradient f:repeating-conic-gradient",
    "css-display-flex": "p:display=flex p:display=inline-flex",
    "css-display-grid": "p:display=grid p:display=inline-grid",
    "css-display-none": "p:display=none",
    "css-flex-direction": "p:flex-direction p:flex-flow",
    "css-gap": "p:gap p:column-gap p:row-gap",
    "css-grid-template": "p:grid-template p:grid-template-areas p:grid-template-columns p:grid-template-rows",
    "css-intrinsic-size": "w:fit-content w:min-content w:max-content",
    "css-left-right-top-bottom": "p:left p:right p:top p:bottom",
    "css-linear-gradient": "f:linear-gradient f:repeating-linear-gradient",
    "css-radial-gradient": "f:radial-gradient f:repeating-radial-gradient",
    "css-margin-block-start-end": "p:margin-block-start p:margin-block-end",
    "css-margin-inline-block": "p:margin-inline p:margin-block",
    "css-margin-inline-start-end": "p:margin-inline-start p:margin-inline-end",
    "css-modern-color": "f:lch f:oklch f:lab f:oklab",
    "css-padding-block-start-end": "p:padding-block-start p:padding-block-end",
    "css-padding-inline-block": "p:padding-inline p:padding-block",
    "css-padding-inline-start-end": "p:padding-inline-start p:padding-inline-end",
    "css-rgb": "f:rgb",
    "css-rgba": "f:rgba",
    "css-scroll-snap": "p:scroll-snap-type p:scroll-snap-align",
    "css-unit-calc": "f:calc",
    "css-variables": "p:-- f:var",
    "css-selector-adjacent-sibling": "s:+",
    "css-selector-attribute": "s:[]",
    "css-selector-child": "s:>",
    "css-selector-general-sibling": "s:~",
    "css-selector-universal": "s:*",
    "html-background": "a:background",
    "html-hidden": "a:hidden",
    "html-image-maps": "e:map a:usemap",
    "html-popover": "a:popover",
    "html-cellpadding": "a:cellpadding",
    "html-cellspacing": "a:cellspacing",
    "html-valign": "a:valign",
    "html-semantics": "e:article e:aside e:details e:figcaption e:figure e:footer e:header e:main e:nav e:section"
    " e:summary e:time",
    "html-srcset": "a:srcset",
    "html-h1-h6": "e:h1",
    "image-base64": "i:data:",
    "image-jpg": "i:jpg i:jpeg",
    "image-heif": "i:heif i:heic",
    "image-tiff": "i:tiff i:tif",
}
_NAMES = {
    "image-base64": "images in data: URLs",
    "image-mp4": "videos as images",
    "css-variables": "variables (--name)",
}
_OF_OTHERS = re.compile(r"non[- ]Google accounts|Hotmail/Outlook accounts|Microsoft email address", re.IGNORECASE)
MAX_NOTE = 160


def find_keys(slug: str) -> str:
    """Return what a message has that uses a feature: `p:` a property, `e:` an element and so on."""
    if slug in _KEYS:
        return _KEYS[slug]
    kind, _, name = slug.partition("-")
    if kind == "html":
        return f"e:{name}"
    if kind == "image":
        return f"i:{name}"
    for prefix, mark in (
        ("at-media-", "@media "),
        ("at-", "@"),
        ("pseudo-class-", "s::"),
        ("pseudo-element-", "s:::"),
        ("function-", "f:"),
        ("unit-", "u:"),
    ):
        if name.startswith(prefix):
            return mark + name.removeprefix(prefix)
    return f"p:{name}"


def name_feature(slug: str, title: str) -> str:
    """Return the name that people know it by."""
    if slug in _NAMES:
        return _NAMES[slug]
    if slug.startswith("image-"):
        return title.removesuffix(" format") + "s"
    return re.sub(r" (CSS )?(property|properties|element|elements|unit|function)\b", "", title).strip()


def judge(stats: Mapping[str, Mapping[str, str]], platforms: tuple[str, ...], notes: Mapping[str, str]) -> str:
    """Return "n", a note on what is supported, or "" where all or most of it is."""
    results = [[*stats[each].values()][-1] for each in platforms if stats.get(each)]
    refused = [result for result in results if result.startswith("n")]
    if results and 2 * len(refused) > len(results):
        return "n"
    for result in results:
        found = [clean(notes[number]) for number in re.findall(r"#(\d+)", result) if number in notes]
        if result.startswith("a") and found and not _OF_OTHERS.search(found[0]):
            return found[0]
    return ""


def clean(note: str) -> str:
    """Return a note without Markdown, and no longer than `MAX_NOTE`."""
    note = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", note).replace("`", "")
    note = re.sub(r"^(Partial(?:ly supported)?|Not supported|Buggy)( support)?[.:]? *", "", note).strip()
    return note if len(note) <= MAX_NOTE else f"{note[:MAX_NOTE]}…"


def distil(data: Mapping[str, object]) -> Iterator[tuple[str, list[object]]]:
    """Yield slug, and keys, name, the clients that do not support it, and notes on those that do in part."""
    left_out, names = frozenset(_LEFT_OUT.split()), [*CLIENTS]
    for feature in sorted(data["data"], key=lambda each: each["slug"]):  # type: ignore[call-overload]
        slug = feature["slug"]
        if slug in left_out:
            continue
        found = {
            names.index(name): judge(feature["stats"].get(family, {}), platforms, feature["notes_by_num"] or {})
            for name, (family, platforms) in CLIENTS.items()
        }
        refused = [number for number, verdict in found.items() if verdict == "n"]
        partial = {number: verdict for number, verdict in found.items() if verdict not in ("", "n")}
        partial = partial if slug in _IN_PART else {}
        if refused or partial:
            name = name_feature(slug, feature["title"])
            yield slug, [find_keys(slug), name, refused, partial, feature["last_test_date"][:4]]


def main(path: Path) -> None:
    """Write the file."""
    data = json.loads(path.read_text("utf-8"))
    made = {
        "about": "Facts of caniemail.com; docs/reference/list_mail_clients.py made this file",
        "license": TERMS.read_text("utf-8"),
        "date": data["last_update_date"][:10],
        "clients": [*CLIENTS],
        "features": dict(distil(data)),
    }
    lines = json.dumps(made, ensure_ascii=False, separators=(",", ":")).replace('],"', '],\n"')
    OUTPUT.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
