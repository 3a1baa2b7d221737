// The panel of one layer: all that is known of it.

function drawer() {
  const content = h("div", { class: "stack" });
  const close = h("button", { type: "button", "aria-label": "Close", onclick: () => choose(null) }, "✕");
  const title = h("h2", { tabindex: -1 });
  const panel = h("aside", { "aria-label": "Layer", hidden: true }, h("div", { class: "top" }, title, close), content);
  let opener = null;
  onChoice((layer) => {
    if (layer === null) {
      panel.hidden = true;
      if (opener && opener.isConnected) opener.focus({ preventScroll: true });
      return;
    }
    if (panel.hidden) opener = document.activeElement;
    title.textContent = facts[layer].name;
    content.replaceChildren(...parts(facts[layer]));
    panel.hidden = false;
    panel.scrollTop = 0;
    title.focus({ preventScroll: true });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !panel.hidden) choose(null);
  });
  return panel;
}

function parts(layer) {
  const made = [h("p", {}, tag(layer.state), ` ${operator(layer.op)} `, h("span", { class: "muted" }, layer.number === null ? "" : `layer ${layer.number} of ${running.length}`))];
  made.push(factTable([
    ["what became of it", layer.how],
    ["part of", other(layer.owner, layer)],
    ["reads", tensors(layer.reads)],
    ["makes", tensors(layer.makes)],
    ["multiply-accumulates", layer.macs ? whole(layer.macs) : ""],
    ["stays in float", layer.reason],
    ["remedy", layer.remedy],
    ["weights", layer.weight_bytes ? bytes(layer.weight_bytes) : ""],
    ["activations", layer.bytes ? `${bytes(layer.bytes)} read and written` : ""],
    ["kernel", layer.kernel ? `${layer.kernel}${layer.isa ? `, ${layer.isa}` : ""}` : ""],
    ["runs in the kernel of", other(layer.host, layer)],
    ["time", layer.seconds ? seconds(layer.seconds) : ""],
    ["bound by its products", layer.bound ? `${seconds(layer.bound)}, ${percent(layer.bound / layer.seconds)} of its time` : ""],
  ]));
  const compared = data.stages.map((stage) => [stage, layer.stages[stageKey(stage)]]).filter(([, row]) => row);
  if (compared.length) made.push(h("div", {}, h("h3", {}, "Difference"), stagesOf(compared)));
  layer.quantizers.forEach((quantizer) => made.push(card(quantizer, 374)));
  return made;
}

function other(place, layer) {
  return place === null || place === undefined || place === layer.place ? "" : layerLink(place);
}

// Tensors with the layers that they come from or stand for, and their grids.
function tensors(list) {
  if (!list?.length) return "";
  return h("ul", { class: "tensors" }, list.map((tensor) => {
    const zero = tensor.zero_point && tensor.zero_point.some((value) => value !== 0) ? `, zero point ${range(tensor.zero_point)}` : "";
    const grid = tensor.scale ? `, scale ${range(tensor.scale)}${zero}` : "";
    return h("li", {}, layerLink(tensor.layer, tensor.source), h("div", { class: "muted" }, `${tensor.dtype} ${shape(tensor.shape)}${grid}`));
  }));
}

function factTable(rows) {
  const known = rows.filter(([, value]) => value);
  return h("table", { class: "facts" }, h("tbody", {}, known.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)))));
}

function stagesOf(compared) {
  const head = ["Stage", "Differ", "Largest", "Ties", "SQNR"];
  return h("table", { class: "small" },
    h("thead", {}, h("tr", {}, head.map((text, i) => h("th", { scope: "col", class: i ? "number" : null }, text)))),
    h("tbody", {}, compared.map(([stage, row]) => h("tr", {},
      h("th", { scope: "row" }, stage.inherited ? "… as it runs" : stage.name === "reference" && stage.against !== "simulation" ? stage.against : (STAGES[stage.name] ?? [stage.name])[0]),
      ...[percent(row.differing / Math.max(row.elements, 1)), most(row), row.differing && row.max_steps !== null ? percent(row.tie_share) : "–", decibels(row.sqnr_db)]
        .map((text) => h("td", { class: "number" }, text))))));
}
