// Draws plotly figures that come as JSON, in the colours of the page. Shared by dashboard and report.
"use strict";
window.tidegate = (function () {
  const CONFIG = { displayModeBar: false, responsive: true, showTips: false };

  function colour(name) {
    return getComputedStyle(document.querySelector(".tg")).getPropertyValue("--" + name).trim();
  }

  function themed(layout) {
    const axis = { gridcolor: colour("edge"), zerolinecolor: colour("edge"), linecolor: colour("edge"), automargin: true };
    const base = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", size: 12, color: colour("quiet") },
      margin: { l: 56, r: 24, t: 44, b: layout.showlegend ? 64 : 44 },
      hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("edge"), font: { color: colour("ink") } },
      legend: { orientation: "h", x: 0, y: 0.01, yref: "container", yanchor: "bottom", font: { size: 11 } },
    };
    const result = Object.assign({}, base, layout);
    result.legend = Object.assign({}, base.legend, layout.legend);
    result.title = Object.assign({ x: 0.02, xanchor: "left", y: 0.96, font: { size: 14, color: colour("ink") } }, layout.title);
    for (const key of ["xaxis", "yaxis", "yaxis2"]) {
      if (layout[key] || key !== "yaxis2") {
        result[key] = Object.assign({}, axis, layout[key]);
      }
    }
    return result;
  }

  function draw(element, figure) {
    element._tidegate = figure;
    for (const chart of element.parentNode.querySelectorAll(".chart")) {
      chart.classList.add("drawn"); // all of a row, before plotly measures the first of them
    }
    return Plotly.react(element, figure.data, themed(figure.layout), CONFIG);
  }

  function drawAll(root) {
    const block = root.querySelector("script.tg-figures");
    if (!block || typeof Plotly === "undefined") {
      return;
    }
    const figures = JSON.parse(block.textContent);
    for (const element of root.querySelectorAll(".chart[data-chart]")) {
      const figure = figures[element.dataset.chart];
      if (figure) {
        draw(element, figure);
      }
    }
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () {
    for (const element of document.querySelectorAll(".chart")) {
      if (element._tidegate) {
        draw(element, element._tidegate);
      }
    }
  });

  drawAll(document);
  return { draw: draw, drawAll: drawAll, colour: colour };
})();
