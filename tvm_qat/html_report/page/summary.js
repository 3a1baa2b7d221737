// The first screen: the verdict, where to look first, and the figures that matter.

const SIGNS = { bad: "✕", warn: "!", note: "i", good: "✓" };
const WORDS = { bad: "wrong", warn: "look at this", note: "note", good: "fine" };

function pageHeader() {
  const drawn = data.seed === null ? "given data" : `random, seed ${data.seed}`;
  const verdict = data.passed ? "✓ passed" : "✕ failed";
  return h("header", {}, h("div", { class: "frame" },
    h("div", { class: "what" },
      h("h1", {}, data.file),
      h("p", { title: data.model }, `${counted(data.samples, "sample")} (${drawn}) · ${data.target.join(" ")} · rounding ${data.rounding} · tvm-qat ${data.version} · ${data.date}`)),
    h("span", { class: `verdict ${data.passed ? "good" : "bad"}` }, verdict), themeButton()));
}

function themeButton() {
  const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const button = h("button", { type: "button", id: "theme" });
  const show = () => { button.textContent = dark() ? "☀ Light" : "☾ Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
  return button;
}

function summarySection() {
  const [first, ...rest] = data.findings;
  const list = h("ol", { class: "findings" }, rest.map((finding) => h("li", {},
    h("span", { class: `sign ${finding.level}`, role: "img", "aria-label": WORDS[finding.level] }, SIGNS[finding.level]),
    h("a", { class: "title", href: `#${finding.section}` }, finding.title),
    h("span", {}, finding.layer ? h("b", {}, findingLayer(finding)) : null, finding.layer ? " – " : null, finding.text))));
  const worst = h("div", { class: `worst ${first.level}`, id: "worst" },
    h("h3", {}, `${SIGNS[first.level]} ${first.layer ? `Worst layer: ${first.title.toLowerCase()}` : `No fault: ${first.title.toLowerCase()}`}`),
    first.layer ? h("div", { class: "name" }, findingLayer(first)) : null, h("p", {}, first.text));
  const failed = data.failures.map((text) => h("p", { class: "worst bad" }, `✕ ${text}`));
  return h("section", { id: "summary", "aria-label": "Summary" }, ...failed,
    h("div", { class: "first" }, h("div", { class: "panel" }, worst, list), h("div", { class: "tiles" }, tiles())));
}

function findingLayer(finding) {
  const quantizer = data.quantizers.find((each) => each.name === finding.layer);
  const place = layers.findIndex((layer) => layer.name === finding.layer);
  return layerLink(place >= 0 ? place : quantizer?.layer, finding.layer, 64);
}

function tile(title, value, text) {
  return h("div", { class: "panel tile" }, h("h3", {}, title), h("div", { class: "value" }, value), h("p", {}, text));
}

function tiles() {
  const made = data.stages.filter((stage) => stage.summary).map((stage) => {
    const { differing, elements, max_steps, tie_share } = stage.summary;
    const value = differing ? `${percent(differing / elements)} differ` : "equal";
    const text = differing
      ? `by at most ${steps(max_steps)}${stage.against !== "simulation" ? "" : `, ties explain ${percent(tie_share)}`}`
      : `0 of ${whole(elements)} elements differ`;
    return tile(stageTitle(stage), value, text);
  });
  const worst = Math.min(...Object.values(data.agreement));
  made.push(tile("Outputs agree", percent(worst), "greatest element where the simulation has it"));
  Object.entries(data.accuracy).filter(([name]) => name === "compiled").forEach(([name, found]) =>
    made.push(tile("Accuracy, compiled", `${percent(found.top1)} top-1`, `simulation ${percent(data.accuracy.simulation.top1)}${found.top5 === null ? "" : `; top-5 ${percent(found.top5)}`}`)));
  made.push(tile("On integers", percent(data.totals.int8_mac_share), `of ${scaled(data.totals.macs)} multiply-accumulates; ${counted(data.totals.float_operators, "operator")} in float`));
  if (data.kernels.length) {
    const total = data.kernels.reduce((sum, kernel) => sum + kernel.seconds, 0);
    const bound = data.kernels.reduce((sum, kernel) => sum + (boundOf(kernel) ?? 0), 0);
    made.push(tile("Time, one thread", seconds(total), bound ? `bound by its products: ${seconds(bound)}, ${percent(bound / total)} of it` : "no bound is known for this machine"));
  }
  return made;
}
