/**
 * The waterfall: one canvas that stays in sight while an empty block of the full height scrolls behind it.
 * A hidden tree mirrors the rows in sight for screen readers; no span has an element of its own otherwise.
 */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { count, duration } from '../format.ts';
import { useTheme } from '../theme.ts';
import { Minimap } from './minimap.tsx';
import { AXIS_PX, indent, paint, ROW_PX, scale, type Sight } from './paint.ts';
import { readPalette } from './palette.ts';
import { ERROR, hasChildren, ORPHAN, rowOf, SKEWED } from './tree.ts';
import { useView } from './use_view.ts';
import type { View } from './view.ts';
import { pan, zoom } from './window.ts';

/** Browsers lose precision, then refuse, beyond some ten million pixels; longer traces scroll in larger steps. */
const MAX_SCROLL_PX = 8_000_000;
const FOOT_PX = 12;
const CLICK_PX = 4;
/** The mirror follows once scrolling pauses; it is for reading, not for watching. */
const MIRROR_PAUSE_MS = 80;
const NAMES_KEY = 'trackline.names';
const LEAST_NAMES_PX = 180;
const FIND_PX = 170;
/** How near to a mark a click means the mark. */
const MARK_PX = 6;

type Props = { view: View; onOpen: () => void; onLine: (line: number) => void };

