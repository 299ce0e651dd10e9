import { expect, test } from 'vitest';
import { ago, duration, tick, unixMillis, usd } from '../../src/format.ts';

test.each([
  [0, '0 ns'], [999, '999 ns'], [1_000, '1 µs'], [1_234_567, '1.23 ms'], [12_345_678, '12.3 ms'], [123_456_789, '123 ms'],
  [999_999, '1 ms'], [999_999_999, '1 s'], [59_940_000_000, '59.9 s'], [60e9, '1 min 0 s'], [3_599.6e9, '1 h 0 min'], [90_061e9, '25 h 1 min'], [-2_500_000, '−2.5 ms'],
])('duration %d', (ns, text) => expect(duration(ns)).toBe(text));

test('labels of one axis share a unit and have as many digits as their distance needs', () => {
  expect([0, 5e5, 1e6, 1.5e6].map((t) => tick(t, 5e5, 2e6))).toEqual(['0', '0.5 ms', '1.0 ms', '1.5 ms']);
  expect(tick(199_002_000, 2_000, 205e6)).toBe('199.002 ms');
});

test('instants beyond 2^53 ns keep their milliseconds', () => expect(unixMillis('1763665301512345678')).toBe(1763665301512));

test('ago', () => {
  const at = (s: number) => ago(1e12 - s * 1e3, 1e12);
  expect([0, 30, 150, 7_300, 200_000, -60].map(at)).toEqual(['now', '30 s ago', '2 min ago', '2 h ago', '2 d ago', 'in the future']);
});

test('money', () => expect([0, 0.0041, 0.02400001, 12.5, 0.5].map(usd)).toEqual(['$0', '$0.0041', '$0.024', '$12.50', '$0.5']));
