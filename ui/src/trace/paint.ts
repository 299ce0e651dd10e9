/** Draws the rows that are in sight, and nothing else; a frame costs the same for 30 spans and for 100,000. */
import { duration, tick } from '../format.ts';
import type { Palette } from './palette.ts';
import { CAUSE, covered, ERROR, ERROR_RANK, FOUND, hasChildren, ORPHAN, SKEWED, type Tree, WARN_RANK } from './tree.ts';
import type { View } from './view.ts';
import { step } from './window.ts';

export const ROW_PX = 22;
export const AXIS_PX = 26;
const BAR_PX = 10;
/** Room before the first bar. */
export const EDGE_PX = 12;
/** Room behind the last, where its duration is written, unless the column is too narrow to spare it. */
const LABEL_PX = 58;
const SPARE_FROM_PX = 420;
const INDENT_PX = 13;
/** How much of a row is left that is not looked for. */
const DIM = 0.28;
/** One axis label needs about so much room. */
const TICK_ROOM_PX = 96;

export type Sight = {
  width: number;
  height: number;
  /** Width of the column of names. */
  names: number;
  /** First shown pixel of the rows. */
  top: number;
  hoverRow: number;
  /** Pointer in the time column, or −1. */
  hoverX: number;
  /** A stretch being dragged over, in pixels. */
  drag: [number, number] | null;
  focused: boolean;
};

/** Time ⇄ pixels of the time column. */
export function scale(view: View, sight: Sight) {
  const left = sight.names + EDGE_PX;
  const column = sight.width - sight.names;
  const wide = Math.max(1, column - EDGE_PX - (column > SPARE_FROM_PX ? LABEL_PX : EDGE_PX));
  const { from, to } = view.window;
  const k = wide / (to - from);
  return {
    left, right: left + wide, k,
    x: (ns: number) => left + (ns - from) * k,
    ns: (x: number) => from + (x - left) / k,
  };
}

/** How far the names of a depth stand in; deep traces keep room for text. */
export function indent(depth: number, names: number): number {
  return 8 + Math.min(depth * INDENT_PX, Math.max(0, names * 0.5 - 40));
}

const widths = new Map<string, number>();
/** Names repeat; measuring them anew on each frame would cost more than drawing them. */
const MAX_WIDTHS = 8_000;

function measure(ctx: CanvasRenderingContext2D, text: string): number {
  const key = ctx.font + text;
  let w = widths.get(key);
  if (w === undefined) {
    if (widths.size > MAX_WIDTHS) widths.clear();
    w = ctx.measureText(text).width;
    widths.set(key, w);
  }
  return w;
}

/** No label is longer than this, however long an operation's name is. */
const MAX_CHARS = 200;

function fit(ctx: CanvasRenderingContext2D, whole: string, room: number): string {
  const text = whole.length > MAX_CHARS ? whole.slice(0, MAX_CHARS) + '…' : whole;
  if (room < 12) return '';
  const w = measure(ctx, text);
  if (w <= room) return text;
  let n = Math.max(1, Math.floor((text.length * room) / w) - 1);
  while (n > 1 && measure(ctx, text.slice(0, n) + '…') > room) n--;
  return text.slice(0, n) + '…';
}

const gaps = new WeakMap<Tree, Map<number, Float64Array>>();

function coveredOnce(tree: Tree, i: number): Float64Array {
  let known = gaps.get(tree);
  if (!known) gaps.set(tree, (known = new Map()));
  let c = known.get(i);
  if (!c) known.set(i, (c = covered(tree, i)));
  return c;
}

