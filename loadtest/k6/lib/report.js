// The summary of a run: lines for the terminal, and one HTML file without external resources.
const escaped = (text) => String(text).replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
const shown = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(2));

function lines(data) {
  return Object.keys(data.metrics).sort().map((name) => {
    const { values, thresholds = {} } = data.metrics[name];
    const figures = Object.keys(values).map((key) => `${key} ${shown(values[key])}`).join(' · ');
    const limits = Object.keys(thresholds).map((limit) => ({ limit, ok: thresholds[limit].ok }));
    return { name, figures, limits };
  });
}

function html(title, data) {
  const limits = (of) => of.map(({ limit, ok }) =>
    `<span class="${ok ? 'ok' : 'broken'}">${ok ? '✓' : '✗'} ${escaped(limit)}</span>`).join(' ');
  const rows = lines(data).map((line) =>
    `<tr><th>${escaped(line.name)}</th><td>${escaped(line.figures)}</td><td>${limits(line.limits)}</td></tr>`);
  const checks = (data.root_group.checks || []).map((check) =>
    `<tr><th>${escaped(check.name)}</th><td>${check.passes} passed · ${check.fails} failed</td><td></td></tr>`);
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${escaped(title)}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem}table{border-collapse:collapse;width:100%}
th{text-align:left;white-space:nowrap}th,td{border-top:1px solid #ddd;padding:.3rem .8rem;vertical-align:top}
.ok{color:#176b2c}.broken{color:#b00020;font-weight:bold}</style>
<h1>${escaped(title)}</h1><p>${(data.state.testRunDurationMs / 1000).toFixed(1)} s</p>
<table>${rows.concat(checks).join('\n')}</table></html>\n`;
}

// For `export const handleSummary = summary('…')`.
export function summary(title) {
  return (data) => {
    const text = lines(data).filter((line) => line.limits.length > 0).map((line) =>
      `${line.limits.every((limit) => limit.ok) ? 'ok    ' : 'BROKEN'} ${line.name}: ${line.figures}`);
    const files = { stdout: `${title}\n${text.join('\n')}\n` };
    if (__ENV.STAMPEDE_REPORT) files[__ENV.STAMPEDE_REPORT] = html(title, data);
    return files;
  };
}