export function Waterfall({ view, onOpen, onLine }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [share, setShare] = useState(keptShare);
  const names = Math.round(Math.min(Math.max(size.width * share, Math.min(LEAST_NAMES_PX, size.width * 0.42)), size.width * 0.7));
  const [shown, setShown] = useState({ first: 0, last: 0, rows: view.rows, selected: view.selected });
  const [tip, setTip] = useState<{ i: number; x: number; y: number } | null>(null);
  const palette = useMemo(() => readPalette(theme, view.tree.services), [theme, view]);
  const sight = useRef<Sight>({ width: 0, height: 0, names: 0, top: 0, hoverRow: -1, hoverX: -1, drag: null, focused: false });
  const ask = useRef(() => {});
  const total = AXIS_PX + view.rows.length * ROW_PX + FOOT_PX;
  const [height, setHeight] = useState(total);

  useLayoutEffect(() => {
    const box = scroller.current!;
    const watch = new ResizeObserver(() => setSize({ width: box.clientWidth, height: box.clientHeight }));
    watch.observe(box);
    setSize({ width: box.clientWidth, height: box.clientHeight });
    return () => watch.disconnect();
  }, []);

  useEffect(() => {
    const box = scroller.current!;
    const c = canvas.current!;
    const ctx = c.getContext('2d', { alpha: false })!;
    const dpr = devicePixelRatio || 1;
    c.width = Math.max(1, Math.round(size.width * dpr));
    c.height = Math.max(1, Math.round(size.height * dpr));
    Object.assign(sight.current, { width: size.width, height: size.height, names });
    let frame = 0;
    let pause = 0;
    let selected = view.selected;
    let rows = view.rows;
    setHeight(AXIS_PX + rows.length * ROW_PX + FOOT_PX);

    const draw = () => {
      frame = 0;
      sight.current.top = topOf(box, view);
      ctx.setTransform(dpr, 0, 0, dpr, 0, 0);
      paint(ctx, view, sight.current, palette);
      clearTimeout(pause);
      pause = window.setTimeout(mirror, MIRROR_PAUSE_MS);
    };
    const mirror = () => {
      const first = Math.max(0, Math.floor(sight.current.top / ROW_PX));
      const last = Math.min(view.rows.length, Math.ceil((sight.current.top + size.height - AXIS_PX) / ROW_PX));
      setShown((was) => (was.first === first && was.last === last && was.rows === view.rows && was.selected === view.selected ? was : { first, last, rows: view.rows, selected: view.selected }));
    };
    ask.current = () => { frame ||= requestAnimationFrame(draw); };

    const changed = () => {
      if (view.rows !== rows) {
        rows = view.rows;
        setHeight(AXIS_PX + rows.length * ROW_PX + FOOT_PX);
      }
      if (view.selected !== selected) {
        selected = view.selected;
        scrollTo(box, view, selected);
        setTip(null);
        mirror();
      }
      ask.current();
    };
    const onScroll = () => { setTip(null); ask.current(); };
    const off = view.subscribe(changed);
    box.addEventListener('scroll', onScroll, { passive: true });
    ask.current();
    return () => {
      off();
      box.removeEventListener('scroll', onScroll);
      cancelAnimationFrame(frame);
      clearTimeout(pause);
    };
  }, [view, palette, size, names]);

  // A link that names a span opens on it; an answer that grew leaves one where one was.
  useEffect(() => { if (size.height && view.selected >= 0) scrollTo(scroller.current!, view, view.selected, true); }, [size.height > 0]);

  const rowAt = (e: MouseEvent): number => {
    const y = e.clientY - canvas.current!.getBoundingClientRect().top;
    if (y < AXIS_PX) return -1;
    const r = Math.floor((y - AXIS_PX + sight.current.top) / ROW_PX);
    return r < view.rows.length ? r : -1;
  };
  const xAt = (e: MouseEvent) => e.clientX - canvas.current!.getBoundingClientRect().left;
  const press = useRef<{ x: number; y: number; row: number } | null>(null);

  const down = (e: PointerEvent) => {
    if (e.button !== 0) return;
    press.current = { x: xAt(e), y: e.clientY, row: rowAt(e) };
    if (xAt(e) > names) canvas.current!.setPointerCapture(e.pointerId);
  };
  const move = (e: PointerEvent) => {
    const x = xAt(e);
    const r = rowAt(e);
    const s = sight.current;
    s.hoverRow = r;
    s.hoverX = x > names ? x : -1;
    const start = press.current;
    if (start && start.x > names && Math.abs(x - start.x) > CLICK_PX) s.drag = [start.x, Math.min(Math.max(x, names), s.width)];
    if (s.drag || r < 0 || e.pointerType === 'touch') setTip(null);
    else setTip({ i: view.rows[r]!, x: e.clientX, y: e.clientY });
    ask.current();
  };
  const up = (e: PointerEvent) => {
    const start = press.current;
    const s = sight.current;
    press.current = null;
    if (s.drag) {
      const { ns } = scale(view, s);
      const [a, b] = [Math.min(...s.drag), Math.max(...s.drag)];
      s.drag = null;
      view.look({ from: ns(a), to: ns(b) });
      return;
    }
    if (!start || start.row < 0 || start.row !== rowAt(e)) return;
    const i = view.rows[start.row]!;
    if (start.x <= names && hasChildren(view.tree, i) && Math.abs(start.x - indent(view.tree.depth[i]!, names) - 5) < 9) {
      view.fold(i, !view.folded[i]);
      return;
    }
    view.select(i);
    const line = lineAt(view, s, i, start.x);
    if (line >= 0) onLine(line);
  };
  const leave = () => {
    Object.assign(sight.current, { hoverRow: -1, hoverX: -1 });
    setTip(null);
    ask.current();
  };
  const twice = (e: MouseEvent) => {
    const r = rowAt(e);
    if (r < 0) return view.look(view.whole);
    if (xAt(e) <= names) view.fold(view.rows[r]!, !view.folded[view.rows[r]!]);
    else zoomToSpan(view, view.rows[r]!);
  };

  // Not passive: the page itself must not zoom or go back in history while the pointer is in the time column.
  useEffect(() => {
    const box = scroller.current!;
    const onWheel = (e: WheelEvent) => {
      const x = e.clientX - box.getBoundingClientRect().left;
      if (x <= sight.current.names) return;
      const { ns } = scale(view, sight.current);
      if (e.ctrlKey || e.metaKey) view.look(zoom(view.window, view.whole, Math.exp(Math.max(-60, Math.min(60, e.deltaY)) / 120), ns(x)));
      else if (e.shiftKey || Math.abs(e.deltaX) > Math.abs(e.deltaY)) view.look(pan(view.window, view.whole, (e.deltaX || e.deltaY) / Math.max(1, sight.current.width)));
      else return;
      e.preventDefault();
    };
    box.addEventListener('wheel', onWheel, { passive: false });
    return () => box.removeEventListener('wheel', onWheel);
  }, [view]);

  const focus = (on: boolean) => { sight.current.focused = on; ask.current(); };
  const resize = (to: number) => {
    const next = Math.min(0.7, Math.max(0.12, to));
    setShare(next);
    try { localStorage.setItem(NAMES_KEY, String(next)); } catch { /* forgotten with the page */ }
  };

  return (
    <section class="waterfall" aria-label="Waterfall">
      {size.width > 0 && <Minimap view={view} width={size.width} />}
      <div class="waterfall-body">
        <div ref={scroller} class="waterfall-scroll" tabIndex={0} role="tree" aria-label="Spans" aria-activedescendant={view.selected >= 0 ? `row-${view.selected}` : undefined}
          onFocus={() => focus(true)} onBlur={() => focus(false)} onKeyDown={(e) => { if (e.key === 'Enter' && view.selected >= 0) { e.preventDefault(); onOpen(); } }}>
          <div class="waterfall-height" style={{ height: `${Math.min(height, MAX_SCROLL_PX)}px` }}>
            <canvas ref={canvas} class="waterfall-canvas" aria-hidden="true" style={{ width: `${size.width}px`, height: `${size.height}px` }}
              onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerLeave={leave} onPointerCancel={() => { press.current = null; sight.current.drag = null; leave(); }} onDblClick={twice} />
            <Mirror view={view} shown={shown} />
          </div>
        </div>
        <Find view={view} width={names} />
        <Splitter at={names} onMove={(x) => resize(x / Math.max(1, size.width))} share={share} onStep={(d) => resize(share + d)} box={scroller} />
      </div>
      {tip && <Tip view={view} {...tip} />}
      <p class="unseen" aria-live="polite">{shown.selected >= 0 && shown.selected < view.tree.count ? describe(view, shown.selected) : ''}</p>
    </section>
  );
}

