"use strict";
const data = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = data("figures");
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
      responsive: true, displaylogo: false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    });
  }
}

draw();
dark.addEventListener("change", draw);
const scene = data("scene");
if (scene) {
  const root = document.getElementById("map");
  window.viewer = new Viewer(root, scene, (kind, row) => scene.pictures[kind]?.[row] || "");
}
