"""The whole flow: import, passes, kernels, machine code, package."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tvm_ffi

from tvm_qat import importers, kernels, pipeline
from tvm_qat.errors import InputError, PackageError, located
from tvm_qat.ir import IRModule, tvm
from tvm_qat.kernels.cuda.table import is_cuda
from tvm_qat.options import ModelKeywords, Options, split
from tvm_qat.package import Meta, Package, build, read, signature
from tvm_qat.package.container import is_tar
from tvm_qat.package.cuda import check_nvcc
from tvm_qat.package.details import Details
from tvm_qat.package.link import check_cross_compiler
from tvm_qat.package.meta import Schedule
from tvm_qat.package.target import parse_target, platform_of, target_json
from tvm_qat.passes.keep_float import keep_float
from tvm_qat.report import Report, report_of
from tvm_qat.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from tvm_qat.importers.options import ImportKeywords

Progress = Callable[[str, float], None]
"""Called with the name of the stage that begins, and the share of all work done before it."""

_STAGES = {"import": 0.0, "passes": 0.1, "kernels": 0.3, "machine code": 0.5, "done": 1.0}


@dataclass
class _Stages:
    """Tells the caller what is going on, and keeps the time."""

    progress: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)
    _begun: tuple[str, float] | None = None

    def begin(self, name: str) -> None:
        now = time.perf_counter()
        if self._begun is not None:
            self.seconds[f"[{self._begun[0]}]"] = now - self._begun[1]
        self._begun = (name, now)
        if self.progress is not None:
            self.progress(name, _STAGES[name])


def compile(
    model: Any, target: Any = "llvm", *, pass_config: Mapping[str, Any] | None = None,
    cross_compiler: str | None = None, dump: Sequence[str] = (), progress: Progress | None = None,
    timings: dict[str, float] | None = None, **options: Unpack[ModelKeywords],
) -> Package:  # fmt: skip
    """Compile a model to integer code.

    Parameters
    ----------
    model : path of a model file, a framework's own object, or an IRModule from any TVM importer.
    target : what TVM takes (string, dictionary, Target) of kind llvm or cuda, or "native".
    pass_config : options of TVM's PassContext.
    cross_compiler : command that links for a target of another architecture.
    dump : texts to keep in `Package.dumps`: any of relax, tir, ll, asm, ptx.
    progress : see Progress. timings : filled with seconds by pass and stage.
    options : format, input_shapes, encodings, trust, params and signature, as `import_model` takes them;
        rounding, disabled_passes (of TVM too), keep_float and only_int8, see `options.Options`; config,
        a file with these four.

    Raises InputError (with subclasses) if the model or an option is at fault.
    """
    chosen, unknown = parse_target(target), [name for name in dump if name not in build.DUMPS]
    if unknown:
        raise InputError(f"dump {unknown[0]!r} is not known; choose from {', '.join(build.DUMPS)}")
    check_cross_compiler(cross_compiler, platform_of(chosen).triple)
    check_nvcc(chosen)
    stages = _Stages(progress, {} if timings is None else timings)
    imports, passes = split(options)
    others = [name for name in passes.disabled_passes if name in build.tvm_passes()]
    with build.pass_context(pass_config or {}, others):
        stages.begin("import")
        source = as_module(model, **imports)
        folded = _folded(source, stages, passes)
        package = _packed(source, folded, chosen, stages, dump, cross_compiler)
    stages.begin("done")
    return package


def compile_folded(source: IRModule, folded: IRModule, target: Any) -> Package:
    """The package of a module that went through the passes. source : the module as imported."""
    with build.pass_context({}, ()):
        return _packed(source, folded, parse_target(target), _Stages(None))


def _packed(
    source: IRModule, folded: IRModule, target: Any, stages: _Stages, dump: Sequence[str] = (),
    cross_compiler: str | None = None,
) -> Package:  # fmt: skip
    stages.begin("kernels")
    lowered = _lowered(folded, target)
    lowered, constants, schedule = kernels.without_schedule(lowered)
    stages.begin("machine code")
    executable = build.executable_of(lowered, target)
    report = _report(folded, source, lowered, target)
    shown = report.to_json()
    return Package(
        _describe(folded, lowered, target, schedule, report),
        Details(shown["layers"], shown["removed"]),
        executable=executable,
        constants=constants,
        cross_compiler=cross_compiler,
        dumps={form: _text(form, folded, lowered, executable) for form in dump},
        results=schedule["results"] if schedule is not None else (),
    )


def inspect(
    model: Any, target: Any = None, *, progress: Progress | None = None, **options: Unpack[ModelKeywords]
) -> Report:
    """What will run on integers, what stays in float and why; of a model or of a saved package.

    target : whose kernels are named, by default "native". The rest does not depend on it.

    Options as for `compile`. Raises InputError if a package is given any: it was compiled with its own.
    """
    if isinstance(model, str | os.PathLike) and is_tar(model):
        model = read(model)
    if isinstance(model, Package):
        _refuse("a package", target=target, **options)
        return _stored_report(model)
    chosen, stages = parse_target(target or "native"), _Stages(progress)
    imports, passes = split(options)
    stages.begin("import")
    source = as_module(model, **imports)
    folded = _folded(source, stages, passes)
    stages.begin("kernels")
    report = _report(folded, source, _lowered(folded, chosen), chosen)
    stages.begin("done")
    return report


def _report(folded: IRModule, source: IRModule, lowered: IRModule, target: Any) -> Report:
    return report_of(folded, source, kernels.chosen_kernels(lowered), kernels.instruction_of(target))


def _stored_report(package: Package) -> Report:
    rows = {"layers": package.layers, "removed": package.removed, "totals": package.totals}
    try:
        return Report.from_json(rows)
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"the package's table of layers is malformed: {error!r}") from None


def _lowered(folded: IRModule, target: Any) -> IRModule:
    """The kernels for a target, and TVM's own passes."""
    return kernels.finish(target, one_call=not is_cuda(target))(kernels.lower(folded, target))


