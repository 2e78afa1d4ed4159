"""Reads the text of a filter into a tree: the part of AIP-160 that a grid needs, by hand, in one pass.

    filter      = term { ["AND"] alternative }        alternative = term { "OR" term }     (OR binds tighter than AND)
    term        = [ "NOT" | "-" ] ( "(" filter ")" | field comparator value )
    comparator  = "=" | "!=" | "<" | "<=" | ">" | ">=" | ":"
    value       = word | "quoted" | 'quoted' | "*" (after ":", is there at all)

Inside quotes a backslash stands before a quote or a backslash. Left out of AIP-160: bare literals, functions,
traversal by ".", wildcards in "=". Bounded in length, comparisons and depth, and refused with the place of the
mistake, since people type filters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

from shared.errors import FieldViolation, InvalidRequest

LENGTH_MAX = 4_096
"""Characters of a filter."""
COMPARISONS_MAX = 100
"""Comparisons in one filter; each is a condition of the statement."""
DEPTH_MAX = 20
"""Parentheses and negations inside one another."""

SPACE = re.compile(r"\s*")
FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
COMPARATOR = re.compile(r"<=|>=|!=|=|<|>|:")
WORD = re.compile(r"[^\s()\"'=<>!,]+")
QUOTED = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'", re.DOTALL)
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
KEYWORDS = frozenset({"AND", "OR", "NOT"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field comparator value`."""

    name: str
    """The field's word."""
    comparator: str
    value: str | None
    """None for `*`, which asks whether there is any value."""
    position: int = field(default=0, compare=False)
    """Where the field stands, counted from 1."""


@dataclass(frozen=True, slots=True)
class Not:
    """True where the term is not true."""

    term: Tree


@dataclass(frozen=True, slots=True)
class And:
    """True where all terms are."""

    terms: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where at least one term is."""

    terms: tuple[Tree, ...]


Tree: TypeAlias = "Comparison | Not | And | Or"


def mistake(position: int, problem: str) -> InvalidRequest:
    """The error for a filter that is wrong at a character, counted from 1."""
    return InvalidRequest(FieldViolation("filter", f"at character {position}: {problem}"))


def parse_filter(text: str) -> Tree:
    """The tree of a filter.

    Raises:
        InvalidRequest: not a filter, or beyond a bound; says at which character.
    """
    if len(text) > LENGTH_MAX:
        raise InvalidRequest(FieldViolation("filter", f"longer than {LENGTH_MAX} characters"))
    parser = _Parser(text)
    tree = parser.all_of(depth=0)
    if not parser.at_end():
        raise parser.wrong("expected AND, OR or the end")
    return tree


class _Parser:
    """A place in a text, and what may stand there."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._comparisons = 0
        self._skip_space()

    def at_end(self) -> bool:
        return self._at >= len(self._text)

    def wrong(self, problem: str) -> InvalidRequest:
        found = "the end" if self.at_end() else repr(self._text[self._at : self._at + 20])
        return mistake(self._at + 1, f"{problem}, found {found}")

    def all_of(self, *, depth: int) -> Tree:
        terms = [self._any_of(depth=depth)]
        while not self.at_end() and self._text[self._at] != ")":
            if not self._take_keyword("AND") and not self._starts_term():
                break
            terms.append(self._any_of(depth=depth))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _any_of(self, *, depth: int) -> Tree:
        terms = [self._term(depth=depth)]
        while self._take_keyword("OR"):
            terms.append(self._term(depth=depth))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _term(self, *, depth: int) -> Tree:
        if depth > DEPTH_MAX:
            raise self.wrong(f"more than {DEPTH_MAX} parentheses and negations inside one another")
        if self._take("-") or self._take_keyword("NOT"):
            return Not(self._term(depth=depth + 1))
        if self._take("("):
            inner = self.all_of(depth=depth + 1)
            if not self._take(")"):
                raise self.wrong("expected )")
            return inner
        return self._comparison()

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > COMPARISONS_MAX:
            raise self.wrong(f"more than {COMPARISONS_MAX} comparisons")
        position = self._at + 1
        name = self._match(FIELD)
        if name is None or name in KEYWORDS:
            self._at = position - 1
            raise self.wrong("expected a field such as status")
        comparator = self._match(COMPARATOR)
        if comparator is None:
            raise self.wrong(f"expected a comparison of {name} such as {name} = value")
        return Comparison(name, comparator, self._value(comparator), position)

    def _value(self, comparator: str) -> str | None:
        if not self.at_end() and self._text[self._at] in "\"'":
            return self._quoted()
        start = self._at
        word = self._match(WORD)
        if word is None or word in KEYWORDS:
            self._at = start
            raise self.wrong("expected a value; put quotes around spaces, signs and the words AND, OR, NOT")
        if word != "*":
            return word
        if comparator != ":":
            self._at = start
            raise self.wrong("* stands after : only; put quotes around a star that is meant as such")
        return None

    def _quoted(self) -> str:
        found = QUOTED.match(self._text, self._at)
        if found is None:
            raise self.wrong("a quote that does not end")
        inner = found[1] if found[1] is not None else found[2]
        for escape in ESCAPE.finditer(inner):
            if escape[1] not in "\"'\\":
                self._at += 1 + escape.start()
                raise self.wrong("a backslash stands before a quote or a backslash only")
        self._at = found.end()
        self._skip_space()
        return ESCAPE.sub(r"\1", inner)

    def _starts_term(self) -> bool:
        return self._text[self._at] in "-(" or FIELD.match(self._text, self._at) is not None

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        self._skip_space()
        return True

    def _take_keyword(self, keyword: str) -> bool:
        found = FIELD.match(self._text, self._at)
        return found is not None and found[0] == keyword and self._take(keyword)

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        self._skip_space()
        return found[0]

    def _skip_space(self) -> None:
        found = SPACE.match(self._text, self._at)
        assert found is not None, "matches the empty text"
        self._at = found.end()
