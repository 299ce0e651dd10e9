import { expect, test } from 'vitest';
import type { Story } from '../../src/api.ts';
import { View } from '../../src/trace/view.ts';
import { clamp, isWhole, pan, step, zoom } from '../../src/trace/window.ts';
import { span } from './spans.ts';

function story(): Story {
  const spans = [span('a', 0, 0, 1000), span('b', 1, 10, 400), span('c', 2, 20, 100), span('d', 1, 500, 300), span('e', 2, 600, 100)];
  return { trace: { spans }, logs: [], errors: [] } as unknown as Story;
}
const open = (query: string) => new View(story(), new URLSearchParams(query));
const link = (v: View) => new URLSearchParams(Object.entries(v.link()).filter((e): e is [string, string] => e[1] !== null)).toString();

test('whatever is looked at, its link shows the same', () => {
  const v = open('');
  expect(link(v)).toBe('');
  v.fold(1, true);
  v.select(4);
  v.look({ from: 450, to: 900 });
  const w = open(link(v));
  expect(link(w)).toBe(link(v));
  expect([w.selected, w.window, [...w.rows]]).toEqual([4, { from: 450, to: 900 }, [0, 1, 3, 4]]);
});

test('everything folded but one, as a link', () => {
  const v = open('');
  v.foldAll(true);
  expect([...v.rows]).toEqual([0, 1, 3]);
  v.fold(3, false);
  expect([...open(link(v)).rows]).toEqual([0, 1, 3, 4]);
});

test('a link that names what is not here shows the rest', () => {
  const v = open('span=nobody&t=1..x&flip=nobody&fold=maybe');
  expect([v.selected, isWhole(v.window, v.whole), v.rows.length]).toEqual([-1, true, 5]);
});

test('selecting unfolds what hides a span and moves the window there', () => {
  const v = open('fold=all&t=0..200');
  v.select(4);
  expect([...v.rows]).toEqual([0, 1, 3, 4]);
  expect(v.window).toEqual({ from: 550, to: 750 });
});

test('steps stay within the rows, folding moves the selection up', () => {
  const v = open('');
  v.step(1);
  expect(v.selected).toBe(0);
  v.step(Infinity);
  expect(v.selected).toBe(4);
  v.step(1);
  expect(v.selected).toBe(4);
  v.foldAll(true);
  expect(v.selected).toBe(3);
});

test.each([[1, 0], [-1, 4], [Infinity, 4], [-Infinity, 0]])('with nothing selected, a step of %d selects row %d', (by, i) => {
  const v = open('');
  v.step(by);
  expect(v.selected).toBe(i);
});

test('windows stay inside the whole and never vanish', () => {
  const whole = { from: 0, to: 10_000 };
  expect(clamp({ from: -500, to: 500 }, whole)).toEqual({ from: 0, to: 1000 });
  expect(pan({ from: 9000, to: 10_000 }, whole, 0.5)).toEqual({ from: 9000, to: 10_000 });
  const close = zoom({ from: 0, to: 10_000 }, whole, 1e-9, 5000);
  expect(close.to - close.from).toBe(100);
  expect(zoom({ from: 2000, to: 4000 }, whole, 0.5, 3000)).toEqual({ from: 2500, to: 3500 });
});

test('lines of an axis are 1, 2 or 5 times a power of ten', () => {
  expect([10, 99, 1_234, 7e9].map((size) => step(size, 5))).toEqual([2, 20, 500, 2e9]);
});
