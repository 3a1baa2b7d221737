// What runs on integers, and the table of all layers.

const running = layers.filter((layer) => layer.state === "integer" || layer.state === "float");

function coverageSection() {
  const totals = data.totals;
  const rows = running.map((layer) => ({
    layer: layer.place, name: layer.name, kind: layer.state, value: layer.macs,
    lines: [`${operator(layer.op)}, ${layer.state} (${layer.dtype})${layer.isa ? `, ${layer.isa}` : ""}`, `${scaled(layer.macs)} multiply-accumulates`,
      layer.reason ?? ""].filter(Boolean),
  }));
  const columns = plot(rows, {
    title: "Multiply-accumulates by layer",
    text: `${scaled(totals.macs)} in all; the strip below has a field for every layer, also for those without products`,
    unit: (value) => scaled(value), none: "no layer multiplies", height: 140, strip: true,
  });
  const panel = h("div", { class: "panel" },
    h("div", { class: "tools spread" },
      h("div", {}, h("h3", {}, `${percent(totals.int8_mac_share)} of the multiply-accumulates run on integers`),
        h("p", { class: "muted" }, `${counted(totals.integer_operators, "operator")} on integers, ${whole(totals.float_operators)} in float, ${counted(totals.grid_changes, "change of grid", "changes of grid")}`)),
      legend(["integer", "integer"], ["float", "float (hatched)"])),
    split(totals), columns, totalsList(totals));
  const left = running.filter((layer) => layer.state === "float");
  return section("coverage", "Coverage", "Which layers run on integers, and why others do not.", [], panel,
    left.length ? floatTable(left) : null);
}