export function paint(ctx: CanvasRenderingContext2D, view: View, sight: Sight, p: Palette): void {
  const { width, height, names, top } = sight;
  const { rows, tree } = view;
  const s = scale(view, sight);
  ctx.fillStyle = p.surface;
  ctx.fillRect(0, 0, width, height);
  const first = Math.max(0, Math.floor(top / ROW_PX));
  const last = Math.min(rows.length, Math.ceil((top + height - AXIS_PX) / ROW_PX));

  for (let r = first; r < last; r++) {
    const i = rows[r]!;
    const y = AXIS_PX + r * ROW_PX - top;
    const wash = i === view.selected ? p.selected : tree.flags[i]! & CAUSE ? p.errorSoft : r === sight.hoverRow ? p.hover : '';
    if (wash) {
      ctx.fillStyle = wash;
      ctx.fillRect(0, y, width, ROW_PX);
    }
    if (tree.flags[i]! & CAUSE) {
      ctx.fillStyle = p.error;
      ctx.fillRect(0, y, 3, ROW_PX);
    }
    if (i === view.selected && sight.focused) {
      ctx.strokeStyle = p.accent;
      ctx.lineWidth = 1.5;
      ctx.strokeRect(1, y + 1, width - 2, ROW_PX - 2);
    }
  }
  paintGrid(ctx, view, sight, p);

  ctx.textBaseline = 'middle';
  ctx.save();
  ctx.beginPath();
  ctx.rect(0, AXIS_PX, names, height - AXIS_PX);
  ctx.clip();
  // While spans are looked for, the others step back; what one reads closely is the panel, not a dimmed row.
  const alpha = (i: number) => (view.find && !(tree.flags[i]! & FOUND) && i !== view.selected ? DIM : 1);
  for (let r = first; r < last; r++) {
    ctx.globalAlpha = alpha(rows[r]!);
    paintName(ctx, view, sight, p, rows[r]!, AXIS_PX + r * ROW_PX - top);
  }
  ctx.restore();

  ctx.save();
  ctx.beginPath();
  ctx.rect(names + 1, AXIS_PX, width - names - 1, height - AXIS_PX);
  ctx.clip();
  for (let r = first; r < last; r++) {
    const dim = alpha(rows[r]!);
    ctx.globalAlpha = dim;
    paintBar(ctx, view, sight, p, s, rows[r]!, AXIS_PX + r * ROW_PX - top, dim);
  }
  ctx.restore();

  paintAxis(ctx, view, sight, p);
}

function paintGrid(ctx: CanvasRenderingContext2D, view: View, sight: Sight, p: Palette): void {
  const s = scale(view, sight);
  const by = step(view.window.to - view.window.from, (s.right - s.left) / TICK_ROOM_PX);
  ctx.fillStyle = p.line;
  for (let t = Math.ceil(view.window.from / by) * by; s.x(t) <= sight.width; t += by) {
    ctx.fillRect(Math.round(s.x(t)), AXIS_PX, 1, sight.height);
  }
  ctx.fillRect(sight.names, 0, 1, sight.height);
}

function paintAxis(ctx: CanvasRenderingContext2D, view: View, sight: Sight, p: Palette): void {
  const s = scale(view, sight);
  const { from, to } = view.window;
  ctx.fillStyle = p.surface;
  ctx.fillRect(0, 0, sight.width, AXIS_PX);
  ctx.fillStyle = p.line;
  ctx.fillRect(0, AXIS_PX - 1, sight.width, 1);
  ctx.fillRect(sight.names, 0, 1, AXIS_PX);
  const mid = AXIS_PX / 2;
  ctx.font = `500 12px ${p.sans}`;
  ctx.fillStyle = p.text2;
  ctx.fillText(fit(ctx, 'Service and operation', sight.names * 0.45 - 16), 12, mid);
  ctx.font = `11px ${p.sans}`;
  const by = step(to - from, (s.right - s.left) / TICK_ROOM_PX);
  for (let t = Math.ceil(from / by) * by; s.x(t) <= sight.width; t += by) {
    const label = tick(t, by, Math.max(Math.abs(from), Math.abs(to)));
    const w = measure(ctx, label);
    const x = Math.round(s.x(t));
    ctx.fillStyle = p.edge;
    ctx.fillRect(x, AXIS_PX - 5, 1, 4);
    ctx.fillStyle = p.text2;
    if (x + 4 + w < sight.width) ctx.fillText(label, x + 4, mid);
  }
  if (sight.drag) {
    const [a, b] = [Math.min(...sight.drag), Math.max(...sight.drag)];
    ctx.globalAlpha = 0.16;
    ctx.fillStyle = p.accent;
    ctx.fillRect(a, AXIS_PX, b - a, sight.height);
    ctx.globalAlpha = 1;
    ctx.fillRect(a, 0, 1, sight.height);
    ctx.fillRect(b, 0, 1, sight.height);
    flag(ctx, p, sight, (a + b) / 2, duration((b - a) / s.k), mid);
  } else if (sight.hoverX >= sight.names) {
    ctx.globalAlpha = 0.55;
    ctx.fillStyle = p.accent;
    ctx.fillRect(Math.round(sight.hoverX), AXIS_PX, 1, sight.height);
    ctx.globalAlpha = 1;
    flag(ctx, p, sight, sight.hoverX, duration(s.ns(sight.hoverX)), mid);
  }
}