/** Looks for spans by words of their names; it lies over the head of the names' column. */
function Find({ view, width }: { view: View; width: number }) {
  const text = useView(view, (v) => v.find);
  const found = useView(view, (v) => v.found);
  return (
    <div class="find-span" style={{ width: `${Math.min(FIND_PX, width * 0.55)}px`, left: `${width - Math.min(FIND_PX, width * 0.55) - 6}px` }}>
      <input id="span-filter" type="text" value={text} placeholder="Find spans" aria-label="Find spans by service, operation, message or id" spellcheck={false} autocomplete="off"
        onInput={(e) => view.lookFor(e.currentTarget.value)}
        onKeyDown={(e) => {
          if (e.key === 'Enter') view.next(e.shiftKey ? -1 : 1);
          else if (e.key !== 'Escape') return;
          else if (text) view.lookFor('');
          else e.currentTarget.blur();
          e.preventDefault();
          e.stopPropagation();
        }} />
      <span class="found" aria-live="polite">{text ? count(found) : ''}</span>
    </div>
  );
}

function keptShare(): number {
  try {
    const kept = Number(localStorage.getItem(NAMES_KEY));
    if (kept > 0.1 && kept < 0.75) return kept;
  } catch { /* the usual share */ }
  return 0.34;
}

/** The first pixel of the rows in sight; equal to the scroll position except in very long traces. */
function topOf(box: HTMLElement, view: View): number {
  const total = AXIS_PX + view.rows.length * ROW_PX + FOOT_PX;
  if (total <= MAX_SCROLL_PX) return Math.max(0, box.scrollTop);
  return (box.scrollTop / (MAX_SCROLL_PX - box.clientHeight)) * (total - box.clientHeight);
}

function scrollTo(box: HTMLElement, view: View, i: number, centre = false): void {
  if (i < 0) return;
  const y = rowOf(view.rows, i) * ROW_PX;
  const top = topOf(box, view);
  const room = box.clientHeight - AXIS_PX;
  const total = AXIS_PX + view.rows.length * ROW_PX + FOOT_PX;
  let want = top;
  // A step scrolls by a row; a jump lands in the middle.
  const far = y < top - 2 * ROW_PX || y > top + room + ROW_PX;
  if ((centre || far) && (y < top || y + ROW_PX > top + room)) want = y - room / 2;
  else if (y < top) want = y;
  else if (y + ROW_PX > top + room) want = y + ROW_PX - room;
  else return;
  box.scrollTop = total <= MAX_SCROLL_PX ? want : (want / (total - box.clientHeight)) * (MAX_SCROLL_PX - box.clientHeight);
}

export function zoomToSpan(view: View, i: number): void {
  const a = view.tree.start[i]!;
  const size = Math.max(view.tree.length[i]!, 200);
  view.look({ from: a - size * 0.06, to: a + size * 1.12 });
}