function totalsList(totals) {
  const entries = [
    ["bytes of tensors on integers", percent(totals.int8_byte_share)],
    ["constants", `${bytes(totals.weight_bytes)}, were ${bytes(totals.source_weight_bytes)}`],
    ["batch norms folded", whole(totals.batch_norms_folded)],
    ["requantizes cancelled", whole(totals.requantizes_cancelled)],
    ["nodes pruned", whole(totals.pruned)],
  ];
  return h("dl", { class: "totals" }, entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function split(totals) {
  const share = 100 * totals.int8_mac_share;
  const parts = s("svg", { viewBox: "0 0 100 14", preserveAspectRatio: "none", role: "img", "aria-label": `integer ${percent(totals.int8_mac_share)}` },
    s("rect", { class: "column integer", width: share, height: 14 }),
    s("rect", { class: "column float", x: share, width: 100 - share, height: 14 }));
  return h("div", { class: "split" }, parts);
}

function floatTable(left) {
  return table(left, [
    { label: "Layer", first: true, value: (row) => row.name, cell: (row) => layerLink(row.place) },
    { label: "Operator", value: (row) => operator(row.op) },
    { label: "MACs", number: true, value: (row) => row.macs, cell: (row) => scaled(row.macs) },
    { label: "Why it stays in float", wide: true, value: (row) => row.reason },
    { label: "Remedy", wide: true, value: (row) => row.remedy },
    { label: "Code", value: (row) => row.code, cell: (row) => h("code", {}, row.code) },
  ], { caption: "Layers in float", what: ["layer in float", "layers in float"], sort: [2, true], layer: (row) => row.place });
}

// One row of everything that is known of a layer, for the large table and the panel.
const facts = layers.map((layer) => ({ ...layer, stages: {}, seconds: 0, bound: 0, quantizers: [], warnings: [] }));
for (const stage of data.stages) {
  const key = stageKey(stage);
  for (const row of stage.rows) {
    const known = facts[row.layer].stages[key];
    if (!known || row.noise > known.noise) facts[row.layer].stages[key] = row;
  }
}
for (const kernel of data.kernels) {
  if (kernel.layer === null) continue;
  facts[kernel.layer].seconds += kernel.seconds;
  if (data.peak?.gops) facts[kernel.layer].bound += (2e-9 * kernel.macs) / data.peak.gops;
}
data.quantizers.forEach((quantizer) => {
  if (quantizer.layer === null) return;
  facts[quantizer.layer].quantizers.push(quantizer);
  facts[quantizer.layer].warnings.push(...quantizer.warnings);
});

function timeOf(row) {
  if (row.seconds) return seconds(row.seconds);
  const host = row.host === undefined || row.host === null ? null : layers[row.host];
  return host && host.place !== row.place ? h("span", { class: "muted" }, `in #${host.number}`) : "";
}

function warned(row) {
  if (!row.warnings.length) return "";
  const text = `${row.warnings.length} range ${row.warnings.length === 1 ? "warning" : "warnings"}`;
  return h("span", { class: "said", title: row.warnings.join("\n") }, h("span", { "aria-hidden": "true" }, `⚠ ${row.warnings.length}`), h("span", { class: "hidden" }, text));
}

const COMPILED = "compiled/reference";

function layersSection() {
  const of = (row, stage) => row.stages[stage];
  const share = (figures) => (figures ? figures.differing / Math.max(figures.elements, 1) : null);
  const columns = [
    { label: "#", number: true, value: (row) => row.number, cell: (row) => row.number ?? "" },
    { label: "Layer", first: true, value: (row) => row.name, cell: (row) => layerLink(row.place, row.name, 38) },
    { label: "Operator", value: (row) => operator(row.op) },
    { label: "Runs in", value: (row) => row.state, cell: (row) => tag(row.state) },
    { label: "MACs", number: true, value: (row) => row.macs, cell: (row) => (row.macs ? scaled(row.macs) : "") },
    { label: "Differ", number: true, value: (row) => share(of(row, SIMULATED)), cell: (row) => percent(share(of(row, SIMULATED))), title: "elements of the reference that differ from the simulation, the layer alone" },
    { label: "Largest", number: true, value: (row) => of(row, SIMULATED)?.max_steps ?? of(row, SIMULATED)?.max_relative, cell: (row) => (of(row, SIMULATED) ? most(of(row, SIMULATED)) : ""), title: "in steps of the layer's grid, or of the largest value in float" },
    { label: "SQNR", number: true, value: (row) => of(row, SIMULATED) && (of(row, SIMULATED).sqnr_db ?? 1e9), cell: (row) => (of(row, SIMULATED) ? decibels(of(row, SIMULATED).sqnr_db) : ""), title: "signal to quantization noise, the layer alone" },
    { label: "As it runs", number: true, value: (row) => of(row, `${SIMULATED}*`) && (of(row, `${SIMULATED}*`).sqnr_db ?? 1e9), cell: (row) => (of(row, `${SIMULATED}*`) ? decibels(of(row, `${SIMULATED}*`).sqnr_db) : ""), title: "signal to noise with what it inherits" },
    { label: "Compiled", number: true, value: (row) => of(row, COMPILED)?.differing, cell: (row) => (of(row, COMPILED) ? (of(row, COMPILED).differing ? `${whole(of(row, COMPILED).differing)} differ` : "equal") : ""), title: "elements of compiled code that differ from the reference" },
    { label: "Time", number: true, value: (row) => row.seconds || null, cell: timeOf, title: "or the number of the layer whose kernel does its work too" },
    { label: "Ranges", value: (row) => row.warnings.length || null, text: (row) => row.warnings.join(" "), cell: warned, title: "quantizers whose range is dead, clipped or too wide" },
  ];
  const kept = (row) => row.state !== "absorbed";
  return section("layers", "All layers",
    "Everything in one table. Absorbed nodes have no work left: another layer does it, or passes removed it.", [],
    table(facts, columns, {
      caption: "All layers", what: ["layer", "layers"], layer: (row) => row.place,
      sort: [0, false], filters: [
        ["layers that run", kept], ["all nodes of the model", null],
        ["integer", (row) => row.state === "integer"], ["float", (row) => row.state === "float"],
        ["that differ", (row) => Object.values(row.stages).some((figures) => figures.differing)],
        ["with warnings", (row) => row.warnings.length > 0],
      ],
    }));
}
