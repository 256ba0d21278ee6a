"""The page's style sheet: dark on white, system fonts, no page wider than its window."""

CSS = """
:root { --ink: #1a1a1a; --soft: #555; --line: #d5d5d5; --paper: #f6f6f4; --blue: #0072b2; }
* { box-sizing: border-box; }
html { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  color: var(--ink); background: #fff; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1.25rem 4rem; overflow-wrap: anywhere; }
header { border-bottom: 2px solid var(--ink); margin-bottom: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
#answer h2 { border: 0; margin-top: 1rem; }
p { margin: .5rem 0; max-width: 48rem; }
.sub, .small { color: var(--soft); }
.sub { margin: 0 0 .8rem; }
.small, figcaption { font-size: .86rem; }
.lead { font-size: 1.15rem; }
.note { border-left: 4px solid var(--ink); background: var(--paper); padding: .3rem .9rem;
  margin: 1rem 0; max-width: 48rem; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .9rem; }
a { color: #00568a; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .84rem; }
pre { background: var(--paper); padding: .7rem .9rem; overflow-x: auto; overflow-wrap: normal; }
.scroll { overflow-x: auto; margin: .9rem 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .88rem; min-width: 60%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { padding: .26rem .7rem .26rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
thead th { font-weight: 600; color: var(--soft); vertical-align: bottom;
  border-bottom: 1.5px solid var(--ink); }
tbody th { font-weight: 500; min-width: 8rem; max-width: 24rem; overflow-wrap: anywhere; }
.number { text-align: right; padding-left: .7rem; }
td.number { white-space: nowrap; }
td:not(.number) { min-width: 6rem; }
th[scope=colgroup] { border-bottom: 0; text-align: right; padding-bottom: 0; color: var(--ink); }
td small { display: block; color: var(--soft); font-size: .78rem; }
figure { margin: 1.2rem 0; }
figcaption { color: var(--soft); max-width: 48rem; }
.chart { overflow-x: auto; }
.plot { width: 100%; }
.choices { display: flex; flex-wrap: wrap; gap: .4rem 1rem; margin: .8rem 0 0; font-size: .9rem; }
select { font: inherit; max-width: 100%; padding: .15rem .3rem; }
ul.bars { list-style: none; margin: .4rem 0; padding: 0; max-width: 44rem; font-size: .92rem; }
ul.bars li { display: grid; grid-template-columns: minmax(7rem, 14rem) 1fr 4rem 4.5rem;
  gap: .6rem; align-items: center; padding: .1rem 0; }
.bars .bar { height: .95rem; background: linear-gradient(var(--blue), var(--blue)) no-repeat 0 0 /
  var(--share) 100%; border-left: 1px solid var(--ink); }
.bars .value { text-align: right; font-variant-numeric: tabular-nums; }
.bars .units { color: var(--soft); font-size: .84rem; }
details { margin: .7rem 0; }
summary { cursor: pointer; color: #00568a; }
dl { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .3rem 0; font-size: .88rem; }
dl div { display: flex; gap: .45rem; }
dt { color: var(--soft); }
dd { margin: 0; font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 600px) {
  body { padding: 1rem .8rem 3rem; }
  h1 { font-size: 1.35rem; }
  .lead { font-size: 1.05rem; }
  ul.bars li { grid-template-columns: minmax(5rem, 9rem) 1fr 3.4rem; }
  .bars .units { display: none; }
}
@media print {
  @page { margin: 14mm; }
  html { font-size: 12px; }
  body { max-width: none; padding: 0; }
  nav, .modebar { display: none; }
  table { font-size: .74rem; }
  th, td, .number { padding: .2rem .6rem .2rem 0; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .note, li, .whole { break-inside: avoid; }
  .scroll, .chart, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  .bars .bar { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  a { color: inherit; text-decoration: none; }
}
""".strip()
