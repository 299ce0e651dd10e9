/**
 * One colour for each service, the same on every page and for everybody: a hash of the name picks a slot of a
 * palette. Services that share a slot on one page step on to the next free one. The palette keeps away from the reds, which mean errors.
 */

/** OKLCH hues that stay apart to the eye; 5–50 (reds) are left to errors. */
const HUES = [255, 150, 295, 75, 200, 340, 120, 230, 98, 275, 175, 318];

export type Theme = 'light' | 'dark';
/** Lightness and chroma of a bar: at least 3:1 against the page in its mode (WCAG 1.4.11); a test checks it. */
const TONE: Record<Theme, [number, number][]> = {
  light: [[0.585, 0.135], [0.46, 0.1]],
  dark: [[0.7, 0.115], [0.83, 0.08]],
};
export const SLOTS = HUES.length * 2;

const taken = new Map<string, number>();
const owner: (string | undefined)[] = [];

/** FNV-1a over UTF-16 units: small, stable, good enough for a few dozen names. */
export function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h ^= h >>> 15;
  return h >>> 0;
}

/** Gives each name its slot; sorted, so that the order in which a page lists them does not matter. */
export function register(names: Iterable<string>): void {
  for (const name of [...new Set(names)].sort()) slot(name);
}

export function slot(name: string): number {
  const known = taken.get(name);
  if (known !== undefined) return known;
  // The first tone of all hues is filled before the second: it is the one that is easier to tell apart.
  const start = hash(name) % HUES.length;
  let chosen = start;
  search: for (let tone = 0; tone < 2; tone++) {
    for (let i = 0; i < HUES.length; i++) {
      const s = tone * HUES.length + ((start + i) % HUES.length);
      if (owner[s] === undefined) { chosen = s; break search; }
    }
  }
  owner[chosen] ??= name;
  taken.set(name, chosen);
  return chosen;
}

export function serviceColour(name: string, theme: Theme): string {
  return slotColour(slot(name), theme);
}

export function slotColour(s: number, theme: Theme): string {
  const [l, c] = TONE[theme][Math.floor(s / HUES.length) % 2]!;
  return hex(oklchToRgb(l, c, HUES[s % HUES.length]!));
}

/** Björn Ottosson's OKLab (2020), to sRGB 0–1, out-of-gamut values clipped. */
export function oklchToRgb(l: number, c: number, hue: number): [number, number, number] {
  const a = c * Math.cos((hue * Math.PI) / 180);
  const b = c * Math.sin((hue * Math.PI) / 180);
  const l3 = (l + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m3 = (l - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s3 = (l - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const gamma = (v: number) => {
    const x = Math.min(1, Math.max(0, v));
    return x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055;
  };
  return [
    gamma(4.0767416621 * l3 - 3.3077115913 * m3 + 0.2309699292 * s3),
    gamma(-1.2684380046 * l3 + 2.6097574011 * m3 - 0.3413193965 * s3),
    gamma(-0.0041960863 * l3 - 0.7034186147 * m3 + 1.707614701 * s3),
  ];
}

function hex(rgb: [number, number, number]): string {
  return '#' + rgb.map((v) => Math.round(v * 255).toString(16).padStart(2, '0')).join('');
}

/** WCAG 2 contrast of two `#rrggbb` colours. */
export function contrast(one: string, two: string): number {
  const luminance = (colour: string) => {
    const [r, g, b] = [1, 3, 5].map((i) => {
      const v = parseInt(colour.slice(i, i + 2), 16) / 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    }) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [hi, lo] = [luminance(one), luminance(two)].sort((x, y) => y - x) as [number, number];
  return (hi + 0.05) / (lo + 0.05);
}
