"use strict";
const data = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = data("figures");
const queries = data("queries");
const dark = matchMedia("(prefers-color-scheme: dark)");

// Figures come without colours of their own for text and axes: the page's theme gives them.
function themed(layout) {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true };
  return {
    margin: { l: 56, r: 16, t: 26, b: 46 },
    ...layout,
    font: { family: css.fontFamily, size: 12.5, color: colour("--soft") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--line"), activecolor: colour("--soft") },
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") } },
  };
}

function draw() {
  for (const [id, figure] of Object.entries(figures)) {
    const element = document.getElementById(id);
    // what the reader has zoomed to survives a change of theme
    const layout = themed({ ...figure.layout, template: undefined, uirevision: "kept" });
    Plotly.react(element, figure.data, layout, {
      responsive: true, displaylogo: false, scrollZoom: id === "map",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    });
  }
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function show(index) {
  const query = queries[index];
  const panel = document.getElementById("shown");
  if (!query || !panel) return;
  const facts = element("dl");
  for (const [name, value] of query.facts) facts.append(element("dt", name), element("dd", value));
  const parts = [element("p", query.name, "name")];
  for (const [label, source] of [["query", query.image], [query.candidate, query.candidate_image]]) {
    if (!source) continue;
    const image = element("img");
    image.src = source;
    image.alt = label;
    parts.push(element("p", label, "label"), image);
  }
  panel.replaceChildren(...parts, facts);
}

draw();
dark.addEventListener("change", draw);
const map = document.getElementById("map");
if (map) {
  show(queries.findIndex((query) => query.first));
  for (const event of ["plotly_hover", "plotly_click"]) {
    map.on(event, (hit) => { const index = hit.points[0].customdata; if (index !== undefined) show(index); });
  }
}
