import { expect, test } from 'vitest';
import type { Failure, LogLine, Span } from '../../src/api.ts';
import { span } from './spans.ts';
import { buildMarks, buildTree, CAUSE, covered, ERROR, findSpans, FOUND, nextFlagged, placeSaid, rank, rowOf, selfTime, shownRows } from '../../src/trace/tree.ts';

/** A small generator, so that a failure can be repeated (Numerical Recipes' LCG). */
function random(seed: number): () => number {
  return () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32;
}

function randomSpans(seed: number, n: number): Span[] {
  const next = random(seed);
  let depth = 0;
  return Array.from({ length: n }, (_, i) => {
    depth = i ? Math.floor(next() * (depth + 2)) : 0;
    return span(`s${i}`, depth, Math.floor(next() * 1000), Math.floor(next() * 300), next() < 0.2 ? { status: 'error' } : {});
  });
}

test.each([1, 2, 3, 4, 5])('shape, causes and gaps agree with a slow and obvious model (seed %d)', (seed) => {
  const spans = randomSpans(seed, 120);
  const t = buildTree(spans, true);
  const above = (i: number): number[] => (t.parent[i]! < 0 ? [] : [t.parent[i]!, ...above(t.parent[i]!)]);
  for (let i = 0; i < t.count; i++) {
    let p = i - 1;
    while (p >= 0 && spans[p]!.depth >= spans[i]!.depth) p--;
    expect(t.parent[i]).toBe(p);
    const below = spans.flatMap((_, j) => (above(j).includes(i) ? [j] : []));
    expect(below).toEqual(Array.from({ length: t.end[i]! - i - 1 }, (_, k) => i + 1 + k));
    const isError = spans[i]!.status === 'error';
    expect(!!(t.flags[i]! & CAUSE)).toBe(isError && !below.some((j) => spans[j]!.status === 'error'));
    const { offset_ns: from, duration_ns: size } = spans[i]!;
    let own = 0;
    for (let ns = from; ns < from + size; ns++) {
      if (!below.some((j) => t.parent[j] === i && spans[j]!.offset_ns <= ns && ns < spans[j]!.offset_ns + spans[j]!.duration_ns)) own++;
    }
    expect(selfTime(t, i)).toBe(own);
  }
});

test.each([6, 7, 8])('folded subtrees hide exactly what is below them (seed %d)', (seed) => {
  const spans = randomSpans(seed, 80);
  const t = buildTree(spans, true);
  const next = random(seed);
  const folded = Uint8Array.from(spans, () => (next() < 0.2 ? 1 : 0));
  const hidden = (i: number): boolean => t.parent[i]! >= 0 && (folded[t.parent[i]!] === 1 || hidden(t.parent[i]!));
  const rows = shownRows(t, folded);
  expect([...rows]).toEqual(spans.flatMap((_, i) => (hidden(i) ? [] : [i])));
  for (let i = 0; i < t.count; i++) {
    const row = rows[rowOf(rows, i)]!;
    expect(row <= i && i < t.end[row]!).toBe(true);
  }
});

test('a depth that jumps is taken as one level', () => {
  const t = buildTree([span('a', 0, 0, 9), span('b', 7, 1, 2), span('c', 1, 4, 1)], true);
  expect([...t.parent]).toEqual([-1, 0, 0]);
});

test('corrected clocks move spans, and what their host said moves with them', () => {
  const spans = [span('a', 0, 0, 100), span('b', 1, 1000, 50, { skew_ns: -980 })];
  const logs = [{ offset_ns: 1010, span_id: 'b', level: 'WARN' }, { offset_ns: 90, span_id: 'a', level: 'INFO' }, { offset_ns: 5, span_id: 'gone', level: 'INFO' }] as LogLine[];
  const errors = [{ span_id: 'b', offset_ns: 1040, source: 'event' }] as Failure[];
  const t = buildTree(spans, true);
  const said = placeSaid(t, logs, errors);
  expect([t.start[1], t.to]).toEqual([20, 100]);
  expect([...said.order]).toEqual([2, 0, 1]);
  expect([...said.at]).toEqual([30, 90, 5]);
  const marks = buildMarks(t, logs, errors, said);
  expect([...marks.first]).toEqual([0, 1, 3]);
  expect([...marks.line]).toEqual([1, -1, 0]);
  expect([...marks.at]).toEqual([90, 60, 30]);
  const raw = buildTree(spans, false);
  expect([raw.start[1], raw.to]).toEqual([1000, 1050]);
});

test('covered time is merged and cut to the span', () => {
  const t = buildTree([span('a', 0, 10, 100), span('b', 1, 0, 30), span('c', 1, 20, 20), span('d', 1, 90, 500)], true);
  expect([...covered(t, 0)]).toEqual([10, 40, 90, 110]);
});

test('the next error goes round', () => {
  const t = buildTree([span('a', 0, 0, 1), span('b', 1, 0, 1, { status: 'error' }), span('c', 1, 0, 1)], true);
  expect([nextFlagged(t, -1, 1, ERROR), nextFlagged(t, 1, 1, ERROR), nextFlagged(t, 2, 1, ERROR), nextFlagged(t, 0, -1, ERROR)]).toEqual([1, 1, 1, 1]);
  expect(nextFlagged(buildTree([], true), -1, 1, ERROR)).toBe(-1);
});

test('spans are found by all words of service, operation, message, or by id', () => {
  const t = buildTree([span('0a', 0, 0, 9, { service: 'api', operation: 'GET /chat' }), span('0b', 1, 0, 9, { service: 'api', operation: 'SELECT', status_message: 'Locked' }), span('0c', 1, 0, 9, { service: 'db', operation: 'SELECT' })], true);
  const found = (text: string) => { const n = findSpans(t, text); const at = [...t.flags].flatMap((f, i) => (f & FOUND ? [i] : [])); expect(at.length).toBe(n); return at; };
  expect([found('select'), found('API select'), found('locked'), found('0c'), found('nothing'), found(' ')]).toEqual([[1, 2], [1], [1], [2], [], []]);
  expect(t.flags[1]! & ERROR).toBe(0);
});

test('levels as people write them', () => {
  expect(['TRACE', 'debug', 'Information', 'notice', 'WARNING', 'err', 'CRITICAL', 'Fatal'].map(rank)).toEqual([0, 1, 2, 2, 3, 4, 5, 5]);
});
