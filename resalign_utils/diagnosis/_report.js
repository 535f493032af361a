// Unpacks the page's own plotly.js and draws the figures: in the reader's colours, and in light ones on paper.
(async () => {
  "use strict";
  const PAPER = 640; // width in pixels of a figure on paper
  const AROUND = 96; // pixels that a heat map is higher than wide: its title, ticks and colour bar
  const GROUND = [20, 23, 26]; // of the dark page
  const boxes = [...document.querySelectorAll("figure")].map((figure) => ({
    target: figure.querySelector(".plot"),
    data: figure.querySelector("script").textContent,
  }));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");

  // WCAG's contrast of two colours.
  const light = (rgb) =>
    rgb
      .map((v) => (v <= 10 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4))
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
  const contrast = (one, other) => Math.max(light(one), light(other)) / Math.min(light(one), light(other));

  // Greys are turned over, so that ink becomes light; a hue means something, and only becomes lighter where it sinks.
  function onDark(text) {
    let rgb = [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
    if (Math.max(...rgb) - Math.min(...rgb) <= 2) rgb = rgb.map((v) => 20 + ((255 - v) * 215) / 221);
    else while (contrast(rgb, GROUND) < 3) rgb = rgb.map((v) => v + (255 - v) * 0.08);
    return `rgb(${rgb.map((v) => Math.min(255, Math.round(v)))})`;
  }

  // Heat maps keep their scale.
  function inDark(part, key) {
    if (typeof part === "string") return /^#[0-9a-f]{6}$/i.test(part) && /color(scale)?$/.test(key) ? onDark(part) : part;
    if (part === null || typeof part !== "object" || key === "coloraxis") return part;
    if (Array.isArray(part)) return part.map((one) => inDark(one, key));
    return Object.fromEntries(Object.entries(part).map(([name, one]) => [name, inDark(one, name)]));
  }

  async function draw({ target, data }, printed) {
    let { data: traces, layout } = JSON.parse(data);
    if (dark.matches && !printed) {
      traces = inDark(traces, "");
      const bar = inDark({ colorbar: layout.coloraxis?.colorbar }, "");
      layout = inDark(layout, "");
      if (layout.coloraxis) Object.assign(layout.coloraxis, bar);
      const ground = `rgb(${GROUND})`;
      layout.template.layout.paper_bgcolor = layout.template.layout.plot_bgcolor = ground;
    }
    const width = printed ? PAPER : target.clientWidth;
    if (printed) layout.width = width;
    if (layout.coloraxis) layout.height = Math.min(layout.height, width + AROUND);
    target.style.height = "";
    await Plotly.newPlot(target, traces, layout, { responsive: !printed, displayModeBar: false });
    target.style.height = `${target._fullLayout.height}px`; // of which Plotly asks the page when the window changes
  }

  const drawAll = (printed) => Promise.all(boxes.map((box) => draw(box, printed)));

  try {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(plain).text();
    document.head.append(script);
    await drawAll(paper.matches);
    document.documentElement.dataset.drawn = "yes";
  } catch (error) {
    boxes.forEach(({ target }) => (target.textContent = `This figure was not drawn: ${error}`));
    throw error;
  }
  dark.addEventListener("change", () => drawAll(paper.matches));
  paper.addEventListener("change", () => drawAll(paper.matches));
  window.addEventListener("beforeprint", () => drawAll(true));
  window.addEventListener("afterprint", () => drawAll(false));
})();
