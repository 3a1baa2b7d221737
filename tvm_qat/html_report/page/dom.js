// Elements from plain calls. Text from the data only ever becomes a text node or an attribute.

const data = JSON.parse(document.getElementById("data").textContent);
const layers = data.layers;

// Numbers in execution order for the layers that run; a quantizer has that of its layer.
let numbered = 0;
layers.forEach((layer, place) => {
  layer.place = place;
  layer.number = layer.state === "integer" || layer.state === "float" ? (numbered += 1) : null;
});
layers.forEach((layer) => { layer.number ??= layers[layer.owner]?.number ?? null; });

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// A section of the page: heading, what it shows, tools beside them, and its parts.
function section(id, title, text, tools, ...parts) {
  const heading = h("h2", { id: `${id}-title`, tabindex: -1 }, title);
  const head = h("div", { class: "head" }, h("div", {}, heading, h("p", {}, text)));
  if (tools.length) head.append(h("div", { class: "tools" }, tools));
  return h("section", { id, "aria-labelledby": `${id}-title` }, head, ...parts);
}

function select(label, options, change) {
  const element = h("select", { onchange: () => change(element.value) });
  element.append(...options.map(([value, text]) => h("option", { value }, text)));
  return h("label", {}, label, element);
}

function search(label, change) {
  const field = h("input", {
    type: "search", placeholder: label, "aria-label": label, oninput: () => change(field.value.trim().toLowerCase()),
  });
  return field;
}

// Buttons of which one is pressed.
function choice(label, options, change) {
  const buttons = options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": "false", onclick: () => press(value) }, text));
  function press(value) {
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === value)));
    change(value);
  }
  buttons[0].setAttribute("aria-pressed", "true");
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

const selection = { layer: null, listeners: [] };

// Shows a layer everywhere: in the panel, in the tables and in the graph.
function choose(layer) {
  selection.layer = layer;
  selection.listeners.forEach((listener) => listener(layer));
}

function onChoice(listener) {
  selection.listeners.push(listener);
}

function layerLink(layer, text, letters = 44) {
  const name = text ?? layers[layer].name;
  if (layer === null || layer === undefined) return h("span", { title: name }, short(name, letters));
  return h("button", { type: "button", class: "link", title: name, onclick: () => choose(layer) }, short(name, letters));
}

function tag(state) {
  return h("span", { class: `tag ${state}` }, state);
}

// Float is told apart by hatching too, not by its colour alone.
function hatch() {
  return s("svg", { width: 0, height: 0, "aria-hidden": "true" },
    s("defs", {},
      s("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
        s("rect", { width: 5, height: 5, fill: "var(--float)", opacity: 0.45 }),
        s("rect", { width: 2.5, height: 5, fill: "var(--float)" }))));
}

function legend(...entries) {
  return h("div", { class: "legend" }, entries.map(([kind, text]) => {
    const sample = kind === "bound"
      ? s("line", { class: "bound", x1: 2, x2: 12, y1: 6, y2: 6 })
      : s("rect", { class: `column ${kind}`, width: 12, height: 12, rx: 2 });
    return h("span", {}, s("svg", { width: 14, height: 12, "aria-hidden": "true" }, sample), text);
  }));
}
