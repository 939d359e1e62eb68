"use strict";
(() => {
  const table = document.getElementById("rows");
  if (!table) return;
  const [search, actual, predicted, count] = ["search", "actual", "predicted", "count"].map((id) => document.getElementById(id));
  const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      const fits = words.every((word) => text.includes(word))
        && (!actual.value || row.dataset.actual === actual.value) && (!predicted.value || row.dataset.predicted === predicted.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} shown`;
  };
  search.form.addEventListener("submit", (event) => event.preventDefault());
  search.form.addEventListener("input", filter);
})();
