"use strict";
// A table whose headings sort it: numbers from the highest at first, words from A.
function sortable(table, say) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button?.addEventListener("click", () => {
      const words = button.dataset.kind === "text";
      const before = head.getAttribute("aria-sort");
      const rising = before === "none" ? words : before === "descending";
      for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        if (!key(a) || !key(b)) return !key(a) - !key(b); // missing ones last, either way
        const order = words ? key(a).localeCompare(key(b)) : key(a) - key(b);
        return rising ? order : -order;
      });
      table.tBodies[0].append(...rows);
      say(`Sorted by ${button.textContent}, ${rising ? "ascending" : "descending"}.`);
    });
  });
}
