"""Relay's text as tokens, each with its line and column.

Comments nest, as in TVM's own lexer. The one comment that matters is what the printer puts behind
an expression, `/* ty=... span=conv1:0:0 */`: it is kept with the token it follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm_qat.errors import InputError

METADATA = "#[metadata]"
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DIGITS = frozenset("0123456789")
_NAME = _LETTERS | _DIGITS | frozenset("./")
_VARIABLE = _NAME | frozenset("-")
_PUNCTUATION = frozenset("()[]{},;:=.?<>*+-!")


@dataclass
class Token:
    """kind : variable, global, name, number, string, attribute (`#[...]`), mark, end.

    text : without its sigil or quotes. comment : of the comments that follow it, the last.
    """

    kind: str
    text: str
    line: int
    column: int
    comment: str = ""


def fault(reason: str, token: Token) -> InputError:
    return InputError(f"line {token.line}, column {token.column}: {reason}")


def tokens_of(text: str) -> tuple[list[Token], str]:
    """The tokens, ending with one of kind end; and the JSON behind `#[metadata]`, or ""."""
    return _Lexer(text).run()


def span_of(comment: str) -> str:
    """`conv1` of `ty=Tensor[...] span=conv1:0:0`: the node that a Relay frontend translated."""
    _, found, span = comment.partition("span=")
    name = span.strip().rsplit(":", 2)[0] if found else ""
    return "" if name in ("from_string", "GeneratedSource") else name


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._tokens: list[Token] = []

    def run(self) -> tuple[list[Token], str]:
        while True:
            self._skip()
            if self._at >= len(self._text):
                return [*self._tokens, self._token("end", "")], ""
            if self._text.startswith(METADATA, self._at):
                rest = self._text[self._at + len(METADATA) :]
                return [*self._tokens, self._token("end", "")], rest
            self._tokens.append(self._next())

    def _token(self, kind: str, text: str) -> Token:
        return Token(kind, text, self._line, self._at - self._line_start + 1)

    def _skip(self) -> None:
        """Over white space and comments."""
        while self._at < len(self._text):
            if self._text[self._at] == "\n":
                self._line, self._line_start = self._line + 1, self._at + 1
                self._at += 1
            elif self._text[self._at].isspace():
                self._at += 1
            elif self._text.startswith("/*", self._at):
                self._comment()
            elif self._text.startswith("//", self._at):
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return

    def _comment(self) -> None:
        start, depth = self._token("mark", "/*"), 0
        begin = self._at
        while True:
            opening, closing = self._text.find("/*", self._at), self._text.find("*/", self._at)
            if closing < 0:
                raise fault("the comment does not end", start)
            deeper = 0 <= opening < closing
            depth += 1 if deeper else -1
            self._at = (opening if deeper else closing) + 2
            if not depth:
                break
        inside = self._text[begin + 2 : self._at - 2]
        if "\n" in inside:
            self._line += inside.count("\n")
            self._line_start = begin + 2 + inside.rfind("\n") + 1
        if self._tokens:
            self._tokens[-1].comment = inside

    def _next(self) -> Token:
        first = self._text[self._at]
        if first in "%@":
            return self._variable("variable" if first == "%" else "global")
        if first == '"':
            return self._string("string")
        if first in _DIGITS:
            return self._number()
        if first in _LETTERS:
            return self._word("name", _NAME)
        if first == "#":
            return self._attribute()
        token = self._token("mark", first)
        if first not in _PUNCTUATION:
            raise fault(f"unexpected character {first!r}", token)
        arrow = self._text.startswith("->", self._at)
        token.text = "->" if arrow else first
        self._at += len(token.text)
        return token

    def _variable(self, kind: str) -> Token:
        """`%3`, `%data`, `%tfl.quantize`, `%input:0`, `%"any text"`."""
        token = self._token(kind, "")
        self._at += 1
        if self._text.startswith('"', self._at):
            token.text = self._string(kind).text
            return token
        begin = self._at
        while self._taken(_VARIABLE) or self._port():
            self._at += 1
        token.text = self._text[begin : self._at]
        if not token.text:
            raise fault("a name is missing", token)
        return token

    def _taken(self, allowed: frozenset[str]) -> bool:
        ahead = self._text[self._at : self._at + 2]
        return ahead[:1] in allowed and ahead != "/*" and ahead != "->" and ahead != ""

    def _port(self) -> bool:
        """A colon belongs to a name only before a digit: TensorFlow's `input:0`."""
        ahead = self._text[self._at : self._at + 2]
        return len(ahead) == 2 and ahead[0] == ":" and ahead[1] in _DIGITS

    def _word(self, kind: str, allowed: frozenset[str]) -> Token:
        token, begin = self._token(kind, ""), self._at
        while self._taken(allowed):
            self._at += 1
        token.text = self._text[begin : self._at]
        return token

    def _number(self) -> Token:
        """`3`, `0.5f`, `1e-05f`, `2i64`; behind a dot only digits, so that `(...).0.1` projects twice."""
        if self._tokens and (self._tokens[-1].kind, self._tokens[-1].text) == ("mark", "."):
            return self._word("number", _DIGITS)
        token, begin = self._token("number", ""), self._at
        while self._taken(_DIGITS | frozenset(".")):
            self._at += 1
        if self._text[self._at : self._at + 1] in ("e", "E"):
            self._at += 2 if self._text[self._at + 1 : self._at + 2] in ("+", "-") else 1
        while self._taken(_DIGITS | _LETTERS):
            self._at += 1
        token.text = self._text[begin : self._at]
        return token

    def _string(self, kind: str) -> Token:
        token, parts = self._token(kind, ""), []
        self._at += 1
        while self._at < len(self._text) and self._text[self._at] not in '"\n':
            self._at += self._text[self._at] == "\\"
            parts.append(self._text[self._at : self._at + 1])
            self._at += 1
        if not self._text.startswith('"', self._at):
            raise fault("the string does not end", token)
        self._at += 1
        token.text = "".join(parts)
        return token

    def _attribute(self) -> Token:
        token = self._token("attribute", "")
        end = self._text.find("]", self._at)
        if end < 0 or not self._text.startswith("#[", self._at):
            raise fault('`#` begins an attribute such as #[version = "0.0.5"]', token)
        token.text = self._text[self._at + 2 : end].strip()
        self._at = end + 1
        return token
