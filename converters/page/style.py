"""How the page looks: light, dark and on paper, from one set of named colours.

Colours are told apart in brightness as well as in hue, and nothing is said by colour alone: a point also has
a shape, a refusal a word, a changed cell a number.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1b2330; --faint: #5d6878; --rule: #dde2e9; --grid: #e8ecf1;
  --onnx: #1f6fd6; --tflite: #b45309; --ort: #6d3fc0; --bar: #1f6fd6; --right: #1f6fd6; --wrong: #c2410c;
  --good: #12713c; --good-back: #dff3e6; --bad: #a61b1b; --bad-back: #fbe3e1; --care: #7a5200;
  --care-back: #fdf0d2; --on: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11161d; --card: #1a212b; --ink: #e6eaf0; --faint: #9aa6b6; --rule: #2f3947; --grid: #28313d;
    --onnx: #6aa9ff; --tflite: #f5a54a; --ort: #b794f6; --bar: #6aa9ff; --right: #4c92ef; --wrong: #f0773c;
    --good: #7ddba0; --good-back: #173626; --bad: #ff9c94; --bad-back: #45201f; --care: #f3cd75;
    --care-back: #3d3114; --on: #0c1118;
  }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --ink: #000; --faint: #444; --rule: #bbb; --grid: #ddd;
    --onnx: #1f6fd6; --tflite: #b45309; --ort: #6d3fc0; --bar: #1f6fd6; --right: #1f6fd6; --wrong: #c2410c;
    --good: #12713c; --good-back: #fff; --bad: #a61b1b; --bad-back: #fff; --care: #7a5200; --care-back: #fff;
    --on: #ffffff;
  }
  section { break-inside: avoid; border: 0 !important; padding: 0 !important; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 32px 20px 48px; max-width: 1080px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
header { margin: 0 4px 20px; }
h1 { margin: 0 0 4px; font-size: 26px; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 18px; }
h3 { margin: 0 0 6px; font-size: 14px; }
p { margin: 0 0 12px; max-width: 76ch; }
.faint { color: var(--faint); }
section {
  margin: 0 0 20px; padding: 20px 22px; border: 1px solid var(--rule); border-radius: 10px;
  background: var(--card);
}
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: 12px 24px; margin: 0; }
dl .wide { grid-column: 1 / -1; }
dt { color: var(--faint); font-size: 13px; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
code {
  font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere;
}
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td {
  padding: 7px 12px 7px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top;
}
thead th { color: var(--faint); font-weight: 500; font-size: 13px; white-space: nowrap; }
tbody th { font-weight: 600; white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
.number { text-align: right; padding-right: 18px; white-space: nowrap; }
.verdict {
  display: inline-block; padding: 0 9px; border-radius: 99px; font-size: 13px; font-weight: 600;
  white-space: nowrap;
}
.verdict.packed { color: var(--good); background: var(--good-back); }
.verdict.refused { color: var(--bad); background: var(--bad-back); }
.verdict.caution { color: var(--care); background: var(--care-back); }
ul.notes { list-style: none; margin: 14px 0 0; padding: 0; }
ul.notes li { padding: 5px 0; max-width: 96ch; overflow-wrap: anywhere; }
figure { margin: 8px 0 0; }
p.after { margin: 16px 0 0; color: var(--faint); }
figcaption { margin: 6px 0 0; color: var(--faint); font-size: 13px; }
.maps {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 24px; margin-top: 12px;
}
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--faint); font-size: 13px; }
details table { margin-top: 8px; font-size: 13px; }
details .number { padding-right: 12px; }
svg.plot { display: block; width: 100%; height: auto; font-size: 12px; }
svg text { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick, svg .axis { fill: var(--faint); }
svg .tick { font-size: 11px; }
svg .grid { stroke: var(--grid); }
svg.scatter .label { fill: var(--ort); paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
svg.scatter .label.onnx { fill: var(--onnx); }
svg.scatter .label.tflite { fill: var(--tflite); }
svg .tie { stroke: var(--faint); stroke-width: .75; opacity: .7; }
svg line.source { stroke: var(--faint); stroke-dasharray: 5 4; }
svg .marker { stroke-width: 2; fill-opacity: .7; stroke: var(--ort); fill: var(--ort); }
svg .marker.onnx { stroke: var(--onnx); fill: var(--onnx); }
svg .marker.tflite { stroke: var(--tflite); fill: var(--tflite); }
svg .marker.refused { fill: var(--card); }
svg .bar { fill: var(--bar); opacity: .55; }
svg .bar.marked { opacity: 1; }
svg .cell.right { fill: var(--right); }
svg .cell.wrong { fill: var(--wrong); }
svg .cell-frame { fill: transparent; stroke: var(--grid); stroke-width: .75; }
svg .cell-frame.changed { stroke: var(--ink); stroke-width: 1.75; }
svg .cell-text { font-size: 10.5px; }
svg .cell-text.on { fill: var(--on); }
.legend span { margin-right: 16px; white-space: nowrap; }
.legend svg { width: 14px; height: 14px; vertical-align: -2px; margin-right: 5px; }
"""
