// Numbers as a person reads them. Exact zeros and exact matches are said so.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function whole(value) {
  return grouped.format(value);
}

function counted(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

function digits(value, count = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10 ** count || Number.isInteger(value)) return size < 1e9 ? whole(value) : value.toExponential(1);
  return size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(count)));
}

function percent(share) {
  if (share === null || share === undefined) return "";
  if (share === 0) return "0%";
  if (share === 1) return "100%";
  const value = 100 * share;
  if (value < 0.01) return "< 0.01%";
  if (value > 99.99) return "> 99.99%";
  return `${value < 1 ? value.toPrecision(1) : value.toFixed(value < 10 || value > 99 ? 1 : 0)}%`;
}

function scaled(value, unit = "") {
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return `${digits(value / size)} ${letter}${unit}`;
  }
  return `${digits(value)}${unit ? ` ${unit}` : ""}`;
}

function bytes(value) {
  return value < 1000 ? `${value} B` : scaled(value, "B");
}

function seconds(value) {
  if (value === 0) return "0";
  const [factor, unit] = value >= 1 ? [1, "s"] : value >= 1e-3 ? [1e3, "ms"] : [1e6, "µs"];
  const shown = value * factor;
  return `${shown.toFixed(shown >= 100 ? 0 : shown >= 10 ? 1 : 2)} ${unit}`;
}

function steps(value) {
  return value === 1 ? "1 step" : `${digits(value)} steps`;
}

function decibels(value) {
  return value === null ? "exact" : `${value.toFixed(1)} dB`;
}

function range([low, high]) {
  return low === high ? digits(low) : `${digits(low)} to ${digits(high)}`;
}

function shape(sizes) {
  return sizes.length ? sizes.join(" × ") : "";
}

function operator(name) {
  return name.replace(/(^|, )(qnn|relax(\.nn)?)\./g, "$1");
}

// Both ends of a name that is longer; the last part says more than the first. TFLite joins the names of all
// nodes that it merged by semicolons: there the first is enough.
function short(name, letters) {
  const first = name.split(";")[0];
  if (name.length > letters && first && first.length + 2 <= letters) return `${first};…`;
  const head = letters < 20 ? 0 : Math.floor(letters / 3);
  return name.length <= letters ? name : `${name.slice(0, head)}…${name.slice(name.length - letters + head + 1)}`;
}

// The greatest difference of a row, in steps where it has a grid.
function most(figures) {
  if (!figures.differing) return "0";
  return figures.max_steps === null ? percent(figures.max_relative) : steps(figures.max_steps);
}

const STAGES = {
  canonical: ["Canonical", "every fake quantization written as quantize and dequantize"],
  reference: ["Reference", "folded into integers, computed by NumPy"],
  compiled: ["Compiled", "machine code for this target"],
};

const SIMULATED = "reference/simulation";

function stageKey(stage) {
  return `${stage.name}/${stage.against}${stage.inherited ? "*" : ""}`;
}

function stageTitle(stage) {
  const name = (STAGES[stage.name] ?? [stage.name])[0];
  return `${name} against ${stage.against}${stage.inherited ? ", as it runs" : ""}`;
}

function stageText(stage) {
  if (stage.inherited) return "with what each layer inherits from those before it";
  if (stage.name === "reference" && stage.against !== "simulation") return "the tensors that this engine shows, as it runs";
  const [, text] = STAGES[stage.name] ?? [null, ""];
  return data.stages.some((other) => stageKey(other) === `${stageKey(stage)}*`)
    ? `${text}; each layer alone, on the simulation's inputs` : text;
}
