"""Words that names and prose of the package do not use: `python -m tests.names [PACKAGE]…` prints where they are.

PACKAGE is a folder or file beside `asyncsmtp/__init__.py` without its ending (`mail`, `errors`), or `docs`. Local
variables are free; so are stored and program-read names, which are strings.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = [
    "CHECKS",
    "DOCUMENTS",
    "MAX_CLAUSE_OPENINGS",
    "PACKAGE",
    "PACKAGES",
    "PROTOCOL_WORDS",
    "ROOT",
    "Source",
    "class_names",
    "clause_openings",
    "docstrings",
    "document_words",
    "duplicate_classes",
    "duplicate_modules",
    "function_names",
    "main",
    "module_names",
    "prose_words",
    "protocol_words",
    "sources",
]

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "asyncsmtp"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "tests" / "rows.txt",
    *sorted((ROOT / "docs").rglob("*.md")),
)


def _nowhere(words: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(words.split(), ())


# Names of modules and folders. Each word is followed by the packages that may use it all the same, and why not there.

MODULES: dict[str, tuple[str, ...]] = _nowhere(
    """
    binding codec opening wishes
    asking attaching canonical contenttype converting dkimkey filling files leaving names parsed_content
    parsed_envelope published rendering returnpath seen textpart transfer unsubscribe words
    addresses cancelling capacity ceiling counts dialogue ear fitting hosts lifetime line manners observing own parts
    place room sending service settings slot sources tunnel waking wallet wire witness
    breaker change changes courier csvfile csvtext doubts encodings failures feed folder formulas hand heading heard
    jsonlines keeper keeping lane mailboxes outage outcomes pace ports providers queue ratefile rates records relays
    rows selection shared states steps suppressed taking throttle times when workbook writing
    exits looping meter sandboxes
    due effects link playing reading servers usual
    """
)
MODULES |= {
    "campaign": ("bulk/campaign.py",),  # the interface to a mailing; the scheduler's part is the runner
    "columns": ("mail",),  # of a template; those of a ledger are a row_mapping
    "events": ("client/events", "client/events.py"),  # but the types in the folder are client/events/types.py
    "fields": (),
    "html": (),
    "ledger": ("bulk/ledger",),  # the folder
    "login": ("cli/commands/setup/login.py",),  # the command; that of the protocol is auth
    "page": ("web",),  # of a browser; what is checked of a template's HTML are rules
    "report": ("web", "cli"),  # a page, and its command; the report of a bounce is a dsn
    "sandbox": ("testing", "cli", "web"),  # the relay that keeps mails; a template has an environment
}
"""Words for modules and folders -> where, below asyncsmtp/, they are right."""

# Names of classes, without a leading underscore.

CLASSES: dict[str, tuple[str, ...]] = _nowhere(
    """
    Ear Hearer Listener Wire Said Heard Line Place Manners Behind Wallet Asking Lifetime Witness Watch Room Ceiling
    Capacity Service Lifespan Wakefulness Keeper Hand Steps Change Tally Courier Feed Outage Breaker Relays Share
    Station Lane Spacing Throttle Pace Judge Reads Composes Sends Paced Posts Wishes RecipientWishes Naming Heading
    Selection Ballast State Fields Sealing Seal Signature Unsubscribing Assembled Bodies Written Shelf Plan Meter
    OutOfStep RelayUnproved EveryHostFailed BadArgument NotOffered PoolFull NotInstalled TlsFacts MessageWaits
    MessageWaited Side
    """
)
CLASSES |= {
    "Address": ("mail",),  # of a mailbox; of a socket it is a ResolvedAddress
    "Login": ("client",),  # a user's name and secret; the testing relay has a ServerLogin
    "Sandbox": ("testing",),  # the relay that keeps mails; a template has a TemplateEnvironment
    "Session": ("client",),  # of SMTP; a database has a DatabaseSession
    "Token": ("client",),  # of OAuth; HTML has HtmlTokens
    "Transaction": ("protocol",),  # of SMTP; the testing relay has a ServerTransaction
    "Transcript": ("testing",),  # what a relay recorded; the command has a TranscriptPrinter
}
"""Words for classes -> the packages in which they are right."""

# Names of functions, methods, properties, parameters and attributes, without leading underscores.

FUNCTIONS = _nowhere(
    """
    fitted by shown told opened tamed give_back put_off cut go hear comes_at heard doubt finals standby called adapts
    lasting unspeakable handshaken
    """
).keys()
CONSTANTS = re.compile(r"PATIENCE|(MOST|LEAST)(_|$)|_(MOST|LEAST)(_|$)")
"""Constants that do not say what they bound: `…_TIMEOUT`, `MAX_…`, `MIN_…`."""

# Files that may share a stem.

PARALLEL = (
    {"bulk/ledger/sqlite", "bulk/ledger/postgres"},
    {"bulk/ledger/sqlite", "bulk/ledger/store.py"},  # the queries that both of them complete
    {"bulk/ledger/postgres", "bulk/ledger/store.py"},
    {"testing", "protocol"},  # the server's half of the protocol
    {"testing", "client"},
)
"""Folders whose files may have the same names, since they are parallel implementations."""
COMMANDS = "cli/commands"
"""The folder in which a file has the name of its command, which is the user's word."""
SHARED_STEMS = {
    "__init__",
    "interfaces",
}  # bulk/interfaces.py is for the whole layer, bulk/ledger/interfaces.py its own

