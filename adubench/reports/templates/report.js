"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  document.getElementById("print").addEventListener("click", () => print());

  const keyOf = (cell) => {
    const raw = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
    const number = Number.parseFloat(raw);
    return { text: cell.textContent.trim(), number: Number.isFinite(number) && /^[-+\d.]/.test(raw) ? number : null };
  };
  const compare = (a, b) => {
    if (a.number !== null && b.number !== null) return a.number - b.number;
    if (a.number !== null) return -1;
    if (b.number !== null) return 1;
    return a.text.localeCompare(b.text, undefined, { numeric: true });
  };
  for (const button of document.querySelectorAll("table.sortable button.sort")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const table = head.closest("table");
      const position = [...head.parentNode.children].indexOf(head);
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row, i) => ({ row, i, key: keyOf(row.cells[position]) }));
      rows.sort((a, b) => (ascending ? 1 : -1) * compare(a.key, b.key) || a.i - b.i);
      body.append(...rows.map((r) => r.row));
    });
  }
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const body = document.getElementById(input.dataset.filter).tBodies[0];
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
  const large = document.getElementById("large");
  for (const button of document.querySelectorAll("button.zoom")) {
    button.addEventListener("click", () => {
      const from = button.querySelector("img");
      const to = large.querySelector("img");
      to.src = from.src;
      to.alt = from.alt;
      large.querySelector("p").textContent = from.alt;
      large.showModal();
    });
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
