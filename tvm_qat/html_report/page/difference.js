// How far each stage is from the one before, layer by layer.

const MEASURES = {
  max: ["Largest difference", (row) => row.max_steps, digits, false, "steps", steps],
  mean: ["Mean difference", (row) => row.mean_steps, (value) => digits(value, 2), false, "steps", (value) => `${digits(value, 2)} steps`],
  share: ["Elements that differ", (row) => row.differing / Math.max(row.elements, 1), percent, false, "share"],
  noise: ["Noise", (row) => row.noise, (value) => (value ? `${(-10 * Math.log10(value)).toFixed(0)} dB` : "0"), true, "signal to noise"],
};

function differenceSection() {
  const plots = h("div", { class: "panel" });
  const draw = (key) => plots.replaceChildren(...data.stages.map((stage) => stagePlot(stage, key)));
  const tools = choice("Measure", [
    ["max", "Largest, in steps"], ["mean", "Mean, in steps"], ["share", "Elements that differ"], ["noise", "Noise (SQNR)"],
  ], draw);
  draw("max");
  return section("difference", "Difference, stage by stage",
    "One column for each layer, in execution order. A step is one integer of the layer's grid; tensors that stay in float have no steps, they are in the other two measures.",
    [tools], plots, stageTable());
}

function stagePlot(stage, key) {
  const [title, value, unit, log, name, said] = MEASURES[key];
  const rows = stage.rows.filter((row) => value(row) !== null).map((row) => ({
    layer: row.layer,
    name: layers[row.layer].name,
    kind: layers[row.layer].state,
    value: value(row),
    weight: row.noise,
    lines: [
      `largest ${most(row)}${row.mean_steps === null ? "" : `, mean ${digits(row.mean_steps, 2)}`}`,
      `${percent(row.differing / Math.max(row.elements, 1))} of ${whole(row.elements)} elements differ`,
      `SQNR ${decibels(row.sqnr_db)}${stage.against === "simulation" && row.differing && row.max_steps !== null ? `, ties explain ${percent(row.tie_share)}` : ""}`,
    ],
  })).sort((a, b) => a.layer - b.layer);
  return plot(rows, {
    title: stageTitle(stage),
    text: `${title.toLowerCase()} (${name}); ${stageText(stage)}`,
    unit, said: said ?? unit, log, height: 118, worst: true, integer: key === "max",
    none: rows.length ? `✓ no element differs in ${counted(rows.length, "layer")}` : "no layer lies on a grid",
  });
}

function stageTable() {
  const rows = data.stages.filter((stage) => stage.summary).map((stage) => [stage, stage.summary]);
  const heads = ["Stage", "Layers", "differ", "Elements", "differ", "Largest", "Mean", "By ties", "First layer", "Worst layer"];
  const body = rows.map(([stage, sum]) => h("tr", {},
    h("th", { scope: "row" }, stageTitle(stage)),
    ...[whole(sum.layers), whole(sum.differing_layers), whole(sum.elements), whole(sum.differing), steps(sum.max_steps),
      digits(sum.mean_steps, 2), sum.differing && stage.against === "simulation" ? percent(sum.tie_share) : "–"].map((text) => h("td", { class: "number" }, text)),
    ...[sum.first_layer, sum.worst_layer].map((name) => h("td", { class: "wide" }, name ? named(name) : "–"))));
  const head = heads.map((text, i) => h("th", { scope: "col", class: i > 0 && i < 8 ? "number plain" : "plain" }, text));
  const made = h("table", { "aria-label": "Stages" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body));
  return h("div", { class: "panel flush", tabindex: 0, role: "region", "aria-label": "Stages" }, made);
}

function named(name) {
  const place = layers.findIndex((layer) => layer.name === name);
  return layerLink(place < 0 ? null : place, name);
}