/** A time written on the axis, on a ground of its own. */
function flag(ctx: CanvasRenderingContext2D, p: Palette, sight: Sight, x: number, label: string, y: number): void {
  const w = measure(ctx, label) + 12;
  const at = Math.min(Math.max(x - w / 2, sight.names + 2), sight.width - w - 2);
  ctx.fillStyle = p.accent;
  ctx.beginPath();
  ctx.roundRect(at, y - 9, w, 18, 4);
  ctx.fill();
  ctx.fillStyle = p.theme === 'dark' ? '#0b1020' : '#ffffff';
  ctx.fillText(label, at + 6, y);
}

function paintName(ctx: CanvasRenderingContext2D, view: View, sight: Sight, p: Palette, i: number, y: number): void {
  const { tree } = view;
  const span = tree.spans[i]!;
  const depth = tree.depth[i]!;
  const flags = tree.flags[i]!;
  const mid = y + ROW_PX / 2 + 0.5;
  let x = indent(depth, sight.names);
  ctx.fillStyle = p.line;
  for (let d = 1; d <= depth; d++) {
    const gx = indent(d - 1, sight.names) + 5;
    if (gx >= x - 6) break;
    ctx.fillRect(Math.round(gx), y, 1, ROW_PX);
  }
  let room = sight.names - 8;
  if (hasChildren(tree, i)) {
    const shut = view.folded[i] === 1;
    caret(ctx, x + 5, mid - 0.5, shut, p.text2);
    if (shut) {
      const hidden = `+${tree.end[i]! - i - 1}`;
      ctx.font = `500 11px ${p.sans}`;
      const w = measure(ctx, hidden) + 10;
      room -= w + 4;
      ctx.fillStyle = p.sunk;
      ctx.beginPath();
      ctx.roundRect(room + 4, y + 4, w, ROW_PX - 8, 7);
      ctx.fill();
      ctx.fillStyle = p.text2;
      ctx.fillText(hidden, room + 9, mid);
    }
  }
  x += 14;
  ctx.fillStyle = p.service[tree.service[i]!]!;
  ctx.beginPath();
  ctx.roundRect(x, y + 5, 4, ROW_PX - 10, 2);
  ctx.fill();
  x += 10;
  if (flags & ERROR) {
    badge(ctx, x + 6, y + ROW_PX / 2, p, (flags & CAUSE) !== 0);
    x += 18;
  }
  if (flags & SKEWED) {
    clockGlyph(ctx, x + 5.5, y + ROW_PX / 2, p.warn);
    x += 16;
  }
  if (flags & ORPHAN) {
    ctx.font = `12px ${p.sans}`;
    ctx.fillStyle = p.warn;
    ctx.fillText('⋯', x, mid);
    x += 15;
  }
  const parent = tree.parent[i]!;
  if (parent < 0 || tree.service[parent] !== tree.service[i]) {
    ctx.font = `12px ${p.sans}`;
    ctx.fillStyle = p.text2;
    const text = fit(ctx, span.service, Math.min(room - x, Math.max(60, (room - x) * 0.55)));
    ctx.fillText(text, x, mid);
    x += measure(ctx, text) + 7;
  }
  ctx.font = `${parent < 0 ? 600 : 500} 12px ${p.sans}`;
  ctx.fillStyle = flags & ERROR ? p.error : p.text;
  ctx.fillText(fit(ctx, span.operation, room - x), x, mid);
}

