"use strict";
(() => {
  // Tables sort by a column: first downwards for numbers, upwards for names; the same again turns it round.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const key = (row, k) => {
      const cell = row.cells[k];
      if (k === 0) return cell.textContent.trim();
      return cell.dataset.key === "" ? NaN : Number(cell.dataset.key);
    };
    heads.forEach((head, k) => {
      head.querySelector("button").addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const down = was ? was === "ascending" : k > 0;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const compare = (a, b) => {
          const [x, y] = [key(a, k), key(b, k)];
          if (k === 0) return x.localeCompare(y, undefined, { numeric: true });
          if (Number.isNaN(x) || Number.isNaN(y)) return 0;
          return x - y;
        };
        const rows = [...body.rows];
        const known = rows.filter((row) => k === 0 || !Number.isNaN(key(row, k)));
        const unknown = rows.filter((row) => !known.includes(row));
        known.sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
        body.append(...known, ...unknown);
      });
    });
  }
  // A link to something folded unfolds it.
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", reveal);
  reveal();
})();
