"""What an HTML report looks like, and the little it does: sort a table by the column whose head is pressed.

Nothing here depends on a report. Without JavaScript the page shows the same, in the order of the report.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1a1c20; --dim: #5d6470; --paper: #fff; --line: #d9dce2; --band: #f4f5f7;
  --hot: #c2410c; --cool: #1d6fb8; --bar: #fdd9c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --dim: #9aa2af; --paper: #15171b; --line: #343943;
  --band: #1e2127; --hot: #fb923c; --cool: #7cc0ff; --bar: #5a2c12; } }
body { margin: 1.5rem auto; padding: 0 1rem; max-width: 88rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .3rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { margin: .2rem 0; }
.dim { color: var(--dim); }
.warning { color: var(--hot); }
code, pre { font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
pre { margin: .3rem 0; white-space: pre-wrap; background: var(--band); padding: .4rem .6rem; border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--paper); vertical-align: bottom; font-weight: 600; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--cool); }
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.harm { background: linear-gradient(to left, var(--bar) var(--share), transparent var(--share)); }
.cause { display: inline-block; padding: 0 .45em; border: 1px solid var(--hot); color: var(--hot); border-radius: 4px;
  white-space: nowrap; }
.innocent .cause { border-color: var(--cool); color: var(--cool); }
.todo { margin-top: .25rem; }
summary { cursor: pointer; color: var(--dim); }
"""

# Rows are moved, never made: no text of the report is ever read as markup. Heads become buttons only where this runs.
SCRIPT = """
for (const head of document.querySelectorAll("table.sortable th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const column = head.cellIndex, body = head.closest("table").tBodies[0];
    const numbers = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numbers;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => numbers ? Number(row.cells[column].dataset.value) : row.cells[column].dataset.value;
    const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;
    const rows = [...body.rows];
    rows.sort((one, other) => (down ? -1 : 1) * compare(key(one), key(other)));
    body.append(...rows);
  });
}
"""