def _folded(source: IRModule, stages: _Stages, options: Options) -> IRModule:
    ours = [name for name in options.disabled_passes if name not in build.tvm_passes()]
    stages.begin("passes")
    marked = keep_float(source, options.keep_float, options.only_int8)
    after = stages.seconds.__setitem__
    return pipeline.run(marked, rounding=options.rounding, disabled=ours, after=after)


def as_module(model: Any, **options: Unpack[ImportKeywords]) -> IRModule:
    """`model` as the module that the passes start from."""
    if not isinstance(model, IRModule):
        return importers.import_model(model, **options)
    if "main" not in [gvar.name_hint for gvar in model.get_global_vars()]:
        raise InputError(located("the module has no function main", remedy="name the entry function main"))
    _refuse("a module that was imported already", **options)
    return model


def _refuse(what: str, **options: object) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise InputError(f"{' and '.join(given)} need a model file, not {what}")


def _describe(
    folded: IRModule, lowered: IRModule, target: Any, schedule: dict[str, Any] | None, report: Report
) -> Meta:
    return Meta(
        signature.inputs_of(folded),
        signature.outputs_of(folded),
        target_json(target),
        platform_of(target),
        {
            "tvm_qat": __version__,
            "tvm": str(tvm.__version__),
            "tvm_ffi": str(tvm_ffi.__version__),
            "llvm": str(tvm.target.codegen.llvm_version_major()),
        },
        report.totals,
        _kernels(lowered, own=True),
        _kernels(lowered, own=False),
        Schedule.from_json(schedule) if schedule is not None else None,
    )


def _kernels(lowered: IRModule, *, own: bool) -> dict[str, tuple[str, ...]]:
    """The source nodes of each kernel's calls, by its symbol: of our kernels, or of those that TVM wrote."""
    attrs = {gvar.name_hint: func.attrs or {} for gvar, func in lowered.functions_items()}
    return {
        name: tuple(map(str, found[kernels.SOURCES]))
        for name, found in attrs.items()
        if kernels.SOURCES in found and own == (found.get(kernels.KERNEL) != kernels.TVM)
    }


def _text(form: str, folded: IRModule, lowered: IRModule, executable: Any) -> str:
    if form == "relax":
        return str(folded.script(show_meta=False))
    return str(lowered.script(show_meta=False)) if form == "tir" else build.code_of(executable, form)
