// Every quantizer: what passed through it against the range that training gave it.

const PAGE = 12;

function badness(quantizer) {
  const clipped = quantizer.kind === "activation" ? quantizer.clipped_low + quantizer.clipped_high : 0;
  return (quantizer.warnings.length ? 10 : 0) + (quantizer.used_share === 0 ? 5 : 0) + clipped + (1 - quantizer.used_share) / 100;
}

function rangesSection() {
  const state = { text: "", kind: "all", order: "worst", shown: PAGE };
  const cards = h("div", { class: "cards" });
  const count = h("span", { class: "count", role: "status" });
  const more = h("button", { type: "button", onclick: () => { state.shown += 3 * PAGE; draw(); } });
  const kinds = { all: () => true, activation: (q) => q.kind === "activation", weight: (q) => q.kind === "weight", warned: (q) => q.warnings.length > 0 };
  const draw = () => {
    const found = data.quantizers.filter((q) => kinds[state.kind](q) && q.name.toLowerCase().includes(state.text));
    if (state.order === "worst") found.sort((a, b) => badness(b) - badness(a));
    if (state.order === "name") found.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    cards.replaceChildren(...found.slice(0, state.shown).map((quantizer) => card(quantizer)));
    count.textContent = `${whole(found.length)} of ${whole(data.quantizers.length)}`;
    more.hidden = found.length <= state.shown;
    more.textContent = `Show ${whole(Math.min(3 * PAGE, found.length - state.shown))} more`;
  };
  const change = (key) => (value) => { Object.assign(state, { [key]: value, shown: PAGE }); draw(); };
  const tools = [
    search("Search quantizers", change("text")),
    select("show", [["all", "all"], ["activation", "activations"], ["weight", "weights"], ["warned", "with warnings"]], change("kind")),
    select("sort", [["worst", "worst first"], ["model", "as in the model"], ["name", "by name"]], change("order")),
    count,
  ];
  draw();
  return section("ranges", "Ranges",
    "Values in steps, before they were rounded, against the range (shaded). Red lies beyond it and is clipped, grey is what a relu cuts off. Counts on a logarithmic scale.",
    tools, cards, h("div", { class: "tools" }, more), quantizerTable());
}

function card(quantizer, width = 270) {
  const [low, high] = quantizer.range;
  const ends = quantizer.kind === "weight" ? "at its ends" : "clipped";
  const below = cutByRelu(quantizer) ? `${percent(quantizer.clipped_low)} low (a relu)` : `${percent(quantizer.clipped_low)} low`;
  return h("article", { class: "panel card" },
    h("h3", {}, layerLink(quantizer.layer, quantizer.name, 60)),
    h("div", { class: "line" }, h("span", {}, quantizer.kind), h("span", {}, `${quantizer.dtype} [${low}, ${high}]`),
      h("span", {}, `scale ${range(quantizer.scale)}${quantizer.channels ? `, ${whole(quantizer.channels)} channels` : ""}`)),
    histogram(quantizer, width),
    h("div", { class: "line" }, h("span", {}, `uses ${percent(quantizer.used_share)} of its range`),
      h("span", {}, `${ends} ${below}, ${percent(quantizer.clipped_high)} high`)),
    ...quantizer.warnings.map((text) => h("p", { class: "said" }, `⚠ ${text}`)));
}

// A range that begins at zero is a relu: what it cuts off below, it is meant to.
function cutByRelu(quantizer) {
  return quantizer.kind === "activation" && quantizer.clipped_low > 0 && quantizer.zero_point.every((zero) => zero === quantizer.range[0]);
}

function histogram(quantizer, width, height = 92) {
  const { low, high, counts, below, above } = quantizer.histogram;
  const [first, last] = quantizer.range;
  const base = height - 16;
  const tallest = Math.log1p(Math.max(...counts, below, above, 1));
  const x = (step) => 4 + ((step - low) / (high - low)) * (width - 8);
  const bar = (width - 8) / counts.length;
  const size = (high - low) / counts.length;
  const share = percent((counts.reduce((sum, n) => sum + n, 0)) / Math.max(quantizer.elements, 1));
  const svg = s("svg", {
    class: "histogram", width: "100%", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Histogram of ${quantizer.name}: uses ${percent(quantizer.used_share)} of [${first}, ${last}]; ${share} of ${quantizer.elements} values are shown`,
  }, s("rect", { class: "range", x: x(first), y: 0, width: x(last) - x(first), height: base }));
  counts.forEach((count, i) => {
    if (!count) return;
    const middle = low + (i + 0.5) * size;
    const tall = Math.max((Math.log1p(count) / tallest) * (base - 6), 1);
    const outside = middle < first - size / 2 || middle > last + size / 2;
    const kind = !outside ? "" : middle < first && cutByRelu(quantizer) ? "absorbed" : "clipped";
    svg.append(s("rect", { class: `column ${kind}`, x: 4 + i * bar + 0.3, y: base - tall, width: bar - 0.6, height: tall }));
  });
  for (const at of [first, last]) svg.append(s("line", { class: "limit", x1: x(at), x2: x(at), y1: 0, y2: base }));
  svg.append(s("line", { class: "axis", x1: 4, x2: width - 4, y1: base, y2: base }),
    s("text", { x: x(first), y: height - 3, "text-anchor": "middle" }, first),
    s("text", { x: x(last), y: height - 3, "text-anchor": "middle" }, last));
  if (below) svg.append(s("text", { class: "strong", x: 5, y: 11 }, `◂ ${scaled(below)}`));
  if (above) svg.append(s("text", { class: "strong", x: width - 5, y: 11, "text-anchor": "end" }, `${scaled(above)} ▸`));
  return svg;
}

function quantizerTable() {
  return table(data.quantizers, [
    { label: "Quantizer", first: true, value: (row) => row.name, cell: (row) => layerLink(row.layer, row.name) },
    { label: "Of", value: (row) => row.kind },
    { label: "Type", value: (row) => row.dtype },
    { label: "Range", value: (row) => row.range[1] - row.range[0], text: (row) => row.range.join(" "), cell: (row) => `[${row.range.join(", ")}]` },
    { label: "Scale", number: true, value: (row) => row.scale[1], cell: (row) => digits(row.scale[1]), title: "the largest, where channels have their own" },
    { label: "Zero point", number: true, value: (row) => row.zero_point[0] },
    { label: "Used", number: true, value: (row) => row.used_share, cell: (row) => percent(row.used_share) },
    { label: "Low", number: true, value: (row) => row.clipped_low, cell: (row) => percent(row.clipped_low), title: "clipped, or for weights at the end of the range" },
    { label: "High", number: true, value: (row) => row.clipped_high, cell: (row) => percent(row.clipped_high) },
    { label: "Warnings", wide: true, value: (row) => row.warnings.join("; ") },
  ], { caption: "Quantizers", what: ["quantizer", "quantizers"], limit: PAGE, layer: (row) => row.layer });
}
