/**
 * What of a trace is looked at: selection, window of time, folded subtrees. No DOM in here; the canvas, the panels
 * and the address bar follow it.
 */
import type { Story } from '../api.ts';
import { buildMarks, buildTree, findSpans, FOUND, hasChildren, nextFlagged, placeSaid, rowOf, shownRows, type Marks, type Said, type Tree } from './tree.ts';
import { clamp, isWhole, wholeOf, type Window } from './window.ts';

/** More folds than this do not fit a link that people can send. */
const MAX_FOLDS_IN_LINK = 60;

export class View {
  readonly tree: Tree;
  readonly said: Said;
  readonly marks: Marks;
  readonly whole: Window;
  window: Window;
  selected = -1;
  folded: Uint8Array;
  rows: Int32Array;
  /** Words that spans are looked for by, and how many have them. */
  find = '';
  found = 0;
  private allFolded = false;
  private readonly listeners = new Set<() => void>();

  constructor(readonly story: Story, query: URLSearchParams) {
    this.tree = buildTree(story.trace?.spans ?? [], query.get('clocks') !== 'raw');
    this.said = placeSaid(this.tree, story.logs, story.errors);
    this.marks = buildMarks(this.tree, story.logs, story.errors, this.said);
    this.whole = wholeOf(this.tree.from, this.tree.to);
    this.window = this.whole;
    this.folded = new Uint8Array(this.tree.count);
    this.rows = new Int32Array(0);
    this.take(query);
  }

  /** Sets everything from a link; what it names and is not here is left out. */
  take(query: URLSearchParams): void {
    this.selected = this.tree.byId.get(query.get('span') ?? '') ?? -1;
    const t = /^(-?\d+)\.\.(-?\d+)$/.exec(query.get('t') ?? '');
    this.window = t ? clamp({ from: Number(t[1]), to: Number(t[2]) }, this.whole) : this.whole;
    this.find = query.get('find') ?? '';
    this.found = findSpans(this.tree, this.find);
    this.setAll(query.get('fold') === 'all');
    for (const id of (query.get('flip') ?? '').split(',')) {
      const i = this.tree.byId.get(id);
      if (i !== undefined) this.folded[i] ^= 1;
    }
    this.reveal(this.selected);
    this.rows = shownRows(this.tree, this.folded);
    this.changed();
  }

  /** The link's part of this view. */
  link(): Record<string, string | null> {
    const flips: string[] = [];
    for (let i = 0; i < this.tree.count && flips.length < MAX_FOLDS_IN_LINK; i++) {
      if (hasChildren(this.tree, i) && this.folded[i] !== this.unflipped(i)) flips.push(this.tree.spans[i]!.span_id);
    }
    return {
      span: this.selected < 0 ? null : this.tree.spans[this.selected]!.span_id,
      t: isWhole(this.window, this.whole) ? null : `${Math.floor(this.window.from)}..${Math.ceil(this.window.to)}`,
      fold: this.allFolded ? 'all' : null,
      flip: flips.join(',') || null,
      find: this.find || null,
    };
  }

  select(i: number): void {
    if (i === this.selected) return;
    this.selected = i;
    if (this.reveal(i)) this.rows = shownRows(this.tree, this.folded);
    if (i >= 0) this.bringIntoWindow(i);
    this.changed();
  }

  /** Moves the selection by rows that are shown. */
  step(by: number): void {
    if (!this.rows.length) return;
    // From nowhere, a step enters at the near end, and Home and End go where they say.
    if (this.selected < 0) return this.select(this.rows[by === -Infinity || (by > 0 && by < Infinity) ? 0 : this.rows.length - 1]!);
    const row = rowOf(this.rows, this.selected) + by;
    this.select(this.rows[Math.min(this.rows.length - 1, Math.max(0, row))]!);
  }

  lookFor(text: string): void {
    this.find = text;
    this.found = findSpans(this.tree, text);
    this.changed();
  }

  /** On to the next span that was found, or back. */
  next(step: 1 | -1): void {
    const i = nextFlagged(this.tree, this.selected < 0 && step < 0 ? 0 : this.selected, step, FOUND);
    if (i >= 0) this.select(i);
  }

  look(w: Window): void {
    this.window = clamp(w, this.whole);
    this.changed();
  }

  fold(i: number, shut: boolean): void {
    if (!hasChildren(this.tree, i)) return;
    this.folded[i] = shut ? 1 : 0;
    this.rows = shownRows(this.tree, this.folded);
    this.changed();
  }

  /** Folds everything below the roots, or unfolds all; the selection moves up to what is still shown. */
  foldAll(shut = !this.allFolded): void {
    this.setAll(shut);
    this.rows = shownRows(this.tree, this.folded);
    if (this.selected >= 0) this.selected = this.rows[rowOf(this.rows, this.selected)]!;
    this.changed();
  }

  subscribe(f: () => void): () => void {
    this.listeners.add(f);
    return () => void this.listeners.delete(f);
  }

  private changed(): void {
    for (const f of this.listeners) f();
  }

  private unflipped(i: number): number {
    return this.allFolded && this.tree.depth[i]! > 0 && hasChildren(this.tree, i) ? 1 : 0;
  }

  private setAll(shut: boolean): void {
    this.allFolded = shut;
    for (let i = 0; i < this.tree.count; i++) this.folded[i] = this.unflipped(i);
  }

  /** Unfolds whatever hides `i`. */
  private reveal(i: number): boolean {
    let any = false;
    for (let p = i < 0 ? -1 : this.tree.parent[i]!; p >= 0; p = this.tree.parent[p]!) {
      if (this.folded[p]) any = true;
      this.folded[p] = 0;
    }
    return any;
  }

  /** A selected span is never outside of what is shown: the window moves, its size stays. */
  private bringIntoWindow(i: number): void {
    const { start, length } = this.tree;
    const size = this.window.to - this.window.from;
    const end = start[i]! + length[i]!;
    if (end < this.window.from || start[i]! > this.window.to) {
      const from = start[i]! + Math.min(length[i]!, size) / 2 - size / 2;
      this.window = clamp({ from, to: from + size }, this.whole);
    }
  }
}
