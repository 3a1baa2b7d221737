"""Reads the inner loops of assembly by the flow of control: the order of the text misleads."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Syntax:
    """Regular expressions at the beginning of a line, but for `comment`.

    jump : its first group is the label. always : jumps that are always taken. leaves : calls and
    returns. spill : a vector register that is put on the stack.
    """

    comment: str
    jump: str
    always: str
    leaves: str
    spill: str


X86 = Syntax("#", r"j\w+\s+(\S+)", r"jmp\b", "call|ret", r"v?mov\w+\s+%[xyz]mm\d+, .*\(%rsp")
ARM = Syntax(
    "//", r"(?:b|b\.\w+|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)$", r"b\s", r"blr?\s|ret",
    r"st[rp]\s+[qd]\d.*\[(?:sp|x29)",
)  # fmt: skip


def inner_loops(assembly: str, syntax: Syntax) -> list[list[str]]:
    """The bodies of loops that hold no other loop, and no call or return: what checks arguments has none."""
    blocks, follow = _flow(assembly, syntax)
    found = [[line for label in loop for line in blocks[label]] for loop in _innermost(set(blocks), follow)]
    return [body for body in found if not any(re.match(syntax.leaves, line) for line in body)]


def spills(body: list[str], syntax: Syntax) -> list[str]:
    """Vectors that are put on the stack."""
    return [line for line in body if re.match(syntax.spill, line)]


def _flow(assembly: str, syntax: Syntax) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Instructions of each block, and the blocks that may follow it; a block ends at a label or jump."""
    blocks: dict[str, list[str]] = {}
    follow: dict[str, set[str]] = {}
    here = ""
    for i, text in enumerate(assembly.splitlines()):
        line = text.split(syntax.comment)[0].strip()
        label = line[:-1] if line.endswith(":") else None
        if label is not None:
            if here:
                follow[here].add(label)
            here = label
            blocks[here], follow[here] = [], set()
        elif line and not line.startswith(".") and here:
            blocks[here].append(line)
            jump = re.match(syntax.jump, line)
            if jump:
                follow[here].add(jump[1])
                after = f"after {i}"
                blocks[after], follow[after] = [], set()
                if not re.match(syntax.always, line):
                    follow[here].add(after)
                here = after
            elif line.startswith("ret"):
                here = ""
    return blocks, follow


def _innermost(blocks: set[str], follow: dict[str, set[str]]) -> list[list[str]]:
    """The loops among `blocks` that hold none, each in the order of the assembly."""
    found = []
    for loop in _cycles(blocks, follow):
        entered = {to for at, ends in follow.items() if at not in loop for to in ends if to in loop}
        inner = _innermost(loop - (entered or set(sorted(loop)[:1])), follow)
        found += inner or [[label for label in follow if label in loop]]
    return found


def _cycles(blocks: set[str], follow: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of blocks in which each leads to each, by two walks (Kosaraju)."""
    before: dict[str, set[str]] = {label: set() for label in blocks}
    for label in blocks:
        for to in follow[label] & blocks:
            before[to].add(label)
    ended = _walk(sorted(blocks), {label: follow[label] & blocks for label in blocks})
    found = []
    seen: set[str] = set()
    for label in reversed(ended):
        part = set(_walk([label], before, seen))
        if len(part) > 1 or (part and label in follow[label]):
            found.append(part)
    return found


def _walk(starts: list[str], follow: dict[str, set[str]], seen: set[str] | None = None) -> list[str]:
    """What can be reached and was not `seen`, in the order in which walks end; adds it to `seen`."""
    seen = set() if seen is None else seen
    ended: list[str] = []
    path = [(start, False) for start in reversed(starts)]
    while path:
        label, done = path.pop()
        if done:
            ended.append(label)
        elif label not in seen:
            seen.add(label)
            path.append((label, True))
            path += [(to, False) for to in follow[label] - seen]
    return ended
