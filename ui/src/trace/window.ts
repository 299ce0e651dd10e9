/** The stretch of time that the waterfall shows: zooming, panning, and the lines of its axis. */

export type Window = { readonly from: number; readonly to: number };

/** Less than this would show nothing: clocks tick in nanoseconds. */
export const MIN_WINDOW_NS = 100;

export function clamp(w: Window, whole: Window): Window {
  const size = Math.min(Math.max(w.to - w.from, MIN_WINDOW_NS), Math.max(MIN_WINDOW_NS, whole.to - whole.from));
  const from = Math.min(Math.max(w.from, whole.from), Math.max(whole.from, whole.to - size));
  return { from, to: from + size };
}

/** `factor` < 1 looks closer; `at` stays where it is. */
export function zoom(w: Window, whole: Window, factor: number, at: number): Window {
  return clamp({ from: at - (at - w.from) * factor, to: at + (w.to - at) * factor }, whole);
}

/** Moves by a share of what is shown. */
export function pan(w: Window, whole: Window, share: number): Window {
  const by = (w.to - w.from) * share;
  return clamp({ from: w.from + by, to: w.to + by }, whole);
}

export function isWhole(w: Window, whole: Window): boolean {
  return w.from <= whole.from && w.to >= whole.to;
}

/** The distance between lines: 1, 2 or 5 times a power of ten, at most `most` of them. */
export function step(size: number, most: number): number {
  const raw = Math.max(1, size / Math.max(1, most));
  const power = 10 ** Math.floor(Math.log10(raw));
  for (const m of [1, 2, 5]) if (power * m >= raw * 0.999999) return power * m;
  return power * 10;
}

/** The whole trace with a little room at its end for the last label. */
export function wholeOf(from: number, to: number): Window {
  return { from, to: Math.max(to, from + MIN_WINDOW_NS) };
}