function caret(ctx: CanvasRenderingContext2D, x: number, y: number, shut: boolean, colour: string): void {
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5;
  ctx.lineCap = 'round';
  ctx.lineJoin = 'round';
  ctx.beginPath();
  if (shut) { ctx.moveTo(x - 1.5, y - 3.5); ctx.lineTo(x + 2, y); ctx.lineTo(x - 1.5, y + 3.5); }
  else { ctx.moveTo(x - 3.5, y - 1.5); ctx.lineTo(x, y + 2); ctx.lineTo(x + 3.5, y - 1.5); }
  ctx.stroke();
}

/** Where an error began it is filled, where it passed through it is a ring. */
function badge(ctx: CanvasRenderingContext2D, x: number, y: number, p: Palette, cause: boolean): void {
  ctx.beginPath();
  ctx.arc(x, y, 6, 0, Math.PI * 2);
  if (cause) {
    ctx.fillStyle = p.error;
    ctx.fill();
  } else {
    ctx.strokeStyle = p.error;
    ctx.lineWidth = 1.25;
    ctx.stroke();
  }
  ctx.fillStyle = cause ? p.errorText : p.error;
  ctx.fillRect(x - 0.8, y - 3.4, 1.6, 4.4);
  ctx.fillRect(x - 0.8, y + 2, 1.6, 1.6);
}

function clockGlyph(ctx: CanvasRenderingContext2D, x: number, y: number, colour: string): void {
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.25;
  ctx.beginPath();
  ctx.arc(x, y, 5, 0, Math.PI * 2);
  ctx.moveTo(x, y - 2.8);
  ctx.lineTo(x, y);
  ctx.lineTo(x + 2.2, y + 1.2);
  ctx.stroke();
}

function paintBar(ctx: CanvasRenderingContext2D, view: View, sight: Sight, p: Palette, s: ReturnType<typeof scale>, i: number, y: number, alpha: number): void {
  const { tree, marks } = view;
  const flags = tree.flags[i]!;
  const a = s.x(tree.start[i]!);
  const b = s.x(tree.start[i]! + tree.length[i]!);
  const mid = y + ROW_PX / 2;
  const colour = p.service[tree.service[i]!]!;
  ctx.font = `11px ${p.sans}`;
  if (b < s.left - 1 || a > sight.width) {
    // It runs outside of the window: say where.
    caret2(ctx, b < s.left ? sight.names + 7 : sight.width - 7, mid, b < s.left, colour);
    return;
  }
  const x0 = Math.max(a, sight.names - 8);
  const x1 = Math.max(Math.min(b, sight.width + 8), x0 + 2);
  const barTop = mid - BAR_PX / 2;
  const wide = x1 - x0;

  if (flags & SKEWED) {
    const shift = (tree.start[i]! - tree.spans[i]!.offset_ns) * s.k;
    if (Math.abs(shift) >= 1) {
      ctx.strokeStyle = p.warn;
      ctx.lineWidth = 1;
      ctx.setLineDash([3, 2]);
      ctx.globalAlpha = alpha * 0.65;
      ctx.strokeRect(Math.max(a - shift, -10) + 0.5, barTop + 0.5, Math.min(Math.max(b - a, 2), sight.width + 20), BAR_PX - 1);
      ctx.setLineDash([]);
      ctx.globalAlpha = alpha;
    }
  }

  ctx.fillStyle = colour;
  const parts = hasChildren(tree, i) && wide > 3 ? coveredOnce(tree, i) : null;
  if (parts?.length) {
    // Time spent in children is pale, time of its own is solid: the gaps show.
    ctx.globalAlpha = alpha * (p.theme === 'dark' ? 0.42 : 0.36);
    ctx.beginPath();
    ctx.roundRect(x0, barTop, wide, BAR_PX, 2.5);
    ctx.fill();
    ctx.globalAlpha = alpha;
    let free = x0;
    for (let k = firstAfter(parts, view.window.from); k < parts.length; k += 2) {
      const from = s.x(parts[k]!);
      if (from > free + 0.5) ctx.fillRect(free, barTop, Math.min(from, x1) - free, BAR_PX);
      free = Math.max(free, s.x(parts[k + 1]!));
      if (free >= x1) break;
    }
    if (x1 > free + 0.5) ctx.fillRect(free, barTop, x1 - free, BAR_PX);
  } else {
    ctx.beginPath();
    ctx.roundRect(x0, barTop, wide, BAR_PX, Math.min(2.5, wide / 2));
    ctx.fill();
  }
  if (flags & ERROR) {
    ctx.strokeStyle = p.error;
    ctx.lineWidth = flags & CAUSE ? 2 : 1.25;
    const out = flags & CAUSE ? 1.5 : 1;
    ctx.beginPath();
    ctx.roundRect(x0 - out, barTop - out, Math.max(wide, 4) + out * 2, BAR_PX + out * 2, 3.5);
    ctx.stroke();
  }

  let marksEnd = x1;
  for (let m = marks.first[i]!, drawn = -99; m < marks.first[i + 1]!; m++) {
    const x = s.x(marks.at[m]!);
    if (x < sight.names - 6 || x > sight.width + 6) continue;
    const bad = marks.rank[m]! >= WARN_RANK;
    if (x - drawn < 1.5 && !bad) continue;
    drawn = x;
    marksEnd = Math.max(marksEnd, x + 4);
    markAt(ctx, p, x, mid, marks.rank[m]!);
  }

  const label = duration(tree.length[i]!);
  const w = measure(ctx, label);
  ctx.fillStyle = flags & ERROR ? p.error : p.text2;
  if (marksEnd + 6 + w < sight.width - 2) {
    const at = Math.max(marksEnd, sight.names) + 6;
    if (flags & SKEWED) {
      // The dashes of where it was said to be may run through here.
      ctx.strokeStyle = i === view.selected ? p.selected : flags & CAUSE ? p.errorSoft : p.surface;
      ctx.lineWidth = 5;
      ctx.strokeText(label, at, mid + 0.5);
    }
    ctx.fillText(label, at, mid + 0.5);
  }
  else if (x0 - 6 - w > sight.names + 4) ctx.fillText(label, x0 - 6 - w, mid + 0.5);
  else {
    const at = Math.min(x1, sight.width) - w - 8;
    ctx.fillStyle = p.surface;
    ctx.beginPath();
    ctx.roundRect(at - 4, barTop - 1, w + 8, BAR_PX + 2, 3);
    ctx.fill();
    ctx.fillStyle = flags & ERROR ? p.error : p.text2;
    ctx.fillText(label, at, mid + 0.5);
  }
}

