"""Show what this machine and this installation can do."""

from __future__ import annotations

import argparse

from tvm_qat.cli import console

_SIGNS = {"ok": "ok", "missing": "-", "wrong": "WRONG"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    from tvm_qat import doctor

    findings = list(doctor.examine())
    wrong = any(finding.state == "wrong" for finding in findings)
    if args.json:
        console.print_json({"ok": not wrong, "findings": [finding.to_json() for finding in findings]})
        return int(wrong)
    columns = [("", "left"), ("what", "left"), ("found", "left"), ("remedy", "left")]
    rows = [[_SIGNS[f.state], f.name, f.value, f.remedy] for f in findings]
    console.out().print(console.table(None, columns, rows))
    return int(wrong)
