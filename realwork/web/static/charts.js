// Draws the plots of a page with Plotly, in the page's own colours; drawn again when those change.
"use strict";
window.realworkCharts = (() => {
  const probe = document.createElement("i");
  function colour(role) {
    if (!probe.isConnected) { probe.hidden = true; document.body.append(probe); }
    probe.style.color = `var(--${role})`;
    return getComputedStyle(probe).color;
  }

  function axis(title) {
    return {
      title: { text: title, font: { size: 11 }, standoff: 8 }, gridcolor: colour("line"), zeroline: false,
      linecolor: colour("line-strong"), tickfont: { size: 11 }, automargin: true, fixedrange: true, nticks: 6,
    };
  }

  function layout(chart) {
    const y = axis("");
    y.rangemode = "tozero";
    if (chart.is_share) Object.assign(y, { range: [0, 1.03], tickformat: ".0%" });
    const shown = {
      height: 220, margin: { l: 8, r: 8, t: 8, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("quiet") },
      hovermode: "x unified", hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line-strong"), font: { color: colour("ink"), size: 12 } },
      showlegend: chart.traces.length > 1, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 }, traceorder: "normal", itemclick: false, itemdoubleclick: false },
      xaxis: Object.assign(axis(chart.x_title), { showgrid: false }), yaxis: y,
    };
    if (chart.traces.some((trace) => trace.yaxis === "y2")) {
      shown.yaxis2 = Object.assign(axis(""), { overlaying: "y", side: "right", rangemode: "tozero", showgrid: false, tickprefix: "$", tickmode: "auto" });
    }
    return shown;
  }

  function traces(chart) {
    return chart.traces.map(({ role, ...trace }) => ({
      ...trace,
      line: { width: 2, ...trace.line, color: colour(role) },
      marker: { color: colour(role), size: 7 },
      ...(trace.stackgroup ? { fillcolor: colour(`${role}-fill`) } : {}),
    }));
  }

  function draw() {
    if (!window.Plotly) return;
    for (const plot of document.querySelectorAll("[data-chart]")) {
      const chart = JSON.parse(plot.dataset.chart);
      window.Plotly.react(plot, traces(chart), layout(chart), { displayModeBar: false, responsive: true });
      plot.dataset.drawn = "";
    }
  }

  // The page stands before the library, which is large, is asked for.
  function load() {
    if (window.Plotly || !document.querySelector("[data-chart]") || document.getElementById("plotly")) return draw();
    const script = document.createElement("script");
    script.id = "plotly";
    script.src = "/static/plotly.min.js";
    script.addEventListener("load", draw);
    document.head.append(script);
  }

  const soon = () => (window.requestIdleCallback || setTimeout)(load);
  if (document.readyState === "complete") soon();
  else window.addEventListener("load", soon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return { draw, load };
})();
