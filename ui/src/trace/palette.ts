/** The colours a canvas draws with, read once per theme from the same names that the stylesheet uses. */
import { slot, slotColour, type Theme } from '../colour.ts';

export type Palette = {
  theme: Theme;
  surface: string; sunk: string; hover: string; selected: string; line: string; edge: string;
  text: string; text2: string; text3: string; accent: string; error: string; errorSoft: string; errorText: string; warn: string;
  sans: string; mono: string;
  service: string[];
};

export function readPalette(theme: Theme, services: readonly string[]): Palette {
  const css = getComputedStyle(document.documentElement);
  const v = (name: string) => css.getPropertyValue(`--${name}`).trim();
  return {
    theme,
    surface: v('surface'), sunk: v('sunk'), hover: v('hover'), selected: v('selected'), line: v('line'), edge: v('edge'),
    text: v('text'), text2: v('text-2'), text3: v('text-3'), accent: v('accent'), error: v('error'), errorSoft: v('error-soft'), errorText: v('error-text'), warn: v('warn'),
    sans: v('sans'), mono: v('mono'),
    service: services.map((s) => slotColour(slot(s), theme)),
  };
}
