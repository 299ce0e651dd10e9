/** Instants, durations and counts as a person reads them. */

const NS_PER_MS = 1_000_000n;

/** 1_234_000 → "1.23 ms": three significant digits, the unit that keeps the number between 1 and 1000. */
export function duration(ns: number): string {
  if (!Number.isFinite(ns)) return '–';
  if (ns < 0) return '−' + duration(-ns);
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 999_500) return `${three(ns / 1e3)} µs`;
  if (ns < 999_500_000) return `${three(ns / 1e6)} ms`;
  if (ns < 60e9) return `${three(ns / 1e9)} s`;
  const seconds = Math.round(ns / 1e9);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
}

function three(value: number): string {
  if (value >= 99.95) return value.toFixed(0);
  if (value >= 9.995) return value.toFixed(1).replace(/\.0$/, '');
  return value.toFixed(2).replace(/\.?0+$/, '');
}

/** A label on an axis whose lines are `step` ns apart: one unit for the axis, no more digits than the step needs. */
export function tick(ns: number, step: number, span: number): string {
  if (ns === 0) return '0';
  const [unit, name] = span < 1e3 ? [1, 'ns'] : span < 1e6 ? [1e3, 'µs'] : span < 1e9 ? [1e6, 'ms'] : [1e9, 's'];
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step / unit) + 1e-9)));
  return `${(ns / unit).toFixed(digits)} ${name}`;
}

export function unixMillis(unixNano: string): number {
  return Number(BigInt(unixNano) / NS_PER_MS);
}

const pad = (n: number, width = 2) => String(n).padStart(width, '0');

/** Local wall clock to the millisecond: "14:03:07.512". */
export function clock(millis: number): string {
  const d = new Date(millis);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}.${pad(d.getMilliseconds(), 3)}`;
}

/** Local date and time; the zone is the reader's own. */
export function dateTime(millis: number): string {
  const d = new Date(millis);
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${clock(millis)}`;
}

/** How long ago, coarse: "now", "12 s ago", "3 min ago". */
export function ago(millis: number, now: number): string {
  const s = Math.round((now - millis) / 1000);
  if (s < -1) return 'in the future';
  if (s < 2) return 'now';
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

const grouped = new Intl.NumberFormat('en-US');

export function count(n: number): string {
  return grouped.format(n);
}

export function plural(n: number, one: string, many = one + 's'): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Spend: cents matter on a call, not on a total of dollars. */
export function usd(value: number): string {
  if (value === 0) return '$0';
  if (Math.abs(value) >= 1) return '$' + value.toFixed(2);
  return '$' + value.toPrecision(2).replace(/^(-?0\.\d*?[1-9]\d?)0+$/, '$1');
}
