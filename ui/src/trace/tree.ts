/**
 * The shape of a trace in typed arrays: what the waterfall needs of 100,000 spans without touching 100,000 objects.
 * The server sends spans in tree order, so a subtree is a range: span `i` and all below it are `i .. end[i]`.
 */
import type { Failure, LogLine, Span } from '../api.ts';

export const ERROR = 1;
/** An error with no error below it: where the trouble began, not where it passed through. */
export const CAUSE = 2;
export const ORPHAN = 4;
export const SKEWED = 8;
/** It has all the words that are looked for. */
export const FOUND = 16;

export type Tree = {
  readonly count: number;
  readonly spans: readonly Span[];
  /** Nanoseconds from the trace's start, clocks corrected if so asked. */
  readonly start: Float64Array;
  readonly length: Float64Array;
  readonly depth: Uint16Array;
  /** −1 for a root. */
  readonly parent: Int32Array;
  /** One past the last span of the subtree. */
  readonly end: Int32Array;
  readonly flags: Uint8Array;
  /** Index into `services`. */
  readonly service: Uint16Array;
  readonly services: readonly string[];
  readonly byId: ReadonlyMap<string, number>;
  /** What the whole waterfall spans. */
  readonly from: number;
  readonly to: number;
};

const MAX_DEPTH = 0xffff;

export function buildTree(spans: readonly Span[], correctClocks: boolean): Tree {
  const n = spans.length;
  const start = new Float64Array(n);
  const length = new Float64Array(n);
  const depth = new Uint16Array(n);
  const parent = new Int32Array(n);
  const end = new Int32Array(n);
  const flags = new Uint8Array(n);
  const service = new Uint16Array(n);
  const services: string[] = [];
  const serviceIndex = new Map<string, number>();
  const byId = new Map<string, number>();
  const open: number[] = [];
  let from = Infinity;
  let to = -Infinity;

  for (let i = 0; i < n; i++) {
    const s = spans[i]!;
    start[i] = s.offset_ns + (correctClocks ? s.skew_ns : 0);
    length[i] = Math.max(0, s.duration_ns);
    // Depth may only grow by one a row; anything else would leave a row without a parent.
    const d = Math.min(s.depth, open.length, MAX_DEPTH);
    depth[i] = d;
    while (open.length > d) end[open.pop()!] = i;
    parent[i] = d ? open[d - 1]! : -1;
    open.push(i);
    flags[i] = (s.status === 'error' ? ERROR : 0) | (s.orphan ? ORPHAN : 0) | (s.skew_ns ? SKEWED : 0);
    let k = serviceIndex.get(s.service);
    if (k === undefined) {
      k = services.length;
      services.push(s.service);
      serviceIndex.set(s.service, k);
    }
    service[i] = k;
    if (!byId.has(s.span_id)) byId.set(s.span_id, i);
    from = Math.min(from, start[i]!);
    to = Math.max(to, start[i]! + length[i]!);
  }
  while (open.length) end[open.pop()!] = n;

  // From the last row to the first, an error tells its ancestors that they are not the cause.
  const errorBelow = new Uint8Array(n);
  for (let i = n - 1; i >= 0; i--) {
    const wrong = flags[i]! & ERROR;
    if (wrong && !errorBelow[i]) flags[i]! |= CAUSE;
    if ((wrong || errorBelow[i]) && parent[i]! >= 0) errorBelow[parent[i]!] = 1;
  }
  if (!n) { from = 0; to = 0; }
  return { count: n, spans, start, length, depth, parent, end, flags, service, services, byId, from, to };
}

/** Sets FOUND on spans whose service, operation or status message hold all words; returns how many do. */
export function findSpans(t: Tree, text: string): number {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  // Names repeat; each distinct one is looked at once.
  const known = new Map<string, boolean>();
  let n = 0;
  for (let i = 0; i < t.count; i++) {
    t.flags[i]! &= ~FOUND;
    if (!words.length) continue;
    const s = t.spans[i]!;
    const name = `${s.service}\n${s.operation}\n${s.status_message}`;
    let fits = known.get(name);
    if (fits === undefined) {
      const hay = name.toLowerCase();
      known.set(name, (fits = words.every((w) => hay.includes(w))));
    }
    if (!fits && !words.every((w) => s.span_id.includes(w))) continue;
    t.flags[i]! |= FOUND;
    n++;
  }
  return n;
}

export function hasChildren(t: Tree, i: number): boolean {
  return t.end[i]! > i + 1;
}

/** Which rows are shown when the spans with `folded[i]` hide what is below them. */
export function shownRows(t: Tree, folded: Uint8Array): Int32Array {
  const rows = new Int32Array(t.count);
  let n = 0;
  for (let i = 0; i < t.count; i = folded[i] ? t.end[i]! : i + 1) rows[n++] = i;
  return rows.subarray(0, n);
}

/** The place of span `i` in `rows`, or of the folded ancestor that hides it. */
export function rowOf(rows: Int32Array, i: number): number {
  let lo = 0;
  let hi = rows.length - 1;
  while (lo < hi) {
    const mid = (lo + hi + 1) >> 1;
    if (rows[mid]! <= i) lo = mid;
    else hi = mid - 1;
  }
  return lo;
}

