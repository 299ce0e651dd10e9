import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { contrast, register, serviceColour, slot, SLOTS, slotColour, type Theme } from '../../src/colour.ts';

const css = readFileSync(new URL('../../src/style/tokens.css', import.meta.url), 'utf8');
const [, light, dark] = css.split(':root');
const tokens = (block: string) => Object.fromEntries([...block.matchAll(/--([\w-]+):\s*(#[0-9a-f]{6})/g)].map((m) => [m[1]!, m[2]!]));
const THEMES: [Theme, Record<string, string>][] = [['light', tokens(light!)], ['dark', tokens(dark!)]];

test('contrast is WCAG’s', () => {
  expect(contrast('#000000', '#ffffff')).toBeCloseTo(21, 5);
  expect(contrast('#767676', '#ffffff')).toBeCloseTo(4.54, 2);
});

/** Each text colour, and the grounds it stands on. */
const TEXT: Record<string, string[]> = {
  'text': ['page', 'surface', 'sunk', 'hover', 'selected', 'error-soft', 'warn-soft'],
  'text-2': ['page', 'surface', 'sunk', 'hover', 'selected', 'error-soft', 'warn-soft'],
  'text-3': ['page', 'surface', 'sunk', 'hover'],
  'accent': ['page', 'surface', 'hover', 'error-soft'],
  'accent-text': ['accent'],
  'error': ['page', 'surface', 'hover', 'selected', 'error-soft'],
  'error-text': ['error'],
  'warn': ['page', 'surface', 'hover', 'selected', 'warn-soft'],
};

test.each(THEMES)('text is at least 4.5:1 in %s mode', (_, t) => {
  const poor = Object.entries(TEXT).flatMap(([text, grounds]) => grounds.map((g) => [text, g, contrast(t[text]!, t[g]!)] as const)).filter(([, , c]) => !(c >= 4.5));
  expect(poor).toEqual([]);
});

test.each(THEMES)('bars, edges of controls and focus are at least 3:1 in %s mode', (theme, t) => {
  const poor = [];
  for (let s = 0; s < SLOTS; s++) for (const g of ['surface', 'hover', 'error-soft']) if (contrast(slotColour(s, theme), t[g]!) < 3) poor.push([s, slotColour(s, theme), g]);
  for (const name of ['edge', 'accent', 'ok']) for (const g of ['page', 'surface']) if (contrast(t[name]!, t[g]!) < 3) poor.push([name, g]);
  expect(poor).toEqual([]);
});

test('a service keeps its colour, and no two of a page share one while there are enough', () => {
  const names = Array.from({ length: SLOTS }, (_, i) => `service-${i}`);
  register(names);
  const slots = names.map(slot);
  expect(new Set(slots).size).toBe(SLOTS);
  register([...names].reverse().concat('one-more'));
  expect(names.map(slot)).toEqual(slots);
  expect(serviceColour('one-more', 'light')).toMatch(/^#[0-9a-f]{6}$/);
});
