"""The page's own few lines of JavaScript: draw the charts, follow the selectors, fit the print."""

SCRIPT = """
"use strict";
const read = id => JSON.parse(document.getElementById(id).textContent);
const boxes = [...document.querySelectorAll("[data-chart]")];
// A finger on a chart scrolls the page; only a mouse zooms.
const mouse = matchMedia("(hover: hover)").matches;
const setup = {responsive: true, displaylogo: false, displayModeBar: mouse ? "hover" : false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};
for (const box of boxes) {
  const chart = read(box.dataset.chart);
  if (!mouse) chart.layout.dragmode = false;
  Plotly.newPlot(box, chart.data, chart.layout, setup);
}
for (const form of document.querySelectorAll("[data-views]")) {
  const views = read(form.dataset.views);
  const box = document.getElementById(form.dataset.box);
  const target = form.querySelector("[name=target]"), proxy = form.querySelector("[name=proxy]");
  const pick = (column, places) => places.map(place => column ? column[place] : null);
  const show = () => {
    const t = Number(target.value), p = Number(proxy.value);
    const x = views.proxies[p].losses[t], y = views.trained[t], fit = views.predicted[t];
    const ends = [...x, ...y].filter(value => value !== null);
    const line = ends.length ? [Math.min(...ends), Math.max(...ends)] : [];
    const data = [
      Object.assign({}, box.data[0], {x, y: fit.mean, error_y: Object.assign({},
        box.data[0].error_y, {array: fit.above, arrayminus: fit.below})}),
      Object.assign({}, box.data[1], {x: line, y: line}),
      ...views.places.map((places, at) => Object.assign({}, box.data[at + 2],
        {x: pick(x, places), y: pick(y, places)})),
    ];
    const layout = Object.assign({}, box.layout);
    layout.xaxis = Object.assign({}, layout.xaxis, {autorange: true,
      title: Object.assign({}, layout.xaxis.title, {text: views.proxies[p].title})});
    layout.yaxis = Object.assign({}, layout.yaxis, {autorange: true});
    Plotly.react(box, data, layout, setup);
  };
  target.addEventListener("change", show);
  proxy.addEventListener("change", show);
}
// A page of paper holds about 950 pixels: a taller figure would be torn in two.
const full = new Map(boxes.map(box => [box, parseInt(box.style.height)]));
const fit = width => boxes.forEach(box => {
  const height = width ? Math.min(full.get(box), 840) : full.get(box);
  box.style.height = `${height}px`;
  Plotly.relayout(box, {width, height, autosize: !width});
});
window.addEventListener("beforeprint", () => fit(680));
window.addEventListener("afterprint", () => fit(undefined));
""".strip()
