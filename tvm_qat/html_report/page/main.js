// Puts the page together.

const SECTIONS = [
  ["summary", "Summary", summarySection], ["difference", "Difference", differenceSection],
  ...(data.suggestion ? [["suggestion", "Suggestion", suggestionSection]] : []), ["coverage", "Coverage", coverageSection], ["time", "Time", timeSection], ["ranges", "Ranges", rangesSection],
  ["graph", "Graph", graphSection], ["layers", "Layers", layersSection],
];

const links = SECTIONS.map(([id, title]) => h("a", { href: `#${id}` }, title));
const navigation = h("nav", { "aria-label": "Sections" },
  h("div", { class: "frame" }, h("ul", {}, links.map((link) => h("li", {}, link)))));
const main = h("main", { class: "frame" });
document.body.append(hatch(), pageHeader(), navigation, main, drawer(), tip);
main.append(...SECTIONS.map(([, , make]) => make()));

// The section that fills the upper part of the window is the current one.
function followScroll() {
  const tops = SECTIONS.map(([id]) => document.getElementById(id).getBoundingClientRect().top);
  const at = Math.max(tops.findLastIndex((top) => top < innerHeight / 3), 0);
  links.forEach((link, i) => (i === at ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
}
addEventListener("scroll", followScroll, { passive: true });
followScroll();
