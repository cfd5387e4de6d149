"""Choosing episodes by their properties: `success and length >= 20 and not (seed in 0..99 or task == Lift)`.

    choice     = both { "or" both }
    both       = one { "and" one }
    one        = "not" one | "(" choice ")" | "success" | NAME OPERATOR VALUE
    OPERATOR   = == != < <= > >= in "not in"
    VALUE      = number | true | false | word | 'text' | "text"
               | with `in` and `not in`: RANGE | "(" (VALUE | RANGE) { "," (VALUE | RANGE) } ")"
    RANGE      = LOW..HIGH, two numbers or two quoted texts, both ends included; texts are ordered alphabetically

The names are those of `EpisodeProperties`, and `info.KEY` for an entry of the episode's info. Nothing is run as Python.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from pixio_robot.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeProperties:
    """The properties of an episode that a condition can refer to."""

    episode: int
    length: int
    seed: int
    success: bool
    task: str
    reward: float
    """The sum over the episode."""
    info: Mapping[str, Any]


Predicate = Callable[[EpisodeProperties], bool]

NAMES = tuple(field.name for field in dataclasses.fields(EpisodeProperties) if field.name != "info")
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, those: any(one.holds(value) if isinstance(one, _Range) else value == one for one in those),
}
EXAMPLE = "success and length >= 20 and not (episode in (0, 1, 7..9) or task == 'pick cube')"
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_QUOTED = r"""'[^']*'|"[^"]*\""""
_TOKEN = re.compile(
    rf"""\s*(?: (?P<range>{_NUMBER}\.\.{_NUMBER}(?![\w.])|(?:{_QUOTED})\.\.(?:{_QUOTED}))
        | (?P<number>{_NUMBER})(?![\w.]) | (?P<text>{_QUOTED})
        | (?P<sign>==|!=|<=|>=|<|>|\(|\)|,) | (?P<word>[^\W\d][\w.\-]*) )""",
    re.VERBOSE,
)


@dataclasses.dataclass(frozen=True)
class _Range:
    low: float | str
    high: float | str

    def holds(self, value: Any) -> bool:
        return self.low <= value <= self.high

    def __repr__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclasses.dataclass(frozen=True)
class EpisodeFilter:
    """A condition on episodes."""

    holds: Predicate
    info_keys: frozenset[str]
    """Every KEY that it refers to as `info.KEY`."""


def parse_filter(text: str) -> EpisodeFilter:
    """Parse a condition. Raises UserError naming the place of a syntax error."""
    parser = _Parser(text)
    return EpisodeFilter(parser.whole(), frozenset(parser.info_keys))


class _Parser:
    """Recursive descent: one method per rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        self.info_keys: set[str] = set()
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise UserError(
                    f"where={text!r} cannot be parsed from {text[position:].strip()!r} on. For example: {EXAMPLE}."
                )
            self._tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
            position = match.end()

    def whole(self) -> Predicate:
        predicate = self._choice()
        if self._tokens:
            raise self._expected("'and', 'or' or the end of the condition")
        return predicate

    def _choice(self) -> Predicate:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return lambda facts: any(part(facts) for part in parts)

    def _both(self) -> Predicate:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return lambda facts: all(part(facts) for part in parts)

    def _one(self) -> Predicate:
        if self._take("not"):
            part = self._one()
            return lambda facts: not part(facts)
        if self._take("("):
            inner = self._choice()
            if not self._take(")"):
                raise self._expected("')'")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        kind, name = self._next("the name of a property")
        if kind != "word":
            raise self._expected("the name of a property", name)
        key = name.removeprefix("info.") if name.startswith("info.") else None
        if key is None and name not in NAMES:
            raise unknown_name("property of an episode", name, (*NAMES, "info.KEY"))
        if key is not None:
            self.info_keys.add(key)
        if name == "success" and (not self._tokens or self._tokens[0][1] not in (*COMPARISONS, "not")):
            return lambda facts: facts.success
        negated = self._take("not")
        _, sign = self._next("'in'" if negated else "a comparison")
        if negated and sign != "in":
            raise self._expected("'in' after 'not'", sign)
        if sign not in COMPARISONS:
            raise self._expected(f"one of {' '.join(COMPARISONS)}", sign)
        value = self._value(name, sign)
        compare = COMPARISONS[sign]

        def holds(facts: EpisodeProperties) -> bool:
            if key is not None and key not in facts.info:
                return False
            actual = facts.info[key] if key is not None else getattr(facts, name)
            try:
                return compare(actual, value) != negated
            except TypeError:
                known = ", ".join(map(repr, value)) if sign == "in" else repr(value)
                raise UserError(
                    f"where={self._text!r}: {name} is {actual!r} in episode {facts.episode}, which cannot be compared "
                    f"with {known}."
                ) from None

        return holds

    def _value(self, name: str, sign: str) -> Any:
        """One value, or with `in` a list of values and ranges."""
        if sign != "in":
            return self._single(name)
        if not self._take("("):
            kind, text = self._next("LOW..HIGH or (A, B, ...)")
            if kind != "range":
                raise self._expected("LOW..HIGH or (A, B, ...) after 'in'", text)
            return [_range(text)]
        found = []
        while True:
            is_range = bool(self._tokens) and self._tokens[0][0] == "range"
            found.append(_range(self._tokens.pop(0)[1]) if is_range else self._single(name))
            if self._take(")"):
                return found
            if not self._take(","):
                raise self._expected("',' or ')'")

    def _single(self, name: str) -> float | str | bool:
        kind, text = self._next(f"a value for {name}")
        if kind == "number":
            return float(text)
        if kind == "text":
            return text[1:-1]
        if kind == "word":
            return {"true": True, "false": False}.get(text, text)
        raise self._expected(
            "a single value (ranges are allowed only after 'in')" if kind == "range" else f"a value for {name}", text
        )

    def _take(self, word: str) -> bool:
        if self._tokens and self._tokens[0] in (("word", word), ("sign", word)):
            self._tokens.pop(0)
            return True
        return False

    def _next(self, wanted: str) -> tuple[str, str]:
        if not self._tokens:
            raise self._expected(wanted)
        return self._tokens.pop(0)

    def _expected(self, wanted: str, found: str = "") -> UserError:
        found = found or (self._tokens[0][1] if self._tokens else "")
        return UserError(
            f"where={self._text!r}: expected {wanted} but found {repr(found) if found else 'the end'}. "
            f"For example: {EXAMPLE}."
        )


def _range(text: str) -> _Range:
    quote = text[0] if text[0] in "'\"" else ""
    if quote:
        low, high = re.fullmatch(rf"({_QUOTED})\.\.({_QUOTED})", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
        return _Range(low[1:-1], high[1:-1])
    low, high = text.split("..")
    return _Range(float(low), float(high))
