/**
 * What all services said, in time order, tied to their spans both ways. Only the lines in sight are elements, so that
 * a hundred thousand lines scroll like ten.
 */
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { LogLine } from '../api.ts';
import { serviceColour } from '../colour.ts';
import { clock, count, duration, plural, unixMillis } from '../format.ts';
import { adjust, usePlace } from '../route.ts';
import { useTheme } from '../theme.ts';
import { Values } from './values.tsx';
import { rank } from './tree.ts';
import { useView } from './use_view.ts';
import type { View } from './view.ts';

const LINE_PX = 22;
/** Room for one opened line; its content scrolls inside. */
const OPEN_PX = 190;
/** Lines drawn above and below the sight, so that a fast scroll does not show white. */
const SPARE = 8;

export const LEVELS: [string, number][] = [['all levels', 0], ['debug', 1], ['info', 2], ['warn', 3], ['error', 4]];

export function Logs({ view }: { view: View }) {
  const { query } = usePlace();
  const theme = useTheme();
  const selected = useView(view, (v) => v.selected);
  const text = query.get('q') ?? '';
  const least = LEVELS.find(([name]) => name === query.get('level'))?.[1] ?? 0;
  const of = query.get('of') ?? '';
  const opened = query.get('log') ?? '';
  const { logs } = view.story;
  const { owner: owners, at, order } = view.said;

  const shown = useMemo(() => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const out: number[] = [];
    for (const k of order) {
      const l = logs[k]!;
      const o = owners[k]!;
      if (rank(l.level) < least) continue;
      if (of === 'span' && selected >= 0 && o !== selected) continue;
      if (of === 'below' && selected >= 0 && !(o >= selected && o < view.tree.end[selected]!)) continue;
      if (words.length) {
        const hay = haystack(l);
        if (!words.every((w) => hay.includes(w))) continue;
      }
      out.push(k);
    }
    return out;
  }, [view, text, least, of, of ? selected : 0]);

  const box = useRef<HTMLDivElement>(null);
  const [sight, setSight] = useState({ top: 0, height: 300 });
  const [active, setActive] = useState(-1);
  const openAt = opened ? shown.findIndex((k) => lineName(logs, k) === opened) : -1;
  const y = (row: number) => row * LINE_PX + (openAt >= 0 && row > openAt ? OPEN_PX : 0);

  useLayoutEffect(() => {
    const b = box.current!;
    const look = () => setSight({ top: b.scrollTop, height: b.clientHeight });
    const watch = new ResizeObserver(look);
    watch.observe(b);
    b.addEventListener('scroll', look, { passive: true });
    return () => { watch.disconnect(); b.removeEventListener('scroll', look); };
  }, []);

  const bring = (row: number, high = LINE_PX) => {
    const b = box.current!;
    if (row < 0) return;
    if (y(row) < b.scrollTop) b.scrollTop = y(row) - LINE_PX;
    else if (y(row) + high > b.scrollTop + b.clientHeight) b.scrollTop = Math.min(y(row) - LINE_PX, y(row) + high - b.clientHeight + LINE_PX);
  };
  useEffect(() => { bring(openAt, LINE_PX + OPEN_PX); }, [opened, openAt]);
  // A selected span's lines come into sight, unless one of them is there already.
  useEffect(() => {
    if (selected < 0 || openAt >= 0) return;
    const b = box.current!;
    const mine = shown.flatMap((k, row) => (owners[k] === selected ? [row] : []));
    if (mine.length && !mine.some((r) => y(r) >= b.scrollTop && y(r) + LINE_PX <= b.scrollTop + b.clientHeight)) bring(mine[0]!);
  }, [selected]);

  const open = (row: number) => {
    const k = shown[row]!;
    const name = lineName(logs, k);
    setActive(row);
    if (owners[k]! >= 0) view.select(owners[k]!);
    adjust({ log: opened === name ? null : name });
  };
  const onKey = (e: KeyboardEvent) => {
    const by = e.key === 'ArrowDown' || e.key === 'j' ? 1 : e.key === 'ArrowUp' || e.key === 'k' ? -1 : e.key === 'PageDown' ? 10 : e.key === 'PageUp' ? -10 : 0;
    if (by) {
      const next = Math.min(shown.length - 1, Math.max(0, active < 0 ? (openAt >= 0 ? openAt + by : 0) : active + by));
      setActive(next);
      bring(next);
    } else if ((e.key === 'Enter' || e.key === ' ') && active >= 0 && active < shown.length) open(active);
    else if (e.key === 'Escape' && opened) adjust({ log: null });
    else return;
    e.preventDefault();
    e.stopPropagation();
  };

  const first = Math.max(0, Math.floor((sight.top - (openAt >= 0 ? OPEN_PX : 0)) / LINE_PX) - SPARE);
  const last = Math.min(shown.length, Math.ceil((sight.top + sight.height) / LINE_PX) + SPARE);

  return (
    <div class="logs">
      <div class="panel-tools">
        <input id="log-filter" type="text" value={text} placeholder="Filter: words in message, service, fields" aria-label="Filter logs by text" spellcheck={false} autocomplete="off"
          onInput={(e) => adjust({ q: e.currentTarget.value || null })} onKeyDown={(e) => { if (e.key === 'Escape') { if (text) adjust({ q: null }); else e.currentTarget.blur(); e.stopPropagation(); } }} />
        <select aria-label="Lowest level" value={query.get('level') ?? 'all levels'} onChange={(e) => adjust({ level: e.currentTarget.value === 'all levels' ? null : e.currentTarget.value })}>
          {LEVELS.map(([name, r]) => <option key={name} value={name}>{r && r < 4 ? `${name} and worse` : name}</option>)}
        </select>
        <select aria-label="Of which spans" value={of} onChange={(e) => adjust({ of: e.currentTarget.value })}>
          <option value="">all spans</option>
          <option value="span">selected span</option>
          <option value="below">selected span and below</option>
        </select>
        <span class="quiet" role="status">{shown.length === logs.length ? plural(logs.length, 'line') : `${count(shown.length)} of ${plural(logs.length, 'line')}`}{view.story.more.logs_cut ? `, ${count(view.story.more.logs_cut)} more were left out` : ''}</span>
      </div>
      <div ref={box} class="log-box" role="listbox" aria-label="Log lines" tabIndex={0} aria-activedescendant={active >= 0 ? `log-${active}` : undefined} onKeyDown={onKey}>
        <div role="presentation" style={{ height: `${y(shown.length) + (openAt === shown.length - 1 && openAt >= 0 ? OPEN_PX : 0)}px`, position: 'relative' }}>
          {shown.slice(first, last).map((k, j) => {
            const row = first + j;
            const l = logs[k]!;
            const r = rank(l.level);
            const mine = selected >= 0 && owners[k] === selected;
            const isOpen = row === openAt;
            return (
              <div key={k} id={`log-${row}`} role="option" aria-selected={isOpen} class={`line rank-${r} ${mine ? 'mine' : ''} ${row === active ? 'active' : ''} ${isOpen ? 'open' : ''}`}
                style={{ top: `${y(row)}px`, height: `${LINE_PX + (isOpen ? OPEN_PX : 0)}px` }}>
                <div class="line-row" onClick={() => open(row)}>
                  <span class="line-time" title={clock(unixMillis(l.time_unix_nano))}>{duration(at[k]!)}</span>
                  <span class="line-level">{l.level}</span>
                  <span class="line-service"><i class="dot" style={{ background: serviceColour(l.service, theme) }} />{l.service}</span>
                  <span class="line-message">{l.message}</span>
                </div>
                {isOpen && <OpenLine line={l} view={view} owner={owners[k]!} />}
              </div>
            );
          })}
        </div>
        {!shown.length && <p class="quiet pad">{logs.length ? 'No line matches.' : 'No service logged anything with this tracking ID.'}</p>}
      </div>
    </div>
  );
}