/** A log line on its span: a pin on the bar; warnings and errors in their colours and shapes. */
function markAt(ctx: CanvasRenderingContext2D, p: Palette, x: number, mid: number, rank: number): void {
  ctx.lineWidth = 1.5;
  ctx.strokeStyle = p.surface;
  ctx.fillStyle = rank >= ERROR_RANK ? p.error : rank === WARN_RANK ? p.warn : p.text;
  ctx.beginPath();
  if (rank >= ERROR_RANK) { ctx.moveTo(x, mid - 5); ctx.lineTo(x + 5, mid); ctx.lineTo(x, mid + 5); ctx.lineTo(x - 5, mid); ctx.closePath(); }
  else if (rank === WARN_RANK) { ctx.moveTo(x, mid - 5); ctx.lineTo(x + 5, mid + 4); ctx.lineTo(x - 5, mid + 4); ctx.closePath(); }
  else ctx.arc(x, mid, 2.75, 0, Math.PI * 2);
  ctx.stroke();
  ctx.fill();
}

function caret2(ctx: CanvasRenderingContext2D, x: number, y: number, left: boolean, colour: string): void {
  const d = left ? -3 : 3;
  ctx.strokeStyle = colour;
  ctx.lineWidth = 2;
  ctx.lineCap = 'round';
  ctx.beginPath();
  ctx.moveTo(x - d / 2, y - 4);
  ctx.lineTo(x + d / 2, y);
  ctx.lineTo(x - d / 2, y + 4);
  ctx.stroke();
}

/** The first pair of `[from, to …]` that ends after `t`. */
function firstAfter(pairs: Float64Array, t: number): number {
  let lo = 0;
  let hi = pairs.length / 2;
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (pairs[mid * 2 + 1]! < t) lo = mid + 1;
    else hi = mid;
  }
  return lo * 2;
}
