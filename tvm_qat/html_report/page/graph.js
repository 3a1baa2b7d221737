// The model's nodes from top to bottom. Click, or arrow keys and Enter, opens a node's layer.

const ROUND = 5, TALL = 36;

function graphSection() {
  const { width, height, nodes, routes } = data.graph;
  const margin = 16;
  const size = { w: width + 2 * margin, h: height + 2 * margin };
  const svg = s("svg", { viewBox: `${-margin} ${-margin} ${size.w} ${size.h}`, role: "group", "aria-label": "Graph of the model" });
  svg.append(...routes.map((route) => s("path", { class: "edge", d: curve(route) })));
  const drawn = nodes.map((node, i) => nodeOf(node, i));
  svg.append(...drawn);
  const canvas = h("div", { class: "canvas", tabindex: -1 }, svg);
  const zoom = { by: 1 };
  const resize = (by, fit) => {
    zoom.by = Math.min(Math.max(by, 0.05), 2.5);
    const middle = (canvas.scrollTop + canvas.clientHeight / 2) / Math.max(canvas.scrollHeight, 1);
    svg.setAttribute("width", size.w * zoom.by);
    svg.setAttribute("height", size.h * zoom.by);
    canvas.scrollTop = fit ? 0 : middle * canvas.scrollHeight - canvas.clientHeight / 2;
  };
  const reveal = (node) => {
    const box = node.getBoundingClientRect(), frame = canvas.getBoundingClientRect();
    canvas.scrollTop += box.top + box.height / 2 - frame.top - frame.height / 2;
    canvas.scrollLeft += box.left + box.width / 2 - frame.left - frame.width / 2;
  };
  walk(drawn, nodes, reveal);
  onChoice((layer) => drawn.forEach((node, i) => {
    const mine = layer !== null && nodes[i].layer === layer;
    node.classList.toggle("chosen", mine);
    if (mine) reveal(node);
  }));
  const found = (text) => {
    const hits = drawn.filter((node, i) => node.classList.toggle("found", text !== "" && nodes[i].name.toLowerCase().includes(text)) );
    if (hits.length) reveal(hits[0]);
  };
  const tools = [
    search("Find a node", found),
    h("button", { type: "button", "aria-label": "Zoom in", onclick: () => resize(zoom.by * 1.25) }, "+"),
    h("button", { type: "button", "aria-label": "Zoom out", onclick: () => resize(zoom.by / 1.25) }, "−"),
    h("button", { type: "button", onclick: () => resize(Math.min((canvas.clientHeight - 4) / size.h, (canvas.clientWidth - 4) / size.w), true) }, "Fit"),
    h("button", { type: "button", onclick: () => resize(1, true) }, "1:1"),
  ];
  resize(1, true);
  return section("graph", "Graph",
    `${counted(nodes.length, "node")} of the model as it was imported, without those that only quantize or dequantize.`, tools,
    h("div", { class: "panel" }, legend(["integer", "integer"], ["float", "float (dashed)"], ["absorbed", "absorbed (dotted), input, output"], ["clipped", "✕ differs"], ["warned", "! range"]), canvas));
}

function curve(route) {
  const [first, ...rest] = route;
  let path = `M${first[0]} ${first[1] + TALL / 2}`;
  let from = [first[0], first[1] + TALL / 2];
  rest.forEach(([x, y], i) => {
    const to = [x, i === rest.length - 1 ? y - TALL / 2 : y];
    const half = (to[1] - from[1]) / 2;
    path += `C${from[0]} ${from[1] + half} ${to[0]} ${to[1] - half} ${to[0]} ${to[1]}`;
    from = to;
  });
  return path;
}

function nodeOf(node, i) {
  const layer = node.layer === null ? null : layers[node.layer];
  const state = layer ? layer.state : "border";
  const below = layer ? operator(layer.op) : node.kind;
  const said = layer ? `${node.name}, ${below}, ${state}` : `${node.kind} ${node.name}`;
  const letters = Math.floor((node.width - 22) / 5.6);
  return s("g", {
    class: `node ${state}`, role: "button", tabindex: i === 0 ? 0 : -1, "aria-label": said,
    transform: `translate(${node.x - node.width / 2} ${node.y - TALL / 2})`,
  },
  s("rect", { width: node.width, height: TALL, rx: ROUND }),
  s("rect", { class: "edgebar", x: 4, y: 6, width: 5, height: TALL - 12, rx: 2 }),
  s("text", { x: node.width / 2 + 4, y: 15, "text-anchor": "middle" }, node.label),
  s("text", { class: "kind", x: node.width / 2 + 4, y: 28, "text-anchor": "middle" }, below.length > letters ? `${below.slice(0, letters - 1)}…` : below),
  badge(node, layer),
  s("title", {}, said));
}

// Red where a number is wrong, amber where a range has a warning; each with its sign.
function badge(node, layer) {
  const fact = layer ? facts[layer.place] : null;
  const wrong = fact && Object.entries(fact.stages).some(([stage, row]) => (stage === COMPILED ? row.differing : stage === SIMULATED && row.max_steps !== null && row.tie_share < 1));
  if (!wrong && !fact?.warnings.length) return null;
  const sign = wrong ? "✕" : "!";
  return s("g", { class: `badge ${wrong ? "wrong" : "range"}` },
    s("circle", { cx: node.width - 2, cy: 2, r: 7 }),
    s("text", { x: node.width - 2, y: 6, "text-anchor": "middle" }, sign));
}

// One stop for the tab key; arrows walk through the nodes in execution order.
function walk(drawn, nodes, reveal) {
  drawn.forEach((node, i) => {
    node.addEventListener("click", () => pick(i));
    node.addEventListener("keydown", (event) => {
      const to = { ArrowDown: i + 1, ArrowRight: i + 1, ArrowUp: i - 1, ArrowLeft: i - 1, Home: 0, End: drawn.length - 1 }[event.key];
      if (event.key === "Enter" || event.key === " ") pick(i);
      else if (to === undefined || !drawn[to]) return;
      else {
        node.setAttribute("tabindex", -1);
        drawn[to].setAttribute("tabindex", 0);
        drawn[to].focus({ preventScroll: true });
        reveal(drawn[to]);
      }
      event.preventDefault();
    });
  });
  const pick = (i) => { if (nodes[i].layer !== null) choose(nodes[i].layer); };
}