# Prose.

CLAUSE_WORDS = ("what", "who", "whom", "whose", "which", "whether", "when", "how", "where", "why", "that")
MAX_CLAUSE_OPENINGS = 0.02
PROTOCOL_WORDS = re.compile(r"(?i)\b[245]yz\b|\boctets?\b(?!-stream)")

PROSE = {
    word: re.compile(rf"(?i)\b(?:{pattern})\b")
    for word, pattern in {
        "floor": r"floors?",
        "storey": r"storeys?|stories",
        "hand": r"hands?",
        "mend": r"mend(?:s|ed|ing)?",
        "hear": r"hears?|heard|hearing|unheard",
        "told": r"told",
        "said": r"said|aloud|unspeakable",
        "ear": r"ears?",
        "house": r"houses?",
        "room": r"rooms?",
        "courier": r"couriers?",
        "wallet": r"wallets?",
        "manners": r"manners",
        "lane": r"lanes?",
        "keeper": r"keepers?",
        "witness": r"witness(?:es|ed)?",
        "wakeful": r"wakeful(?:ness)?",
        "tame": r"tame[sd]?",
        "shelf": r"shelf|shelves",
        "ballast": r"ballast",
        "dot": r"(?:the|its|lone|final|last|that|each|every|behind|behind a) dot",
        "patience": r"patience|patient",
        "habit": r"habits?",
        "wish": r"wish(?:es|ed)?",
        "phrase": r"(?-i:(?<!there )is none)|took us|at worst|the name system|out of step",
    }.items()
}
"""A word, and the forms of it that no docstring, comment or message has."""
PROSE_ALLOWED = re.compile(
    r"(?i)\bby hand\b|\bon the other hand\b|\b(?:right|left)-hand\b|\broom (?:for|in|on|to)\b|\bin-house\b"
    r"|\btold apart\b"
    r"|\bdot that begins\b|\bdot at (?:its|the) (?:end|start)\b"  # the character
    r"|\.ballast\b"  # the file beside a ledger
    r"|\bCourier\b(?=,| \d|'s| and| MTA| IMAP)"  # the mail server of that name
)
"""Phrases in which such a word is right."""
OLD_NAMES = re.compile(r"(?m)(?<=^## From asyncsmtp 0\.1\n)(?s:.*)")
"""The end of docs/howto/migration.md, whose tables list the names of version 0.1."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the package.

    Attributes:
        place: below asyncsmtp/, such as `mail/templates/template.py`.
    """

    place: str
    text: str
    tree: ast.Module

    @classmethod
    def parse(cls, place: str, text: str) -> Source:
        """Parse the text of a file."""
        return cls(place, text, ast.parse(text))

    @property
    def package(self) -> str:
        """The folder beside `asyncsmtp/__init__.py` that the file lies in, or its own stem."""
        return self.place.split("/")[0].removesuffix(".py")

    @property
    def stem(self) -> str:
        """The name of the module."""
        return self.place.rpartition("/")[2].removesuffix(".py")

    def lies_in(self, places: Iterable[str]) -> bool:
        """Return whether the file is one of some files, or below one of some folders."""
        return any(self.place == place or self.place.startswith(f"{place}/") for place in places)