/**
 * When children of `i` ran, as merged, ordered [from, to, from, to …] within `i` itself. What lies between is time
 * that `i` spent by itself: the gaps.
 */
export function covered(t: Tree, i: number): Float64Array {
  const lo = t.start[i]!;
  const hi = lo + t.length[i]!;
  const spans: [number, number][] = [];
  for (let c = i + 1; c < t.end[i]!; c = t.end[c]!) {
    const a = Math.max(lo, t.start[c]!);
    const b = Math.min(hi, t.start[c]! + t.length[c]!);
    if (b > a) spans.push([a, b]);
  }
  spans.sort((x, y) => x[0] - y[0]);
  const merged: number[] = [];
  for (const [a, b] of spans) {
    if (merged.length && a <= merged[merged.length - 1]!) merged[merged.length - 1] = Math.max(merged[merged.length - 1]!, b);
    else merged.push(a, b);
  }
  return Float64Array.from(merged);
}

/** How long `i` ran without any of its children. */
export function selfTime(t: Tree, i: number): number {
  const c = covered(t, i);
  let rest = t.length[i]!;
  for (let k = 0; k < c.length; k += 2) rest -= c[k + 1]! - c[k]!;
  return Math.max(0, rest);
}

/** The next (or previous) span with `flag`, going round at the end; −1 when there is none. */
export function nextFlagged(t: Tree, from: number, step: 1 | -1, flag: number): number {
  for (let k = 1; k <= t.count; k++) {
    const i = (((from + step * k) % t.count) + t.count) % t.count;
    if (t.flags[i]! & flag) return i;
  }
  return -1;
}

/** Marks on the rows: exceptions and log lines by span, each in time order. */
export type Marks = {
  /** Marks of span `i` are `first[i] .. first[i + 1]`. */
  readonly first: Int32Array;
  readonly at: Float64Array;
  readonly rank: Uint8Array;
  /** The line in `logs`, or −1 for an exception that no log line tells of. */
  readonly line: Int32Array;
};

export const WARN_RANK = 3;
export const ERROR_RANK = 4;

/** 0 trace … 5 fatal; what is not known counts as information. */
export function rank(level: string): number {
  const l = level.toUpperCase();
  if (l.startsWith('FATAL') || l.startsWith('CRIT') || l.startsWith('EMERG') || l.startsWith('ALERT') || l === 'PANIC') return 5;
  if (l.startsWith('ERR')) return 4;
  if (l.startsWith('WARN')) return 3;
  if (l.startsWith('DEBUG')) return 1;
  if (l.startsWith('TRACE')) return 0;
  return 2;
}

/** Span of each log line, and where on the (corrected) time line each line and failure lies; lines in that order. */
export type Said = {
  readonly owner: Int32Array;
  readonly at: Float64Array;
  readonly order: Int32Array;
  readonly failedAt: Float64Array;
};

/** What a span's host said moves with the span when clocks are corrected. */
export function placeSaid(t: Tree, logs: readonly LogLine[], errors: readonly Failure[]): Said {
  const find = (id: string | null) => (id === null ? -1 : (t.byId.get(id) ?? -1));
  const shift = (i: number) => (i < 0 ? 0 : t.start[i]! - t.spans[i]!.offset_ns);
  const owner = Int32Array.from(logs, (l) => find(l.span_id));
  const at = Float64Array.from(logs, (l, k) => l.offset_ns + shift(owner[k]!));
  const failedAt = Float64Array.from(errors, (f) => f.offset_ns + shift(find(f.span_id)));
  const order = Int32Array.from(logs, (_, k) => k).sort((a, b) => at[a]! - at[b]! || a - b);
  return { owner, at, order, failedAt };
}

export function buildMarks(t: Tree, logs: readonly LogLine[], errors: readonly Failure[], said: Said): Marks {
  const events = errors.flatMap((f, k) => (f.source === 'event' && f.span_id !== null && t.byId.has(f.span_id) ? [{ owner: t.byId.get(f.span_id)!, at: said.failedAt[k]! }] : []));
  const first = new Int32Array(t.count + 1);
  for (const o of said.owner) if (o >= 0) first[o + 1]!++;
  for (const e of events) first[e.owner + 1]!++;
  for (let i = 0; i < t.count; i++) first[i + 1]! += first[i]!;
  const size = first[t.count]!;
  const marks = { first, at: new Float64Array(size), rank: new Uint8Array(size), line: new Int32Array(size) };
  const next = first.slice();
  const put = (owner: number, at: number, rank: number, line: number) => {
    const slot = next[owner]!++;
    marks.at[slot] = at;
    marks.rank[slot] = rank;
    marks.line[slot] = line;
  };
  for (const e of events) put(e.owner, e.at, ERROR_RANK, -1);
  for (const k of said.order) if (said.owner[k]! >= 0) put(said.owner[k]!, said.at[k]!, rank(logs[k]!.level), k);
  return marks;
}
