// Decay time S = weight decay × sum of the learning rates ÷ (1 − momentum), as resalign_utils.TrainingRecipe has it.
"use strict";
(() => {
  const MEANS = { constant: 1, linear: 0.5, cosine: 0.5 }; // of a schedule, over its largest value

  const decayTime = ({ optimiser, schedule, learning_rate, weight_decay, momentum, steps }) =>
    (weight_decay * learning_rate * steps * MEANS[schedule]) / (optimiser === "sgd" ? 1 - momentum : 1);

  const valid = (v) =>
    [v.learning_rate, v.weight_decay, v.momentum, v.steps].every((x) => Number.isFinite(x) && x >= 0) && v.momentum < 1;

  // Two decimals, or two digits where that would say nothing
  const short = (x) => (x >= 0.1 || x === 0 ? x.toFixed(2) : x >= 1e-4 ? Number(x.toPrecision(2)).toString() : x.toExponential(1));

  const share = (x) => (x >= 0.0995 ? `${(100 * x).toFixed(0)} %` : x >= 1e-5 ? `${Number((100 * x).toPrecision(2))} %` : "< 0.001 %");

  for (const form of document.querySelectorAll("form.book-decay-time")) {
    const words = JSON.parse(form.dataset.words), output = form.querySelector("output");
    const rows = [...document.querySelectorAll(".book-decay-table tbody tr")];

    const read = () => {
      const values = { optimiser: form.optimiser.value, schedule: form.schedule.value };
      for (const name of ["learning_rate", "weight_decay", "momentum", "steps"]) {
        values[name] = form[name].disabled ? 0 : form[name].value.trim() === "" ? NaN : Number(form[name].value);
      }
      return values;
    };

    const show = () => {
      form.momentum.disabled = form.optimiser.value === "adamw";
      const values = read(), good = valid(values), S = good ? decayTime(values) : NaN;
      output.value = good ? words.result.replace("{S}", short(S)).replace("{left}", share(Math.exp(-S))) : words.wrong;
      output.dataset.value = String(S);
      for (const row of rows) {
        const inside = S >= Number(row.dataset.low) && (row.dataset.high === "" || S < Number(row.dataset.high));
        row.classList.toggle("book-here", inside);
        if (inside) row.setAttribute("aria-current", "true");
        else row.removeAttribute("aria-current");
      }
    };

    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
  }
})();