@cache
def sources() -> tuple[Source, ...]:
    """Read and parse every file of the package, once."""
    return tuple(
        Source.parse(path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    )


PACKAGES = tuple(sorted({source.package for source in sources()}))


# Each check yields one line for each thing that it finds.


def module_names(source: Source) -> Iterator[str]:
    """Yield the name of a module, or of the folder whose `__init__.py` it is, if it is banned there."""
    is_folder = source.stem == "__init__"
    whole = source.place.removesuffix("/__init__.py").removesuffix(".py")
    name = whole.rpartition("/")[2]
    where = whole if is_folder else f"{whole}.py"
    if name in MODULES and not any(_is_in(where, place) for place in MODULES[name]):
        yield f"{where}: {'folder' if is_folder else 'module'} {name}"


def _is_in(where: str, place: str) -> bool:
    """Return whether a file or folder is the one that is meant, or in the package that is."""
    return where == place or ("/" not in place and where.startswith(f"{place}/"))


def class_names(source: Source) -> Iterator[str]:
    """Yield the classes, nested and private ones too, with a banned name."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            allowed = CLASSES.get(node.name.lstrip("_"))
            if allowed is not None and source.package not in allowed:
                yield f"{source.place}:{node.lineno}: class {node.name}"


def function_names(source: Source) -> Iterator[str]:
    """Yield the functions, parameters, attributes and constants with a banned name, and functions named `…_of`."""
    for node, kind, name in _names(source.tree):
        bare = name.lstrip("_")
        no_verb = kind == "function" and bare.endswith("_of")
        no_bound = kind == "constant" and CONSTANTS.search(name)
        if bare in FUNCTIONS or no_verb or no_bound:
            yield f"{source.place}:{node.lineno}: {kind} {name}"


def _names(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt | ast.arg, str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, "function", node.name
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            arguments += filter(None, [node.args.vararg, node.args.kwarg])
            yield from ((argument, "parameter", argument.arg) for argument in arguments)
        elif isinstance(node, ast.ClassDef):
            for statement in node.body:
                yield from ((statement, "attribute", name) for name in _targets(statement))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node, "attribute", node.attr
    for statement in tree.body:
        yield from ((statement, "constant", name) for name in _targets(statement) if name.isupper())


def _targets(statement: ast.stmt) -> Iterator[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    for target in targets:
        yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def duplicate_classes() -> Iterator[str]:
    """Yield the names that two public classes of the package share."""
    found = defaultdict(list)
    for source in sources():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(source.place)
    yield from (f"class {name}: {', '.join(places)}" for name, places in sorted(found.items()) if len(places) > 1)


def duplicate_modules() -> Iterator[str]:
    """Yield the stems that files share without being parallel implementations."""
    found = defaultdict(list)
    for source in sources():
        if source.stem not in SHARED_STEMS and not source.lies_in([COMMANDS]):
            found[source.stem].append(source)
    for stem, files in sorted(found.items()):
        clashes = {
            source.place
            for source in files
            for other in files
            if source is not other
            and not any(
                source.lies_in([mine]) and other.lies_in([theirs])
                for pair in PARALLEL
                for mine in pair
                for theirs in pair - {mine}
            )
        }
        if clashes:
            yield f"module {stem}: {', '.join(sorted(clashes))}"


def docstrings(source: Source) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a file's module, classes and functions, with the lines they begin on."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def clause_openings(source: Source) -> Iterator[str]:
    """Yield the docstrings that open with a clause word instead of a noun phrase or an imperative."""
    for line, text in docstrings(source):
        first = re.match(r"[A-Za-z]+", text)
        if first and first[0].lower() in CLAUSE_WORDS:
            yield f"{source.place}:{line}: “{text.splitlines()[0]}”"


def protocol_words(source: Source) -> Iterator[str]:
    """Yield the messages, help texts and the like that say 2yz or octets; docstrings and comments may."""
    inner = {id(node) for node in _docstring_nodes(source.tree)}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            for found in PROTOCOL_WORDS.finditer(node.value):
                if " " in node.value.strip():
                    yield f"{source.place}:{node.lineno}: {found[0]} in {node.value.strip()[:100]!r}"


def prose_words(source: Source) -> Iterator[str]:
    """Yield the banned words in docstrings, comments and messages."""
    for line, text in sorted(_prose(source)):
        yield from (f"{source.place}:{line + more}: {found}" for more, found in banned_words(text))


def banned_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the banned words in a text, with the number of lines before each, and the line itself."""
    for number, line in enumerate(text.split("\n")):
        cleared = PROSE_ALLOWED.sub(lambda found: "·" * len(found[0]), line)
        for word, pattern in PROSE.items():
            if pattern.search(cleared):
                yield number, f"({word}) {line.strip()}"


def document_words(path: Path) -> Iterator[str]:
    """Yield the banned words of a document, those that say 2yz or octets among them."""
    text = OLD_NAMES.sub("", path.read_text(encoding="utf-8"))
    place = path.relative_to(ROOT).as_posix()
    yield from (f"{place}:{line + 1}: {found}" for line, found in banned_words(text))
    if path.suffix == ".md":
        for number, line in enumerate(text.splitlines(), 1):
            prose = re.sub(r"`[^`]*`", "", line)  # names in code are checked where they are defined
            yield from (f"{place}:{number}: {found[0]}: {line.strip()}" for found in PROTOCOL_WORDS.finditer(prose))


def _docstring_nodes(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield every string that stands alone as a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _prose(source: Source) -> Iterator[tuple[int, str]]:
    """Yield each comment, and each string that has a blank in it, with the line it begins on."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


CHECKS = {
    "modules": module_names,
    "classes": class_names,
    "functions": function_names,
    "docstrings that open with a clause word": clause_openings,
    "2yz or octets in texts for users": protocol_words,
    "words in docstrings, comments and messages": prose_words,
}


def main(packages: Iterable[str]) -> int:
    """Print what is found in some packages, or in all of them and the documents."""
    for package in packages or (*PACKAGES, "docs"):
        chosen = [source for source in sources() if source.package == package]
        for title, check in CHECKS.items():
            if found := [line for source in chosen for line in check(source)]:
                print(f"== {package}: {title} ({len(found)})", *found, "", sep="\n")
        if package == "docs" and (found := [line for path in DOCUMENTS for line in document_words(path)]):
            print(f"== documents ({len(found)})", *found, "", sep="\n")
    print("== shared names", *duplicate_classes(), *duplicate_modules(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