function lineAt(view: View, s: Sight, i: number, x: number): number {
  if (x <= s.names) return -1;
  const { first, at, line } = view.marks;
  const to = scale(view, s).x;
  let best = -1;
  let nearest = MARK_PX;
  for (let m = first[i]!; m < first[i + 1]!; m++) {
    const d = Math.abs(to(at[m]!) - x);
    if (d <= nearest && line[m]! >= 0) { nearest = d; best = line[m]!; }
  }
  return best;
}

/** One row in words. */
function describe(view: View, i: number): string {
  const { tree } = view;
  const s = tree.spans[i]!;
  const logs = view.marks.first[i + 1]! - view.marks.first[i]!;
  return [
    `${s.service} ${s.operation}`,
    duration(s.duration_ns),
    `starts at ${duration(tree.start[i]!)}`,
    tree.flags[i]! & ERROR ? `error${s.status_message ? ': ' + s.status_message : ''}` : '',
    tree.flags[i]! & SKEWED ? `clock corrected by ${duration(s.skew_ns)}` : '',
    tree.flags[i]! & ORPHAN ? 'its parent is missing' : '',
    logs ? `${logs} log lines` : '',
  ].filter(Boolean).join(', ');
}

function Mirror({ view, shown }: { view: View; shown: { first: number; last: number; rows: Int32Array } }) {
  const { tree } = view;
  const indices = [...shown.rows.subarray(shown.first, shown.last)].filter((i) => i < tree.count);
  if (view.selected >= 0 && !indices.includes(view.selected)) indices.push(view.selected);
  return (
    <div class="unseen" role="presentation">
      {indices.map((i) => (
        <div key={i} id={`row-${i}`} role="treeitem" aria-level={tree.depth[i]! + 1} aria-selected={i === view.selected} aria-expanded={hasChildren(tree, i) ? !view.folded[i] : undefined}>{describe(view, i)}</div>
      ))}
    </div>
  );
}

function Tip({ view, i, x, y }: { view: View; i: number; x: number; y: number }) {
  const { tree } = view;
  if (i >= tree.count) return null;
  const s = tree.spans[i]!;
  const right = x > innerWidth - 340;
  const above = y > innerHeight - 150;
  return (
    <div class="tip" role="presentation" style={{ left: right ? 'auto' : `${x + 14}px`, right: right ? `${innerWidth - x + 14}px` : 'auto', top: above ? 'auto' : `${y + 16}px`, bottom: above ? `${innerHeight - y + 12}px` : 'auto' }}>
      <strong>{s.operation}</strong>
      <span>{s.service}{s.kind !== 'internal' && s.kind !== 'unspecified' ? ` · ${s.kind}` : ''}</span>
      <span>{duration(s.duration_ns)} from {duration(tree.start[i]!)}</span>
      {s.status === 'error' && <span class="bad">{s.status_message || 'error'}</span>}
      {(tree.flags[i]! & SKEWED) !== 0 && <span class="warned">Its clock was off: moved by {duration(s.skew_ns)}</span>}
      {(tree.flags[i]! & ORPHAN) !== 0 && <span class="warned">Its parent is not here</span>}
    </div>
  );
}

type SplitterProps = { at: number; share: number; onMove: (x: number) => void; onStep: (by: number) => void; box: { current: HTMLElement | null } };

function Splitter({ at, share, onMove, onStep, box }: SplitterProps) {
  const dragging = useRef(false);
  return (
    <div class="splitter" style={{ left: `${at - 3}px` }} role="separator" aria-orientation="vertical" aria-label="Width of the names" tabIndex={0}
      aria-valuenow={Math.round(share * 100)} aria-valuemin={12} aria-valuemax={70}
      onPointerDown={(e) => { dragging.current = true; e.currentTarget.setPointerCapture(e.pointerId); e.preventDefault(); }}
      onPointerMove={(e) => { if (dragging.current && box.current) onMove(e.clientX - box.current.getBoundingClientRect().left); }}
      onPointerUp={() => { dragging.current = false; }}
      onKeyDown={(e) => {
        const by = e.key === 'ArrowLeft' ? -0.02 : e.key === 'ArrowRight' ? 0.02 : 0;
        if (!by) return;
        e.preventDefault();
        onStep(by);
      }} />
  );
}
