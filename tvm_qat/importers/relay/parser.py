"""A recursive-descent parser of Relay's text format 0.0.5.

    program := '#[version = "..."]' ('def' '@'name function)* ['#[metadata]' JSON]
    function := '(' [param (',' param)*] ')' ['->' type] '{' block '}'
    param   := '%'name [':' type] | name '=' value
    block   := ( ['let'] '%'name [':' type] '=' expr ';' )* expr
    expr    := atom ( '(' args ')' | '.' index )*
    atom    := constant | '%'name | '@'name | operator | 'fn' function | 'meta[' kind '][' n ']'
             | '(' expr, ... ')' | '(' block ')' | '{' block '}'
    args    := ( expr | name '=' value ), ...

Control flow, references and algebraic data types are refused; nesting is limited.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.lexer import Token, fault, span_of, tokens_of
from tvm_qat.importers.relay.numbers import array_of_number, plain_number
from tvm_qat.importers.relay.syntax import (
    Block,
    Call,
    Constant,
    Function,
    Global,
    Meta,
    Node,
    Program,
    Projection,
    Tensor,
    TupleOf,
    Type,
    Variable,
)

DEEPEST = 60
_REFUSED = ("if", "match", "ref", "ref_read", "ref_write", "type", "extern", "free_var")
_LITERALS = {"True": True, "False": False, "None": None}


def parse(text: str) -> Program:
    """Raises InputError with line and column where the text is not Relay."""
    tokens, metadata = tokens_of(text)
    return Program(_Parser(tokens).program(), metadata)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    # ------------------------------------------------------------ tokens

    @property
    def _now(self) -> Token:
        return self._tokens[self._at]

    def _advance(self) -> Token:
        token = self._now
        self._at += token.kind != "end"
        return token

    def _is(self, text: str, kind: str = "mark") -> bool:
        return (self._now.kind, self._now.text) == (kind, text)

    def _accept(self, text: str, kind: str = "mark") -> bool:
        found = self._is(text, kind)
        self._at += found
        return found

    def _expect(self, text: str, kind: str = "mark") -> Token:
        if not self._is(text, kind):
            raise fault(f"expected {text!r}, found {self._now.text or 'the end of the text'!r}", self._now)
        return self._advance()

    def _expect_kind(self, kind: str) -> Token:
        if self._now.kind != kind:
            raise fault(f"expected a {kind}, found {self._now.text or 'the end of the text'!r}", self._now)
        return self._advance()

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise fault(f"it is nested more than {DEEPEST} levels deep", self._now)

    # ------------------------------------------------------------ declarations

    def program(self) -> dict[str, Function]:
        version = self._expect_kind("attribute")
        if not version.text.startswith("version"):
            raise fault(f"expected #[version = ...], found #[{version.text[:40]}]", version)
        functions: dict[str, Function] = {}
        while self._now.kind != "end":
            if self._now.kind == "name" and self._now.text in _REFUSED:
                raise _refusal(self._now)
            self._expect("def", "name")
            name = self._expect_kind("global")
            if name.text in functions:
                raise fault(f"function @{name.text} is defined twice", name)
            if self._is("="):
                raise UnsupportedError(f"line {name.line}: @{name.text} is not a Relay function")
            functions[name.text] = self._function(name.line)
        return functions

    def _function(self, line: int) -> Function:
        if self._is("["):
            raise UnsupportedError(f"line {line}: type parameters are not supported")
        self._expect("(")
        params: list[tuple[str, Type]] = []
        while not self._is(")"):
            if self._now.kind == "variable":
                name = self._advance()
                params.append((name.text, self._type() if self._accept(":") else None))
            else:
                self._expect_kind("name")
                self._expect("=")
                self._value()
            if not self._accept(","):
                break
        self._expect(")")
        if self._accept("->"):
            self._type()
        self._expect("{")
        body = self._block()
        self._expect("}")
        return Function(tuple(params), body, line)

    def _type(self) -> Type:
        self._deeper()
        if self._accept("("):
            parts = []
            while not self._is(")"):
                parts.append(self._type())
                if not self._accept(","):
                    break
            self._expect(")")
            found: Type = tuple(parts)
        elif self._accept("Tensor", "name"):
            found = self._tensor_type()
        elif self._is("fn", "name"):
            found = self._function_type()
        else:
            found = Tensor((), self._expect_kind("name").text)
        self._depth -= 1
        return found

    def _tensor_type(self) -> Tensor:
        self._expect("[")
        self._expect("(")
        shape: list[int | None] = []
        while not self._is(")"):
            shape.append(None if self._accept("?") else self._whole())
            if not self._accept(","):
                break
        self._expect(")")
        self._expect(",")
        dtype = self._expect_kind("name").text
        self._expect("]")
        return Tensor(tuple(shape), dtype)

    def _function_type(self) -> Type:
        self._advance()
        self._type()
        self._expect("->")
        self._type()
        return None

    def _whole(self) -> int:
        token = self._expect_kind("number")
        value = plain_number(token, "")
        if not isinstance(value, int):
            raise fault(f"{token.text} is not a whole number", token)
        return value

    # ------------------------------------------------------------ expressions

    def _block(self) -> Block:
        bindings: list[tuple[str, Node]] = []
        while True:
            is_let = self._accept("let", "name")
            ahead = self._tokens[min(self._at + 1, len(self._tokens) - 1)]
            if not (self._now.kind == "variable" and ahead.kind == "mark" and ahead.text in ("=", ":")):
                if is_let:
                    raise fault("expected a variable behind `let`", self._now)
                return Block(tuple(bindings), self._expression())
            name = self._advance()
            if self._accept(":"):
                self._type()
            self._expect("=")
            bindings.append((name.text, self._expression()))
            self._expect(";")

    def _expression(self) -> Node:
        self._deeper()
        node = self._atom()
        while self._is("(") or self._is("."):
            token = self._advance()
            if token.text == ".":
                node = Projection(node, self._whole(), token.line)
            else:
                node = self._call(node, token)
        self._depth -= 1
        return node

    def _atom(self) -> Node:
        token = self._now
        if token.kind == "number" or self._is("-"):
            return Constant(self._number_array())
        if token.kind == "variable":
            return Variable(self._advance().text, token.line)
        if token.kind == "global":
            return Global(self._advance().text, token.line)
        if token.kind == "name":
            return self._named(token)
        if self._accept("("):
            return self._parenthesized()
        if self._accept("{"):
            inner = self._block()
            self._expect("}")
            return inner
        raise fault(f"expected an expression, found {token.text or 'the end of the text'!r}", token)

    def _named(self, token: Token) -> Node:
        if token.text in _REFUSED:
            raise _refusal(token)
        self._advance()
        if token.text == "fn":
            return self._function(token.line)
        if token.text == "meta":
            return self._meta(token)
        if token.text in ("True", "False"):
            return Constant(np.asarray(token.text == "True"))
        if token.text in ("inff", "nanf"):
            return Constant(np.asarray(token.text[:3], np.float32))
        self._expect("(")
        return self._call(token.text, token)

    def _number_array(self) -> Any:
        sign = "-" if self._accept("-") else ""
        if sign and self._accept("inff", "name"):
            return np.asarray(-np.inf, np.float32)
        return array_of_number(self._expect_kind("number"), sign)

    def _parenthesized(self) -> Node:
        """A tuple, an expression, or the bindings of a nested `let`."""
        if self._is("let", "name"):
            block = self._block()
            self._expect(")")
            return block
        parts: list[Node] = []
        comma = False
        while not self._is(")"):
            parts.append(self._expression())
            comma = self._accept(",")
            if not comma:
                break
        self._expect(")")
        return parts[0] if len(parts) == 1 and not comma else TupleOf(tuple(parts))

    def _call(self, callee: str | Node, opening: Token) -> Call:
        """The arguments and attributes behind `(`."""
        args: list[Node] = []
        attrs: dict[str, Any] = {}
        while not self._is(")"):
            ahead = self._tokens[min(self._at + 1, len(self._tokens) - 1)]
            if self._now.kind == "name" and (ahead.kind, ahead.text) == ("mark", "="):
                name = self._advance().text
                self._advance()
                attrs[name] = self._value()
            else:
                args.append(self._expression())
            if not self._accept(","):
                break
        end = self._expect(")")
        return Call(callee, tuple(args), attrs, opening.line, span_of(end.comment))

    def _meta(self, token: Token) -> Meta:
        self._expect("[")
        kind = self._expect_kind("name").text
        self._expect("]")
        self._expect("[")
        index = self._whole()
        self._expect("]")
        return Meta(kind, index, token.line)

    # ------------------------------------------------------------ values of attributes

    def _value(self) -> Any:
        """A number, string, boolean, None, or a list of values; Meta for what is in the metadata."""
        self._deeper()
        token = self._now
        if token.kind == "number" or self._is("-"):
            sign = "-" if self._accept("-") else ""
            infinite = bool(sign) and self._accept("inff", "name")
            value: Any = -np.inf if infinite else plain_number(self._expect_kind("number"), sign)
        elif token.kind == "string":
            value = self._advance().text
        elif self._accept("["):
            value = self._values("]")
        elif self._accept("("):
            value = self._values(")")
        elif self._accept("{"):
            value = self._mapping()
        elif token.kind == "name":
            self._advance()
            value = self._word_value(token)
        else:
            raise fault(f"expected the value of an attribute, found {token.text!r}", token)
        self._depth -= 1
        return value

    def _word_value(self, token: Token) -> Any:
        if token.text == "meta":
            return self._meta(token)
        if token.text in _LITERALS:
            return _LITERALS[token.text]
        return float(token.text[:3]) if token.text in ("inff", "nanf") else token.text

    def _values(self, end: str) -> list[Any]:
        values = []
        while not self._is(end):
            values.append(self._value())
            if not self._accept(","):
                break
        self._expect(end)
        return values

    def _mapping(self) -> dict[str, Any]:
        entries = {}
        while not self._is("}"):
            key = self._value()
            self._expect("=")
            entries[str(key)] = self._value()
            if not self._accept(","):
                break
        self._expect("}")
        return entries


def _refusal(token: Token) -> InputError:
    where = f"line {token.line}, column {token.column}"
    return UnsupportedError(
        f"{where}: {token.text!r} (control flow, references, data types) is not supported"
    )