/** A line's name in a link: its time, and its place among lines of the same instant. */
function lineName(logs: readonly LogLine[], k: number): string {
  let same = 0;
  for (let j = k - 1; j >= 0 && logs[j]!.time_unix_nano === logs[k]!.time_unix_nano; j--) same++;
  return same ? `${logs[k]!.time_unix_nano}.${same}` : logs[k]!.time_unix_nano;
}

export function openLine(view: View, k: number): void {
  adjust({ tab: null, log: lineName(view.story.logs, k), q: null, level: null, of: null });
}

const haystacks = new WeakMap<LogLine, string>();

function haystack(l: LogLine): string {
  let h = haystacks.get(l);
  if (h === undefined) {
    h = `${l.message} ${l.service} ${l.level} ${l.logger ?? ''} ${l.attributes ? JSON.stringify(l.attributes) : ''} ${l.body ? JSON.stringify(l.body) : ''}`.toLowerCase();
    haystacks.set(l, h);
  }
  return h;
}

function OpenLine({ line, view, owner }: { line: LogLine; view: View; owner: number }) {
  const span = owner >= 0 ? view.tree.spans[owner]! : null;
  const told: Record<string, string> = { time: new Date(unixMillis(line.time_unix_nano)).toISOString().replace(/\.\d+Z$/, `.${line.time_unix_nano.slice(-9)}Z`) };
  if (span) told['span'] = span.operation;
  else if (line.span_id) told['span'] = `${line.span_id} (not here)`;
  if (line.logger) told['logger'] = line.logger;
  return (
    <div class="line-open">
      <pre class="line-full">{line.message}</pre>
      <Values values={{ ...told, ...(line.attributes ?? {}), ...(line.body !== null && line.body !== undefined ? { body: line.body } : {}) }} />
    </div>
  );
}
