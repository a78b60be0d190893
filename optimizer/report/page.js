"use strict";
const table = document.getElementById("table");
const rows = [...table.tBodies[0].rows];

// Sorting: by number where a cell has one, empty cells last either way.
const keyOf = (row, index) => {
  const cell = row.cells[index];
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (text === "") return null;
  return cell.classList.contains("number") ? Number(text) : text;
};
const compare = (a, b) =>
  typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });

table.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const header = button.parentElement;
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = rows.map((row) => [keyOf(row, header.cellIndex), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return descending ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
});

// Filtering: every word somewhere in the row.
const form = document.querySelector(".filter");
const words = document.getElementById("words");
const status = document.getElementById("status");
const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
const filter = () => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const fits =
      (!status.value || row.dataset.status === status.value) &&
      wanted.every((word) => texts.get(row).includes(word));
    row.hidden = !fits;
    document.getElementById(row.dataset.run).hidden = !fits;
    shown += fits;
  }
  document.getElementById("shown").textContent = `${shown} of ${rows.length} shown`;
};
form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();

// A link to a run opens it.
const open = () => {
  const run = document.getElementById(location.hash.slice(1));
  if (run instanceof HTMLDetailsElement) run.open = true;
};
addEventListener("hashchange", open);
open();

// The points' titles at once, and on touch too, which shows none of itself.
const tip = document.getElementById("tip");
const tips = new Map();
for (const title of document.querySelectorAll(".point > title")) {
  tips.set(title.parentElement, title.textContent);
  title.remove();
}
addEventListener("pointerover", (event) => {
  const under = document.elementsFromPoint(event.clientX, event.clientY);
  const points = [...tips.keys()].filter((point) => under.some((element) => point.contains(element)));
  tip.hidden = points.length === 0;
  if (tip.hidden) return;
  tip.textContent = points.map((point) => tips.get(point)).join("\n\n");
  const place = points[0].getBoundingClientRect();
  const left = Math.min(place.right + 8, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${scrollX + Math.max(left, 8)}px`;
  tip.style.top = `${scrollY + place.bottom + 8}px`;
});
