"""The style sheet of a report: light, dark, print and narrow screens."""

_LIGHT = """
  color-scheme: light;
  --gz-paper: #ffffff; --gz-card: #f6f8fa; --gz-ink: #1a1f26; --gz-soft: #545d69; --gz-line: #d5dae0;
  --gz-accent: #005a8f; --gz-tint: #e3f0f8;
  --gz-blue: #0072b2; --gz-vermilion: #d55e00; --gz-green: #009e73; --gz-purple: #b3558c;
  --gz-orange: #b87700; --gz-sky: #2f8fc7;
"""

_DARK = """
  color-scheme: dark;
  --gz-paper: #12161b; --gz-card: #1b2128; --gz-ink: #e8ebef; --gz-soft: #a9b3bf; --gz-line: #343d48;
  --gz-accent: #7cc4f0; --gz-tint: #16344a;
  --gz-blue: #56b4e9; --gz-vermilion: #ff8f45; --gz-green: #2fc79c; --gz-purple: #e29ac4;
  --gz-orange: #f0b133; --gz-sky: #93d4f9;
"""

#: Rules for everything inside of class gz.
SHEET = (
    ".gz, .gz-page {"
    + _LIGHT
    + "}\n@media screen and (prefers-color-scheme: dark) { .gz, .gz-page {"
    + _DARK
    + "} }\n"
    + """
.gz { background: var(--gz-paper); color: var(--gz-ink); max-width: 72rem; margin: 0 auto;
  padding: clamp(1rem, 4vw, 3rem); box-sizing: border-box; line-height: 1.5; font-size: 1rem;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  font-variant-numeric: tabular-nums; text-align: left; }
.gz *, .gz *::before { box-sizing: border-box; }
.gz :is(h1, h2, h3, h4, h5) { color: var(--gz-ink); line-height: 1.2; font-weight: 650; margin: 0; }
.gz header { padding-bottom: 1.5rem; border-bottom: 1px solid var(--gz-line); }
.gz header > h1, .gz header > h3 { font-size: clamp(1.7rem, 5vw, 2.6rem); letter-spacing: -0.02em; }
.gz section { margin-top: 2.75rem; }
.gz section > h2, .gz section > h4 { font-size: 1.4rem; letter-spacing: -0.01em; margin-bottom: 1rem; }
.gz p { margin: 0; }
.gz ul { margin: 0; padding: 0; }
.gz code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: 0.95em; color: inherit; background: none; padding: 0; }
.gz .gz-eyebrow { color: var(--gz-accent); font-weight: 650; font-size: 0.85rem; letter-spacing: 0.06em;
  text-transform: uppercase; margin-bottom: 0.5rem; }
.gz .gz-lead { color: var(--gz-soft); font-size: 1.1rem; max-width: 46rem; margin-top: 0.75rem; }
.gz .gz-lead strong { color: var(--gz-ink); }
.gz .gz-cards { list-style: none; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); }
.gz .gz-card { background: var(--gz-card); border: 1px solid var(--gz-line); border-radius: 0.6rem;
  padding: 1.1rem 1.2rem; margin: 0; display: flex; flex-direction: column; gap: 0.55rem; }
.gz .gz-card > h3, .gz .gz-card > h5 { font-size: 1rem; }
.gz .gz-pick { color: var(--gz-accent); font-size: 1.15rem; font-weight: 650; overflow-wrap: anywhere; }
.gz .gz-facts { list-style: none; display: flex; flex-wrap: wrap; gap: 0 1.1rem; font-size: 0.92rem; }
.gz .gz-facts li { margin: 0; }
.gz .gz-facts li:nth-child(-n + 2) { font-weight: 650; }
.gz .gz-rule { color: var(--gz-soft); font-size: 0.88rem; margin-top: auto; }
.gz .gz-missed { border-style: dashed; }
.gz .gz-figures { display: grid; gap: 1.75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.gz .gz-two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.gz figure { margin: 0; min-width: 0; max-width: 34rem; }
.gz figure > h3, .gz figure > h5 { font-size: 1rem; margin-bottom: 0.6rem; overflow-wrap: anywhere; }
.gz figcaption { color: var(--gz-soft); font-size: 0.9rem; margin-top: 0.4rem; }
.gz .gz-svg { display: block; width: 100%; height: auto; color: var(--gz-ink); fill: currentColor;
  stroke-linejoin: round; stroke-linecap: butt; }
.gz .gz-svg text { font-family: inherit; fill: currentColor; }
.gz .gz-scroll { position: relative; overflow-x: auto; border: 1px solid var(--gz-line);
  border-radius: 0.6rem; }
.gz .gz-scroll:focus-visible { outline: 3px solid var(--gz-accent); outline-offset: 2px; }
.gz table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 0.86rem; margin: 0;
  color: var(--gz-ink); background: var(--gz-paper); border: 0; }
.gz caption { caption-side: top; text-align: left; color: var(--gz-soft); font-size: 0.88rem;
  padding: 0.55rem 0.8rem; }
.gz .gz-note { color: var(--gz-soft); font-size: 0.9rem; margin-top: 0.6rem; }
.gz th, .gz td { padding: 0.45rem 0.5rem; text-align: right; white-space: nowrap; font-weight: 400;
  vertical-align: baseline; border: 0; background: var(--gz-paper); color: var(--gz-ink); max-width: none; }
.gz thead tr:first-child th { border-top: 1px solid var(--gz-line); }
.gz thead th { white-space: normal; color: var(--gz-soft); font-size: 0.82rem; background: var(--gz-card);
  vertical-align: bottom; }
.gz thead th[scope="colgroup"] { text-align: center; color: var(--gz-ink); font-weight: 650;
  border-left: 1px solid var(--gz-line); border-bottom: 1px solid var(--gz-line); }
.gz thead tr:nth-child(2) th:is(:nth-child(1), :nth-child(4), :nth-child(8)),
.gz td:is(:nth-child(2), :nth-child(5), :nth-child(9)) { border-left: 1px solid var(--gz-line); }
.gz tbody th, .gz tbody td { border-top: 1px solid var(--gz-line); }
.gz tbody th { text-align: left; white-space: normal; min-width: 10rem; position: sticky; left: 0;
  z-index: 1; }
.gz :is(thead, tbody) th:first-child { padding-left: 0.8rem; }
.gz thead tr:first-child th:first-child { text-align: left; position: sticky; left: 0; z-index: 2; }
.gz tbody th code { font-weight: 650; }
.gz .gz-kind { display: block; color: var(--gz-soft); font-size: 0.92em; line-height: 1.3; }
.gz .gz-best { color: var(--gz-accent); background: var(--gz-tint); border-radius: 0.3rem; padding: 0 0.4em;
  font-size: 0.78rem; font-weight: 650; }
.gz .gz-bound th, .gz .gz-bound td { color: var(--gz-soft); background: var(--gz-card); font-style: italic;
  padding-block: 0.3rem; }
.gz .gz-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.gz .gz-how { padding-left: 1.2rem; color: var(--gz-soft); font-size: 0.95rem; max-width: 46rem; }
.gz .gz-how li { margin: 0.2rem 0; }
@media (max-width: 40rem) {
  .gz th, .gz td { padding: 0.45rem 0.55rem; }
  .gz tbody th { min-width: 8.5rem; max-width: 9.5rem; overflow-wrap: anywhere; }
}
@media print {
  .gz { max-width: none; padding: 0; font-size: 9.5pt; }
  .gz section { margin-top: 1.4rem; }
  .gz .gz-card, .gz figure, .gz tr { break-inside: avoid; }
  .gz h2, .gz h3 { break-after: avoid; }
  .gz .gz-cards { grid-template-columns: repeat(2, 1fr); gap: 0.6rem; }
  .gz .gz-figures { grid-template-columns: repeat(2, 1fr); gap: 1rem; }
  .gz .gz-scroll { overflow: visible; border-radius: 0; }
  .gz table { font-size: 7pt; }
  .gz th, .gz td { padding: 0.25rem 0.3rem; }
  .gz tbody th, .gz thead tr:first-child th:first-child { position: static; min-width: 0; }
  .gz thead th, .gz .gz-kind, .gz .gz-best, .gz caption { font-size: 6.5pt; }
}
"""
)

#: Rules for a page of its own.
PAGE = """body.gz-page { margin: 0; background: var(--gz-paper); }
@page { size: A4; margin: 13mm; }
@media print { html { font-size: 12px; } }
"""
