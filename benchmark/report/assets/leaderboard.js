"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const root = document.documentElement;
  root.classList.add("script");

  const table = one("#board");
  const rows = all("tbody tr", table);
  const selects = all("select[data-filter]");
  const search = one("#search");
  sortable(table, tell);

  const holds = (row, select) => !select.value || row.dataset[select.dataset.filter] === select.value;
  const named = (row) => row.textContent.toLowerCase().includes(search.value.trim().toLowerCase());

  function filter() {
    for (const row of rows) {
      const fits = named(row) && selects.every((select) => holds(row, select));
      row.classList.toggle("filtered", !fits);
    }
    // A column that says the same in every row is left out.
    for (const select of selects) {
      for (const cell of all(`[data-column="${select.dataset.filter}"]`, table)) {
        cell.classList.toggle("filtered", select.value !== "");
      }
    }
    // How many rows each choice would leave; one that leaves none cannot be chosen.
    for (const select of selects) {
      const others = selects.filter((other) => other !== select);
      const left = rows.filter((row) => named(row) && others.every((other) => holds(row, other)));
      for (const option of select.options) {
        const fit = left.filter((row) => !option.value || row.dataset[select.dataset.filter] === option.value);
        option.textContent = `${option.dataset.name} (${fit.length})`;
        option.disabled = !fit.length && option.value !== select.value;
      }
    }
    tell();
  }

  function tell() {
    const shown = all("tbody tr:not(.filtered)", table);
    const sorted = one('#board [aria-sort="ascending"], #board [aria-sort="descending"]');
    const first = shown.findIndex((row) => row.dataset.whose === "ours");
    const ours = shown.filter((row) => row.dataset.whose === "ours").length;
    one("#shown").textContent = !shown.length ? "No row fits all filters."
      : `${shown.length} of ${rows.length} rows, ranked by ${sorted.textContent}` +
        (first < 0 ? ", none of them ours." : `; ${ours} of them ours, the first at rank ${first + 1}.`);
  }
  for (const select of selects) select.addEventListener("change", filter);
  search.addEventListener("input", filter);
  one("#everything").addEventListener("click", () => {
    for (const select of selects) select.value = "";
    search.value = "";
    filter();
  });
  filter();

  for (const radio of all('[name="theme"]')) {
    radio.addEventListener("change", () => { root.dataset.theme = radio.value; });
  }
})();
