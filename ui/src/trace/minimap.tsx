/** The whole trace at a glance, above the waterfall; drag over a part of it to look closer. */
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { duration } from '../format.ts';
import { useTheme } from '../theme.ts';
import { readPalette, type Palette } from './palette.ts';
import { EDGE_PX } from './paint.ts';
import { ERROR, ERROR_RANK, FOUND, rank, WARN_RANK } from './tree.ts';
import type { View } from './view.ts';
import { isWhole } from './window.ts';

export const MINIMAP_PX = 52;
const MARKS_PX = 10;
/** Spans beyond this are sampled evenly, errors aside: a picture of so few pixels shows no more. */
const MAX_DRAWN = 20_000;
/** A press that moves less is a click. */
const CLICK_PX = 4;

export function Minimap({ view, width }: { view: View; width: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  const palette = useMemo(() => readPalette(theme, view.tree.services), [theme, view]);
  const redraw = useRef(() => {});
  const drag = useRef<{ from: number; to: number; pan: boolean; window: { from: number; to: number } } | null>(null);
  const wide = Math.max(1, width - 2 * EDGE_PX);
  const size = view.whole.to - view.whole.from;
  const k = wide / size;
  const x = (ns: number) => EDGE_PX + (ns - view.whole.from) * k;
  const ns = (px: number) => view.whole.from + (px - EDGE_PX) / k;

  const picture = useMemo(() => still(view, width, palette), [view, width, palette]);

  useEffect(() => {
    let frame = 0;
    const draw = () => {
      frame = 0;
      const c = canvas.current;
      const ctx = c?.getContext('2d');
      if (!c || !ctx) return;
      const dpr = devicePixelRatio || 1;
      ctx.setTransform(1, 0, 0, 1, 0, 0);
      ctx.drawImage(picture, 0, 0);
      ctx.scale(dpr, dpr);
      const d = drag.current;
      const shown = d && !d.pan ? { from: ns(Math.min(d.from, d.to)), to: ns(Math.max(d.from, d.to)) } : view.window;
      if (!isWhole(shown, view.whole)) {
        const a = x(shown.from);
        const b = x(shown.to);
        ctx.globalAlpha = 0.68;
        ctx.fillStyle = palette.sunk;
        ctx.fillRect(0, 0, a, MINIMAP_PX);
        ctx.fillRect(b, 0, width - b, MINIMAP_PX);
        ctx.globalAlpha = 1;
        ctx.fillStyle = palette.accent;
        ctx.fillRect(a - 1, 0, 2, MINIMAP_PX);
        ctx.fillRect(b - 1, 0, 2, MINIMAP_PX);
      }
      if (view.find) {
        const every = Math.max(1, Math.ceil(view.found / MAX_DRAWN));
        ctx.fillStyle = palette.accent;
        for (let i = 0, n = 0; i < view.tree.count; i++) {
          if (view.tree.flags[i]! & FOUND && n++ % every === 0) ctx.fillRect(x(view.tree.start[i]!), 0, 2, 4);
        }
      }
      if (view.selected >= 0) {
        ctx.strokeStyle = palette.accent;
        ctx.lineWidth = 2;
        const a = x(view.tree.start[view.selected]!);
        const b = Math.max(a + 2, x(view.tree.start[view.selected]! + view.tree.length[view.selected]!));
        ctx.beginPath();
        ctx.moveTo(a, MINIMAP_PX - 1);
        ctx.lineTo(b, MINIMAP_PX - 1);
        ctx.stroke();
      }
    };
    const ask = () => { frame ||= requestAnimationFrame(draw); };
    ask();
    redraw.current = ask;
    const off = view.subscribe(ask);
    return () => { off(); cancelAnimationFrame(frame); };
  }, [view, picture, palette, width]);

  const place = (e: PointerEvent) => e.clientX - canvas.current!.getBoundingClientRect().left;
  const down = (e: PointerEvent) => {
    if (e.button !== 0) return;
    const at = place(e);
    const inside = at > x(view.window.from) && at < x(view.window.to);
    drag.current = { from: at, to: at, pan: inside && !isWhole(view.window, view.whole), window: view.window };
    canvas.current!.setPointerCapture(e.pointerId);
  };
  const move = (e: PointerEvent) => {
    const d = drag.current;
    if (!d) return;
    d.to = place(e);
    if (d.pan) view.look({ from: d.window.from + (d.to - d.from) / k, to: d.window.to + (d.to - d.from) / k });
    else redraw.current();
  };
  const up = () => {
    const d = drag.current;
    drag.current = null;
    if (!d) return;
    if (!d.pan && Math.abs(d.to - d.from) > CLICK_PX) view.look({ from: ns(Math.min(d.from, d.to)), to: ns(Math.max(d.from, d.to)) });
    else redraw.current();
  };

  const dpr = devicePixelRatio || 1;
  return (
    <canvas ref={canvas} class="minimap" width={Math.round(width * dpr)} height={Math.round(MINIMAP_PX * dpr)} style={{ width: `${width}px`, height: `${MINIMAP_PX}px` }}
      role="img" aria-label={`Overview of ${view.tree.count} spans over ${duration(size)}`} title="Drag to zoom, double click for the whole trace"
      onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={up} onDblClick={() => view.look(view.whole)} />
  );
}

/** The part that does not change while one looks around. */
function still(view: View, width: number, p: Palette): HTMLCanvasElement {
  const dpr = devicePixelRatio || 1;
  const c = document.createElement('canvas');
  c.width = Math.max(1, Math.round(width * dpr));
  c.height = Math.round(MINIMAP_PX * dpr);
  const ctx = c.getContext('2d')!;
  ctx.scale(dpr, dpr);
  ctx.fillStyle = p.surface;
  ctx.fillRect(0, 0, width, MINIMAP_PX);
  const { tree, whole } = view;
  const k = Math.max(1, width - 2 * EDGE_PX) / (whole.to - whole.from);
  const high = MINIMAP_PX - MARKS_PX - 6;
  // Thin lines overlap rather than blur.
  const line = Math.min(5, Math.max(2, Math.round((high / Math.max(1, tree.count)) * 0.7)));
  const every = Math.max(1, Math.ceil(tree.count / MAX_DRAWN));
  const put = (i: number, colour: string, least: number) => {
    const y = Math.round(3 + (high - line) * (tree.count > 1 ? i / (tree.count - 1) : 0.5));
    ctx.fillStyle = colour;
    ctx.fillRect(EDGE_PX + (tree.start[i]! - whole.from) * k, y, Math.max(least, tree.length[i]! * k), line);
  };
  for (let i = 0; i < tree.count; i += every) put(i, p.service[tree.service[i]!]!, 1);
  for (let i = 0; i < tree.count; i++) if (tree.flags[i]! & ERROR) put(i, p.error, 2.5);
  // Log lines along the foot: when something was said, and how bad it was.
  for (const line of view.said.order) {
    const r = rank(view.story.logs[line]!.level);
    const at = EDGE_PX + (view.said.at[line]! - whole.from) * k;
    if (at < 0 || at > width) continue;
    ctx.fillStyle = r >= ERROR_RANK ? p.error : r === WARN_RANK ? p.warn : p.edge;
    const tall = r >= WARN_RANK ? MARKS_PX - 3 : MARKS_PX - 6;
    ctx.fillRect(at, MINIMAP_PX - 3 - tall, r >= WARN_RANK ? 2 : 1, tall);
  }
  return c;
}
