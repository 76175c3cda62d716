"""Images by a path become images by `cid:`, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.mail.conversion.images import ImagePaths, hide_tags, restore_tags


def images_by_cid(html: str) -> tuple[str, dict[str, str]]:
    images = ImagePaths()
    return images.replace(html), dict(images.paths)


@pytest.mark.parametrize(
    ("html", "made", "paths"),
    [
        ('<img src="logo.png">', '<img src="cid:logo.png">', {"logo.png": "logo.png"}),
        ("<IMG alt='' SRC = 'a b/ä.png'/>", "<IMG alt='' SRC = 'cid:a-b-.png'/>", {"a-b-.png": "a b/ä.png"}),
        (
            '<img src="a%20b.png"><img src="a b.png">',
            '<img src="cid:a-b.png"><img src="cid:a-b.png">',
            {"a-b.png": "a b.png"},
        ),
        (
            '<img src="a/b.png"><img src="a b.png">',
            '<img src="cid:a-b.png"><img src="cid:a-b.png-">',
            {"a-b.png": "a/b.png", "a-b.png-": "a b.png"},
        ),
        ("<img src=logo.png alt=a>", '<img src="cid:logo.png" alt=a>', {"logo.png": "logo.png"}),
        (
            '<img alt="a > b" data-src="x.png" src="logo.png">',
            '<img alt="a > b" data-src="x.png" src="cid:logo.png">',
            {"logo.png": "logo.png"},
        ),
        (
            "{% raw %}<img src='a.png'>{{ x }}{% endraw %}",
            "{% raw %}<img src='cid:a.png'>{{ x }}{% endraw %}",
            {"a.png": "a.png"},
        ),
        ('<img src="a&amp;b.png">', '<img src="cid:a-b.png">', {"a-b.png": "a&b.png"}),
        (
            '<img {% if a > "b" %}hidden{% endif %} src="logo.png">',
            '<img {% if a > "b" %}hidden{% endif %} src="cid:logo.png">',
            {"logo.png": "logo.png"},
        ),
        (
            "{% if a %}<img src='a.png'>{% else %}<img src='b.png'>{% endif %}",
            "{% if a %}<img src='cid:a.png'>{% else %}<img src='cid:b.png'>{% endif %}",
            {"a.png": "a.png", "b.png": "b.png"},
        ),
    ],
)
def test_a_relative_path_goes_along(html: str, made: str, paths: dict[str, str]) -> None:
    assert images_by_cid(html) == (made, paths)


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://example.org/logo.png">',
        '<img src="cid:logo">',
        '<img src="data:image/png;base64,x">',
        '<img src="//cdn.example.org/x.png">',
        '<img src="/x.png">',
        '<img src="{{ picture }}.png">',
        '<img src="">',
        '<a href="logo.png"><img alt="src=x">',
        "<imgsrc='x.png'>",
        '<img data-src="x.png">',
        '<!-- <img src="x.png"> --><!--[if mso]><img src="x.png"><![endif]--><title><img src="x.png"></title>',
        "{# <img src='x.png'> #}",
    ],
)
def test_what_is_elsewhere_or_no_image_is_left_alone(html: str) -> None:
    assert images_by_cid(html) == (html, {})


def test_only_images_that_were_found_are_replaced_without_add() -> None:
    """HTML made from Markdown shows the images of its source, not those that a value names."""
    images = ImagePaths()
    images.replace('<img src="a.png">')
    assert images.replace('<img src="b.png"><img src="a.png">', add=False) == '<img src="b.png"><img src="cid:a.png">'
    assert images.paths == {"a.png": "a.png"}


@given(
    st.lists(
        st.sampled_from(
            [
                "{{ a }}",
                "{% if b %}",
                "{% endif %}",
                "{# c #}",
                "{% raw %}",
                "{% endraw %}",
                "text",
                "\ufffc",
                "<p>",
                "\n",
                "\ufffc0\ufffc",
            ]
        )
    )
)
def test_tags_that_are_hidden_come_back(pieces: list[str]) -> None:
    source = "".join(pieces)
    text, tags = hide_tags(source)
    assert "{" not in text or "\ufffc" in source
    assert restore_tags(text, tags) == source
